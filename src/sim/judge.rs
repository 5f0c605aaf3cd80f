//! Whether what somebody was told is explained by what happened.

use super::actors::{Player, accuse};
use super::scenario::Part;
use super::world::with;
use crate::Error;

impl Player {
    // --- judging errors -----------------------------------------------------------------------

    pub(super) fn was_refused(&self) -> bool {
        with(|world| {
            let process = world.who().process;
            world.is_short || world.actor_mut(process).is_some_and(|actor| actor.refused > 0)
        })
    }

    pub(super) fn judge_open(&self, error: &Error) {
        match error {
            Error::RoleTaken { .. } | Error::Timeout => {}
            Error::NotFound { .. } if !matches!(self.plan.part, Part::Master) => {}
            _ => self.judge(error, "opening", None),
        }
    }

    /// Whether the situation explains the error.
    pub(super) fn judge(&self, error: &Error, during: &str, since_ns: Option<u64>) {
        let scenario = &self.scenario;
        let is_explained = match error {
            error if error.is_wait() => true,
            Error::PeerDead { .. } => !self.is_peer_known(),
            Error::PeerHung { .. } => true,
            Error::Fenced { .. } => since_ns.is_none_or(|since| self.deserved_fence(since)),
            // Fenced, and the bus was removed before it knew.
            Error::Lost { .. } => {
                let is_fenced = since_ns.is_some_and(|since| self.deserved_fence(since));
                // A bus without a name goes on as long as both are there.
                scenario.can_lose() && (scenario.has_force() || !self.is_peer_known())
                    || self.was_closed()
                    || is_fenced
            }
            Error::Os { .. } => {
                self.was_refused() || self.was_closed() || scenario.has(|part| part == Part::Holder)
            }
            Error::Access { .. } => scenario.has_foreign() || self.was_refused(),
            Error::Foreign { .. } => scenario.has_foreign(),
            Error::Corrupt { .. } | Error::Layout { .. } => scenario.has_vandal(),
            _ => false,
        };
        if !is_explained && !scenario.has_vandal() {
            accuse(format!("{during}: {error}"));
        }
    }

    pub(super) fn was_closed(&self) -> bool {
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
        let stale_ns = self.scenario.stale_ms.max(10 * self.plan.beat_ms) * 1_000_000;
        with(|world| {
            let process = world.who().process;
            let now = world.now_ns;
            world.actor_mut(process).is_none_or(|actor| {
                let silent = actor.longest_silence(since_ns, now);
                silent + 3_000_000 >= stale_ns
            })
        })
    }

    /// Whether this member's peer was there all the time.
    fn is_peer_known(&self) -> bool {
        with(|world| {
            let process = world.who().process;
            let mine = world.seated.iter().rfind(|it| it.process == process);
            mine.is_some_and(|it| {
                let (ino, role) = (it.ino, it.role);
                world.is_peer_known(ino, role)
            })
        })
    }
}
