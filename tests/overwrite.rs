//! Directions in which the oldest messages make room: what is read is whole and in order, and what
//! was lost is counted exactly.
#![allow(missing_docs)]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eshm::{Batch, Endpoint, Error, Overflow, Role, Takeover};
use support::*;

children! {}

fn pair(bus: &Bus, frames: u64) -> (Endpoint, Endpoint) {
    let mut options = bus.options(Role::Master);
    let master = options.frames(frames).overflow(Overflow::Overwrite).open().unwrap();
    (master, bus.slave())
}

#[test]
fn nothing_is_lost_as_long_as_the_reader_keeps_up() {
    let bus = Bus::new("okeep");
    let (mut master, mut slave) = pair(&bus, 64);
    for number in 0..5000 {
        master.try_write(&message(number, 300)).unwrap();
        assert_eq!(read_number(&mut slave), number);
        assert_eq!(slave.last_id().unwrap().number, number);
    }
    assert_eq!(slave.lost(), 0);
}

#[test]
fn a_racing_reader_gets_whole_messages_and_the_exact_count() {
    for longest in [40, 500] {
        let bus = Bus::new("orace");
        let (mut master, mut slave) = pair(&bus, 64);
        const COUNT: u64 = 200_000;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..COUNT {
                    master.try_write(&message(number, longest)).unwrap();
                }
            });
            let (mut next, mut read, mut buffer) = (0, 0, [0; 512]);
            while next < COUNT {
                let lost = slave.lost();
                let len = slave.read(&mut buffer).unwrap();
                let number = number_of(&buffer[..len]);
                assert_eq!(number, next + (slave.lost() - lost), "each one is read or counted");
                read += 1;
                next = number + 1;
            }
            assert_eq!(read + slave.lost(), COUNT);
        });
        let ring = slave.stats().master_to_slave;
        assert_eq!((ring.written, ring.read + ring.lost, ring.lost), (COUNT, COUNT, slave.lost()));
        assert_eq!(ring.times_full, 0, "the writer never waits");
    }
}

#[test]
fn a_peek_is_a_copy_that_stays() {
    let bus = Bus::new("opeek");
    let (mut master, mut slave) = pair(&bus, 16);
    send_short(&mut master, 0..3);
    {
        let first = slave.peek().unwrap();
        assert_eq!((number_of(&first), first.id().number), (0, 0));
    }
    send_short(&mut master, 3..200);
    let again = slave.peek().unwrap();
    assert_eq!(number_of(&again), 0, "shown once, it is not taken away");
    again.release().unwrap();
    let next = read_number(&mut slave);
    assert_eq!(next, 1 + slave.lost());
    assert_eq!(drain(&mut slave).last(), Some(&199));
}

fn send_short(master: &mut Endpoint, numbers: std::ops::Range<u64>) {
    for number in numbers {
        master.try_write(&message(number, 40)).unwrap();
    }
}

#[test]
fn claims_batches_and_skips_work_there_too() {
    let bus = Bus::new("omore");
    let (mut master, mut slave) = pair(&bus, 64);
    for number in 0..10 {
        let bytes = message(number, 40);
        let mut claim = master.try_claim(bytes.len()).unwrap();
        claim.copy_from_slice(&bytes);
        claim.commit().unwrap();
    }
    let mut batch = Batch::with_capacity(4096, 4);
    assert_eq!(slave.try_read_many(&mut batch), Ok(4));
    let ids: Vec<u64> = batch
        .iter()
        .map(|(id, bytes)| {
            assert_eq!(id.number, number_of(bytes));
            id.number
        })
        .collect();
    assert_eq!(ids, [0, 1, 2, 3]);
    assert_eq!(slave.skip_to_latest(), Ok(5));
    assert_eq!(read_number(&mut slave), 9);
    let many: Vec<_> = (10..300).map(|number| message(number, 40)).collect();
    assert_eq!(master.try_write_many(&many), Ok(290));
    let rest = drain(&mut slave);
    assert_eq!(rest, (10 + slave.lost()..300).collect::<Vec<_>>());
    assert_eq!(slave.try_read(&mut [0; 8]), Err(Error::Empty));
}

