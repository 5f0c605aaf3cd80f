//! The machine: its cores, what they share, and its clock, as the kernel tells it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;

/// A hardware thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cpu {
    pub id: usize,
    pub core: u32,
    pub package: u32,
    pub node: u32,
    /// Threads of the same core, itself among them.
    pub siblings: Vec<usize>,
    pub caches: Vec<Cache>,
}

/// A cache that a hardware thread uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cache {
    pub level: u32,
    pub kind: String,
    pub size: String,
    pub shared_by: Vec<usize>,
}

/// What the kernel tells of the machine.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Machine {
    pub model: String,
    pub kernel: String,
    pub virtual_machine: bool,
    pub memory_bytes: u64,
    pub clock_source: String,
    pub clock_sources: String,
    /// Threads that wanted to run in the last minute, on average.
    pub load: f64,
    pub cpus: Vec<Cpu>,
}

impl Machine {
    /// This machine.
    pub fn read() -> Machine {
        Machine::read_under(Path::new("/"))
    }

    /// A machine whose `/proc` and `/sys` are under `root`.
    pub fn read_under(root: &Path) -> Machine {
        let cpuinfo = text(root, "proc/cpuinfo");
        let clock = "sys/devices/system/clocksource/clocksource0";
        Machine {
            model: field(&cpuinfo, "model name").unwrap_or("unknown processor").to_string(),
            kernel: text(root, "proc/sys/kernel/osrelease"),
            virtual_machine: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            memory_bytes: memory(&text(root, "proc/meminfo")),
            clock_source: text(root, &format!("{clock}/current_clocksource")),
            clock_sources: text(root, &format!("{clock}/available_clocksource")),
            load: text(root, "proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            cpus: cpus(root),
        }
    }

    /// A warning if others use the cores as well; empty otherwise.
    pub fn busy(&self) -> String {
        if self.load < 0.5 * self.cpus.len() as f64 {
            return String::new();
        }
        format!("the machine has other work (load {:.1}), and the numbers show it", self.load)
    }

    /// Hardware threads by core.
    pub fn cores(&self) -> BTreeMap<(u32, u32), Vec<&Cpu>> {
        let mut cores: BTreeMap<(u32, u32), Vec<&Cpu>> = BTreeMap::new();
        for cpu in &self.cpus {
            cores.entry((cpu.package, cpu.core)).or_default().push(cpu);
        }
        cores
    }

    /// Two hardware threads to measure between: of different cores, near each other, among those
    /// that are `usable`. `None` where there is only one.
    pub fn pair(&self, usable: &[usize]) -> Option<(usize, usize)> {
        let cpus: Vec<&Cpu> = self.cpus.iter().filter(|cpu| usable.contains(&cpu.id)).collect();
        let distance = |a: &Cpu, b: &Cpu| {
            (a.siblings.contains(&b.id), a.node != b.node, a.package != b.package, shared(a, b))
        };
        let first = cpus.first()?;
        let second = cpus[1..].iter().min_by_key(|cpu| distance(first, cpu))?;
        Some((first.id, second.id))
    }
}

/// 0 when both use one cache besides their own, else 1.
fn shared(a: &Cpu, b: &Cpu) -> u8 {
    u8::from(!a.caches.iter().any(|cache| cache.shared_by.contains(&b.id)))
}

/// The hardware threads that this process may run on.
pub fn usable() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap_or_default();
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).unwrap_or(false)).collect()
}

/// Keeps the calling thread on one hardware thread.
pub fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).map(|text| text.trim().to_string()).unwrap_or_default()
}

/// The first `name : value` of `/proc/cpuinfo`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line =
        text.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name))?;
    line.split_once(':').map(|(_, value)| value.trim())
}

fn memory(meminfo: &str) -> u64 {
    let kib =
        field(meminfo, "MemTotal").and_then(|value| value.split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

fn cpus(root: &Path) -> Vec<Cpu> {
    let online = list(&text(root, "sys/devices/system/cpu/online"));
    online.into_iter().map(|id| cpu(root, id)).collect()
}

fn cpu(root: &Path, id: usize) -> Cpu {
    let base = format!("sys/devices/system/cpu/cpu{id}");
    let number = |name: &str| text(root, &format!("{base}/topology/{name}")).parse().unwrap_or(0);
    let node = (0..64).find(|node| root.join(format!("{base}/node{node}")).exists());
    let mut siblings = list(&text(root, &format!("{base}/topology/thread_siblings_list")));
    if siblings.is_empty() {
        siblings.push(id);
    }
    Cpu {
        id,
        core: number("core_id"),
        package: number("physical_package_id"),
        node: node.unwrap_or(0),
        siblings,
        caches: (0..8)
            .filter_map(|index| cache(root, &format!("{base}/cache/index{index}")))
            .collect(),
    }
}

fn cache(root: &Path, base: &str) -> Option<Cache> {
    let level = text(root, &format!("{base}/level")).parse().ok()?;
    Some(Cache {
        level,
        kind: text(root, &format!("{base}/type")),
        size: text(root, &format!("{base}/size")),
        shared_by: list(&text(root, &format!("{base}/shared_cpu_list"))),
    })
}

/// A list as the kernel writes it: `0-3,8`.
fn list(text: &str) -> Vec<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (last < 1 << 16).then_some(first..=last)
    };
    text.split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(id: usize, core: u32, package: u32) -> Cpu {
        let siblings = vec![id % 4, id % 4 + 4];
        Cpu { id, core, package, node: package, siblings, caches: vec![] }
    }

    #[test]
    fn lists_are_read_as_the_kernel_writes_them() {
        assert_eq!(list("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(list(""), [] as [usize; 0]);
        assert_eq!(list("7-99999999999"), [] as [usize; 0]);
    }

    #[test]
    fn a_pair_is_of_two_cores_of_one_package_where_there_are_such() {
        let cpus = vec![cpu(0, 0, 0), cpu(4, 0, 0), cpu(2, 0, 1), cpu(1, 1, 0)];
        let machine = Machine { cpus, ..Machine::default() };
        assert_eq!(machine.pair(&[0, 1, 2, 4]), Some((0, 1)));
        assert_eq!(machine.pair(&[0, 2, 4]), Some((0, 2)));
        assert_eq!(machine.pair(&[0, 4]), Some((0, 4)));
        assert_eq!(machine.pair(&[0]), None);
    }

    #[test]
    fn this_machine_has_a_core() {
        let machine = Machine::read();
        assert!(!machine.cpus.is_empty() && !machine.cores().is_empty());
        assert!(!usable().is_empty());
    }
}
