//! Percentile curves: how slow is the slowest of a hundred, of a thousand, of a hundred thousand.

use crate::output::units;

use super::super::results::Latency;
use super::svg::{self, Page};
use super::{class, curve, dot};

const TOP: f64 = 16.0;
const BOTTOM: f64 = 40.0;
/// Nines that the picture shows: up to one in a hundred thousand.
const NINES: f64 = 5.0;
/// Labels nearer than this would overlap.
const LABEL_GAP: f64 = 17.0;

/// Where values lie in the picture.
struct Scale {
    page: Page,
    lowest: f64,
    highest: f64,
}

impl Scale {
    fn of(page: Page, latencies: &[Latency]) -> Scale {
        let shown =
            latencies.iter().flat_map(curve).filter(|point| point.0 <= NINES).map(|point| point.1);
        let (mut lowest, mut highest) = (f64::MAX, 1.0f64);
        for ns in shown {
            lowest = lowest.min(ns);
            highest = highest.max(ns);
        }
        // A little air above and below.
        Scale { page, lowest: (lowest.min(highest) / 1.6).max(1.0), highest: highest * 1.6 }
    }

    fn left(&self) -> f64 {
        if self.page == Page::Wide { 70.0 } else { 58.0 }
    }

    /// Where the curves end; a wide page has their names behind it.
    fn right(&self) -> f64 {
        self.page.width() - if self.page == Page::Wide { 130.0 } else { 28.0 }
    }

    fn height(&self) -> f64 {
        if self.page == Page::Wide { 430.0 } else { 340.0 }
    }

    fn bottom(&self) -> f64 {
        self.height() - BOTTOM
    }

    fn x(&self, nines: f64) -> f64 {
        self.left() + nines / NINES * (self.right() - self.left())
    }

    fn y(&self, ns: f64) -> f64 {
        let share = (ns / self.lowest).log10() / (self.highest / self.lowest).log10();
        self.bottom() - share * (self.bottom() - TOP)
    }
}

/// The picture. On a narrow page the names of the curves stand above it.
pub fn draw(latencies: &[Latency]) -> String {
    let names: String = latencies
        .iter()
        .map(|latency| format!("<span>{}{}</span>\n", dot(latency.transport), latency.transport))
        .collect();
    let [wide, narrow] = Page::ALL.map(|page| draw_for(page, latencies));
    format!("{wide}<p class=\"legend narrow\">\n{names}</p>\n{narrow}")
}

fn draw_for(page: Page, latencies: &[Latency]) -> String {
    let scale = Scale::of(page, latencies);
    let mut content = grid(&scale);
    let mut labels: Vec<(f64, &Latency)> = Vec::new();
    for latency in latencies {
        let points: Vec<(f64, f64)> = curve(latency)
            .into_iter()
            .filter(|point| point.0 <= NINES)
            .map(|(nines, ns)| (scale.x(nines), scale.y(ns.max(scale.lowest))))
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
    if page == Page::Wide {
        content.push_str(&label(&scale, labels));
    }
    svg::picture(page, scale.height(), "Percentile curves of round trips", &content)
}

/// Names at the ends of the curves, pushed apart where they would overlap.
fn label(scale: &Scale, mut labels: Vec<(f64, &Latency)>) -> String {
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    for index in 1..labels.len() {
        labels[index].0 = labels[index].0.max(labels[index - 1].0 + LABEL_GAP);
    }
    let overshoot = labels.last().map_or(0.0, |last| (last.0 - scale.bottom()).max(0.0));
    let place = |(y, latency): (f64, &Latency)| {
        svg::words(
            scale.right() + 10.0,
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
    let mut marks: Vec<(f64, &str)> = ["min", "p90", "p99", "p99.9", "p99.99", "p99.999"]
        .into_iter()
        .enumerate()
        .map(|(nines, name)| (nines as f64, name))
        .collect();
    // On a narrow page the words of the first two would touch.
    marks.push((2f64.log10(), if scale.page == Page::Wide { "p50" } else { "" }));
    for (nines, name) in marks {
        let x = scale.x(nines);
        content.push_str(&svg::line((x, TOP), (x, scale.bottom()), "grid"));
        content.push_str(&svg::words(x, scale.bottom() + 22.0, "tick middle", name));
    }
    let mut power = 1.0;
    while power < scale.highest {
        for (step, kind) in [(1.0, "grid strong"), (2.0, "grid"), (5.0, "grid")] {
            let ns: f64 = power * step;
            if ns > scale.lowest && ns < scale.highest {
                let y = scale.y(ns);
                content.push_str(&svg::line((scale.left(), y), (scale.right(), y), kind));
                if step == 1.0 || scale.highest / scale.lowest < 100.0 {
                    content.push_str(&svg::words(
                        scale.left() - 10.0,
                        y + 4.0,
                        "tick end",
                        round(ns),
                    ));
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
