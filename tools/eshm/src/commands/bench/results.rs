//! What was measured: as a table, as JSON, and for the report.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::machine::Machine;
use crate::output::percentiles::Summary;
use crate::output::style::Paint;
use crate::output::table::{Align, Cell, Table};
use crate::output::units;

use super::near::Streamed;

/// Round trips over one transport.
pub struct Latency {
    /// Its name.
    pub transport: &'static str,
    /// Nanoseconds.
    pub histogram: Histogram<u64>,
}

/// A stream over one transport.
#[derive(Debug, Clone, Copy)]
pub struct Throughput {
    /// Its name.
    pub transport: &'static str,
    /// Bytes of a message.
    pub size: usize,
    /// Messages that arrived in a second.
    pub messages_per_s: f64,
}

impl Throughput {
    /// From what a stream came to.
    pub fn new(transport: &'static str, size: usize, streamed: Streamed) -> Throughput {
        Throughput {
            transport,
            size,
            messages_per_s: streamed.messages as f64 / streamed.seconds.max(1e-9),
        }
    }

    /// Payload that arrived in a second.
    pub fn bytes_per_s(&self) -> f64 {
        self.messages_per_s * self.size as f64
    }
}

/// Everything.
pub struct Results {
    /// Where.
    pub machine: Machine,
    /// Between which hardware threads.
    pub pair: Option<(usize, usize)>,
    /// Bytes of a message in the round trips.
    pub size: usize,
    /// How long each measurement took.
    pub time: Duration,
    /// Round trips.
    pub latencies: Vec<Latency>,
    /// Streams.
    pub throughputs: Vec<Throughput>,
}

impl Results {
    /// Nothing measured yet.
    pub fn new(
        machine: Machine,
        pair: Option<(usize, usize)>,
        size: usize,
        time: Duration,
    ) -> Results {
        Results { machine, pair, size, time, latencies: Vec::new(), throughputs: Vec::new() }
    }

    /// The message sizes of the streams, each once.
    pub fn sizes(&self) -> Vec<usize> {
        let mut sizes: Vec<usize> = self.throughputs.iter().map(|stream| stream.size).collect();
        sizes.sort_unstable();
        sizes.dedup();
        sizes
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let latency = |latency: &Latency| json!({ "transport": latency.transport, "round_trip": Summary::of(&latency.histogram) });
        let stream = |stream: &Throughput| {
            json!({ "transport": stream.transport, "size_bytes": stream.size,
                    "messages_per_s": stream.messages_per_s.round(), "bytes_per_s": stream.bytes_per_s().round() })
        };
        json!({
            "machine": self.machine,
            "cpus": self.pair.map(|(a, b)| vec![a, b]),
            "size_bytes": self.size,
            "seconds": self.time.as_secs_f64(),
            "latency": self.latencies.iter().map(latency).collect::<Vec<_>>(),
            "throughput": self.throughputs.iter().map(stream).collect::<Vec<_>>(),
        })
    }

    /// For people.
    pub fn render(&self, paint: Paint) -> String {
        let place = match self.pair {
            Some((a, b)) => format!("threads {a} and {b} of {}", self.machine.model),
            None => format!("one thread of {}", self.machine.model),
        };
        let mut text = format!(
            "{}\n{}\n\n",
            paint.bold(format!("Round trips of {}", units::bytes(self.size as u64))),
            paint.dim(place)
        );
        text.push_str(&self.latency_table().render(paint));
        for size in self.sizes() {
            let _ = write!(
                text,
                "\n{}\n\n",
                paint.bold(format!("Messages of {}, one way", units::bytes(size as u64)))
            );
            text.push_str(&self.stream_table(size).render(paint));
        }
        text
    }

    fn latency_table(&self) -> Table {
        let mut head = vec![("", Align::Left)];
        head.extend(
            ["p50", "p90", "p99", "p99.9", "max", "count"].map(|name| (name, Align::Right)),
        );
        let mut table = Table::new(&head);
        for latency in &self.latencies {
            let summary = Summary::of(&latency.histogram);
            let times =
                [summary.p50_ns, summary.p90_ns, summary.p99_ns, summary.p999_ns, summary.max_ns];
            let mut row = vec![Cell::plain(latency.transport)];
            row.extend(times.map(|ns| Cell::plain(units::nanos(ns))));
            row.push(Cell::plain(units::count(summary.count)));
            table.row(row);
        }
        table
    }

    fn stream_table(&self, size: usize) -> Table {
        let mut table =
            Table::new(&[("", Align::Left), ("messages", Align::Right), ("payload", Align::Right)]);
        for stream in self.throughputs.iter().filter(|stream| stream.size == size) {
            table.row(vec![
                Cell::plain(stream.transport),
                Cell::plain(units::rate(stream.messages_per_s)),
                Cell::plain(units::bandwidth(stream.bytes_per_s())),
            ]);
        }
        table
    }
}
