//! What the processes of a schedule do, over the public interface of the library.
//!
//! Each life of an actor is a process. What it is told it writes into the ledger, and an error that
//! its situation does not explain ends the schedule.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::calls::Call;
use super::kernel::{Ino, Life};
use super::ledger::{Fate, StreamId, message};
use super::random::Random;
use super::rules::{check_fences, is_answer_of_waiting};
use super::scenario::{FRIEND, GROUP, OWNER, Part, Plan, Scenario};
use super::sys::clock::sleep;
use super::world::{Key, step, with};
use crate::{
    Batch, Cleanup, Direction, Disconnect, Endpoint, Error, Options, Overflow, PeerState, Role,
    Takeover,
};

pub(super) const NAME: &str = "bus";
pub(super) const ASIDE: &str = "aside";
/// Longest message of an actor, in two frames at most.
const LONGEST: u64 = 100;
/// A message of this length is read as a value, too.
const VALUE: usize = 24;

/// One life of an actor.
pub(super) struct Player {
    pub scenario: Rc<Scenario>,
    pub plan: Plan,
    pub random: Random,
    pub directory: PathBuf,
}

/// An open handle and where it stands in the ledger.
struct Hand {
    endpoint: Box<Endpoint>,
    out: StreamId,
    back: StreamId,
    last: Option<usize>,
    /// A message that was read alone, and how many were lost until then.
    gap_from: Option<(usize, u64)>,
    /// When it began to be opened.
    since_ns: u64,
    ino: Ino,
    /// Refusals when the system last refused it something.
    refused: Option<u32>,
    /// The newest message when it last passed others over, which must not be passed over.
    newest: Option<usize>,
}

pub(super) fn path_of(scenario: &Scenario, name: &str) -> PathBuf {
    Path::new(scenario.directory).join(format!("eshm_{name}"))
}

/// The options that all members of this scenario share.
pub(super) fn options(scenario: &Scenario, name: &str, role: Role) -> Options {
    let mut options = Options::new(name);
    let short = Duration::from_millis(3);
    options
        .directory(scenario.directory)
        .role(role)
        .mode(scenario.mode)
        .stale_after(Duration::from_millis(scenario.stale_ms))
        .read_timeout(short)
        .write_timeout(short)
        .open_timeout(Duration::ZERO)
        .on_disconnect(Disconnect::OnTimeout)
        .reconnect_interval(short)
        .reconnect_wait(short * 3)
        .cleanup(if scenario.keeps { Cleanup::Never } else { Cleanup::WhenRead })
        .trust_user(OWNER)
        .trust_user(FRIEND)
        .guard_sigbus(scenario.guards);
    options
}

/// Options that also say how to create it.
pub(super) fn creating(scenario: &Scenario, name: &str, role: Role) -> Options {
    let mut options = options(scenario, name, role);
    let overflow = if scenario.is_overwritten { Overflow::Overwrite } else { Overflow::Refuse };
    options.frame_size(64).frames(scenario.frames).overflow(overflow);
    options
}

/// The file of an endpoint.
fn file_of(endpoint: &Endpoint) -> Ino {
    let segment = endpoint.member().segment();
    segment.map_or(0, |segment| segment.facts().id.ino as Ino)
}

/// The answer of a call that waits.
fn waited<T>(answer: crate::Result<T>) -> crate::Result<T> {
    if let Err(error) = &answer
        && !is_answer_of_waiting(error)
    {
        accuse(format!("a call that waits says at once: {error}"));
    }
    answer
}

/// For whoever reads the log.
fn tell(about: impl FnOnce() -> String) {
    if with(|world| world.is_verbose) {
        let line = about();
        with(|world| world.tell(Call::Outside, &format!("--- {line}")));
    }
}

pub(super) fn accuse(wrong: String) {
    with(|world| {
        let key = world.key();
        world.fail(key.map_or_else(|| wrong.clone(), |key| format!("{key}: {wrong}")));
    });
}

pub(super) fn check_ledger() {
    if let Some(wrong) = with(|world| world.ledger.wrong.take()) {
        accuse(wrong);
    }
}

