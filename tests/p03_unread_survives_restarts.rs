//! Promise 3: unread messages survive restarts, in both directions, whether a side leaves or dies;
//! and when both have left cleanly the bus is removed, if nothing is unread.
#![allow(missing_docs)]

mod support;

use std::os::unix::fs::FileExt;

use eshm::{Cleanup, Error, Overflow, Role};
use support::*;

children! { "adopter" => adopter }

#[test]
fn a_side_that_leaves_finds_everything_when_it_comes_back() {
    let bus = Bus::new("p03leave");
    let (mut master, mut slave) = bus.pair();
    send(&mut master, 0..10);
    send(&mut slave, 0..7);
    assert_eq!(read_number(&mut slave), 0);
    slave.leave().unwrap();
    send(&mut master, 10..15);
    let mut slave = bus.slave();
    assert_eq!(slave.epoch(), 2);
    assert_eq!(drain(&mut slave), (1..15).collect::<Vec<_>>());
    assert_eq!(slave.last_committed().unwrap().number, 6);
    master.leave().unwrap();
    send(&mut slave, 7..9);
    let mut master = bus.master();
    assert_eq!(master.epoch(), 2);
    assert_eq!(drain(&mut master), (0..9).collect::<Vec<_>>());
}

/// A reader was killed when it had stored the number of the next message, and not yet that it took
/// the one before: nobody who counts what is unread believes the number.
#[test]
fn a_message_that_was_counted_and_not_taken_is_unread() {
    let bus = Bus::new("p03count");
    let mut master = bus.master();
    let mut slave = bus.servant("slave", "");
    send(&mut master, 0..1);
    slave.kill();
    // The page of the header, the slot's own, the number of the next message; see docs/layout.md.
    let number = (64 << 10) + 4096 + 136;
    let file = std::fs::File::options().read(true).write(true).open(bus.path()).unwrap();
    let mut found = [0; 8];
    file.read_exact_at(&mut found, number).unwrap();
    assert_eq!(found, [0; 8]);
    file.write_all_at(&1u64.to_le_bytes(), number).unwrap();
    bus.slave().leave().unwrap();
    assert_eq!(master.stats().master_to_slave.backlog, 1);
    master.leave().unwrap();
    assert_eq!(eshm::inspect(bus.name()).expect("it is kept").unread, [1, 0]);
    let (_master, mut slave) = bus.pair();
    assert_eq!(drain(&mut slave), [0]);
}

#[test]
fn a_side_that_is_killed_finds_everything_when_it_comes_back() {
    let bus = Bus::new("p03kill");
    for victim in ["master", "slave"] {
        let mut master = bus.servant("master", "cleanup=0");
        let mut slave = bus.servant("slave", "cleanup=0");
        master.send(0, 10);
        slave.send(0, 12);
        slave.expect(0, 4);
        master.expect(0, 5);
        if victim == "master" {
            master.kill();
            slave.send(12, 3);
            master = bus.servant("master", "cleanup=0");
            assert_eq!(master.must("committed"), "Some(MessageId { epoch: 1, number: 9 })");
        } else {
            slave.kill();
            master.send(10, 3);
            slave = bus.servant("slave", "cleanup=0");
            assert_eq!(slave.must("last"), "Some(MessageId { epoch: 1, number: 3 })");
        }
        let (to_slave, to_master) = if victim == "master" { (10, 15) } else { (13, 12) };
        slave.expect(4, to_slave - 4);
        master.expect(5, to_master - 5);
        master.must("leave");
        slave.must("leave");
        assert!(bus.path().exists(), "nobody wished it away");
        eshm::remove(bus.name(), false).unwrap();
        assert!(bus.files().is_empty());
    }
}

