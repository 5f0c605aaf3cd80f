//! Rings that are overwritten, sealed and built anew while their writer goes on: what comes out is
//! whole, in order, and counted; and no more of it is lost than one reservation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, OnceLock};

use super::super::arena::{Arena, Dice, rounds};
use super::super::*;
use crate::config::{Geometry, Overflow};
use crate::sys::barrier;

const START: Place = Place { pos: 0, number: 0, epoch: 1, last_epoch: 1, bytes: 0 };
/// Writers hand over batches of as many messages.
const BATCH: usize = 1024;
/// All that a writer can write in one round.
const MESSAGES: usize = 24 * BATCH;
const LONGEST: usize = 300;

/// A message that shows its number in every word; both sides know it.
struct Message {
    bytes: [u8; 304],
    len: usize,
}

impl Message {
    fn new(number: u64) -> Self {
        let mut bytes = [0; 304];
        for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
            let value = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ index as u64;
            word.copy_from_slice(&value.to_le_bytes());
        }
        Message { bytes, len: (number * 7919) as usize % (LONGEST + 1) }
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn messages() -> &'static [Message] {
    static ALL: OnceLock<Vec<Message>> = OnceLock::new();
    ALL.get_or_init(|| (0..MESSAGES as u64).map(Message::new).collect())
}

/// Writes batches until somebody seals, as the bus does. Gives the number of the next message.
fn write_until_sealed(producer: &mut Producer) -> u64 {
    for batch in messages().chunks(BATCH) {
        match producer.write_many(batch) {
            Ok(count) if count == batch.len() => {}
            Ok(_) | Err(Error::Full) => assert!(producer.ring().data_bell().is_sealed()),
            Err(error) => panic!("{error}"),
        }
        if producer.ring().data_bell().is_sealed() {
            break;
        }
    }
    producer.number()
}

/// Reads a message, checks it byte by byte, and gives its number.
fn read(consumer: &mut Consumer) -> Option<u64> {
    let mut buffer = [0; 304];
    let len = consumer.race(&mut buffer).unwrap()?;
    let number = consumer.last_id().unwrap().number;
    assert!(buffer[..len] == *messages()[number as usize].as_ref(), "message {number} is torn");
    Some(number)
}

/// Reads a message. Whatever was not read since `first` was lost, and counted.
fn read_on(consumer: &mut Consumer, first: u64, count: &mut u64) -> bool {
    let number = read(consumer);
    *count += u64::from(number.is_some());
    assert_eq!(consumer.next_id().number, first + *count + consumer.lost());
    number.is_some()
}

/// Seals as the session does, and chooses the cut.
fn seal(ring: &Ring) -> (Place, Place) {
    ring.data_bell().set(SEALED);
    ring.room_bell().set(SEALED);
    fence(Ordering::SeqCst);
    if !barrier::heavy() {
        // Both sides were told to fence.
        assert_ne!(ring.data_bell().glance() & FENCE, 0);
    }
    cut(ring)
}

fn cut(ring: &Ring) -> (Place, Place) {
    let head = ring.find_head(None).unwrap();
    let mut tail = ring.find_tail();
    if producer::is_before(head.pos, tail.pos) {
        tail = head;
    }
    (tail, head)
}

fn arena(frames: u64) -> Arena {
    let arena = Arena::new(64, frames, Overflow::Overwrite, START);
    if !(barrier::available() && barrier::register()) {
        arena.ring().data_bell().set(FENCE);
        arena.ring().room_bell().set(FENCE);
    }
    arena
}

fn rebuilt(old: &Arena, tail: Place, head: Place) -> Arena {
    let new = Arena::blank(old.geometry());
    new.ring().rebuild(&old.ring(), tail, head).unwrap();
    new
}

/// Reads what is left before the cut: all of it, or counted.
fn read_to(consumer: &mut Consumer, first: u64, mut count: u64, head: Place) {
    while read_on(consumer, first, &mut count) {}
    assert_eq!(consumer.place().number, head.number, "nothing is there before the cut is reached");
}

