//! A process of the demo, as seen by the one that started it.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::children;

use super::event::Event;

/// Which process: its pid is its name.
pub type Who = u32;

/// A running process. Dropped, it is ended, whatever state it is in.
#[derive(Debug)]
pub struct Actor {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Actor {
    /// Starts one; what it tells arrives at `events`.
    pub fn start(
        which: &str,
        directory: &Path,
        name: &str,
        extra: &[String],
        events: &Sender<(Who, Event)>,
    ) -> io::Result<Actor> {
        let mut command = children::command(which)?;
        command.arg("--dir").arg(directory).args(["--name", name]).args(extra);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (who, events) = (child.id(), events.clone());
        thread::spawn(move || {
            let lines = stdout.map(BufReader::new).into_iter().flat_map(BufRead::lines);
            for line in lines.map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line) {
                    let _ = events.send((who, event));
                }
            }
        });
        Ok(Actor { child, stdin })
    }

    /// Its pid.
    pub fn pid(&self) -> Who {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.pid()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Asks it to leave.
    pub fn let_go(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end; false if that took too long.
    pub fn wait(&mut self, limit: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < limit {
            match self.child.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                _ => return true,
            }
        }
        false
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGCONT);
            self.let_go();
            if !self.wait(Duration::from_secs(1)) {
                let _ = self.child.kill();
            }
            let _ = self.child.wait();
        }
    }
}
