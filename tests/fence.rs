//! Fencing in the thick of it: operations in progress, peers that live, hang or follow late.
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use eshm::{Endpoint, Error, Role, Takeover};
use support::*;

children! {}

fn taken(bus: &Bus, role: Role, takeover: Takeover) -> Result<Endpoint, Error> {
    bus.options(role).takeover(takeover).open()
}

#[test]
fn a_claim_in_progress_is_never_delivered() {
    let bus = Bus::new("fclaim");
    let mut old = bus.servant("master", "");
    let mut slave = bus.slave();
    old.send(0, 3);
    assert_eq!(old.ask("claim 666 500"), "claimed");
    old.stop();
    let mut new = taken(&bus, Role::Master, Takeover::Hung).unwrap();
    send(&mut new, 3..5);
    old.go_on();
    let answer = old.ask("commit");
    assert!(answer.starts_with("err 0 Fenced"), "{answer}");
    send(&mut new, 5..7);
    assert_eq!(drain(&mut slave), (0..7).collect::<Vec<_>>());
}

#[test]
fn what_is_peeked_when_the_reader_is_replaced_goes_to_the_successor() {
    for verb in ["peek", "peek_many 3"] {
        let bus = Bus::new("fpeek");
        let mut master = bus.master();
        let mut old = bus.servant("slave", "");
        send(&mut master, 0..5);
        assert!(old.ask(verb).starts_with("peeked 0"));
        old.stop();
        let mut new = taken(&bus, Role::Slave, Takeover::Hung).unwrap();
        old.go_on();
        let answer = old.ask("release");
        assert!(answer.starts_with("err 0 Fenced"), "{verb}: {answer}");
        assert_eq!(drain(&mut new), (0..5).collect::<Vec<_>>(), "{verb}");
    }
}

/// The living peer drains the old segment up to the cut and goes over by itself; nothing unread is
/// lost in either direction.
#[test]
fn a_living_peer_moves_over_with_everything_unread() {
    let bus = Bus::new("fpeer");
    let mut old = bus.servant("master", "");
    let mut slave = bus.servant("slave", "");
    old.send(0, 20);
    slave.send(0, 15);
    slave.expect(0, 5);
    old.expect(0, 4);
    old.stop();
    let mut new = taken(&bus, Role::Master, Takeover::Hung).unwrap();
    assert_eq!(drain(&mut new), (4..15).collect::<Vec<_>>());
    send(&mut new, 20..25);
    slave.expect(5, 20);
    slave.send(15, 3);
    assert_eq!((0..3).map(|_| read_number(&mut new)).collect::<Vec<_>>(), [15, 16, 17]);
    old.go_on();
    assert!(old.ask("recv 1").starts_with("err 0 Fenced"));
    assert_eq!(slave.must("epoch"), "1", "the peer is the owner it was");
    slave.must("leave");
    drop(new);
}

/// What a fenced writer still put into the old slot is taken back when it is found; a reader that
/// waits then waits on, and one that does not goes on to what is there.
#[test]
fn what_a_fenced_writer_left_behind_ends_no_read() {
    for how in ["read", "try_read", "read_value"] {
        let bus = Bus::new("fghost");
        // Hearts so slow that neither background thread sees to anything meanwhile.
        let slow = |role| {
            let (interval, stale) = (Duration::from_secs(10), Duration::from_secs(20));
            bus.options(role).beat_interval(interval).stale_after(stale).open().unwrap()
        };
        let (mut old, mut slave) = (slow(Role::Master), slow(Role::Slave));
        let mut new = taken(&bus, Role::Master, Takeover::Always).unwrap();
        let ghost = old.write(&[66; 8]);
        assert!(matches!(ghost, Err(Error::Fenced { .. })), "{ghost:?}");
        new.write(&[1; 8]).unwrap();
        let mut buffer = [0; 8];
        match how {
            "read" => assert_eq!(slave.read(&mut buffer), Ok(8)),
            "try_read" => assert_eq!(slave.try_read(&mut buffer), Ok(8)),
            _ => buffer = slave.read_value().unwrap(),
        }
        assert_eq!(buffer, [1; 8], "{how}");
    }
}

