//! The arithmetic of a ring: which frame a message lies in, how many it takes, and what its commit
//! word says. Numbers alone, so that it serves a ring in memory and a copy of one.

use super::{EPOCH, Place, SKIP};
use crate::config::{Geometry, Overflow};
use crate::error::{Error, Result};
use crate::layout::{FRAME_HEADER, MARKS};

/// The measures of a ring.
#[derive(Clone, Copy)]
pub(crate) struct Grid {
    /// Frames in the ring.
    pub(super) capacity: u64,
    lap_shift: u32,
    pub(super) frame_size: u32,
    pub(super) overwrite: bool,
    /// The longest message in bytes.
    pub(super) max_len: usize,
}

/// What the frame at a position turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Message { len: usize },
    Skip,
    Epoch,
}

impl Grid {
    pub(crate) fn new(geometry: Geometry) -> Self {
        Grid {
            capacity: geometry.frames,
            lap_shift: geometry.frames.trailing_zeros(),
            frame_size: geometry.frame_size,
            overwrite: geometry.overflow == Overflow::Overwrite,
            max_len: geometry.max_message(),
        }
    }

    /// The payload bytes that a message of one frame can have.
    pub(super) fn inline_len(&self) -> usize {
        self.frame_size as usize - FRAME_HEADER
    }

    /// Frames that a message of `len` bytes takes.
    #[inline(always)]
    pub(super) fn frames_for(&self, len: usize) -> u64 {
        let (bytes, size) = (len + FRAME_HEADER, self.frame_size as usize);
        // A division takes longer than all else in a short call, and is seldom needed.
        if size.is_power_of_two() {
            return ((bytes + size - 1) >> size.trailing_zeros()) as u64;
        }
        bytes.div_ceil(size) as u64
    }

    /// An eighth of the ring: how often space is published, reserved and marked.
    pub(super) fn eighth(&self) -> u64 {
        (self.capacity / MARKS as u64).max(1)
    }

    /// Frames from `pos` to the end of the ring.
    #[inline(always)]
    pub(super) fn until_end(&self, pos: u64) -> u64 {
        self.capacity - (pos & (self.capacity - 1))
    }

    /// The commit word of a message of no bytes at `pos`: the lap, and a bit that no cleared word has.
    /// The lap is short of some bits, which does not matter: what is older than a lap is looked for (I1).
    #[inline(always)]
    pub(super) fn stamp(&self, pos: u64) -> u64 {
        1 << 63 | pos >> self.lap_shift << 32
    }

    /// The length, or what stands in its place, in the commit word of the frame at `pos`; `None` if
    /// nothing is committed there.
    #[inline(always)]
    pub(super) fn committed(&self, pos: u64, word: u64) -> Option<u32> {
        u32::try_from(word ^ self.stamp(pos)).ok()
    }

    /// Checks length and kind of the frame at `pos`, and says how many frames it spans.
    pub(super) fn examine(&self, pos: u64, len: u32) -> Result<(Kind, u64)> {
        let until_end = self.until_end(pos);
        match len {
            // A skip at the start would span the whole ring, and could follow itself for ever.
            SKIP if until_end == self.capacity => {
                Err(Error::Corrupt { what: "a skip at the start of the ring" })
            }
            SKIP => Ok((Kind::Skip, until_end)),
            EPOCH => Ok((Kind::Epoch, 1)),
            len if len as usize > self.max_len => {
                Err(Error::Corrupt { what: "a length beyond the longest message" })
            }
            len => {
                let frames = self.frames_for(len as usize);
                if frames > until_end {
                    return Err(Error::Corrupt { what: "a message beyond the end of the ring" });
                }
                Ok((Kind::Message { len: len as usize }, frames))
            }
        }
    }

    /// Goes over what the frame at `place` holds, whose commit word is given; false if nothing is
    /// committed there.
    pub(crate) fn step(
        &self,
        place: &mut Place,
        word: u64,
        announced: impl FnOnce(u64) -> u64,
    ) -> Result<bool> {
        let Some(len) = self.committed(place.pos, word) else { return Ok(false) };
        let (kind, frames) = self.examine(place.pos, len)?;
        match kind {
            Kind::Message { len } => {
                place.number = place.number.wrapping_add(1);
                place.bytes = place.bytes.wrapping_add(len as u64);
                place.last_epoch = place.epoch;
            }
            Kind::Epoch => place.epoch = announced(place.pos),
            Kind::Skip => {}
        }
        place.pos = place.pos.wrapping_add(frames);
        Ok(true)
    }
}
