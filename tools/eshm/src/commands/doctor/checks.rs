//! The checks. What they conclude is apart from where they look, so that each conclusion can be
//! tested without such a machine.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use eshm::{EntryKind, PeerState, Snapshot};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::geteuid;
use rustix::thread::membarrier_query;

use crate::machine::{self, Machine};
use crate::output::{escape, units};

use super::{Finding, Level};

/// The room that a segment of the usual size takes, about; and a memory limit below which a segment of the usual size cannot be locked.
const SEGMENT: u64 = 2 << 20;

/// What a slot takes besides its frames.
const WORDS: u64 = 16 << 10;

/// All of them, in the order of how much harm they do.
pub fn all(directory: &Path) -> Vec<Finding> {
    let machine = Machine::read();
    let mut findings = shm(directory);
    findings.push(remove_ipc(logind().as_deref(), geteuid().as_raw()));
    findings.push(membarrier());
    findings.push(clock(&machine));
    findings.extend(cores(&machine, machine::usable().len(), cpu_quota()));
    findings.push(memlock(getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |limit| limit.0)));
    findings.push(leftovers(directory));
    findings
}

/// The file system of the segments: its kind, mode, size and what is free.
fn shm(directory: &Path) -> Vec<Finding> {
    let (Ok(about), Ok(system)) = (fs::metadata(directory), statfs(directory)) else {
        return vec![no_directory(directory)];
    };
    let block = u64::try_from(system.block_size()).unwrap_or(0);
    let (total, free) = (system.blocks() * block, system.blocks_available() * block);
    // A tmpfs without a limit says that it has no blocks.
    let free = (total > 0).then_some(free);
    let buses = eshm::list_in(directory).unwrap_or_default();
    let buses = buses.iter().filter_map(|entry| match &entry.kind {
        EntryKind::Bus(snapshot) => Some(&**snapshot),
        _ => None,
    });
    vec![
        kind(directory, system.filesystem_type() == TMPFS_MAGIC),
        mode(directory, about.mode() & 0o7777),
        space(directory, total, free),
        fence(
            directory,
            buses.max_by_key(|bus| slot(bus)).map(|bus| (&*bus.name, slot(bus))),
            free,
        ),
    ]
}

/// That the directory of the segments is not there, or not for this user.
fn no_directory(directory: &Path) -> Finding {
    let shown = directory.display();
    let (what, remedy) = match fs::metadata(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mount = format!("mount -t tmpfs -o mode=1777 tmpfs {shown}");
            let remedy = format!("mkdir -p {shown}; to have it in memory: {mount}");
            (format!("there is no {shown}"), remedy)
        }
        _ => (
            format!("{shown} cannot be looked at"),
            "another --dir, or let this user into that directory (chmod, a group)".to_string(),
        ),
    };
    Finding::new("shm", Level::Bad, what, remedy)
}

/// The memory that a successor needs to replace a hung owner of this bus, about: frames and words.
fn slot(bus: &Snapshot) -> u64 {
    let rings = [bus.master_to_slave, bus.slave_to_master];
    let frames: u64 = rings.iter().map(|ring| u64::from(ring.frame_size) * ring.frames).sum();
    frames + WORDS
}

/// Whether there is room to replace a hung owner: its bus is then built a second time, in the same
/// file, before the old memory is given back.
fn fence(directory: &Path, largest: Option<(&str, u64)>, free: Option<u64>) -> Finding {
    let (whose, need) = match largest {
        Some((name, need)) => {
            (format!("of {}, the largest bus", escape::bytes(name.as_bytes())), need)
        }
        None => ("of a bus of the usual size".to_string(), (SEGMENT / 2) + WORDS),
    };
    let what =
        format!("to replace a hung owner a second slot {whose} takes {}", units::bytes(need));
    match free {
        Some(free) if free < need => Finding::new(
            "fence",
            Level::Warn,
            format!(
                "{what}: there is room for {}, so that --takeover hung fails",
                units::bytes(free)
            ),
            more_room(directory),
        ),
        _ => Finding::good("fence", format!("{what}: there is room")),
    }
}

