//! The transports, each as two calls: send a message, receive one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use eshm::{Batch, Cleanup, Disconnect, Endpoint, Error, Options, Role, Wait};

use crate::exit::{Failure, Outcome, PEER_GONE};
use crate::open;
use crate::signals::Stop;

/// A way from one process to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Transport {
    /// eshm, both sides spin while they wait
    Spin,
    /// eshm, spinning a little and then sleeping
    Adaptive,
    /// eshm, sleeping at once
    Park,
    /// eshm, many messages with one call
    Batch,
    /// A Unix stream socket
    Socket,
    /// Two pipes
    Pipe,
}

impl Transport {
    /// Those whose round trips are measured.
    pub const ALL: [Transport; 5] =
        [Transport::Spin, Transport::Adaptive, Transport::Park, Transport::Socket, Transport::Pipe];
    /// Those whose throughput is measured.
    pub const STREAMS: [Transport; 4] =
        [Transport::Spin, Transport::Batch, Transport::Socket, Transport::Pipe];

    /// What it is called in tables.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Spin => "eshm",
            Transport::Adaptive => "eshm adaptive",
            Transport::Park => "eshm asleep",
            Transport::Batch => "eshm batch",
            Transport::Socket => "Unix socket",
            Transport::Pipe => "pipe",
        }
    }

    /// How an endpoint of this transport waits.
    fn wait(self) -> Wait {
        match self {
            Transport::Adaptive => Wait::Adaptive,
            Transport::Park => Wait::Park,
            _ => Wait::Spin,
        }
    }
}

/// One end of a way.
pub trait Link {
    /// Sends a message.
    fn send(&mut self, message: &[u8]) -> Outcome;
    /// Receives a message of exactly this length.
    fn receive(&mut self, message: &mut [u8]) -> Outcome;
    /// Receives at least one message and hands each to `each`.
    fn receive_some(&mut self, message: &mut [u8], each: &mut dyn FnMut(&[u8])) -> Outcome {
        self.receive(message)?;
        each(message);
        Ok(())
    }
    /// Sends all messages.
    fn send_all(&mut self, messages: &[Vec<u8>]) -> Outcome {
        messages.iter().try_for_each(|message| self.send(message))
    }
}

/// How long a side waits for the other before it gives up.
const PATIENCE: Duration = Duration::from_secs(5);

/// An end of a bus.
pub struct Bus {
    endpoint: Endpoint,
    batch: Option<Batch>,
}

impl Bus {
    /// The master's or the slave's end.
    pub fn open(
        directory: &Path,
        name: &str,
        role: Role,
        transport: Transport,
        size: usize,
        stop: &Stop,
    ) -> Outcome<Bus> {
        let mut options = Options::new(name);
        options.directory(directory).role(role).wait(transport.wait()).prefault(true);
        // A death ends the measurement at once; a starved heartbeat does not.
        options
            .on_disconnect(Disconnect::Immediately)
            .open_timeout(Duration::ZERO)
            .stale_after(PATIENCE);
        options.cleanup(Cleanup::Always);
        if role == Role::Master && size > 1024 {
            options.frames(1 << 16);
        }
        let endpoint = open::wait_open(|| options.open(), Some(PATIENCE), stop, |_| ())?;
        let batch = (transport == Transport::Batch).then(|| Batch::with_capacity(1 << 20, 1024));
        Ok(Bus { endpoint, batch })
    }

    /// Waits until the other side is there.
    pub fn wait_for_peer(&self) -> Outcome {
        self.endpoint.wait_for_peer(PATIENCE)?;
        Ok(())
    }
}

impl Link for Bus {
    fn send(&mut self, message: &[u8]) -> Outcome {
        Ok(self.endpoint.write_timeout(message, PATIENCE)?)
    }

    fn receive(&mut self, message: &mut [u8]) -> Outcome {
        let len = self.endpoint.read_timeout(message, PATIENCE)?;
        if len == message.len() {
            Ok(())
        } else {
            Err(Failure::new(PEER_GONE, "a message of another length came"))
        }
    }

    fn receive_some(&mut self, message: &mut [u8], each: &mut dyn FnMut(&[u8])) -> Outcome {
        let Some(batch) = &mut self.batch else {
            self.receive(message)?;
            each(message);
            return Ok(());
        };
        loop {
            match self.endpoint.try_read_many(batch) {
                Ok(_) => break,
                Err(Error::Empty) => {
                    let _waiting = self.endpoint.peek_timeout(PATIENCE)?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        batch.iter().for_each(|(_, message)| each(message));
        Ok(())
    }

    fn send_all(&mut self, messages: &[Vec<u8>]) -> Outcome {
        let mut rest = messages;
        while !rest.is_empty() {
            match self.endpoint.try_write_many(rest) {
                Ok(written) => rest = &rest[written..],
                Err(Error::Full) => {
                    self.send(&rest[0])?;
                    rest = &rest[1..];
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A byte stream in each direction.
pub struct Stream<R, W> {
    /// What comes.
    pub input: R,
    /// What goes.
    pub output: W,
}

/// Both ends of pipes are files.
pub type Pipes = Stream<File, File>;
/// A socket carries both directions.
pub type Socket = Stream<UnixStream, UnixStream>;

impl<R: Read, W: Write> Link for Stream<R, W> {
    fn send(&mut self, message: &[u8]) -> Outcome {
        Ok(self.output.write_all(message)?)
    }

    fn receive(&mut self, message: &mut [u8]) -> Outcome {
        Ok(self.input.read_exact(message)?)
    }
}
