//! Values, batches, iterators, skipping, splitting: the calls beside plain reads and writes.
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use eshm::{Batch, Direction, Error, Geometry, Overflow, Role};
use support::*;

children! {}

/// A value with a gap-free layout, as telemetry would send it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
struct Sample {
    time_ns: u64,
    value: f64,
    channel: u32,
    flags: u32,
}

// SAFETY: fixed-width numbers without padding; any bytes are a value.
unsafe impl bytemuck::Zeroable for Sample {}
// SAFETY: as above.
unsafe impl bytemuck::Pod for Sample {}

#[test]
fn values_come_as_they_went() {
    let bus = Bus::new("tvalues");
    let (mut master, mut slave) = bus.pair();
    for number in 0..1000u32 {
        let sample =
            Sample { time_ns: 1 << 40, value: f64::from(number) / 3.0, channel: number, flags: !0 };
        master.write_value(&sample).unwrap();
        assert_eq!(slave.read_value(), Ok(sample));
        master.try_write_value(&[number; 7]).unwrap();
        assert_eq!(slave.try_read_value(), Ok([number; 7]));
    }
    master.write_value(&()).unwrap();
    assert_eq!(slave.read_value::<()>(), Ok(()), "nothing is a value too");
    assert_eq!(slave.try_read_value::<u8>(), Err(Error::Empty));
}

#[test]
fn empty_messages_are_messages() {
    let bus = Bus::new("tempty");
    let (mut master, mut slave) = bus.pair();
    master.write(b"").unwrap();
    master.write(b"x").unwrap();
    master.claim(0).unwrap().commit().unwrap();
    master.claim(9).unwrap().commit_len(0).unwrap();
    let mut buffer = [0; 8];
    let lens: Vec<usize> = (0..4).map(|_| slave.try_read(&mut buffer).unwrap()).collect();
    assert_eq!(lens, [0, 1, 0, 0]);
    assert_eq!(slave.try_read(&mut buffer), Err(Error::Empty));
    assert_eq!(slave.last_id().unwrap().number, 3);
}

#[test]
fn every_length_up_to_the_longest_comes_whole() {
    let bus = Bus::new("tlengths");
    let mut master = bus.options(Role::Master).frames(32).open().unwrap();
    let mut slave = bus.slave();
    let longest = master.max_message();
    assert_eq!(longest, 16 * 64 - 8, "half the ring");
    let mut buffer = vec![0; longest];
    for len in (0..=longest).chain((0..=longest).rev()) {
        let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
        master.try_write(&bytes).unwrap();
        assert_eq!(slave.next_len(), Ok(len));
        assert_eq!(slave.try_read(&mut buffer), Ok(len));
        assert!(buffer[..len] == bytes, "{len} bytes");
    }
}

#[test]
fn the_directions_can_have_shapes_of_their_own() {
    let bus = Bus::new("tshapes");
    let wide = Geometry { frame_size: 4096, frames: 8, overflow: Overflow::Refuse };
    let narrow = Geometry { frame_size: 64, frames: 16, overflow: Overflow::Overwrite };
    let mut options = bus.options(Role::Master);
    options.direction(Direction::MasterToSlave, wide);
    let mut master = options.direction(Direction::SlaveToMaster, narrow).open().unwrap();
    let mut slave = bus.slave();
    assert_eq!(slave.geometry(Direction::MasterToSlave), wide);
    assert_eq!(slave.geometry(Direction::SlaveToMaster), narrow);
    assert_eq!((master.max_message(), slave.max_message()), (4 * 4096 - 8, 8 * 64 - 8));
    let long = vec![3; master.max_message()];
    master.write(&long).unwrap();
    let mut buffer = vec![0; long.len()];
    assert_eq!(slave.read(&mut buffer), Ok(long.len()));
    send(&mut slave, 0..50);
    let read = drain(&mut master);
    assert_eq!(read, (master.lost()..50).collect::<Vec<_>>());
}

#[test]
fn a_batch_is_filled_and_used_again() {
    let bus = Bus::new("tbatch");
    let (mut master, mut slave) = bus.pair();
    let mut batch = Batch::with_capacity(300, 5);
    assert_eq!(slave.try_read_many(&mut batch), Err(Error::Empty));
    for round in 0..50u64 {
        let messages: Vec<_> = (round * 7..round * 7 + 7).map(|n| message(n, 60)).collect();
        assert_eq!(master.try_write_many(&messages), Ok(7));
        let mut got = Vec::new();
        while got.len() < 7 {
            let count = slave.try_read_many(&mut batch).unwrap();
            assert!(count == batch.len() && count <= 5 && !batch.is_empty());
            for (id, bytes) in batch.iter() {
                assert_eq!(id.number, number_of(bytes));
                got.push(id.number);
            }
            assert_eq!(slave.last_id().unwrap().number, *got.last().unwrap());
        }
        assert_eq!(got, (round * 7..round * 7 + 7).collect::<Vec<_>>());
    }
    batch.clear();
    assert!(batch.is_empty());
    assert_eq!(master.try_write_many::<&[u8]>(&[]), Ok(0));
    // What does not fit is left where it is.
    master.write(&[1; 301]).unwrap();
    let small = Error::BufferTooSmall { len: 301, buffer: 300 };
    assert_eq!(slave.try_read_many(&mut batch), Err(small));
    assert_eq!(slave.next_len(), Ok(301));
}

