//! Every figure of every round, for tools.

use std::fs;
use std::path::Path;

use crate::contender::{Measure, Result, Why};
use crate::figure::{Figure, Said, TIMES};
use crate::plan::Plan;
use crate::system::Machine;

/// Writes the file.
pub fn write(path: &Path, plan: &Plan, machine: &Machine, figures: &[Figure]) -> Result<()> {
    let cores = plan.cores.map_or("null".into(), |(near, far)| format!("[{near}, {far}]"));
    let figures: Vec<String> = figures.iter().map(figure_text).collect();
    let text = format!(
        "{{\"machine\": {}, \"kernel\": {}, \"date\": {}, \"load\": {:.2}, \"cores\": {cores}, \
         \"clock_step_ns\": {}, \"rounds\": {}, \"millis\": {}, \"ring_bytes\": {}, \"figures\": [\n{}\n]}}\n",
        quoted(&machine.processor),
        quoted(&machine.kernel),
        quoted(&machine.date),
        machine.load,
        machine.clock_step_ns,
        plan.rounds,
        plan.length.as_millis(),
        plan.ring_bytes,
        figures.join(",\n")
    );
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).why("make the folder of the figures")?;
    }
    fs::write(path, text).why("write the figures")
}

fn figure_text(figure: &Figure) -> String {
    let number = |value: Option<f64>| value.map_or("null".to_string(), |v| format!("{v:.1}"));
    let median = match figure.measure {
        Measure::RoundTrip => {
            TIMES.map(|name| format!("\"{name}_ns\": {}", number(figure.nanos(name)))).join(", ")
        }
        Measure::Stream => format!("\"messages_per_s\": {}", number(figure.rate())),
    };
    let rounds: Vec<String> = figure.rounds.iter().map(round_text).collect();
    format!(
        " {{\"contender\": {}, \"kind\": \"{:?}\", \"bytes\": {}, \"measure\": \"{:?}\", \
         \"mode\": \"{:?}\", \"median\": {{{median}}}, \"trouble\": {}, \"rounds\": [{}]}}",
        quoted(figure.entry.name),
        figure.entry.kind,
        figure.bytes,
        figure.measure,
        figure.mode,
        figure.trouble.as_deref().map_or("null".to_string(), quoted),
        rounds.join(", ")
    )
}

fn round_text(said: &Said) -> String {
    let fact = |(name, value): (&String, &u64)| match TIMES.contains(&name.as_str()) {
        true => format!("\"{name}_ns\": {:.1}", *value as f64 / 10.0),
        false => format!("\"{name}\": {value}"),
    };
    let mut facts: Vec<_> = said.iter().map(fact).collect();
    facts.sort();
    format!("{{{}}}", facts.join(", "))
}

fn quoted(text: &str) -> String {
    let escape = |letter: char| match letter {
        '"' | '\\' => format!("\\{letter}"),
        letter if letter.is_control() => " ".to_string(),
        letter => letter.to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted() {
        assert_eq!(quoted("a \"b\"\n"), "\"a \\\"b\\\" \"");
    }
}
