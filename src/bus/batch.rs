//! Many messages read in one call, in memory that is used again.
//!
//! The numbers of messages that are read together follow one another, so a batch holds only where
//! each message ends, and where a new run of ids begins: at the first one, and where messages were
//! lost in between or have another author.
#![forbid(unsafe_code)]

use crate::config::MessageId;

/// Room for the messages of one [`crate::Reader::read_many`]. Fill it again and again; after the
/// first time nothing is allocated.
#[derive(Debug, Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
    /// Index and id of the first message of each run.
    runs: Vec<(usize, MessageId)>,
    max_messages: usize,
    used: usize,
}

impl Batch {
    /// Room for up to `messages` messages with up to `bytes` bytes together.
    #[must_use]
    pub fn with_capacity(bytes: usize, messages: usize) -> Self {
        Batch {
            bytes: vec![0; bytes],
            ends: Vec::with_capacity(messages),
            runs: Vec::with_capacity(8),
            max_messages: messages,
            used: 0,
        }
    }

    /// How many messages it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The messages in their order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (MessageId, &[u8])> {
        let (mut start, mut runs) = (0, self.runs.iter().peekable());
        let mut first = (0, MessageId { epoch: 0, number: 0 });
        self.ends.iter().enumerate().map(move |(index, &end)| {
            while let Some(run) = runs.next_if(|run| run.0 <= index) {
                first = *run;
            }
            let bytes = &self.bytes[start..end];
            start = end;
            (after(first.1, index - first.0), bytes)
        })
    }

    /// Forgets the messages.
    pub fn clear(&mut self) {
        self.truncate(0);
    }

    /// All its room for bytes.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Room for one more message of `len` bytes, if there is any.
    #[inline(always)]
    pub(crate) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.ends.len() == self.max_messages {
            return None;
        }
        self.bytes.get_mut(self.used..)?.get_mut(..len)
    }

    /// All the room that is left, if it can take one more message.
    pub(crate) fn all_room(&mut self) -> Option<&mut [u8]> {
        if self.ends.len() == self.max_messages {
            return None;
        }
        Some(&mut self.bytes[self.used..])
    }

    /// Takes in the message that was put into the room; it follows the one before.
    #[inline(always)]
    pub(crate) fn push_next(&mut self, len: usize) {
        self.used += len;
        self.ends.push(self.used);
    }

    /// Takes in a message that may have any id.
    pub(crate) fn push(&mut self, id: MessageId, len: usize) {
        let next = self.runs.last().map(|(index, first)| after(*first, self.len() - index));
        if next != Some(id) {
            self.runs.push((self.len(), id));
        }
        self.push_next(len);
    }

    /// Forgets the messages from `count` on.
    pub(crate) fn truncate(&mut self, count: usize) {
        self.ends.truncate(count);
        self.runs.retain(|(index, _)| *index < count);
        self.used = self.ends.last().copied().unwrap_or(0);
    }
}

/// The id of the message that comes `count` after this one.
fn after(first: MessageId, count: usize) -> MessageId {
    MessageId { number: first.number.wrapping_add(count as u64), ..first }
}
