//! What the processes of a schedule do, over the public interface of the library.
//!
//! Each life of an actor is a process. What it is told it writes into the ledger, and an error that
//! its situation does not explain ends the schedule.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::calls::Call;
use super::kernel::{Ino, Life, Node};
use super::ledger::{Fate, StreamId, message};
use super::random::Random;
use super::scenario::{FRIEND, GROUP, OWNER, Part, Plan, Scenario};
use super::sys::clock::sleep;
use super::world::{Key, step, with};
use crate::{
    Batch, Cleanup, Direction, Disconnect, Endpoint, EntryKind, Error, Options, Overflow, Role,
    Takeover, inspect_in, list_in, remove_in,
};

pub(super) const NAME: &str = "bus";
pub(super) const ASIDE: &str = "aside";
/// Longest message of an actor, in two frames at most.
const LONGEST: u64 = 100;

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
    lost: u64,
    /// When it began to be opened.
    since_ns: u64,
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

/// The file that the current process has mapped last.
fn bus_file() -> Option<Ino> {
    with(|world| {
        let process = world.who().process;
        let maps = &world.kernel.processes[process].maps;
        maps.iter().max_by_key(|map| map.serial).map(|map| map.ino)
    })
}

/// For whoever reads the log.
fn tell(about: impl FnOnce() -> String) {
    if with(|world| world.is_verbose) {
        let line = about();
        with(|world| world.tell(Call::Outside, &format!("--- {line}")));
    }
}

fn accuse(wrong: String) {
    with(|world| {
        let key = world.key();
        world.fail(key.map_or_else(|| wrong.clone(), |key| format!("{key}: {wrong}")));
    });
}

