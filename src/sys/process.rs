//! Who a process is.
//!
//! Numbers and names for people to read, and what each process has once. It must never be asked
//! whether a process is alive: numbers are used again, and mean something else in another
//! namespace. `lock.rs` answers that.

use std::fs;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use nix::unistd::{Uid, User, geteuid};

use super::fork::{self, Birth};

/// Where the start time is in `/proc/<pid>/stat`: field 22, counted from 1, and the name in
/// parentheses is field 2.
const START_AFTER_NAME: usize = 22 - 3;
/// The same for the size of its memory, field 23.
const MEMORY_AFTER_NAME: usize = 23 - 3;

/// The number of this process, in its own namespace.
pub(crate) fn pid() -> u32 {
    std::process::id()
}

/// The user whose rights this process has.
pub(crate) fn effective_uid() -> u32 {
    geteuid().as_raw()
}

/// The name of a user; `None` if nobody has this number.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    Some(User::from_uid(Uid::from_raw(uid)).ok()??.name)
}

/// When a process was started, in clock ticks since the machine was; 0 if it is not known.
fn start_time(pid: u32) -> u64 {
    fs::read(format!("/proc/{pid}/stat")).ok().and_then(|stat| start_in(&stat)).unwrap_or(0)
}

/// Whether a process that started then still has memory of its own; a zombie has none, and neither
/// has one that is so far into its exit that its locks are free.
pub(crate) fn is_running(pid: u32, started: u64) -> bool {
    let Ok(stat) = fs::read(format!("/proc/{pid}/stat")) else { return false };
    let memory: u64 = field_of(&stat, MEMORY_AFTER_NAME).unwrap_or(0);
    memory > 0 && start_in(&stat) == Some(started)
}

/// The name of a process may hold spaces, parentheses and any byte, but nothing after it may hold
/// a parenthesis: the last one ends it.
fn start_in(stat: &[u8]) -> Option<u64> {
    field_of(stat, START_AFTER_NAME)
}

fn field_of(stat: &[u8], after_name: usize) -> Option<u64> {
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[end + 1..]).ok()?;
    fields.split_whitespace().nth(after_name)?.parse().ok()
}

/// When this process was started. Asked once: reading it is dearer than all else in opening a bus.
pub(crate) fn own_start_time() -> u64 {
    static STARTED: Remembered = Remembered::new();
    STARTED.get(|| start_time(pid()))
}

/// The namespace in which [`pid`] means something; 0 if it is not known.
pub(crate) fn pid_namespace() -> u64 {
    static NAMESPACE: Remembered = Remembered::new();
    NAMESPACE.get(|| fs::metadata("/proc/self/ns/pid").map_or(0, |facts| facts.ino()))
}

/// A number that stays the same for the life of a process, and may be another one in its child.
struct Remembered {
    value: AtomicU64,
    asked_by: AtomicU32,
}

impl Remembered {
    const fn new() -> Self {
        Remembered { value: AtomicU64::new(0), asked_by: AtomicU32::new(0) }
    }

    fn get(&self, ask: impl Fn() -> u64) -> u64 {
        let generation = fork::generation();
        // Acquire, with the release below: who sees the generation sees its answer.
        if self.asked_by.load(Ordering::Acquire) == generation {
            return self.value.load(Ordering::Relaxed);
        }
        let found = ask();
        self.value.store(found, Ordering::Relaxed);
        self.asked_by.store(generation, Ordering::Release);
        found
    }
}

/// A number that nobody else has; never 0.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_u64(super::clock::monotonic_ns() ^ u64::from(pid()) << 40);
    hasher.finish().max(1)
}

/// A static of which each process has its own. The first to ask in a process makes it, and it is
/// never dropped. A forked child makes a fresh one: locks in the parent's may be held for ever
/// there, by threads that do not exist.
pub(crate) struct Local<T: 'static> {
    made: AtomicPtr<Made<T>>,
    make: fn() -> T,
    /// The pointer alone would let any `T` be shared.
    shares: PhantomData<T>,
}

