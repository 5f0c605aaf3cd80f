//! Handles: numbers that look like pointers, and the places they stand for.
//!
//! A handle is never followed. It carries the number of a slot and how often that slot was used;
//! the slot says which handle is valid for it now. So a handle that was closed, is of another
//! kind, or was never one is told apart without a look at memory it may point to, also when
//! another thread closes it at this very moment.
//!
//! ```text
//!   bits   63 ........... 20   19 ...... 6   5..4   3..0
//!          uses of the slot    slot number   kind    0
//! ```
//!
//! Slots live in chunks that are made when needed and never freed. No lock is taken, so that a
//! child forked at any moment can go on.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

const CHUNK: usize = 64;
const CHUNKS: usize = 256;
const SLOT_BITS: u32 = 14;
const KIND_SHIFT: u32 = 4;
/// Where the number of the slot is in a handle.
pub const SLOT_SHIFT: u32 = 6;
const USES_SHIFT: u32 = SLOT_SHIFT + SLOT_BITS;

const _: () = assert!(CHUNK * CHUNKS == 1 << SLOT_BITS);

/// States of a slot that no handle equals: the low four bits of a handle are 0.
const FREE: usize = 1;
const CHANGING: usize = 2;

/// The place of one handle. What every call looks at comes first.
#[repr(C, align(64))]
pub struct Slot<B> {
    /// The valid handle, or one of the states above.
    seal: AtomicUsize,
    uses: AtomicUsize,
    /// What the handle is about.
    pub body: B,
}

/// A slot together with the handle it was found by.
pub struct Found<B: 'static> {
    /// The slot.
    pub slot: &'static Slot<B>,
    handle: usize,
}

/// Tells whether the handle that a slot was found by is still open.
#[derive(Clone, Copy)]
pub struct Key {
    seal: &'static AtomicUsize,
    handle: usize,
}

impl Key {
    /// Whether the handle is still open.
    #[inline]
    #[must_use]
    pub fn is_open(self) -> bool {
        // Acquire: pairs with `publish`. Asked with the seat held, which also orders it after the
        // fill and before the emptying.
        self.seal.load(Ordering::Acquire) == self.handle
    }
}

impl<B> Found<B> {
    /// The key for what the slot holds.
    #[inline]
    #[must_use]
    pub fn key(&self) -> Key {
        Key { seal: &self.slot.seal, handle: self.handle }
    }
}

/// All handles of one kind.
pub struct Slab<B: 'static> {
    kind: usize,
    fresh: fn() -> B,
    chunks: [AtomicPtr<Slot<B>>; CHUNKS],
}

impl<B: Sync> Slab<B> {
    /// An empty slab. `kind` is 1 to 3, `fresh` makes the body of a new slot.
    #[must_use]
    pub const fn new(kind: usize, fresh: fn() -> B) -> Self {
        assert!(kind > 0 && kind < 4);
        Slab { kind, fresh, chunks: [const { AtomicPtr::new(ptr::null_mut()) }; CHUNKS] }
    }

    /// Finds the slot of a handle that is open.
    #[inline]
    #[must_use]
    pub fn find(&'static self, handle: usize) -> Option<Found<B>> {
        let number = (handle >> SLOT_SHIFT) & ((1 << SLOT_BITS) - 1);
        // Acquire: pairs with the release in `chunk`.
        let chunk = self.chunks[number / CHUNK].load(Ordering::Acquire);
        if chunk.is_null() || !handle.is_multiple_of(1 << KIND_SHIFT) {
            return None;
        }
        // SAFETY: a chunk has CHUNK slots, was published whole and is never freed.
        let slot = unsafe { &*chunk.add(number % CHUNK) };
        // Acquire: pairs with `publish`.
        let open = slot.seal.load(Ordering::Acquire) == handle;
        open.then_some(Found { slot, handle })
    }

    /// Takes a free slot, which no handle leads to yet; `None` when there are too many.
    pub fn reserve(&'static self) -> Option<Reserved<B>> {
        (0..CHUNK * CHUNKS).find_map(|number| self.reserve_number(number))
    }

