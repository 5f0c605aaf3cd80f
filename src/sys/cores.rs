//! How many cores there are to run on.
//!
//! Spinning helps only when the other side can run meanwhile. A hint: nothing about correctness
//! may hang on it.

use nix::sched::CpuSet;
use nix::sched::sched_getaffinity;
use nix::unistd::Pid;

/// The cores that this process may use; at least one.
pub(crate) fn usable() -> usize {
    match sched_getaffinity(Pid::this()) {
        Ok(set) => count(&set).max(1),
        // A machine with more cores than the set has room for is not short of them.
        Err(_) => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

fn count(set: &CpuSet) -> usize {
    (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).count()
}

#[cfg(test)]
mod tests {
    use nix::sched::sched_setaffinity;

    use super::super::testing::child_agrees;
    use super::*;

    #[test]
    fn a_restricted_process_has_fewer() {
        let all = sched_getaffinity(Pid::this()).unwrap();
        assert_eq!(usable(), count(&all));
        let first = (0..CpuSet::count()).find(|&core| all.is_set(core).unwrap()).unwrap();
        assert!(child_agrees(|| {
            let mut one = CpuSet::new();
            one.set(first).unwrap();
            sched_setaffinity(Pid::this(), &one).unwrap();
            usable() == 1
        }));
    }
}
