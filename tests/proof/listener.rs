//! A tap in a process of its own, cut short at every instruction of what it does: neither side of the
//! bus notices, the lock that it held is free with it, and when it goes on it hears nothing that was
//! not committed. What it does in one slot is cut short at every instruction, the way to another one at
//! every instruction when it is met for the first time.

use std::os::fd::AsRawFd;
use std::time::Instant;

use eshm::{Direction, Endpoint, Error, Role, Takeover, Tap};
use nix::sys::wait::WaitStatus;

use super::ledger::{Answer, Page, Told, message, seq_of};
use super::points::{Tally, fresh_name, spread};
use super::race::drain;
use super::scene::{LONG, Op, PROBE, SHORT, Scene, TORN};
use super::stage::Cut;
use super::trace::{Path, Stop, Traced, mark};
use super::{be_patient, leftovers};

/// What the tap is about to do. The number of each message is the one that the bus gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// A message that waits for its reader too.
    HearOne,
    HearLong,
    HearNothing,
    /// More than a lap behind.
    HearLapped,
    HearOldest,
    /// The bus was replaced: the rest in the old slot, and the way to the new one.
    HearRest,
    Follow,
    /// It was replaced while the tap was a lap behind.
    FollowLapped,
}

use Hearing::*;

pub const HEARINGS: [Hearing; 8] =
    [HearOne, HearLong, HearNothing, HearLapped, HearOldest, HearRest, Follow, FollowLapped];

impl Hearing {
    /// Whether it goes to another slot, which takes system calls.
    fn follows(self) -> bool {
        matches!(self, Follow | FollowLapped)
    }

    /// Which messages come after the tap was opened.
    fn writes(self) -> &'static [usize] {
        match self {
            HearOne | HearRest => &[SHORT, SHORT],
            HearLong => &[LONG],
            HearNothing | HearOldest | Follow => &[],
            HearLapped | FollowLapped => &[SHORT; 80],
        }
    }
}

/// The child with its tap, and both sides of the bus.
struct Hall {
    hearing: Hearing,
    scene: Scene,
    child: Option<Traced>,
    master: Option<Endpoint>,
    slave: Option<Endpoint>,
    /// A master that was replaced.
    victim: Option<Endpoint>,
    /// The number of the next message of the master, and of the slave.
    next: [u64; 2],
    /// What the slave read, and what it lost.
    numbers: Vec<(u64, u64)>,
}

impl Hall {
    fn set(hearing: Hearing, page: &'static Page) -> Hall {
        be_patient();
        page.clear();
        let op = if hearing == HearOne { Op::Read } else { Op::RaceRead };
        let scene = Scene { op, role: Role::Master, name: fresh_name(), page, failpoints: None };
        let open = |role| scene.options(role).open().expect("a new bus");
        let (master, slave) = (open(Role::Master), open(Role::Slave));
        let mut hall = Hall {
            hearing,
            scene,
            child: None,
            master: Some(master),
            slave: Some(slave),
            victim: None,
            next: [0; 2],
            numbers: Vec::new(),
        };
        hall.write(&[SHORT, LONG, SHORT]);
        let name = hall.scene.name.clone();
        let mut child = Traced::spawn(move || play(&name, hearing, page));
        child.run_to_mark(None);
        hall.write(hearing.writes());
        child.run_to_mark(None);
        if matches!(hearing, HearRest | Follow | FollowLapped) {
            hall.fence();
        }
        hall.child = Some(child);
        hall
    }

    fn write(&mut self, lens: &[usize]) {
        let master = self.master.as_mut().expect("there");
        for &len in lens {
            master.try_write(&message(self.next[0], len, 0)).expect("room");
            self.next[0] += 1;
        }
    }

    /// Replaces the master, which does not know of it, and tries to write.
    fn fence(&mut self) {
        let mut options = self.scene.options(Role::Master);
        let new = options.takeover(Takeover::Always).open().expect("fences");
        let mut victim = self.master.replace(new).expect("there");
        let refused = victim.try_write(&message(PROBE, SHORT, 0));
        assert!(matches!(refused, Err(Error::Fenced { .. })), "{refused:?}");
        self.victim = Some(victim);
    }

    /// Traffic in both directions; nothing is missing that is not counted.
    fn exchange(&mut self) -> Result<(), String> {
        let mut got = Vec::new();
        drain(self.slave.as_mut().expect("there"), &mut got, &mut self.numbers, false);
        self.write(&[SHORT, LONG]);
        let slave = self.slave.as_mut().expect("there");
        drain(slave, &mut got, &mut self.numbers, false);
        let lost = slave.lost();
        if let Some((seq, number)) = self.numbers.iter().find(|(seq, number)| seq != number) {
            return Err(format!("message {seq} is numbered {number}"));
        }
        if self.numbers.len() as u64 + lost != self.next[0] {
            return Err(format!("{} of {:?}, lost {lost}", self.numbers.len(), self.next));
        }
        let written = slave.try_write(&message(self.next[1], SHORT, 0));
        written.map_err(|error| format!("the slave writes: {error}"))?;
        let (mut back, mut numbers) = (Vec::new(), Vec::new());
        drain(self.master.as_mut().expect("there"), &mut back, &mut numbers, false);
        if back != [self.next[1]] {
            return Err(format!("the master read {back:?} and not {:?}", self.next));
        }
        self.next[1] += 1;
        Ok(())
    }

