//! What the benches share: processes, rounds, limits, tables.
//!
//! The process that a person starts only conducts. For each figure it starts this same program
//! again, once for each side, and sleeps while they talk: the cores are theirs. Read on in
//! `stage.rs` (processes), `link.rs` (what is measured), `limits.rs` (what it is divided by),
//! `play.rs` (the loops under the clock), `figure.rs` (rounds, medians, tables).
#![allow(dead_code, unused_imports, reason = "no bench uses all of it")]

pub mod figure;
pub mod flags;
pub mod limits;
pub mod link;
pub mod message;
pub mod play;
pub mod stage;
pub mod system;

use std::fmt::Display;
use std::process::ExitCode;

pub use flags::Flags;
pub use stage::{Facts, Meeting, Order};

/// A result whose error is a sentence for people.
pub type Result<T> = std::result::Result<T, String>;

/// Says what was being done when an error came.
pub trait Why<T> {
    /// Turns the error into a sentence that begins with `doing`.
    fn why(self, doing: &str) -> Result<T>;
}

impl<T, E: Display> Why<T> for std::result::Result<T, E> {
    fn why(self, doing: &str) -> Result<T> {
        self.map_err(|error| format!("{doing}: {error}"))
    }
}

/// A bench: its name, its options, and its two kinds of processes.
pub struct Bench {
    pub name: &'static str,
    /// Printed for `--help`.
    pub help: &'static str,
    /// Options with a value.
    pub values: &'static [&'static str],
    /// Options without one.
    pub switches: &'static [&'static str],
    /// The life of a side.
    pub side: fn(&Order, &mut Meeting) -> Result<Facts>,
    /// The conductor's.
    pub conduct: fn(&Flags) -> Result<()>,
}

impl Bench {
    /// The whole program.
    pub fn main(&self) -> ExitCode {
        let args: Vec<String> = std::env::args().skip(1).collect();
        let done = match args.split_first() {
            Some((first, rest)) if first == stage::SIDE => stage::live(rest, self.side),
            // Under `cargo test --all-targets` nobody asks for figures.
            None => {
                println!("{}: nothing measured; start it with {}", self.name, self.command());
                Ok(())
            }
            _ => self.start(&args),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => {
                eprintln!("{}: {why}", self.name);
                ExitCode::FAILURE
            }
        }
    }

    fn start(&self, args: &[String]) -> Result<()> {
        match Flags::parse(args, self.switches, self.values)? {
            Some(flags) => {
                system::catch_interrupts();
                (self.conduct)(&flags)
            }
            None => {
                print!("{}", self.help);
                Ok(())
            }
        }
    }

    fn command(&self) -> String {
        format!("cargo bench --bench {}", self.name)
    }
}
