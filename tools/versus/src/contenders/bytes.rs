//! Messages over a stream of bytes: what the socket and the pipe have in common.
//!
//! The kernel keeps no boundaries, so the messages have one size. A batch is one system call with
//! many messages; a batched reader takes whatever waits.

use std::io::{Read, Write};

use bytemuck::{bytes_of, bytes_of_mut, cast_slice, cast_slice_mut};

use crate::contender::BATCH;
use crate::message::Message;

/// Both directions of one side.
pub struct Bytes<R, S, const W: usize> {
    back: R,
    out: S,
    batch: Vec<Message<W>>,
    /// Bytes at the start of `batch` that belong to a message not yet whole.
    partial: usize,
}

impl<R: Read, S: Write, const W: usize> Bytes<R, S, W> {
    /// Over open streams that block.
    pub fn new(back: R, out: S) -> Self {
        Bytes { back, out, batch: vec![[0; W]; BATCH], partial: 0 }
    }

    #[inline(always)]
    pub fn send(&mut self, message: &Message<W>) {
        self.out.write_all(bytes_of(message)).expect("write to the other side");
    }

    #[inline(always)]
    pub fn receive(&mut self, message: &mut Message<W>) {
        self.back.read_exact(bytes_of_mut(message)).expect("read from the other side");
    }

    #[inline(always)]
    pub fn send_batch(&mut self, messages: &[Message<W>]) {
        self.out.write_all(cast_slice(messages)).expect("write to the other side");
    }

    pub fn receive_batch(&mut self, take: impl FnMut(&Message<W>)) {
        let buffer: &mut [u8] = cast_slice_mut(&mut self.batch);
        while self.partial < 8 * W {
            match self.back.read(&mut buffer[self.partial..]).expect("read from the other side") {
                0 => panic!("the other side hung up"),
                count => self.partial += count,
            }
        }
        let whole = self.partial / (8 * W);
        self.batch[..whole].iter().for_each(take);
        let buffer: &mut [u8] = cast_slice_mut(&mut self.batch);
        buffer.copy_within(whole * 8 * W..self.partial, 0);
        self.partial %= 8 * W;
    }
}