impl Player {
    /// The whole life.
    pub fn live(mut self) {
        sleep(Duration::from_micros(self.random.below(3000)));
        match self.plan.part {
            Part::Master => self.member(Role::Master, Takeover::Never, 8),
            Part::Slave => self.member(Role::Slave, Takeover::Never, 8),
            Part::Auto => self.member(Role::Auto, Takeover::Never, 8),
            Part::StandBy(is_slave) => self.member(role(is_slave), Takeover::Hung, 16),
            Part::Usurper(is_slave) => self.member(role(is_slave), Takeover::Always, 4),
            Part::Tap(direction) => self.listen(Direction::BOTH[direction]),
            Part::Remover(force) => self.remove(force),
            Part::Collector => self.collect(),
            Part::Lister => self.list(),
            Part::Planter => self.plant(),
            Part::Unnamer => self.unname(),
            Part::Vandal => self.vandalise(),
            Part::Holder => self.hold(),
            Part::Impostor => self.lure(),
            Part::Both => self.both(),
        }
        check_ledger();
    }

    pub(super) fn pause(&mut self) {
        let pause = self.random.one_of(&[20, 200, 1000, 4000]);
        sleep(Duration::from_micros(self.random.below(pause)));
    }

    fn name(&self) -> &'static str {
        if self.plan.is_aside { ASIDE } else { NAME }
    }

    // --- members ------------------------------------------------------------------------------

    /// As its plan has it.
    fn options(&self, role: Role) -> Options {
        let mut options = creating(&self.scenario, self.name(), role);
        options.background(self.plan.has_background).cleanup(self.plan.wish.cleanup());
        options.beat_interval(Duration::from_millis(self.plan.beat_ms));
        let prepares = self.plan.prepares;
        options.prefault(prepares).lock_memory(prepares).huge_pages(prepares);
        options
    }

    fn member(&mut self, role: Role, takeover: Takeover, tries: u32) {
        let mut options = self.options(role);
        options.takeover(takeover);
        let Some(mut hand) = self.open(&options, tries) else { return };
        for _ in 0..self.plan.ops {
            let trouble = self.act(&mut hand);
            check_ledger();
            if let Some(error) = trouble {
                self.judge(&error, "a call", Some(hand.since_ns));
                if !self.is_usable(&mut hand, &error) {
                    self.rise(&hand, false);
                    drop(hand);
                    match self.open(&options, 3) {
                        Some(fresh) => hand = fresh,
                        None => return,
                    }
                }
            }
        }
        match self.random.below(6) {
            0 => return std::mem::forget(hand), // exit without a word
            1 => {
                self.rise(&hand, false);
                drop(hand);
            }
            _ => self.leave(hand),
        }
        self.check_nothing_held();
    }

    fn leave(&mut self, hand: Hand) {
        let (since, ino, role) = (hand.since_ns, hand.ino, hand.endpoint.role());
        let left = hand.endpoint.leave();
        with(|world| world.stand_up(ino, role, left.is_ok()));
        if let Err(error) = left {
            self.judge(&error, "leaving", Some(since));
        }
    }

    fn rise(&self, hand: &Hand, has_left: bool) {
        with(|world| world.stand_up(hand.ino, hand.endpoint.role(), has_left));
    }

    /// Both roles in one process.
    fn both(&mut self) {
        let mut hands = Vec::new();
        for role in [Role::Master, Role::Slave] {
            hands.extend(self.open(&self.options(role), 3));
        }
        for _ in 0..self.plan.ops {
            for hand in &mut hands {
                if let Some(error) = self.act(hand) {
                    self.judge(&error, "a call", Some(hand.since_ns));
                }
                check_ledger();
            }
        }
        for hand in hands {
            self.leave(hand);
        }
        self.check_nothing_held();
    }

    /// Whether the handle is to be used on after this. What the system refused once may be tried
    /// again, and is not told again unless it is refused again.
    fn is_usable(&self, hand: &mut Hand, error: &Error) -> bool {
        if !matches!(error, Error::Os { .. } | Error::Access { .. }) {
            hand.refused = None;
            return error.is_wait()
                || matches!(error, Error::PeerDead { .. } | Error::PeerHung { .. });
        }
        let (refused, is_short) = with(|world| {
            let process = world.who().process;
            let is_limited = world.kernel.processes[process].fd_limit < 64;
            let count = world.actor_mut(process).map_or(0, |actor| actor.refused);
            (count, world.is_short || is_limited)
        });
        let is_explained = is_short || self.was_closed() || self.scenario.has_foreign();
        if hand.refused.replace(refused) == Some(refused) && !is_explained {
            accuse(format!("told once more, and nothing was refused since: {error}"));
        }
        true
    }

    /// Whoever has left holds nothing.
    fn check_nothing_held(&mut self) {
        let mut held = (0, 0);
        // The background thread lets go a little later.
        for _ in 0..20 {
            sleep(Duration::from_millis(30));
            held = with(|world| {
                let process = &world.kernel.processes[world.who().process];
                (process.maps.len(), world.kernel.tables[process.table].fds.len())
            });
            if held == (0, 0) {
                return;
            }
        }
        accuse(format!("has left, and holds {} mappings and {} descriptors", held.0, held.1));
    }

    fn open(&mut self, options: &Options, tries: u32) -> Option<Hand> {
        for _ in 0..tries {
            let since_ns = with(|world| world.now_ns);
            match options.open() {
                Ok(endpoint) => return Some(self.seat(endpoint, since_ns)),
                Err(error) => self.judge_open(&error),
            }
            self.pause();
        }
        None
    }

    fn seat(&self, endpoint: Endpoint, since_ns: u64) -> Hand {
        let ino = file_of(&endpoint);
        let role = endpoint.role();
        let is_overwritten = self.scenario.is_overwritten;
        let (out, back) = (role.writes() as usize, role.peer().writes() as usize);
        tell(|| format!("is the {role} of file {ino}"));
        self.check_owner(ino);
        with(|world| world.sit(ino, role));
        check_fences(&endpoint);
        with(|world| Hand {
            endpoint: Box::new(endpoint),
            out: world.ledger.stream(ino, out, is_overwritten),
            back: world.ledger.stream(ino, back, is_overwritten),
            last: None,
            gap_from: None,
            since_ns,
            ino,
            refused: None,
            newest: None,
        })
    }

    /// One thing that a member does. The error if it was refused.
    fn act(&mut self, hand: &mut Hand) -> Option<Error> {
        match self.random.below(18) {
            0..=4 => self.write(hand),
            5 => self.write_many(hand),
            6 => self.claim(hand),
            7..=10 => self.read(hand),
            11 => self.read_many(hand),
            12 => self.peek(hand),
            13 => {
                let (peer, _) = (hand.endpoint.peer(), hand.endpoint.stats());
                let is_known = with(|world| world.is_peer_known(hand.ino, hand.endpoint.role()));
                if is_known && matches!(peer.state, PeerState::Dead | PeerState::Left) {
                    accuse(format!("the peer is there, and is said to be {:?}", peer.state));
                }
                hand.endpoint.beat();
                check_fences(&hand.endpoint);
                None
            }
            14 => self.read_value(hand),
            15 if self.random.once_in(3) => self.skip(hand),
            16 if self.random.once_in(3) => {
                self.fork(hand);
                None
            }
            _ => {
                self.pause();
                None
            }
        }
    }

    /// Nobody uses what belongs to somebody who is not trusted.
    fn check_owner(&self, ino: Ino) {
        let (owner, user) = with(|world| {
            let process = world.who().process;
            (world.kernel.inodes[ino].uid, world.kernel.processes[process].uid)
        });
        if ![user, OWNER, FRIEND].contains(&owner) {
            accuse(format!("is on a bus of user {owner}"));
        }
    }

    fn process(&self) -> usize {
        with(|world| world.who().process)
    }

    /// Writes `count` messages as `how` does it, which says how many were taken.
    fn attempt(
        &mut self,
        hand: &mut Hand,
        count: usize,
        how: impl FnOnce(&mut Player, &mut Endpoint, &[Vec<u8>]) -> crate::Result<usize>,
    ) -> Option<Error> {
        let (process, out) = (self.process(), hand.out);
        let first = with(|world| world.ledger.begin_write(process, out, count));
        let longest = LONGEST.min(hand.endpoint.max_message() as u64 - 7);
        let messages: Vec<Vec<u8>> = (first..first + count)
            .map(|attempt| {
                let len = match self.random.once_in(4) {
                    true => VALUE.min(longest as usize),
                    false => 8 + self.random.below(longest - 7) as usize,
                };
                message(out, attempt, len)
            })
            .collect();
        let done = how(self, &mut hand.endpoint, &messages);
        let committed = *done.as_ref().unwrap_or(&0);
        tell(|| format!("wrote {committed} of {count} from {first} on to {out:?}: {done:?}"));
        // Of a bus that was taken away nobody can say where it ended.
        let is_lost = matches!(done, Err(Error::Lost { .. }));
        let rest = if is_lost { Fate::Unknown } else { Fate::Refused };
        with(|world| world.ledger.end_write(out, (first, count), committed, rest));
        done.err()
    }

    fn write(&mut self, hand: &mut Hand) -> Option<Error> {
        self.attempt(hand, 1, |player, endpoint, messages| {
            let done = match player.random.once_in(2) {
                true => waited(endpoint.write(&messages[0])),
                false => endpoint.try_write(&messages[0]),
            };
            done.map(|()| 1)
        })
    }

    fn write_many(&mut self, hand: &mut Hand) -> Option<Error> {
        let count = self.random.below(5) as usize + 1;
        self.attempt(hand, count, |player, endpoint, messages| match player.random.once_in(2) {
            true => waited(endpoint.write_many(messages)),
            false => endpoint.try_write_many(messages),
        })
    }

    fn claim(&mut self, hand: &mut Hand) -> Option<Error> {
        self.attempt(hand, 1, |player, endpoint, messages| {
            let mut claim = endpoint.try_claim(messages[0].len())?;
            claim.copy_from_slice(&messages[0]);
            player.pause();
            waited(claim.commit()).map(|()| 1)
        })
    }

    /// Reads as `how` does it, which gives what it was handed.
    fn take(
        &mut self,
        hand: &mut Hand,
        most: usize,
        how: impl FnOnce(&mut Player, &mut Endpoint) -> crate::Result<Vec<Vec<u8>>>,
    ) -> Option<Error> {
        let (process, back) = (self.process(), hand.back);
        with(|world| world.ledger.begin_read(process, back, hand.last, most));
        let taken = how(self, &mut hand.endpoint);
        let count = taken.as_ref().map(Vec::len);
        tell(|| format!("read {count:?} of {back:?} behind {:?}", hand.last));
        with(|world| {
            world.ledger.end_read(process);
            for bytes in taken.iter().flatten() {
                if let Some(attempt) = world.ledger.recognise(back, bytes) {
                    world.ledger.read(back, attempt, hand.last);
                    let newest = hand.newest.take();
                    if newest.is_some_and(|newest| attempt < newest) {
                        world
                            .ledger
                            .accuse(format!("{back:?}: {attempt} came after a skip to {newest:?}"));
                    }
                    // Of what a batch counts as lost some may lie behind its last message. So only what one
                    // call for one message brought ends a gap, and begins the next one.
                    if most == 1 {
                        let counted = hand.endpoint.lost();
                        if let (true, Some((from, before))) =
                            (self.scenario.is_overwritten, hand.gap_from)
                        {
                            world.ledger.gap(back, from, attempt, counted - before);
                        }
                        hand.gap_from = Some((attempt, counted));
                    }
                    hand.last = Some(attempt);
                }
            }
        });
        taken.err()
    }

    fn read(&mut self, hand: &mut Hand) -> Option<Error> {
        self.take(hand, 1, |player, endpoint| {
            let mut buffer = [0; 512];
            let len = match player.random.once_in(2) {
                true => waited(endpoint.read(&mut buffer)),
                false => endpoint.try_read(&mut buffer),
            }?;
            Ok(vec![buffer[..len].to_vec()])
        })
    }

    fn read_many(&mut self, hand: &mut Hand) -> Option<Error> {
        let most = self.random.below(6) as usize + 1;
        self.take(hand, most, |player, endpoint| {
            let mut batch = Batch::with_capacity(4096, most);
            match player.random.once_in(2) {
                true => waited(endpoint.read_many(&mut batch)),
                false => endpoint.try_read_many(&mut batch),
            }?;
            Ok(batch.iter().map(|(_, bytes)| bytes.to_vec()).collect())
        })
    }

    fn read_value(&mut self, hand: &mut Hand) -> Option<Error> {
        let trouble = self.take(hand, 1, |_, endpoint| {
            let value: [u8; VALUE] = endpoint.reader().try_read_value()?;
            Ok(vec![value.to_vec()])
        });
        // The message stays, whatever its length.
        trouble.filter(|error| !matches!(error, Error::WrongSize { .. }))
    }

    /// Goes to the newest message.
    fn skip(&mut self, hand: &mut Hand) -> Option<Error> {
        let (process, back, last) = (self.process(), hand.back, hand.last);
        let newest = with(|world| {
            world.ledger.begin_read(process, back, last, usize::MAX);
            world.ledger.newest(back)
        });
        let skipped = hand.endpoint.skip_to_latest();
        tell(|| format!("skips to {newest:?} of {back:?}, behind {last:?}: {skipped:?}"));
        with(|world| {
            world.ledger.end_read(process);
            if !matches!(skipped, Ok(0)) {
                world.ledger.skip(back);
            }
        });
        hand.gap_from = None;
        // What was read before is not told again.
        hand.newest = skipped.is_ok().then_some(newest).flatten();
        skipped.err()
    }

    fn peek(&mut self, hand: &mut Hand) -> Option<Error> {
        let (back, last) = (hand.back, hand.last);
        let shown = Rc::new(Cell::new(None));
        let kept = Rc::clone(&shown);
        let trouble = self.take(hand, 1, move |player, endpoint| {
            let peek = endpoint.try_peek()?;
            let bytes = peek.to_vec();
            with(|world| {
                if let Some(attempt) = world.ledger.recognise(back, &bytes) {
                    if world.is_verbose {
                        world.tell(Call::Outside, &format!("--- is shown {attempt} of {back:?}"));
                    }
                    world.ledger.show(back, attempt, last);
                    kept.set(Some(attempt));
                }
            });
            player.pause();
            if player.random.once_in(3) {
                return Ok(Vec::new()); // looked, and left it there
            }
            peek.release().map(|()| vec![bytes])
        });
        check_ledger();
        trouble
    }

    /// A child that tries the handle, is told that it is not its own, perhaps drops it, and lives on for
    /// a while.
    fn fork(&mut self, hand: &mut Hand) {
        let done = Rc::new(Cell::new(false));
        let told = Rc::clone(&done);
        let endpoint: *mut Endpoint = &raw mut *hand.endpoint;
        let pause = Duration::from_micros(self.random.below(20_000));
        let drops_it = self.random.once_in(2);
        let body = move || {
            // SAFETY: the parent does nothing until it is told; if it is killed, its heap stays for
            // as long as the schedule. As in a real child, where memory is a copy.
            let handle = unsafe { &mut *endpoint };
            let (write, read) = (handle.try_write(b"x"), handle.try_read(&mut [0; 256]));
            if (&write, &read) != (&Err(Error::Forked), &Err(Error::Forked)) {
                accuse(format!("a child was told {write:?} and {read:?}"));
            }
            if drops_it {
                with(|world| world.must_be_still = true);
                // SAFETY: as above; and what this does to the parent's memory is undone, as a child's
                // memory is its own.
                super::heap::undone(|| unsafe { std::ptr::drop_in_place(endpoint) });
                with(|world| world.must_be_still = false);
            }
            told.set(true);
            sleep(pause);
        };
        step(Call::Outside);
        let child = with(|world| {
            let child = world.kernel.fork(world.who(), false);
            let key = world.key().expect("an actor forks");
            let lives = world.actors.iter().filter(|it| it.key.actor == key.actor + 64).count();
            let key = Key { actor: key.actor + 64, life: lives as u8, thread: 0 };
            world.start(key, child, Box::new(body));
            child
        });
        let is_there = || {
            with(|world| {
                matches!(world.kernel.processes[child].life, Life::Running | Life::Stopped)
            })
        };
        while !done.get() && is_there() {
            sleep(Duration::from_micros(300));
        }
    }
}

fn role(is_slave: bool) -> Role {
    if is_slave { Role::Slave } else { Role::Master }
}

/// The group of every user here who has one.
pub(super) fn group_of(uid: u32) -> u32 {
    if uid == OWNER || uid == FRIEND { GROUP } else { uid }
}
