//! Promise 2: where a reader dies is named, not hidden. `read` hands a message out at most once,
//! `peek` and `release` at least once, and ids tell an application which ones it knows.
#![allow(missing_docs)]

mod support;

use eshm::{MessageId, Role};
use support::*;

children! { "reader" => reader, "one_read" => one_read }

/// Reads until it is killed, in the way asked for. The board says which message the application has
/// handled last, and which it was shown.
fn reader(talk: &mut Talk) {
    let mut bus = servant::options(talk.word(0), &["role=slave"]).open().unwrap();
    let board = Board::open(talk.word(1));
    let is_peeking = talk.word(2) == "peek";
    talk.say("ready");
    let mut buffer = [0; 512];
    loop {
        if is_peeking {
            let peek = bus.peek().unwrap();
            let number = number_of(&peek);
            assert_eq!(peek.id().number, number);
            board.set(0, number + 1);
            peek.release().unwrap();
            board.set(1, number + 1);
        } else {
            let len = bus.read(&mut buffer).unwrap();
            let number = number_of(&buffer[..len]);
            assert_eq!(bus.last_id().unwrap().number, number);
            board.set(0, number + 1);
        }
    }
}

/// Kills readers again and again while messages flow. `check` gets what the dead one had handled,
/// what it had released, and what its successor is given first.
fn killed_readers(kind: &str, check: impl Fn(u64, u64, u64)) {
    let bus = Bus::new("p02");
    let board = Board::new();
    let mut master = bus.options(Role::Master).frames(4096).open().unwrap();
    let (mut sent, mut dice) = (0u64, Dice(77));
    for _ in 0..40 {
        let mut child = Child::spawn("reader", &format!("{} {} {kind}", bus.name(), board.path()));
        child.expect("ready");
        let until = board.get(0) + dice.below(400);
        while board.get(0) < until {
            if sent - board.get(0) < 500 {
                master.write(&message(sent, 100)).unwrap();
                sent += 1;
            }
        }
        child.kill();
        // One more, so that there is a next message.
        master.write(&message(sent, 100)).unwrap();
        sent += 1;
        let mut successor = bus.slave();
        let last = successor.last_id().map(|id| id.number);
        let first = read_number(&mut successor);
        assert_eq!(last.map_or(0, |last| last + 1), first, "the last id names the one before");
        assert_eq!(successor.last_id().unwrap().number, first);
        check(board.get(0), board.get(1), first);
        // The application knows now how far it came.
        board.set(0, first + 1);
        board.set(1, first + 1);
    }
}

#[test]
fn read_hands_out_at_most_once() {
    killed_readers("read", |handled, _, first| {
        assert!(first == handled || first == handled + 1, "handled {handled}, then {first}");
    });
}

#[test]
fn peek_and_release_hand_out_at_least_once() {
    killed_readers("peek", |handled, released, first| {
        assert!(first <= handled && first >= released, "{released}, {handled}, then {first}");
    });
}

/// Does one thing, and is killed at an instruction of it.
fn one_read(talk: &mut Talk) {
    let words = ["role=slave", "background=0"];
    let mut bus = servant::options(talk.word(0), &words).open().unwrap();
    let board = Board::open(talk.word(1));
    let kind = talk.word(2).to_owned();
    let mut buffer = [0; 512];
    let mut batch = eshm::Batch::with_capacity(4096, 3);
    bus.read(&mut buffer).unwrap();
    step::begin(talk.number(3), None);
    match kind.as_str() {
        "read" => {
            let len = bus.read(&mut buffer).unwrap();
            assert_eq!(number_of(&buffer[..len]), 1);
        }
        "read_many" => assert_eq!(bus.try_read_many(&mut batch), Ok(3)),
        _ => bus.peek().unwrap().release().unwrap(),
    }
    board.set(0, 1);
    step::end();
}

fn killed_at_each_instruction(kind: &str, most: u64) {
    if !step::is_possible() {
        return;
    }
    let (mut k, stride) = step::places(211);
    loop {
        let bus = Bus::new("p02step");
        let board = Board::new();
        let mut master = bus.options(Role::Master).frames(32).open().unwrap();
        send(&mut master, 0..6);
        let words = format!("{} {} {kind} {k}", bus.name(), board.path());
        let mut child = Child::spawn("one_read", &words);
        let was_killed = step::was_killed(&mut child);
        let mut reader = bus.slave();
        let last = reader.last_id().unwrap();
        let first = last.number + 1;
        assert!(first == 1 || first == 1 + most, "{kind} {k}: all or nothing, not up to {first}");
        assert!(board.get(0) == 0 || first == 1 + most, "{kind} {k}: it was read");
        assert_eq!(last, MessageId { epoch: 1, number: first - 1 });
        assert_eq!(drain(&mut reader), (first..6).collect::<Vec<_>>(), "{kind} {k}");
        for number in 6..50 {
            send(&mut master, [number]);
            assert_eq!(drain(&mut reader), [number], "{kind} {k}");
        }
        if !was_killed {
            assert_eq!(board.get(0), 1, "{kind} {k}");
            assert!(k > 50, "{kind}: only {k} instructions");
            return;
        }
        k += stride;
    }
}

#[test]
fn killed_at_each_instruction_of_a_read() {
    killed_at_each_instruction("read", 1);
}

#[test]
fn killed_at_each_instruction_of_a_batch() {
    killed_at_each_instruction("read_many", 3);
}

#[test]
fn killed_at_each_instruction_of_a_release() {
    killed_at_each_instruction("peek", 1);
}

#[test]
fn what_is_peeked_and_not_released_stays() {
    let bus = Bus::new("p02stay");
    let (mut master, mut slave) = bus.pair();
    send(&mut master, 0..5);
    for _ in 0..3 {
        let peek = slave.peek().unwrap();
        assert_eq!((number_of(&peek), peek.id()), (0, MessageId { epoch: 1, number: 0 }));
    }
    assert_eq!(slave.last_id(), None);
    let mut batch = eshm::Batch::with_capacity(4096, 3);
    for _ in 0..3 {
        let peeked = slave.try_peek_many(&mut batch).unwrap();
        let ids: Vec<u64> = peeked.iter().map(|(id, _)| id.number).collect();
        assert_eq!(ids, [0, 1, 2]);
    }
    slave.try_peek_many(&mut batch).unwrap().release().unwrap();
    assert_eq!(slave.last_id().unwrap().number, 2);
    assert_eq!(drain(&mut slave), [3, 4]);
}

#[test]
fn ids_name_the_owner_of_the_writing_role() {
    let bus = Bus::new("p02ids");
    let mut slave_side = None;
    for epoch in 1..5u64 {
        let mut master = bus.master();
        let slave = slave_side.get_or_insert_with(|| bus.slave());
        assert_eq!(master.epoch(), epoch);
        let number = (epoch - 1) * 2;
        assert_eq!(
            master.last_committed(),
            number.checked_sub(1).map(|number| MessageId { epoch: epoch - 1, number })
        );
        send(&mut master, number..number + 2);
        assert_eq!(master.last_committed(), Some(MessageId { epoch, number: number + 1 }));
        let peek = slave.peek().unwrap();
        assert_eq!(peek.id(), MessageId { epoch, number });
        let _ = peek;
        assert_eq!(drain(slave), [number, number + 1]);
        assert_eq!(slave.last_id(), Some(MessageId { epoch, number: number + 1 }));
        master.leave().unwrap();
    }
}