/// The reader hangs, and is replaced while its writer is in the middle of a batch.
fn fence_the_reader(frames: u64, dice: &mut Dice) {
    let old = arena(frames);
    let mut producer = Producer::resume(old.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(old.ring()).unwrap();
    let begin = Barrier::new(2);
    let (tail, head, new, wrote) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            begin.wait();
            write_until_sealed(&mut producer)
        });
        begin.wait();
        let mut count = 0;
        for _ in 0..dice.below(40) {
            read_on(&mut consumer, 0, &mut count);
        }
        (0..dice.below(4000)).for_each(|_| std::hint::spin_loop());
        let (tail, head) = seal(&old.ring());
        let new = rebuilt(&old, tail, head);
        (tail, head, new, writer.join().unwrap())
    });
    assert!(head.number <= wrote);
    let mut successor = Consumer::resume(new.ring()).unwrap();
    assert_eq!(successor.next_id().number, tail.number);
    let oldest = Cursor::at_oldest(new.ring()).place();
    // A reservation, and what lies before the boundary that comes next.
    let least = (head.pos - tail.pos).min(frames - 3 * (frames / 8) - 6);
    assert!(head.pos - oldest.pos >= least, "{oldest:?} is left of {tail:?}..{head:?}");
    read_to(&mut successor, tail.number, 0, head);
    assert_eq!(successor.lost(), oldest.number - tail.number);
}

/// Somebody else is replaced, and the reader that lives moves over.
fn fence_beside_a_living_reader(frames: u64, dice: &mut Dice) {
    let old = arena(frames);
    let mut producer = Producer::resume(old.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(old.ring()).unwrap();
    let begin = Barrier::new(3);
    let (head, new, read, wrote) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            begin.wait();
            write_until_sealed(&mut producer)
        });
        let reader = scope.spawn(|| {
            begin.wait();
            let mut count = 0;
            loop {
                let before = count;
                read_on(&mut consumer, 0, &mut count);
                if consumer.ring().room_bell().is_sealed() {
                    return (before, count);
                }
            }
        });
        begin.wait();
        (0..dice.below(6000)).for_each(|_| std::hint::spin_loop());
        let (tail, head) = seal(&old.ring());
        let new = rebuilt(&old, tail, head);
        let read = reader.join().unwrap();
        (head, new, read, writer.join().unwrap())
    });
    assert!(head.number <= wrote);
    // As in `Reader::stay_before` and `Reader::follow`.
    let (before, mut count) = read;
    if producer::is_before(head.pos, consumer.place().pos) {
        consumer.rewind(head);
        count = before;
    }
    assert!(consumer.place().number <= head.number);
    let mut moved = Consumer::resume(new.ring()).unwrap();
    moved.carry_on(&consumer);
    read_to(&mut moved, 0, count, head);
    let stored = new.ring().lines().consumer.lost.load(Ordering::Relaxed);
    assert_eq!(stored, moved.lost(), "the count over all readers");
}

/// Very many of them, each cut somewhere else.
fn many(fence: impl Fn(u64, &mut Dice)) {
    for round in rounds() {
        let mut dice = Dice(round);
        (0..1500).for_each(|turn| fence([64, 256, 1024][turn % 3], &mut dice));
    }
}

#[test]
fn what_an_overwriting_writer_leaves_behind_a_seal_is_whole_and_counted() {
    many(fence_the_reader);
}

#[test]
fn a_reader_that_moves_over_from_an_overwriting_writer_misses_nothing_uncounted() {
    many(fence_beside_a_living_reader);
}

