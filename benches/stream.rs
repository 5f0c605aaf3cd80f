//! Messages in one direction between two processes, as fast as they go, and what that is to the
//! limits. Every word of every message is made by the writer and checked by the reader.
//!
//! Besides sizes and ways to hand messages over: sizes mixed, a tap that listens in, and the cost of
//! a write alone. Nothing here asserts a rate: the targets stand beside the figures.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use eshm::{Direction, Error};
use support::figure::{Case, Cores, Run, cell, row, target, two_cores};
use support::link::{SIZES, options, ring_bytes};
use support::message::{Book, END, Message, is};
use support::play::{self, Length};
use support::system::now_ns;
use support::{Bench, Facts, Flags, Meeting, Order, Result, Why};

const HELP: &str = "\
stream: messages in one direction between two processes

  --quick          48 and 4096 bytes, two short rounds; under 15 s
  --sizes A,B,...  sizes in bytes, of 8, 48, 256, 1024, 4096, 65536 (default: all)
  --rounds N       each figure is the median of so many rounds (default 5)
  --millis N       how long one measurement counts (default 300)
  --cores A,B      the cores of the two sides (default: the first two)
  --pinned-only    leave out unpinned sides
";

const BENCH: Bench = Bench {
    name: "stream",
    help: HELP,
    values: &["sizes", "rounds", "millis", "cores"],
    switches: &["quick", "pinned-only"],
    side,
    conduct,
};

fn main() -> ExitCode {
    BENCH.main()
}

fn conduct(flags: &Flags) -> Result<()> {
    let sizes = flags.list("sizes", &[48, 4096], &SIZES)?;
    let rounds = flags.number("rounds", 2, 5)?;
    let cores = two_cores(flags)?;
    let plan = Plan { millis: flags.number("millis", 30, 300)? };
    let mut cases = plan.streams(&sizes, cores);
    if !flags.has("pinned-only") {
        cases.extend(plan.streams(&sizes, Cores::Free));
    }
    cases.extend(plan.mixtures(cores));
    cases.extend(plan.with_company(cores));
    cases.extend(plan.bursts(cores));

    let mut run = Run::measure("stream", flags, rounds, cases)?;
    for size in &sizes {
        size_table(&mut run, *size);
    }
    mixture_table(&mut run);
    company_table(&mut run);
    burst_table(&mut run);
    targets(&mut run);
    run.finish()
}

// --- what is measured ---------------------------------------------------------------------------

struct Plan {
    millis: u64,
}

/// Payload, and the frames that hold it best: one message of 4 KiB in one frame.
const FRAMES: [u32; 2] = [64, 4160];

impl Plan {
    fn order(&self, link: &str, bytes: usize, wait: &str, mode: &str) -> Order {
        Order::default()
            .with("link", link)
            .with("bytes", bytes)
            .with("wait", wait)
            .with("mode", mode)
            .with("measure", "stream")
            .with("millis", self.millis)
    }

