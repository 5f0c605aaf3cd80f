//! Directions in which the oldest messages make room: what is read is whole and in order, and what
//! was lost is counted exactly.
#![allow(missing_docs)]

mod support;

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
