//! The atomics that shared memory is made of: the standard library's, or a model checker's.
//!
//! Built with `--cfg loom`, the ring runs over loom's atomics and explores every interleaving that
//! the C11 memory model allows; nothing else in the library knows. The frames differ too: real ones
//! are bytes in a mapping ([`memory`]), modelled ones are cells that notice a race ([`model`]).
//!
//! This file must never change an ordering: both builds see what the caller wrote.

#[cfg(not(loom))]
mod memory;
#[cfg(loom)]
pub(crate) mod model;
#[cfg(not(any(loom, eshm_sim)))]
mod mutex;
#[cfg(eshm_sim)]
mod simulated;

#[cfg(not(loom))]
pub(crate) use memory::{Frame, Frames};
#[cfg(loom)]
pub(crate) use model::{Frame, Frames};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(not(any(loom, eshm_sim)))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{Ordering, fence};

#[cfg(not(any(loom, eshm_sim)))]
pub(crate) use mutex::{Mutex, MutexGuard};
#[cfg(eshm_sim)]
pub(crate) use simulated::{AtomicU32, AtomicU64, Mutex, MutexGuard};

/// Whether shared types have the sizes that the layout asserts; a model checker's atomics do not.
pub(crate) const REAL: bool = cfg!(not(loom));

/// Payload bytes in the cache line of a frame's header. A reader that waits for the commit word holds
/// that line, so it is taken from it once, for all that lies in it, when the rest is written.
pub(crate) const FIRST_LINE: usize = 48;

/// The cheap half of the asymmetric barrier: holds back the compiler, not the processor. Whoever
/// runs the other half ([`crate::sys::barrier::heavy`]) makes every running processor of the
/// registered processes execute a full fence.
#[inline(always)]
pub(crate) fn light_barrier() {
    // Loom has no processors to interrupt, so the model runs the pair as two full fences.
    #[cfg(loom)]
    model::light_barrier();
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(Ordering::SeqCst);
}