struct Made<T> {
    birth: Birth,
    value: T,
}

impl<T: Send + Sync> Local<T> {
    /// One that `make` makes. Threads that ask at the same time may each make one; all but one are
    /// dropped, and seen by nobody.
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Local { made: AtomicPtr::new(ptr::null_mut()), make, shares: PhantomData }
    }

    /// This process's own.
    pub(crate) fn get(&'static self) -> &'static T {
        // Acquire, with the release below: what is behind the pointer is whole.
        let mut found = self.made.load(Ordering::Acquire);
        loop {
            // SAFETY: null, or published below and never freed.
            match unsafe { found.as_ref() } {
                Some(made) if made.birth.is_here() => return &made.value,
                _ => {}
            }
            let fresh = Made { birth: Birth::now(), value: (self.make)() };
            let fresh = Box::into_raw(Box::new(fresh));
            let swapped =
                self.made.compare_exchange(found, fresh, Ordering::AcqRel, Ordering::Acquire);
            match swapped {
                Ok(_) => found = fresh,
                Err(other) => {
                    // SAFETY: made by `Box::into_raw` a moment ago and shown to nobody.
                    drop(unsafe { Box::from_raw(fresh) });
                    found = other;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::thread;

    use super::super::testing::{bare_child_agrees, child_agrees};
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_fools_nobody() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["sh", "a b", ") 1 2 3", "((", ""] {
            assert_eq!(start_in(format!("77 ({name}) {rest}\n").as_bytes()), Some(4711), "{name}");
        }
        assert_eq!(start_in(b"77 (\xff) S 1 2"), None);
        assert_eq!(start_in(b""), None);
    }

    #[test]
    fn the_start_of_this_process_is_known_and_of_none_is_not() {
        let ours = start_time(pid());
        assert!(ours > 0);
        assert!(start_time(1) <= ours, "the first process is not younger");
        assert_eq!(start_time(u32::MAX), 0);
    }

    #[test]
    fn the_namespace_is_remembered() {
        let link = fs::read_link("/proc/self/ns/pid").unwrap();
        let expected = format!("pid:[{}]", pid_namespace());
        assert_eq!(link.to_str(), Some(expected.as_str()));
        let ours = pid_namespace();
        assert!(child_agrees(|| pid_namespace() == ours));
    }

    #[test]
    fn users_have_names() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(u32::MAX - 7), None);
    }

    #[test]
    fn what_runs_is_told_from_what_ran() {
        assert!(is_running(pid(), own_start_time()));
        assert!(!is_running(pid(), own_start_time() + 1), "the number was used again");
        assert!(!is_running(u32::MAX, 0));
    }

    #[test]
    fn threads_share_one() {
        static NUMBERS: Local<AtomicU32> = Local::new(AtomicU32::default);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| NUMBERS.get().fetch_add(1, Ordering::Relaxed));
            }
        });
        assert_eq!(NUMBERS.get().load(Ordering::Relaxed), 8);
    }

    /// The parent's is locked at the moment of the fork, and nobody in the child will open it.
    #[test]
    fn a_child_has_its_own_and_the_parent_keeps_its() {
        static NUMBER: Local<Mutex<u32>> = Local::new(Mutex::default);
        let mut ours = NUMBER.get().lock().unwrap();
        *ours = 5;
        let check = || {
            let fresh = NUMBER.get().try_lock().map(|mut number| {
                *number += 1;
                *number
            });
            let again = *NUMBER.get().lock().unwrap();
            fresh.is_ok_and(|number| number == 1) && again == 1
        };
        assert!(child_agrees(check));
        assert!(bare_child_agrees(check));
        assert_eq!(*ours, 5);
        drop(ours);
        assert_eq!(*NUMBER.get().lock().unwrap(), 5);
    }
}