/// A peer that is in the middle of something finishes it on whichever side of the cut it falls.
#[test]
fn a_living_peer_in_the_middle_of_an_operation_finishes_it() {
    let bus = Bus::new("fmiddle");
    let mut old = bus.servant("master", "");
    let mut slave = bus.servant("slave", "");
    slave.send(0, 2);
    old.send(0, 4);
    assert_eq!(slave.ask("claim 2 300"), "claimed");
    old.stop();
    let mut new = taken(&bus, Role::Master, Takeover::Hung).unwrap();
    slave.must("commit");
    assert_eq!((0..3).map(|_| read_number(&mut new)).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(slave.ask("peek"), "peeked 0");
    let newer = taken(&bus, Role::Master, Takeover::Always);
    slave.must("release");
    let mut newer = newer.unwrap();
    assert!(matches!(new.write(b"late"), Err(Error::Fenced { .. })));
    send(&mut newer, 4..6);
    slave.expect(1, 5);
    slave.must("leave");
}

/// A peer that writes without a pause through many replacements of its reader loses nothing, and
/// nothing comes twice.
#[test]
fn a_stream_through_many_replacements_is_whole() {
    let bus = Bus::new("fstream");
    let mut master = bus.options(Role::Master).frames(64).open().unwrap();
    let mut reader = bus.slave();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut next = 0;
            while !is_over.load(order) {
                if next % 3 == 0 {
                    let batch: Vec<_> = (next..next + 5).map(|n| message(n, 60)).collect();
                    match master.try_write_many(&batch) {
                        Ok(count) => next += count as u64,
                        Err(Error::Full) => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                } else {
                    master.write(&message(next, 300)).unwrap();
                    next += 1;
                }
            }
            next
        });
        let mut next = 0;
        for _ in 0..30 {
            for _ in 0..40 {
                assert_eq!(read_number(&mut reader), next);
                next += 1;
            }
            let successor = taken(&bus, Role::Slave, Takeover::Always).unwrap();
            let old = std::mem::replace(&mut reader, successor);
            drop(old);
        }
        is_over.store(true, order);
        // Room for a writer that waits for it.
        while !writing.is_finished() {
            for number in drain(&mut reader) {
                assert_eq!(number, next);
                next += 1;
            }
        }
        for number in drain(&mut reader) {
            assert_eq!(number, next);
            next += 1;
        }
        assert_eq!(writing.join().unwrap(), next);
    });
}

/// A message that takes its time, so that the reader keeps up with the batch it is in.
struct Slow(Vec<u8>);

impl AsRef<[u8]> for Slow {
    fn as_ref(&self) -> &[u8] {
        (0..300).for_each(|_| std::hint::spin_loop());
        &self.0
    }
}

/// A writer that is replaced in the middle of a batch longer than the ring is told exactly how much
/// of it counts, and can tell its successor where to go on.
#[test]
fn a_batch_longer_than_the_ring_is_cut_where_its_writer_is_told() {
    let bus = Bus::new("fbatch");
    let open = || bus.options(Role::Master).frames(64).takeover(Takeover::Always).open().unwrap();
    let mut writer = open();
    let mut reader = bus.slave();
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut next = 0;
            loop {
                let was_over = is_over.load(order);
                let unread = drain(&mut reader);
                for number in &unread {
                    assert_eq!(*number, next);
                    next += 1;
                }
                if was_over && unread.is_empty() {
                    return next;
                }
            }
        });
        let mut next = 0;
        for _ in 0..50 {
            let writing = scope.spawn(move || {
                loop {
                    let batch: Vec<_> = (next..next + 1000).map(|n| Slow(message(n, 40))).collect();
                    match writer.try_write_many(&batch) {
                        Ok(count) => next += count as u64,
                        Err(Error::Full) => std::thread::yield_now(),
                        Err(Error::Fenced { .. }) => return next,
                        Err(error) => panic!("{error}"),
                    }
                }
            });
            writer = open();
            next = writing.join().unwrap();
            assert_eq!(writer.last_committed().map_or(0, |id| id.number + 1), next);
        }
        is_over.store(true, order);
        assert_eq!(reading.join().unwrap(), next);
    });
}

#[test]
fn never_hung_and_always_differ_as_they_say() {
    let bus = Bus::new("fkinds");
    let mut old = bus.servant("master", "");
    for takeover in [Takeover::Never, Takeover::Hung] {
        let error = taken(&bus, Role::Master, takeover).unwrap_err();
        assert!(matches!(error, Error::RoleTaken { state: "alive", .. }), "{takeover:?}: {error}");
    }
    old.stop();
    let error = taken(&bus, Role::Master, Takeover::Never).unwrap_err();
    assert!(matches!(error, Error::RoleTaken { state: "hung", .. }), "{error}");
    let second = taken(&bus, Role::Master, Takeover::Hung).unwrap();
    assert_eq!(second.epoch(), 2);
    let third = taken(&bus, Role::Master, Takeover::Always).unwrap();
    assert_eq!(third.epoch(), 3);
    old.go_on();
    assert!(old.ask("send 0 1 8").starts_with("err 0 Fenced"));
}

