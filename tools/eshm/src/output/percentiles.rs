//! Latency histograms: the table that people read and the file that plotters read.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The percentiles that are told everywhere, with their names.
pub const TOLD: [(&str, f64); 7] = [
    ("min", 0.0),
    ("p50", 50.0),
    ("p90", 90.0),
    ("p99", 99.0),
    ("p99.9", 99.9),
    ("p99.99", 99.99),
    ("max", 100.0),
];

/// A histogram's percentiles in nanoseconds, as they stand in JSON.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    pub count: u64,
    pub mean_ns: f64,
    pub min_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub p9999_ns: u64,
    pub max_ns: u64,
}

impl Summary {
    /// The summary of a histogram; all zero when it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Summary {
        if histogram.is_empty() {
            return Summary::default();
        }
        let at = |percentile: f64| histogram.value_at_percentile(percentile);
        Summary {
            count: histogram.len(),
            mean_ns: (histogram.mean() * 10.0).round() / 10.0,
            min_ns: histogram.min(),
            p50_ns: at(50.0),
            p90_ns: at(90.0),
            p99_ns: at(99.0),
            p999_ns: at(99.9),
            p9999_ns: at(99.99),
            max_ns: histogram.max(),
        }
    }
}

/// A histogram from a nanosecond to a minute with three significant digits; what is beyond is
/// counted at the end of the scale.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are constants that fit")
}

/// The text format of HdrHistogram, which its plotter and others read; values in microseconds.
pub fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    for step in histogram.iter_quantiles(5) {
        let quantile = step.quantile_iterated_to();
        let total = (quantile * histogram.len() as f64).round();
        let value = step.value_iterated_to() as f64 / 1e3;
        let _ = write!(text, "{value:>12.3} {quantile:>14.12} {total:>10.0}");
        let _ = if quantile < 1.0 {
            writeln!(text, " {:>14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text)
        };
    }
    let _ = writeln!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3
    );
    let _ = writeln!(
        text,
        "#[Max     = {:>12.3}, Total count    = {:>12}]",
        histogram.max() as f64 / 1e3,
        histogram.len()
    );
    let _ =
        writeln!(text, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", histogram.buckets(), 2048);
    text
}

/// How many values fall between each power of two, from the first that has any to the last.
pub fn bands(histogram: &Histogram<u64>) -> Vec<(u64, u64, u64)> {
    let mut bands: Vec<(u64, u64, u64)> = Vec::new();
    for power in 0..36u32 {
        let (low, high) = (1u64 << power, (1u64 << (power + 1)) - 1);
        bands.push((low, high, histogram.count_between(low, high)));
    }
    let first = bands.iter().position(|band| band.2 > 0).unwrap_or(bands.len());
    let last = bands.iter().rposition(|band| band.2 > 0).map_or(0, |index| index + 1);
    bands.get(first..last).unwrap_or_default().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Histogram<u64> {
        let mut histogram = histogram();
        for value in 1..=1000 {
            histogram.saturating_record(value);
        }
        histogram
    }

    #[test]
    fn a_summary_tells_what_was_recorded() {
        let summary = Summary::of(&sample());
        assert_eq!(
            (summary.count, summary.min_ns, summary.p50_ns, summary.max_ns),
            (1000, 1, 500, 1000)
        );
        assert_eq!(Summary::of(&histogram()).max_ns, 0);
    }

    #[test]
    fn the_percentile_file_begins_and_ends_as_plotters_expect() {
        let text = hgrm(&sample());
        assert!(
            text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"),
            "{text}"
        );
        assert!(text.contains("0.500000000000        500           2.00\n"), "{text}");
        assert!(text.lines().last().is_some_and(|line| line.starts_with("#[Buckets")));
    }

    #[test]
    fn bands_hold_every_value_once() {
        let bands = bands(&sample());
        assert_eq!(bands.iter().map(|band| band.2).sum::<u64>(), 1000);
        assert_eq!(bands.first().map(|band| band.0), Some(1));
    }
}
