//! One place of the table: what the rounds have said of it, and what is made of that.

use std::collections::HashMap;

use crate::contender::{Measure, Mode};
use crate::contenders::Entry;

/// What a round trip says of its times, in tenths of nanoseconds.
pub const TIMES: [&str; 5] = ["p50", "p90", "p99", "p999", "max"];

/// What the two sides of one measurement have said, by name.
pub type Said = HashMap<String, u64>;

/// Everything known of one place of the table.
pub struct Figure {
    /// Who.
    pub entry: &'static Entry,
    /// Message size beside which it is shown.
    pub bytes: usize,
    /// Round trip or stream.
    pub measure: Measure,
    /// How messages are handed over.
    pub mode: Mode,
    /// One per round that came through.
    pub rounds: Vec<Said>,
    /// Why there is none, or none in some round.
    pub trouble: Option<String>,
}

impl Figure {
    /// For the line of progress.
    pub fn label(&self) -> String {
        format!("{} B  {}  {:?} {:?}", self.bytes, self.entry.name, self.measure, self.mode)
    }

    /// The median over the rounds of something that was said in each.
    pub fn median(&self, name: &str) -> Option<f64> {
        self.median_of(|said| said.get(name).map(|value| *value as f64))
    }

    /// The same for a time, which is said in tenths of nanoseconds.
    pub fn nanos(&self, name: &str) -> Option<f64> {
        self.median(name).map(|tenths| tenths / 10.0)
    }

    /// Messages per second.
    pub fn rate(&self) -> Option<f64> {
        self.median_of(|said| {
            Some(*said.get("messages")? as f64 * 1e9 / *said.get("nanos")? as f64)
        })
    }

    fn median_of(&self, value: impl Fn(&Said) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.rounds.iter().filter_map(value).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => None,
            count if count % 2 == 1 => Some(values[count / 2]),
            count => Some((values[count / 2 - 1] + values[count / 2]) / 2.0),
        }
    }

    fn total(&self, name: &str) -> u64 {
        self.rounds.iter().filter_map(|said| said.get(name)).sum()
    }

    /// Messages that did not arrive as they were sent, over all rounds.
    pub fn harm(&self) -> Option<String> {
        let (lost, disordered) = (self.total("lost"), self.total("disordered"));
        let corrupt = self.total("corrupt") + self.total("corrupt_there");
        let (sent, received) = (self.total("sent"), self.total("received"));
        let missing = match self.measure {
            Measure::Stream => lost + sent.saturating_sub(received + lost + corrupt),
            Measure::RoundTrip => 0,
        };
        (missing + corrupt + disordered > 0).then(|| {
            format!("{missing} of {sent} lost, {corrupt} corrupt, {disordered} out of order")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contenders;

    fn figure(rounds: &[&[(&str, u64)]]) -> Figure {
        let said = |facts: &&[(&str, u64)]| {
            facts.iter().map(|(name, value)| (name.to_string(), *value)).collect()
        };
        Figure {
            entry: &contenders::ALL[0],
            bytes: 8,
            measure: Measure::Stream,
            mode: Mode::Single,
            rounds: rounds.iter().map(said).collect(),
            trouble: None,
        }
    }

    #[test]
    fn a_message_lost_before_the_end_is_not_lost_in_silence() {
        let figure = figure(&[&[("sent", 10), ("received", 8), ("lost", 1)]]);
        assert_eq!(figure.harm().unwrap(), "2 of 10 lost, 0 corrupt, 0 out of order");
    }

    #[test]
    fn one_odd_round_does_not_count() {
        let rounds: [&[(&str, u64)]; 3] = [&[("p50", 10)], &[("p50", 9000)], &[("p50", 30)]];
        assert_eq!(figure(&rounds).nanos("p50"), Some(3.0));
        assert_eq!(figure(&rounds[..2]).nanos("p50"), Some(450.5));
    }
}
