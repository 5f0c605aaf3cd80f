//! What the benches ask of Linux: the clock, a core of one's own, who this machine is.

use std::fs;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Result, Why};

/// Nanoseconds of the monotonic clock, which is the same in all processes.
#[inline(always)]
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds of processor time that this whole process has used.
pub fn processor_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The step in which the clock advances, as far as it can be seen; at least 1. On some processors
/// it is ten nanoseconds, a fortieth of a round trip.
pub fn clock_step_ns() -> u64 {
    static STEP: OnceLock<u64> = OnceLock::new();
    *STEP.get_or_init(|| {
        let mut gaps: Vec<u64> = (0..4096)
            .map(|_| {
                let first = now_ns();
                now_ns() - first
            })
            .collect();
        gaps.sort_unstable();
        // Between two looks lie whole steps, give or take the rounding to nanoseconds.
        let usual = &gaps[..gaps.len() * 99 / 100];
        let steps = usual.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 1);
        steps.min().filter(|step| *step < 100).map_or(1, |step| step.next_multiple_of(5))
    })
}

/// Sleeps until shortly before a moment of the clock, then spins up to it.
pub fn wait_until(moment_ns: u64) {
    const SPUN: u64 = 150_000;
    let left = moment_ns.saturating_sub(now_ns());
    if left > SPUN {
        std::thread::sleep(Duration::from_nanos(left - SPUN));
    }
    while now_ns() < moment_ns {
        std::hint::spin_loop();
    }
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    match sched_getaffinity(Pid::this()) {
        Ok(set) => (0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect(),
        Err(_) => vec![0],
    }
}

/// Pins the calling thread, and the threads that it starts later, to one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).why(&format!("core {core}"))?;
    sched_setaffinity(Pid::this(), &set).why(&format!("pin to core {core}"))
}

/// Makes the kernel end this process when its parent ends, and after `seconds` in any case: a side
/// that hangs must not hang the run.
pub fn live_no_longer_than(seconds: u32) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).why("ask to die with the parent")?;
    nix::unistd::alarm::set(seconds.max(1));
    Ok(())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_interrupt(_signal: libc::c_int) {
    // Relaxed: a flag that carries nothing but itself.
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Turns the signals that end a program into a flag, so that the run can clean up after itself.
pub fn catch_interrupts() {
    let action =
        SigAction::new(SigHandler::Handler(note_interrupt), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler only stores into an atomic, which a signal handler may do.
        // Refused, the signal ends the program, as it always does.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// Whether one of those signals came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Where and when a run took place.
pub struct Machine {
    pub processor: String,
    pub kernel: String,
    /// UTC.
    pub date: String,
    /// How many tasks wanted to run, averaged over the minute before.
    pub load: f64,
    pub clock_step_ns: u64,
}

/// More tasks than this wanted the cores before the run began.
const BUSY: f64 = 0.5;

impl Machine {
    /// This machine, now.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find(|line| line.starts_with("model name"));
        let model =
            model.and_then(|line| line.split_once(':')).map_or("?", |(_, name)| name.trim());
        let load = read("/proc/loadavg");
        Machine {
            processor: format!("{model}, {} cores{}", cores().len(), siblings(&cores())),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            date: date(),
            load: load.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0),
            clock_step_ns: clock_step_ns(),
        }
    }

    /// For the head of a table.
    pub fn line(&self) -> String {
        let mut line = format!(
            "{}; {}; {}; clock in steps of {} ns",
            self.processor, self.kernel, self.date, self.clock_step_ns
        );
        if self.load > BUSY {
            line += &format!(
                "\nTHE MACHINE WAS BUSY (load {:.1} at the start): do not trust these figures",
                self.load
            );
        }
        line
    }

    /// For tools.
    pub fn json(&self) -> Value {
        json!({
            "processor": self.processor, "kernel": self.kernel, "date": self.date,
            "load": self.load, "clock_step_ns": self.clock_step_ns,
        })
    }
}

/// Whether the first two cores are two halves of one.
fn siblings(cores: &[usize]) -> &'static str {
    let [first, second, ..] = cores else { return "" };
    let path = format!("/sys/devices/system/cpu/cpu{first}/topology/core_cpus_list");
    let Ok(list) = fs::read_to_string(path) else { return "" };
    let within = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        from.parse().is_ok_and(|from: usize| from <= *second)
            && to.parse().is_ok_and(|to: usize| to >= *second)
    };
    if list.trim().split(',').any(within) { " (siblings)" } else { "" }
}

/// The date of today, in UTC, by the rule of the Gregorian calendar.
fn date() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Days since 1 March of the year 0; years begin in March, so that a leap day is a year's last.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let (hour, minute) = (seconds / 3_600 % 24, seconds / 60 % 60);
    format!("{:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC", era * 400 + year + carry)
}
