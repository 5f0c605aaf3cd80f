//! Throughput as bars, a group for each message size.

use crate::output::units;

use super::super::results::{Results, Throughput};
use super::{class, svg};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 140.0;
const RIGHT: f64 = 190.0;
const BAR: f64 = 20.0;
const GAP: f64 = 6.0;
const HEAD: f64 = 34.0;
const AFTER: f64 = 18.0;

/// The picture.
pub fn draw(results: &Results) -> String {
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
            content.push_str(&bar(stream, stream.messages_per_s / longest, y));
            y += BAR + GAP;
        }
        y += AFTER;
    }
    svg::picture(WIDTH, y, "Throughput by message size", &content)
}

fn bar(stream: &Throughput, share: f64, y: f64) -> String {
    let length = (share * (WIDTH - LEFT - RIGHT)).max(2.0);
    let numbers = format!(
        "{}   {}",
        units::rate(stream.messages_per_s),
        units::bandwidth(stream.bytes_per_s())
    );
    let hint = format!("{}, {}: {numbers}", stream.transport, units::bytes(stream.size as u64));
    let middle = y + BAR * 0.72;
    svg::words(LEFT - 12.0, middle, "label end", stream.transport)
        + &svg::block((LEFT, y), (length, BAR), &format!("bar {}", class(stream.transport)), &hint)
        + &svg::words(LEFT + length + 10.0, middle, "value", numbers)
}
