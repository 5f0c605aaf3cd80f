//! A Unix stream socket: what programs use when they use nothing.
//!
//! Settings, and why: blocking reads and writes, as polling would only add system calls; the largest
//! send buffer that the system grants up to 1 MiB.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result, Why};
use crate::contenders::SINGLE_AND_BATCH;
use crate::contenders::bytes::Bytes;
use crate::message::Message;

/// The socket.
pub struct Unix;

impl Contender for Unix {
    const NAME: &'static str = "unix socket";
    const KIND: Kind = Kind::Processes;
    const SETTINGS: &'static str = "stream, blocking, send buffer up to 1 MiB; a batch is one call";
    const CAN: &'static [(Measure, Mode)] = SINGLE_AND_BATCH;
    type Link<const W: usize> = End<W>;
}

/// One side.
pub struct End<const W: usize>(Bytes<UnixStream, UnixStream, W>);

impl<const W: usize> Link<W> for End<W> {
    type Half = Option<UnixListener>;

    fn create(place: &Place) -> Result<Self::Half> {
        let listen = || UnixListener::bind(place.outgoing()).why("bind a socket");
        place.near.then(listen).transpose()
    }

    fn join(half: Self::Half, place: &Place) -> Result<Self> {
        let out = match half {
            Some(listener) => listener.accept().why("accept")?.0,
            None => UnixStream::connect(place.incoming()).why("connect")?,
        };
        widen(&out).why("widen the send buffer")?;
        Ok(End(Bytes::new(out.try_clone().why("clone a socket")?, out)))
    }

    #[inline(always)]
    fn send(&mut self, message: &Message<W>) {
        self.0.send(message);
    }

    #[inline(always)]
    fn receive(&mut self, message: &mut Message<W>) {
        self.0.receive(message);
    }

    #[inline(always)]
    fn send_batch(&mut self, messages: &[Message<W>]) {
        self.0.send_batch(messages);
    }

    #[inline(always)]
    fn receive_batch(&mut self, take: impl FnMut(&Message<W>)) {
        self.0.receive_batch(take);
    }
}

fn widen(socket: &UnixStream) -> io::Result<()> {
    let bytes: libc::c_int = 1 << 20;
    // SAFETY: the descriptor is open, and the value is an int of the length given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_SNDBUF,
            (&raw const bytes).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
