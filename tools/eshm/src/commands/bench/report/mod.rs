//! The report: one page that stands alone, for a person to look at. No script, nothing fetched;
//! light or dark as the reader's system is.

mod bars;
mod curves;
mod svg;
mod topology;

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::output::percentiles::Summary;
use crate::output::units;

use super::limit;
use super::results::{Latency, Results, Throughput};
use svg::text as safe;

/// The page.
pub fn page(results: &Results) -> String {
    let mut body = String::new();
    body.push_str(&header(results));
    body.push_str(&highlights(results));
    body.push_str(&section(
        "Round trips",
        &format!("A message of {} there and back, from the fastest to the slowest in a hundred thousand. Lower is better; both axes are logarithmic.", units::bytes(results.size as u64)),
        &format!("{}{}", curves::draw(&results.latencies), latency_table(results)),
    ));
    body.push_str(&section(
        "Throughput",
        "One way, as fast as it goes, every message counted and checked on arrival. Longer is better; each group has its own scale.",
        &format!("{}{}", bars::draw(results), stream_table(results)),
    ));
    body.push_str(&section(
        "The machine",
        &format!(
            "{}, {} of memory, Linux {}, clock source {}{}. The two marked threads were measured.",
            safe(&results.machine.model),
            units::bytes(results.machine.memory_bytes),
            safe(&results.machine.kernel),
            safe(&results.machine.clock_source),
            if results.machine.virtual_machine { ", a virtual machine" } else { "" }
        ),
        &topology::draw(&results.machine, results.pair),
    ));
    body.push_str(&footer(results));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>eshm bench</title>\n\
         <style>\n{}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        include_str!("page.css")
    )
}

/// The class that gives a transport its colour.
pub fn class(transport: &str) -> &'static str {
    match transport {
        "eshm" => "t-spin",
        "eshm adaptive" => "t-adaptive",
        "eshm asleep" => "t-asleep",
        "eshm batch" => "t-batch",
        "Unix socket" => "t-socket",
        "pipe" => "t-pipe",
        _ => "t-limit",
    }
}

fn section(title: &str, lead: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n<p class=\"lead\">{lead}</p>\n{content}</section>\n")
}

fn header(results: &Results) -> String {
    let pair = results.pair.map_or("one hardware thread".to_string(), |(a, b)| {
        format!("hardware threads {a} and {b}")
    });
    let busy = match results.machine.busy() {
        busy if busy.is_empty() => busy,
        busy => format!("; {busy}"),
    };
    format!(
        "<header>\n<p class=\"brand\">eshm</p>\n<h1>From one process to another</h1>\n\
         <p class=\"lead\">Measured on {} between two processes on {pair}, {}{busy}.</p>\n</header>\n",
        safe(&results.machine.model),
        date()
    )
}

/// Three numbers to remember.
fn highlights(results: &Results) -> String {
    let median = |name: &str| {
        results
            .latencies
            .iter()
            .find(|latency| latency.transport == name)
            .map(|latency| latency.histogram.value_at_percentile(50.0))
    };
    let smallest = results.sizes().first().copied().unwrap_or(0);
    let stream = |name: &str, size: usize| {
        results.throughputs.iter().find(|stream| stream.transport == name && stream.size == size)
    };
    let best = |names: &[&str], by: fn(&Throughput) -> f64| {
        let all = results.throughputs.iter().filter(|stream| names.contains(&stream.transport));
        all.max_by(|a, b| by(a).total_cmp(&by(b)))
    };
    let mut cards = String::new();
    if let (Some(ours), Some(socket)) = (median("eshm"), median("Unix socket")) {
        let beside = median(limit::BOUNCE).map_or(String::new(), |limit| {
            format!(", {:.2} × the physical limit", ours as f64 / limit.max(1) as f64)
        });
        cards.push_str(&card(
            "round trip, median",
            &units::nanos(ours),
            &format!(
                "{} than a Unix socket{beside}",
                times(socket as f64 / ours.max(1) as f64, "faster")
            ),
        ));
    }
    if let (Some(ours), Some(socket)) = (stream("eshm", smallest), stream("Unix socket", smallest))
    {
        let note = format!(
            "of {}, one call each; {} than a Unix socket",
            units::bytes(smallest as u64),
            times(ours.messages_per_s / socket.messages_per_s.max(1.0), "more")
        );
        cards.push_str(&card(
            "messages per second",
            &units::rate(ours.messages_per_s).replace("/s", ""),
            &note,
        ));
    }
    if let (Some(ours), Some(other)) = (
        best(&["eshm", "eshm batch"], Throughput::bytes_per_s),
        best(&["Unix socket", "pipe"], Throughput::bytes_per_s),
    ) {
        let note = format!(
            "in messages of {}; the best of socket and pipe: {}",
            units::bytes(ours.size as u64),
            units::bandwidth(other.bytes_per_s())
        );
        cards.push_str(&card("payload", &units::bandwidth(ours.bytes_per_s()), &note));
    }
    format!("<div class=\"cards\">\n{cards}</div>\n")
}

