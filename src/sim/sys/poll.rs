//! Watching processes until they die.

use std::time::Duration;

use super::super::calls::Call;
use super::super::kernel::Life;
use super::super::world::{On, World, step, step_with, wait, with};
use super::clock::nanos;

/// The processes that are watched.
pub(crate) struct Deaths {
    pids: Vec<u32>,
    /// Has a descriptor table of its own; else it watches nobody.
    can_watch: bool,
}

impl Deaths {
    pub(crate) fn new() -> Deaths {
        Deaths { pids: Vec::new(), can_watch: super::thread::own_descriptors() }
    }

    /// Watches a process until it dies, unless the system refuses.
    pub(crate) fn watch(&mut self, pid: u32) {
        let is_refused = step_with(Call::Watch, || pid.to_string()).is_some();
        let can = with(|world| {
            let process = world.who().process;
            world.kernel.processes[process].has_pidfds && (is_alive(world, pid))
        });
        if can && self.can_watch && !is_refused && !self.pids.contains(&pid) {
            self.pids.push(pid);
        }
    }

    /// Sleeps until one of them dies, for so long at most; tells each death once.
    pub(crate) fn wait(&mut self, at_most: Duration, dead: &mut Vec<u32>) {
        step(Call::WaitForDeaths);
        let (until, is_news) = with(|world| {
            let is_news = self.pids.iter().any(|&pid| !is_alive(world, pid));
            if let Some(current) = world.current {
                world.tasks[current].watching.clone_from(&self.pids);
            }
            (world.now_ns.saturating_add(nanos(at_most)), is_news)
        });
        if !is_news {
            wait(On::Deaths, until);
        }
        self.pids.retain(|&pid| {
            let lives = with(|world| is_alive(world, pid));
            if !lives {
                dead.push(pid);
            }
            lives
        });
    }
}

fn is_alive(world: &World, pid: u32) -> bool {
    world.kernel.processes.iter().any(|it| it.pid == pid && it.life != Life::Dead)
}
