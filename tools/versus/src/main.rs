//! `versus`: eshm and its peers, measured side by side in one run.
//!
//! The process that a person starts only conducts: for each figure it starts this same program twice
//! more, as the near and the far side, and sleeps while they talk. Read on in `plan.rs` (what is
//! measured), `contender.rs` (what a peer must offer), `play.rs` (the loops under the clock),
//! `harness.rs` (processes and rounds), `report.rs` (what is printed).

mod contender;
mod contenders;
mod figure;
mod harness;
mod json;
mod message;
mod plan;
mod play;
mod report;
mod shared;
mod side;
mod system;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((first, rest)) if first == side::FLAG => side::run(rest),
        _ => conduct(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("versus: {why}");
            ExitCode::FAILURE
        }
    }
}

fn conduct(args: &[String]) -> Result<(), String> {
    let Some(plan) = plan::Plan::parse(args)? else {
        print!("{}", plan::HELP);
        return Ok(());
    };
    if plan.list {
        print!("{}", report::settings());
        return Ok(());
    }
    let machine = system::Machine::here();
    let figures = harness::measure(&plan)?;
    if let Some(path) = &plan.json {
        json::write(path, &plan, &machine, &figures)?;
    }
    report::print(&plan, &machine, &figures)
}
