//! How cost grows: with the endpoints of a process, and with the frames of a ring.
//!
//! Endpoints come in two processes, one with all the masters and one with all the slaves, so that
//! each has a living peer. Each pair exchanges a message, and then all are idle. Nothing here
//! asserts a figure: the targets stand beside them.

mod support;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use eshm::{Endpoint, Options, PeerState, Role};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::statvfs::statvfs;
use support::figure::{Case, Cores, Run, Sample, Target, cell, row, two_cores};
use support::system::{now_ns, processor_ns};
use support::{Bench, Facts, Flags, Meeting, Order, Result, Why, play};

const HELP: &str = "\
scale: how cost grows with endpoints and with frames

  --quick           fewer of both, one short round
  --endpoints A,B,. how many endpoints (default 1, 10, 100, 1000)
  --frames A,B,...  frames of a ring, powers of two (default 64 to 1048576)
  --rounds N        each figure is the median of so many rounds (default 3)
  --idle-millis N   for how long idle endpoints are watched (default 3000)
  --millis N        how long one measurement of a ring counts (default 200)
  --cores A,B       the cores of the two sides of a ring (default: the first two)
";

const BENCH: Bench = Bench {
    name: "scale",
    help: HELP,
    values: &["endpoints", "frames", "rounds", "idle-millis", "millis", "cores"],
    switches: &["quick"],
    side,
    conduct,
};

/// Frames of the default geometry.
const USUAL: u64 = 8192;
const FRAME: u64 = 64;

fn main() -> ExitCode {
    BENCH.main()
}

fn conduct(flags: &Flags) -> Result<()> {
    let counts = flags.list("endpoints", &[1, 10, 100], &[1, 10, 100, 1000])?;
    let sizes = [64, 512, 4096, 8192, 65_536, 262_144, 1 << 20];
    let sizes = flags.list("frames", &[64, 8192, 262_144], &sizes)?;
    let rounds = flags.number("rounds", 1, 3)?;
    let idle = flags.number("idle-millis", 500, 3000)?;
    let millis = flags.number("millis", 30, 200)?;
    let cores = two_cores(flags)?;
    let frames = counts.iter().max().map_or(USUAL, |most| frames_for(*most as u64));
    let mut cases = vec![least(frames, idle)];
    cases.extend(endpoints(&counts, frames, idle));
    cases.extend(rings(&sizes, millis, cores));
    let mut run = Run::measure("scale", flags, rounds, cases)?;
    least_table(&mut run, frames);
    endpoint_tables(&mut run, &counts, frames);
    ring_table(&mut run, &sizes);
    targets(&mut run);
    run.finish()
}

/// The frames that so many endpoints can have: the usual ones if shared memory has room for them.
fn frames_for(endpoints: u64) -> u64 {
    let free = statvfs("/dev/shm").map_or(0, |facts| facts.blocks_available() * facts.block_size());
    if endpoints * 3 * USUAL * FRAME < free { USUAL } else { 64 }
}

// --- what is measured ---------------------------------------------------------------------------

/// What the system asks of anybody: a thread that only wakes up, memory that is only allocated.
fn least(frames: u64, idle: u64) -> Case {
    let order =
        Order::default().with("measure", "least").with("frames", frames).with("millis", idle);
    Case::new(&[("table", &"least")], vec![order])
}

fn endpoints(counts: &[usize], frames: u64, idle: u64) -> Vec<Case> {
    let case = |count: &usize| {
        let order = Order::default()
            .with("measure", "many")
            .with("count", count)
            .with("frames", frames)
            .with("millis", idle);
        Case::of_two(&[("table", &"endpoints"), ("count", count)], order, Cores::Free)
    };
    counts.iter().map(case).collect()
}

