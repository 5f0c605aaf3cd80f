//! Promise 9: a hostile or broken segment gives an error: never a crash, a hang, or an access out of
//! bounds. (What fails before a byte of it is mapped is in `errors.rs`.)
#![allow(missing_docs)]

mod support;

use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use eshm::{Direction, Error, Options, PeerState, Role, Takeover};
use support::*;

children! { "flip" => flip, "hammer" => hammer }

const PAGE: u64 = 4096;
/// Where the first slot begins.
const SLOT: u64 = 65536;

/// A segment with something unread in it, that nobody is in.
fn pristine(room: &Room) -> (String, Vec<u8>) {
    let bus = Bus::inside(room.path(), "p09");
    let mut options = bus.options(Role::Master);
    options.frames(4).cleanup(eshm::Cleanup::Never);
    let mut master = options.open().unwrap();
    let mut slave = bus.options(Role::Slave).cleanup(eshm::Cleanup::Never).open().unwrap();
    master.write(b"one").unwrap();
    master.write(b"two").unwrap();
    slave.write(b"three").unwrap();
    slave.read(&mut [0; 8]).unwrap();
    drop((master, slave));
    let bytes = std::fs::read(bus.path()).unwrap();
    std::fs::remove_file(bus.path()).unwrap();
    (bus.name().to_owned(), bytes)
}

/// Does all that can be done with a segment; whatever it says is right, as long as it comes back.
fn use_it(options: &mut Options, role: Role) {
    let opened = options.role(role).takeover(Takeover::Never).open();
    let mut buffer = [0; 64];
    if let Ok(mut bus) = opened {
        for _ in 0..8 {
            let _ = bus.try_read(&mut buffer);
            // To the last byte: a length that lies would lead out of the mapping.
            let _ =
                bus.try_peek().map(|peek| peek.iter().map(|&byte| u64::from(byte)).sum::<u64>());
            let _ = bus.try_write(b"hello");
        }
        let _ = bus.skip_to_latest();
        let _ = bus.try_write_many(&[b"a", b"b"]);
        let _ = (bus.last_committed(), bus.last_id(), bus.stats(), bus.peer());
    }
}

/// Flips each byte in a range of the file in turn, and uses what comes of it.
fn flip(talk: &mut Talk) {
    let room = std::path::PathBuf::from(talk.word(0));
    let name = talk.word(1).to_owned();
    let bytes = std::fs::read(talk.word(2)).unwrap();
    let path = room.join(format!("eshm_{name}"));
    let (first, last, mask) = (talk.number(3), talk.number(4), talk.number(5) as u8);
    for at in first..last {
        let mut flipped = bytes.clone();
        flipped[at as usize] ^= mask;
        for role in [Role::Master, Role::Slave] {
            std::fs::write(&path, &flipped).unwrap();
            let _ = std::fs::set_permissions(
                &path,
                std::os::unix::fs::PermissionsExt::from_mode(0o600),
            );
            let mut options = Options::new(&name);
            options.directory(&room).background(false).cleanup(eshm::Cleanup::Never);
            options.open_timeout(Duration::ZERO).write_timeout(Duration::from_secs(1));
            talk.say(format!("{at}"));
            use_it(&mut options, role);
            let _ = options.tap(Direction::MasterToSlave).map(|mut tap| {
                tap.from_oldest();
                for _ in 0..8 {
                    let _ = tap.try_read(&mut [0; 64]);
                }
            });
            let _ = eshm::inspect_in(&room, &name);
            let _ = std::fs::remove_file(&path);
        }
    }
    talk.say("done");
    talk.hear();
}

/// Flips bytes in children, and sees that each of them comes to its end.
fn all_flips(ranges: Vec<(u64, u64)>, mask: u8) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let room = Room::new();
                let (name, bytes) = pristine(&room);
                let copy = room.at("copy");
                std::fs::write(&copy, &bytes).unwrap();
                while let Some((first, last)) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let words = format!(
                        "{} {name} {} {first} {last} {mask}",
                        room.path().display(),
                        copy.display()
                    );
                    let mut child = Child::spawn("flip", &words);
                    let mut at = String::new();
                    loop {
                        let said = child.hear_within(PATIENCE);
                        match said.unwrap_or_else(|| panic!("byte {at}: it hangs")) {
                            said if said == "done" => break,
                            said => at = said,
                        }
                    }
                    child.tell("bye");
                    let status = child.wait();
                    assert!(status.success(), "byte {at}, mask {mask:#x}: {status}");
                }
            });
        }
    });
}

fn pieces(first: u64, last: u64, step: u64) -> Vec<(u64, u64)> {
    (first..last).step_by(step as usize).map(|at| (at, (at + step).min(last))).collect()
}

#[test]
fn every_byte_of_the_header_and_of_the_page_of_a_slot_flipped() {
    let ranges = [pieces(0, PAGE, 256), pieces(SLOT, SLOT + PAGE, 256)].concat();
    all_flips(ranges, 0xFF);
}

#[test]
fn every_byte_of_the_cursors_and_frames_with_a_bit_flipped() {
    // The lines that are used, and the frames, of both directions.
    let ring = PAGE + PAGE;
    let mut ranges = Vec::new();
    for start in [SLOT + PAGE, SLOT + PAGE + ring] {
        ranges.extend(pieces(start, start + 1408, 176));
        ranges.extend(pieces(start + PAGE, start + PAGE + 256, 64));
    }
    all_flips(ranges, 0x81);
}

