//! Promise 1: nothing committed is lost, doubled, torn or reordered, whichever process is killed at
//! whichever machine instruction.
#![allow(missing_docs)]

mod support;

use std::os::unix::fs::FileExt;

use eshm::{Endpoint, Error, Role};
use support::*;

children! { "writer" => writer, "one_write" => one_write }

/// Writes numbered messages in every way there is, until it is killed. The board says up to where
/// it was told `Ok`.
fn writer(talk: &mut Talk) {
    let mut bus = servant::options(talk.word(0), &["role=master", "frames=256"]).open().unwrap();
    let board = Board::open(talk.word(1));
    let mut next = bus.last_committed().map_or(0, |id| id.number + 1);
    talk.say("ready");
    loop {
        let done = write_somehow(&mut bus, next);
        board.set(0, next + done);
        next += done;
    }
}

/// Writes one or more messages from this number on; how many.
fn write_somehow(bus: &mut Endpoint, next: u64) -> u64 {
    match next % 5 {
        0 => {
            let batch: Vec<_> = (next..next + 4).map(|n| message(n, 300)).collect();
            match bus.try_write_many(&batch) {
                Ok(count) => count as u64,
                Err(Error::Full) => 0,
                Err(error) => panic!("{error}"),
            }
        }
        1 => {
            let bytes = message(next, 200);
            // Filled in and given up: nobody may ever see it.
            bus.claim(400).unwrap().fill(0xEE);
            let mut claim = bus.claim(300).unwrap();
            claim[..bytes.len()].copy_from_slice(&bytes);
            claim.commit_len(bytes.len()).unwrap();
            1
        }
        _ => {
            bus.write(&message(next, if next % 5 == 2 { 1000 } else { 48 })).unwrap();
            1
        }
    }
}

#[test]
fn a_writer_killed_at_any_time_loses_and_doubles_nothing() {
    let mut bus = Bus::new("p01kill");
    bus.may_leave();
    let board = Board::new();
    let mut dice = Dice(0x1234_5678_9abc_def1);
    let mut reader: Option<Endpoint> = None;
    let mut next = 0;
    for round in 0..60 {
        let mut child = Child::spawn("writer", &format!("{} {}", bus.name(), board.path()));
        child.expect("ready");
        let reader = reader.get_or_insert_with(|| bus.slave());
        // Between nothing and a few laps of the ring.
        let until = next + dice.below(600);
        while next < until {
            assert_eq!(read_number(reader), next, "round {round}");
            next += 1;
        }
        child.kill();
        let told = board.get(0);
        for number in drain(reader) {
            assert_eq!(number, next, "round {round}");
            next += 1;
        }
        assert!(next >= told, "round {round}: told ok up to {told}, delivered up to {next}");
    }
}

#[test]
fn both_killed_at_any_time_and_the_next_pair_goes_on() {
    let mut bus = Bus::new("p01both");
    bus.may_leave();
    let board = Board::new();
    let mut delivered = 0;
    for round in 0..25u64 {
        let mut writer = Child::spawn("writer", &format!("{} {}", bus.name(), board.path()));
        writer.expect("ready");
        let mut reader = bus.servant("slave", "");
        reader.expect(delivered, 50 + round * 13);
        delivered += 50 + round * 13;
        reader.kill();
        writer.kill();
    }
    assert!(delivered <= board.get(0) + 4);
}

/// Does one thing, and is killed at an instruction of it.
fn one_write(talk: &mut Talk) {
    let words = ["role=master", "frames=16", "background=0"];
    let mut bus = servant::options(talk.word(0), &words).open().unwrap();
    let board = Board::open(talk.word(1));
    let kind = talk.word(2).to_owned();
    let bytes: Vec<_> = (1..4).map(|number| message(number, 150)).collect();
    bus.write(&message(0, 150)).unwrap();
    step::begin(talk.number(3), None);
    match kind.as_str() {
        "write" => bus.write(&bytes[0]).unwrap(),
        "write_many" => assert_eq!(bus.try_write_many(&bytes), Ok(3)),
        _ => {
            let mut claim = bus.claim(bytes[0].len()).unwrap();
            claim.copy_from_slice(&bytes[0]);
            claim.commit().unwrap();
        }
    }
    board.set(0, 1);
    step::end();
    // Gone without leaving, as if killed one instruction later.
    child::leave_at_once(0);
}

