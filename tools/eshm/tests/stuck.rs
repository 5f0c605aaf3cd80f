//! Commands that wait for somebody who does not come: one who reads their output, opens the other end
//! of a named pipe, or makes the bus. A signal ends each wait at once, and nothing is lost unsaid.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{ChildStdout, Stdio};
use std::time::Duration;

use eshm::Role;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use support::{Place, Ran, Running, until};

const LINES: u64 = 8000;

fn line(number: u64) -> String {
    format!("{number:>41}\n")
}

/// A bus with more in it than a pipe holds.
fn filled() -> Place {
    let place = Place::new();
    let lines: String = (0..LINES).map(line).collect();
    place.feed(&["send", "a", "--keep"], lines.as_bytes()).ok();
    place
}

/// The program, once it waits for somebody to read what it has written; and its output.
fn stuck(place: &Place, args: &[&str]) -> (Running, ChildStdout) {
    let mut program = Running::bare(&mut place.command(args));
    let pipe = program.child.stdout.take().unwrap();
    until_stuck(&program);
    (program, pipe)
}

/// Until it has written much, and then no more for many looks.
fn until_stuck(program: &Running) {
    let (mut before, mut looks) = (0, 0);
    until("a full pipe", || {
        let io = fs::read_to_string(format!("/proc/{}/io", program.pid())).unwrap();
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap();
        let written = written.parse::<u64>().unwrap();
        looks = if written == before { looks + 1 } else { 0 };
        before = written;
        // How much a pipe or a socket takes depends on the sizes of the writes.
        written > 30_000 && looks > 50
    });
}

/// Ends it by a signal while nobody reads; what it has written is read afterwards.
fn ended(program: Running, mut pipe: impl Read, signal: Signal) -> (Ran, String) {
    program.signal(signal);
    let ran = program.end().code(128 + signal as i32);
    let mut written = String::new();
    pipe.read_to_string(&mut written).unwrap();
    (ran, written)
}

#[test]
fn a_signal_ends_a_receiver_that_nobody_reads_and_ack_loses_nothing() {
    for (signal, args) in [
        (Signal::SIGINT, &["recv", "a", "--ack"][..]),
        (Signal::SIGTERM, &["recv", "a", "--ack", "-o", "/dev/stdout"]),
    ] {
        let place = filled();
        let (recv, pipe) = stuck(&place, args);
        let (_, written) = ended(recv, pipe, signal);
        let whole = written.matches('\n').count() as u64;
        let taken = eshm::inspect_in(place.dir(), "a").unwrap().stats.master_to_slave.read;
        assert!((taken..=taken + 1).contains(&whole), "{taken} taken, {whole} written");
        assert!(
            written.lines().eq((0..LINES).map(line).collect::<String>()[..written.len()].lines())
        );
        let rest = place.run(&["recv", "a"]).ok().text();
        assert_eq!(rest, (taken..LINES).map(line).collect::<String>());
        place.sweep();
    }
}

#[test]
fn without_ack_it_says_how_much_was_taken_and_not_written() {
    let place = filled();
    let (recv, pipe) = stuck(&place, &["recv", "a"]);
    let (ran, written) = ended(recv, pipe, Signal::SIGTERM);
    assert_told(&place, &ran, &written);
}

/// A socket cannot be opened once more, as a pipe can.
#[test]
fn a_signal_ends_what_writes_to_a_socket_that_nobody_reads() {
    let place = filled();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = place.command(&["recv", "a"]);
    let recv = Running::bare(command.stdout(Stdio::from(OwnedFd::from(theirs))));
    drop(command);
    until_stuck(&recv);
    let (ran, written) = ended(recv, ours, Signal::SIGINT);
    assert_told(&place, &ran, &written);
}

/// What is neither written nor in the bus was counted.
fn assert_told(place: &Place, ran: &Ran, written: &str) {
    let taken = eshm::inspect_in(place.dir(), "a").unwrap().stats.master_to_slave.read;
    let lost = taken - written.matches('\n').count() as u64;
    assert!(lost > 0 && taken < LINES, "{taken} taken, {lost} lost");
    let said = format!("{} taken and not written", group(lost));
    assert!(ran.stderr.contains(&said) && ran.stderr.contains("--ack"), "{}", ran.stderr);
    place.sweep();
}

/// As the program writes a count of messages.
fn group(messages: u64) -> String {
    let digits = messages.to_string();
    match digits.len() {
        4.. => format!("{},{} messages", &digits[..digits.len() - 3], &digits[digits.len() - 3..]),
        _ => format!("{digits} messages"),
    }
}

#[test]
fn whoever_reads_slowly_gets_all_that_was_taken() {
    let place = filled();
    let (recv, mut pipe) = stuck(&place, &["recv", "a"]);
    // It is read on in the moment in which the signal comes.
    let reader = std::thread::spawn(move || {
        let mut written = String::new();
        pipe.read_to_string(&mut written).unwrap();
        written
    });
    recv.signal(Signal::SIGTERM);
    let ran = recv.end();
    let written = reader.join().unwrap();
    let taken =
        eshm::inspect_in(place.dir(), "a").map_or(LINES, |now| now.stats.master_to_slave.read);
    assert!(ran.code == 143 || ran.code == 0, "{}", ran.code);
    assert_eq!(written, (0..taken).map(line).collect::<String>());
    place.sweep();
}

