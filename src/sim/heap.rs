//! Memory for one schedule at a time: taken from an arena, and given back all at once.
//!
//! A killed process runs no destructors, so what it had on the heap would be lost for ever; and the
//! same schedule must find the same addresses each time it runs. Between [`begin`] and [`end`] all
//! that this thread allocates comes from its arena; `end` takes everything back, so nothing that
//! was allocated meanwhile may be used afterwards. Whatever is to survive is copied out between
//! [`pause`] and [`resume`].

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr;

/// Address space of an arena; only what is used becomes memory.
const ARENA: usize = 1 << 30;
/// Pieces are multiples of this, up to [`LARGEST`], and are used again when they are freed.
const GRAIN: usize = 16;
const LARGEST: usize = 2048;
const CLASSES: usize = LARGEST / GRAIN + 1;

#[global_allocator]
static HEAP: Heap = Heap;

struct Heap;

/// What a thread knows of its arena.
struct Arena {
    is_on: Cell<bool>,
    base: Cell<usize>,
    top: Cell<usize>,
    /// For each size the freed pieces, each of which begins with the address of the next.
    freed: [Cell<usize>; CLASSES],
}

thread_local! {
    static MINE: Arena = const {
        Arena {
            is_on: Cell::new(false),
            base: Cell::new(0),
            top: Cell::new(0),
            freed: [const { Cell::new(0) }; CLASSES],
        }
    };
}

/// From here on this thread's memory comes from its arena.
pub(super) fn begin() {
    MINE.with(|arena| {
        if arena.base.get() == 0 {
            // Aligned to no more than all memory is, or the system would write zeros itself.
            let layout = Layout::from_size_align(ARENA, GRAIN).expect("a layout");
            // SAFETY: the layout is not empty. Zeroed, so that the pages come when they are used.
            let base = unsafe { System.alloc_zeroed(layout) };
            assert!(!base.is_null(), "no address space for an arena");
            arena.base.set(base.addr());
        }
        arena.top.set(arena.base.get());
        arena.freed.iter().for_each(|first| first.set(0));
        arena.is_on.set(true);
    });
}

/// Takes everything back.
pub(super) fn end() {
    MINE.with(|arena| arena.is_on.set(false));
}

/// Runs `outside` with ordinary memory, so that its result survives.
pub(super) fn outside<T>(outside: impl FnOnce() -> T) -> T {
    let was_on = MINE.with(|arena| arena.is_on.replace(false));
    let result = outside();
    MINE.with(|arena| arena.is_on.set(was_on));
    result
}

/// Runs `run` as a forked child would: what it does to memory is not there afterwards. It must neither
/// hand over the baton nor keep anything that it allocates.
pub(super) fn undone(run: impl FnOnce()) {
    let range = || MINE.with(|arena| (arena.base.get(), arena.top.get()));
    let (base, top) = range();
    let start = ptr::with_exposed_provenance_mut::<u8>(base);
    let len = top - base;
    let (copy, freed) = outside(|| {
        let mut copy = Vec::<u8>::with_capacity(len);
        // SAFETY: the arena is that long, and all of it is initialised; bytes are copied, no values.
        unsafe { start.copy_to_nonoverlapping(copy.as_mut_ptr(), len) };
        (copy, MINE.with(|arena| arena.freed.iter().map(Cell::get).collect::<Vec<_>>()))
    });
    run();
    // SAFETY: as above; who ran has ended, and nobody else has run since.
    unsafe { start.copy_from_nonoverlapping(copy.as_ptr(), len) };
    MINE.with(|arena| {
        arena.top.set(top);
        arena.freed.iter().zip(&freed).for_each(|(first, &before)| first.set(before));
    });
    outside(|| drop((copy, freed)));
}

impl Arena {
    fn take(&self, layout: Layout) -> *mut u8 {
        let size = layout.size().next_multiple_of(GRAIN).max(GRAIN);
        let class = size / GRAIN;
        if size <= LARGEST && layout.align() <= GRAIN {
            let first = self.freed[class].get();
            if first != 0 {
                let piece = ptr::with_exposed_provenance_mut::<usize>(first);
                // SAFETY: a freed piece of the arena, whose first word is the next one.
                self.freed[class].set(unsafe { piece.read() });
                return piece.cast();
            }
        }
        let start = self.top.get().next_multiple_of(layout.align().max(GRAIN));
        let end = start + size;
        if end > self.base.get() + ARENA {
            return ptr::null_mut();
        }
        self.top.set(end);
        ptr::with_exposed_provenance_mut(start)
    }

    fn holds(&self, address: usize) -> bool {
        address.wrapping_sub(self.base.get()) < ARENA && self.base.get() != 0
    }

    fn give_back(&self, piece: *mut u8, layout: Layout) {
        let size = layout.size().next_multiple_of(GRAIN).max(GRAIN);
        if self.is_on.get() && size <= LARGEST && layout.align() <= GRAIN {
            let first = &self.freed[size / GRAIN];
            // SAFETY: the piece is free, at least one word long and aligned to it.
            unsafe { piece.cast::<usize>().write(first.get()) };
            first.set(piece.expose_provenance());
        }
    }
}

// SAFETY: pieces of the arena do not overlap while they are in use, and are as long and as aligned
// as asked for; everything else is the system's allocator.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = MINE.try_with(|arena| arena.is_on.get().then(|| arena.take(layout)));
        match taken {
            Ok(Some(piece)) => piece,
            // SAFETY: the caller's promise is passed on.
            _ => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let taken = MINE.try_with(|arena| arena.is_on.get().then(|| arena.take(layout)));
        match taken {
            Ok(Some(piece)) if !piece.is_null() => {
                // SAFETY: a piece as long as asked for, which nobody else has.
                unsafe { piece.write_bytes(0, layout.size()) };
                piece
            }
            Ok(Some(none)) => none,
            // SAFETY: the caller's promise is passed on.
            _ => unsafe { System.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        let is_ours = MINE.try_with(|arena| {
            let is_ours = arena.holds(piece.addr());
            if is_ours {
                arena.give_back(piece, layout);
            }
            is_ours
        });
        if is_ours != Ok(true) {
            // SAFETY: not of the arena, so of the system; the caller's promise is passed on.
            unsafe { System.dealloc(piece, layout) }
        }
    }
}
