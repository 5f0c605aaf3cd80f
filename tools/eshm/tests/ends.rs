//! What becomes of a bus and of its messages: nothing unread goes away unasked, and whoever removes
//! says what was done.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::process::{Command, Stdio};

use eshm::{Cleanup, PeerState, Role};
use nix::sys::signal::Signal;
use serde_json::json;
use support::{Place, Ran, Running};

fn numbers(from: u32, to: u32) -> String {
    (from..to).map(|number| format!("{number}\n")).collect()
}

/// A bus that was left empty and is wanted to stay.
fn empty(place: &Place, name: &str) {
    drop(place.bus(name).role(Role::Master).cleanup(Cleanup::Never).open().unwrap());
}

#[test]
fn gc_keeps_what_is_unread_and_says_why() {
    let place = Place::new();
    let living = place.bus("living").role(Role::Master).open().unwrap();
    let pid = place.orphan("orphan");
    empty(&place, "unwanted");
    let own = std::process::id();
    let keeps = format!(
        "keep living: the master (pid {own}) lives\n\
         keep orphan: 3 messages unread, 0 s old; master dead (pid {pid}), slave never there\n"
    );
    let why = format!("unwanted: master left (pid {own}), slave never there, 0 s old\n");
    let dry = place.run(&["gc", "--dry-run"]).ok().text();
    assert_eq!(dry, format!("{keeps}would remove {why}"));
    assert_eq!(place.left(), ["eshm_living", "eshm_orphan", "eshm_unwanted"]);
    let young = place.run(&["gc", "--older", "1h"]).ok().text();
    for name in ["orphan", "unwanted"] {
        assert!(young.contains(&format!("keep {name}: only 0 s old")), "{young}");
    }
    assert_eq!(place.run(&["gc"]).ok().text(), format!("{keeps}removed {why}"));
    assert_eq!(place.left(), ["eshm_living", "eshm_orphan"]);
    let again = place.run(&["gc", "--json"]).ok().json_lines();
    assert_eq!((again.len(), &again[1]["removed"]), (2, &json!(false)));
    let old = place.run(&["gc", "--older", "0s"]).ok().text();
    assert!(
        old.contains("removed orphan: master dead") && old.contains("3 messages unread"),
        "{old}"
    );
    drop(living);
}

#[test]
fn a_bus_whose_killed_sender_was_read_out_is_garbage() {
    let place = Place::new();
    place.orphan("a");
    assert_eq!(place.run(&["recv", "a", "-n", "3"]).ok().text(), "1\n2\n3\n");
    // A killed sender may come back, so the bus waits for it; nobody else has to.
    assert_eq!(place.left(), ["eshm_a"]);
    let gone = place.run(&["gc"]).ok().text();
    assert!(gone.contains("removed a: master dead"), "{gone}");
}

#[test]
fn gc_takes_the_journal_of_a_killed_sender_with_the_bus() {
    let place = Place::new();
    let from = place.file("from");
    fs::write(&from, numbers(0, 40_000)).unwrap();
    let send = place.start(&["send", "a", "-i", from.to_str().unwrap()]);
    place.until("a", |now| now.stats.master_to_slave.written > 0);
    send.kill();
    assert_eq!(place.left().len(), 2);
    let dry = place.run(&["gc", "--older", "0s", "-n"]).ok().text();
    assert!(dry.contains("would remove .eshm-send_a_master"), "{dry}");
    let kept = place.run(&["gc"]).ok().text();
    assert!(!kept.contains(".eshm-send"), "it is of use as long as the bus is there: {kept}");
    place.run(&["gc", "--older", "0s"]).ok();
    assert_eq!(place.left(), [] as [&str; 0]);
}

#[test]
fn gc_looks_into_what_was_moved_aside() {
    let place = Place::new();
    let aside = |name: &str| {
        let to = place.dir().join(format!("eshm_{name}~0123456789abcdef"));
        fs::rename(place.dir().join(format!("eshm_{name}")), to).unwrap();
    };
    place.orphan("full");
    empty(&place, "empty");
    aside("full");
    aside("empty");
    let listed = place.run(&["ls"]).ok().text();
    assert_eq!(listed.matches("leftover").count(), 2, "{listed}");
    assert_eq!(listed.matches("0 s ago").count(), 2, "{listed}");
    let young = place.run(&["gc", "--older", "1h"]).ok().text();
    assert!(young.lines().all(|line| line.starts_with("keep ")), "{young}");
    let text = place.run(&["gc"]).ok().text();
    assert!(text.contains("removed empty~0123456789abcdef: the bus empty, moved aside"), "{text}");
    assert!(text.contains("keep full~0123456789abcdef: 3 messages unread"), "{text}");
    assert_eq!(place.left(), ["eshm_full~0123456789abcdef"]);
    place.run(&["rm", "full~0123456789abcdef"]).ok();
}

#[test]
fn rm_says_what_went_with_it() {
    let place = Place::new();
    place.orphan("a");
    let gone = place.run(&["rm", "a"]).ok();
    assert_eq!(gone.stderr, "removed a, with 3 unread messages\n");
    place.orphan("b");
    let gone = place.run(&["rm", "b", "--json"]).ok().json();
    let expected =
        json!({ "name": "b", "removed": true, "emptied": false, "unread": 3, "why": null });
    assert_eq!(gone, expected);
    let held = place.bus("c").role(Role::Master).open().unwrap();
    let kept = place.run(&["rm", "c", "--json"]).code(5);
    assert_eq!((&kept.json()["removed"], &kept.json()["unread"]), (&json!(false), &json!(0)));
    drop(held);
}

