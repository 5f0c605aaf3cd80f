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

    /// The median over the rounds of a time, in nanoseconds.
    pub fn nanos(&self, name: &str) -> Option<f64> {
        median(self.each_nanos(name))
    }

    /// The median over the rounds of the messages per second.
    pub fn rate(&self) -> Option<f64> {
        median(self.each_rate())
    }

    /// A time divided by that of a yardstick, round by round, as the machine may change meanwhile.
    pub fn nanos_over(&self, limit: &Figure, name: &str) -> Option<f64> {
        median(quotients(self.each_nanos(name), limit.each_nanos(name)))
    }

    /// The rate divided by that of a yardstick, round by round.
    pub fn rate_over(&self, limit: &Figure) -> Option<f64> {
        median(quotients(self.each_rate(), limit.each_rate()))
    }

    /// The shortest and the longest of the rounds' medians, if the longest is much longer.
    pub fn drift(&self) -> Option<(f64, f64)> {
        let times = self.each_nanos("p50");
        let least = times.iter().copied().reduce(f64::min)?;
        let most = times.iter().copied().reduce(f64::max)?;
        (most > 1.25 * least).then_some((least, most))
    }

    fn each_nanos(&self, name: &str) -> Vec<f64> {
        self.rounds.iter().filter_map(|said| Some(*said.get(name)? as f64 / 10.0)).collect()
    }

    fn each_rate(&self) -> Vec<f64> {
        let rate =
            |said: &Said| Some(*said.get("messages")? as f64 * 1e9 / *said.get("nanos")? as f64);
        self.rounds.iter().filter_map(rate).collect()
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

/// A contender that fails does so for the rest of the run, so the same place is the same round.
fn quotients(values: Vec<f64>, limits: Vec<f64>) -> Vec<f64> {
    values.iter().zip(limits).map(|(value, limit)| value / limit).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => None,
        count if count % 2 == 1 => Some(values[count / 2]),
        count => Some((values[count / 2 - 1] + values[count / 2]) / 2.0),
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

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mine = figure(&[&[("p50", 20)], &[("p50", 80)], &[("p50", 84)]]);
        let line = figure(&[&[("p50", 10)], &[("p50", 40)], &[("p50", 40)]]);
        assert_eq!(mine.nanos_over(&line, "p50"), Some(2.0));
        assert_eq!(line.drift(), Some((1.0, 4.0)));
        assert_eq!(figure(&[&[("p50", 10)], &[("p50", 11)]]).drift(), None);
    }
}