fn rings(sizes: &[usize], millis: u64, cores: Cores) -> Vec<Case> {
    let mut cases = Vec::new();
    for frames in sizes {
        for prefault in [0, 1] {
            let order = Order::default()
                .with("measure", "opens")
                .with("frames", frames)
                .with("prefault", prefault);
            let labels: [(&'static str, &dyn std::fmt::Display); 3] =
                [("frames", frames), ("measure", &"opens"), ("prefault", &prefault)];
            cases.push(Case::new(&labels, vec![order]));
        }
        for measure in ["stream", "trip"] {
            let order = Order::default()
                .with("measure", measure)
                .with("link", "eshm")
                .with("bytes", 48)
                .with("wait", "poll")
                .with("mode", "single")
                .with("ring_bytes", *frames as u64 * FRAME)
                .with("millis", millis);
            let labels: [(&'static str, &dyn std::fmt::Display); 2] =
                [("frames", frames), ("measure", &measure)];
            cases.push(Case::of_two(&labels, order, cores));
        }
    }
    cases
}

// --- sides --------------------------------------------------------------------------------------

fn side(order: &Order, meeting: &mut Meeting) -> Result<Facts> {
    match order.text("measure") {
        "least" => only_the_system(order),
        "many" => many(order, meeting),
        "opens" => opens(order),
        _ => play::side(order, meeting),
    }
}

fn only_the_system(order: &Order) -> Result<Facts> {
    const TIMES: usize = 50;
    let (start, used) = (now_ns(), processor_ns());
    let end = start + order.number("millis")? * 1_000_000;
    while now_ns() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
    let busy = (processor_ns() - used) as f64 / (now_ns() - start) as f64;
    let path = std::path::Path::new(order.text("folder")).join("least");
    let bytes = 2 * order.number("frames")? * FRAME;
    let mut times = Sample::default();
    for _ in 0..TIMES {
        let start = Instant::now();
        let file = fs::File::create(&path).why("create a file")?;
        fallocate(&file, FallocateFlags::empty(), 0, bytes as i64).why("allocate")?;
        times.record(start.elapsed().as_secs_f64() * 1e6);
        fs::remove_file(&path).why("remove a file")?;
    }
    let allocate = times.at(0.5).unwrap_or(0.0);
    Ok(Facts::from([("idle_percent".into(), 100.0 * busy), ("allocate_us".into(), allocate)]))
}

fn many(order: &Order, meeting: &mut Meeting) -> Result<Facts> {
    allow_many_files()?;
    let side = if order.is_near() { "near" } else { "far" };
    let before = Footprint::now()?;
    if !order.is_near() {
        meeting.meet()?;
    }
    let (mut ends, opened) = open_all(order)?;
    if order.is_near() {
        meeting.meet()?;
    }
    exchange(order, &mut ends, meeting)?;
    meeting.meet()?;
    // What there was to do at the start is done.
    std::thread::sleep(Duration::from_millis(200));
    let (start, used) = (now_ns(), processor_ns());
    std::thread::sleep(Duration::from_millis(order.number("millis")?));
    let busy = (processor_ns() - used) as f64 / (now_ns() - start) as f64;
    let after = Footprint::now()?;
    let away = ends.iter().filter(|end| end.peer().state != PeerState::Alive).count();
    meeting.meet()?;
    let count = ends.len() as f64;
    let start = Instant::now();
    for end in ends {
        end.leave().why("leave")?;
    }
    let left = start.elapsed().as_secs_f64() * 1e6 / count;
    let mut facts = Facts::new();
    let mut say = |name: &str, value: f64| facts.insert(format!("{side}_{name}"), value);
    say("threads", after.threads - before.threads);
    say("files", (after.files - before.files) / count);
    say("anonymous_kib", (after.anonymous - before.anonymous) / count);
    say("idle_percent", 100.0 * busy);
    say("away", away as f64);
    say("leave_us", left);
    for (name, at) in [("open_p50_us", 0.5), ("open_p99_us", 0.99), ("open_max_us", 1.0)] {
        say(name, opened.at(at).unwrap_or(0.0));
    }
    Ok(facts)
}

fn open_all(order: &Order) -> Result<(Vec<Endpoint>, Sample)> {
    let role = if order.is_near() { Role::Master } else { Role::Slave };
    let (count, frames) = (order.number("count")?, order.number("frames")?);
    let mut times = Sample::default();
    let mut ends = Vec::new();
    for number in 0..count {
        let mut options = Options::new(format!("many{number}"));
        options.directory(order.text("folder")).role(role).frames(frames);
        let start = Instant::now();
        let end = options.open();
        times.record(start.elapsed().as_secs_f64() * 1e6);
        ends.push(end.why("open an endpoint")?);
    }
    Ok((ends, times))
}

/// One message each way between all pairs.
fn exchange(order: &Order, ends: &mut [Endpoint], meeting: &mut Meeting) -> Result<()> {
    let mut page = [0; 64];
    if order.is_near() {
        for end in ends.iter_mut() {
            end.write(&page[..48]).why("write")?;
        }
    }
    meeting.meet()?;
    for end in ends.iter_mut() {
        if !order.is_near() {
            end.read(&mut page).why("read")?;
            end.write(&page[..48]).why("write")?;
        }
    }
    meeting.meet()?;
    if order.is_near() {
        for end in ends.iter_mut() {
            end.read(&mut page).why("read")?;
        }
    }
    Ok(())
}

fn allow_many_files() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).why("ask for the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).why("raise the limit of open files")
}

/// What a process takes up.
struct Footprint {
    threads: f64,
    files: f64,
    /// KiB of memory of its own, that no file or segment stands behind.
    anonymous: f64,
}

impl Footprint {
    fn now() -> Result<Footprint> {
        let number = |file: &str, name: &str| -> Result<f64> {
            let text = fs::read_to_string(file).why(file)?;
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let word = line.and_then(|line| line.split_whitespace().next());
            word.ok_or(format!("{file} says nothing of {name}"))?.parse().why(name)
        };
        Ok(Footprint {
            threads: number("/proc/self/status", "Threads")?,
            files: fs::read_dir("/proc/self/fd").why("list open files")?.count() as f64,
            anonymous: number("/proc/self/smaps_rollup", "Anonymous")?,
        })
    }
}

/// Opens and attaches again and again, in one process.
fn opens(order: &Order) -> Result<Facts> {
    const TIMES: usize = 15;
    let mut options = Options::new("opens");
    let frames = order.number("frames")?;
    options.directory(order.text("folder")).prefault(order.text("prefault") == "1");
    let (mut made, mut attached) = (Sample::default(), Sample::default());
    for _ in 0..TIMES {
        let start = Instant::now();
        let master = options.clone().role(Role::Master).frames(frames).open().why("open")?;
        made.record(start.elapsed().as_secs_f64() * 1e6);
        let start = Instant::now();
        let slave = options.clone().role(Role::Slave).open().why("attach")?;
        attached.record(start.elapsed().as_secs_f64() * 1e6);
        slave.leave().why("leave")?;
        master.leave().why("leave")?;
    }
    let median = |sample: &Sample| sample.at(0.5).unwrap_or(0.0);
    Ok(Facts::from([("open_us".into(), median(&made)), ("attach_us".into(), median(&attached))]))
}

// --- tables -------------------------------------------------------------------------------------

fn least_table(run: &mut Run, frames: u64) {
    let least = run.case(&[("table", "least")]);
    let fact = |name| cell(least.and_then(|least| least.median(name)));
    let lines = vec![
        row(["", "the least"]),
        vec!["a thread that wakes 1,000 times a second, % of a core".into(), fact("idle_percent")],
        vec![
            format!("memory for two rings of {frames} frames, allocated, us"),
            fact("allocate_us"),
        ],
    ];
    run.table("what the system asks of anybody", &lines);
}

fn endpoint_tables(run: &mut Run, counts: &[usize], frames: u64) {
    let mut memory = vec![row([
        "endpoints",
        "threads",
        "files each",
        "private KiB each",
        "idle, % of a core",
        "peers away",
    ])];
    let mut times = vec![row([
        "us each",
        "create p50",
        "p99",
        "max",
        "attach p50",
        "p99",
        "max",
        "leave",
        "leave, last",
    ])];
    for count in counts.iter().map(usize::to_string) {
        let Some(case) = run.case(&[("table", "endpoints"), ("count", &count)]) else { continue };
        let facts =
            |names: &[&str]| names.iter().map(|name| cell(case.median(name))).collect::<Vec<_>>();
        for (side, title) in [("near", "masters"), ("far", "slaves")] {
            let names = ["threads", "files", "anonymous_kib", "idle_percent", "away"];
            let names = names.map(|name| format!("{side}_{name}"));
            let mut line = vec![format!("{count} {title}")];
            line.extend(facts(&names.each_ref().map(String::as_str)));
            memory.push(line);
        }
        let mut line = vec![format!("{count} endpoints")];
        line.extend(facts(&[
            "near_open_p50_us",
            "near_open_p99_us",
            "near_open_max_us",
            "far_open_p50_us",
            "far_open_p99_us",
            "far_open_max_us",
            "near_leave_us",
            "far_leave_us",
        ]));
        times.push(line);
    }
    run.table(
        &format!(
            "many endpoints in one process, rings of {frames} frames, beats of 1 ms; what came \
                  with them"
        ),
        &memory,
    );
    run.table("how long that takes; masters and slaves leave at the same time", &times);
}

fn ring_table(run: &mut Run, sizes: &[usize]) {
    let usual = USUAL.to_string();
    let mut lines = vec![row([
        "frames of 64 bytes",
        "MiB",
        "create us",
        "attach us",
        "create, prefault",
        "attach, prefault",
        "M msg/s",
        "x usual",
        "trip p50 ns",
        "x usual",
    ])];
    for frames in sizes {
        let name = frames.to_string();
        let case = |frames: &str, measure: &str, prefault: &str| {
            run.case(&[("frames", frames), ("measure", measure), ("prefault", prefault)])
        };
        let mut line =
            vec![name.clone(), cell(Some((*frames as u64 * FRAME) as f64 / (1 << 20) as f64))];
        for prefault in ["0", "1"] {
            let opens = case(&name, "opens", prefault);
            let time = |what| cell(opens.and_then(|case| case.median(what)));
            line.extend([time("open_us"), time("attach_us")]);
        }
        for (measure, fact, unit) in [("stream", "rate", 1e-6), ("trip", "p50", 1.0)] {
            let this = case(&name, measure, "");
            line.push(cell(this.and_then(|this| Some(this.median(fact)? * unit))));
            let other = case(&usual, measure, "");
            line.push(cell(this.zip(other).and_then(|(this, other)| this.over(other, fact))));
        }
        lines.push(line);
    }
    run.table("rings of many sizes; 48 bytes, polling, pinned; two rings in a segment", &lines);
}

fn targets(run: &mut Run) {
    let fact = |count: &str, name: &str| {
        run.case(&[("table", "endpoints"), ("count", count)])?.median(name)
    };
    let worst = |count: &str, name: &str| {
        let (near, far) =
            (fact(count, &format!("near_{name}"))?, fact(count, &format!("far_{name}"))?);
        Some(near.max(far))
    };
    let aim = |what, aim, unit, measured| Target { what, aim, measured, unit };
    let lines = [
        aim("100 idle endpoints, processor", "<= 2 %", " %", worst("100", "idle_percent")),
        aim("100 idle endpoints, threads", "1", "", worst("100", "threads")),
        aim(
            "1000 endpoints, private memory each",
            "<= 16 KiB",
            " KiB",
            worst("1000", "anonymous_kib"),
        ),
        aim(
            "1000 endpoints, create p50 each",
            "<= 200 us",
            " us",
            fact("1000", "near_open_p50_us"),
        ),
        aim("1000 endpoints, attach p50 each", "<= 200 us", " us", fact("1000", "far_open_p50_us")),
    ];
    run.targets(&lines);
}
