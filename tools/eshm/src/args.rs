//! The command line.

use clap::{CommandFactory, Parser, Subcommand};

use crate::children::Child;
use crate::commands::{
    bench, complete, demo, doctor, echo, gc, ls, man, ping, recv, rm, send, stat, tap, top,
};
use crate::exit::Outcome;
use crate::open::Place;

/// Message buses between two processes, in shared memory
///
/// Start with `eshm demo`. Then, in two terminals: `eshm recv first` and `eshm send first`.
/// Data goes to stdout, talk to stderr; most commands have --json.
#[derive(Debug, Parser)]
#[command(name = "eshm", version, propagate_version = true, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Where the segments are; each command has it as well, and reads it there.
    #[command(flatten)]
    _place: Place,
    /// Say what is going on, on stderr; twice for more
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Global")]
    pub verbose: u8,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 a check failed, 2 usage, 3 no such segment, 4 timed out, \
5 held by a living process, 6 the other side is gone, 7 replaced by another process, 8 segment not usable, \
9 system error, 128 + N ended by signal N.";

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show in 15 seconds what a bus survives: SIGKILL, a freeze, and nothing is lost
    Demo(demo::Args),
    /// List all segments
    #[command(visible_alias = "list")]
    Ls(ls::Args),
    /// Show everything of one segment, or one field for scripts
    Stat(stat::Args),
    /// Watch all buses, full-screen
    Top(top::Args),
    /// Write lines, records or a file into a bus
    Send(send::Args),
    /// Read lines, records or a file from a bus
    Recv(recv::Args),
    /// Show the messages of a bus without consuming them
    Tap(tap::Args),
    /// Measure round trips to an `eshm echo`
    Ping(ping::Args),
    /// Send every message back, for `eshm ping`
    Echo(echo::Args),
    /// Measure latency and throughput here, beside pipe and Unix socket
    Bench(bench::Args),
    /// Remove segments by name
    Rm(rm::Args),
    /// Remove what nobody holds and in which nothing is unread
    Gc(gc::Args),
    /// Look for what stands in the way on this machine, each finding with its remedy
    Doctor(doctor::Args),
    /// Print completions for a shell
    Completions(complete::Args),
    /// Print the manual page, or write all of them into a directory
    Man(man::Args),
    /// The processes that `demo` and `bench` start
    #[command(hide = true, subcommand)]
    Child(Child),
}

impl Command {
    /// Does it.
    pub fn run(self) -> Outcome {
        match self {
            Command::Demo(args) => args.run(),
            Command::Ls(args) => args.run(),
            Command::Stat(args) => args.run(),
            Command::Top(args) => args.run(),
            Command::Send(args) => args.run(),
            Command::Recv(args) => args.run(),
            Command::Tap(args) => args.run(),
            Command::Ping(args) => args.run(),
            Command::Echo(args) => args.run(),
            Command::Bench(args) => args.run(),
            Command::Rm(args) => args.run(),
            Command::Gc(args) => args.run(),
            Command::Doctor(args) => args.run(),
            Command::Completions(args) => args.run(Args::command()),
            Command::Man(args) => args.run(Args::command()),
            Command::Child(child) => child.run(),
        }
    }

    /// Whether errors are to be told in JSON as well.
    pub fn wants_json(&self) -> bool {
        match self {
            Command::Demo(args) => args.json,
            Command::Ls(args) => args.json,
            Command::Stat(args) => args.json,
            Command::Send(args) => args.json,
            Command::Recv(args) => args.json,
            Command::Tap(args) => args.json,
            Command::Ping(args) => args.json,
            Command::Echo(args) => args.json,
            Command::Bench(args) => args.json,
            Command::Rm(args) => args.json,
            Command::Gc(args) => args.json,
            Command::Doctor(args) => args.json,
            Command::Top(_) | Command::Completions(_) | Command::Man(_) | Command::Child(_) => {
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_directory_may_stand_before_the_command_and_behind_it() {
        for args in [["eshm", "--dir", "/x", "ls"], ["eshm", "ls", "--dir", "/x"]] {
            let Ok(Args { command: Command::Ls(ls), .. }) = Args::try_parse_from(args) else {
                panic!("{args:?} is refused")
            };
            assert_eq!(ls.place.dir.to_str(), Some("/x"), "{args:?}");
        }
    }
}
