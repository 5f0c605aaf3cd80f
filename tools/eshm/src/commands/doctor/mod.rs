//! `eshm doctor`: what on this machine stands in the way, each finding with its remedy.

mod checks;

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::json;

use crate::exit::{FAILED, Failure, Outcome};
use crate::open::Place;
use crate::output::Out;
use crate::output::style::{self, Paint};

/// Options of `eshm doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON: an array of findings
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    place: Place,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Good,
    /// Works, and could be better.
    Warn,
    /// Does not work, or loses data.
    Bad,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What is there.
    pub what: String,
    /// What to do about it; empty when all is well.
    pub remedy: String,
}

impl Finding {
    /// As it should be.
    pub fn good(check: &'static str, what: impl Into<String>) -> Finding {
        Finding { check, level: Level::Good, what: what.into(), remedy: String::new() }
    }

    /// Not as it should be, and what to do about it.
    pub fn new(
        check: &'static str,
        level: Level,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { check, level, what: what.into(), remedy: remedy.into() }
    }
}

impl Args {
    /// Looks; fails when something is bad.
    pub fn run(self) -> Outcome {
        let findings = checks::all(&self.place.dir);
        let mut out = Out::stdout(None)?;
        if self.json {
            let list: Vec<_> = findings.iter().map(as_json).collect();
            writeln!(out, "{}", serde_json::Value::from(list))?;
        } else {
            write!(out, "{}", render(&findings, style::stdout()))?;
        }
        out.flush()?;
        match findings.iter().filter(|finding| finding.level == Level::Bad).count() {
            0 => Ok(()),
            1 => Err(Failure::new(FAILED, "one finding needs a remedy")),
            bad => Err(Failure::new(FAILED, format!("{bad} findings need a remedy"))),
        }
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    let level = match finding.level {
        Level::Good => "good",
        Level::Warn => "warn",
        Level::Bad => "bad",
    };
    json!({ "check": finding.check, "level": level, "what": finding.what, "remedy": finding.remedy })
}

fn render(findings: &[Finding], paint: Paint) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.level {
            Level::Good => paint.green("ok  "),
            Level::Warn => paint.yellow("warn"),
            Level::Bad => paint.red("BAD "),
        };
        let _ = writeln!(
            text,
            "{mark}  {}  {}",
            paint.bold(format!("{:<12}", finding.check)),
            finding.what
        );
        if !finding.remedy.is_empty() {
            let _ =
                writeln!(text, "                    {} {}", paint.dim("remedy:"), finding.remedy);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_that_is_not_good_tells_its_remedy() {
        for finding in checks::all(std::path::Path::new("/dev/shm")) {
            assert_eq!(finding.level == Level::Good, finding.remedy.is_empty(), "{finding:?}");
        }
    }
}