/// The second replacement comes while the peer has not yet followed the first.
#[test]
fn a_peer_that_slept_through_two_replacements_finds_the_last() {
    let bus = Bus::new("ftwice");
    let mut old = bus.servant("master", "");
    assert_eq!(old.must("epoch"), "1");
    let mut peer = bus.servant("slave", "");
    old.send(0, 3);
    peer.send(0, 3);
    peer.stop();
    let mut first = taken(&bus, Role::Master, Takeover::Always).unwrap();
    send(&mut first, 3..5);
    let mut second = taken(&bus, Role::Master, Takeover::Always).unwrap();
    assert!(matches!(first.try_write(b"late"), Err(Error::Fenced { .. })));
    send(&mut second, 5..7);
    peer.go_on();
    peer.expect(0, 7);
    peer.send(3, 2);
    assert_eq!((0..5).map(|_| read_number(&mut second)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    peer.must("leave");
}

/// Both hang, and both are replaced: what was not delivered is delivered by the new pair.
#[test]
fn both_sides_hung_are_both_replaced() {
    let bus = Bus::new("fboth");
    let (mut master, mut slave) = (bus.servant("master", ""), bus.servant("slave", ""));
    master.send(0, 6);
    slave.send(0, 7);
    slave.expect(0, 2);
    master.stop();
    slave.stop();
    let mut new_master = taken(&bus, Role::Master, Takeover::Hung).unwrap();
    let mut new_slave = taken(&bus, Role::Slave, Takeover::Hung).unwrap();
    assert_eq!(drain(&mut new_slave), [2, 3, 4, 5]);
    assert_eq!(drain(&mut new_master), (0..7).collect::<Vec<_>>());
    master.go_on();
    slave.go_on();
    assert!(master.ask("send 9 1 8").starts_with("err 0 Fenced"));
    assert!(slave.ask("recv 1").starts_with("err 0 Fenced"));
    send(&mut new_master, 6..8);
    send(&mut new_slave, 7..8);
    assert_eq!(drain(&mut new_slave), [6, 7]);
    assert_eq!(drain(&mut new_master), [7]);
}

/// A fenced owner that is killed, or leaves, takes nothing of its successor away.
#[test]
fn the_end_of_a_fenced_owner_disturbs_nobody() {
    let bus = Bus::new("fend");
    let mut old = bus.servant("master", "");
    let mut slave = bus.slave();
    old.send(0, 1);
    let mut new = taken(&bus, Role::Master, Takeover::Always).unwrap();
    assert!(old.ask("leave").starts_with("err 0 Fenced"), "it is told so, and touches nothing");
    let mut newer = taken(&bus, Role::Master, Takeover::Always).unwrap();
    drop(new.try_write(b"x"));
    drop(new);
    send(&mut newer, 1..3);
    assert_eq!(drain(&mut slave), [0, 1, 2]);
    assert!(bus.path().exists());
}

/// The place of a peer that has yet to move over is kept when its other side leaves.
#[test]
fn leaving_does_not_wait_for_a_peer_that_has_yet_to_follow() {
    let bus = Bus::new("fleave");
    let mut old = bus.servant("master", "");
    let mut peer = bus.servant("slave", "");
    old.send(0, 2);
    peer.stop();
    let new = taken(&bus, Role::Master, Takeover::Always).unwrap();
    new.leave().unwrap();
    peer.go_on();
    peer.expect(0, 2);
    peer.must("leave");
}

/// Who asks for a role that somebody else is just replacing waits or is told so; two that replace
/// the same owner at once become two owners, one after the other.
#[test]
fn two_that_replace_the_same_owner_take_turns() {
    let bus = Bus::new("frace");
    let old = bus.servant("master", "");
    let mut slave = bus.slave();
    let mut epochs: Vec<u64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let endpoint = taken(&bus, Role::Master, Takeover::Always).unwrap();
                    let epoch = endpoint.epoch();
                    // All of them stay until all have been there.
                    (endpoint, epoch)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap().1).collect()
    });
    epochs.sort_unstable();
    assert_eq!(epochs, [2, 3, 4, 5]);
    let mut last = bus.options(Role::Master).takeover(Takeover::Always).open().unwrap();
    send(&mut last, 0..3);
    assert_eq!(drain(&mut slave), [0, 1, 2]);
    drop(old);
}