fn more_room(directory: &Path) -> String {
    format!(
        "mount -o remount,size=1G {} (docker run --shm-size=1g, in Kubernetes an emptyDir with medium: Memory)",
        directory.display()
    )
}

fn kind(directory: &Path, tmpfs: bool) -> Finding {
    let shown = directory.display();
    if tmpfs {
        return Finding::good(
            "shm kind",
            format!("{shown} is a tmpfs: memory, never written to a disk"),
        );
    }
    let what = format!("{shown} is no tmpfs: the kernel writes segments to a disk now and then");
    Finding::new("shm kind", Level::Warn, what, "keep segments in /dev/shm, or mount a tmpfs there")
}

fn mode(directory: &Path, mode: u32) -> Finding {
    let shown = directory.display();
    match mode {
        0o1777 => {
            Finding::good("shm mode", "1777: everybody may make segments, only owners remove them")
        }
        mode if mode & 0o1000 == 0 && mode & 0o022 != 0 => {
            let what = format!("{mode:04o}: others may remove or swap your segments");
            Finding::new("shm mode", Level::Bad, what, format!("chmod 1777 {shown}"))
        }
        mode if mode & 0o022 == 0 => {
            Finding::good("shm mode", format!("{mode:04o}: a directory of its owner"))
        }
        mode => {
            let what = format!("{mode:04o}: not everybody may make segments");
            Finding::new("shm mode", Level::Warn, what, format!("chmod 1777 {shown}"))
        }
    }
}

fn space(directory: &Path, total: u64, free: Option<u64>) -> Finding {
    let Some(free) = free else {
        return Finding::good(
            "shm space",
            "without a limit of its own: as much as there is memory",
        );
    };
    let what = format!("{} of {} free", units::bytes(free), units::bytes(total));
    let remedy = more_room(directory);
    match free {
        0..SEGMENT => {
            Finding::new("shm space", Level::Bad, format!("{what}: no room for a segment"), remedy)
        }
        free if free < 64 << 20 => Finding::new(
            "shm space",
            Level::Warn,
            format!("{what}: large segments will not fit"),
            remedy,
        ),
        _ => Finding::good("shm space", what),
    }
}

/// The settings of systemd-logind, if it runs here.
fn logind() -> Option<String> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let mut text = String::new();
    for place in ["/usr/lib/systemd/logind.conf", "/etc/systemd/logind.conf"] {
        text.push_str(&fs::read_to_string(place).unwrap_or_default());
    }
    for place in [
        "/usr/lib/systemd/logind.conf.d",
        "/run/systemd/logind.conf.d",
        "/etc/systemd/logind.conf.d",
    ] {
        let files = fs::read_dir(place).into_iter().flatten().flatten();
        let mut paths: Vec<_> = files.map(|file| file.path()).collect();
        paths.sort();
        paths.iter().for_each(|path| text.push_str(&fs::read_to_string(path).unwrap_or_default()));
    }
    Some(text)
}

/// Whether a logout takes the segments away. `settings` are those of logind, the last one counts.
fn remove_ipc(settings: Option<&str>, uid: u32) -> Finding {
    let Some(settings) = settings else {
        return Finding::good(
            "RemoveIPC",
            "no systemd-logind here: nothing removes segments at logout",
        );
    };
    let mut values = settings.lines().filter_map(|line| line.trim().strip_prefix("RemoveIPC="));
    let on =
        values.next_back().is_none_or(|value| matches!(value.trim(), "yes" | "true" | "1" | "on"));
    if !on {
        return Finding::good("RemoveIPC", "off: segments outlive a logout");
    }
    if uid < 1000 {
        return Finding::good(
            "RemoveIPC",
            format!("on, but not for system users such as uid {uid}"),
        );
    }
    let remedy = "RemoveIPC=no in /etc/systemd/logind.conf, or run as a system user, or: loginctl enable-linger";
    Finding::new(
        "RemoveIPC",
        Level::Warn,
        "on: at your last logout the system removes your segments' names",
        remedy,
    )
}

fn membarrier() -> Finding {
    let commands = membarrier_query();
    expedited(commands.contains(rustix::thread::MembarrierQuery::GLOBAL_EXPEDITED))
}

