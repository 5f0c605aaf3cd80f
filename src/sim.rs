//! A simulated kernel under the session: `--cfg eshm_sim`.
//!
//! Everything outside `sys` and `sync` is the code that ships. Beneath it is no Linux but a kernel in
//! memory ([`kernel`]), on which two to six actors run as processes of one or more threads, one step
//! at a time ([`world`]): a step is a call into `sys`, or an access to a word of shared memory other
//! than those of the frames. At each step the schedule may let another one go on, kill, stop, or
//! refuse ([`schedule`]), as drawn from a seed; so whatever goes wrong goes wrong again, step by step.
//!
//! ```text
//!   actors     masters, slaves, stand-bys, taps, `rm`, `ls`, a foreigner    actors.rs
//!   ledger     what was told committed, what was read                       ledger.rs
//!   eshm       bus, session, census, pulse, ring                            the code under test
//!   sys        the same names as ever                                       sys.rs
//!   world      tasks and the baton; schedule.rs: the choices                world.rs
//!   kernel     files, descriptors, locks, mappings, processes               kernel.rs
//! ```
//!
//! That the kernel in memory answers as the real one does is a test of its own: compare.rs.
//!
//! What it does not explore: weaker orderings than sequential consistency (loom does), and what
//! happens between two instructions of the ring (the step proofs do).
//!
//! Run it by `tools/simulate`. Read next: `world.rs`.

mod actors;
mod calls;
mod command;
#[cfg(not(test))]
mod compare;
mod events;
mod heap;
mod judge;
mod kernel;
mod ledger;
#[cfg(not(test))]
mod linux;
mod others;
mod play;
mod random;
mod rules;
mod scenario;
mod schedule;
pub(crate) mod sys;
mod world;

use std::cell::RefCell;

pub use command::main;
#[cfg(not(test))]
pub use compare::{Outside, Stage, Strange, compare};
pub(crate) use world::{Reach, word_step};

/// A mutex is about to be taken.
pub(crate) fn mutex_step() {
    world::step(calls::Call::Mutex);
}

/// Waits until it may be free. False if that will never be, because the schedule is over.
pub(crate) fn mutex_contended(address: usize) -> bool {
    let since_ns = world::with(|world| world.own_time_ns());
    world::wait(world::On::Mutex(address), u64::MAX);
    world::with(|world| {
        if let Some(key) = world.key() {
            world.check_heart(key, since_ns);
        }
        world.failure.is_none()
    })
}

/// It was given back.
pub(crate) fn mutex_freed(address: usize) {
    if world::is_inside() {
        world::with(|world| world.wake(world::On::Mutex(address), 1));
    }
}

thread_local! {
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what a panic says, in place of printing it.
fn catch_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.to_string();
        // The simulation's own mistake.
        if !world::is_inside() || world::with(|world| world.key().is_none()) {
            eprintln!("{text}");
        }
        heap::outside(|| PANIC.with(|kept| *kept.borrow_mut() = text.as_str().to_owned()));
    }));
}

fn take_panic() -> String {
    PANIC.with(|kept| kept.borrow().clone())
}
