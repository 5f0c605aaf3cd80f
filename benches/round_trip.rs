//! One message there and back between two processes, and what that is to the limits.
//!
//! Every size, every way to wait, every way to hand a message over; pinned, unpinned, and both
//! sides on one core; and messages that come rarely, one way, to a reader that has gone to sleep.
//! Nothing here asserts a time: the targets stand beside the figures.

mod support;

use std::process::ExitCode;

use support::figure::{Case, Cores, Run, cell, row, target, two_cores};
use support::link::SIZES;
use support::{Bench, Flags, Order, Result, play};

const HELP: &str = "\
round_trip: one message there and back between two processes

  --quick          48 and 4096 bytes, two short rounds; under 15 s
  --sizes A,B,...  sizes in bytes, of 8, 48, 256, 1024, 4096, 65536 (default: all)
  --rounds N       each figure is the median of so many rounds (default 5)
  --millis N       how long one measurement counts (default 200)
  --paced-millis N the same for paced messages, 2 ms apart (default 1000)
  --cores A,B      the cores of the two sides (default: the first two)
  --pinned-only    leave out unpinned sides, and both on one core
";

const BENCH: Bench = Bench {
    name: "round_trip",
    help: HELP,
    values: &["sizes", "rounds", "millis", "paced-millis", "cores"],
    switches: &["quick", "pinned-only"],
    side: play::side,
    conduct,
};

fn main() -> ExitCode {
    BENCH.main()
}

/// The ways to wait. With "poll" the program tries again and again; else the calls wait.
const WAITS: [&str; 4] = ["poll", "spin", "adaptive", "park"];
const MODES: [&str; 3] = ["single", "batches", "in place"];

fn conduct(flags: &Flags) -> Result<()> {
    let sizes = flags.list("sizes", &[48, 4096], &SIZES)?;
    let rounds = flags.number("rounds", 2, 5)?;
    let pinned = two_cores(flags)?;
    let mut cases = trips(&sizes, pinned);
    if !flags.has("pinned-only") {
        cases.extend(trips(&sizes, Cores::Free));
        cases.extend(on_one_core(pinned));
    }
    let millis = flags.number("millis", 20, 200)?;
    let mut cases: Vec<Case> = cases.into_iter().map(|order| order.build(millis)).collect();
    let millis = flags.number("paced-millis", 100, 1000)?;
    let places = if flags.has("pinned-only") { vec![pinned] } else { vec![pinned, Cores::Free] };
    cases.extend(places.into_iter().flat_map(paced).map(|order| order.build(millis)));

    let mut run = Run::measure("round_trip", flags, rounds, cases)?;
    for size in &sizes {
        size_table(&mut run, *size);
    }
    one_core_table(&mut run);
    paced_table(&mut run);
    targets(&mut run);
    run.finish()
}

/// What is to be measured, before it is known how long.
struct Wish {
    link: &'static str,
    bytes: usize,
    wait: &'static str,
    mode: &'static str,
    measure: &'static str,
    cores: Cores,
}

impl Wish {
    fn build(self, millis: u64) -> Case {
        let Wish { link, bytes, wait, mode, measure, cores } = self;
        let order = Order::default()
            .with("link", link)
            .with("bytes", bytes)
            .with("wait", wait)
            .with("mode", mode)
            .with("measure", measure)
            .with("millis", millis);
        Case::of_two(
            &[
                ("link", &link),
                ("bytes", &bytes),
                ("wait", &wait),
                ("mode", &mode),
                ("measure", &measure),
                ("where", &cores),
            ],
            order,
            cores,
        )
    }
}

fn trips(sizes: &[usize], cores: Cores) -> Vec<Wish> {
    let trip = |link, bytes, wait, mode| Wish { link, bytes, wait, mode, measure: "trip", cores };
    let mut wishes = vec![trip("line", 8, "poll", "single"), trip("futexes", 8, "park", "single")];
    for &bytes in sizes {
        wishes.push(trip("textbook", bytes, "poll", "single"));
        if has_copies(bytes) {
            wishes.push(trip("copies", bytes, "poll", "single"));
        }
        for wait in WAITS {
            for mode in MODES {
                // A pinned pair does everything; the others show what placing changes.
                let is_wanted = mode == "single" || (cores != Cores::Free && wait != "poll");
                if is_wanted {
                    wishes.push(trip("eshm", bytes, wait, mode));
                }
            }
        }
    }
    wishes
}

/// For small messages copying is no limit; the line is.
fn has_copies(bytes: usize) -> bool {
    bytes >= 1024
}

fn on_one_core(pinned: Cores) -> Vec<Wish> {
    let Cores::Pinned(core, _) = pinned else { return Vec::new() };
    let cores = Cores::One(core);
    let trip =
        |link, bytes, wait| Wish { link, bytes, wait, mode: "single", measure: "trip", cores };
    let waits = ["spin", "adaptive", "park"];
    let mut wishes = vec![trip("futexes", 8, "park")];
    wishes.extend(waits.map(|wait| trip("eshm", 48, wait)));
    wishes
}

fn paced(cores: Cores) -> Vec<Wish> {
    let paced =
        |link, bytes, wait| Wish { link, bytes, wait, mode: "single", measure: "paced", cores };
    let waits = ["spin", "adaptive", "park"];
    let mut wishes = vec![paced("futexes", 8, "park")];
    wishes.extend(waits.map(|wait| paced("eshm", 48, wait)));
    wishes
}

