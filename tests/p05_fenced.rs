//! Promise 5: a hung owner that wakes up again finds itself fenced; not one byte of it reaches the
//! stream of its successor.
#![allow(missing_docs)]

mod support;

use eshm::{Error, Role, Takeover};
use support::*;

children! { "one_write" => one_write, "one_read" => one_read }

fn successor(bus: &Bus, role: Role) -> eshm::Endpoint {
    let mut options = bus.options(role);
    options.takeover(Takeover::Hung).open().expect("a successor")
}

#[test]
fn a_stopped_master_is_replaced_and_finds_itself_fenced() {
    let bus = Bus::new("p05master");
    let mut old = bus.servant("master", "");
    let mut slave = bus.slave();
    old.send(0, 10);
    old.stop();
    let mut new = successor(&bus, Role::Master);
    assert_eq!((new.epoch(), new.last_committed().unwrap().number), (2, 9));
    send(&mut new, 10..13);
    old.go_on();
    for call in ["send 666 5 100", "recv 1", "batch 666 3 100", "claim 666 64", "peek"] {
        let answer = old.ask(call);
        assert!(answer.starts_with("err 0 Fenced { role: Master"), "{call}: {answer}");
    }
    let by_pid = format!("by_pid: {}", std::process::id());
    assert!(old.ask("send 666 1 100").contains(&by_pid));
    assert!(old.ask("leave").starts_with("err 0 Fenced"), "there is nothing left to leave");
    send(&mut new, 13..15);
    assert_eq!(drain(&mut slave), (0..15).collect::<Vec<_>>());
    assert!(bus.path().exists(), "the old one took nothing away");
}

#[test]
fn a_stopped_slave_is_replaced_and_finds_itself_fenced() {
    let bus = Bus::new("p05slave");
    let mut master = bus.master();
    let mut old = bus.servant("slave", "");
    send(&mut master, 0..10);
    old.expect(0, 3);
    old.send(0, 4);
    old.stop();
    let mut new = successor(&bus, Role::Slave);
    assert_eq!(new.last_id().unwrap().number, 2);
    old.go_on();
    let answer = old.ask("recv 1");
    assert!(answer.starts_with("err 0 Fenced { role: Slave"), "{answer}");
    send(&mut master, 10..12);
    assert_eq!(drain(&mut new), (3..12).collect::<Vec<_>>());
    send(&mut new, 4..6);
    assert_eq!(drain(&mut master), (0..6).collect::<Vec<_>>());
}

/// Does one thing, freezes at an instruction of it, and tells how it ended.
fn one_write(talk: &mut Talk) {
    let words = ["role=master", "frames=16", "background=0"];
    let mut bus = servant::options(talk.word(0), &words).open().unwrap();
    let kind = talk.word(2).to_owned();
    let bytes: Vec<_> = (1..4).map(|number| message(number, 150)).collect();
    bus.write(&message(0, 150)).unwrap();
    talk.say("ready");
    step::begin(talk.number(3), Some(Board::open(talk.word(1))));
    let done = match kind.as_str() {
        "write" => bus.write(&bytes[0]).map(|()| 1),
        "batch" => bus.try_write_many(&bytes),
        _ => bus.claim(bytes[0].len()).and_then(|mut claim| {
            claim.copy_from_slice(&bytes[0]);
            claim.commit().map(|()| 1)
        }),
    };
    step::end();
    talk.say(match done {
        Ok(count) => format!("ok {count}"),
        Err(error) => format!("err {error:?}"),
    });
    let again = bus.write(&message(666, 150));
    talk.say(format!("{again:?}"));
}

