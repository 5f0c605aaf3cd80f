//! The asymmetric barrier: here every store is visible at once, so only the answers matter.

use super::super::calls::Call;
use super::super::kernel::Process;
use super::super::world::{On, step, wait, with};

/// How long the sure one takes.
const GLOBAL_NS: u64 = 12_000_000;

/// Lets the heavy side of other processes reach this one.
pub(crate) fn register() -> bool {
    let is_refused = step(Call::Register).is_some();
    !is_refused && ask(|process| process.is_registered = true)
}

/// The quick one; `false` if the kernel refused.
pub(crate) fn heavy() -> bool {
    let is_refused = step(Call::Heavy).is_some();
    !is_refused && ask(|_| {})
}

/// The sure one, during which others run on; `false` if the kernel refused.
pub(crate) fn global() -> bool {
    if step(Call::Global).is_some() || !ask(|_| {}) {
        return false;
    }
    let until = with(|world| world.now_ns + GLOBAL_NS);
    wait(On::Time, until);
    true
}

/// Whether the kernel offers it; a filter set up later may still refuse.
pub(crate) fn available() -> bool {
    step(Call::Available);
    with(|world| world.kernel.has_barrier)
}

fn ask(then: impl FnOnce(&mut Process)) -> bool {
    with(|world| {
        let process = world.who().process;
        let is_allowed =
            world.kernel.has_barrier && !world.kernel.processes[process].is_barrier_forbidden;
        if is_allowed {
            then(&mut world.kernel.processes[process]);
        }
        is_allowed
    })
}
