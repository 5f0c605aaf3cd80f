//! `send` and `recv`: what goes in comes out, whoever is killed.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};

use eshm::{PeerState, Role};
use nix::sys::signal::Signal;
use support::{Place, Running, until};

/// Bytes without a pattern that a shifted block could hide in.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn numbers(from: u32, to: u32) -> String {
    (from..to).map(|number| format!("{number}\n")).collect()
}

#[test]
fn lines_go_through_unchanged() {
    let place = Place::new();
    let input = numbers(0, 50_000) + "\nlast line without an end, Grüße";
    let recv = place.start(&["recv", "a"]);
    place.feed(&["send", "a"], input.as_bytes()).ok();
    assert_eq!(recv.end().ok().text(), input + "\n");
}

#[test]
fn each_side_can_have_either_role_and_come_first() {
    for (first, second) in
        [(["recv", "master"], ["send", "slave"]), (["recv", "slave"], ["send", "master"])]
    {
        let place = Place::new();
        let recv = place.start(&[first[0], "a", "--role", first[1]]);
        place.feed(&[second[0], "a", "--role", second[1]], b"1\n2\n").ok();
        assert_eq!(recv.end().ok().text(), "1\n2\n", "{first:?}");
    }
    let place = Place::new();
    let (send, mut stdin) = place.start_fed(&["send", "a"]);
    stdin.write_all(b"1\n2\n").unwrap();
    drop(stdin);
    place.until("a", |now| now.stats.master_to_slave.written == 2);
    assert_eq!(place.run(&["recv", "a"]).ok().text(), "1\n2\n");
    send.end().ok();
}

#[test]
fn records_and_zero_ended_lines_may_hold_anything() {
    let mut records = Vec::new();
    for len in [0usize, 1, 47, 48, 49, 5000, 100_000] {
        records.extend_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        records.extend_from_slice(&noise(len));
    }
    for (format, input) in [("records", records), ("nul", b"a\nb\0\0c\x1b[2J\0".to_vec())] {
        let place = Place::new();
        let recv = place.start(&["recv", "a", "--format", format, "--ack"]);
        place.feed(&["send", "a", "--format", format], &input).ok();
        assert_eq!(recv.end().ok().stdout, input, "{format}");
    }
}

#[test]
fn a_file_arrives_as_it_was() {
    for len in [0, 1, 131_056, 131_072, 131_073, 5 << 20] {
        let place = Place::new();
        let (from, to) = (place.file("from"), place.file("to"));
        fs::write(&from, noise(len)).unwrap();
        let recv = place.start(&["recv", "a", "--file", to.to_str().unwrap()]);
        place.run(&["send", "a", "--file", from.to_str().unwrap()]).ok();
        recv.end().ok();
        assert!(fs::read(&to).unwrap() == noise(len), "{len} bytes");
        assert!(!place.file("to.part").exists());
    }
}

#[test]
fn a_file_goes_from_stdin_to_stdout_too() {
    let place = Place::new();
    let recv = place.start(&["recv", "a", "--file", "-"]);
    place.feed(&["send", "a", "--file", "-"], &noise(3 << 20)).ok();
    assert!(recv.end().ok().stdout == noise(3 << 20));
}

#[test]
fn a_killed_sender_goes_on_where_it_was() {
    let place = Place::new();
    let (from, to) = (place.file("from"), place.file("to"));
    fs::write(&from, noise(6 << 20)).unwrap();
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let send = ["send", "a", "--file", from, "--block", "4K"];
    let first = place.start(&send);
    place.until("a", |now| now.stats.master_to_slave.written > 10);
    first.kill();
    let journal = place.left().into_iter().find(|name| name.starts_with(".eshm-send_"));
    assert!(journal.is_some(), "{:?}", place.left());
    let recv = place.start(&["recv", "a", "--file", to]);
    place.until("a", |now| now.stats.master_to_slave.read > 5);
    let second = place.start(&send);
    let sent = second.end().ok();
    assert!(sent.stderr.contains("going on after"), "{}", sent.stderr);
    recv.end().ok();
    assert!(fs::read(to).unwrap() == noise(6 << 20));
}