/// A reader opens while the writer laps it again and again.
#[test]
fn a_reader_opens_on_a_stream_that_is_overwritten() {
    let arena = arena(16);
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                producer.write_many(&[[7; 40]; 256]).unwrap();
            }
        });
        struct Over<'a>(&'a AtomicBool);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _over = Over(&is_over);
        for _ in 0..20_000 {
            let mut consumer = Consumer::resume(arena.ring()).unwrap();
            let mut buffer = [0; 40];
            if let Some(len) = consumer.race(&mut buffer).unwrap() {
                assert_eq!(buffer[..len], [7; 40]);
            }
            let mut tap = Cursor::at_newest(arena.ring()).unwrap();
            tap.try_copy(&mut buffer).unwrap();
            Cursor::at_oldest(arena.ring()).try_copy(&mut buffer).unwrap();
        }
    });
}

/// The same as one look finds it that took longer than a lap: the head is old, and what was reserved
/// since is new.
#[test]
fn a_reader_that_opens_on_what_is_overwritten_needs_no_head() {
    let arena = arena(16);
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let old = producer.head();
    producer.write_many(&[[7; 40]; 256]).unwrap();
    for place in &arena.ring().lines().producer.places {
        place.pos.store(old, Ordering::Relaxed);
    }
    assert!(matches!(arena.ring().find_head(None), Err(Error::Corrupt { .. })));
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    let mut buffer = [0; 40];
    assert_eq!((consumer.race(&mut buffer).unwrap(), buffer), (Some(40), [7; 40]));
}

/// Only the first message of a rebuilt ring was remembered as a boundary. As soon as the writer came
/// round to it, a reader that was behind gave up all that had been carried over.
#[test]
fn a_rebuilt_ring_remembers_its_boundaries() {
    for overflow in [Overflow::Overwrite, Overflow::Refuse] {
        let old = Arena::new(64, 64, overflow, START);
        let mut producer = Producer::resume(old.ring(), 1).unwrap();
        while producer.head() < 60 {
            producer.try_write(messages()[producer.number() as usize].as_ref()).unwrap();
        }
        let (tail, head) = (old.ring().find_tail(), old.ring().find_head(None).unwrap());
        let new = rebuilt(&old, tail, head);
        let mut producer = Producer::resume(new.ring(), 1).unwrap();
        if overflow == Overflow::Refuse {
            let newest = Cursor::at_newest(new.ring()).unwrap().place();
            assert_eq!((newest.pos, newest.number), (head.pos, head.number));
            assert!(new.ring().newest_mark().unwrap().pos >= head.pos - 8 - 5);
            continue;
        }
        while producer.head() < 64 + 8 {
            producer.try_write(messages()[producer.number() as usize].as_ref()).unwrap();
        }
        let mut consumer = Consumer::resume(new.ring()).unwrap();
        let mut count = 0;
        assert!(read_on(&mut consumer, 0, &mut count));
        let oldest = consumer.place().pos;
        assert!(producer.head() - oldest >= 64 - 3 * 8 - 6, "{oldest} is left");
        read_to(&mut consumer, 0, count, Place { number: producer.number(), ..head });
    }
}

/// A tap that was slower than the reader of the ring it comes from finds what was carried over, and
/// does not wait for a lap.
#[test]
fn a_cursor_that_is_behind_a_rebuilt_ring_goes_where_it_begins() {
    for overflow in [Overflow::Overwrite, Overflow::Refuse] {
        let old = Arena::new(64, 64, overflow, START);
        let mut producer = Producer::resume(old.ring(), 1).unwrap();
        for number in 0..20 {
            producer.try_write(messages()[number].as_ref()).unwrap();
        }
        let mut tap = Cursor::at_oldest(old.ring());
        let mut buffer = [0; 304];
        tap.try_copy(&mut buffer).unwrap().unwrap();
        let head = old.ring().find_head(None).unwrap();
        let mut reader = Cursor::at_oldest(old.ring());
        for _ in 0..15 {
            reader.try_copy(&mut buffer).unwrap().unwrap();
        }
        let new = rebuilt(&old, reader.place(), head);
        let mut tap = Cursor::at(new.ring(), tap.place());
        let copied = tap.try_copy(&mut buffer).unwrap().unwrap();
        assert_eq!((copied.id.number, tap.lost()), (15, 14));
    }
}

