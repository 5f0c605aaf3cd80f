//! `eshm`: look at, feed, drain, measure and tidy the message buses of this machine.
//!
//! This file only starts what [`args`] chose. Each command is a file of its own under
//! [`commands`]; how things look is decided in [`output`], what the program answers to its caller
//! in [`exit`]. Nothing here reaches into shared memory: that is the library's work.
// Not `forbid`: `stdout` must run before `main`, and that cannot be said in another way.
#![deny(unsafe_code)]

mod args;
mod children;
mod clock;
mod commands;
mod exit;
mod machine;
mod open;
mod output;
mod parse;
mod record;
mod signals;
mod stdout;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let args = args::Args::parse();
    start_log(args.verbose);
    let json = args.command.wants_json();
    match args.command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(json),
    }
}

/// Talk about what is going on goes to stderr, and only when asked for.
fn start_log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        _ => tracing::Level::DEBUG,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(output::style::stderr_has_colour())
        .without_time()
        .with_target(false)
        .init();
}
