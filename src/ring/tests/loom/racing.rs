//! Those who race with the writer: readers of rings that are overwritten, taps, and whoever builds such
//! a ring anew while its writer goes on.

use super::*;

/// RESERVE: the reader of an overwritten ring gets whole messages in order and counts what it lost.
/// Every load may be stale, so even few preemptions show every tear.
#[test]
fn loom_reserve_a_raced_copy_is_whole_or_discarded() {
    let names = ["nothing", "message 1, 0 lost", "message 2, 1 lost", "message 3, 2 lost"];
    explore(Some(1), &names, |outcomes| {
        let model = Model::new(2, Overflow::Overwrite);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let mut consumer = Consumer::resume(model.ring()).unwrap();
        let mut bytes = [0; 8];
        producer.try_write(&message(0)[..8]).unwrap();
        consumer.race(&mut bytes).unwrap().unwrap();
        producer.try_write(&message(1)[..8]).unwrap();
        let writer = thread::spawn(move || {
            // Message 3 comes to lie where message 1 is.
            producer.try_write(&message(2)[..8]).unwrap();
            producer.try_write(&message(3)[..8]).unwrap();
        });
        if consumer.race(&mut bytes).unwrap().is_some() {
            let number = consumer.last_id().unwrap().number;
            assert_eq!(bytes[..], message(number)[..8]);
            assert_eq!(number, 1 + consumer.lost());
            outcomes.met(format!("message {number}, {} lost", consumer.lost()));
        } else {
            outcomes.met("nothing");
        }
        writer.join().unwrap();
    });
}

/// MARK: who looks for a boundary while it is replaced gets what belongs to it, or nothing.
#[test]
fn loom_mark_is_whole_or_not_believed() {
    explore(Some(1), &["mark 0", "mark 8", "none"], |outcomes| {
        let model = Model::new(8, Overflow::Overwrite);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        for number in 0..7 {
            producer.try_write(&message(number)[..8]).unwrap();
        }
        let ring = model.ring();
        let writer = thread::spawn(move || {
            // The mark of message 8 replaces that of message 0.
            producer.try_write(&message(7)[..8]).unwrap();
            producer.try_write(&message(8)[..8]).unwrap();
        });
        for around in [0, 8] {
            match ring.whole_mark(around) {
                Some(mark) => {
                    assert_eq!((mark.pos, mark.number, mark.epoch), (around, around, 1));
                    outcomes.met(format!("mark {around}"));
                }
                None => outcomes.met("none"),
            }
        }
        writer.join().unwrap();
    });
}

/// MARK, where the ring is so full that an eighth is entered before all of it is reserved: the mark
/// that is replaced counts until the rest of it is.
#[test]
fn loom_mark_is_replaced_behind_the_reservation() {
    explore(Some(2), &["mark 1", "mark 16", "none"], |outcomes| {
        let model = Model::begun_at(1, 16, Overflow::Refuse);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 1).unwrap();
        let mut consumer = Consumer::resume(ring).unwrap();
        // Up to 16, the first frame of an eighth whose mark is that of message 1.
        while producer.try_write(&message(producer.head())).is_ok() {}
        assert_eq!(producer.head(), 16);
        read(&mut consumer).unwrap();
        read(&mut consumer).unwrap();
        consumer.settle();
        let writer = thread::spawn(move || producer.try_write(&message(16)).unwrap());
        for around in [1, 16] {
            match ring.whole_mark(around) {
                Some(mark) => {
                    assert_eq!((mark.pos, mark.number, mark.epoch), (around, around, 1));
                    outcomes.met(format!("mark {around}"));
                }
                None => outcomes.met("none"),
            }
        }
        writer.join().unwrap();
    });
}

/// Reads the next message of an overwritten ring: whole, and in order but for what it lost.
fn read_raced(consumer: &mut Consumer) -> Option<u64> {
    let (next, lost) = (consumer.next_id().number, consumer.lost());
    let mut bytes = [0; 8];
    consumer.race(&mut bytes).unwrap()?;
    let number = consumer.last_id().unwrap().number;
    assert_eq!(
        (number, bytes[..].into()),
        (next + consumer.lost() - lost, message(number)[..8].to_vec())
    );
    Some(number)
}

/// SEAL, RESERVE: the writer of an overwritten ring goes on behind the cut, over none of what its
/// successors find; and what it cannot be sure of it writes again.
#[test]
fn loom_seal_leaves_alone_what_an_overwriting_writer_had_not_reserved() {
    let names = ["1 of 2 left", "1 of 3 left", "1 of 4 left", "0 of 2 left", "0 of 3 left"];
    explore_heavy(Some(2), &names, |outcomes| {
        let model = Model::new(2, Overflow::Overwrite);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 1).unwrap();
        for number in 0..2 {
            producer.try_write(&message(number)[..8]).unwrap();
        }
        let writer = thread::spawn(move || {
            let mut did = Did { sure: 2, maybe: 2 };
            for number in 2..4 {
                if producer.try_write(&message(number)[..8]) == Err(Error::Full) {
                    // Full it stays.
                    assert_eq!(producer.try_write(&[]), Err(Error::Full));
                    break;
                }
                did.maybe = number + 1;
                if producer.ring().data_bell().is_sealed() {
                    break;
                }
                did.sure = number + 1;
            }
            did
        });
        ring.data_bell().set(SEALED);
        heavy_barrier();
        let (head, tail) = (ring.find_head(None).unwrap(), ring.find_tail());
        let new = Model::blank(2, Overflow::Overwrite);
        new.ring().rebuild(&ring, tail, head).unwrap();
        let wrote = writer.join().unwrap();
        assert!(wrote.sure <= head.number && head.number <= wrote.maybe);
        let mut successor = Consumer::resume(new.ring()).unwrap();
        let count = std::iter::from_fn(|| read_raced(&mut successor)).count() as u64;
        assert_eq!(successor.next_id().number, head.number);
        assert_eq!(successor.lost() + count, head.number);
        outcomes.met(format!("{count} of {} left", head.number));
    });
}

