//! Atomics and locks that hand over the baton: see `src/sim.rs`.
//!
//! An access to a word that lies in a simulated file is a step, so that somebody else may go first;
//! any other word is private, and nobody meets it but at steps. All accesses are as strong as can be:
//! what weaker ones allow is explored elsewhere, with loom.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic;

use super::Ordering;
use crate::sim::{Reach, mutex_contended, mutex_freed, mutex_step, word_step};

macro_rules! simulated {
    ($name:ident, $value:ty) => {
        /// A word, perhaps of a simulated file.
        #[derive(Default)]
        #[repr(transparent)]
        pub(crate) struct $name(atomic::$name);

        #[allow(dead_code)]
        impl $name {
            pub(crate) const fn new(value: $value) -> Self {
                $name(atomic::$name::new(value))
            }

            /// # Safety
            /// As for the standard one.
            pub(crate) unsafe fn from_ptr<'a>(pointer: *mut $value) -> &'a Self {
                // SAFETY: the same representation; the caller's promise is passed on.
                unsafe { &*pointer.cast() }
            }

            pub(crate) fn as_ptr(&self) -> *mut $value {
                self.0.as_ptr()
            }

            /// The word without any step.
            pub(crate) fn quietly(&self) -> &atomic::$name {
                &self.0
            }

            /// The word, after a step. Where a guard has put zeros, a word of zeros.
            #[inline]
            fn reach<T>(&self, is_store: bool, then: impl FnOnce(&atomic::$name) -> T) -> T {
                match word_step(std::ptr::from_ref(self).addr(), is_store) {
                    Reach::There => then(&self.0),
                    Reach::Zeros => then(&atomic::$name::new(0)),
                }
            }

            #[inline]
            pub(crate) fn load(&self, _: Ordering) -> $value {
                self.reach(false, |word| word.load(Ordering::SeqCst))
            }

            #[inline]
            pub(crate) fn store(&self, value: $value, _: Ordering) {
                self.reach(true, |word| word.store(value, Ordering::SeqCst));
            }

            pub(crate) fn swap(&self, value: $value, _: Ordering) -> $value {
                self.reach(true, |word| word.swap(value, Ordering::SeqCst))
            }

            pub(crate) fn fetch_add(&self, value: $value, _: Ordering) -> $value {
                self.reach(true, |word| word.fetch_add(value, Ordering::SeqCst))
            }

            pub(crate) fn fetch_or(&self, value: $value, _: Ordering) -> $value {
                self.reach(true, |word| word.fetch_or(value, Ordering::SeqCst))
            }

            pub(crate) fn fetch_and(&self, value: $value, _: Ordering) -> $value {
                self.reach(true, |word| word.fetch_and(value, Ordering::SeqCst))
            }

            pub(crate) fn fetch_max(&self, value: $value, _: Ordering) -> $value {
                self.reach(true, |word| word.fetch_max(value, Ordering::SeqCst))
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                _: Ordering,
                _: Ordering,
            ) -> Result<$value, $value> {
                let (good, bad) = (Ordering::SeqCst, Ordering::SeqCst);
                self.reach(true, |word| word.compare_exchange(current, new, good, bad))
            }

            pub(crate) fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                good: Ordering,
                bad: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, good, bad)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

simulated!(AtomicU32, u32);
simulated!(AtomicU64, u64);

/// A mutex between the threads of one simulated process.
pub(crate) struct Mutex<T> {
    is_locked: Cell<bool>,
    value: UnsafeCell<T>,
}

// SAFETY: all simulated threads of a world run on one real one; and as for any mutex.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Mutex<T> {}

#[allow(dead_code)]
impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex { is_locked: Cell::new(false), value: UnsafeCell::new(value) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        mutex_step();
        while self.is_locked.get() {
            if !mutex_contended(std::ptr::from_ref(self).addr()) {
                break;
            }
        }
        self.is_locked.set(true);
        MutexGuard { mutex: self }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        mutex_step();
        // Not made in advance: dropping a guard frees the lock, whoever has it.
        (!self.is_locked.replace(true)).then(|| MutexGuard { mutex: self })
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Mutex::new(T::default())
    }
}

/// The right to the value.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard is the only one, so nobody else has the value.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and the guard is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.mutex.is_locked.set(false);
        mutex_freed(std::ptr::from_ref(self.mutex).addr());
    }
}
