//! Bugs that were found, each with its story.

use std::cell::RefCell;

use super::super::arena::Arena;
use super::super::*;
use crate::config::{MessageId, Overflow};
use crate::sync::FIRST_LINE;

fn at(pos: u64) -> Place {
    Place { pos, epoch: 1, ..Place::default() }
}

/// A message that runs something just before it is written.
struct Step<'a> {
    bytes: Vec<u8>,
    before: &'a dyn Fn(),
}

impl AsRef<[u8]> for Step<'_> {
    fn as_ref(&self) -> &[u8] {
        (self.before)();
        &self.bytes
    }
}

fn read(consumer: &mut Consumer) -> Option<(MessageId, Vec<u8>)> {
    let found = consumer.find().unwrap()?;
    let mut bytes = vec![0; found.len];
    consumer.copy(found, &mut bytes).unwrap();
    consumer.consume(found);
    consumer.settle();
    Some((consumer.last_id().unwrap(), bytes))
}

/// `write_many` put off its bookkeeping to the end of the call. With a reader that kept up, one call
/// could write more than a lap; a kill then left a stored head whose frames had been written again,
/// the successor's walk found nothing there, and the ring was "corrupt".
#[test]
fn a_batch_longer_than_a_lap_leaves_a_head_that_can_be_walked_from() {
    let arena = Arena::new(64, 8, Overflow::Refuse, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let consumer = RefCell::new(Consumer::resume(arena.ring()).unwrap());
    let cut = RefCell::new(Vec::new());
    let before = || {
        while read(&mut consumer.borrow_mut()).is_some() {}
        cut.borrow_mut().push(arena.snapshot());
    };
    let batch: Vec<_> = (0..20).map(|n| Step { bytes: vec![n; 8], before: &before }).collect();
    assert_eq!(producer.write_many(&batch).unwrap(), 20);
    for (written, snapshot) in cut.take().iter().enumerate() {
        arena.restore(snapshot);
        let producer = Producer::resume(arena.ring(), 2).unwrap();
        assert_eq!(producer.head(), written as u64);
    }
}

/// The epoch is stored before the tail moves over the frame that announces it. Killed between the
/// two, the successor meets the announcement again and took it for an epoch that goes back.
#[test]
fn an_announcement_may_be_digested_twice() {
    let arena = Arena::new(64, 8, Overflow::Refuse, at(0));
    let mut producer = Producer::resume(arena.ring(), 2).unwrap();
    producer.try_write(b"of the second epoch").unwrap();
    arena.ring().lines().consumer.epoch.store(2, Ordering::Relaxed);
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    let (id, bytes) = read(&mut consumer).unwrap();
    assert_eq!((id, &bytes[..]), (MessageId { epoch: 2, number: 0 }, &b"of the second epoch"[..]));
}

/// In a batch of reads the place is stored at the end, but a control frame on the way stored the
/// tail alone. Killed there, the successor stood behind messages whose numbers it had not counted,
/// and found the next one out of its order.
#[test]
fn a_control_frame_inside_a_batch_of_reads_stores_the_number_too() {
    let arena = Arena::new(64, 8, Overflow::Refuse, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    producer.try_write(b"0").unwrap();
    producer.try_write(b"1").unwrap();
    let mut producer = Producer::resume(arena.ring(), 2).unwrap();
    // Announces itself; what it claims is never committed.
    producer.claim(1).unwrap();
    for _ in 0..2 {
        let found = consumer.find().unwrap().unwrap();
        consumer.pass(found);
    }
    assert!(consumer.find().unwrap().is_none());
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    producer.try_write(b"2").unwrap();
    assert_eq!(read(&mut consumer).unwrap().0, MessageId { epoch: 2, number: 2 });
}

/// A successor reserved anew from its head, which took back what its predecessor had reserved for a
/// message that it was killed in. A tap then believed frames that hold pieces of that message.
#[test]
fn a_successor_does_not_take_back_what_was_reserved() {
    let arena = Arena::new(64, 16, Overflow::Refuse, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    for n in 0..16 {
        producer.try_write(&[n; 8]).unwrap();
        read(&mut consumer).unwrap();
    }
    producer.claim(6 * 64).unwrap();
    let reserved = arena.ring().lines().reserve.reserve.load(Ordering::Relaxed);
    assert!(reserved >= 16 + 6);
    Producer::resume(arena.ring(), 1).unwrap().try_write(b"short").unwrap();
    assert!(arena.ring().lines().reserve.reserve.load(Ordering::Relaxed) >= reserved);
}

/// `skip_to_latest` digested a control frame behind the newest message, which stored a tail behind
/// that message, and then went back to it: the producer had been told that it may write there.
#[test]
fn skipping_to_the_latest_never_moves_the_tail_back() {
    let arena = Arena::new(64, 8, Overflow::Refuse, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    for n in 0..6 {
        producer.try_write(&[n; 8]).unwrap();
    }
    let mut producer = Producer::resume(arena.ring(), 2).unwrap();
    // Six messages, the announcement, and one free frame: full, but announced.
    assert!(matches!(producer.try_write(b"no room"), Err(Error::Full)));
    assert_eq!(consumer.skip_to_latest().unwrap(), Some(5));
    let ring = arena.ring();
    let line = &ring.lines().consumer;
    assert_eq!(line.tail.load(Ordering::Relaxed), 5);
    assert_eq!(line.epoch.load(Ordering::Relaxed), 1);
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    assert_eq!(read(&mut consumer).unwrap(), (MessageId { epoch: 1, number: 5 }, vec![5; 8]));
}

/// The marks that a ring never used are zeros, which name position 0: in a rebuilt ring a tap from
/// the oldest went there, and waited for a whole lap while messages lay elsewhere.
#[test]
fn a_tap_finds_the_oldest_message_of_a_rebuilt_ring() {
    let old = Arena::new(64, 64, Overflow::Refuse, at(0));
    let mut producer = Producer::resume(old.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(old.ring()).unwrap();
    for n in 0..20 {
        producer.try_write(&[n; 8]).unwrap();
    }
    for _ in 0..10 {
        read(&mut consumer).unwrap();
    }
    let new = Arena::blank(old.geometry());
    new.ring()
        .rebuild(&old.ring(), old.ring().find_tail(), old.ring().find_head(None).unwrap())
        .unwrap();
    let mut tap = Cursor::at_oldest(new.ring());
    let copied = tap.try_copy(&mut [0; 8]).unwrap().unwrap();
    assert_eq!(copied.id, MessageId { epoch: 1, number: 10 });
}

/// The reader of an overwritten ring corrects its number by the message at its tail. After a lap
/// that message may be payload that looks like one, and the count of what was lost was nonsense.
#[test]
fn a_lapped_reader_does_not_take_its_number_from_payload() {
    let arena = Arena::new(64, 8, Overflow::Overwrite, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut buffer = [0; 512];
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    for n in 0..2 {
        producer.try_write(&[n; 8]).unwrap();
        consumer.race(&mut buffer).unwrap().unwrap();
    }
    for n in 2..8 {
        producer.try_write(&[n; 8]).unwrap();
    }
    // A long message from position 8 on; the header of frame 10 would lie 112 bytes into it, where
    // the reader stands at position 2.
    let mut long = vec![0; 4 * 64 - 8];
    long[112..120].copy_from_slice(&3u64.to_le_bytes());
    long[120..128].copy_from_slice(&(8u64 | 1000 << 32).to_le_bytes());
    producer.try_write(&long).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    consumer.race(&mut buffer).unwrap().unwrap();
    assert_eq!(consumer.lost(), consumer.last_id().unwrap().number - 2);
}

/// The positions of an overwritten ring were not checked against each other, so a liar could have
/// one rebuilt frame by frame from here to 2^62.
#[test]
fn a_rebuild_is_bounded_by_the_ring() {
    for overflow in [Overflow::Refuse, Overflow::Overwrite] {
        let old = Arena::new(64, 8, overflow, at(0));
        let new = Arena::blank(old.geometry());
        let done = new.ring().rebuild(&old.ring(), at(0), at(1 << 62));
        assert!(matches!(done, Err(Error::Corrupt { .. })));
    }
}

/// The numbers of lost messages come from marks, and were added up with a plain `+`.
#[test]
fn a_lying_mark_overflows_no_counter() {
    let arena = Arena::new(64, 8, Overflow::Overwrite, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    let mut buffer = [0; 64];
    for round in 0..3 {
        for n in 0..20 {
            producer.try_write(&[n; 8]).unwrap();
        }
        for mark in &arena.ring().lines().marks {
            mark.number.store(if round % 2 == 0 { 1 << 63 } else { 7 }, Ordering::Relaxed);
        }
        let _ = consumer.race(&mut buffer);
    }
}

/// A new owner that had not announced itself yet waited for room for the announcement and the
/// message together; in the smallest ring, or for the longest messages, that never comes.
#[test]
fn a_successor_does_not_wait_for_more_than_the_ring_holds() {
    for (frames, len) in [(2, 0), (8, 4 * 64 - 8)] {
        let arena = Arena::new(64, frames, Overflow::Refuse, at(0));
        let mut consumer = Consumer::resume(arena.ring()).unwrap();
        let mut producer = Producer::resume(arena.ring(), 1).unwrap();
        while producer.try_write(b"").is_ok() {}
        let mut producer = Producer::resume(arena.ring(), 2).unwrap();
        let message = vec![7; len];
        assert!(!producer.may_have_room(len, true));
        assert!(matches!(producer.try_write(&message), Err(Error::Full)));
        for _ in 0..4 {
            while read(&mut consumer).is_some_and(|(_, bytes)| bytes.is_empty()) {}
            assert!(producer.may_have_room(len, true));
            if producer.try_write(&message).is_ok() {
                break;
            }
        }
        let (id, bytes) = read(&mut consumer).unwrap();
        assert_eq!((id.epoch, bytes), (2, message));
    }
}

/// The published space was thought never to lag by more than a lap behind the stored tail. A reader
/// that was held up between the two, after a batch, had its writer call the ring corrupt.
#[test]
fn published_space_may_lag_by_a_batch() {
    let arena = Arena::new(64, 64, Overflow::Refuse, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    let fill = |producer: &mut Producer| {
        while producer.try_write(b"").map_err(|error| assert_eq!(error, Error::Full)).is_ok() {}
    };
    fill(&mut producer);
    for _ in 0..7 {
        read(&mut consumer).unwrap();
    }
    fill(&mut producer);
    while let Some(found) = consumer.find_more().unwrap() {
        consumer.pass(found);
    }
    consumer.store_place();
    // Held up here: `settle` would follow.
    fill(&mut producer);
    fill(&mut producer);
    assert_eq!(producer.head(), 70 + 63);
}

/// A tap for which no boundary was whole just then, because the writer was about to store the next
/// one, began at position 0, and counted everything since the birth of the bus as lost.
#[test]
fn a_tap_that_begins_nowhere_has_lost_nothing() {
    let arena = Arena::new(64, 2, Overflow::Overwrite, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    for n in 0..9 {
        producer.try_write(&[n; 8]).unwrap();
    }
    let ring = arena.ring();
    // Reserved, and no mark yet.
    ring.lines().reserve.reserve.fetch_add(1, Ordering::Relaxed);
    let mut tap = Cursor::at_oldest(ring);
    let mut buffer = [0; 8];
    assert!(tap.try_copy(&mut buffer).unwrap().is_none());
    producer.try_write(&[9; 8]).unwrap();
    let copied = tap.try_copy(&mut buffer).unwrap().unwrap();
    assert_eq!((copied.id.number, buffer, tap.lost()), (9, [9; 8], 0));
}

/// A claim that reserves nearly a lap overwrites the mark of its own eighth too. It was not marked
/// again: a lapped reader had nowhere to go, and what was written next lay unread until the head
/// came to the next eighth.
#[test]
fn a_lapped_reader_finds_what_is_written_after_a_long_claim() {
    let arena = Arena::new(64, 64, Overflow::Overwrite, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    let mut number = 0;
    for (pos, claim) in [(64 + 34, 32), (3 * 64 + 36, 32), (5 * 64 + 2, 30)] {
        while producer.head() < pos {
            producer.try_write(b"old").unwrap();
            number += 1;
        }
        // Given up; a skip to the start of the ring may stay of it.
        producer.claim(claim * 64 - 8).unwrap();
        let mut buffer = [0; 8];
        while consumer.race(&mut buffer).unwrap().is_some() {}
        assert_eq!(consumer.next_id().number, number, "everything is counted");
        producer.try_write(b"new").unwrap();
        number += 1;
        assert_eq!(consumer.race(&mut buffer).unwrap(), Some(3));
        assert_eq!(&buffer[..3], b"new");
    }
}

/// What is not short, does not fit or is not there, is left to the ordinary path.
#[test]
fn the_path_of_short_messages_takes_nothing_else() {
    let arena = Arena::new(128, 8, Overflow::Refuse, Place::default());
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    let mut buffer = [0; 128];
    for len in [0, 1, FIRST_LINE - 1, FIRST_LINE, FIRST_LINE + 1, 112] {
        assert_eq!(consumer.take_short(&mut buffer), None);
        producer.try_write(&[7; 128][..len]).unwrap();
        assert_eq!(consumer.find().unwrap().map(|found| found.len), Some(len));
        assert!(len == 0 || consumer.take_short(&mut buffer[..len - 1]).is_none());
        let taken = consumer.take_short(&mut buffer);
        assert_eq!(taken, (len <= FIRST_LINE).then_some(len));
        if taken.is_none() {
            assert_eq!(consumer.take_now(&mut buffer), Some(len));
        }
    }
    // A lap on, and with something reserved.
    (0..8).for_each(|_| {
        producer.try_write(&[]).unwrap();
        consumer.take_now(&mut buffer).unwrap();
        consumer.publish();
    });
    producer.try_write(&[]).unwrap();
    assert!(!producer.write_short(&[7; FIRST_LINE + 1]));
    let written = (0..16).take_while(|_| producer.write_short(&[7; FIRST_LINE])).count();
    assert!(written < 8, "one frame stays free");
}

/// A successor remembered its head as a boundary although its predecessor had remembered one in the
/// same eighth, which is still whole. Whoever looked between the stores of the new one got the old
/// position with the new number, and called what lies there "a message out of its order".
#[test]
fn a_successor_does_not_replace_a_boundary_that_counts() {
    for overflow in [Overflow::Overwrite, Overflow::Refuse] {
        let arena = Arena::new(64, 64, overflow, at(0));
        for n in 0..3 {
            let mut producer = Producer::resume(arena.ring(), 1).unwrap();
            let before = arena.snapshot();
            producer.try_write(&[n; 8]).unwrap();
            let after = arena.snapshot();
            // All that a successor stores, but not yet the positions of boundaries.
            let lines = arena.ring();
            for (index, mark) in lines.lines().marks.iter().enumerate() {
                let word = std::ptr::from_ref(&mark.pos).addr();
                let base = std::ptr::from_ref(lines.lines()).addr();
                mark.pos.store(before[(word - base) / 8], Ordering::Relaxed);
                let tap = Cursor::at_oldest(arena.ring()).try_copy(&mut [0; 8]);
                assert!(tap.is_ok(), "{n}, mark {index}: {tap:?}");
            }
            arena.restore(&after);
        }
    }
}

/// A sleeper that could run the heavy barrier cleared the bit by which somebody who cannot had asked
/// for fences a moment before.
#[test]
fn who_asked_for_fences_gets_them_for_ever() {
    let arena = Arena::new(64, 8, Overflow::Refuse, at(0));
    let ring = arena.ring();
    ring.data_bell().set(FENCE);
    ring.data_bell().announce_sleep(false);
    assert_eq!(ring.data_bell().glance(), SLEEP | FENCE);
    assert!(ring.data_bell().take_sleep());
    assert_eq!(ring.data_bell().glance(), FENCE);
}

/// A tap tries first and asks about the seal afterwards: what it takes back must leave no trace.
#[test]
fn a_cursor_can_be_put_back() {
    let arena = Arena::new(64, 8, Overflow::Overwrite, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    for n in 0..4 {
        producer.try_write(&[n; 8]).unwrap();
    }
    let mut tap = Cursor::at_oldest(arena.ring());
    let mut buffer = [0; 8];
    for n in 0..3 {
        assert_eq!(tap.try_copy(&mut buffer).unwrap().unwrap().id.number, n);
    }
    let saved = tap;
    for _ in 0..2 {
        let copied = tap.try_copy(&mut buffer).unwrap().unwrap();
        assert_eq!((copied.id.number, tap.place().pos, tap.lost()), (3, 4, 0));
        tap = saved;
    }
    for n in 4..24 {
        producer.try_write(&[n; 8]).unwrap();
    }
    // Now the way leads over what was lost.
    let head = arena.ring().find_head(None).unwrap();
    for _ in 0..2 {
        let copied = tap.try_copy(&mut buffer).unwrap().unwrap();
        assert_eq!(copied.id.number, 3 + tap.lost());
        assert!(tap.lost() > 10 && tap.place().pos <= head.pos);
        tap = saved;
        assert_eq!((tap.place().number, tap.lost()), (3, 0));
    }
}

/// A lapped reader stores the number of where it jumped to, and then the position. Killed between the
/// two, its successor stood at the old position with that number, jumped to the same boundary, and
/// had lost one message less than none.
#[test]
fn a_reader_killed_behind_a_jump_has_not_lost_less_than_nothing() {
    let arena = Arena::new(64, 64, Overflow::Overwrite, at(0));
    let mut producer = Producer::resume(arena.ring(), 1).unwrap();
    let mut consumer = Consumer::resume(arena.ring()).unwrap();
    for n in 0..200 {
        producer.try_write(&[n; 8]).unwrap();
    }
    let mut buffer = [0; 8];
    consumer.race(&mut buffer).unwrap().unwrap();
    let (id, lost) = (consumer.last_id(), consumer.lost());
    let ring = arena.ring();
    ring.lines().consumer.tail.store(0, Ordering::Relaxed);
    let mut consumer = Consumer::resume(ring).unwrap();
    consumer.race(&mut buffer).unwrap().unwrap();
    assert_eq!((consumer.last_id(), consumer.lost()), (id, 0));
    assert_eq!(ring.lines().consumer.lost.load(Ordering::Relaxed), lost, "over all readers");
}