/// The same with a long message, whose frames lie where messages are that the sealer believes whole
/// if it does not see what was reserved for it.
#[test]
fn loom_seal_sees_what_is_reserved_or_it_is_not_written() {
    let names = ["3 of 4 left", "1 of 4 left", "2 of 5 left"];
    explore_heavy(Some(2), &names, |outcomes| {
        let model = Arc::new(Model::of_words(4, Overflow::Overwrite, 7));
        let ring = model.ring();
        ring.format(Place { epoch: 1, ..Place::default() });
        let mut producer = Producer::resume(ring, 1).unwrap();
        for number in 0..4 {
            producer.try_write(&message(number)[..8]).unwrap();
        }
        // Its second frame is that of message 1.
        let writer = thread::spawn(move || drop(producer.try_write(&[0xAA; 64])));
        ring.data_bell().set(SEALED);
        heavy_barrier();
        let (head, tail) = (ring.find_head(None).unwrap(), ring.find_tail());
        let new = Model::of_words(4, Overflow::Overwrite, 7);
        new.ring().rebuild(&ring, tail, head).unwrap();
        writer.join().unwrap();
        let mut successor = Consumer::resume(new.ring()).unwrap();
        let (mut count, mut bytes) = (0, [0; 64]);
        while let Some(len) = successor.race(&mut bytes).unwrap() {
            let number = successor.last_id().unwrap().number;
            let expected = if number < 4 { message(number)[..8].to_vec() } else { vec![0xAA; 64] };
            assert_eq!(bytes[..len], expected);
            count += 1;
        }
        assert_eq!(successor.next_id().number, head.number);
        assert_eq!(successor.lost() + count, head.number);
        outcomes.met(format!("{count} of {} left", head.number));
    });
}

/// SEAL: a tap copies, and then asks about the seal. What it found unsealed lies before the cut; the
/// rest it compares, and takes back what lies behind.
#[test]
fn loom_seal_a_tap_delivers_nothing_from_behind_the_cut() {
    let names = ["0 of 0", "0 of 1", "0 of 2", "1 of 1", "1 of 2", "2 of 2", "taken back"];
    explore_heavy(Some(3), &names, |outcomes| {
        let model = Model::new(8, Overflow::Overwrite);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 1).unwrap();
        let writer = thread::spawn(move || {
            for number in 0..2 {
                let is_written = producer.try_write(&message(number)[..8]).is_ok();
                if !is_written || producer.ring().data_bell().is_sealed() {
                    break;
                }
            }
        });
        let tap = thread::spawn(move || {
            let mut tap = Cursor::at(ring, Place { epoch: 1, ..Place::default() });
            loop {
                let (saved, mut bytes) = (tap, [0; 8]);
                let Some(copied) = tap.try_copy(&mut bytes).unwrap() else { break (tap, tap) };
                assert_eq!(bytes[..], message(copied.id.number)[..8]);
                // Whoever only listens runs no barrier and is reached by none: a full fence.
                if ring.data_bell().look() & SEALED != 0 {
                    break (saved, tap);
                }
            }
        });
        ring.data_bell().set(SEALED);
        heavy_barrier();
        let head = ring.find_head(None).unwrap();
        writer.join().unwrap();
        let (sure, mut tap) = tap.join().unwrap();
        assert!(sure.place().pos <= head.pos, "delivered from behind the cut");
        if tap.place().pos > head.pos {
            outcomes.met("taken back");
            tap = sure;
        }
        assert_eq!((tap.place().pos, tap.lost()), (tap.place().number, 0));
        outcomes.met(format!("{} of {}", tap.place().number, head.number));
    });
}

/// RESERVE, PLACE: a reader begins on a ring that is overwritten while it looks.
#[test]
fn loom_a_reader_begins_while_the_writer_overwrites() {
    let names = ["nothing", "message 0", "message 1", "message 2"];
    explore(Some(2), &names, |outcomes| {
        let model = Model::new(2, Overflow::Overwrite);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 1).unwrap();
        let writer = thread::spawn(move || {
            let batch = [0, 1, 2].map(|number| message(number)[..8].to_vec());
            assert_eq!(producer.write_many(&batch), Ok(3));
        });
        let mut consumer = Consumer::resume(ring).unwrap();
        match read_raced(&mut consumer) {
            Some(number) => outcomes.met(format!("message {number}")),
            None => outcomes.met("nothing"),
        }
        writer.join().unwrap();
        while read_raced(&mut consumer).is_some() {}
        assert_eq!(consumer.next_id().number, 3);
    });
}

/// MARK (I9): a successor stands in an eighth that has a boundary already.
#[test]
fn loom_mark_of_a_predecessor_is_not_torn_by_a_successor() {
    explore(Some(3), &["message 0"], |outcomes| {
        let model = Model::new(16, Overflow::Overwrite);
        let ring = model.ring();
        Producer::resume(ring, 1).unwrap().try_write(&message(0)[..8]).unwrap();
        let writer = thread::spawn(move || {
            Producer::resume(ring, 1).unwrap().try_write(&message(1)[..8]).unwrap();
        });
        let mut bytes = [0; 8];
        let copied = Cursor::at_oldest(ring).try_copy(&mut bytes).unwrap().unwrap();
        assert_eq!(bytes[..], message(copied.id.number)[..8]);
        outcomes.met(format!("message {}", copied.id.number));
        writer.join().unwrap();
    });
}
