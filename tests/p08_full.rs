//! Promise 8: full is an answer, not an accident: fail at once, wait with a timeout, or overwrite
//! the oldest with an exact count. The default never drops.
#![allow(missing_docs)]

mod support;

use std::time::{Duration, Instant};

use eshm::{Direction, Error, Geometry, Overflow, Role, Wait};
use support::*;

children! {}

#[test]
fn full_is_said_at_once_and_nothing_was_written() {
    let bus = Bus::new("p08full");
    let mut master = bus.options(Role::Master).frames(16).open().unwrap();
    let mut slave = bus.slave();
    let mut next = 0;
    for round in 0..50 {
        let first = next;
        while master.try_write(&message(next, 40)).is_ok() {
            next += 1;
        }
        // One frame stays free, and one announces the epoch the first time.
        assert!(next - first >= 14, "round {round}: only {} fit", next - first);
        assert_eq!(master.try_write(b"more"), Err(Error::Full));
        assert_eq!(master.try_claim(4).err(), Some(Error::Full));
        assert_eq!(master.try_write_many(&[b"more", b"more"]), Err(Error::Full));
        assert_eq!(master.last_committed().unwrap().number, next - 1);
        assert_eq!(drain(&mut slave), (first..next).collect::<Vec<_>>());
    }
    assert!(master.stats().master_to_slave.times_full >= 100);
}

#[test]
fn a_batch_takes_what_fits() {
    let bus = Bus::new("p08batch");
    let mut master = bus.options(Role::Master).frames(16).open().unwrap();
    let mut slave = bus.slave();
    let messages: Vec<_> = (0..40).map(|number| message(number, 40)).collect();
    let mut sent = 0;
    while sent < messages.len() {
        match master.try_write_many(&messages[sent..]) {
            Ok(count) => sent += count,
            Err(Error::Full) => {
                assert_eq!(read_number(&mut slave), slave.last_id().unwrap().number)
            }
            Err(error) => panic!("{error}"),
        }
    }
    let last = slave.last_id().unwrap().number;
    assert_eq!(drain(&mut slave), (last + 1..40).collect::<Vec<_>>());
}

#[test]
fn waiting_ends_with_a_time_out() {
    for wait in [Wait::Adaptive, Wait::Park, Wait::Spin] {
        let bus = Bus::new("p08wait");
        let mut master = bus.options(Role::Master).frames(8).wait(wait).open().unwrap();
        let mut next = 0;
        while master.try_write(&message(next, 40)).is_ok() {
            next += 1;
        }
        let limit = Duration::from_millis(20);
        let started = Instant::now();
        assert_eq!(master.write_timeout(b"more", limit), Err(Error::Timeout));
        assert!(started.elapsed() >= limit, "too early");
        assert!(matches!(master.claim_timeout(4, limit), Err(Error::Timeout)));
        let mut slave = bus.slave();
        assert_eq!(drain(&mut slave), (0..next).collect::<Vec<_>>());
        master.write_timeout(&message(next, 40), limit).unwrap();
        assert_eq!(read_number(&mut slave), next);
    }
}

#[test]
fn the_default_never_drops() {
    let bus = Bus::new("p08never");
    let mut master = bus.options(Role::Master).frames(32).open().unwrap();
    let mut slave = bus.servant("slave", "");
    assert_eq!(master.geometry(Direction::MasterToSlave).overflow, Overflow::Refuse);
    std::thread::scope(|scope| {
        scope.spawn(|| send(&mut master, 0..20_000));
        for first in (0..20_000).step_by(500) {
            slave.expect(first, 500);
        }
    });
    let ring = master.stats().master_to_slave;
    assert_eq!((ring.written, ring.read, ring.lost), (20_000, 20_000, 0));
    assert!(ring.high_water <= ring.frames);
    slave.must("leave");
}

#[test]
fn the_oldest_are_overwritten_and_counted() {
    let bus = Bus::new("p08over");
    let geometry = Geometry { frame_size: 64, frames: 64, overflow: Overflow::Overwrite };
    let mut options = bus.options(Role::Master);
    let mut master = options.direction(Direction::MasterToSlave, geometry).open().unwrap();
    let mut slave = bus.slave();
    send_short(&mut master, 0..1000);
    let first = read_number(&mut slave);
    assert!(first >= 1000 - 64, "more is left than there is room for");
    assert_eq!(slave.lost(), first);
    assert_eq!(drain(&mut slave), (first + 1..1000).collect::<Vec<_>>());
    let ring = slave.stats().master_to_slave;
    assert_eq!((ring.written, ring.read + ring.lost, ring.lost), (1000, 1000, first));
    // The other direction refuses, as it was made to.
    while slave.try_write(b"x").is_ok() {}
    assert_eq!(slave.try_write(b"x"), Err(Error::Full));
}

fn send_short(master: &mut eshm::Endpoint, numbers: std::ops::Range<u64>) {
    for number in numbers {
        master.try_write(&message(number, 40)).unwrap();
    }
}
