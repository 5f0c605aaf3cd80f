//! Threads of the library.

use super::super::calls::Call;
use super::super::world::{step, with};
use super::ask;
use crate::error::Result;

/// Starts a thread of this process.
pub(crate) fn spawn(name: &'static str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    ask(Call::Spawn, "start", name, || {
        with(|world| world.start_thread(Box::new(run)));
        Ok(())
    })
}

/// Gives the calling thread a descriptor table of its own; false if that is refused.
pub(crate) fn own_descriptors() -> bool {
    if step(Call::OwnDescriptors).is_some() {
        return false;
    }
    with(|world| {
        let Some(current) = world.current else { return false };
        let process = world.tasks[current].process;
        let table = world.kernel.new_table();
        world.kernel.processes[process].own_tables.push(table);
        world.tasks[current].table = table;
        true
    })
}

/// Lets others run.
#[allow(dead_code)]
pub(crate) fn yield_now() {
    super::clock::sleep(std::time::Duration::ZERO);
}