#[test]
fn a_replaced_writer_and_reader_go_on_with_what_is_left() {
    let bus = Bus::new("oreplace");
    let (mut master, mut slave) = pair(&bus, 64);
    send_short(&mut master, 0..500);
    let mut new = bus.options(Role::Master).frames(64).takeover(Takeover::Always).open().unwrap();
    assert_eq!(new.last_committed().unwrap().number, 499);
    send_short(&mut new, 500..510);
    let first = read_number(&mut slave);
    assert_eq!(first, slave.lost());
    drop(slave);
    let mut slave = bus.slave();
    let rest = drain(&mut slave);
    assert_eq!(rest, (first + 1 + slave.lost()..510).collect::<Vec<_>>());
}

/// A batch as long as a writer would hand over at once, each message up to 300 bytes.
fn long_batch(from: u64) -> Vec<Vec<u8>> {
    (from..from + 1024).map(|number| message(number, 300)).collect()
}

#[test]
fn a_fence_in_the_middle_of_a_batch_leaves_whole_messages_and_the_exact_count() {
    for round in 0..60 {
        let bus = Bus::new("obatch");
        let (mut master, slave) = pair(&bus, 256);
        let mut slave = Some(slave);
        let (mut expected, mut fences) = (0, 0);
        let is_over = AtomicBool::new(false);
        let written = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut written = 0;
                while !is_over.load(Ordering::Relaxed) {
                    written += master.write_many(&long_batch(written)).unwrap() as u64;
                }
                written
            });
            let _over = Over(&is_over);
            for _ in 0..4 {
                std::thread::sleep(Duration::from_micros(300 + 37 * round));
                let mut options = bus.options(Role::Slave);
                let mut new = options.takeover(Takeover::Always).open().unwrap();
                drop(slave.take());
                fences += 1;
                // At most so many were unread, so they are there, and none behind is waited for.
                let mut buffer = [0; 512];
                for _ in 0..50 {
                    let lost = new.lost();
                    let len = new.read(&mut buffer).unwrap();
                    expected += new.lost() - lost;
                    assert_eq!(number_of(&buffer[..len]), expected, "each is read or counted");
                    expected += 1;
                }
                slave = Some(new);
            }
            is_over.store(true, Ordering::Relaxed);
            writer.join().unwrap()
        });
        let mut slave = slave.unwrap();
        assert_eq!(master.last_committed().unwrap().number, written - 1);
        let lost = slave.lost();
        let rest = drain(&mut slave);
        expected += slave.lost() - lost;
        assert_eq!(rest, (expected..written).collect::<Vec<_>>(), "after {fences} fences");
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_reader_opens_on_a_fast_stream() {
    for round in 0..8 {
        let bus = Bus::new("oopen");
        let (mut master, slave) = pair(&bus, [16, 256][round % 2]);
        drop(slave);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let batch = [[7; 8]; 8192];
                while !is_over.load(Ordering::Relaxed) {
                    master.write_many(&batch).unwrap();
                }
            });
            let _over = Over(&is_over);
            for _ in 0..200 {
                let mut slave = bus.slave();
                let mut buffer = [0; 8];
                assert_eq!((slave.read(&mut buffer), buffer), (Ok(8), [7; 8]));
            }
        });
    }
}

#[test]
fn a_value_is_of_one_whole_message_of_its_size() {
    let bus = Bus::new("ovalue");
    let (mut master, mut slave) = pair(&bus, 16);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                master.try_write_value(&[u64::MAX; 5]).unwrap();
                master.try_write_value(&[u64::MAX; 2]).unwrap();
                master.try_write_value(&[u64::MAX; 6]).unwrap();
            }
        });
        let _over = Over(&is_over);
        let (mut values, mut others) = (0, 0);
        let deadline = Instant::now() + Duration::from_secs(1);
        while values < 1000 || others < 1000 || Instant::now() < deadline {
            match slave.try_read_value::<[u64; 5]>() {
                Ok(value) => {
                    assert_eq!(value, [u64::MAX; 5]);
                    values += 1;
                }
                Err(Error::WrongSize { len, expected: 40 }) => {
                    assert!(len == 16 || len == 48, "{len}");
                    let mut buffer = [0; 48];
                    assert_eq!(slave.try_read(&mut buffer), Ok(len), "it stays");
                    assert_eq!(buffer[..len], [0xff; 48][..len]);
                    others += 1;
                }
                Err(error) => assert_eq!(error, Error::Empty),
            }
        }
    });
}