#[test]
fn the_death_of_a_sender_is_no_end() {
    let place = Place::new();
    let (send, mut stdin) = place.start_fed(&["send", "a"]);
    let mut recv = Running::bare(&mut place.command(&["recv", "a"]));
    let mut said = BufReader::new(recv.child.stderr.take().unwrap()).lines().map_while(Result::ok);
    stdin.write_all(b"before\n").unwrap();
    place.until("a", |now| now.stats.master_to_slave.read == 1);
    send.kill();
    assert!(said.any(|line| line.contains("died; waiting for its successor")));
    place.feed(&["send", "a", "--timeout", "10s"], b"after\n").ok();
    drop(said);
    assert_eq!(recv.end().ok().text(), "before\nafter\n");
}

#[test]
fn a_killed_sender_of_lines_sends_none_twice() {
    let place = Place::new();
    let (from, text) = (place.file("from"), numbers(0, 40_000));
    fs::write(&from, &text).unwrap();
    let from = from.to_str().unwrap();
    let first = place.start(&["send", "a", "-i", from]);
    place.until("a", |now| now.stats.master_to_slave.written > 1000);
    first.kill();
    let recv = place.start(&["recv", "a"]);
    place.run(&["send", "a", "-i", from]).ok();
    assert_eq!(recv.end().ok().text(), text);
}

#[test]
fn another_input_does_not_follow_a_half_sent_one_unasked() {
    let place = Place::new();
    let (from, other) = (place.file("from"), place.file("other"));
    fs::write(&from, numbers(0, 40_000)).unwrap();
    fs::write(&other, "x\n").unwrap();
    let first = place.start(&["send", "a", "-i", from.to_str().unwrap()]);
    place.until("a", |now| now.stats.master_to_slave.written > 0);
    first.kill();
    let refused = place.run(&["send", "a", "-i", other.to_str().unwrap(), "--keep"]).code(1);
    assert!(refused.stderr.contains("--fresh"), "{}", refused.stderr);
    let written = || eshm::inspect_in(place.dir(), "a").unwrap().stats.master_to_slave.written;
    let before = written();
    let piped = place.feed(&["send", "a", "--keep", "--timeout", "1s"], b"x\n").code(1);
    assert_eq!(piped.stderr, refused.stderr);
    assert_eq!(written(), before);
    // The journal goes with the bus.
    place.run(&["rm", "a"]).ok();
}

#[test]
fn a_pipe_that_follows_a_half_sent_file_ends_its_journal() {
    let place = Place::new();
    let from = place.file("from");
    fs::write(&from, numbers(0, 40_000)).unwrap();
    let from = from.to_str().unwrap();
    let first = place.start(&["send", "a", "-i", from]);
    place.until("a", |now| now.stats.master_to_slave.written > 0);
    first.kill();
    let recv = place.start(&["recv", "a", "--follow"]);
    place.feed(&["send", "a", "--fresh", "--keep"], b"x\n").ok();
    // Else it would count that message as one of its own, and leave one out.
    place.run(&["send", "a", "-i", from]).ok();
    recv.signal(Signal::SIGINT);
    let text = recv.end().code(130).text();
    assert!(text.ends_with(&format!("\nx\n{}", numbers(0, 40_000))), "{} bytes", text.len());
    place.sweep();
}

#[test]
fn a_directory_is_no_input() {
    let place = Place::new();
    let refused = place.run(&["send", "a", "-i", place.dir().to_str().unwrap()]).code(9);
    assert!(refused.stderr.contains(&format!("{}: ", place.dir().display())), "{}", refused.stderr);
}

#[test]
fn a_killed_receiver_with_ack_loses_nothing() {
    let place = Place::new();
    let (to, text) = (place.file("to"), numbers(0, 30_000));
    let recv = ["recv", "a", "--ack", "-o", to.to_str().unwrap(), "--append"];
    let (send, mut stdin) = place.start_fed(&["send", "a", "--rate", "30k"]);
    let input = text.clone();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    for part in 1..4 {
        let receiver = place.start(&recv);
        until("some lines", || fs::read(&to).is_ok_and(|got| got.len() > part * 20_000));
        receiver.kill();
    }
    let last = place.start(&recv);
    writer.join().unwrap();
    send.end().ok();
    last.end().ok();
    let got = fs::read_to_string(&to).unwrap();
    let mut lines: Vec<u32> = got.lines().map(|line| line.parse().unwrap()).collect();
    assert!(lines.is_sorted(), "order is kept");
    assert!(lines.len() <= 30_003, "at most one line twice for each kill");
    lines.dedup();
    assert!(lines.into_iter().eq(0..30_000), "every line came");
}