#[test]
fn a_signal_ends_a_tap_a_file_and_a_watch_that_nobody_reads() {
    let place = filled();
    let (tap, pipe) = stuck(&place, &["tap", "a", "--unread"]);
    ended(tap, pipe, Signal::SIGINT);
    let (stat, pipe) = stuck(&place, &["stat", "a", "--json", "--watch", "1us"]);
    ended(stat, pipe, Signal::SIGINT);
    place.sweep();
    let from = place.file("from");
    fs::write(&from, vec![b'x'; 1 << 20]).unwrap();
    place.run(&["send", "b", "--keep", "--file", from.to_str().unwrap()]).ok();
    let (recv, pipe) = stuck(&place, &["recv", "b", "--file", "-"]);
    ended(recv, pipe, Signal::SIGTERM);
    place.sweep();
}

#[test]
fn a_signal_ends_the_wait_for_the_other_end_of_a_named_pipe() {
    let place = Place::new();
    let fifo = place.file("fifo");
    nix::unistd::mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    let fifo = fifo.to_str().unwrap();
    place.feed(&["send", "a", "--keep"], b"1\n2\n").ok();
    for args in [["recv", "a", "-o", fifo], ["send", "b", "-i", fifo]] {
        let waiting = place.start(&args);
        // Its handlers are in place once the other thing that it does first is done.
        until("it waits", || {
            let caught = fs::read_to_string(format!("/proc/{}/status", waiting.pid())).unwrap();
            let caught = caught.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
            // SIGINT and SIGTERM.
            u64::from_str_radix(caught, 16).unwrap() & 0x4002 == 0x4002
        });
        waiting.signal(Signal::SIGTERM);
        waiting.end().code(143);
    }
    assert_eq!(eshm::inspect_in(place.dir(), "a").unwrap().unread, [2, 0], "nothing was taken");
    // And both go through once somebody is there.
    let recv = place.start(&["recv", "a", "-o", fifo]);
    assert_eq!(fs::read_to_string(fifo).unwrap(), "1\n2\n");
    recv.end().ok();
    place.sweep();
    let (send, recv) = (place.start(&["send", "b", "-i", fifo]), place.start(&["recv", "b"]));
    fs::write(fifo, "3\n4\n").unwrap();
    assert_eq!(recv.end().ok().text(), "3\n4\n");
    send.end().ok();
}

/// A signal to one whose next message is always there already.
#[test]
fn a_signal_ends_what_never_has_to_wait() {
    let place = Place::new();
    let recv = place.start(&["recv", "a", "-o", "/dev/null"]);
    let mut master = place.bus("a").role(Role::Master).open().unwrap();
    let mut write = |many: usize| (0..many).for_each(|_| drop(master.try_write(b"tick")));
    place.until("a", |now| {
        write(8000);
        now.stats.master_to_slave.read > 10_000
    });
    recv.signal(Signal::SIGINT);
    while !place.has_ended(&recv) {
        write(1000);
    }
    recv.end().code(130);
    drop(master);
    place.sweep();
    let (echo, ping) = (place.start(&["echo", "b"]), place.start(&["ping", "b", "-n", "1000M"]));
    place.until("b", |now| now.stats.slave_to_master.read > 1000);
    ping.signal(Signal::SIGINT);
    ping.end().code(130);
    echo.signal(Signal::SIGINT);
    echo.end().code(130);
}

#[test]
fn opening_waits_as_long_as_it_is_told() {
    let place = Place::new();
    // Not at all: nothing is said of waiting.
    for args in [
        &["recv", "a", "--open-timeout", "0"][..],
        &["send", "a", "--role", "slave", "--open-timeout", "0"],
        &["tap", "a"],
        &["ping", "a", "--open-timeout", "0", "--timeout", "1h"],
        &["echo", "a", "--role", "slave", "--open-timeout", "0"],
    ] {
        let refused = place.run(args).code(3);
        assert!(!refused.stderr.contains("waiting"), "{args:?}: {}", refused.stderr);
    }
    // A time.
    let refused = place.run(&["recv", "a", "--open-timeout", "30ms"]).code(3);
    assert!(refused.stderr.contains("waiting for a master of a"), "{}", refused.stderr);
    place.run(&["recv", "a", "--open-timeout", "soon"]).code(2);
    // For ever, whatever limits the rest: the master comes after more than the time of the other.
    for args in [
        &["recv", "a", "--open-timeout", "forever", "--timeout", "20ms"][..],
        &["tap", "a", "--open-timeout", "forever", "--timeout", "20ms"],
    ] {
        let mut waiting = Running::bare(&mut place.command(args));
        let mut said = BufReader::new(waiting.child.stderr.take().unwrap()).lines();
        let first = said.next().unwrap().unwrap();
        assert!(first.contains("waiting for a master of a"), "{args:?}: {first}");
        // What limits the rest runs out meanwhile.
        std::thread::sleep(Duration::from_millis(40));
        let master = place.bus("a").role(Role::Master).open().unwrap();
        let told: Vec<String> = said.map_while(Result::ok).collect();
        assert!(told[0].contains("no message"), "{args:?}: {told:?}");
        waiting.end().code(4);
        drop(master);
        assert!(place.left().is_empty(), "{:?}", place.left());
    }
}