#[test]
fn both_sides_killed_and_nothing_is_lost() {
    let bus = Bus::new("p03both");
    let (mut master, mut slave) = (bus.servant("master", ""), bus.servant("slave", ""));
    master.send(0, 100);
    slave.send(0, 50);
    slave.expect(0, 30);
    master.kill();
    slave.kill();
    // In the other order this time: the slave finds the segment before there is a master.
    let mut slave = bus.slave();
    let mut master = bus.master();
    assert_eq!(drain(&mut slave), (30..100).collect::<Vec<_>>());
    assert_eq!(drain(&mut master), (0..50).collect::<Vec<_>>());
    assert_eq!((master.epoch(), slave.epoch()), (2, 2));
}

#[test]
fn what_nobody_read_is_there_after_many_restarts() {
    let bus = Bus::new("p03many");
    let keeper = bus.servant("master", "");
    let mut sent = 0;
    for _ in 0..10 {
        let mut slave = bus.servant("slave", "");
        slave.send(sent, 20);
        sent += 20;
        slave.kill();
    }
    drop(keeper);
    let mut master = bus.master();
    assert_eq!(drain(&mut master), (0..sent).collect::<Vec<_>>());
    assert_eq!(master.stats().slave.epoch, 10);
}

#[test]
fn the_last_to_leave_removes_the_segment() {
    let bus = Bus::new("p03last");
    let (master, slave) = bus.pair();
    master.leave().unwrap();
    assert!(bus.path().exists(), "the slave is still there");
    slave.leave().unwrap();
    assert!(bus.files().is_empty());
    let (master, slave) = bus.pair();
    drop(slave);
    assert!(bus.path().exists(), "the master is still there");
    drop(master);
    assert!(bus.files().is_empty(), "dropping leaves as well");
    let error = error_of(bus.options(Role::Slave).open());
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

/// A peer that was killed has not left: the bus stays, whatever the other one wishes, until the dead
/// one's role was held again and left.
#[test]
fn a_death_is_no_leaving() {
    let bus = Bus::new("p03dead");
    let mut master = bus.servant("master", "");
    let slave = bus.options(Role::Slave).cleanup(Cleanup::Always).open().unwrap();
    master.kill();
    slave.leave().unwrap();
    assert!(bus.path().exists());
    bus.master().leave().unwrap();
    assert!(bus.files().is_empty());
}

#[test]
fn what_a_dead_writer_sent_outlives_its_reader() {
    let bus = Bus::new("p03outlives");
    let mut master = bus.servant("master", "cleanup=1");
    master.send(0, 400);
    let mut slave = bus.options(Role::Slave).open().unwrap();
    slave.read(&mut [0; 128]).unwrap();
    master.kill();
    slave.leave().unwrap();
    let mut slave = bus.slave();
    for _ in 1..400 {
        slave.read(&mut [0; 128]).unwrap();
    }
    assert_eq!(slave.try_read(&mut [0; 128]), Err(Error::Empty));
}

/// Both leave, one after the other; is anything left?
fn is_kept(tag: &str, wishes: [Cleanup; 2], has_unread: bool, overflow: Overflow) -> bool {
    let mut bus = Bus::new(tag);
    bus.may_leave();
    let mut options = bus.options(Role::Master);
    let mut master = options.overflow(overflow).cleanup(wishes[0]).open().unwrap();
    let slave = bus.options(Role::Slave).cleanup(wishes[1]).open().unwrap();
    if has_unread {
        master.write(b"unread").unwrap();
    }
    slave.leave().unwrap();
    master.leave().unwrap();
    bus.path().exists()
}

#[test]
fn the_more_careful_wish_wins() {
    use Cleanup::{Always, Never, WhenRead};
    for (wishes, kept_when_read, kept_when_unread) in [
        ([WhenRead, WhenRead], false, true),
        ([Always, Always], false, false),
        ([Always, WhenRead], false, true),
        ([WhenRead, Always], false, true),
        ([Never, Always], true, true),
        ([WhenRead, Never], true, true),
    ] {
        assert_eq!(is_kept("p03w", wishes, false, Overflow::Refuse), kept_when_read, "{wishes:?}");
        assert_eq!(is_kept("p03w", wishes, true, Overflow::Refuse), kept_when_unread, "{wishes:?}");
        let overwritten = is_kept("p03w", wishes, true, Overflow::Overwrite);
        assert_eq!(overwritten, kept_when_read, "{wishes:?}, overwritten");
    }
}

/// A writer that ends before its reader has come.
#[test]
fn what_nobody_came_for_waits() {
    let bus = Bus::new("p03waits");
    let mut master = bus.master();
    master.write(b"early").unwrap();
    master.leave().unwrap();
    let mut slave = bus.slave();
    assert_eq!(slave.read(&mut [0; 64]), Ok(5));
    slave.leave().unwrap();
    assert!(bus.files().is_empty(), "both have left, and nothing is unread");
}

/// Two handles of ESHM's own calls: one yes is enough.
#[test]
fn classic_wishes_are_added_up() {
    for (wishes, is_kept) in
        [([true, false], false), ([false, true], false), ([false, false], true)]
    {
        let mut bus = Bus::new("p03classic");
        bus.may_leave();
        let mut master = bus.options(Role::Master).classic_cleanup(wishes[0]).open().unwrap();
        let slave = bus.options(Role::Slave).classic_cleanup(wishes[1]).open().unwrap();
        master.write(b"unread").unwrap();
        drop(master);
        drop(slave);
        assert_eq!(bus.path().exists(), is_kept, "{wishes:?}");
    }
}

#[test]
fn both_leave_at_once_and_nothing_is_left() {
    for _ in 0..400 {
        let bus = Bus::new("p03atonce");
        let (master, slave) = bus.pair();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(master));
            scope.spawn(|| drop(slave));
        });
        assert!(bus.files().is_empty());
    }
}

