//! Structs that grow: each begins with the size that the program was compiled with.
//!
//! Older programs know fewer fields: the rest has its default. Newer ones know more: what they ask
//! for beyond what is known here must be 0, and what they would be told beyond it is 0.

use std::mem::size_of;
use std::ptr;

use crate::fault::Fault;

/// No struct of this interface is longer; a size above it was never set.
const LONGEST: usize = 4096;

/// A `repr(C)` struct whose first field is `struct_size: usize`.
///
/// # Safety
///
/// The struct begins with a `usize`, and every pattern of bytes is a value of it.
pub unsafe trait Growing: Copy {}

// SAFETY: begins with struct_size; integers and pointers only.
unsafe impl Growing for crate::types::ESHMOptions {}
// SAFETY: begins with struct_size; integers only.
unsafe impl Growing for crate::types::ESHMMessage {}
// SAFETY: begins with struct_size; integers only.
unsafe impl Growing for crate::types::ESHMPeer {}
// SAFETY: begins with struct_size; integers only.
unsafe impl Growing for crate::types::ESHMStatsEx {}
// SAFETY: begins with struct_size; integers and pointers only.
unsafe impl Growing for crate::types::ESHMEntry {}

/// Reads what the caller gives over the defaults.
///
/// # Safety
///
/// `from` is NULL, or points to as many readable bytes as the `usize` there says.
pub unsafe fn read<T: Growing>(from: *const T, defaults: T) -> Result<T, Fault> {
    // SAFETY: as the caller promises.
    let theirs = unsafe { size_at(from.cast())? };
    let mut value = defaults;
    let known = theirs.min(size_of::<T>());
    // SAFETY: `known` bytes are readable there and writable here; any bytes are a value of T.
    unsafe { ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast::<u8>(), known) };
    for beyond in known..theirs {
        // SAFETY: below the size that the caller promised.
        if unsafe { *from.cast::<u8>().add(beyond) } != 0 {
            return Err(Fault::Param("the struct asks for something newer than this library"));
        }
    }
    Ok(value)
}

/// Writes to the caller as much of `value` as it knows, and 0 into what only it knows.
///
/// # Safety
///
/// `to` is NULL, or points to as many writable bytes as the `usize` there says.
pub unsafe fn write<T: Growing>(to: *mut T, value: &T) -> Result<(), Fault> {
    // SAFETY: as the caller promises.
    let theirs = unsafe { size_at(to.cast_const().cast())? };
    let (head, known) = (size_of::<usize>(), theirs.min(size_of::<T>()));
    let (from, to) = (ptr::from_ref(value).cast::<u8>(), to.cast::<u8>());
    // SAFETY: both have `known` bytes at least, of which the first, the size, stays.
    unsafe { ptr::copy_nonoverlapping(from.add(head), to.add(head), known - head) };
    // SAFETY: from `known` up to the size that the caller promised.
    unsafe { ptr::write_bytes(to.add(known), 0, theirs - known) };
    Ok(())
}

/// As [`write`], where NULL means that the caller does not want to know.
///
/// # Safety
///
/// As [`write`].
pub unsafe fn write_if_wanted<T: Growing>(to: *mut T, value: &T) -> Result<(), Fault> {
    // SAFETY: as the caller promises.
    if to.is_null() { Ok(()) } else { unsafe { write(to, value) } }
}

unsafe fn size_at(place: *const usize) -> Result<usize, Fault> {
    // SAFETY: the caller gives NULL or a struct that begins with a usize.
    let size = unsafe { place.as_ref() }.copied().ok_or(Fault::Param("the struct is NULL"))?;
    if (size_of::<usize>()..=LONGEST).contains(&size) {
        Ok(size)
    } else {
        Err(Fault::Param("struct_size is not set to the size of the struct"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ESHMMessage;

    #[repr(C)]
    #[derive(Clone, Copy)]
    struct Newer {
        old: ESHMMessage,
        more: u64,
    }

    const HERE: usize = size_of::<ESHMMessage>();

    fn newer(more: u64) -> Newer {
        let old = ESHMMessage { struct_size: size_of::<Newer>(), size: 7, ..Default::default() };
        Newer { old, more }
    }

    #[test]
    fn an_older_program_gets_and_gives_less() {
        let mut old = ESHMMessage { struct_size: 16, size: 7, lost: 9, ..Default::default() };
        let defaults = ESHMMessage { struct_size: HERE, lost: 5, ..Default::default() };
        // SAFETY: 16 bytes are there.
        let read = unsafe { read(&raw const old, defaults) }.expect("a size that fits");
        assert_eq!((read.size, read.lost), (7, 5));
        let told = ESHMMessage { struct_size: HERE, size: 8, lost: 1, ..Default::default() };
        // SAFETY: 16 bytes are there.
        unsafe { write(&raw mut old, &told) }.expect("a size that fits");
        assert_eq!((old.struct_size, old.size, old.lost), (16, 8, 9));
    }

    #[test]
    fn a_newer_program_may_ask_for_nothing_unknown() {
        let defaults = ESHMMessage { struct_size: HERE, ..Default::default() };
        let (plain, asking) = (newer(0), newer(1));
        // SAFETY: the structs have the size they say.
        unsafe {
            assert!(read((&raw const plain).cast::<ESHMMessage>(), defaults).is_ok());
            assert!(read((&raw const asking).cast::<ESHMMessage>(), defaults).is_err());
        }
        let mut told = newer(1);
        // SAFETY: the struct has the size it says.
        unsafe { write((&raw mut told).cast::<ESHMMessage>(), &defaults) }.expect("fits");
        assert_eq!(told.more, 0);
    }

    #[test]
    fn sizes_that_were_never_set_are_refused() {
        for size in [0, 7, LONGEST + 1, usize::MAX] {
            let message = ESHMMessage { struct_size: size, ..Default::default() };
            // SAFETY: the size is refused before anything else is read.
            assert!(unsafe { read(&raw const message, message) }.is_err());
        }
        // SAFETY: NULL is refused.
        assert!(unsafe { read(ptr::null(), ESHMMessage::default()) }.is_err());
    }
}
