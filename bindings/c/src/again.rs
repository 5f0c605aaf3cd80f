//! Going on with a bus that was made anew: what a handle of ESHM 1.0 promises, and no other does.
//!
//! A handle of eshm never moves to another file: when its bus was removed, or lost its name and its
//! peer, it is told [`Error::Lost`], and opening again is up to the program. In ESHM 1.0 "when a master
//! is back, reading goes on by itself". So a handle of `eshm_init` keeps what it was opened with, and
//! its calls are in the one loop here:
//!
//! ```text
//!   call -> Lost -> time to look? -> open again -> call
//!                     | no              | no
//!                     +-- as for a master that died: nothing there, until the limits are reached
//! ```
//!
//! It opens in the role that it got, and takes that from nobody who answers: who made the bus anew in
//! the same role has deposed this handle, as [`Error::Fenced`] would have said; after that there is no
//! going on either. The old end is left when the new one is there; until then its figures are shown.

use std::time::{Duration, Instant};

use eshm::{Disconnect, Endpoint, Error, Options, Role, Takeover};

use crate::bus::{ESHMHandle, Open};
use crate::fault::Fault;
use crate::open::connect;
use crate::seat::{Awaited, FOREVER, SLICE};

/// How long a bus that is lost is looked for, and how often.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    /// What a slave is told meanwhile. A master that has no slave waits for one anyway.
    pub behaviour: Disconnect,
    /// The least time between two looks.
    pub interval: Duration,
    /// After how many looks it is given up; 0 for never.
    pub attempts: u32,
    /// After what time it is given up; 0 for never.
    pub wait: Duration,
}

/// What a handle of ESHM 1.0 needs to open its bus again.
pub struct Again {
    options: Options,
    role: Role,
    search: Search,
    away: Option<Away>,
    /// Who has the role now.
    deposed: Option<Error>,
}

/// Without a bus.
#[derive(Debug, Clone, Copy)]
struct Away {
    since: Instant,
    looks: u32,
    next: Instant,
}

/// What came of looking for the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There is one again: make the call.
    Opened,
    /// Not yet; the next look is due then.
    NotYet(Instant),
    /// Not yet, and the program is to be told.
    GivenUp(Role),
}

impl Again {
    /// For a handle that got this role with these options.
    #[must_use]
    pub fn new(options: &Options, role: Role, search: Search) -> Again {
        let mut options = options.clone();
        options.role(role).takeover(Takeover::Hung);
        Again { options, role, search, away: None, deposed: None }
    }

    /// Opens the bus again, if it is time to try. Somebody else in the role ends the search.
    pub fn look(&mut self, now: Instant) -> Result<Option<Endpoint>, Fault> {
        if let Some(error) = &self.deposed {
            return Err(Fault::Eshm(error.clone()));
        }
        if !self.is_due(now) {
            return Ok(None);
        }
        match connect(&self.options) {
            Ok(endpoint) => {
                self.away = None;
                Ok(Some(endpoint))
            }
            Err(error @ Error::RoleTaken { .. }) => {
                self.deposed = Some(error.clone());
                Err(Fault::Eshm(error))
            }
            // Not there, being made, of another shape, for another user: it may become right.
            Err(_) => Ok(None),
        }
    }

    /// Counts a look, if it is time for one.
    fn is_due(&mut self, now: Instant) -> bool {
        let away = self.away.get_or_insert(Away { since: now, looks: 0, next: now });
        let is_due = now >= away.next;
        if is_due {
            away.looks = away.looks.saturating_add(1);
            away.next = now + self.search.interval;
        }
        is_due
    }

    /// What to tell a call while there is no bus.
    #[must_use]
    pub fn outcome(&self, now: Instant) -> Outcome {
        let Some(away) = self.away else { return Outcome::NotYet(now) };
        let Search { behaviour, attempts, wait, .. } = self.search;
        let is_over = (attempts > 0 && away.looks > attempts)
            || (!wait.is_zero() && now.saturating_duration_since(away.since) >= wait);
        let gives_up = self.role == Role::Slave
            && match behaviour {
                Disconnect::Immediately => true,
                Disconnect::OnTimeout => is_over,
                Disconnect::Never => false,
            };
        if gives_up { Outcome::GivenUp(self.role.peer()) } else { Outcome::NotYet(away.next) }
    }
}