/// Freezes a writer at instruction k of an operation, replaces it, and lets it go on.
fn frozen_at_each_instruction(kind: &str) {
    if !step::is_possible() {
        return;
    }
    let (mut k, stride) = step::places(211);
    loop {
        let bus = Bus::new("p05step");
        let board = Board::new();
        let words = format!("{} {} {kind} {k}", bus.name(), board.path());
        let mut old = Child::spawn("one_write", &words);
        old.expect("ready");
        let mut slave = bus.slave();
        let is_frozen = step::is_frozen(&board);
        let mut options = bus.options(Role::Master);
        let mut new = options.frames(16).takeover(Takeover::Always).open().unwrap();
        let next = new.last_committed().unwrap().number + 1;
        step::go_on(&board);
        let answer = old.hear();
        // What it was told is done lies before the cut, and nothing else does.
        match answer.strip_prefix("ok ") {
            Some(count) => assert_eq!(count.parse::<u64>().unwrap() + 1, next, "{kind} {k}"),
            None => {
                assert!(answer.starts_with("err Fenced"), "{kind} {k}: {answer}");
                assert_eq!(next, 1, "{kind} {k}");
            }
        }
        let again = old.hear();
        assert!(again.starts_with("Err(Fenced"), "{kind} {k}: {again}");
        send(&mut new, next..next + 2);
        assert_eq!(drain(&mut slave), (0..next + 2).collect::<Vec<_>>(), "{kind} {k}");
        for number in next + 2..next + 30 {
            send(&mut new, [number]);
            assert_eq!(drain(&mut slave), [number], "{kind} {k}");
        }
        if !is_frozen {
            assert!(k > 50, "only {k} instructions");
            return;
        }
        k += stride;
    }
}

#[test]
fn frozen_at_each_instruction_of_a_write() {
    frozen_at_each_instruction("write");
}

#[test]
fn frozen_at_each_instruction_of_a_batch() {
    frozen_at_each_instruction("batch");
}

#[test]
fn frozen_at_each_instruction_of_a_claim() {
    frozen_at_each_instruction("claim");
}

/// Reads one message, freezes at an instruction of that, and tells how it ended.
fn one_read(talk: &mut Talk) {
    let words = ["role=slave", "background=0"];
    let mut bus = servant::options(talk.word(0), &words).open().unwrap();
    let mut buffer = [0; 512];
    talk.say("ready");
    step::begin(talk.number(2), Some(Board::open(talk.word(1))));
    let done = bus.read(&mut buffer);
    step::end();
    talk.say(format!("{:?}", done.map(|len| number_of(&buffer[..len]))));
    talk.say(format!("{:?}", bus.read(&mut buffer)));
}

/// Freezes a reader at instruction k of a read: the message goes to it or to its successor, never
/// to both and never to none.
#[test]
fn frozen_at_each_instruction_of_a_read() {
    if !step::is_possible() {
        return;
    }
    let (mut k, stride) = step::places(211);
    loop {
        let bus = Bus::new("p05read");
        let mut master = bus.master();
        send(&mut master, 0..4);
        let board = Board::new();
        let words = format!("{} {} {k}", bus.name(), board.path());
        let mut old = Child::spawn("one_read", &words);
        old.expect("ready");
        let is_frozen = step::is_frozen(&board);
        let mut new = bus.options(Role::Slave).takeover(Takeover::Always).open().unwrap();
        step::go_on(&board);
        let first = match old.hear().as_str() {
            "Ok(0)" => 1,
            answer if answer.starts_with("Err(Fenced") => 0,
            answer => panic!("{k}: {answer}"),
        };
        let again = old.hear();
        assert!(again.starts_with("Err(Fenced"), "{k}: {again}");
        send(&mut master, 4..6);
        assert_eq!(drain(&mut new), (first..6).collect::<Vec<_>>(), "{k}");
        if !is_frozen {
            assert!(k > 50, "only {k} instructions");
            return;
        }
        k += stride;
    }
}

#[test]
fn the_living_are_not_fenced_as_hung() {
    let bus = Bus::new("p05alive");
    let mut master = bus.master();
    let mut slave = bus.slave();
    let error = error_of(bus.options(Role::Master).takeover(Takeover::Hung).open());
    assert!(matches!(error, Error::RoleTaken { state: "alive", .. }), "{error}");
    send(&mut master, 0..2);
    assert_eq!(drain(&mut slave), [0, 1]);
}