// --- tables -------------------------------------------------------------------------------------

const TIMES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

fn times(case: &Case) -> Vec<String> {
    TIMES.iter().map(|name| cell(case.median(name))).collect()
}

/// What the figure of a case is divided by: a limit at the same place.
fn limit<'a>(run: &'a Run, case: &Case, link: &str, bytes: &str) -> Option<&'a Case> {
    run.case(&[
        ("link", link),
        ("bytes", bytes),
        ("measure", case.label("measure")),
        ("where", case.label("where")),
    ])
}

fn size_table(run: &mut Run, bytes: usize) {
    let size = bytes.to_string();
    let mut lines = vec![row([
        "ns",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "x line",
        "p99 x line",
        "x futexes",
        "x textbook",
        "x copies",
    ])];
    for place in ["pinned", "unpinned"] {
        let here = |case: &&Case| {
            let limit = ["line", "futexes"].contains(&case.label("link"));
            case.is(&[("measure", "trip"), ("where", place)])
                && (limit || case.label("bytes") == size)
        };
        for case in run.cases.iter().filter(here) {
            let mut line = vec![name(case, bytes)];
            line.extend(times(case));
            let over = |link: &str, bytes: &str, name: &str| {
                cell(limit(run, case, link, bytes).and_then(|limit| case.over(limit, name)))
            };
            line.push(over("line", "8", "p50"));
            line.push(over("line", "8", "p99"));
            line.push(over("futexes", "8", "p50"));
            line.push(over("textbook", &size, "p50"));
            line.push(over("copies", &size, "p50"));
            lines.push(line);
        }
    }
    run.table(&format!("round trip, {bytes} bytes"), &lines);
}

fn name(case: &Case, bytes: usize) -> String {
    let place = case.label("where");
    match (case.label("link"), case.label("mode")) {
        ("eshm", "batches") => {
            let count = play::batch_len(bytes);
            format!("{place}: eshm {}, batches of {count}", case.label("wait"))
        }
        ("eshm", mode) => format!("{place}: eshm {}, {mode}", case.label("wait")),
        ("line", _) => format!("{place}: bare cache line"),
        ("futexes", _) => format!("{place}: two bare futexes"),
        ("copies", _) => format!("{place}: raw copies"),
        (other, _) => format!("{place}: {other} ring"),
    }
}

fn one_core_table(run: &mut Run) {
    let mut lines = vec![row(["ns", "p50", "p90", "p99", "p99.9", "max", "x futexes"])];
    for case in run.cases.iter().filter(|case| case.label("where") == "one core") {
        let mut line = vec![name(case, 48)];
        line.extend(times(case));
        let futexes = limit(run, case, "futexes", "8");
        line.push(cell(futexes.and_then(|futexes| case.over(futexes, "p50"))));
        lines.push(line);
    }
    if lines.len() > 1 {
        run.table("round trip, 48 bytes, both sides on one core", &lines);
    }
}

fn paced_table(run: &mut Run) {
    let mut lines = vec![row([
        "ns",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "x futex wake",
        "count",
        "sent late",
    ])];
    for case in run.cases.iter().filter(|case| case.label("measure") == "paced") {
        let mut line = vec![name(case, 48)];
        line.extend(times(case));
        let wake = limit(run, case, "futexes", "8");
        line.push(cell(wake.and_then(|wake| case.over(wake, "p50"))));
        line.extend(["count", "sent_late"].map(|name| cell(case.median(name))));
        lines.push(line);
    }
    run.table(
        "one way, 48 bytes, one message every 2 ms, from the moment at which it was to be sent",
        &lines,
    );
}

fn targets(run: &mut Run) {
    let trip = |link, bytes, wait| {
        run.case(&[
            ("link", link),
            ("bytes", bytes),
            ("wait", wait),
            ("mode", "single"),
            ("measure", "trip"),
            ("where", "pinned"),
        ])
    };
    let paced = |link, wait| {
        run.case(&[("link", link), ("wait", wait), ("measure", "paced"), ("where", "pinned")])
    };
    let over = |case: Option<&Case>, other: Option<&Case>, name| case?.over(other?, name);
    let (line, spin) = (trip("line", "8", "poll"), trip("eshm", "48", "spin"));
    let polled = trip("eshm", "48", "poll");
    let adaptive = trip("eshm", "48", "adaptive");
    let rare = over(paced("eshm", "adaptive"), paced("futexes", "park"), "p50");
    let lines = [
        target("48 B, Spin, p50 / bare cache line", "<= 1.10", over(spin, line, "p50")),
        target("48 B, Spin, p99 / bare cache line", "<= 1.30", over(spin, line, "p99")),
        target("48 B, polled, p50 / bare cache line", "<= 1.10", over(polled, line, "p50")),
        target("48 B, polled, p99 / bare cache line", "<= 1.30", over(polled, line, "p99")),
        target("48 B, default waiting, busy, p50 / Spin", "<= 1.3", over(adaptive, spin, "p50")),
        target("default waiting, every 2 ms, one way p50 / bare futex wake", "<= 1.3", rare),
    ];
    run.targets(&lines);
}
