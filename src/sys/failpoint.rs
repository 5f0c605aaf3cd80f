//! Named points at which a test makes the process die, stop, or be refused by the system.
//!
//! Without the feature `failpoints` every point is nothing at all. With it the environment variable
//! `ESHM_FAILPOINTS` says what happens where, `point=action` with `;` between them:
//!
//! | action | what happens |
//! |---|---|
//! | `kill` | SIGKILL |
//! | `abort` | SIGABRT |
//! | `stop` | SIGSTOP; continued, it goes on as if nothing had been |
//! | a number | the step fails with this `errno` |
//!
//! Each point acts once per process, so that whoever tries again gets further.

use crate::error::Result;

/// The process is at this point now.
#[inline(always)]
pub(crate) fn hit(point: &'static str) -> Result<()> {
    #[cfg(feature = "failpoints")]
    armed::act(point)?;
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
    Ok(())
}

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::{Mutex, PoisonError};

    use nix::sys::signal::{Signal, raise};

    use super::Result;
    use crate::sys::os_error;

    const VARIABLE: &str = "ESHM_FAILPOINTS";

    /// Points that have acted.
    static DONE: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());

    pub(super) fn act(point: &'static str) -> Result<()> {
        let Ok(wishes) = std::env::var(VARIABLE) else { return Ok(()) };
        let wish = wishes.split(';').find_map(|wish| wish.strip_prefix(point)?.strip_prefix('='));
        let Some(action) = wish else { return Ok(()) };
        let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
        if done.contains(&point) {
            return Ok(());
        }
        done.push(point);
        drop(done);
        let signal = match action {
            "kill" => Signal::SIGKILL,
            "stop" => Signal::SIGSTOP,
            "abort" => Signal::SIGABRT,
            number => {
                let errno = number.parse().unwrap_or_else(|_| panic!("{VARIABLE}: {number}"));
                return Err(os_error("failpoint", point, errno));
            }
        };
        raise(signal).map_err(|errno| os_error("raise", point, errno as i32))
    }
}
