//! The near side of a measurement: starts the far side, sends, and looks at the clock.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use eshm::Role;
use hdrhistogram::Histogram;

use crate::children;
use crate::clock;
use crate::exit::{FAILED, Failure, Outcome};
use crate::machine;
use crate::output::percentiles;
use crate::signals::Stop;

use super::far::{LAST, Task, number};
use super::link::{Bus, Link, Pipes, Socket, Transport};

/// Messages sent between two looks at the clock while streaming.
const BURST: u64 = 256;

/// Where and how long to measure.
pub struct Near<'a> {
    /// The directory of segments.
    pub directory: PathBuf,
    /// The hardware threads of this side and of the far one.
    pub cpus: Option<(usize, usize)>,
    /// How long one measurement takes.
    pub time: Duration,
    /// What ends this process.
    pub stop: &'a Stop,
}

/// What a stream came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Streamed {
    /// Messages that arrived.
    pub messages: u64,
    /// From the first call until the far side had all.
    pub seconds: f64,
}

/// The far process, and the bus to it if there is one. Dropped, the one is ended and the other
/// removed.
struct Far {
    child: Child,
    bus: Option<(PathBuf, String)>,
}

impl Drop for Far {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some((directory, name)) = &self.bus {
            // After a good end the last to leave has done it.
            let _ = eshm::remove_in(directory, name, false);
        }
    }
}

impl Far {
    fn new(child: Child) -> Far {
        Far { child, bus: None }
    }

    /// Waits for its end, which must be a good one.
    fn done(mut self) -> Outcome {
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(Failure::new(FAILED, format!("the far side failed: {status}")))
        }
    }
}

impl Near<'_> {
    /// Keeps this thread on its hardware thread.
    pub fn pin(&self) {
        if let Some((near, _)) = self.cpus {
            let _ = machine::pin(near);
        }
    }

    /// Times round trips.
    pub fn round_trips(&self, transport: Transport, size: usize) -> Outcome<Histogram<u64>> {
        let (far, mut link) = self.connect(transport, Task::Echo, size)?;
        let mut histogram = percentiles::histogram();
        let mut message = vec![0x5a; size];
        let started = Instant::now();
        let warm_up = self.time / 5;
        let mut next = 0u64;
        loop {
            let before = clock::now_ns();
            message[..8].copy_from_slice(&next.to_le_bytes());
            link.send(&message)?;
            link.receive(&mut message)?;
            let took = clock::now_ns() - before;
            if number(&message) != next {
                return Err(Failure::new(FAILED, "an answer to another message came"));
            }
            next += 1;
            let elapsed = started.elapsed();
            if elapsed >= warm_up {
                histogram.saturating_record(took.max(1));
            }
            if elapsed >= self.time + warm_up {
                break;
            }
            self.stop.check()?;
        }
        message[..8].copy_from_slice(&LAST.to_le_bytes());
        link.send(&message)?;
        link.receive(&mut message)?;
        drop(link);
        far.done()?;
        Ok(histogram)
    }

    /// Times a stream of messages.
    pub fn stream(&self, transport: Transport, size: usize) -> Outcome<Streamed> {
        let (far, mut link) = self.connect(transport, Task::Count, size)?;
        let batched = transport == Transport::Batch;
        let mut messages = vec![vec![0x5a; size]; if batched { 64 } else { 1 }];
        let started = Instant::now();
        let mut next = 0u64;
        while started.elapsed() < self.time {
            for _ in 0..BURST / messages.len() as u64 {
                for message in &mut messages {
                    message[..8].copy_from_slice(&next.to_le_bytes());
                    next += 1;
                }
                link.send_all(&messages)?;
            }
            self.stop.check()?;
        }
        messages[0][..8].copy_from_slice(&LAST.to_le_bytes());
        link.send(&messages[0])?;
        link.receive(&mut messages[0])?;
        let seconds = started.elapsed().as_secs_f64();
        let arrived = number(&messages[0]);
        drop(link);
        far.done()?;
        if arrived != next {
            return Err(Failure::new(FAILED, format!("{next} messages sent, {arrived} arrived")));
        }
        Ok(Streamed { messages: next, seconds })
    }

    fn connect(
        &self,
        transport: Transport,
        task: Task,
        size: usize,
    ) -> Outcome<(Far, Box<dyn Link>)> {
        self.pin();
        let name = format!("bench-{}", std::process::id());
        let word = |value: Option<clap::builder::PossibleValue>| {
            value.map(|value| value.get_name().to_string()).unwrap_or_default()
        };
        let mut command = children::command("bench")?;
        command.args([
            "--task",
            &word(task.to_possible_value()),
            "--transport",
            &word(transport.to_possible_value()),
        ]);
        command
            .args(["--size", &size.to_string(), "--name", &name])
            .arg("--dir")
            .arg(&self.directory);
        if let Some((_, far)) = self.cpus {
            command.args(["--cpu", &far.to_string()]);
        }
        match transport {
            Transport::Pipe => {
                let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
                let (output, input) =
                    (child.stdin.take().map(OwnedFd::from), child.stdout.take().map(OwnedFd::from));
                let far = Far::new(child);
                let missing = || Failure::new(FAILED, "no pipe to the far side");
                let input = File::from(input.ok_or_else(missing)?);
                let output = File::from(output.ok_or_else(missing)?);
                Ok((far, Box::new(Pipes { input, output })))
            }
            Transport::Socket => {
                let (ours, theirs) = UnixStream::pair()?;
                let far = Far::new(command.stdin(Stdio::from(OwnedFd::from(theirs))).spawn()?);
                drop(command);
                Ok((far, Box::new(Socket { input: ours.try_clone()?, output: ours })))
            }
            _ => {
                let bus =
                    Bus::open(&self.directory, &name, Role::Master, transport, size, self.stop)?;
                let mut far = Far::new(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
                far.bus = Some((self.directory.clone(), name));
                bus.wait_for_peer()?;
                Ok((far, Box::new(bus)))
            }
        }
    }
}