fn times(factor: f64, word: &str) -> String {
    if factor >= 10.0 { format!("{factor:.0} × {word}") } else { format!("{factor:.1} × {word}") }
}

fn card(title: &str, number: &str, note: &str) -> String {
    let (value, unit) = number.trim().split_once(' ').unwrap_or((number.trim(), ""));
    format!(
        "<div class=\"card\"><h3>{title}</h3><p class=\"number\">{value}<small>{unit}</small></p><p>{note}</p></div>\n"
    )
}

fn latency_table(results: &Results) -> String {
    let mut rows = String::new();
    for latency in &results.latencies {
        let summary = Summary::of(&latency.histogram);
        let times = [
            summary.min_ns,
            summary.p50_ns,
            summary.p90_ns,
            summary.p99_ns,
            summary.p999_ns,
            summary.p9999_ns,
            summary.max_ns,
        ];
        let cells: String =
            times.iter().map(|&ns| format!("<td>{}</td>", units::nanos(ns))).collect();
        let _ = writeln!(
            rows,
            "<tr><th>{}{}</th>{cells}<td>{}</td></tr>",
            dot(latency.transport),
            latency.transport,
            units::count(summary.count)
        );
    }
    table(&["", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max", "count"], &rows)
}

fn stream_table(results: &Results) -> String {
    let mut rows = String::new();
    for stream in &results.throughputs {
        let _ = writeln!(
            rows,
            "<tr><th>{}{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            dot(stream.transport),
            stream.transport,
            units::bytes(stream.size as u64),
            units::rate(stream.messages_per_s),
            units::bandwidth(stream.bytes_per_s())
        );
    }
    table(&["", "message", "messages", "payload"], &rows)
}

fn table(head: &[&str], rows: &str) -> String {
    let head: String = head.iter().map(|name| format!("<th>{name}</th>")).collect();
    format!(
        "<details><summary>The numbers</summary>\n<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div></details>\n"
    )
}

fn dot(transport: &str) -> String {
    format!("<i class=\"dot {}\"></i>", class(transport))
}

fn footer(results: &Results) -> String {
    format!(
        "<footer>\n<p>Made by eshm {}: <code>eshm bench --report</code>, {} for each measurement. \
         “eshm” spins while it waits, “adaptive” spins a little and then sleeps, “asleep” always sleeps; “batch” hands over many messages with one call. \
         “{}” is one word bounced between two cores: no round trip can be faster. “{}” is a block that one core copies in and hands through a channel of the same process to another, which copies it out.</p>\n</footer>\n",
        env!("CARGO_PKG_VERSION"),
        units::nanos(crate::clock::ns(results.time)),
        limit::BOUNCE,
        limit::COPY
    )
}

/// Today, as year, month and day.
fn date() -> String {
    let days =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() / 86_400);
    let (year, month, day) = civil(days);
    format!("{year}-{month:02}-{day:02}")
}

/// The Gregorian date that many days after 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The curve of a histogram: how many nines, and nanoseconds.
pub fn curve(latency: &Latency) -> Vec<(f64, f64)> {
    let total = latency.histogram.len() as f64;
    let steps = latency.histogram.iter_quantiles(10);
    let points = steps.map(|step| {
        let left = (1.0 - step.quantile_iterated_to()).max(1.0 / total.max(1.0));
        (-left.log10(), step.value_iterated_to() as f64)
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::output::percentiles;

    fn results() -> Results {
        let mut results =
            Results::new(Machine::read(), Some((0, 1)), 48, std::time::Duration::from_secs(1));
        results.machine.model = "A <b>&\"strange\" one".into();
        for (transport, base) in [("eshm", 400), ("Unix socket", 15_000), (limit::BOUNCE, 380)] {
            let mut histogram = percentiles::histogram();
            (0..10_000).for_each(|step| histogram.saturating_record(base + step / 100));
            results.latencies.push(Latency { transport, histogram });
            results.throughputs.push(Throughput {
                transport,
                size: 48,
                messages_per_s: 1e9 / base as f64,
            });
        }
        results
    }

    #[test]
    fn the_page_stands_alone_and_is_well_formed() {
        let page = page(&results());
        for fetched in ["http://", "https://", "src=", "<script", "url(", "@import"] {
            assert!(!page.contains(fetched), "{fetched}");
        }
        assert!(!page.contains("<b>&"), "names are escaped");
        let mut open = Vec::new();
        let tags = page.split('<').skip(1).filter_map(|rest| rest.split('>').next());
        for tag in tags.filter(|tag| {
            !tag.ends_with('/') && !tag.starts_with(['!', 'm']) || tag.starts_with("main")
        }) {
            match tag.strip_prefix('/') {
                Some(name) if name != "meta" => assert_eq!(open.pop().as_deref(), Some(name)),
                Some(_) => {}
                None => open.push(tag.split([' ', '\n']).next().unwrap_or_default().to_string()),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        assert!(!page.contains("NaN") && !page.contains("inf "));
    }

    /// The words of a picture, as far as they reach to the left and to the right, in about the width
    /// of a wide font.
    fn words(picture: &str) -> Vec<(f64, f64, &str)> {
        let texts = picture.split("<text x=\"").skip(1).map(|rest| {
            let (x, rest) = rest.split_once('"').unwrap();
            let (tag, rest) = rest.split_once('>').unwrap();
            let shown = rest.split('<').next().unwrap();
            let (x, width) = (x.parse::<f64>().unwrap(), shown.chars().count() as f64 * 7.6);
            let left = match tag {
                tag if tag.contains(" middle") => x - width / 2.0,
                tag if tag.contains(" end") => x - width,
                _ => x,
            };
            (left, left + width, shown)
        });
        texts.collect()
    }

    #[test]
    fn no_word_is_cut_off_by_the_edge_of_its_picture() {
        assert!(!include_str!("page.css").contains("min-width: 6"), "no picture needs a width");
        let mut results = results();
        for (transport, messages_per_s) in [("eshm adaptive", 95.2e6), ("two bare copies", 320e3)] {
            let size = 65_536;
            results.throughputs.push(Throughput { transport, size, messages_per_s });
        }
        let page = page(&results);
        for width in [960.0, 440.0] {
            let head = format!("viewBox=\"0 0 {width:.0} ");
            let pictures: Vec<&str> =
                page.split("<svg ").filter(|part| part.contains(&head)).collect();
            assert_eq!(pictures.len(), 3);
            for (left, right, word) in pictures.into_iter().flat_map(words) {
                assert!(
                    left >= -2.0 && right <= width + 2.0,
                    "{word:?} is at {left} to {right} of {width}"
                );
            }
        }
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1970, 1, 1));
        assert_eq!(civil(19_782), (2024, 2, 29));
        assert_eq!(civil(20_454), (2026, 1, 1));
    }
}
