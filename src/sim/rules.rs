//! What must be true beside the ledger: of a file that loses its name, of errors, of the heart.
//!
//! Most of it is a question of whether the situation explains what somebody was told; where the
//! schedule did something that explains everything, nothing is asked.

use std::mem::offset_of;
use std::path::Path;

use super::kernel::{Ino, Inode, ProcessId};
use super::schedule::Event;
use super::world::{Key, World, with};
use crate::config::Direction;
use crate::layout::{
    Header, REGISTERED, ROLE_ABSENT, ROLE_LEFT, RoleLines, SlotPage, Turn, WISH_ALWAYS, WISH_NEVER,
};
use crate::ring::FENCE;
use crate::sync::Ordering;
use crate::{Endpoint, Error, Role};

/// A role that somebody was told to have.
pub(super) struct Seated {
    pub ino: Ino,
    pub role: Role,
    pub process: ProcessId,
    pub since_ns: u64,
}

/// How often a file was opened by members, and how often it was left without an error.
#[derive(Default, Clone, Copy)]
pub(super) struct Visits {
    pub opened: u32,
    pub left: u32,
}

/// The thread that beats waits for nobody, except for a moment.
const LONGEST_WAIT_OF_A_HEART_NS: u64 = 5_000_000;
/// A peer that is there for so long is known to be there.
const KNOWN_AFTER_NS: u64 = 60_000_000;

impl World {
    /// Whether the schedule so far has done nothing but to choose who runs.
    pub fn is_undisturbed(&self) -> bool {
        let is_harmless =
            |event| matches!(event, Event::Switch(_) | Event::Spurious(_) | Event::Doze(_));
        self.chooser.choices.iter().all(|choice| is_harmless(choice.event))
    }

    fn word(&self, ino: Ino, off: u64) -> u64 {
        let bytes = self.kernel.peek(ino, off, 8);
        bytes.try_into().map_or(0, u64::from_le_bytes)
    }

    fn half_word(&self, ino: Ino, off: u64) -> u32 {
        let bytes = self.kernel.peek(ino, off, 4);
        bytes.try_into().map_or(0, u32::from_le_bytes)
    }

    /// Which slot of a file counts.
    pub fn turn_of(&self, ino: Ino) -> Turn {
        Turn(self.word(ino, offset_of!(Header, turn) as u64))
    }

    /// Where the slot of a turn begins.
    fn slot_off(&self, ino: Ino, turn: Turn) -> Option<u64> {
        let first = self.word(ino, offset_of!(Header, slots_off) as u64);
        let stride = self.word(ino, offset_of!(Header, slot_stride) as u64);
        Some(first + turn.slot()? as u64 * stride)
    }

    /// Whether anybody who was told to be a member has mapped the slot of this turn.
    fn has_members(&self, ino: Ino, turn: Turn) -> bool {
        let off = self.slot_off(ino, turn);
        self.seated.iter().any(|it| {
            let maps = &self.kernel.processes[it.process].maps;
            it.ino == ino && maps.iter().any(|map| map.ino == ino && Some(map.off) == off)
        })
    }

    /// State and wish of both roles in the slot of a turn.
    fn roles(&self, ino: Ino, turn: Turn) -> Option<[(u32, u32); 2]> {
        let off = self.slot_off(ino, turn)?;
        Some([0, 1].map(|role| {
            let lines = off + (offset_of!(SlotPage, roles) + role * size_of::<RoleLines>()) as u64;
            let field = |at: usize| self.half_word(ino, lines + at as u64);
            (field(offset_of!(RoleLines, state)), field(offset_of!(RoleLines, wish)))
        }))
    }

    /// The library is about to take the name of a file away.
    pub fn check_removal(&mut self, process: ProcessId, path: &Path) {
        let Some(ino) = self.kernel.at(path) else { return };
        let is_foreign =
            self.kernel.inodes[ino].is_foreign || self.kernel.processes[process].is_foreign;
        if is_foreign || self.is_lenient || self.kernel.inodes[ino].links > 1 {
            return;
        }
        if self.turn_of(ino).is_retired() {
            return;
        }
        // Between the remover's look at the turn and its unlink somebody may swap the turn back. Who
        // revives looks at the name after the swap, finds none, and goes away: so the file may go too,
        // as long as nobody was told to be in it since, and nobody is told so later.
        let revived = self.revived.get(&ino).copied();
        let is_in_it = |it: &Seated| it.ino == ino && revived.is_none_or(|at| it.since_ns >= at);
        if revived.is_none() || self.seated.iter().any(is_in_it) {
            self.fail(format!("file {ino}, a living bus, is unlinked"));
        }
        self.abandoned.push(ino);
    }

    /// A word is about to be stored: is it a turn?
    pub fn note_swap(&mut self, (buffer, off): (usize, u64), is_store: bool) {
        if is_store && off == offset_of!(Header, turn) as u64 {
            let of = |inode: &Inode| inode.buffer == Some(buffer) && !inode.is_foreign;
            let ino = self.kernel.inodes.iter().position(of);
            let process = self.who().process;
            self.swapped = ino.map(|ino| (ino, self.turn_of(ino), process));
        }
    }

