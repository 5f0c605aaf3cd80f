//! What the harness asks of Linux: the clock, a core of one's own, who this machine is.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// Nanoseconds of the monotonic clock, which is the same in all processes.
#[inline(always)]
pub fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The step in which the clock advances; 0 when it is too fine to be seen. On some processors it is
/// ten nanoseconds, a tenth of a round trip.
pub fn clock_step_ns() -> u64 {
    // The times between two reads are whole steps, give or take the rounding to nanoseconds.
    let mut gaps: Vec<u64> = (0..4096)
        .map(|_| {
            let first = now_ns();
            now_ns() - first
        })
        .collect();
    gaps.sort_unstable();
    let usual = &gaps[..gaps.len() * 99 / 100];
    let steps = usual.windows(2).map(|pair| pair[1] - pair[0]).filter(|step| *step > 1);
    steps.min().map_or(0, |step| if step < 100 { step + 1 } else { 0 })
}

/// Pins the calling thread to one core.
pub fn pin(core: usize) -> Result<(), String> {
    // SAFETY: a cpu_set_t is plain bits; all zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if core >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(format!("core {core}: no such core"));
    }
    // SAFETY: the index was checked against the size of the set just above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is initialised and its true size is given; 0 is the calling thread.
    let done = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    match done {
        0 => Ok(()),
        _ => Err(format!("pin to core {core}: {}", io::Error::last_os_error())),
    }
}

/// Makes the kernel end this process when its parent ends, and after `seconds` in any case: a peer
/// that hangs must not hang the run.
pub fn live_no_longer_than(seconds: u32) {
    // SAFETY: sets a signal for this process only; takes no memory.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong) };
    // SAFETY: sets a timer for this process only.
    unsafe { libc::alarm(seconds) };
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_interrupt(_signal: libc::c_int) {
    // Relaxed: a flag that carries nothing but itself.
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Turns the signals that end a program into a flag, so that the run can clean up after itself.
pub fn catch_interrupts() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler: extern "C" fn(libc::c_int) = note_interrupt;
        // SAFETY: the handler only stores into an atomic, which is allowed in a signal handler.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Whether one of those signals came.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Where and when a run took place.
pub struct Machine {
    /// Processor and number of cores.
    pub processor: String,
    /// Kernel release.
    pub kernel: String,
    /// Date and time, UTC.
    pub date: String,
    /// How many tasks wanted to run, averaged over the last minute.
    pub load: f64,
    /// The step of the clock.
    pub clock_step_ns: u64,
}

impl Machine {
    /// This machine, now.
    pub fn here() -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo
            .lines()
            .find(|line| line.starts_with("model name"))
            .and_then(|line| line.split_once(':'))
            .map_or("unknown processor", |(_, model)| model.trim());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            processor: format!("{model}, {cores} cores"),
            kernel: format!("Linux {}", kernel.trim()),
            date: date(),
            load: load(),
            clock_step_ns: clock_step_ns(),
        }
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

fn date() -> String {
    // SAFETY: a null argument asks for the value alone.
    let seconds = unsafe { libc::time(std::ptr::null_mut()) };
    // SAFETY: a tm is plain integers and one pointer that may be null.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both places are valid for the call, and nothing is kept of them.
    unsafe { libc::gmtime_r(&seconds, &mut parts) };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02} UTC",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min
    )
}