#[test]
fn batches_wait_for_room_and_for_messages() {
    let bus = Bus::new("twait");
    let soon = Duration::from_millis(5);
    let mut master = bus.options(Role::Master).frames(16).open().unwrap();
    let mut slave = bus.options(Role::Slave).read_timeout(soon).open().unwrap();
    let mut batch = Batch::with_capacity(1 << 12, 100);
    assert_eq!(slave.read_many(&mut batch), Err(Error::Timeout));
    assert_eq!(slave.peek_many(&mut batch).err(), Some(Error::Timeout));
    let messages: Vec<_> = (0..100).map(|number| message(number, 40)).collect();
    // Nobody reads: what fits is written, then nothing more.
    let written = master.write_many_timeout(&messages, soon).unwrap();
    assert!((14..16).contains(&written), "{written}");
    assert_eq!(master.write_many_timeout(&messages, soon), Err(Error::Timeout));
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| master.write_many_timeout(&messages[written..], PATIENCE));
        let mut next = 0;
        while next < 100 {
            let peeked = slave.peek_many_timeout(&mut batch, PATIENCE).unwrap().iter().len();
            assert!(peeked > 0);
            let read = slave.read_many_timeout(&mut batch, PATIENCE).unwrap();
            assert!(read >= peeked, "what was shown is still there");
            for (_, bytes) in batch.iter() {
                assert_eq!(number_of(bytes), next);
                next += 1;
            }
        }
        assert_eq!(writing.join().unwrap(), Ok(100 - written));
    });
    // One that can never be written ends the batch before it.
    let long = vec![0; master.max_message() + 1];
    assert_eq!(master.write_many(&[&messages[0], &long]), Ok(1));
    assert!(matches!(master.write_many(&[&long]), Err(Error::TooLong { .. })));
}

#[test]
fn an_iterator_ends_when_nothing_comes_in_time() {
    let bus = Bus::new("titer");
    let mut master = bus.master();
    let mut options = bus.options(Role::Slave);
    let mut slave = options.read_timeout(Duration::from_millis(5)).open().unwrap();
    send(&mut master, 0..20);
    let numbers: Vec<u64> = slave.messages().map(|bytes| number_of(&bytes.unwrap())).collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
    assert!(slave.messages().next().is_none());
    send(&mut master, 20..21);
    assert_eq!(slave.messages().count(), 1, "it can be asked again");
}

#[test]
fn skipping_leaves_the_newest() {
    let bus = Bus::new("tskip");
    let (mut master, mut slave) = bus.pair();
    assert_eq!(slave.skip_to_latest(), Ok(0), "of nothing");
    send(&mut master, 0..1);
    assert_eq!(slave.skip_to_latest(), Ok(0), "it is the newest");
    send(&mut master, 1..10);
    assert_eq!(slave.skip_to_latest(), Ok(9));
    assert_eq!(slave.skip_to_latest(), Ok(0));
    assert_eq!(read_number(&mut slave), 9);
    assert_eq!(slave.skip_to_latest(), Ok(0));
    assert_eq!(slave.try_read(&mut [0; 8]), Err(Error::Empty));
    // Over a change of owner, whose mark lies between the messages.
    send(&mut master, 10..12);
    drop(master);
    let mut master = bus.master();
    send(&mut master, 12..14);
    assert_eq!(slave.skip_to_latest(), Ok(3));
    assert_eq!((read_number(&mut slave), slave.last_id().unwrap().epoch), (13, 2));
}

#[test]
fn two_threads_use_the_halves() {
    let bus = Bus::new("tsplit");
    let (master, slave) = bus.pair();
    let (mut master_writes, mut master_reads) = master.split();
    let (mut slave_writes, mut slave_reads) = slave.split();
    std::thread::scope(|scope| {
        for writer in [&mut master_writes, &mut slave_writes] {
            scope.spawn(move || {
                for number in 0..20_000 {
                    writer.write(&message(number, 120)).unwrap();
                }
            });
        }
        for reader in [&mut master_reads, &mut slave_reads] {
            scope.spawn(move || {
                let mut buffer = [0; 256];
                for number in 0..20_000 {
                    let len = reader.read(&mut buffer).unwrap();
                    assert_eq!(number_of(&buffer[..len]), number);
                }
            });
        }
    });
    drop(master_writes);
    assert_eq!(slave_reads.peer().state.name(), "alive", "half of it is still there");
    drop(master_reads);
    until("it has left", || slave_reads.peer().state.name() == "left");
}

#[test]
fn an_aborted_claim_leaves_nothing_behind() {
    let bus = Bus::new("tabort");
    let mut master = bus.options(Role::Master).frames(16).open().unwrap();
    let mut slave = bus.slave();
    for number in 0..200 {
        drop(master.claim(300).map(|mut claim| claim.fill(0xFF)));
        assert_eq!(slave.try_read(&mut [0; 512]), Err(Error::Empty));
        master.write(&message(number, 300)).unwrap();
        assert_eq!(read_number(&mut slave), number);
    }
    assert_eq!(master.stats().master_to_slave.written, 200);
}

#[test]
fn figures_add_up() {
    let bus = Bus::new("tfigures");
    let (mut master, mut slave) = bus.pair();
    send(&mut master, 0..10);
    slave.read(&mut [0; 256]).unwrap();
    let bytes: u64 = (0..10).map(|number| message(number, 100).len() as u64).sum();
    for stats in [master.stats(), slave.stats()] {
        let ring = stats.master_to_slave;
        assert_eq!((ring.written, ring.read, ring.backlog), (10, 1, 9));
        assert_eq!((ring.bytes, ring.frames), (bytes, 1024));
        assert!(ring.backlog_frames >= 9 && ring.high_water >= ring.backlog_frames);
        assert_eq!((stats.master.epoch, stats.slave.epoch), (1, 1));
    }
    assert_eq!((slave.reader().backlog(), master.writer().backlog()), (9, 9));
}
