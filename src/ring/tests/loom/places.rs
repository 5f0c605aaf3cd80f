//! Where the ends stand, found by somebody else while they go on.

use super::*;

/// I4: somebody who looks while the producer writes sees numbers that fit the position.
#[test]
fn loom_a_head_found_from_outside_fits_its_number() {
    explore(Some(3), &["head 0", "head 1", "head 2"], |outcomes| {
        let model = Model::new(4, Overflow::Refuse);
        let mut producer = Producer::resume(model.ring(), 1).unwrap();
        let ring = model.ring();
        let writer = thread::spawn(move || {
            producer.write_many(&[message(0), message(1)]).unwrap();
            // A successor stores the same once more.
            Producer::resume(ring, 1).unwrap();
        });
        let head = ring.find_head(None).unwrap();
        assert_eq!(head.pos, head.number);
        outcomes.met(format!("head {}", head.pos));
        writer.join().unwrap();
    });
}

/// I4: the walk from a stored head is not led astray by a producer that goes on meanwhile, and comes
/// round to where the walk began.
#[test]
fn loom_a_head_found_during_a_batch_is_not_behind_the_tail() {
    explore(Some(2), &["found"], |outcomes| {
        let model = Model::new(4, Overflow::Refuse);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 1).unwrap();
        let mut consumer = Consumer::resume(ring).unwrap();
        for number in 0..2 {
            producer.try_write(&message(number)).unwrap();
            read(&mut consumer).unwrap();
        }
        consumer.publish();
        // Anew, so that it clears commit words ahead of it, as after a long message.
        let mut producer = Producer::resume(ring, 1).unwrap();
        // All in one batch so far, in which the place was stored last at 1.
        ring.store_place(Place { pos: 1, number: 1, epoch: 1, ..Place::default() });
        let writer = thread::spawn(move || {
            let batch = (2..5).map(message).collect::<Vec<_>>();
            producer.write_many(&batch).unwrap()
        });
        let head = ring.find_head(None).unwrap();
        assert!((2..=5).contains(&head.pos), "{head:?}");
        assert_eq!(head.pos, head.number);
        assert_eq!(writer.join().unwrap(), 3);
        outcomes.met("found");
    });
}

/// I4: the same where the frames that the walk comes to were written again, a lap later, since the
/// place was loaded. Whoever sees what was reserved since finds the place that was stored before.
#[test]
fn loom_a_walk_that_is_overtaken_begins_anew() {
    explore(Some(1), &["head 0", "head 1", "head 2", "head 3"], |outcomes| {
        let model = Model::new(2, Overflow::Refuse);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 1).unwrap();
        let mut consumer = Consumer::resume(ring).unwrap();
        let both = thread::spawn(move || {
            for number in 0..3 {
                producer.try_write(&message(number)).unwrap();
                read(&mut consumer).unwrap();
            }
        });
        let head = ring.find_head(None).unwrap();
        assert_eq!(head.pos, head.number);
        outcomes.met(format!("head {}", head.pos));
        both.join().unwrap();
    });
}

/// I5: the same for the consumer.
#[test]
fn loom_a_tail_found_from_outside_fits_its_number() {
    explore(Some(3), &["tail 0", "tail 1", "tail 2"], |outcomes| {
        let model = Model::new(4, Overflow::Refuse);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 1).unwrap();
        let mut consumer = Consumer::resume(ring).unwrap();
        let reader = thread::spawn(move || {
            producer.write_many(&[message(0), message(1)]).unwrap();
            read(&mut consumer).unwrap();
            read(&mut consumer).unwrap();
        });
        let tail = ring.find_tail();
        assert_eq!(tail.pos, tail.number);
        outcomes.met(format!("tail {}", tail.pos));
        reader.join().unwrap();
    });
}

/// I5: the same where the reader hangs between the stores of its number and its tail: the messages
/// are counted.
#[test]
fn loom_the_number_at_a_tail_is_counted() {
    explore(Some(2), &["tail 0", "tail 1", "tail 2"], |outcomes| {
        let model = Model::new(4, Overflow::Refuse);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 1).unwrap();
        let mut consumer = Consumer::resume(ring).unwrap();
        let both = thread::spawn(move || {
            for number in 0..2 {
                producer.try_write(&message(number)).unwrap();
                read(&mut consumer).unwrap();
                ring.lines().consumer.number.store(number + 2, Ordering::Relaxed);
            }
        });
        let tail = ring.find_tail();
        assert_eq!(tail.pos, tail.number);
        outcomes.met(format!("tail {}", tail.pos));
        both.join().unwrap();
    });
}

/// PLACE: a record that is written again meanwhile is not believed.
#[test]
fn loom_a_place_is_whole() {
    explore(Some(4), &["place 0", "place 3", "place 4"], |outcomes| {
        let model = Model::new(2, Overflow::Refuse);
        let ring = model.ring();
        let at = |pos| Place { pos, number: pos, ..Place::default() };
        let writer = thread::spawn(move || (1..=4).for_each(|pos| ring.store_place(at(pos))));
        if let Ok(place) = ring.stored_place() {
            assert_eq!(place.pos, place.number);
            outcomes.met(format!("place {}", place.pos));
        }
        writer.join().unwrap();
    });
}

/// PUBLISH: who counts messages from outside sees of which epoch they are.
#[test]
fn loom_a_head_found_from_outside_fits_its_epoch() {
    explore(Some(3), &["0 of 1", "0 of 2", "1 of 2"], |outcomes| {
        let model = Model::new(4, Overflow::Refuse);
        let ring = model.ring();
        let mut producer = Producer::resume(ring, 2).unwrap();
        let writer = thread::spawn(move || producer.try_write(&message(0)).unwrap());
        let head = ring.find_head(None).unwrap();
        assert_eq!(head.epoch, 1 + u64::from(head.pos > 0), "the announcement is a frame");
        outcomes.met(format!("{} of {}", head.number, head.epoch));
        writer.join().unwrap();
    });
}