/// Makes a call that takes so long at most, again and again as long as its bus is lost. What the call
/// is given is the handle, looked up, and the time that is left.
pub fn going_on<V: Awaited, T>(
    handle: *const ESHMHandle,
    timeout_ms: u32,
    mut call: impl FnMut(&Open, u32) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let open = Open::find(handle)?;
    let end = match timeout_ms {
        0 | FOREVER => None,
        _ => Some(Instant::now() + Duration::from_millis(timeout_ms.into())),
    };
    let mut rest_ms = timeout_ms;
    loop {
        // Before the call: a bus opened by another thread meanwhile is not to be opened once more.
        let life = open.life();
        let fault = match call(&open, rest_ms) {
            Err(fault @ Fault::Eshm(Error::Lost { .. })) => fault,
            done => return done,
        };
        let next = match open.open_again(life, fault)? {
            Outcome::Opened => None,
            Outcome::NotYet(next) => Some(next),
            Outcome::GivenUp(role) => {
                return Err(Error::PeerDead { role, pid: 0, is_foreign: false }.into());
            }
        };
        let now = Instant::now();
        if let Some(end) = end {
            // Rounded up, so that a call that waits is not made one that does not.
            let rest = end.saturating_duration_since(now).as_nanos().div_ceil(1_000_000);
            rest_ms = u32::try_from(rest).unwrap_or(FOREVER - 1);
        }
        let Some(next) = next else { continue };
        if timeout_ms == 0 {
            return Err(V::NOTHING.into());
        }
        if rest_ms == 0 {
            return Err(Error::Timeout.into());
        }
        // Holds nothing, and looks in between whether the handle is still open.
        let until = end.map_or(next, |end| end.min(next));
        std::thread::sleep(until.saturating_duration_since(now).clamp(LEAST, SLICE));
    }
}

/// The least pause of a call that waits for a bus.
const LEAST: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn again(role: Role, behaviour: Disconnect, attempts: u32, wait_ms: u64) -> Again {
        let search = Search {
            behaviour,
            interval: Duration::from_millis(100),
            attempts,
            wait: Duration::from_millis(wait_ms),
        };
        Again::new(&Options::new("nowhere"), role, search)
    }

    /// Asks every 10 ms: how often it looked, and after how many milliseconds it gave up.
    fn asked(mut again: Again) -> (u32, Option<u64>) {
        let start = Instant::now();
        for at in (0..10_000).step_by(10) {
            let now = start + Duration::from_millis(at);
            again.is_due(now);
            if let Outcome::GivenUp(role) = again.outcome(now) {
                assert_eq!(role, Role::Master);
                return (again.away.expect("it is away").looks, Some(at));
            }
        }
        (again.away.expect("it is away").looks, None)
    }

    #[test]
    fn it_looks_once_per_interval_and_gives_up_as_asked() {
        use Disconnect::{Immediately, Never, OnTimeout};
        assert_eq!(asked(again(Role::Slave, OnTimeout, 5, 0)), (6, Some(500)));
        assert_eq!(asked(again(Role::Slave, OnTimeout, 0, 250)), (3, Some(250)));
        assert_eq!(asked(again(Role::Slave, OnTimeout, 0, 0)), (100, None));
        assert_eq!(asked(again(Role::Slave, Immediately, 5, 250)), (1, Some(0)));
        assert_eq!(asked(again(Role::Slave, Never, 5, 250)), (100, None));
        assert_eq!(asked(again(Role::Master, Immediately, 5, 250)), (100, None));
    }

    #[test]
    fn it_goes_on_looking_after_it_gave_up() {
        let mut again = again(Role::Slave, Disconnect::Immediately, 1, 1);
        let start = Instant::now();
        assert!(again.is_due(start) && !again.is_due(start));
        assert!(again.is_due(start + Duration::from_secs(60)));
    }
}
