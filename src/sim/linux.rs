//! The real rooms of `sys` beside the simulated ones, for [`compare`](super::compare).
#![allow(dead_code)]

#[path = "../sys/fork.rs"]
pub(crate) mod fork;
#[path = "../sys/futex.rs"]
pub(crate) mod futex;
#[path = "../sys/lock.rs"]
pub(crate) mod lock;
#[path = "../sys/map.rs"]
pub(crate) mod map;
#[path = "../sys/shm.rs"]
pub(crate) mod shm;

use nix::errno::Errno;

use super::sys::os_error;

/// Calls until a signal does not come between.
fn repeat<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}
