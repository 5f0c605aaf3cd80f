//! The rooms of `sys`, simulated: the same names and signatures, and no Linux behind them.
//!
//! Each call is a step first; then it asks the kernel in memory. What it answers must be what the
//! real room answers, down to which errors are answers: `tests/kernel.rs` compares them.

pub(crate) mod barrier;
pub(crate) mod clock;
pub(crate) mod futex;
pub(crate) mod lock;
pub(crate) mod map;
pub(crate) mod poll;
pub(crate) mod process;
pub(crate) mod shm;
pub(crate) mod thread;

use std::fmt::Display;

use super::calls::Call;
use super::kernel::Answer;
use super::world::step_with;
use crate::error::{Error, Result};

/// The error for `operation`, applied to `object`, failing with the number `errno`.
pub(crate) fn os_error(operation: &'static str, object: impl Display, errno: i32) -> Error {
    Error::Os { operation, object: object.to_string(), errno }
}

/// A step, and then what the kernel says.
fn ask<T>(
    call: Call,
    operation: &'static str,
    object: impl Display,
    answer: impl FnOnce() -> Answer<T>,
) -> Result<T> {
    match step_with(call, || object.to_string()) {
        Some(errno) => Err(os_error(operation, object, errno)),
        None => answer().map_err(|errno| os_error(operation, object, errno)),
    }
}

pub(crate) mod cores {
    //! How many cores the machine has.

    /// One, in most schedules: spinning makes many steps and finds little.
    pub(crate) fn online() -> usize {
        if super::super::world::is_inside() {
            super::super::world::with(|world| world.cores)
        } else {
            1
        }
    }
}

pub(crate) mod failpoint {
    //! Points with names; here only steps.

    use crate::error::Result;

    pub(crate) fn hit(point: &'static str) -> Result<()> {
        super::step_with(super::Call::Failpoint, || point.to_owned());
        Ok(())
    }
}

pub(crate) mod fork {
    //! In which process something was made.

    use super::super::kernel::ProcessId;
    use super::super::world::{is_inside, with};

    /// The process in which something was made.
    #[derive(Clone, Copy)]
    pub(crate) struct Birth(ProcessId);

    fn here() -> ProcessId {
        if is_inside() { with(|world| world.who().process) } else { 0 }
    }

    impl Birth {
        pub(crate) fn now() -> Birth {
            Birth(here())
        }

        #[inline]
        pub(crate) fn is_here(&self) -> bool {
            self.0 == here()
        }
    }

    /// Keeps the process from forking; here forks come only at steps, and closing is not one.
    #[allow(dead_code)]
    pub(crate) struct Hold;

    #[allow(dead_code)]
    pub(crate) fn hold() -> Hold {
        Hold
    }
}

pub(crate) mod sigbus {
    //! A truncated file under a mapping.

    use super::super::calls::Call;
    use super::super::kernel::{ProcessId, place_of};
    use super::super::world::{step, with};

    pub(crate) struct Guard {
        process: ProcessId,
        buffer: usize,
        off: u64,
    }

    /// Watches over a mapping.
    pub(crate) fn guard(start: *const u8, _len: usize) -> Guard {
        step(Call::Guard);
        let (buffer, off) = place_of(start.addr()).expect("a mapping to guard");
        let guard = Guard { process: with(|world| world.who().process), buffer, off };
        guard.set(Some(false));
        guard
    }

    impl Guard {
        /// Whether a page of the range was missing.
        pub(crate) fn hit(&self) -> bool {
            with(|world| {
                let map = world.kernel.map_at(self.process, self.buffer, self.off);
                map.is_some_and(|map| map.guard == Some(true))
            })
        }

        fn set(&self, guard: Option<bool>) {
            with(|world| {
                let map = world.kernel.map_at(self.process, self.buffer, self.off);
                if let Some(map) = map {
                    map.guard = guard;
                }
            });
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            self.set(None);
        }
    }
}
