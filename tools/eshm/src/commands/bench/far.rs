//! The far side of a measurement, in a process of its own: sends back, or counts and checks.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use clap::ValueEnum;
use eshm::Role;

use crate::exit::{FAILED, Failure, Outcome};
use crate::machine;
use crate::signals::Stop;

use super::link::{Bus, Link, Pipes, Socket, Transport};

/// The number of the message that ends a measurement.
pub const LAST: u64 = u64::MAX;

/// What the far side does with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    /// Send each one back
    Echo,
    /// Count them, check their order, and tell the number at the end
    Count,
}

/// What the far side is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long, value_enum)]
    task: Task,
    #[arg(long, value_enum)]
    transport: Transport,
    #[arg(long)]
    size: usize,
    #[arg(long)]
    cpu: Option<usize>,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    name: String,
}

impl Args {
    /// Answers until the last message.
    pub fn run(self) -> Outcome {
        if let Some(cpu) = self.cpu {
            let _ = machine::pin(cpu);
        }
        let stdin = || io::stdin().as_fd().try_clone_to_owned();
        match self.transport {
            Transport::Pipe => {
                let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                self.answer(&mut Pipes { input: File::from(stdin()?), output })
            }
            Transport::Socket => {
                let input = UnixStream::from(stdin()?);
                let output = input.try_clone()?;
                self.answer(&mut Socket { input, output })
            }
            transport => {
                let stop = Stop::install()?;
                let mut bus =
                    Bus::open(&self.dir, &self.name, Role::Slave, transport, self.size, &stop)?;
                self.answer(&mut bus)
            }
        }
    }

    fn answer(&self, link: &mut impl Link) -> Outcome {
        match self.task {
            Task::Echo => echo(link, self.size),
            Task::Count => count(link, self.size),
        }
    }
}

fn echo(link: &mut impl Link, size: usize) -> Outcome {
    let mut message = vec![0; size];
    loop {
        link.receive(&mut message)?;
        link.send(&message)?;
        if number(&message) == LAST {
            return Ok(());
        }
    }
}

fn count(link: &mut impl Link, size: usize) -> Outcome {
    let mut message = vec![0; size];
    let (mut next, mut ordered, mut ended) = (0u64, true, false);
    while !ended {
        link.receive_some(&mut message, &mut |message| match number(message) {
            LAST => ended = true,
            number => {
                ordered &= number == next;
                next += 1;
            }
        })?;
    }
    message[..8].copy_from_slice(&next.to_le_bytes());
    link.send(&message)?;
    if ordered { Ok(()) } else { Err(Failure::new(FAILED, "messages came out of order")) }
}

/// The number that a message begins with.
pub fn number(message: &[u8]) -> u64 {
    message.first_chunk::<8>().map_or(LAST, |bytes| u64::from_le_bytes(*bytes))
}
