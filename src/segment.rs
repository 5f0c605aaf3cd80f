//! One slot of a bus's file, mapped: what an endpoint, a tap or a builder works on.
//!
//! A segment is mapped under a lock, and the mapping keeps that lock: nobody has the memory of a
//! slot without a byte that says so, and a slot whose bytes can all be locked is mapped by nobody.
//! Dropping a segment unmaps and unlocks in one step.
//!
//! Read next: `segment/file.rs`, which opens and checks the file; then `session.rs`, which decides
//! who holds a role in it.

mod file;
mod schemas;
mod view;

use std::ptr::NonNull;

pub(crate) use file::{BusFile, Facts, byte_of, bytes_of, check_name};
pub(crate) use view::SlotView;

use crate::config::{Direction, Geometry, Options, Role};
use crate::error::{Error, Result};
use crate::layout::*;
use crate::ring::{Place, Ring};
use crate::stats::Refusal;
use crate::sync::{Frames, Ordering};
use crate::sys::map::Mapping;
use crate::sys::{shm, sigbus};

/// A mapped slot, and the header of its file.
pub(crate) struct Segment {
    /// Dropped before the mapping that it guards.
    guard: Option<sigbus::Guard>,
    /// Dropped before the file: who can lock the slot finds it unmapped.
    map: Mapping,
    bus: BusFile,
    slot: usize,
    /// The generation of the slot when it was mapped; 0 in the making.
    generation: u64,
}

impl Segment {
    fn new(bus: BusFile, slot: usize) -> Result<Segment> {
        let facts = bus.facts();
        let (off, len) = (facts.plan.slot_off(slot), facts.plan.slot_len as usize);
        let map = Mapping::shared(bus.file(), off, len, facts.is_writable)?;
        let guard = facts.is_guarded.then(|| sigbus::guard(map.as_ptr(), map.len()));
        let mut segment = Segment { guard, map, bus, slot, generation: 0 };
        // Relaxed: it was written before the slot came to count, which the caller has seen.
        segment.generation = segment.page().generation.load(Ordering::Relaxed);
        Ok(segment)
    }

    /// Makes the segment of a slot that was just taken: empty rings, nobody in it.
    pub(crate) fn format(&mut self, lineage: u64) {
        // Relaxed: the slot does not count yet.
        self.page().lineage.store(lineage, Ordering::Relaxed);
        for direction in Direction::BOTH {
            self.ring(direction).format(Place { epoch: 1, last_epoch: 1, ..Place::default() });
        }
    }

    /// Writes down in which turn the slot will count.
    pub(crate) fn date(&mut self, turn: Turn) {
        self.generation = turn.generation();
        // Relaxed: released with the turn.
        self.page().generation.store(self.generation, Ordering::Relaxed);
    }

    /// Closes the descriptor: from here on nothing about the locks changes, and the mapping alone
    /// keeps them.
    pub(crate) fn settle(&mut self) {
        self.bus.close();
    }

    /// Unmaps the slot and keeps the file, with its locks.
    pub(crate) fn unmap(self) -> BusFile {
        self.bus
    }

    /// The file. Its descriptor is open only until [`Segment::settle`].
    pub(crate) fn bus(&self) -> &BusFile {
        &self.bus
    }

    /// What does not change as long as there is a file.
    pub(crate) fn facts(&self) -> &Facts {
        self.bus.facts()
    }

    /// Which slot this is.
    pub(crate) fn slot(&self) -> usize {
        self.slot
    }

    /// The turn in which this slot counts.
    pub(crate) fn turn(&self) -> Turn {
        Turn(self.generation << 16 | self.slot as u64)
    }

    /// Whether this slot counts.
    pub(crate) fn is_current(&self) -> bool {
        self.bus.turn() == self.turn()
    }

    /// Which bus this is, over all of its slots.
    pub(crate) fn lineage(&self) -> u64 {
        // Relaxed: written before the slot came to count.
        self.page().lineage.load(Ordering::Relaxed)
    }

    /// What keeps a role of this slot for its owner.
    pub(crate) fn keeper(&self, role: Role) -> Keeper {
        Keeper { generation: self.generation, byte: byte_of(self.slot, role) }
    }

    /// The first page of the slot.
    pub(crate) fn page(&self) -> &SlotPage {
        // SAFETY: the mapping is page aligned, longer than a page, and lives as long as `self`; the
        // page holds only atomics.
        unsafe { &*self.map.as_ptr().cast() }
    }

    /// The lines of a role.
    pub(crate) fn role(&self, role: Role) -> &RoleLines {
        &self.page().roles[usize::from(role == Role::Slave)]
    }

    /// One direction as a ring. The view must not outlive the segment; the endpoints keep both.
    pub(crate) fn ring(&self, direction: Direction) -> Ring {
        let plan = &self.facts().plan.rings[direction as usize];
        let base = self.map.as_ptr();
        // SAFETY: both offsets come from the private plan, whose slot length is that of the mapping.
        let (lines, frames) =
            unsafe { (base.add(plan.cursors_off as usize), base.add(plan.frames_off as usize)) };
        let geometry = plan.geometry;
        // SAFETY: the frames lie page aligned inside the mapping, `frames * frame_size` bytes of
        // them; the geometry was checked when the plan was made.
        let frames = unsafe { Frames::new(frames, geometry.frames, geometry.frame_size as usize) };
        // SAFETY: the cursor page lies inside the mapping and is not at address zero.
        unsafe { Ring::new(NonNull::new_unchecked(lines.cast()), frames, geometry) }
    }

    /// The shape of one direction.
    pub(crate) fn geometry(&self, direction: Direction) -> Geometry {
        self.facts().geometry(direction)
    }

    /// Whether somebody began to replace this slot.
    pub(crate) fn is_sealed(&self) -> bool {
        // pairs SEAL: acquire, so that what the sealer did before is seen.
        self.page().fate.sealed.load(Ordering::Acquire) != 0
    }

    /// Whether the bus is being replaced or removed.
    pub(crate) fn is_doomed(&self) -> bool {
        self.is_sealed() || !self.is_current()
    }

    /// Whether the name still leads to this file, which must be whole.
    pub(crate) fn check_file(&self) -> Result<bool> {
        let facts = self.facts();
        // The directory may be unreadable for a moment: that says nothing about the file.
        let Ok(found) = shm::facts_at(&facts.path) else { return Ok(true) };
        let found = found.filter(|found| found.id == facts.id);
        let is_short = found.is_some_and(|found| found.size < facts.plan.slot_end(self.slot));
        let is_hit = self.guard.as_ref().is_some_and(sigbus::Guard::hit) || self.bus.is_hit();
        if is_short || is_hit {
            return Err(Error::Lost { what: "its file was truncated", unread: 0 });
        }
        Ok(found.is_some())
    }

    /// Does what the options wish for the memory, and reports what was refused.
    pub(crate) fn prepare_memory(&self, options: &Options) -> Vec<Refusal> {
        let mut refused = Vec::new();
        let mut wish = |wanted: bool, what, act: &dyn Fn() -> Result<()>| {
            if let (true, Err(error)) = (wanted, wanted.then(act).unwrap_or(Ok(()))) {
                refused.push(Refusal { what, why: error.to_string() });
            }
        };
        wish(options.huge_pages, "huge_pages", &|| self.map.huge_pages());
        wish(options.prefault, "prefault", &|| self.map.prefault());
        wish(options.lock_memory, "lock_memory", &|| self.map.lock_memory());
        refused
    }
}
