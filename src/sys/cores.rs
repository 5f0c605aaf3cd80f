//! How many cores the machine has.
//!
//! Spinning helps only when the other side can run meanwhile. It does not matter on how many cores
//! this process may run: the other one may have others. A hint: nothing about correctness may hang
//! on it.

use std::sync::atomic::{AtomicUsize, Ordering};

use nix::unistd::{SysconfVar, sysconf};

/// The cores that are switched on; at least one. Asked once.
pub(crate) fn online() -> usize {
    static CORES: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: asking twice gives the same answer twice.
    match CORES.load(Ordering::Relaxed) {
        0 => {
            let cores = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().unwrap_or(2);
            let cores = usize::try_from(cores).unwrap_or(1).max(1);
            CORES.store(cores, Ordering::Relaxed);
            cores
        }
        cores => cores,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_the_core_of_this_test_is_online() {
        assert!(online() >= std::thread::available_parallelism().map_or(1, usize::from));
    }
}
