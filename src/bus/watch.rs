//! A view of an open endpoint for threads that neither write nor read.
#![forbid(unsafe_code)]

use std::sync::Arc;

use crate::census;
use crate::config::Role;
use crate::session::Member;
use crate::stats::{Peer, Stats};

/// Tells of a bus from any thread, without getting in the way of its halves. It does not keep the
/// endpoint open: after that has left, the peer is absent and all figures are zero.
#[derive(Clone)]
pub struct Watch {
    member: Arc<Member>,
}

impl Watch {
    pub(super) fn new(member: Arc<Member>) -> Self {
        Watch { member }
    }

    /// Whether the endpoint is open, in this very process.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.member.is_home() && !self.member.has_left()
    }

    /// The name of the bus.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.member.options.name
    }

    /// Master or slave.
    #[must_use]
    pub fn role(&self) -> Role {
        self.member.role
    }

    /// The peer, as known now.
    #[must_use]
    pub fn peer(&self) -> Peer {
        if self.is_open() { self.member.peer() } else { Peer::default() }
    }

    /// A snapshot of all figures.
    #[must_use]
    pub fn stats(&self) -> Stats {
        if self.is_open() { census::stats_of(&self.member) } else { Stats::default() }
    }

    /// One heartbeat by hand.
    pub fn beat(&self) {
        if self.is_open() {
            self.member.beat();
            self.member.observe_if_due();
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("name", &self.name()).finish_non_exhaustive()
    }
}