#[test]
fn with_ack_only_what_was_written_out_has_left_the_bus() {
    let place = Place::new();
    let line = "a line that is long enough to fill a pipe\n";
    place.feed(&["send", "a", "--keep"], line.repeat(8000).as_bytes()).ok();
    let mut recv = Running::bare(&mut place.command(&["recv", "a", "--ack"]));
    let mut pipe = recv.child.stdout.take().unwrap();
    // Nobody reads, so it stops in the middle of a write.
    place.until("a", |now| now.stats.master_to_slave.read > 500);
    recv.kill();
    let mut written = String::new();
    pipe.read_to_string(&mut written).unwrap();
    let taken = eshm::inspect_in(place.dir(), "a").unwrap().stats.master_to_slave.read;
    let lines = written.matches('\n').count() as u64;
    assert!((taken..=taken + 1).contains(&lines), "{taken} taken, {lines} written");
    place.run(&["rm", "a"]).ok();
}

#[test]
fn a_killed_receiver_of_a_file_goes_on() {
    let place = Place::new();
    let (from, to) = (place.file("from"), place.file("to"));
    fs::write(&from, noise(20 << 20)).unwrap();
    let recv = ["recv", "a", "--file", to.to_str().unwrap()];
    let send = place.start(&["send", "a", "--file", from.to_str().unwrap(), "--block", "16K"]);
    for part in 1..4u64 {
        let receiver = place.start(&recv);
        let part_file = place.file("to.part");
        until("some blocks", || {
            fs::metadata(&part_file).is_ok_and(|about| about.len() > part << 20)
        });
        receiver.kill();
    }
    let last = place.start(&recv);
    send.end().ok();
    last.end().ok();
    assert!(fs::read(&to).unwrap() == noise(20 << 20));
}

#[test]
fn counts_end_a_command_early_and_leave_the_rest() {
    let place = Place::new();
    let sent = place
        .feed(&["send", "a", "--keep", "--count", "5", "--json"], numbers(0, 10).as_bytes())
        .ok();
    assert_eq!(sent.json()["messages"], 5);
    let mut holder =
        place.bus("a").role(Role::Master).cleanup(eshm::Cleanup::Never).open().unwrap();
    holder.write(b"from the test").unwrap();
    assert_eq!(place.run(&["recv", "a", "--count", "2"]).ok().text(), "0\n1\n");
    let lines = place.run(&["recv", "a", "--json", "-n", "4", "--ack"]).ok().json_lines();
    let texts: Vec<&str> = lines.iter().map(|line| line["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["2", "3", "4", "from the test"]);
    assert_eq!((lines[3]["number"].as_u64(), lines[3]["epoch"].as_u64()), (Some(5), Some(2)));
    drop(holder);
    place.run(&["rm", "a"]).ok();
}

#[test]
fn waiting_has_an_end_when_a_time_is_given() {
    let place = Place::new();
    let recv = place.run(&["recv", "a", "--timeout", "10ms"]).code(3);
    assert!(recv.stderr.contains("eshm ls"), "{}", recv.stderr);
    let send = place.feed(&["send", "a", "--timeout", "10ms"], b"1\n").code(4);
    assert!(
        send.stderr.contains("1 message unread") && send.stderr.contains("eshm recv a"),
        "{}",
        send.stderr
    );
    let full = place
        .feed(&["send", "b", "--timeout", "10ms", "--frames", "8"], numbers(0, 100).as_bytes())
        .code(4);
    assert!(full.stderr.contains("no slave is there yet"), "{}", full.stderr);
    let _master = place.bus("c").role(Role::Master).open().unwrap();
    let quiet = place.run(&["recv", "c", "--timeout", "10ms"]).code(4);
    assert!(quiet.stderr.contains("is alive"), "{}", quiet.stderr);
    drop(_master);
    place.sweep();
}

#[test]
fn a_taken_role_names_its_owner_and_the_way_out() {
    let place = Place::new();
    let _master = place.bus("a").role(Role::Master).open().unwrap();
    let taken = place.feed(&["send", "a"], b"1\n").code(5);
    let pid = std::process::id().to_string();
    assert!(taken.stderr.contains(&pid) && taken.stderr.contains("--takeover"), "{}", taken.stderr);
    let taken = place.feed(&["send", "a", "--json"], b"1\n").code(5);
    let told: serde_json::Value = serde_json::from_str(taken.stderr.trim()).unwrap();
    assert_eq!(told["exit"], 5);
}

#[test]
fn a_message_longer_than_the_ring_names_the_remedy() {
    let place = Place::new();
    let long = vec![b'x'; 300_000];
    let refused = place.feed(&["send", "a"], &long);
    assert_eq!(refused.code, 2, "{}", refused.stderr);
    let said = refused.stderr;
    assert!(said.contains("too long") && said.contains("--frames"), "{said}");
}

#[test]
fn signals_end_both_sides_and_leave_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = Place::new();
        let (send, stdin) = place.start_fed(&["send", "a"]);
        let recv = place.start(&["recv", "a"]);
        place.until("a", |now| {
            now.stats.slave.state == PeerState::Alive && now.stats.master.state == PeerState::Alive
        });
        recv.signal(signal);
        recv.end().code(128 + signal as i32);
        send.signal(signal);
        send.end().code(128 + signal as i32);
        drop(stdin);
        assert!(place.left().is_empty());
    }
}

