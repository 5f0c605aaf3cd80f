//! The atomics that shared memory is made of: the standard library's, or a model checker's.
//!
//! Built with `--cfg loom`, the ring runs over loom's atomics and explores every interleaving that
//! the C11 memory model allows; nothing else in the library knows. The frames differ too: real ones
//! are bytes in a mapping ([`memory`]), modelled ones are cells that notice a race ([`model`]).
//!
//! What threads of one process share is here as well: [`Mutex`] and [`Arc`].
//!
//! This file must never change an ordering: both builds see what the caller wrote.

#[cfg(not(loom))]
mod memory;
#[cfg(loom)]
pub(crate) mod model;
#[cfg(eshm_sim)]
mod simulated;

#[cfg(not(loom))]
pub(crate) use memory::{Frame, Frames};
#[cfg(loom)]
pub(crate) use model::{Frame, Frames};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
#[cfg(eshm_sim)]
pub(crate) use simulated::{AtomicU32, AtomicU64, Mutex};
#[cfg(not(eshm_sim))]
pub(crate) use std::sync::MutexGuard;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, Ordering, fence};
#[cfg(not(any(loom, eshm_sim)))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64};

/// Whether shared types have the sizes that the layout asserts; a model checker's atomics do not.
pub(crate) const REAL: bool = cfg!(not(loom));

/// Payload bytes in the cache line of a frame's header. A reader that waits for the commit word holds
/// that line, so it is taken from it once, for all that lies in it, when the rest is written.
pub(crate) const FIRST_LINE: usize = 56;

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

/// A lock that a panic does not spoil: what it guards must be whole between any two statements.
#[cfg(not(eshm_sim))]
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

#[cfg(not(eshm_sim))]
impl<T> Mutex<T> {
    /// An open lock around `value`.
    pub(crate) const fn new(value: T) -> Self {
        Mutex(std::sync::Mutex::new(value))
    }

    /// Waits until nobody else has it.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes it only if nobody has it now.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(spoiled)) => Some(spoiled.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(all(test, not(any(loom, eshm_sim))))]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_spoil_the_lock() {
        let value = Mutex::new(1);
        let panicked = std::thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let _guard = value.lock();
                std::panic::resume_unwind(Box::new(()));
            });
            holder.join()
        });
        assert!(panicked.is_err());
        *value.lock() += 1;
        assert_eq!(value.try_lock().as_deref(), Some(&2));
        let _held = value.lock();
        assert!(value.try_lock().is_none());
    }
}