/// Raised, and then found sealed: nothing is written, and what was left of the last reservation is
/// all that is used up.
#[test]
fn a_writer_that_finds_the_seal_writes_no_further_than_it_had_reserved() {
    let geometry = Geometry { frame_size: 64, frames: 64, overflow: Overflow::Overwrite };
    let old = Arena::blank(geometry);
    old.ring().format(START);
    let mut producer = Producer::resume(old.ring(), 1).unwrap();
    for _ in 0..100 {
        producer.try_write(&[1; 40]).unwrap();
    }
    let ring = old.ring();
    let reserve = &ring.lines().reserve.reserve;
    let reserved = reserve.load(Ordering::Relaxed);
    old.ring().data_bell().set(SEALED);
    let before = old.snapshot();
    let count = producer.write_many(&[[2; 40]; 100]).unwrap();
    assert_eq!(producer.head(), reserved - 1, "one frame stays free");
    assert_eq!(count as u64, reserved - 1 - 100);
    assert_eq!(producer.write_many(&[[2; 40]; 100]), Err(Error::Full));
    assert_eq!(producer.try_write(&[2; 300]), Err(Error::Full));
    assert_eq!(producer.claim(8), Err(Error::Full));
    assert_eq!(reserve.load(Ordering::Relaxed), reserved);
    let after = old.snapshot();
    for pos in reserved..reserved + 64 - 8 {
        assert_eq!(before[old.frame(pos)], after[old.frame(pos)], "the frame of {pos}");
    }
}

/// The mark of the first message carried over was replaced by that of the last ones, where both lie
/// in eighths that share one.
#[test]
fn a_rebuilt_ring_remembers_where_it_begins() {
    let old = Arena::new(64, 64, Overflow::Refuse, START);
    let mut producer = Producer::resume(old.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(old.ring()).unwrap();
    for _ in 0..4 {
        producer.try_write(&[]).unwrap();
        let found = consumer.find().unwrap().unwrap();
        consumer.consume(found);
    }
    consumer.publish();
    while producer.try_write(&[]).is_ok() {}
    let (tail, head) = (old.ring().find_tail(), old.ring().find_head(None).unwrap());
    assert_eq!((tail.pos, head.pos), (4, 64 + 3));
    let new = rebuilt(&old, tail, head);
    assert_eq!(Cursor::at_oldest(new.ring()).place(), tail);
}

/// A reader that went to the newest message went to one behind the cut, took that back, and had passed
/// over the newest one before the cut.
#[test]
fn a_reader_does_not_skip_over_a_cut() {
    for (overflow, read, written) in
        [(Overflow::Overwrite, 5, 10), (Overflow::Overwrite, 5, 90), (Overflow::Refuse, 5, 10)]
    {
        let old = Arena::new(64, 64, overflow, START);
        let mut producer = Producer::resume(old.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(old.ring()).unwrap();
        for number in 0..written {
            producer.try_write(&[]).unwrap();
            if number < read {
                let found = consumer.find().unwrap().unwrap();
                consumer.consume(found);
            }
        }
        old.ring().room_bell().set(SEALED);
        let (tail, head) = cut(&old.ring());
        // The writer does not know yet.
        for _ in 0..2 {
            producer.try_write(&[]).unwrap();
        }
        assert_eq!(consumer.skip_to_latest(), Ok(None));
        assert_eq!((consumer.next_id().number, consumer.lost()), (read, 0));
        let new = rebuilt(&old, tail, head);
        let mut moved = Consumer::resume(new.ring()).unwrap();
        moved.carry_on(&consumer);
        assert_eq!(moved.skip_to_latest(), Ok(Some(written - 1 - read)));
        assert_eq!(moved.race(&mut []), Ok(Some(0)));
        assert_eq!(moved.last_id().unwrap().number, written - 1);
        assert_eq!(moved.race(&mut []), Ok(None));
    }
}