#[test]
fn skipping_to_the_latest_goes_past_what_was_peeked() {
    let bus = Bus::new("oskip");
    let (mut master, mut slave) = pair(&bus, 16);
    send_short(&mut master, 0..3);
    assert_eq!(number_of(&slave.peek().unwrap()), 0);
    assert_eq!(slave.skip_to_latest(), Ok(2), "the peeked one is passed over too");
    assert_eq!(number_of(&slave.peek().unwrap()), 2);
    // Nothing newer is there.
    assert_eq!(slave.skip_to_latest(), Ok(0));
    assert_eq!(read_number(&mut slave), 2);
    assert_eq!(slave.try_read(&mut [0; 8]), Err(Error::Empty));
    // With nothing left of what it passes over.
    send_short(&mut master, 3..4);
    assert_eq!(number_of(&slave.peek().unwrap()), 3);
    send_short(&mut master, 4..100);
    assert_eq!(slave.skip_to_latest(), Ok(96));
    assert_eq!(read_number(&mut slave), 99);
}

#[test]
fn nothing_from_behind_a_cut_is_shown() {
    let bus = Bus::new("obehind");
    let (mut master, mut slave) = pair(&bus, 64);
    send_short(&mut master, 0..1);
    assert_eq!(read_number(&mut slave), 0);
    let mut new = bus.options(Role::Master).frames(64).takeover(Takeover::Always).open().unwrap();
    // Into what it had reserved, and before it looks at the seal.
    let refused = master.try_write(&message(666, 40));
    assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
    assert_eq!(slave.next_len(), Err(Error::Empty));
    assert_eq!(error_of(slave.try_peek()), Error::Empty);
    assert_eq!(slave.skip_to_latest(), Ok(0));
    send_short(&mut new, 1..2);
    let peek = slave.peek().unwrap();
    assert_eq!((number_of(&peek), peek.id().number, peek.id().epoch), (1, 1, 2));
    peek.release().unwrap();
    assert_eq!(slave.lost(), 0);
}

#[test]
fn a_peek_shows_nothing_from_behind_a_cut() {
    for way in 0..3 {
        let bus = Bus::new("oshow");
        let (mut master, mut slave) = pair(&bus, 64);
        send_short(&mut master, 0..3);
        assert_eq!(read_number(&mut slave), 0);
        let new = bus.options(Role::Master).frames(64).takeover(Takeover::Always).open().unwrap();
        let _ = master.try_write(&message(666, 40)).unwrap_err();
        match way {
            0 => {
                assert_eq!(slave.skip_to_latest(), Ok(1));
                assert_eq!(number_of(&slave.try_peek().unwrap()), 2);
            }
            1 => {
                for number in 1..3 {
                    let peek = slave.try_peek().unwrap();
                    assert_eq!(number_of(&peek), number);
                    peek.release().unwrap();
                }
                assert_eq!(error_of(slave.try_peek()), Error::Empty);
            }
            _ => assert_eq!(drain(&mut slave), [1, 2]),
        }
        drop(new);
    }
}

#[test]
fn a_writer_that_overwrites_is_never_refused() {
    for way in 0..5 {
        let bus = Bus::new("orefuse");
        // So small that each message is reserved for.
        let (mut master, slave) = pair(&bus, 8);
        send_short(&mut master, 0..20);
        let mut options = bus.options(Role::Slave);
        let mut new = options.takeover(Takeover::Always).open().unwrap();
        drop(slave);
        let bytes = message(20, 40);
        let done = match way {
            0 => master.try_write(&bytes),
            1 => master.write_timeout(&bytes, Duration::ZERO),
            2 => master.try_write_many(&[&bytes]).map(|count| assert_eq!(count, 1)),
            3 => master.write_many_timeout(&[&bytes], Duration::ZERO).map(|_| ()),
            _ => master.try_claim(bytes.len()).and_then(|mut claim| {
                claim.copy_from_slice(&bytes);
                claim.commit()
            }),
        };
        assert_eq!(done, Ok(()), "way {way}");
        assert_eq!(drain(&mut new).last(), Some(&20));
        assert_eq!(new.stats().master_to_slave.times_full, 0);
    }
}