fn expedited(there: bool) -> Finding {
    if there {
        return Finding::good("membarrier", "there: a writer that nobody waits for needs no fence");
    }
    let what = "not allowed here: every write pays for a fence (some ten nanoseconds)";
    Finding::new(
        "membarrier",
        Level::Warn,
        what,
        "let the seccomp profile of the container allow membarrier(2)",
    )
}

fn clock(machine: &Machine) -> Finding {
    let source = machine.clock_source.as_str();
    match source {
        "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" | "timebase" => {
            Finding::good("clock", format!("{source}: read without a system call"))
        }
        "" => Finding::good("clock", "the kernel does not say which; assumed to be a fast one"),
        slow => {
            let what = format!("{slow}: each look at the clock is a system call");
            let remedy = if machine.clock_sources.split(' ').any(|source| source == "tsc") {
                "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource"
            } else {
                "boot with tsc=reliable if the processor's counter is; timed waits stay correct either way"
            };
            Finding::new("clock", Level::Warn, what, remedy)
        }
    }
}

/// Hundredths of a core that the container may use, if it is limited.
fn cpu_quota() -> Option<u64> {
    let text = fs::read_to_string("/sys/fs/cgroup/cpu.max").ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    Some(quota.parse::<u64>().ok()? * 100 / period.parse::<u64>().ok()?.max(1))
}

fn cores(machine: &Machine, usable: usize, quota: Option<u64>) -> Vec<Finding> {
    let threads = machine.cpus.len();
    let cores = machine.cores().len();
    let per_core = machine.cores().values().map(Vec::len).max().unwrap_or(1);
    let siblings = if per_core > 1 { format!(", {per_core} threads each") } else { String::new() };
    let what = format!(
        "{}{siblings}; {usable} of {threads} usable here",
        units::plural(cores as u64, "core")
    );
    let mut findings = vec![match usable {
        0 | 1 => Finding::new(
            "cores",
            Level::Warn,
            what,
            "give this process two cores (taskset, docker --cpuset-cpus): with one, both sides take turns and each message costs a context switch",
        ),
        _ => Finding::good("cores", what),
    }];
    if let Some(quota) = quota.filter(|&quota| quota < 200) {
        let what = format!(
            "the container may use {:.1} cores: it is halted in the middle of its work when that is used up",
            quota as f64 / 100.0
        );
        findings.push(Finding::new(
            "quota",
            Level::Warn,
            what,
            "docker --cpus=2 or more, or pin with --cpuset-cpus instead",
        ));
    }
    findings
}

fn memlock(limit: u64) -> Finding {
    if limit == u64::MAX {
        return Finding::good("memlock", "unlimited: segments can be locked into memory");
    }
    if limit >= SEGMENT {
        return Finding::good(
            "memlock",
            format!("{}: segments of that size can be locked into memory", units::bytes(limit)),
        );
    }
    let what = format!("{}: too little to lock a segment into memory", units::bytes(limit));
    Finding::new(
        "memlock",
        Level::Warn,
        what,
        "ulimit -l unlimited, or LimitMEMLOCK=infinity in the systemd unit (only for Options::lock_memory)",
    )
}

/// What lies about: unheld buses, halves of creations, files of others.
fn leftovers(directory: &Path) -> Finding {
    let entries = match eshm::list_in(directory) {
        Ok(entries) => entries,
        Err(error) => {
            return Finding::new(
                "leftovers",
                Level::Bad,
                error.to_string(),
                "run as a user who may read the directory",
            );
        }
    };
    let held = |state| matches!(state, PeerState::Alive | PeerState::Hung(_));
    let unheld = |kind: &EntryKind| match kind {
        EntryKind::Bus(snapshot)
            if !held(snapshot.stats.master.state) && !held(snapshot.stats.slave.state) =>
        {
            Some(snapshot.unread != [0, 0])
        }
        EntryKind::Leftover(_) => Some(false),
        _ => None,
    };
    let unheld: Vec<bool> = entries.iter().filter_map(|entry| unheld(&entry.kind)).collect();
    let unread = unheld.iter().filter(|unread| **unread).count();
    let odd = entries
        .iter()
        .filter(|entry| matches!(entry.kind, EntryKind::Foreign(_) | EntryKind::Unreadable(_)))
        .count();
    left_over(unheld.len(), unread, odd, entries.len())
}