fn check_ledger() {
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
            Part::Lister => self.list(),
            Part::Planter => self.plant(),
            Part::Unnamer => self.unname(),
            Part::Vandal => self.vandalise(),
        }
        check_ledger();
    }

    fn pause(&mut self) {
        let pause = self.random.one_of(&[20, 200, 1000, 4000]);
        sleep(Duration::from_micros(self.random.below(pause)));
    }

    fn name(&self) -> &'static str {
        if self.plan.is_aside { ASIDE } else { NAME }
    }

    // --- members ------------------------------------------------------------------------------

    fn member(&mut self, role: Role, takeover: Takeover, tries: u32) {
        let mut options = creating(&self.scenario, self.name(), role);
        options.takeover(takeover).background(self.plan.has_background);
        let Some(mut hand) = self.open(&options, tries) else { return };
        for _ in 0..self.plan.ops {
            let trouble = self.act(&mut hand);
            check_ledger();
            if let Some(error) = trouble {
                let is_usable = error.is_wait()
                    || matches!(error, Error::PeerDead { .. } | Error::PeerHung { .. });
                self.judge(&error, "a call", Some(hand.since_ns));
                if !is_usable {
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
            1 => drop(hand),
            _ => {
                let since = hand.since_ns;
                if let Err(error) = hand.endpoint.leave() {
                    self.judge(&error, "leaving", Some(since));
                }
            }
        }
        self.check_nothing_held();
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
        let ino = bus_file().unwrap_or_default();
        let role = endpoint.role();
        let is_overwritten = self.scenario.is_overwritten;
        let (out, back) = (role.writes() as usize, role.peer().writes() as usize);
        tell(|| format!("is the {role} of file {ino}"));
        with(|world| Hand {
            endpoint: Box::new(endpoint),
            out: world.ledger.stream(ino, out, is_overwritten),
            back: world.ledger.stream(ino, back, is_overwritten),
            last: None,
            lost: 0,
            since_ns,
        })
    }

    /// One thing that a member does. The error if it was refused.
    fn act(&mut self, hand: &mut Hand) -> Option<Error> {
        match self.random.below(16) {
            0..=4 => self.write(hand),
            5 => self.write_many(hand),
            6 => self.claim(hand),
            7..=10 => self.read(hand),
            11 => self.read_many(hand),
            12 => self.peek(hand),
            13 => {
                let _ = (hand.endpoint.peer(), hand.endpoint.stats());
                hand.endpoint.beat();
                None
            }
            14 if self.random.once_in(3) => {
                self.fork(hand);
                None
            }
            _ => {
                self.pause();
                None
            }
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
            .map(|attempt| message(out, attempt, 8 + self.random.below(longest - 7) as usize))
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
                true => endpoint.write(&messages[0]),
                false => endpoint.try_write(&messages[0]),
            };
            done.map(|()| 1)
        })
    }

    fn write_many(&mut self, hand: &mut Hand) -> Option<Error> {
        let count = self.random.below(5) as usize + 1;
        self.attempt(hand, count, |player, endpoint, messages| match player.random.once_in(2) {
            true => endpoint.write_many(messages),
            false => endpoint.try_write_many(messages),
        })
    }

    fn claim(&mut self, hand: &mut Hand) -> Option<Error> {
        self.attempt(hand, 1, |player, endpoint, messages| {
            let mut claim = endpoint.try_claim(messages[0].len())?;
            claim.copy_from_slice(&messages[0]);
            player.pause();
            claim.commit().map(|()| 1)
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
                    let lost = hand.endpoint.lost() - hand.lost;
                    if let (true, 1, Some(last)) = (self.scenario.is_overwritten, most, hand.last) {
                        world.ledger.gap(back, last, attempt, lost);
                    }
                    hand.lost += lost;
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
                true => endpoint.read(&mut buffer),
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
                true => endpoint.read_many(&mut batch),
                false => endpoint.try_read_many(&mut batch),
            }?;
            Ok(batch.iter().map(|(_, bytes)| bytes.to_vec()).collect())
        })
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

    /// A child that tries the handle, is told that it is not its own, and lives on for a while.
    fn fork(&mut self, hand: &mut Hand) {
        let done = Rc::new(Cell::new(false));
        let told = Rc::clone(&done);
        let endpoint: *mut Endpoint = &raw mut *hand.endpoint;
        let pause = Duration::from_micros(self.random.below(20_000));
        let body = move || {
            // SAFETY: the parent does nothing until it is told; if it is killed, its heap stays for
            // as long as the schedule. As in a real child, where memory is a copy.
            let endpoint = unsafe { &mut *endpoint };
            let (write, read) = (endpoint.try_write(b"x"), endpoint.try_read(&mut [0; 256]));
            if (&write, &read) != (&Err(Error::Forked), &Err(Error::Forked)) {
                accuse(format!("a child was told {write:?} and {read:?}"));
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

    // --- judging errors -----------------------------------------------------------------------

    fn was_refused(&self) -> bool {
        with(|world| {
            let process = world.who().process;
            world.is_short || world.actor_mut(process).is_some_and(|actor| actor.was_refused)
        })
    }

    fn judge_open(&self, error: &Error) {
        match error {
            Error::RoleTaken { .. } | Error::Timeout => {}
            Error::NotFound { .. } if !matches!(self.plan.part, Part::Master) => {}
            _ => self.judge(error, "opening", None),
        }
    }

    /// Whether the situation explains the error.
    fn judge(&self, error: &Error, during: &str, since_ns: Option<u64>) {
        let scenario = &self.scenario;
        let is_explained = match error {
            error if error.is_wait() => true,
            Error::PeerDead { .. } | Error::PeerHung { .. } => true,
            Error::Fenced { .. } => since_ns.is_none_or(|since| self.deserved_fence(since)),
            // Fenced, and the bus was removed before it knew.
            Error::Lost { .. } => {
                let is_fenced = since_ns.is_some_and(|since| self.deserved_fence(since));
                scenario.can_lose() || self.was_closed() || is_fenced
            }
            Error::Os { .. } => self.was_refused() || self.was_closed(),
            Error::Access { .. } => scenario.has_foreign() || self.was_refused(),
            Error::Foreign { .. } => scenario.has_foreign(),
            Error::Corrupt { .. } | Error::Layout { .. } => scenario.has_vandal(),
            _ => false,
        };
        if !is_explained && !scenario.has_vandal() {
            accuse(format!("{during}: {error}"));
        }
    }

    fn was_closed(&self) -> bool {
        with(|world| {
            let process = world.who().process;
            world.actor_mut(process).is_some_and(|actor| actor.was_closed)
        })
    }

    /// Fenced, by somebody who only fences who hangs: then it must have hung.
    fn deserved_fence(&self, since_ns: u64) -> bool {
        let by_force = |part| matches!(part, Part::Usurper(_) | Part::Remover(true));
        if self.scenario.has(by_force) || !self.plan.has_background {
            return true;
        }
        let stale_ns = self.scenario.stale_ms * 1_000_000;
        with(|world| {
            let process = world.who().process;
            let now = world.now_ns;
            world.actor_mut(process).is_none_or(|actor| {
                let silent = actor.longest_silence(since_ns, now);
                silent + 3_000_000 >= stale_ns
            })
        })
    }

    // --- observers ----------------------------------------------------------------------------

    fn listen(&mut self, direction: Direction) {
        let options = options(&self.scenario, NAME, Role::Auto);
        for _ in 0..self.plan.ops {
            let mut tap = match options.tap(direction) {
                Ok(tap) => tap,
                Err(error) => {
                    self.judge_look(&error, "a tap");
                    self.pause();
                    continue;
                }
            };
            if self.random.once_in(2) {
                tap.from_oldest();
            }
            // It goes on with a bus made anew, which is another stream.
            let mut last: BTreeMap<StreamId, usize> = BTreeMap::new();
            for _ in 0..self.random.below(8) {
                let mut buffer = [0; 512];
                match tap.read_timeout(&mut buffer, Duration::from_millis(2)) {
                    Ok(heard) => with(|world| {
                        let bytes = &buffer[..heard.len];
                        let stream = world.ledger.stream_of(bytes, direction as usize);
                        let Some(stream) = stream else {
                            return world.ledger.accuse("a tap heard what nobody wrote".into());
                        };
                        if let Some(attempt) = world.ledger.recognise(stream, bytes) {
                            world.ledger.tap(stream, attempt, last.insert(stream, attempt));
                        }
                    }),
                    Err(error) => self.judge_look(&error, "listening"),
                }
                check_ledger();
            }
        }
    }

    /// Observers fail only by what is refused to themselves.
    fn judge_look(&self, error: &Error, during: &str) {
        match error {
            Error::NotFound { .. } => {}
            // Who looks trusts nobody but itself, and may not take away what is another's.
            Error::Access { .. } if self.scenario.has_friend() => {}
            _ => self.judge(error, during, None),
        }
    }

    fn list(&mut self) {
        for _ in 0..self.plan.ops {
            match list_in(&self.directory) {
                Ok(entries) => {
                    for entry in entries {
                        if let EntryKind::Unreadable(error) = entry.kind {
                            self.judge_look(&error, "listing an entry");
                        }
                    }
                }
                Err(error) => self.judge_look(&error, "listing"),
            }
            if let Err(error) = inspect_in(&self.directory, NAME) {
                self.judge_look(&error, "inspecting");
            }
            self.pause();
        }
    }

    // --- those who take away ------------------------------------------------------------------

    fn excuse(&self) {
        let path = path_of(&self.scenario, NAME);
        with(|world| {
            if let Some(ino) = world.kernel.at(&path) {
                world.ledger.excuse(ino);
            }
        });
    }

    fn remove(&mut self, force: bool) {
        with(|world| {
            let process = world.who().process;
            if let Some(actor) = world.actor_mut(process) {
                actor.may_remove = true;
            }
        });
        for _ in 0..self.plan.ops.min(3) {
            self.pause();
            self.excuse();
            if let Err(error) = remove_in(&self.directory, NAME, force)
                && !matches!(error, Error::RoleTaken { .. })
            {
                self.judge_look(&error, "removing");
            }
            self.excuse();
        }
    }

    fn plant(&mut self) {
        let path = path_of(&self.scenario, NAME);
        for _ in 0..self.plan.ops {
            self.pause();
            step(Call::Outside);
            let kind = self.random.below(3);
            let planted = with(|world| {
                let node = match kind {
                    0 => Node::Regular,
                    1 => Node::Symlink,
                    _ => Node::Fifo,
                };
                world.kernel.plant(world.who(), &path, node, 0o600)
            });
            let Ok(ino) = planted else { continue };
            self.pause();
            step(Call::Outside);
            with(|world| {
                if world.kernel.at(&path) == Some(ino) {
                    let _ = world.kernel.unlink(world.who(), &path);
                }
            });
        }
    }

    fn unname(&mut self) {
        let path = path_of(&self.scenario, NAME);
        for _ in 0..self.plan.ops.min(2) {
            self.pause();
            step(Call::Outside);
            self.excuse();
            let _ = with(|world| world.kernel.unlink(world.who(), &path));
        }
    }

    fn vandalise(&mut self) {
        let path = path_of(&self.scenario, NAME);
        for _ in 0..self.plan.ops.min(2) {
            self.pause();
            step(Call::Outside);
            self.excuse();
            let size = self.random.one_of(&[0, 100, 4096, 65_536, 70_000, 1 << 20]);
            with(|world| {
                if let Some(ino) = world.kernel.at(&path) {
                    world.kernel.truncate(ino, size);
                }
            });
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
