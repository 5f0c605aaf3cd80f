//! `eshm_write`, `eshm_read` and `eshm_read_ex`: one path in three stages.
//!
//! ```text
//!   quick    a ticket, a short message that is there or has room, nobody rang: done
//!     |
//!   on       still inside; a message of any length
//!     |
//!   any      by the handle, in turn with other threads, as patient as the caller is
//! ```
//!
//! Each stage goes on to the next in a call at its very end, with the arguments where they are: so the
//! first hardly needs a stack, and costs little more than the Rust call does that became a part of its
//! caller. That is why the stages are functions of C: such a function does not unwind, and nothing
//! needs to be put in order behind it.

use std::ffi::{c_int, c_void};

use eshm::{Error, Now, Reader, Writer};

use crate::again::going_on;
use crate::bus::{self, ESHMHandle, ReadEnd, WriteEnd};
use crate::classic::{given, place};
use crate::fault::{BUFFER_TOO_SMALL, Fault};
use crate::guard::{call, status};
use crate::seat::{Quick, at_once, with_time};
use crate::thread::{Record, Step};

/// `ESHM_MAX_DATA_SIZE`: the most that `eshm_write` takes, whatever the geometry.
const MAX_DATA_SIZE: usize = 4096;
/// How long `eshm_read` waits.
const READ_TIMEOUT_MS: u32 = 1000;

/// The record by which the thread is inside, if it is.
type Inside = Option<&'static Record>;

// --- writing ------------------------------------------------------------------------------------

/// `eshm_write`
///
/// # Safety
///
/// `data` is NULL or points to `size` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_write(
    handle: *mut ESHMHandle,
    data: *const c_void,
    size: usize,
) -> c_int {
    call(|| {
        let quick = bus::write_quickly(handle, |writer| {
            // SAFETY: as the caller promises.
            match unsafe { quick_bytes(data, size) } {
                // SAFETY: only a plain writer has a ticket.
                Some(message) => unsafe { writer.write_short(message) }.map(|()| 0),
                None => Now::Not,
            }
        });
        Ok(match quick {
            Quick::Done(code) => code,
            // SAFETY: as the caller promises.
            Quick::Rung(inside) => unsafe { write_rung(handle, data, size, inside) },
            // SAFETY: as above.
            Quick::Not(inside) => unsafe { write_on(handle, data, size, inside) },
        })
    })
}

/// What a quick try can write; NULL is no place of bytes, and looked at later.
#[inline(always)]
unsafe fn quick_bytes<'a>(data: *const c_void, size: usize) -> Option<&'a [u8]> {
    if data.is_null() || size > MAX_DATA_SIZE {
        return None;
    }
    // SAFETY: as the caller promises, and not too long.
    Some(unsafe { std::slice::from_raw_parts(data.cast(), size) })
}

#[inline(never)]
unsafe extern "C" fn write_on(
    handle: *mut ESHMHandle,
    data: *const c_void,
    size: usize,
    inside: Inside,
) -> c_int {
    let now = |writer: &mut Writer| {
        // SAFETY: as the caller of `eshm_write` promises.
        match unsafe { quick_bytes(data, size) } {
            // SAFETY: only a plain writer has a ticket.
            Some(message) => unsafe { writer.write_plain(message) }.map(|()| 0),
            None => Now::Not,
        }
    };
    // SAFETY: `eshm_write` stepped in so.
    let quick = unsafe { bus::still_write(inside, handle, now) };
    match quick {
        Quick::Done(code) => code,
        // SAFETY: as the caller of `eshm_write` promises.
        Quick::Rung(inside) => unsafe { write_rung(handle, data, size, inside) },
        // SAFETY: as above.
        Quick::Not(inside) => unsafe { write_any(handle, data, size, inside) },
    }
}

