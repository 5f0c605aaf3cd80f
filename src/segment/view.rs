//! Looking at a bus without mapping it: copies of its pages, and how far its rings are.
//!
//! Whoever only looks holds no lock, so the slot may be given back, or the file cut short, at any
//! moment; and a file that another user planted may be anything. A copy cannot hurt.

use super::BusFile;
use crate::error::Result;
use crate::layout::*;
use crate::ring::{Grid, Place};
use crate::sync::Ordering;
use crate::sys::shm;

/// A slot as it was when somebody looked.
pub(crate) struct SlotView {
    pub page: Box<SlotPage>,
    pub rings: [Box<RingLines>; 2],
    /// Where the writers stand.
    pub heads: [Place; 2],
}

/// Bytes of frames read in one go.
const WINDOW: usize = 64 << 10;
/// How often a place may change while it is read.
const LOOKS: usize = 4;

impl BusFile {
    /// How a slot looks, for those who hold no lock and so must not map it. The words fit together
    /// only roughly.
    pub(crate) fn look_at(&self, slot: usize) -> Result<SlotView> {
        let page = self.look_at_page(slot)?;
        let (first, first_head) = self.look_at_ring(slot, 0)?;
        let (second, second_head) = self.look_at_ring(slot, 1)?;
        Ok(SlotView { page, rings: [first, second], heads: [first_head, second_head] })
    }

    /// A copy of the page of a slot alone.
    pub(crate) fn look_at_page(&self, slot: usize) -> Result<Box<SlotPage>> {
        let off = self.facts().plan.slot_off(slot);
        Ok(SlotPage::from_bytes(&shm::read_at(self.file(), off, PAGE as usize)?))
    }

    /// A copy of the cursors of a ring, and where its writer stands.
    fn look_at_ring(&self, slot: usize, index: usize) -> Result<(Box<RingLines>, Place)> {
        let off = self.facts().plan.slot_off(slot) + self.facts().plan.rings[index].cursors_off;
        let look = || -> Result<Box<RingLines>> {
            Ok(RingLines::from_bytes(&shm::read_at(self.file(), off, PAGE as usize)?))
        };
        let mut lines = look()?;
        for _ in 0..LOOKS {
            let again = look()?;
            // Relaxed: private copies. A place that was not stored anew between them is whole.
            let [before, now] =
                [&lines, &again].map(|lines| lines.producer.stored.load(Ordering::Relaxed));
            if before == now {
                break;
            }
            lines = again;
        }
        let place = lines.producer.place()?;
        let head = self.walk(slot, index, place)?;
        Ok((lines, head))
    }

    /// Follows what was committed from a place on, in copies of the frames. What is no chain of
    /// messages ends it.
    fn walk(&self, slot: usize, index: usize, mut place: Place) -> Result<Place> {
        let plan = self.facts().plan;
        let ring = plan.rings[index];
        let grid = Grid::new(ring.geometry);
        let size = u64::from(ring.geometry.frame_size);
        let first = plan.slot_off(slot) + ring.frames_off;
        let end = place.pos.wrapping_add(ring.geometry.frames);
        let (mut window, mut start) = (Vec::new(), 0);
        while place.pos.wrapping_sub(end) as i64 <= -1 {
            let off = (place.pos & (ring.geometry.frames - 1)) * size;
            if off < start || off + 16 > start + window.len() as u64 {
                // Of large frames only the beginning is of interest.
                let len = if size >= PAGE { 16 } else { WINDOW };
                (window, start) = (shm::read_at(self.file(), first + off, len)?, off);
            }
            let at = (off - start) as usize;
            let Some(words) = window.get(at..at + 16) else { break };
            let word = |from: usize| {
                u64::from_le_bytes(words[from..from + 8].try_into().expect("eight bytes"))
            };
            if !matches!(grid.step(&mut place, word(0), |_| word(FRAME_HEADER)), Ok(true)) {
                break;
            }
        }
        Ok(place)
    }
}

/// Makes private copies of what lies in a file.
pub(super) trait FromBytes: Sized {
    /// What was read; the rest is zero.
    fn from_bytes(bytes: &[u8]) -> Box<Self>;
}

macro_rules! from_bytes {
    ($page:ty) => {
        impl FromBytes for $page {
            fn from_bytes(bytes: &[u8]) -> Box<Self> {
                // SAFETY: the page holds only integers and padding, for which zero is a value.
                let mut copy = Box::new(unsafe { std::mem::zeroed::<Self>() });
                let len = bytes.len().min(size_of::<Self>());
                // SAFETY: at most its own size, into memory that nobody else knows; any bytes are a
                // value of it.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        bytes.as_ptr(),
                        (&raw mut *copy).cast::<u8>(),
                        len,
                    );
                }
                copy
            }
        }
    };
}

from_bytes!(Header);
from_bytes!(SlotPage);
from_bytes!(RingLines);
