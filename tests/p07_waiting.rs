//! Promise 7: a waiting reader sleeps in the kernel and is woken by the writer; no wake-up is
//! missed; and a writer that nobody waits for makes no system call (see also `hot_path.rs`).
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use eshm::{Endpoint, Error, Role, Wait};
use support::*;

children! { "echo" => echo }

const ROUNDS: u64 = 50_000;

/// Sends back what comes, sleeping before each message.
fn echo(talk: &mut Talk) {
    let mut bus = servant::options(talk.word(0), &["role=slave", "park=1"]).open().unwrap();
    talk.say("ready");
    let mut bytes = [0; 64];
    for _ in 0..ROUNDS {
        let len = bus.read(&mut bytes).unwrap();
        bus.write(&bytes[..len]).unwrap();
    }
    talk.say("done");
    talk.hear();
}

/// Both sides sleep before nearly every message. Whoever sleeps is woken: a wake-up that was missed
/// would be a sleep that ended by itself.
#[test]
fn no_wake_up_is_missed_in_a_hundred_thousand_sleeps() {
    let bus = Bus::new("p07rounds");
    let mut master = bus.options(Role::Master).wait(Wait::Park).open().unwrap();
    let mut child = Child::spawn("echo", bus.name());
    child.expect("ready");
    let mut bytes = [0; 64];
    for round in 0..ROUNDS {
        master.write(&round.to_le_bytes()).unwrap();
        assert_eq!(master.read(&mut bytes), Ok(8));
        assert_eq!(bytes[..8], round.to_le_bytes());
        if round % 100 == 0 {
            nobody_woke_by_himself(&master);
        }
    }
    child.expect("done");
    nobody_woke_by_himself(&master);
    let stats = master.stats();
    for ring in [stats.master_to_slave, stats.slave_to_master] {
        assert!(ring.reader_parks > ROUNDS / 2, "hardly anybody slept: {ring:?}");
    }
    child.tell("bye");
    child.finish();
}

/// Each sleep was ended by the other side; a few may end for another reason.
fn nobody_woke_by_himself(endpoint: &Endpoint) {
    let stats = endpoint.stats();
    for ring in [stats.master_to_slave, stats.slave_to_master] {
        let by_itself = ring.reader_parks.saturating_sub(ring.reader_wakes);
        assert!(by_itself <= ROUNDS / 1000, "{by_itself} sleeps ended by themselves: {ring:?}");
    }
}

fn sleeps(endpoint: &mut Endpoint, wake: impl FnOnce(), asleep: impl Fn() -> bool) {
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| endpoint.read_timeout(&mut [0; 64], PATIENCE));
        until("it sleeps", asleep);
        wake();
        assert_eq!(reading.join().unwrap(), Ok(8));
    });
}

#[test]
fn a_sleeping_reader_uses_no_time_and_is_woken() {
    for wait in [Wait::Adaptive, Wait::Park] {
        let bus = Bus::new("p07sleep");
        let mut master = bus.master();
        let mut slave = bus.options(Role::Slave).wait(wait).open().unwrap();
        let watch = slave.watch();
        let parks = || watch.stats().master_to_slave.reader_parks;
        sleeps(&mut slave, || master.write(&message(0, 8)).unwrap(), || parks() >= 3);
        // Three parks are more than a tenth of a second, and not ten thousand.
        assert!(parks() < 1000, "it spins: {} parks", parks());
    }
}

#[test]
fn a_sleeping_writer_is_woken_when_there_is_room() {
    let bus = Bus::new("p07room");
    let mut master = bus.options(Role::Master).frames(16).wait(Wait::Park).open().unwrap();
    let mut slave = bus.slave();
    let watch = master.watch();
    let mut sent = 0;
    while master.try_write(&message(sent, 8)).is_ok() {
        sent += 1;
    }
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in sent..sent + 100 {
                master.write(&message(number, 8)).unwrap();
            }
        });
        until("it sleeps", || watch.stats().master_to_slave.writer_parks > 0);
        for number in 0..sent + 100 {
            assert_eq!(read_number(&mut slave), number);
        }
        writing.join().unwrap();
    });
    let ring = master.stats().master_to_slave;
    assert!(ring.writer_wakes > 0 && ring.times_full > 0, "{ring:?}");
}

#[test]
fn nobody_is_woken_who_does_not_sleep() {
    let bus = Bus::new("p07busy");
    let (mut master, mut slave) = bus.pair();
    for number in 0..100_000u64 {
        master.try_write(&number.to_le_bytes()).unwrap();
        assert_eq!(slave.try_read_value::<u64>(), Ok(number));
        if number % 100 == 0 {
            assert_eq!(slave.try_read(&mut [0; 8]), Err(Error::Empty));
        }
    }
    let ring = master.stats().master_to_slave;
    assert_eq!((ring.reader_parks, ring.reader_wakes, ring.writer_wakes), (0, 0, 0));
}

#[test]
fn a_time_out_is_kept_and_nothing_is_consumed() {
    let bus = Bus::new("p07timeout");
    let (mut master, mut slave) = bus.pair();
    for wait in [Duration::ZERO, Duration::from_millis(3), Duration::from_millis(120)] {
        let started = std::time::Instant::now();
        assert_eq!(slave.read_timeout(&mut [0; 8], wait), Err(Error::Timeout));
        assert!(started.elapsed() >= wait, "too early");
        assert!(matches!(slave.peek_timeout(wait / 4), Err(Error::Timeout)));
    }
    master.write(&message(0, 8)).unwrap();
    assert_eq!(read_number(&mut slave), 0);
}
