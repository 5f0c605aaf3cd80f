//! The processes that `demo` and `bench` start: this program again, with a hidden subcommand.
//!
//! A child ends when its stdin closes, so it cannot outlive its parent, whatever killed that.

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clap::Subcommand;
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::commands::{bench, demo};
use crate::exit::Outcome;

/// What such a process does.
#[derive(Debug, Subcommand)]
pub enum Child {
    /// The telemetry master of the demo
    DemoMaster(demo::producer::Args),
    /// The telemetry slave of the demo
    DemoSlave(demo::consumer::Args),
    /// The far side of a measurement
    Bench(bench::far::Args),
}

impl Child {
    /// Does it.
    pub fn run(self) -> Outcome {
        // A stopped child could not notice that its parent died: let that wake it up.
        let _ = prctl::set_pdeathsig(Signal::SIGCONT);
        match self {
            Child::DemoMaster(args) => args.run(),
            Child::DemoSlave(args) => args.run(),
            Child::Bench(args) => args.run(),
        }
    }
}

/// This program, about to be such a process.
pub fn command(which: &str) -> io::Result<Command> {
    let this = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let mut command = Command::new(this);
    command.args(["child", which]);
    Ok(command)
}

/// True once the parent has closed our stdin.
pub fn parent_let_go() -> Arc<AtomicBool> {
    let closed = Arc::new(AtomicBool::new(false));
    let flag = closed.clone();
    thread::spawn(move || {
        let mut nothing = [0; 64];
        let mut stdin = io::stdin().lock();
        while matches!(stdin.read(&mut nothing), Ok(1..)) {}
        // Relaxed: the flag is all there is to know.
        flag.store(true, Ordering::Relaxed);
    });
    closed
}