/// Writes and reads as fast as it can until it is told to end. Errors are answers; when one says so
/// it opens again.
fn hammer(talk: &mut Talk) {
    let words: Vec<&str> = talk.words[2..].iter().map(String::as_str).collect();
    let board = Board::open(talk.word(1));
    let mut buffer = [0; 4096];
    let mut rounds = 0;
    while board.get(0) == 0 {
        let mut options = servant::options(talk.word(0), &words);
        let Ok(mut bus) = options.guard_sigbus(true).open() else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        while board.get(0) == 0 {
            rounds += 1;
            let _ = bus.try_read(&mut buffer);
            let _ = bus.peek_timeout(Duration::from_micros(1)).map(|peek| peek.to_vec());
            let written = bus.try_write(&buffer[..(rounds % 200) as usize]);
            let claimed = bus.try_claim(100).map(|mut claim| claim.fill(1));
            let is_over = |error: &Error| !error.is_wait();
            if written.as_ref().is_err_and(is_over) || claimed.as_ref().is_err_and(is_over) {
                board.cell(1).fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
        board.cell(2).store(rounds, Ordering::SeqCst);
    }
    talk.say("done");
}

/// Lets two processes run on a segment while `spoil` does what it likes to the file.
fn under_fire(tag: &str, spoil: impl Fn(&std::fs::File, &mut Dice)) {
    let mut bus = Bus::new(tag);
    bus.may_leave();
    let boards = [Board::new(), Board::new()];
    let roles = ["role=master frames=16", "role=slave"];
    let mut children: Vec<Child> = Vec::new();
    for (board, role) in boards.iter().zip(roles) {
        let words =
            format!("{} {} {role} takeover=hung timeout=1 stale=20", bus.name(), board.path());
        children.push(Child::spawn("hammer", &words));
        until("it is there", || bus.path().exists());
    }
    let mut dice = Dice(u64::from(std::process::id()) | 1);
    let started = Instant::now();
    let mut shots = 0;
    while started.elapsed() < Duration::from_millis(1500) {
        if let Ok(file) = std::fs::File::options().read(true).write(true).open(bus.path()) {
            for _ in 0..20 {
                spoil(&file, &mut dice);
                shots += 1;
            }
        }
        std::thread::sleep(Duration::from_micros(300));
        for child in &mut children {
            assert!(child.is_running(), "a child ended after {shots} shots: {}", child.wait());
        }
    }
    for (child, board) in children.iter_mut().zip(&boards) {
        board.set(0, 1);
        assert_eq!(child.hear_within(PATIENCE).as_deref(), Some("done"), "it hangs");
        let status = child.wait();
        assert!(status.success() && status.signal().is_none(), "{status}");
    }
}

#[test]
fn garbage_in_a_living_ring_crashes_nobody() {
    under_fire("p09ring", |file, dice| {
        let size = file.metadata().unwrap().len().max(PAGE + 8);
        let at = PAGE + dice.below(size - PAGE - 8);
        let word = match dice.below(4) {
            0 => dice.roll(),
            1 => dice.below(64),
            2 => u64::MAX - dice.below(4),
            _ => 1 << dice.below(64),
        };
        let _ = file.write_at(&word.to_le_bytes(), at & !7);
    });
}

#[test]
fn garbage_in_a_living_header_crashes_nobody() {
    under_fire("p09header", |file, dice| {
        let at = dice.below(PAGE - 8);
        let _ = file.write_at(&dice.roll().to_le_bytes(), at & !7);
    });
}

#[test]
fn a_file_cut_short_crashes_nobody_who_is_guarded() {
    under_fire("p09cut", |file, dice| {
        if dice.below(40) == 0 {
            let _ = file.set_len(dice.below(4) * PAGE + dice.below(2));
        }
    });
}

#[test]
fn a_header_changed_after_it_was_checked_has_no_effect() {
    let mut bus = Bus::new("p09later");
    bus.may_leave();
    let (mut master, mut slave) = bus.pair();
    send(&mut master, 0..10);
    let file = std::fs::File::options().write(true).open(bus.path()).unwrap();
    // Everything that is written once: from the magic to the name.
    file.write_all_at(&[0xFF; 512], 0).unwrap();
    for number in 0..3000 {
        send(&mut master, [number + 10]);
        send(&mut slave, [number]);
        assert_eq!(read_number(&mut slave), number);
        assert_eq!(read_number(&mut master), number);
    }
    assert_eq!(slave.geometry(Direction::MasterToSlave).frames, 1024);
    drop(slave);
    drop(master);
}

/// A position that cannot be is found when the ring is opened; the role is given back as if its owner had
/// died, so that nobody takes it for a clean end.
#[test]
fn impossible_positions_are_corrupt() {
    for (head, tail) in [(100u64, 0u64), (0, 1 << 63), (5, u64::MAX - 300), (1 << 63, 5)] {
        let room = Room::new();
        let (name, mut bytes) = pristine(&room);
        // The first slot, behind its page.
        let at = (SLOT + PAGE) as usize;
        // The records of the writer's place, and the reader's position.
        for place in 0..4 {
            let at = at + 8 + 40 * place;
            bytes[at..at + 8].copy_from_slice(&head.to_le_bytes());
        }
        bytes[at + 256..at + 264].copy_from_slice(&tail.to_le_bytes());
        let path = room.at(&format!("eshm_{name}"));
        std::fs::write(&path, &bytes).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let mut options = Options::new(&name);
        options.directory(room.path()).cleanup(eshm::Cleanup::Never);
        options.open_timeout(Duration::ZERO);
        for role in [Role::Master, Role::Slave] {
            let error = error_of(options.role(role).open());
            assert!(matches!(error, Error::Corrupt { .. }), "{head} {tail}: {error}");
            let seen = eshm::inspect_in(room.path(), &name).unwrap().stats;
            let peer = if role == Role::Master { seen.master } else { seen.slave };
            assert_eq!(peer.state, PeerState::Dead, "given back, and not left cleanly");
        }
        assert_eq!(room.names().len(), 1, "nothing made, nothing removed");
    }
}