    fn reserve_number(&'static self, number: usize) -> Option<Reserved<B>> {
        // SAFETY: a chunk has CHUNK slots and is never freed.
        let slot = unsafe { &*self.chunk(number / CHUNK).add(number % CHUNK) };
        if slot.seal.load(Ordering::Relaxed) != FREE {
            return None;
        }
        // Acquire: pairs with the release in `free`.
        slot.seal
            .compare_exchange(FREE, CHANGING, Ordering::Acquire, Ordering::Relaxed)
            .ok()
            .map(|_| Reserved { slot, tag: (number << SLOT_SHIFT) | (self.kind << KIND_SHIFT) })
    }

    fn chunk(&self, index: usize) -> *const Slot<B> {
        let place = &self.chunks[index];
        let there = place.load(Ordering::Acquire);
        if !there.is_null() {
            return there;
        }
        let slots: Box<[Slot<B>]> = (0..CHUNK).map(|_| self.fresh_slot()).collect();
        let made = Box::into_raw(slots).cast::<Slot<B>>();
        // Release: publishes the slots as they are. Acquire: those of a thread that was faster.
        match place.compare_exchange(ptr::null_mut(), made, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => made,
            Err(faster) => {
                // SAFETY: made above, by `into_raw` of a slice of this length, and given to nobody.
                drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(made, CHUNK)) });
                faster
            }
        }
    }

    fn fresh_slot(&self) -> Slot<B> {
        Slot { seal: AtomicUsize::new(FREE), uses: AtomicUsize::new(0), body: (self.fresh)() }
    }
}

/// A slot that this thread has for itself. Free again when dropped.
pub struct Reserved<B: 'static> {
    /// The slot.
    pub slot: &'static Slot<B>,
    tag: usize,
}

impl<B> Reserved<B> {
    /// The handle that will lead to the slot.
    #[must_use]
    pub fn handle(&self) -> usize {
        ((self.slot.uses.load(Ordering::Relaxed) + 1) << USES_SHIFT) | self.tag
    }

    /// Lets the handle lead to the slot; returns it.
    #[must_use]
    pub fn publish(self) -> usize {
        let handle = self.handle();
        self.slot.uses.store(handle >> USES_SHIFT, Ordering::Relaxed);
        // Release: who finds the slot sees the body filled.
        self.slot.seal.store(handle, Ordering::Release);
        std::mem::forget(self);
        handle
    }
}

impl<B> Reserved<B> {
    /// Lets the handle that was closed last lead to the slot again.
    pub fn reopen(self) {
        let uses = self.slot.uses.load(Ordering::Relaxed);
        // Release: as in `publish`.
        self.slot.seal.store((uses << USES_SHIFT) | self.tag, Ordering::Release);
        std::mem::forget(self);
    }
}

impl<B> Drop for Reserved<B> {
    fn drop(&mut self) {
        // Release: the next user of the slot sees the body emptied.
        self.slot.seal.store(FREE, Ordering::Release);
    }
}

impl<B> Found<B> {
    /// Closes the handle. Of two threads that try, one succeeds.
    #[must_use]
    pub fn close(self) -> Option<Reserved<B>> {
        let tag = self.handle & ((1 << USES_SHIFT) - 1);
        // Relaxed: what the body holds is ordered by its seats.
        self.slot
            .seal
            .compare_exchange(self.handle, CHANGING, Ordering::Relaxed, Ordering::Relaxed)
            .ok()
            .map(|_| Reserved { slot: self.slot, tag })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static SLAB: Slab<()> = Slab::new(2, || ());

    #[test]
    fn closed_foreign_and_null_handles_lead_nowhere() {
        let local = 0_u64;
        let open = SLAB.reserve().expect("a free slot").publish();
        assert!(SLAB.find(open).is_some());
        for foreign in [0, 1, 2, 16, usize::MAX, ptr::from_ref(&local).addr(), open ^ 48, open + 1]
        {
            assert!(SLAB.find(foreign).is_none(), "{foreign:#x}");
        }
        let (first, second) = (SLAB.find(open).expect("open"), SLAB.find(open).expect("open"));
        let closed = first.close().expect("open until now");
        assert!(second.close().is_none(), "closed once only");
        drop(closed);
        let next = SLAB.reserve().expect("a free slot").publish();
        assert!(next != open && SLAB.find(open).is_none(), "the slot is used, the handle is not");
        drop(SLAB.find(next).and_then(Found::close));
    }
}
