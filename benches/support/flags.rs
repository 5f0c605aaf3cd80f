//! The options of a command line.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::{Result, Why};

/// What was given.
pub struct Flags {
    given: BTreeMap<String, String>,
    /// As it was typed.
    line: String,
}

impl Flags {
    /// Reads the options; `None` when help was asked for.
    pub fn parse(args: &[String], switches: &[&str], values: &[&str]) -> Result<Option<Flags>> {
        let mut given = BTreeMap::new();
        // Cargo says `--bench` to every bench.
        let args: Vec<&String> = args.iter().filter(|arg| *arg != "--bench").collect();
        let line = args.iter().map(|arg| format!(" {arg}")).collect();
        let mut args = args.into_iter();
        while let Some(option) = args.next() {
            let name = option.trim_start_matches('-');
            if name == "help" || name == "h" {
                return Ok(None);
            }
            let value = if switches.contains(&name) {
                String::new()
            } else if values.contains(&name) {
                args.next().ok_or(format!("{option} needs a value; see --help"))?.clone()
            } else {
                return Err(format!("{option}: no such option; see --help"));
            };
            given.insert(name.to_string(), value);
        }
        Ok(Some(Flags { given, line }))
    }

    /// For a program whose options somebody else reads.
    pub fn unread() -> Flags {
        let args = std::env::args().skip(1).filter(|arg| arg != "--bench");
        Flags { given: BTreeMap::new(), line: args.map(|arg| format!(" {arg}")).collect() }
    }

    /// The command that measures this again.
    pub fn command(&self, bench: &str) -> String {
        let line = if self.line.is_empty() { String::new() } else { format!(" --{}", self.line) };
        format!("cargo bench --bench {bench}{line}")
    }

    /// Whether it was given.
    pub fn has(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Whether short runs are wanted.
    pub fn is_quick(&self) -> bool {
        self.has("quick")
    }

    /// A number, if it was given; else `quick` or `full`.
    pub fn number<T: FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
        quick: T,
        full: T,
    ) -> Result<T> {
        match self.given.get(name) {
            Some(text) => text.parse().why(&format!("--{name} {text}")),
            None => Ok(if self.is_quick() { quick } else { full }),
        }
    }

    /// A list of numbers, in the same way.
    pub fn list(&self, name: &str, quick: &[usize], full: &[usize]) -> Result<Vec<usize>> {
        match self.given.get(name) {
            Some(text) => {
                let parse = |part: &str| part.parse().why(&format!("--{name} {part}"));
                text.split(',').map(parse).collect()
            }
            None => Ok(if self.is_quick() { quick } else { full }.to_vec()),
        }
    }
}
