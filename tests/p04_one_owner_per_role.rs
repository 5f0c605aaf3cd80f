//! Promise 4: one owner per role, always. A second one gets an error that names the first, or, when
//! asked to, replaces it.
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use eshm::{Error, Options, Role, Takeover};
use support::*;

children! { "auto_racer" => auto_racer, "master_racer" => master_racer }

const ROUNDS: u64 = 10_000;
/// On the board: what the two racers have reached, got, and left behind.
const STARTED: usize = 0;
const OPENED: usize = 64;
const LEFT: usize = 128;
const GOT: usize = 192;

fn cells(first: usize, me: usize) -> [usize; 2] {
    [first + me * 8, first + (1 - me) * 8]
}

/// Both racers come to this line before either goes on.
fn meet(board: &Board, line: usize, me: usize, round: u64) {
    let [ours, theirs] = cells(line, me);
    board.announce(ours, round + 1);
    board.meet(theirs, round + 1);
}

fn racing_options(name: &str, role: Role) -> Options {
    let mut options = Options::new(name);
    options.role(role).frames(64).background(false).beat_interval(Duration::from_micros(100));
    options.open_timeout(Duration::ZERO);
    options
}

/// Opens as `Auto` against another process, round after round, under one and the same name.
fn auto_racer(talk: &mut Talk) {
    let (name, board) = (talk.word(0).to_owned(), Board::open(talk.word(1)));
    let (me, rounds) = (talk.number(2) as usize, talk.number(3));
    let [ours, theirs] = cells(GOT, me);
    for round in 0..rounds {
        meet(&board, STARTED, me, round);
        let bus = racing_options(&name, Role::Auto).open();
        let got = match &bus {
            Ok(bus) if bus.role() == Role::Master => 1,
            Ok(_) => 2,
            Err(error) => panic!("round {round}: {error}"),
        };
        board.set(ours, got);
        meet(&board, OPENED, me, round);
        assert_eq!(got + board.get(theirs), 3, "round {round}: both became the same");
        drop(bus);
        meet(&board, LEFT, me, round);
    }
    talk.say("done");
}

/// Opens as `Master` against another process. The winner beats until the other one knows.
fn master_racer(talk: &mut Talk) {
    let (name, board) = (talk.word(0).to_owned(), Board::open(talk.word(1)));
    let (me, rounds) = (talk.number(2) as usize, talk.number(3));
    let [ours, theirs] = cells(GOT, me);
    let other_opened = cells(OPENED, me)[1];
    for round in 0..rounds {
        meet(&board, STARTED, me, round);
        let bus = racing_options(&name, Role::Master).open();
        let got = match &bus {
            Ok(_) => 1,
            // Alive, or hung if it was not scheduled meanwhile: it beats by hand.
            Err(Error::RoleTaken { role: Role::Master, pid, .. }) => {
                assert_ne!((*pid, *pid), (0, std::process::id()), "round {round}");
                2
            }
            Err(error) => panic!("round {round}: {error}"),
        };
        board.set(ours, got);
        if let Ok(bus) = &bus {
            board.announce(cells(OPENED, me)[0], round + 1);
            while board.get(other_opened) <= round {
                bus.beat();
                std::thread::sleep(Duration::from_micros(50));
            }
        }
        meet(&board, OPENED, me, round);
        assert_eq!(got + board.get(theirs), 3, "round {round}: not one winner");
        drop(bus);
        meet(&board, LEFT, me, round);
    }
    talk.say("done");
}

fn race(part: &str, tag: &str) {
    let bus = Bus::new(tag);
    let board = Board::new();
    let mut racers = [0, 1]
        .map(|me| Child::spawn(part, &format!("{} {} {me} {ROUNDS}", bus.name(), board.path())));
    for racer in &mut racers {
        let said = racer.hear_within(PATIENCE * 4);
        assert_eq!(said.as_deref(), Some("done"), "round {}", board.get(STARTED));
    }
    assert!(bus.files().is_empty(), "the last one out removed everything");
}

#[test]
fn two_auto_become_one_master_and_one_slave_ten_thousand_times() {
    race("auto_racer", "p04auto");
}

#[test]
fn of_two_masters_one_wins_ten_thousand_times() {
    race("master_racer", "p04masters");
}

#[test]
fn a_second_owner_is_told_who_the_first_is() {
    let mut bus = Bus::new("p04second");
    bus.may_leave();
    let (master, slave) = (bus.servant("master", ""), bus.servant("slave", ""));
    for takeover in [Takeover::Never, Takeover::Hung] {
        for (role, owner) in [(Role::Master, &master), (Role::Slave, &slave)] {
            let error = error_of(bus.options(role).takeover(takeover).open());
            assert_eq!(
                error,
                Error::RoleTaken { role, pid: owner.pid(), is_foreign: false, state: "alive" }
            );
            let text = error.to_string();
            assert!(text.contains(&owner.pid().to_string()) && text.contains("alive"), "{text}");
        }
    }
    let error = error_of(bus.options(Role::Auto).open());
    assert_eq!(
        error,
        Error::RoleTaken { role: Role::Auto, pid: slave.pid(), is_foreign: false, state: "alive" }
    );
}

#[test]
fn a_second_owner_in_the_same_process_is_refused_too() {
    let bus = Bus::new("p04same");
    let master = bus.master();
    let error = error_of(bus.options(Role::Master).open());
    let expected = Error::RoleTaken {
        role: Role::Master,
        pid: std::process::id(),
        is_foreign: false,
        state: "alive",
    };
    assert_eq!(error, expected);
    drop(master);
    drop(bus.master());
}

#[test]
fn a_hung_owner_is_named_as_hung() {
    let bus = Bus::new("p04hung");
    let mut master = bus.servant("master", "");
    master.stop();
    let error = error_of(bus.options(Role::Master).open());
    assert_eq!(
        error,
        Error::RoleTaken {
            role: Role::Master,
            pid: master.pid(),
            is_foreign: false,
            state: "hung"
        }
    );
    master.go_on();
    master.send(0, 1);
    master.must("leave");
}

/// Pids are for people: one that lies, in a segment whose lock is free, changes nothing.
#[test]
fn the_lock_decides_and_not_the_pid() {
    let bus = Bus::new("p04pid");
    let mut master = bus.servant("master", "");
    master.send(0, 3);
    master.kill();
    // As if the number had been given to a process that lives: this one.
    let mut bytes = std::fs::read(bus.path()).unwrap();
    let dead = master.pid().to_le_bytes();
    let at = bytes.windows(4).position(|window| window == dead).expect("its pid");
    bytes[at..at + 4].copy_from_slice(&std::process::id().to_le_bytes());
    overwrite(&bus.path(), at as u64, &std::process::id().to_le_bytes());
    let mut successor = bus.master();
    let mut slave = bus.slave();
    send(&mut successor, 3..5);
    assert_eq!(drain(&mut slave), [0, 1, 2, 3, 4]);
}

fn overwrite(path: &std::path::Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn takeover_always_replaces_even_the_living() {
    let bus = Bus::new("p04always");
    let mut old = bus.servant("master", "");
    old.send(0, 4);
    let mut new = bus.options(Role::Master).takeover(Takeover::Always).open().unwrap();
    let answer = old.ask("send 100 1 100");
    assert!(answer.starts_with("err 0 Fenced"), "{answer}");
    send(&mut new, 4..6);
    let mut slave = bus.slave();
    assert_eq!(drain(&mut slave), [0, 1, 2, 3, 4, 5]);
}