    fn reckon(mut self, cut: Cut, is_hasty: bool) -> Result<Told, String> {
        let slots = self.held();
        if slots.is_empty() {
            return Err("it holds no lock".into());
        }
        if cut == Cut::Killed {
            self.child.take().expect("still there").kill();
            let held = self.held();
            if !held.is_empty() {
                return Err(format!("killed, it holds the slots {held:?}"));
            }
        }
        self.exchange()?;
        if cut == Cut::Frozen {
            self.fence();
            self.exchange()?;
            if is_hasty {
                // The slot that it is in may be used again by nobody.
                self.fence();
                self.fence();
                self.exchange()?;
                let held = self.held();
                if !slots.iter().all(|slot| held.contains(slot)) {
                    return Err(format!("it held {slots:?}, and now {held:?}"));
                }
            }
            self.let_finish()?;
        }
        let told = self.scene.page.told(Answer::Act);
        if let Told::Other(why) = &told {
            return Err(format!("the tap was told: {why}"));
        }
        self.check_heard(cut)?;
        drop(self.victim.take());
        let left = [self.slave.take(), self.master.take()].map(|end| end.expect("there").leave());
        let left_over = leftovers(&self.scene.name);
        if left.iter().any(Result::is_err) || !left_over.is_empty() {
            return Err(format!("left over: {left_over:?} {left:?}"));
        }
        Ok(told)
    }

    fn check_heard(&self, cut: Cut) -> Result<(), String> {
        let (heard, numbers) = (self.scene.page.handed(), self.scene.page.shown());
        let is_right = heard == numbers[..heard.len().min(numbers.len())]
            && heard.windows(2).all(|pair| pair[0] < pair[1])
            && heard.iter().all(|seq| *seq < self.next[0]);
        if !is_right {
            return Err(format!("heard {heard:?}, numbered {numbers:?}"));
        }
        if cut == Cut::Frozen && heard.last() != Some(&(self.next[0] - 1)) {
            return Err(format!("heard {heard:?} of {:?}, and then no more", self.next));
        }
        Ok(())
    }

    fn let_finish(&mut self) -> Result<(), String> {
        let mut child = self.child.take().expect("still there");
        loop {
            match child.resume() {
                Stop::Mark | Stop::Trap => {}
                Stop::Ended(WaitStatus::Exited(_, 0)) => return Ok(()),
                other => return Err(format!("the tap ended with {other:?}")),
            }
        }
    }

    /// Slots whose reader's lock somebody holds: nobody but the tap.
    fn held(&self) -> Vec<usize> {
        let path = format!("/dev/shm/eshm_{}", self.scene.name);
        let file = std::fs::File::options().read(true).write(true).open(path).expect("the bus");
        let is_held = |slot: &usize| {
            // SAFETY: all zero is a valid value.
            let mut lock: libc::flock = unsafe { std::mem::zeroed() };
            lock.l_type = libc::F_WRLCK as libc::c_short;
            (lock.l_start, lock.l_len) = (4 * *slot as i64 + 3, 1);
            // SAFETY: asks about a lock of an open file.
            let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
            assert_eq!(done, 0, "F_OFD_GETLK");
            lock.l_type != libc::F_UNLCK as libc::c_short
        };
        (0..16).filter(is_held).collect()
    }
}

/// The whole life of the child.
fn play(name: &str, hearing: Hearing, page: &'static Page) {
    let mut tap = Tap::open(name, Direction::MasterToSlave).expect("a bus to listen to");
    let mut buffer = [0; 1024];
    let mut listen = |tap: &mut Tap| {
        let heard = tap.try_read(&mut buffer)?;
        page.show(heard.id.number);
        page.hand(seq_of(&buffer[..heard.len]).unwrap_or(TORN));
        Ok(1)
    };
    mark();
    if hearing == HearRest {
        // One of two is left when the tap finds that its slot is sealed.
        listen(&mut tap).expect("a message");
    }
    mark();
    if hearing == HearOldest {
        tap.from_oldest();
    }
    let mut answer = listen(&mut tap);
    if hearing.follows() && answer == Err(Error::Empty) {
        answer = listen(&mut tap);
    }
    page.tell(Answer::Act, &answer);
    mark();
    let mut empties = 0;
    while empties < 4 {
        match listen(&mut tap) {
            Ok(_) => empties = 0,
            Err(Error::Empty) => empties += 1,
            Err(error) => return page.tell(Answer::Act, &Err(error)),
        }
    }
    mark();
}

/// All that a tap does, cut short at many points.
pub fn run_hearings(cut: Cut, most: usize, wants: impl Fn(&str) -> bool) -> Tally {
    let page = Page::new();
    let mut total = Tally::default();
    for hearing in HEARINGS {
        let name = format!("tap {hearing:?}");
        if !wants(&name) {
            continue;
        }
        let began = Instant::now();
        let tally = every_instruction(hearing, page, cut, most);
        println!("{name:24} {} [{:.1} s]", tally.line(), began.elapsed().as_secs_f32());
        total.add(&tally);
    }
    total
}

fn every_instruction(hearing: Hearing, page: &'static Page, cut: Cut, most: usize) -> Tally {
    let mut tally = Tally::default();
    let mut hall = Hall::set(hearing, page);
    let path = Path::record(hall.child.as_mut().expect("there"), None);
    tally.instructions += 1;
    tally.note(&format!("{hearing:?} at its end"), hall.reckon(cut, false));
    // The way to another slot has long loops (its name, its page, its memory): each instruction there
    // is met once.
    let points: Vec<usize> =
        if hearing.follows() { path.firsts() } else { (0..path.pcs.len() - 1).collect() };
    for k in spread(points.len(), most).into_iter().map(|index| points[index]) {
        let mut hall = Hall::set(hearing, page);
        let came = hall.child.as_mut().expect("there").go(&path, k, None);
        tally.instructions += tally.count(came);
        let place = format!("{hearing:?} after {k} instructions");
        tally.note(&place, hall.reckon(cut, k % 2 == 1));
    }
    tally
}