    /// The turn of a file was just swapped: if it was retired, was that right?
    pub fn check_turn(&mut self) {
        let Some((ino, before, process)) = self.swapped.take() else { return };
        if before.is_retired() && !self.turn_of(ino).is_retired() {
            self.revived.insert(ino, self.now_ns);
        }
        // A file in the making has no slot yet.
        if self.is_lenient || before.is_retired() || before.generation() == 0 {
            return;
        }
        if !self.turn_of(ino).is_retired() {
            return;
        }
        if self.ledger.is_excused(ino) {
            return;
        }
        let roles = self.roles(ino, before);
        // Who collects asks nobody what it wished, only whether it is gone, and all is read.
        let collects = self.actor_mut(process).is_some_and(|actor| actor.collects);
        if collects && self.has_members(ino, before) {
            return self.fail(format!("file {ino} is collected, and somebody is there"));
        }
        if let Some(roles) = roles.filter(|_| !collects) {
            let has_left = |(state, _): &(u32, u32)| matches!(*state, ROLE_ABSENT | ROLE_LEFT);
            let wants_it = |(state, wish): &(u32, u32)| *state == ROLE_LEFT && *wish == WISH_NEVER;
            if !roles.iter().all(has_left) {
                return self
                    .fail(format!("file {ino} is removed, and not both have left: {roles:?}"));
            }
            if roles.iter().any(wants_it) {
                return self
                    .fail(format!("file {ino} is removed, and one wished it to stay: {roles:?}"));
            }
            let all = |(state, wish): &(u32, u32)| *state == ROLE_ABSENT || *wish == WISH_ALWAYS;
            if roles.iter().all(all) {
                return self.ledger.excuse(ino);
            }
        }
        if let Some(unread) = self.ledger.unread(ino) {
            self.fail(format!("file {ino} is removed, and unread is {unread}"));
        }
    }

    /// A bus that somebody moved aside by mistake, and was refused to move back, lies there with all
    /// that is in it; its members bring it back, but there may be none.
    pub fn excuse_aside(&mut self, directory: &str) {
        let directory = Path::new(directory);
        let names = self.kernel.list(super::world::HARNESS, directory).unwrap_or_default();
        for name in names.iter().filter(|name| name.contains('~') && self.is_short) {
            if let Some(ino) = self.kernel.at(&directory.join(name)) {
                self.ledger.excuse(ino);
            }
        }
    }

    // --- who is there -------------------------------------------------------------------------

    pub fn sit(&mut self, ino: Ino, role: Role) {
        let (process, since_ns) = (self.who().process, self.now_ns);
        if self.abandoned.contains(&ino) {
            self.fail(format!("is the {role} of file {ino}, which was unlinked as it was revived"));
        }
        self.seated.push(Seated { ino, role, process, since_ns });
        self.visits.entry(ino).or_default().opened += 1;
    }

    pub fn stand_up(&mut self, ino: Ino, role: Role, has_left: bool) {
        let process = self.who().process;
        self.seated.retain(|it| (it.ino, it.role, it.process) != (ino, role, process));
        self.visits.entry(ino).or_default().left += u32::from(has_left);
    }

    /// Whether the peer of a role was there all the time, and cannot be missed.
    pub fn is_peer_known(&self, ino: Ino, role: Role) -> bool {
        let last = self.seated.iter().rfind(|it| it.ino == ino && it.role == role.peer());
        self.is_undisturbed()
            && last.is_some_and(|it| {
                let is_there =
                    self.kernel.processes[it.process].maps.iter().any(|map| map.ino == ino);
                is_there && self.now_ns - it.since_ns > KNOWN_AFTER_NS
            })
    }

    /// All who ever came to the file have left it, and nothing that happened explains why it should
    /// still be there.
    pub fn must_be_gone(&self, ino: Ino) -> bool {
        let visits = self.visits.get(&ino).copied().unwrap_or_default();
        self.is_undisturbed()
            && !self.is_short
            && visits.opened > 0
            && visits.left == visits.opened
            && self.ledger.unread(ino).is_none()
            && !self.ledger.has_passed(ino)
    }

    /// A thread has waited for a mutex since then, in its process's own time: however long others run
    /// on this one processor while whoever holds the mutex could, that is not for the library to say.
    pub fn check_heart(&mut self, key: Key, since_ns: u64) {
        let waited = self.own_time_ns() - since_ns;
        if key.thread > 0 && waited > LONGEST_WAIT_OF_A_HEART_NS && self.is_undisturbed() {
            self.fail(format!("{key}: the heart waited for a mutex for {} us", waited / 1000));
        }
    }
}

/// An owner that no barrier reaches asks its peer's calls, and its own, for a fence.
pub(super) fn check_fences(endpoint: &Endpoint) {
    let member = endpoint.member();
    let Some(segment) = member.segment() else { return };
    let lines = segment.role(member.role);
    let pid = with(|world| world.kernel.processes[world.who().process].pid);
    let is_other = lines.pid.quietly().load(Ordering::SeqCst) != pid;
    // Truncated pages are zeros.
    let is_lenient = with(|world| world.is_lenient);
    if is_lenient
        || is_other
        || lines.capabilities.quietly().load(Ordering::SeqCst) & REGISTERED != 0
    {
        return;
    }
    let own = Direction::BOTH.map(|direction| segment.ring(direction));
    let (out, back) = match member.role {
        Role::Slave => (own[1], own[0]),
        Role::Master | Role::Auto => (own[0], own[1]),
    };
    for bell in [out.data_bell(), back.room_bell()] {
        let rung = bell.0.quietly().load(Ordering::SeqCst);
        if rung & FENCE == 0 && !segment.is_doomed() {
            with(|world| {
                world.fail(format!("no barrier reaches, and nobody is asked for a fence: {rung:x}"))
            });
        }
    }
}

/// Whether a call that waits may say this.
pub(super) fn is_answer_of_waiting(error: &Error) -> bool {
    !matches!(error, Error::Full | Error::Empty)
}