#[test]
fn a_signal_ends_the_wait_for_a_reader_and_for_a_master() {
    let place = Place::new();
    let (send, mut stdin) = place.start_fed(&["send", "a"]);
    stdin.write_all(b"1\n").unwrap();
    drop(stdin);
    place.until("a", |now| now.stats.master_to_slave.written == 1);
    send.signal(Signal::SIGTERM);
    send.end().code(143);
    place.run(&["rm", "a"]).ok();
    let mut recv = Running::bare(&mut place.command(&["recv", "b"]));
    let mut said = [0; 5];
    recv.child.stderr.as_mut().unwrap().read_exact(&mut said).unwrap();
    recv.signal(Signal::SIGINT);
    recv.end().code(130);
}

#[test]
fn a_closed_pipe_ends_recv_quietly_and_loses_nothing_that_is_acknowledged() {
    let place = Place::new();
    // More than a pipe holds, so that there is still something to write when nobody reads any more.
    let lines: String = (0..5000).map(|number| format!("{number:>40}\n")).collect();
    let _kept = place.feed(&["send", "a", "--keep"], lines.as_bytes()).ok();
    let mut recv = Running::bare(&mut place.command(&["recv", "a", "--ack", "--follow"]));
    let mut first = [0; 2];
    recv.child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(recv.child.stdout.take());
    let ended = recv.end().code(141);
    assert_eq!(ended.stderr, "");
    let left = eshm::inspect_in(place.dir(), "a").unwrap().stats.master_to_slave;
    assert!(left.read < 5000 && left.backlog > 0);
    place.run(&["rm", "a"]).ok();
}

#[test]
fn what_a_sender_did_not_end_is_told_to_the_receiver_of_a_file() {
    let place = Place::new();
    let to = place.file("to");
    let (send, mut stdin) = place.start_fed(&["send", "a", "--file", "-"]);
    stdin.write_all(&noise(10_000)).unwrap();
    let recv = place.start(&["recv", "a", "--file", to.to_str().unwrap()]);
    until("the part", || fs::metadata(place.file("to.part")).is_ok_and(|about| about.len() > 0));
    send.signal(Signal::SIGTERM);
    send.end().code(143);
    let cut = recv.end().code(6);
    assert!(cut.stderr.contains("kept in"), "{}", cut.stderr);
    assert!(!to.exists());
}