    fn stream(&self, link: &str, bytes: usize, wait: &str, mode: &str, cores: Cores) -> Case {
        let labels: [(&'static str, &dyn std::fmt::Display); 6] = [
            ("link", &link),
            ("bytes", &bytes),
            ("wait", &wait),
            ("mode", &mode),
            ("where", &cores),
            ("table", &"sizes"),
        ];
        Case::of_two(&labels, self.order(link, bytes, wait, mode), cores)
    }

    fn streams(&self, sizes: &[usize], cores: Cores) -> Vec<Case> {
        let mut cases = Vec::new();
        for &bytes in sizes {
            cases.push(self.stream("textbook", bytes, "poll", "single", cores));
            if bytes >= 1024 {
                cases.push(self.stream("copies", bytes, "poll", "single", cores));
            }
            for wait in ["poll", "spin", "adaptive"] {
                cases.push(self.stream("eshm", bytes, wait, "single", cores));
            }
            if cores != Cores::Free {
                for mode in ["batches", "in place"] {
                    for wait in ["poll", "spin"] {
                        cases.push(self.stream("eshm", bytes, wait, mode, cores));
                    }
                }
            }
        }
        cases
    }

    /// Sizes mixed, and each size alone, in frames of both kinds.
    fn mixtures(&self, cores: Cores) -> Vec<Case> {
        let mut cases = Vec::new();
        for frame in FRAMES {
            for (what, bytes) in [("48", 48), ("4096", 4096), ("mixed", 0)] {
                let measure = if what == "mixed" { "mixed" } else { "stream" };
                let order = self.order("eshm", bytes, "spin", "single");
                // The same memory for all three.
                let order = order.with("frame", frame).with("measure", measure);
                let order = order.with("ring_bytes", ring_bytes(0));
                let labels: [(&'static str, &dyn std::fmt::Display); 3] =
                    [("table", &"mixed"), ("frame", &frame), ("what", &what)];
                cases.push(Case::of_two(&labels, order, cores));
            }
        }
        cases
    }

    /// A stream with a third process: one that taps it, and one that only wakes up as often.
    fn with_company(&self, cores: Cores) -> Vec<Case> {
        let case = |who: &'static str| {
            let order = self.order("eshm", 48, "spin", "single");
            let labels: [(&'static str, &dyn std::fmt::Display); 2] =
                [("table", &"company"), ("who", &who)];
            let case = Case::of_two(&labels, order.clone(), cores);
            if who == "alone" {
                return case;
            }
            let third = Order::default().with("measure", who).with("millis", self.millis);
            case.and(third)
        };
        ["alone", "waker", "tap"].map(case).into()
    }

    fn bursts(&self, cores: Cores) -> Vec<Case> {
        let case = |wait: &'static str| {
            let order = self.order("eshm", 48, wait, "single").with("measure", "bursts");
            let labels: [(&'static str, &dyn std::fmt::Display); 2] =
                [("table", &"bursts"), ("wait", &wait)];
            Case::of_two(&labels, order, cores)
        };
        ["poll", "spin", "adaptive"].map(case).into()
    }
}

// --- sides --------------------------------------------------------------------------------------

fn side(order: &Order, meeting: &mut Meeting) -> Result<Facts> {
    match order.text("measure") {
        "mixed" => mixed(order, meeting),
        "tap" | "waker" => look_again_and_again(order, meeting),
        _ => play::side(order, meeting),
    }
}

/// Every twentieth message of a mixture is long.
const LONG_EVERY: u64 = 20;
const SHORT_WORDS: usize = 6;
const LONG_WORDS: usize = 512;

fn mixed(order: &Order, meeting: &mut Meeting) -> Result<Facts> {
    let options = options(order)?;
    let facts = if order.is_near() {
        let mut bus = options.open().why("open the bus")?;
        meeting.meet()?;
        meeting.meet()?;
        let mut short = Message([0; SHORT_WORDS]);
        let mut long = Message([0; LONG_WORDS]);
        let write = |bus: &mut eshm::Endpoint, number: u64| {
            let bytes = if number % LONG_EVERY == LONG_EVERY - 1 {
                support::message::fill(&mut long.0, number);
                long.bytes()
            } else {
                support::message::fill(&mut short.0, number);
                short.bytes()
            };
            bus.write(bytes).unwrap_or_else(|error| panic!("{error}"));
        };
        let mark = |bus: &mut eshm::Endpoint, number| {
            let mark = Message::<SHORT_WORDS>::new(number);
            bus.write(mark.bytes()).unwrap_or_else(|error| panic!("{error}"));
        };
        let facts = play::between_marks(Length::of(order)?, 250, 1, &mut bus, write, mark);
        meeting.meet()?;
        facts
    } else {
        meeting.meet()?;
        let mut bus = options.open().why("open the bus")?;
        meeting.meet()?;
        let mut page = Message([0; LONG_WORDS]);
        let mut book = Book::default();
        loop {
            let len = bus.read(page.bytes_mut()).unwrap_or_else(|error| panic!("{error}"));
            if !book.enter(&page.0[..len / 8]) {
                break;
            }
        }
        meeting.meet()?;
        play::pace(&book)?
    };
    Ok(facts)
}

/// Messages that a tap copies in one look.
const TAPPED: usize = 8;
const LOOKS_APART: Duration = Duration::from_millis(1);

/// Wakes up a thousand times a second for as long as the stream lasts, and as a tap looks what is
/// there.
fn look_again_and_again(order: &Order, meeting: &mut Meeting) -> Result<Facts> {
    meeting.meet()?;
    let mut options = eshm::Options::new("bus");
    options.directory(order.text("folder"));
    let mut tap = match order.text("measure") {
        "tap" => Some(options.tap(Direction::MasterToSlave).why("open a tap")?),
        _ => None,
    };
    meeting.meet()?;
    let length = Length::of(order)?;
    let end = now_ns() + length.warm_ns + length.counted_ns;
    let mut page = Message([0; 6]);
    let (mut looks, mut seen) = (0, 0);
    while now_ns() < end {
        looks += 1;
        for tap in tap.iter_mut() {
            for _ in 0..TAPPED {
                match tap.try_read(page.bytes_mut()) {
                    Ok(_) => seen += 1,
                    Err(Error::Empty) => break,
                    Err(error) => panic!("the tap: {error}"),
                }
                assert!(is(&page.0, page.0[0]), "the tap heard a damaged message");
                if page.0[0] == END {
                    break;
                }
            }
        }
        std::thread::sleep(LOOKS_APART);
    }
    meeting.meet()?;
    let lost = tap.map_or(0, |tap| tap.lost());
    Ok(Facts::from([
        ("looks".into(), looks as f64),
        ("tapped".into(), seen as f64),
        ("passed_over".into(), lost as f64),
    ]))
}

// --- tables -------------------------------------------------------------------------------------

fn millions(case: &Case) -> String {
    cell(case.median("rate").map(|rate| rate / 1e6))
}

fn size_table(run: &mut Run, bytes: usize) {
    let size = bytes.to_string();
    let mut lines = vec![row(["", "M msg/s", "GB/s", "x textbook", "x copies", "x single"])];
    for place in ["pinned", "unpinned"] {
        let here = [("table", "sizes"), ("bytes", &size), ("where", place)];
        for case in run.cases.iter().filter(|case| case.is(&here)) {
            let over = |link: &str, wait: &str, mode: &str| {
                let other = [("link", link), ("wait", wait), ("mode", mode)];
                let other = run.cases.iter().find(|case| case.is(&here) && case.is(&other));
                cell(other.and_then(|other| case.over(other, "rate")))
            };
            let volume = case.median("rate").map(|rate| rate * bytes as f64 / 1e9);
            lines.push(vec![
                name(case),
                millions(case),
                cell(volume),
                over("textbook", "poll", "single"),
                over("copies", "poll", "single"),
                match case.label("link") {
                    "eshm" => over("eshm", case.label("wait"), "single"),
                    _ => String::new(),
                },
            ]);
        }
    }
    run.table(&format!("stream, {bytes} bytes"), &lines);
}

fn name(case: &Case) -> String {
    let place = case.label("where");
    match case.label("link") {
        "eshm" => format!("{place}: eshm {}, {}", case.label("wait"), case.label("mode")),
        "copies" => format!("{place}: raw two copies"),
        other => format!("{place}: {other} ring"),
    }
}

/// What a mixture would make if each message cost what it costs among its like.
fn weighted(run: &Run, frame: &str) -> Option<f64> {
    let rate =
        |what| run.case(&[("table", "mixed"), ("frame", frame), ("what", what)])?.median("rate");
    let long = 1.0 / LONG_EVERY as f64;
    Some(1.0 / ((1.0 - long) / rate("48")? + long / rate("4096")?))
}

fn better_weighted(run: &Run) -> Option<f64> {
    let all = FRAMES.iter().filter_map(|frame| weighted(run, &frame.to_string()));
    all.reduce(f64::max)
}

fn mixture_table(run: &mut Run) {
    let better = better_weighted(run);
    let mut lines =
        vec![row(["M msg/s", "48 B", "4 KiB", "weighted", "mixed", "x better weighted"])];
    for frame in FRAMES.map(|frame| frame.to_string()) {
        let case = |what| run.case(&[("table", "mixed"), ("frame", &frame), ("what", what)]);
        let mut line = vec![format!("frames of {frame} bytes")];
        line.extend(["48", "4096"].map(|what| case(what).map_or(String::new(), millions)));
        line.push(cell(weighted(run, &frame).map(|rate| rate / 1e6)));
        let mixed = case("mixed").and_then(|case| case.median("rate"));
        line.push(cell(mixed.map(|rate| rate / 1e6)));
        line.push(cell(mixed.zip(better).map(|(mixed, better)| mixed / better)));
        lines.push(line);
    }
    run.table(
        "95 % of 48 bytes, 5 % of 4 KiB; weighted: by the time that each takes alone",
        &lines,
    );
}

fn company_table(run: &mut Run) {
    let alone = run.case(&[("who", "alone")]);
    let mut lines =
        vec![row(["", "M msg/s", "x alone", "looks", "messages tapped", "passed over"])];
    for (who, title) in [
        ("alone", "alone"),
        ("waker", "a process that only wakes up 1,000 times a second"),
        ("tap", "a tap that looks 1,000 times a second"),
    ] {
        let Some(case) = run.case(&[("who", who)]) else { continue };
        let mut line = vec![title.to_string(), millions(case)];
        line.push(cell(alone.and_then(|alone| case.over(alone, "rate"))));
        line.extend(["looks", "tapped", "passed_over"].map(|name| cell(case.median(name))));
        lines.push(line);
    }
    run.table("stream, 48 bytes, with a third process that has no core of its own", &lines);
}

fn burst_table(run: &mut Run) {
    let spin = run.case(&[("table", "bursts"), ("wait", "spin")]);
    let mut lines = vec![row(["ns per message", "p50", "p90", "p99", "max", "x reader spins"])];
    for wait in ["poll", "spin", "adaptive"] {
        let Some(case) = run.case(&[("table", "bursts"), ("wait", wait)]) else { continue };
        let mut line = vec![format!("both sides {wait}")];
        line.extend(["p50", "p90", "p99", "max"].map(|name| cell(case.median(name))));
        line.push(cell(spin.and_then(|spin| case.over(spin, "p50"))));
        lines.push(line);
    }
    run.table(
        &format!("a write alone, 48 bytes, in bursts of {} to a reader that keeps up", play::BURST),
        &lines,
    );
}

fn targets(run: &mut Run) {
    let sized = |link, bytes, mode| {
        let wait = if link == "eshm" { "spin" } else { "poll" };
        run.case(&[
            ("table", "sizes"),
            ("link", link),
            ("bytes", bytes),
            ("wait", wait),
            ("mode", mode),
            ("where", "pinned"),
        ])
    };
    let over = |case: Option<&Case>, other: Option<&Case>| case?.over(other?, "rate");
    let single = |bytes| sized("eshm", bytes, "single");
    let copies = |bytes| over(single(bytes), sized("copies", bytes, "single"));
    let bursts = |wait| run.case(&[("table", "bursts"), ("wait", wait)]);
    let cost = bursts("adaptive").zip(bursts("spin")).and_then(|(a, s)| a.over(s, "p50"));
    let company = |who| run.case(&[("table", "company"), ("who", who)]);
    let mixed = run.case(&[("table", "mixed"), ("frame", "64"), ("what", "mixed")]);
    let mixed = mixed.and_then(|case| case.median("rate")).zip(better_weighted(run));
    let textbook = over(single("48"), sized("textbook", "48", "single"));
    let batches = over(sized("eshm", "48", "batches"), single("48"));
    let in_place = over(sized("eshm", "65536", "in place"), single("65536"));
    let lines = [
        target("48 B, single calls / textbook ring", ">= 2", textbook),
        target("48 B, batches / single calls", ">= 1.4", batches),
        target("4 KiB, single calls / raw two copies", ">= 0.9", copies("4096")),
        target("64 KiB, single calls / raw two copies", ">= 0.9", copies("65536")),
        target("64 KiB, in place / copying", ">= 1.6", in_place),
        target("a write, reader may sleep / reader spins", "<= 1.15", cost),
        target("48 B, with a tap / alone", ">= 0.95", over(company("tap"), company("alone"))),
        target("48 B, with a tap / with a mere waker", "", over(company("tap"), company("waker"))),
        target("mixed / better weighted", ">= 0.7", mixed.map(|(mixed, better)| mixed / better)),
    ];
    run.targets(&lines);
}
