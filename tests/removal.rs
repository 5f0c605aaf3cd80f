//! Removing by hand, cut off anywhere: the next one finishes it, and what is reported is what was done.
#![allow(missing_docs)]

mod support;

use std::os::unix::fs::FileExt;
use std::time::Duration;

use eshm::{Error, Role};
use support::*;

children! { "remover" => remover, "leaver" => leaver }

/// Removes a bus by force, and is killed meanwhile.
fn remover(talk: &mut Talk) {
    let directory = std::path::PathBuf::from(talk.word(0));
    let board = Board::open(talk.word(2));
    step::begin(talk.number(3), None);
    let removed = eshm::remove_in(&directory, talk.word(1), true);
    // Told before anything else can happen.
    board.set(0, if removed.is_ok() { 1 } else { 2 });
    step::end();
    child::leave_at_once(0);
}

/// Who is there when the bus is removed, and what comes afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Remove,
    RemoveByForce,
    Open,
    /// A pair is there, and goes on or is told.
    GoOn,
}

const NEXT: [Next; 4] = [Next::Remove, Next::RemoveByForce, Next::Open, Next::GoOn];

/// A remover killed at instruction `k`, and what comes after it. False if it was over before.
fn killed_remover(k: u64, next: Next) -> bool {
    let room = Room::new();
    let mut bus = Bus::inside(room.path(), "remove");
    bus.may_leave();
    let keep = |role| bus.options(role).cleanup(eshm::Cleanup::Never).open().unwrap();
    let (mut master, mut slave) = (keep(Role::Master), keep(Role::Slave));
    send(&mut master, 0..3);
    send(&mut slave, 0..1);
    let mut pair = Some((master, slave));
    if next != Next::GoOn {
        pair = None;
    }
    let board = Board::new();
    let words = format!("{} {} {} {k}", room.path().display(), bus.name(), board.path());
    let mut child = Child::spawn("remover", &words);
    let was_killed = step::was_killed(&mut child);
    assert_ne!(board.get(0), 2, "it failed");
    if board.get(0) == 1 {
        assert!(room.names().is_empty(), "said to be removed: {:?}", room.names());
    }
    match next {
        Next::Remove | Next::RemoveByForce => {
            let removed = eshm::remove_in(room.path(), bus.name(), next == Next::RemoveByForce);
            match removed {
                Ok(()) => {}
                Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{k}: {error}"),
            }
        }
        Next::Open => {
            let mut options = bus.options(Role::Master);
            let mut master = options.cleanup(eshm::Cleanup::Always).open().unwrap();
            let mut options = bus.options(Role::Slave);
            let mut slave = options.cleanup(eshm::Cleanup::Always).open().unwrap();
            // It is the old one with all that was unread, or a new one.
            let old = drain(&mut slave);
            assert!(old.is_empty() || old == [0, 1, 2], "{k}: {old:?}");
            assert_eq!(master.epoch(), if old.is_empty() { 1 } else { 2 });
            assert_eq!(drain(&mut master).is_empty(), old.is_empty());
            send(&mut master, 3..6);
            assert_eq!(drain(&mut slave), [3, 4, 5]);
        }
        Next::GoOn => {
            let (mut master, mut slave) = pair.expect("a pair");
            go_on(k, &mut master, &mut slave);
            // Whoever comes afterwards finds room for a bus of this name.
            drop((master, slave));
            match eshm::remove_in(room.path(), bus.name(), true) {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => panic!("{k}: {error}"),
            }
        }
    }
    aside_is_swept(&room, &bus);
    assert!(room.names().is_empty(), "{k} {next:?}: {:?}", room.names());
    was_killed
}

/// Both work, and nothing is lost; or both are told.
fn go_on(k: u64, master: &mut eshm::Endpoint, slave: &mut eshm::Endpoint) {
    match master.write(&message(3, 64)) {
        Ok(()) => {
            assert_eq!((0..4).map(|_| read_number(slave)).collect::<Vec<_>>(), [0, 1, 2, 3], "{k}");
            assert_eq!(read_number(master), 0);
        }
        Err(Error::Lost { .. }) => {
            let told = slave.write(b"x");
            assert!(matches!(told, Err(Error::Lost { .. })), "{k}: {told:?}");
        }
        Err(error) => panic!("{k}: {error}"),
    }
}

