//! Throughput as bars, a group for each message size.

use crate::output::units;

use super::super::results::{Results, Throughput};
use super::class;
use super::svg::{self, Page};

const LEFT: f64 = 140.0;
const RIGHT: f64 = 190.0;
const BAR: f64 = 20.0;
const GAP: f64 = 6.0;
const HEAD: f64 = 34.0;
const AFTER: f64 = 18.0;
/// A line of words above its bar, where there is no room beside it.
const LINE: f64 = 18.0;
const THIN: f64 = 10.0;

/// The picture.
pub fn draw(results: &Results) -> String {
    Page::ALL.map(|page| draw_for(page, results)).concat()
}

fn draw_for(page: Page, results: &Results) -> String {
    let mut content = String::new();
    let mut y = 0.0;
    for size in results.sizes() {
        let group: Vec<&Throughput> =
            results.throughputs.iter().filter(|stream| stream.size == size).collect();
        content.push_str(&svg::words(
            0.0,
            y + 20.0,
            "group",
            format!("{} messages", units::bytes(size as u64)),
        ));
        y += HEAD;
        let longest = group.iter().map(|stream| stream.messages_per_s).fold(1.0, f64::max);
        for stream in group {
            let share = stream.messages_per_s / longest;
            let (drawn, height) = match page {
                Page::Wide => (bar(stream, share, y), BAR + GAP),
                Page::Narrow => (thin_bar(stream, share, y), LINE + THIN + GAP),
            };
            content.push_str(&drawn);
            y += height;
        }
        y += AFTER;
    }
    svg::picture(page, y, "Throughput by message size", &content)
}

fn bar(stream: &Throughput, share: f64, y: f64) -> String {
    let length = (share * (Page::Wide.width() - LEFT - RIGHT)).max(2.0);
    let middle = y + BAR * 0.72;
    svg::words(LEFT - 12.0, middle, "label end", stream.transport)
        + &block((LEFT, y), (length, BAR), stream)
        + &svg::words(LEFT + length + 10.0, middle, "value", numbers(stream))
}

/// The words above, the bar below.
fn thin_bar(stream: &Throughput, share: f64, y: f64) -> String {
    let width = Page::Narrow.width();
    svg::words(0.0, y + 13.0, "label", stream.transport)
        + &svg::words(width, y + 13.0, "value end", numbers(stream))
        + &block((0.0, y + LINE), ((share * width).max(2.0), THIN), stream)
}

fn block(at: (f64, f64), size: (f64, f64), stream: &Throughput) -> String {
    let bytes = units::bytes(stream.size as u64);
    let hint = format!("{}, {bytes}: {}", stream.transport, numbers(stream));
    svg::block(at, size, &format!("bar {}", class(stream.transport)), &hint)
}

fn numbers(stream: &Throughput) -> String {
    format!("{}   {}", units::rate(stream.messages_per_s), units::bandwidth(stream.bytes_per_s()))
}