/// Kills a writer at instruction k of an operation, for many k, and looks at what is delivered.
fn killed_at_each_instruction(kind: &str, most: u64) {
    if !step::is_possible() {
        return;
    }
    let (mut k, stride) = step::places(157);
    loop {
        let mut bus = Bus::new("p01step");
        bus.may_leave();
        let board = Board::new();
        let words = format!("{} {} {kind} {k}", bus.name(), board.path());
        let mut child = Child::spawn("one_write", &words);
        let was_killed = step::was_killed(&mut child);
        let mut successor = bus.options(Role::Master).frames(16).open().unwrap();
        let mut reader = bus.slave();
        let next = successor.last_committed().unwrap().number + 1;
        assert!(next <= most, "{kind} {k}: {next}");
        assert!(board.get(0) == 0 || next == most, "{kind} {k}: it was told ok");
        send(&mut successor, next..next + 3);
        assert_eq!(drain(&mut reader), (0..next + 3).collect::<Vec<_>>(), "{kind} {k}");
        assert_eq!(reader.last_id().unwrap().number, next + 2);
        // A few more laps: nothing that the dead one left is ever taken for a message.
        for number in next + 3..next + 40 {
            send(&mut successor, [number]);
            assert_eq!(drain(&mut reader), [number], "{kind} {k}");
        }
        if !was_killed {
            assert_eq!(board.get(0), 1);
            assert!(k > 50, "{kind}: only {k} instructions");
            return;
        }
        k += stride;
    }
}

#[test]
fn killed_at_each_instruction_of_a_write() {
    killed_at_each_instruction("write", 2);
}

#[test]
fn killed_at_each_instruction_of_a_batch() {
    killed_at_each_instruction("write_many", 4);
}

#[test]
fn killed_at_each_instruction_of_a_claim() {
    killed_at_each_instruction("claim", 2);
}

/// Where the writer of the direction from master to slave stands, as `docs/layout.md` says.
fn head_of(bus: &Bus) -> u64 {
    let mut word = [0; 8];
    std::fs::File::open(bus.path()).unwrap().read_exact_at(&mut word, 4096).unwrap();
    u64::from_le_bytes(word)
}

/// Bytes of a long message at `head`, each word of which that lies where a later frame begins is
/// the commit word of that frame, `laps` laps on.
fn ghosts(head: u64, laps: u64, bytes: &mut [u8]) {
    for frame in 1.. {
        let Some(word) = bytes.get_mut(frame as usize * 64 - 16..frame as usize * 64 - 8) else {
            return;
        };
        word.copy_from_slice(&(head + frame + laps * 16 + 1).to_le_bytes());
    }
}

#[test]
fn bytes_that_look_like_commit_words_are_never_messages() {
    let bus = Bus::new("p01ghost");
    let mut writer = bus.options(Role::Master).frames(16).open().unwrap();
    let mut reader = bus.slave();
    let (mut next, mut buffer) = (0, [0; 512]);
    let mut go_round = |writer: &mut Endpoint, reader: &mut Endpoint| {
        for _ in 0..40 {
            writer.write(&message(next, 48)).unwrap();
            assert_eq!(drain(reader), [next]);
            next += 1;
        }
    };
    go_round(&mut writer, &mut reader);
    for round in 0..60 {
        let mut claim = writer.claim(400).unwrap();
        // The claim may have gone to the start of the ring, or not; once for each.
        let skipped = if round % 2 == 0 { 0 } else { 16 - head_of(&bus) % 16 };
        match round % 6 {
            // Filled in and given up.
            0 | 1 => {
                ghosts(head_of(&bus) + skipped, 0, &mut claim);
                claim.abort();
            }
            // Sent and read, and met again in the laps to come.
            laps => {
                ghosts(head_of(&bus) + skipped, laps / 2, &mut claim);
                claim.commit().unwrap();
                assert_eq!(reader.try_read(&mut buffer), Ok(400));
            }
        }
        assert_eq!(reader.try_read(&mut buffer), Err(Error::Empty), "round {round}");
        go_round(&mut writer, &mut reader);
        // Every place of the ring in turn.
        writer.write(b"one more").unwrap();
        reader.read(&mut buffer).unwrap();
    }
    drop(writer);
    let mut successor = bus.options(Role::Master).frames(16).open().unwrap();
    go_round(&mut successor, &mut reader);
}
