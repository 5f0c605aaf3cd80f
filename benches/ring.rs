//! The cost of single operations, with both ends of a bus in one thread: no other core takes part,
//! so this is what the calls themselves cost. `cargo bench --bench ring -- --quick` is short.
//!
//! The last group runs in a process that may not use the barrier of sleepers (a seccomp filter says
//! no), where each write must fence for itself; it shows what that barrier is worth.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant, SystemTime};

use criterion::{BenchmarkId, Criterion, Throughput};
use eshm::{Batch, Endpoint, Error, Options, Role, Wait};
use serde_json::Value;
use support::figure::{Run, cell, row};
use support::link::BATCH;
use support::message::Message;
use support::stage::Folder;
use support::{Flags, Result, Why};

const SIZES: [usize; 5] = [8, 48, 256, 1024, 4096];
/// Set for the process without the barrier.
const FENCED: &str = "ESHM_BENCH_FENCED";
/// Writes between two moments at which the ring is emptied, unmeasured.
const RUN: u64 = 4096;

fn main() -> ExitCode {
    let done = if std::env::var_os(FENCED).is_some() { fenced() } else { all() };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("ring: {why}");
            ExitCode::FAILURE
        }
    }
}

fn all() -> Result<()> {
    let began = SystemTime::now();
    let folder = Folder::new()?;
    let mut criterion = criterion();
    by_size(&mut criterion, &folder)?;
    refusals(&mut criterion, &folder)?;
    write_alone(&mut criterion, &folder, "bell_zero", false)?;
    write_alone(&mut criterion, &folder, "reader_slept", true)?;
    criterion.final_summary();
    let program = std::env::current_exe().why("find this program")?;
    let child = Command::new(program).args(std::env::args().skip(1)).env(FENCED, "1").status();
    if !child.why("start the process without the barrier")?.success() {
        eprintln!("ring: the process without the barrier failed; its figures are missing");
    }
    report(began)
}

fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .output_directory(&home())
        .configure_from_args()
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("criterion")
}

fn two_ends(folder: &Folder, name: &str, frames: u64) -> Result<(Endpoint, Endpoint)> {
    let mut options = Options::new(name);
    options.directory(folder.path()).prefault(true).frames(frames).wait(Wait::Park);
    let master = options.role(Role::Master).open().why("open the master")?;
    let slave = options.role(Role::Slave).open().why("open the slave")?;
    Ok((master, slave))
}

fn by_size(criterion: &mut Criterion, folder: &Folder) -> Result<()> {
    let (mut master, mut slave) = two_ends(folder, "sizes", 8192)?;
    let mut page = vec![0; 4096];
    let mut group = criterion.benchmark_group("write_read");
    for size in SIZES {
        let message = vec![7; size];
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter(|| {
                master.write(&message).expect("room");
                slave.read(&mut page).expect("a message")
            });
        });
    }
    group.finish();

    let mut batch = Batch::with_capacity(4096 * BATCH, BATCH);
    let mut group = criterion.benchmark_group("write_many_read_many");
    for size in SIZES {
        let messages = vec![vec![7; size]; BATCH];
        group.throughput(Throughput::Elements(BATCH as u64));
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter(|| {
                assert_eq!(master.try_write_many(&messages), Ok(BATCH));
                slave.try_read_many(&mut batch).expect("messages")
            });
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("in_place");
    for size in SIZES {
        group.bench_function(BenchmarkId::from_parameter(size), |bench| {
            bench.iter(|| {
                let mut claim = master.claim(size).expect("room");
                // As little as possible: what the message holds is the caller's own work.
                claim[0] = claim[0].wrapping_add(1);
                claim.commit().expect("a commit");
                let peek = slave.peek().expect("a message");
                std::hint::black_box(peek[0]);
                peek.release().expect("a release");
            });
        });
    }
    group.finish();
    Ok(())
}

fn refusals(criterion: &mut Criterion, folder: &Folder) -> Result<()> {
    let (mut master, mut slave) = two_ends(folder, "refusals", 64)?;
    let mut group = criterion.benchmark_group("refused");
    let mut page = [0; 64];
    group.bench_function("try_read_empty", |bench| {
        bench.iter(|| assert_eq!(slave.try_read(&mut page), Err(Error::Empty)));
    });
    while master.try_write(&page[..48]).is_ok() {}
    group.bench_function("try_write_full", |bench| {
        bench.iter(|| assert_eq!(master.try_write(&page[..48]), Err(Error::Full)));
    });
    group.finish();
    Ok(())
}

