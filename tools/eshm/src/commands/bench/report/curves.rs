//! Percentile curves: how slow is the slowest of a hundred, of a thousand, of a hundred thousand.

use crate::output::units;

use super::super::results::Latency;
use super::{class, curve, svg};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 430.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 40.0;
/// Nines that the picture shows: up to one in a hundred thousand.
const NINES: f64 = 5.0;
/// Labels nearer than this would overlap.
const LABEL_GAP: f64 = 17.0;

/// Where values lie in the picture.
struct Scale {
    lowest: f64,
    highest: f64,
}

impl Scale {
    fn of(latencies: &[Latency]) -> Scale {
        let shown =
            latencies.iter().flat_map(curve).filter(|point| point.0 <= NINES).map(|point| point.1);
        let (mut lowest, mut highest) = (f64::MAX, 1.0f64);
        for ns in shown {
            lowest = lowest.min(ns);
            highest = highest.max(ns);
        }
        // A little air above and below.
        Scale { lowest: (lowest.min(highest) / 1.6).max(1.0), highest: highest * 1.6 }
    }

    fn x(nines: f64) -> f64 {
        LEFT + nines / NINES * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, ns: f64) -> f64 {
        let share = (ns / self.lowest).log10() / (self.highest / self.lowest).log10();
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

/// The picture.
pub fn draw(latencies: &[Latency]) -> String {
    let scale = Scale::of(latencies);
    let mut content = grid(&scale);
    let mut labels: Vec<(f64, &Latency)> = Vec::new();
    for latency in latencies {
        let points: Vec<(f64, f64)> = curve(latency)
            .into_iter()
            .filter(|point| point.0 <= NINES)
            .map(|(nines, ns)| (Scale::x(nines), scale.y(ns.max(scale.lowest))))
            .collect();
        let Some(end) = points.last().copied() else { continue };
        let median = units::nanos(latency.histogram.value_at_percentile(50.0));
        let hint = format!("{}: median {median}", latency.transport);
        content.push_str(&svg::path(
            &points,
            &format!("curve {}", class(latency.transport)),
            &hint,
        ));
        labels.push((end.1, latency));
    }
    content.push_str(&label(labels));
    svg::picture(WIDTH, HEIGHT, "Percentile curves of round trips", &content)
}

/// Names at the ends of the curves, pushed apart where they would overlap.
fn label(mut labels: Vec<(f64, &Latency)>) -> String {
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    for index in 1..labels.len() {
        labels[index].0 = labels[index].0.max(labels[index - 1].0 + LABEL_GAP);
    }
    let overshoot = labels.last().map_or(0.0, |last| (last.0 - (HEIGHT - BOTTOM)).max(0.0));
    let place = |(y, latency): (f64, &Latency)| {
        svg::words(
            WIDTH - RIGHT + 10.0,
            y - overshoot + 4.0,
            &format!("name {}", class(latency.transport)),
            latency.transport,
        )
    };
    labels.into_iter().map(place).collect()
}

/// Lines for each power of ten and each nine, with what they mean.
fn grid(scale: &Scale) -> String {
    let mut content = String::new();
    let names = ["all", "p90", "p99", "p99.9", "p99.99", "p99.999"];
    for (nines, name) in names.iter().enumerate() {
        let x = Scale::x(nines as f64);
        content.push_str(&svg::line((x, TOP), (x, HEIGHT - BOTTOM), "grid"));
        content.push_str(&svg::words(
            x,
            HEIGHT - BOTTOM + 22.0,
            "tick middle",
            if nines == 0 { "min" } else { name },
        ));
    }
    let median = Scale::x(2f64.log10());
    content.push_str(&svg::line((median, TOP), (median, HEIGHT - BOTTOM), "grid"));
    content.push_str(&svg::words(median, HEIGHT - BOTTOM + 22.0, "tick middle", "p50"));
    let mut power = 1.0;
    while power < scale.highest {
        for (step, kind) in [(1.0, "grid strong"), (2.0, "grid"), (5.0, "grid")] {
            let ns: f64 = power * step;
            if ns > scale.lowest && ns < scale.highest {
                let y = scale.y(ns);
                content.push_str(&svg::line((LEFT, y), (WIDTH - RIGHT, y), kind));
                if step == 1.0 || scale.highest / scale.lowest < 100.0 {
                    content.push_str(&svg::words(LEFT - 10.0, y + 4.0, "tick end", round(ns)));
                }
            }
        }
        power *= 10.0;
    }
    content
}

/// A time of the grid, which is always a round one.
fn round(ns: f64) -> String {
    for (unit, size) in [("s", 1e9), ("ms", 1e6), ("µs", 1e3)] {
        if ns >= size {
            return format!("{:.0} {unit}", ns / size);
        }
    }
    format!("{ns:.0} ns")
}
