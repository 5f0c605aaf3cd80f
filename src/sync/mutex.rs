//! The standard library's mutex, without its poison.

use std::sync::{self, PoisonError, TryLockError};

pub(crate) use std::sync::MutexGuard;

/// A mutex that a panic leaves unlocked and usable.
#[derive(Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

#[allow(dead_code)]
impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex(sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
