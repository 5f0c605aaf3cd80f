//! Numbers as people read them. Scripts use `--json`, where every number is a plain one.

use std::time::Duration;

/// Bytes: `512 B`, `1.0 MiB`.
pub fn bytes(count: u64) -> String {
    scaled(count as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Bytes in a second: `13.2 GB/s`, in thousands as is usual for speeds.
pub fn bandwidth(bytes_per_s: f64) -> String {
    scaled(bytes_per_s, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s", "TB/s"])
}

/// Things in a second: `95.2 M/s`.
pub fn rate(per_s: f64) -> String {
    scaled(per_s, 1000.0, &["/s", "k/s", "M/s", "G/s"])
}

/// Three digits and a unit.
fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value;
    let mut unit = 0;
    while value >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    if unit == 0 && value.fract() == 0.0 || value >= 99.95 {
        format!("{value:.0} {}", units[unit])
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// A count with its thousands apart: `1,234,567`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A measured time in nanoseconds: `440 ns`, `12.3 µs`, `4.1 ms`, `2.0 s`.
pub fn nanos(ns: u64) -> String {
    let value = ns as f64;
    if ns < 1000 {
        format!("{ns} ns")
    } else if value < 999_950.0 {
        short(value / 1e3, "µs")
    } else if value < 999_950_000.0 {
        short(value / 1e6, "ms")
    } else {
        short(value / 1e9, "s")
    }
}

fn short(value: f64, unit: &str) -> String {
    if value < 99.95 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// A long time in the two units that matter: `3 s`, `5 min`, `2 h 10 min`, `4 d 3 h`.
pub fn age(time: Duration) -> String {
    let s = time.as_secs();
    let two = |big: u64, big_unit: &str, small: u64, small_unit: &str| {
        if small == 0 {
            format!("{big} {big_unit}")
        } else {
            format!("{big} {big_unit} {small} {small_unit}")
        }
    };
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => two(s / 3600, "h", s / 60 % 60, "min"),
        _ => two(s / 86_400, "d", s / 3600 % 24, "h"),
    }
}

/// One thing or several: `1 message`, `17 messages`.
pub fn plural(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_speeds_have_three_digits_and_a_unit() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1 << 20), "1.0 MiB");
        assert_eq!(bytes(150 << 20), "150 MiB");
        assert_eq!(bandwidth(13.24e9), "13.2 GB/s");
        assert_eq!(rate(95_240_000.0), "95.2 M/s");
        assert_eq!(rate(999_999.0), "1.0 M/s");
    }

    #[test]
    fn times_pick_the_unit_that_reads_best() {
        assert_eq!(nanos(440), "440 ns");
        assert_eq!(nanos(12_340), "12.3 µs");
        assert_eq!(nanos(999_999), "1.0 ms");
        assert_eq!(nanos(104_000_000), "104 ms");
        assert_eq!(age(Duration::from_secs(59)), "59 s");
        assert_eq!(age(Duration::from_secs(7800)), "2 h 10 min");
        assert_eq!(age(Duration::from_secs(86_400)), "1 d");
    }

    #[test]
    fn counts_keep_their_thousands_apart() {
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(plural(1, "message"), "1 message");
        assert_eq!(plural(2000, "message"), "2,000 messages");
    }
}