#[cold]
unsafe extern "C" fn write_rung(
    handle: *mut ESHMHandle,
    data: *const c_void,
    size: usize,
    inside: &'static Record,
) -> c_int {
    call(|| {
        // SAFETY: as the caller of `eshm_write` promises.
        let message = unsafe { std::slice::from_raw_parts(data.cast(), size) };
        // SAFETY: so the try before said.
        let written =
            unsafe { bus::attend_write(inside, handle, |writer| writer.attend_write(message)) };
        match written {
            // It is in no bus: once more, in the one that comes.
            // SAFETY: as the caller of `eshm_write` promises.
            Err(Error::Lost { .. }) => Ok(unsafe { write_any(handle, data, size, None) }),
            written => Ok(written.map(|()| 0)?),
        }
    })
}

unsafe extern "C" fn write_any(
    handle: *mut ESHMHandle,
    data: *const c_void,
    size: usize,
    inside: Inside,
) -> c_int {
    status(|| {
        let mut step = inside.map(Step::new);
        going_on::<WriteEnd, _>(handle, 0, |open, _| {
            let way = open.writer().from(step.take());
            if size > MAX_DATA_SIZE {
                return Err(too_long(size));
            }
            // SAFETY: as the caller of `eshm_write` promises.
            let message = unsafe { given(data, size)? };
            at_once(way, |end| Ok(end.writer.try_write(message)?))
        })
    })
}

#[cold]
fn too_long(len: usize) -> Fault {
    Fault::As(BUFFER_TOO_SMALL, Error::TooLong { len, max: MAX_DATA_SIZE })
}

// --- reading ------------------------------------------------------------------------------------

/// `eshm_read`
///
/// # Safety
///
/// `buffer` is NULL or points to `buffer_size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_read(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    buffer_size: usize,
) -> c_int {
    call(|| {
        // A length that is no int could not be told.
        let size = buffer_size.min(c_int::MAX as usize);
        let mut len = 0;
        // SAFETY: as the caller promises.
        let quick = unsafe { read_quickly(handle, buffer, size, |read| len = read) };
        Ok(match quick {
            Quick::Done(_) => len as c_int,
            // SAFETY: as the caller promises.
            Quick::Rung(inside) => unsafe {
                read_rung(handle, buffer, size, READ_TIMEOUT_MS, len, inside) as c_int
            },
            // SAFETY: as above.
            Quick::Not(inside) => unsafe {
                read_on(handle, buffer, size, READ_TIMEOUT_MS, inside) as c_int
            },
        })
    })
}

/// `eshm_read_ex`
///
/// # Safety
///
/// `buffer` is NULL or points to `buffer_size` writable bytes; `bytes_read` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_read_ex(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    buffer_size: usize,
    bytes_read: *mut usize,
    timeout_ms: u32,
) -> c_int {
    call(|| {
        let mut len = 0;
        let tell = |read| {
            len = read;
            // SAFETY: as the caller promises.
            if let Some(bytes_read) = unsafe { bytes_read.as_mut() } {
                *bytes_read = read;
            }
        };
        // SAFETY: as the caller promises.
        let quick = unsafe { read_quickly(handle, buffer, buffer_size, tell) };
        Ok(match quick {
            Quick::Done(code) => code,
            // SAFETY: as the caller promises.
            Quick::Rung(inside) => unsafe {
                let both = u64::from(timeout_ms) | (len as u64) << 32;
                read_ex_rung(handle, buffer, buffer_size, bytes_read, both, inside)
            },
            // SAFETY: as above.
            Quick::Not(inside) => unsafe {
                read_ex_on(handle, buffer, buffer_size, bytes_read, timeout_ms, inside)
            },
        })
    })
}

/// # Safety
///
/// As for [`eshm_read`].
#[inline(always)]
unsafe fn read_quickly(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    size: usize,
    tell: impl FnOnce(usize),
) -> Quick {
    bus::read_quickly(handle, |reader| {
        // SAFETY: as the caller promises.
        match unsafe { quick_place(buffer, size) } {
            // SAFETY: only a plain reader has a ticket.
            Some(buffer) => unsafe { reader.read_short(buffer) }.map(|len| {
                tell(len);
                0
            }),
            None => Now::Not,
        }
    })
}

