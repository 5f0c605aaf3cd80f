//! Many messages read in one call, in memory that is used again.
#![forbid(unsafe_code)]

use std::ops::Range;

use crate::config::MessageId;

/// Room for the messages of one [`crate::Reader::read_many`]. Fill it again and again; after the
/// first time nothing is allocated.
#[derive(Debug, Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    messages: Vec<(MessageId, Range<usize>)>,
    max_messages: usize,
    used: usize,
}

impl Batch {
    /// Room for up to `messages` messages with up to `bytes` bytes together.
    #[must_use]
    pub fn with_capacity(bytes: usize, messages: usize) -> Self {
        Batch {
            bytes: vec![0; bytes],
            messages: Vec::with_capacity(messages),
            max_messages: messages,
            used: 0,
        }
    }

    /// How many messages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The messages in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (MessageId, &[u8])> {
        self.messages.iter().map(|(id, range)| (*id, &self.bytes[range.clone()]))
    }

    /// Forgets the messages.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.used = 0;
    }

    /// All its room for bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Room for one more message of `len` bytes, if there is any.
    #[inline]
    pub(crate) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.messages.len() == self.max_messages {
            return None;
        }
        self.bytes.get_mut(self.used..)?.get_mut(..len)
    }

    /// All the room that is left, if it can take one more message.
    pub(crate) fn all_room(&mut self) -> Option<&mut [u8]> {
        if self.messages.len() == self.max_messages {
            return None;
        }
        Some(&mut self.bytes[self.used..])
    }

    /// Takes in the message that was put into the room.
    #[inline]
    pub(crate) fn push(&mut self, id: MessageId, len: usize) {
        self.messages.push((id, self.used..self.used + len));
        self.used += len;
    }

    /// Forgets the messages from `count` on.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.messages.truncate(count);
        self.used = self.messages.last().map_or(0, |(_, range)| range.end);
    }
}