#[test]
fn a_receiver_that_takes_ten_leaves_the_rest_of_a_killed_sender() {
    for ack in [&[][..], &["--ack"]] {
        let place = Place::new();
        let (send, mut stdin) = place.start_fed(&["send", "a"]);
        stdin.write_all(numbers(0, 1000).as_bytes()).unwrap();
        place.until("a", |now| now.stats.master_to_slave.written == 1000);
        send.kill();
        let recv = |count: &str| {
            let args = [&["recv", "a", "-n", count], ack].concat();
            place.run(&args).ok().text()
        };
        assert_eq!(recv("10"), numbers(0, 10), "{ack:?}");
        assert_eq!(eshm::inspect_in(place.dir(), "a").unwrap().unread, [990, 0]);
        assert_eq!(recv("990"), numbers(10, 1000), "{ack:?}");
        place.run(&["gc"]).ok();
    }
}

#[test]
fn ctrl_c_on_an_acknowledging_receiver_loses_nothing() {
    let place = Place::new();
    let text = numbers(0, 1000);
    place.feed(&["send", "a", "--keep"], text.as_bytes()).ok();
    let recv = ["recv", "a", "--ack", "--rate", "500"];
    let mut first = Running::bare(&mut place.command(&recv));
    let mut taken = [0; 100];
    first.child.stdout.as_mut().unwrap().read_exact(&mut taken).unwrap();
    first.signal(Signal::SIGINT);
    let first = first.end().code(130);
    let taken = String::from_utf8_lossy(&taken).into_owned() + &first.text();
    let rest = place.run(&["recv", "a", "--ack"]).ok().text();
    assert!(!rest.is_empty(), "it was stopped half-way");
    assert_eq!(taken + &rest, text);
    place.sweep();
}

#[test]
fn a_sender_that_ends_before_its_reader_comes_leaves_its_messages() {
    for (args, code) in
        [(&["send", "a", "--timeout", "10ms"][..], 4), (&["send", "a", "--keep"], 0)]
    {
        let place = Place::new();
        place.feed(args, b"1\n2\n").code(code);
        assert_eq!(place.run(&["recv", "a"]).ok().text(), "1\n2\n", "{args:?}");
        place.sweep();
    }
    let place = Place::new();
    let (send, mut stdin) = place.start_fed(&["send", "a"]);
    stdin.write_all(b"1\n2\n").unwrap();
    place.until("a", |now| now.stats.master_to_slave.written == 2);
    send.signal(Signal::SIGTERM);
    send.end().code(143);
    assert_eq!(place.run(&["recv", "a"]).ok().text(), "1\n2\n");
    assert!(place.left().is_empty(), "both have left, and nothing is unread");
}

#[test]
fn the_wish_for_the_end_is_an_option() {
    let wish = |cleanup: &str| {
        let place = Place::new();
        place.feed(&["send", "a", "--timeout", "10ms", "--cleanup", cleanup], b"1\n");
        let left = place.left();
        place.sweep();
        left
    };
    assert_eq!(wish("when-read"), ["eshm_a"], "something is unread");
    assert_eq!(wish("always"), [] as [&str; 0]);
    assert_eq!(wish("never"), ["eshm_a"]);
    let place = Place::new();
    place.feed(&["send", "a", "--keep"], b"1\n").ok();
    place.run(&["recv", "a", "--cleanup", "always"]).ok();
    assert_eq!(place.left(), ["eshm_a"], "the more careful wish of the two counts");
    place.feed(&["send", "a", "--keep", "--cleanup", "always"], b"1\n").code(2);
    place.sweep();
}

#[test]
fn a_receiver_without_stdout_takes_nothing() {
    let place = Place::new();
    place.feed(&["send", "a", "--keep"], numbers(0, 10).as_bytes()).ok();
    for args in ["recv a", "recv a --ack", "recv a --file -", "recv a --json"] {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {} {args} >&-", env!("CARGO_BIN_EXE_eshm"))]);
        shell.env("ESHM_DIR", place.dir()).stdin(Stdio::null());
        let ran = Ran::of(shell.output().unwrap()).code(9);
        assert!(ran.stderr.contains("stdout is closed"), "{args}: {}", ran.stderr);
    }
    assert_eq!(eshm::inspect_in(place.dir(), "a").unwrap().unread, [10, 0]);
    // To throw messages away is another wish.
    let mut thrown = place.command(&["recv", "a"]);
    assert!(thrown.stdout(fs::File::create("/dev/null").unwrap()).status().unwrap().success());
    assert_eq!(eshm::inspect_in(place.dir(), "a").unwrap().unread, [0, 0]);
    place.sweep();
}

#[test]
fn a_file_can_be_sent_slowly() {
    let place = Place::new();
    let (from, to) = (place.file("from"), place.file("to"));
    fs::write(&from, vec![7; 40_960]).unwrap();
    let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
    let recv = place.start(&["recv", "a", "--file", to]);
    let started = std::time::Instant::now();
    place.run(&["send", "a", "--file", from, "--block", "4K", "--rate", "50"]).ok();
    recv.end().ok();
    // Ten blocks and the look for an eleventh: two tenths of a second at least.
    assert!(started.elapsed().as_millis() >= 190, "{:?}", started.elapsed());
}

#[test]
fn echo_and_ping_leave_nothing_behind() {
    let place = Place::new();
    let echo = place.start(&["echo", "a"]);
    place.until("a", |now| now.stats.master.state == PeerState::Alive);
    let ping = place.start(&["ping", "a", "-n", "1M", "--rate", "1000"]);
    place.until("a", |now| now.stats.slave_to_master.read > 10);
    echo.signal(Signal::SIGSTOP);
    ping.signal(Signal::SIGINT);
    ping.end().code(130);
    echo.signal(Signal::SIGINT);
    echo.signal(Signal::SIGCONT);
    echo.end().code(130);
    assert!(place.left().is_empty(), "{:?}", place.left());
}