/// Takes over from a dead master, and is killed meanwhile.
fn adopter(talk: &mut Talk) {
    let mut options = servant::options(talk.word(0), &["role=master", "background=0"]);
    let board = Board::open(talk.word(1));
    options.frames(16);
    match talk.number(2) {
        0 => step::await_start(&board),
        k => step::begin(k, None),
    }
    let mut bus = options.open().unwrap();
    board.set(0, 1);
    bus.write(&message(5, 100)).unwrap();
    board.set(0, 2);
    step::end();
    child::leave_at_once(0);
}

/// Kills an adopter with `kill`, and sees whether the next one succeeds.
fn killed_adopter(k: u64, kill: impl FnOnce(&mut Child, &Board) -> bool) -> bool {
    let bus = Bus::new("p03adopt");
    let board = Board::new();
    let mut first = bus.options(Role::Master).frames(16).open().unwrap();
    let mut slave = bus.slave();
    send(&mut first, 0..5);
    first.leave().unwrap();
    let words = format!("{} {} {k}", bus.name(), board.path());
    let was_killed = kill(&mut Child::spawn("adopter", &words), &board);
    let mut master = bus.options(Role::Master).frames(16).open().unwrap();
    let next = master.last_committed().unwrap().number + 1;
    assert!(next == 5 || next == 6, "{next}");
    assert!(board.get(0) < 2 || next == 6, "the adopter was told ok");
    send(&mut master, next..8);
    assert_eq!(drain(&mut slave), (0..8).collect::<Vec<_>>());
    assert!((2..4).contains(&master.epoch()), "{}", master.epoch());
    was_killed
}

/// Adopting is made of steps that can be done again by the next one.
#[test]
fn an_adopter_killed_while_adopting_leaves_work_for_the_next() {
    let mut dice = Dice(u64::from(std::process::id()));
    let mut killed = 0;
    for _ in 0..100 {
        let after = dice.below(400_000);
        killed += u64::from(killed_adopter(0, |child, board| step::kill_soon(child, board, after)));
    }
    assert!(killed > 20, "only {killed} were killed on the way");
}

#[test]
fn an_adopter_killed_at_some_instruction_leaves_work_for_the_next() {
    if !step::is_possible() {
        return;
    }
    let (mut k, stride) = step::places(80_021);
    while killed_adopter(k, |child, _| step::was_killed(child)) {
        k += stride;
    }
    assert!(k > 1000, "only {k} instructions");
}