/// What was moved aside by one who was killed goes with the next bus of this name.
fn aside_is_swept(room: &Room, bus: &Bus) {
    if !room.names().is_empty() {
        let aside = room.names();
        assert!(aside.iter().all(|name| name.contains('~')), "{aside:?}");
        let always = |role| bus.options(role).cleanup(eshm::Cleanup::Always).open().unwrap();
        drop((always(Role::Master), always(Role::Slave)));
    }
}

#[test]
fn a_remover_killed_at_some_instruction_leaves_what_the_next_one_finishes() {
    if !step::is_possible() {
        return;
    }
    for (index, next) in NEXT.into_iter().enumerate() {
        let (first, stride) = step::places(6007);
        let mut k = first + index as u64 * stride / 4;
        while killed_remover(k, next) {
            k += stride;
        }
        assert!(k > 1000, "only {k} instructions");
    }
}

/// By hand and without force a bus that somebody is in stays as it is.
#[test]
fn without_force_who_is_there_is_not_disturbed() {
    let bus = Bus::new("rstay");
    let mut master = bus.master();
    send(&mut master, 0..3);
    let error = error_of(eshm::remove(bus.name(), false));
    assert!(matches!(error, Error::RoleTaken { role: Role::Master, .. }), "{error}");
    assert!(bus.path().exists());
    let mut slave = bus.slave();
    assert_eq!(drain(&mut slave), [0, 1, 2]);
}

/// Opens and leaves a bus in a room, so often.
fn leaver(talk: &mut Talk) {
    let directory = talk.word(0).to_owned();
    for _ in 0..talk.number(2) {
        let dir = format!("dir={directory}");
        let words = ["role=master", &dir, "frames=2", "cleanup=1"];
        servant::options(talk.word(1), &words).open().unwrap().leave().unwrap();
    }
    talk.say("done");
}

/// Whoever leaves last looks at what lies beside the name. Somebody planted a file there, and cuts it
/// short again and again.
#[test]
fn a_planted_file_beside_the_name_kills_nobody() {
    let room = Room::new();
    let bus = Bus::inside(room.path(), "planted");
    let retired = {
        let mut options = bus.options(Role::Master);
        let master = options.frames(2).open().unwrap();
        let bytes = std::fs::read(bus.path()).unwrap();
        drop(master);
        bytes
    };
    let path = room.at(&format!("eshm_{}~0123456789abcdef", bus.name()));
    let planted = std::fs::File::create(&path).unwrap();
    let mut child =
        Child::spawn("leaver", &format!("{} {} 3000", room.path().display(), bus.name()));
    loop {
        planted.write_all_at(&retired[..4096], 0).unwrap();
        // Long enough for it to be found whole.
        std::hint::black_box((0..2000).map(std::hint::black_box).sum::<u64>());
        planted.set_len(0).unwrap();
        if let Some(said) = child.hear_within(Duration::ZERO) {
            assert_eq!(said, "done");
            break;
        }
    }
    child.finish();
    let _ = std::fs::remove_file(path);
}

/// What `gc` takes: nobody there, and nothing unread. Asked again when it is taken, since somebody may
/// have come, written and died between its look and the removal.
#[test]
fn what_is_to_be_removed_when_it_is_read_stays_while_anything_is_unread() {
    let bus = Bus::new("rread");
    let remove = || eshm::remove_read_in("/dev/shm".as_ref(), bus.name());
    let mut master = bus.servant("master", "");
    assert_eq!(remove(), Ok(false), "the master is there");
    master.send(0, 3);
    master.kill();
    assert_eq!(remove(), Ok(false), "three messages are unread");
    let mut slave = bus.servant("slave", "");
    slave.expect(0, 3);
    assert_eq!(remove(), Ok(false), "the slave is there");
    slave.kill();
    assert_eq!(remove(), Ok(true), "both are dead, and all is read");
    assert!(!bus.path().exists());
    assert!(matches!(remove(), Err(Error::NotFound { .. })));
}