fn left_over(unheld: usize, unread: usize, odd: usize, all: usize) -> Finding {
    let there = units::plural(all as u64, "segment");
    let what = format!("{there}, {unheld} of them held by nobody");
    if unheld > unread {
        return Finding::new("leftovers", Level::Warn, what, "eshm gc --dry-run, then eshm gc");
    }
    if unread > 0 {
        // Waiting for a reader is what they are there for.
        let remedy = "if nobody will read them: eshm rm NAME, or eshm gc --older 1h";
        return Finding::new(
            "leftovers",
            Level::Warn,
            format!("{what}, with unread messages"),
            remedy,
        );
    }
    if odd > 0 {
        let what = format!("{there}, {odd} of them foreign or not usable");
        return Finding::new("leftovers", Level::Warn, what, "eshm ls says what they are");
    }
    Finding::good("leftovers", format!("none ({there})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(finding: &Finding) -> Level {
        finding.level
    }

    #[test]
    fn the_directory_must_be_large_sticky_and_in_memory() {
        let shm = Path::new("/dev/shm");
        assert_eq!(level(&space(shm, 64 << 20, Some(1 << 20))), Level::Bad);
        assert_eq!(level(&space(shm, 64 << 20, Some(32 << 20))), Level::Warn);
        assert_eq!(level(&space(shm, 4 << 30, Some(2 << 30))), Level::Good);
        assert_eq!(level(&space(shm, 0, None)), Level::Good, "a tmpfs of size=0 has no limit");
        assert_eq!(level(&fence(shm, None, Some(2 << 20))), Level::Good);
        assert_eq!(level(&fence(shm, Some(("a", 3 << 20)), Some(2 << 20))), Level::Warn);
        assert_eq!(level(&fence(shm, Some(("a", 3 << 20)), None)), Level::Good);
        assert_eq!(level(&mode(shm, 0o0777)), Level::Bad);
        assert_eq!(level(&mode(shm, 0o1777)), Level::Good);
        assert_eq!(level(&mode(shm, 0o0700)), Level::Good);
        assert_eq!(level(&kind(shm, false)), Level::Warn);
    }

    #[test]
    fn a_logout_is_no_danger_where_nothing_removes_segments() {
        assert_eq!(level(&remove_ipc(None, 1000)), Level::Good);
        assert_eq!(level(&remove_ipc(Some("#RemoveIPC=no\n"), 1000)), Level::Warn);
        assert_eq!(level(&remove_ipc(Some("RemoveIPC=yes\nRemoveIPC=no\n"), 1000)), Level::Good);
        assert_eq!(level(&remove_ipc(Some(""), 0)), Level::Good);
    }

    #[test]
    fn slow_clocks_single_cores_and_small_limits_are_told() {
        let slow = Machine {
            clock_source: "hpet".into(),
            clock_sources: "tsc hpet".into(),
            ..Machine::default()
        };
        assert!(clock(&slow).remedy.starts_with("echo tsc"));
        assert_eq!(level(&cores(&slow, 1, None)[0]), Level::Warn);
        assert_eq!(level(&cores(&slow, 2, Some(150))[1]), Level::Warn);
        assert_eq!(cores(&slow, 2, Some(400)).len(), 1);
        assert_eq!(level(&memlock(64 << 10)), Level::Warn);
        assert_eq!(level(&memlock(u64::MAX)), Level::Good);
        assert_eq!(level(&expedited(false)), Level::Warn);
        assert_eq!(level(&left_over(1, 0, 0, 3)), Level::Warn);
        assert!(left_over(1, 1, 0, 3).remedy.contains("eshm rm"));
        assert_eq!(level(&left_over(0, 0, 1, 3)), Level::Warn);
        assert_eq!(level(&left_over(0, 0, 0, 3)), Level::Good);
    }
}
