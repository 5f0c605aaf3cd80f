//! What the others do: who listens, looks, takes away, or is up to no good.

use std::collections::BTreeMap;
use std::time::Duration;

use super::actors::{NAME, Player, accuse, check_ledger, creating, options, path_of};
use super::calls::Call;
use super::kernel::Node;
use super::ledger::StreamId;
use super::scenario::Part;
use super::sys::clock::sleep;
use super::world::{step, with};
use crate::{
    Direction, Entry, EntryKind, Error, PeerState, Role, inspect_in, list_in, remove_in,
    remove_read_in,
};

impl Player {
    // --- observers ----------------------------------------------------------------------------

    pub(super) fn listen(&mut self, direction: Direction) {
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
                let before = self.turn_at_name();
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
                    Err(error) => {
                        self.judge_look(&error, "listening");
                        // Whoever found nothing all the time has looked where the bus is. Its own look
                        // comes first: the bus may move between the two.
                        let has_followed = tap.is_current();
                        let is_same = before.is_some() && before == self.turn_at_name();
                        let may_be_kept_out = self.was_refused()
                            || self.scenario.has(|part| {
                                matches!(
                                    part,
                                    Part::Holder | Part::Vandal | Part::Planter | Part::Impostor
                                )
                            });
                        if matches!(error, Error::Timeout)
                            && is_same
                            && !may_be_kept_out
                            && !has_followed
                        {
                            accuse("a tap does not follow the bus".into());
                        }
                    }
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

    pub(super) fn list(&mut self) {
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

    pub(super) fn remove(&mut self, force: bool) {
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

    /// As `eshm gc`: looks, and takes away what nobody holds and in which nothing is unread. Nothing is
    /// excused: what was told committed meanwhile must not be lost.
    pub(super) fn collect(&mut self) {
        with(|world| {
            let process = world.who().process;
            if let Some(actor) = world.actor_mut(process) {
                actor.collects = true;
            }
        });
        for _ in 0..self.plan.ops.min(4) {
            self.pause();
            let entries = list_in(&self.directory).unwrap_or_else(|error| {
                self.judge_look(&error, "listing");
                Vec::new()
            });
            for entry in entries.iter().filter(|entry| self.is_garbage(entry)) {
                if let Err(error) = remove_read_in(&self.directory, &entry.name) {
                    self.judge_look(&error, "collecting");
                }
            }
        }
    }

    /// Whether `eshm gc` would take it.
    fn is_garbage(&self, entry: &Entry) -> bool {
        let snapshot = match &entry.kind {
            EntryKind::Bus(snapshot) => snapshot.as_ref().clone(),
            EntryKind::Leftover(_) => match inspect_in(&self.directory, &entry.name) {
                Ok(snapshot) => snapshot,
                Err(_) => return false,
            },
            _ => return false,
        };
        let is_held = |state| matches!(state, PeerState::Alive | PeerState::Hung(_));
        let stats = &snapshot.stats;
        !is_held(stats.master.state)
            && !is_held(stats.slave.state)
            && snapshot.unread == [0, 0]
            && snapshot.uid == self.plan.uid
    }

    pub(super) fn plant(&mut self) {
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

    pub(super) fn unname(&mut self) {
        let path = path_of(&self.scenario, NAME);
        for _ in 0..self.plan.ops.min(2) {
            self.pause();
            step(Call::Outside);
            self.excuse();
            let _ = with(|world| world.kernel.unlink(world.who(), &path));
        }
    }

    pub(super) fn vandalise(&mut self) {
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

    /// Which file has the name, and which slot of it counts.
    fn turn_at_name(&self) -> Option<(usize, u64)> {
        let path = path_of(&self.scenario, NAME);
        with(|world| {
            let ino = world.kernel.at(&path)?;
            let turn = world.turn_of(ino);
            (!turn.is_retired()).then_some((ino, turn.0))
        })
    }

    /// Somebody who may read the file holds shared locks on it, for a while.
    pub(super) fn hold(&mut self) {
        let path = path_of(&self.scenario, NAME);
        for _ in 0..self.plan.ops.min(4) {
            self.pause();
            step(Call::Outside);
            let from = self.random.below(12);
            let bytes = from..from + 1 + self.random.below(8);
            let fd = with(|world| {
                let who = world.who();
                let fd = world.kernel.open(who, &path, false).ok().flatten()?;
                let _ = world.kernel.try_lock(who, fd, bytes, true);
                Some(fd)
            });
            let pause = Duration::from_micros(self.random.below(20_000));
            sleep(pause);
            if let Some(fd) = fd {
                with(|world| {
                    let _ = world.kernel.close(world.who(), fd);
                });
            }
        }
    }

    /// A stranger makes the bus first, open to everybody, and waits for who comes.
    pub(super) fn lure(&mut self) {
        for _ in 0..self.plan.ops.min(3) {
            let mut options = creating(&self.scenario, NAME, Role::Master);
            options.mode(0o666).background(false);
            let bus = options.open();
            for _ in 0..4 {
                self.pause();
            }
            // Left as it is, or taken away.
            match bus {
                Ok(bus) if self.random.once_in(2) => drop(bus.leave()),
                Ok(bus) => std::mem::forget(bus),
                Err(_) => {}
            }
        }
    }
}
