//! Who a process is.

use super::super::calls::Call;
use super::super::kernel::{Life, Process};
use super::super::world::{step, with};

/// The number of this process.
pub(crate) fn pid() -> u32 {
    own(|process| process.pid)
}

/// The user whose rights this process has.
pub(crate) fn effective_uid() -> u32 {
    own(|process| process.uid)
}

/// When this process was started.
pub(crate) fn own_start_time() -> u64 {
    own(|process| process.started)
}

/// The namespace in which [`pid`] means something.
pub(crate) fn pid_namespace() -> u64 {
    own(|process| 4_026_531_836 + if process.is_contained { u64::from(process.pid) } else { 0 })
}

/// Whether a process that started then still has memory of its own.
pub(crate) fn is_running(pid: u32, started: u64) -> bool {
    step(Call::IsRunning);
    with(|world| {
        let is_it = |process: &Process| process.pid == pid && process.started == started;
        let lives = |process: &Process| matches!(process.life, Life::Running | Life::Stopped);
        world.kernel.processes.iter().any(|process| is_it(process) && lives(process))
    })
}

/// The name of a user.
pub(crate) fn user_name(uid: u32) -> Option<String> {
    Some(format!("user{uid}"))
}

/// A number that nobody else has.
pub(crate) fn random() -> u64 {
    step(Call::Random);
    with(|world| {
        world.random_state += 1;
        super::super::random::Random::new(world.random_state).next()
    })
}

fn own<T>(of: impl FnOnce(&Process) -> T) -> T {
    step(Call::Process);
    with(|world| of(&world.kernel.processes[world.who().process]))
}

/// A static of which each process has its own.
pub(crate) struct Local<T> {
    make: fn() -> T,
}

impl<T> Local<T> {
    pub(crate) const fn new(make: fn() -> T) -> Self {
        Local { make }
    }

    /// That of this process.
    pub(crate) fn get(&self) -> &'static T {
        let key = std::ptr::from_ref(self).addr();
        let find = || {
            with(|world| {
                let process = world.who().process;
                world.kernel.processes[process].locals.get(&key).copied()
            })
        };
        let address = find().unwrap_or_else(|| {
            let fresh = Box::into_raw(Box::new((self.make)())).expose_provenance();
            with(|world| {
                let process = world.who().process;
                *world.kernel.processes[process].locals.entry(key).or_insert(fresh)
            })
        });
        // SAFETY: made by `Box::into_raw` as this very type, since no two statics share an address,
        // and never freed while the schedule runs.
        unsafe { &*std::ptr::with_exposed_provenance::<T>(address) }
    }
}