/// Where a quick try can read to.
#[inline(always)]
unsafe fn quick_place<'a>(buffer: *mut c_void, size: usize) -> Option<&'a mut [u8]> {
    // No object is larger, but a caller may say "more than enough".
    let size = size & isize::MAX as usize;
    // SAFETY: as the caller promises, and not too long.
    (!buffer.is_null()).then(|| unsafe { std::slice::from_raw_parts_mut(buffer.cast(), size) })
}

unsafe extern "C" fn read_ex_on(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    buffer_size: usize,
    bytes_read: *mut usize,
    timeout_ms: u32,
    inside: Inside,
) -> c_int {
    // SAFETY: as the caller of `eshm_read_ex` promises.
    unsafe { tell(bytes_read, read_on(handle, buffer, buffer_size, timeout_ms, inside)) }
}

/// `both` are the timeout and, in the high half, the length: with one more argument they would not
/// all be in registers.
#[cold]
unsafe extern "C" fn read_ex_rung(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    buffer_size: usize,
    bytes_read: *mut usize,
    both: u64,
    inside: &'static Record,
) -> c_int {
    let (timeout_ms, len) = (both as u32, (both >> 32) as usize);
    // SAFETY: as the caller of `eshm_read_ex` promises.
    unsafe { tell(bytes_read, read_rung(handle, buffer, buffer_size, timeout_ms, len, inside)) }
}

/// Splits what a later stage of reading gives, a length or a code, which is negative.
unsafe fn tell(bytes_read: *mut usize, outcome: isize) -> c_int {
    // SAFETY: as the caller of `eshm_read_ex` promises.
    if let Some(bytes_read) = unsafe { bytes_read.as_mut() } {
        *bytes_read = outcome.max(0).cast_unsigned();
    }
    outcome.min(0) as c_int
}

#[inline(never)]
unsafe extern "C" fn read_on(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    size: usize,
    timeout_ms: u32,
    inside: Inside,
) -> isize {
    let mut len = 0;
    let now = |reader: &mut Reader| {
        // SAFETY: as the caller of `eshm_read` promises.
        match unsafe { quick_place(buffer, size) } {
            // SAFETY: only a plain reader has a ticket.
            Some(buffer) => unsafe { reader.read_plain(buffer) }.map(|read| {
                len = read;
                0
            }),
            None => Now::Not,
        }
    };
    // SAFETY: the stage before stepped in so.
    let quick = unsafe { bus::still_read(inside, handle, now) };
    match quick {
        Quick::Done(_) => len.cast_signed(),
        // SAFETY: as the caller of `eshm_read` promises.
        Quick::Rung(inside) => unsafe { read_rung(handle, buffer, size, timeout_ms, len, inside) },
        // SAFETY: as above.
        Quick::Not(inside) => unsafe { read_any(handle, buffer, size, timeout_ms, inside) },
    }
}

/// What was read may have to be read once more, where the bus has moved to.
#[cold]
unsafe extern "C" fn read_rung(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    size: usize,
    timeout_ms: u32,
    len: usize,
    inside: &'static Record,
) -> isize {
    call(|| {
        // SAFETY: so the try before said.
        let read = unsafe { bus::attend_read(inside, handle, |reader| reader.attend_read(len)) };
        match read {
            Err(Error::Empty | Error::Lost { .. }) => {
                // SAFETY: as the caller of `eshm_read` promises.
                Ok(unsafe { read_any(handle, buffer, size, timeout_ms, None) })
            }
            read => Ok(read?.cast_signed()),
        }
    })
}

unsafe extern "C" fn read_any(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    size: usize,
    timeout_ms: u32,
    inside: Inside,
) -> isize {
    call(|| {
        let mut step = inside.map(Step::new);
        going_on::<ReadEnd, _>(handle, timeout_ms, |open, timeout_ms| {
            let way = open.reader().from(step.take());
            // SAFETY: as the caller of `eshm_read` promises.
            let buffer = unsafe { place(buffer, size)? };
            with_time(
                way,
                timeout_ms,
                buffer,
                |end, buffer| Ok(end.reader.try_read(buffer)?.cast_signed()),
                |end, buffer, wait| Ok(end.reader.read_timeout(buffer, wait)?.cast_signed()),
            )
        })
    })
}