/// Writes that fit into the ring, without the reads.
fn write_alone(
    criterion: &mut Criterion,
    folder: &Folder,
    name: &str,
    has_slept: bool,
) -> Result<()> {
    let (mut master, mut slave) = two_ends(folder, name, 2 * RUN)?;
    let mut page = [0; 64];
    if has_slept {
        let slept = slave.read_timeout(&mut page, Duration::from_millis(2));
        assert_eq!(slept, Err(Error::Timeout));
    }
    let message = Message::<6>::new(1);
    let mut batch = Batch::with_capacity(48 * RUN as usize, RUN as usize);
    let mut group = criterion.benchmark_group("write_48");
    group.bench_function(name, |bench| {
        bench.iter_custom(|times| {
            let mut spent = Duration::ZERO;
            let mut left = times;
            while left > 0 {
                let count = left.min(RUN);
                let start = Instant::now();
                for _ in 0..count {
                    master.write(message.bytes()).expect("room");
                }
                spent += start.elapsed();
                left -= count;
                while slave.try_read_many(&mut batch).is_ok() {}
            }
            spent
        });
    });
    group.finish();
    Ok(())
}

// --- without the barrier ------------------------------------------------------------------------

fn fenced() -> Result<()> {
    refuse_membarrier()?;
    let folder = Folder::new()?;
    let mut criterion = criterion();
    write_alone(&mut criterion, &folder, "fence", false)?;
    criterion.final_summary();
    Ok(())
}

/// Makes the kernel refuse the barrier to this process from now on, as some sandboxes do.
fn refuse_membarrier() -> Result<()> {
    const NUMBER_OFFSET: u32 = 0;
    let step =
        |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER_OFFSET),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_membarrier as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: integers only.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    if done != 0 {
        return Err(std::io::Error::last_os_error()).why("give up new privileges");
    }
    // SAFETY: the program outlives the call and its length is that of its steps; the kernel checks
    // it and keeps a copy.
    let done = unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0)
    };
    if done != 0 {
        return Err(std::io::Error::last_os_error()).why("set a filter of system calls");
    }
    Ok(())
}

// --- the table ----------------------------------------------------------------------------------

/// The median that criterion found in this run, in nanoseconds.
fn estimate(began: SystemTime, group: &str, name: &str) -> Option<f64> {
    let path = home().join(group).join(name).join("new").join("estimates.json");
    let written = fs::metadata(&path).and_then(|facts| facts.modified()).ok()?;
    if written < began {
        return None; // Of an earlier run.
    }
    let value: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
    value["median"]["point_estimate"].as_f64()
}

fn report(began: SystemTime) -> Result<()> {
    let method = "both ends in one thread; medians found by criterion; empty: not measured now";
    let mut run = Run::without_rounds("ring", &Flags::unread(), method);
    let mut lines =
        vec![row(["ns per message", "write + read", "write_many + read_many", "in place"])];
    for size in SIZES {
        let name = size.to_string();
        let single = estimate(began, "write_read", &name);
        let many = estimate(began, "write_many_read_many", &name).map(|ns| ns / BATCH as f64);
        let in_place = estimate(began, "in_place", &name);
        lines.push(vec![format!("{size} bytes"), cell(single), cell(many), cell(in_place)]);
        run.keep_figure(&format!("write_read/{size}"), single);
        run.keep_figure(&format!("write_many_read_many/{size}"), many);
        run.keep_figure(&format!("in_place/{size}"), in_place);
    }
    run.table(&format!("one message there and taken; batches of {BATCH}"), &lines);
    let mut lines = vec![row(["ns", "", "x bell zero"])];
    let zero = estimate(began, "write_48", "bell_zero");
    for (group, name, title) in [
        ("refused", "try_read_empty", "try_read when empty"),
        ("refused", "try_write_full", "try_write when full"),
        ("write_48", "bell_zero", "write of 48 bytes, nobody ever slept"),
        ("write_48", "reader_slept", "write of 48 bytes, the reader has slept before"),
        ("write_48", "fence", "write of 48 bytes, with a fence (no barrier of sleepers)"),
    ] {
        let nanos = estimate(began, group, name);
        let ratio = nanos.zip(zero).map(|(nanos, zero)| nanos / zero);
        let ratio = if group == "write_48" { cell(ratio) } else { String::new() };
        lines.push(vec![title.to_string(), cell(nanos), ratio]);
        run.keep_figure(&format!("{group}/{name}"), nanos);
    }
    run.table("refusals, and what a write costs alone", &lines);
    run.finish()
}
