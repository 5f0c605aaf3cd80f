//! Taps: looking on without taking part.

use std::ffi::{c_int, c_void};

use eshm::{Error, Tap};

use crate::classic::place;
use crate::fault::Fault;
use crate::guard::{call, status};
use crate::message::needed;
use crate::open::{given, options_named, schema};
use crate::seat::{Awaited, Seat, Value, with_time};
use crate::sized::write_if_wanted;
use crate::slab::{Found, Slab};
use crate::thread::Kind;
use crate::turn::Denied;
use crate::types::{self, ESHMMessage, ESHMOptions};

/// What a program holds a pointer to; nothing is ever there.
#[repr(C)]
pub struct ESHMTap {
    _nothing: [u8; 0],
}

static TAPS: Slab<Seat<TapEnd>> = Slab::new(2, || Seat::new(Kind::Reading));

struct TapEnd(Tap);

impl Value for TapEnd {}

impl Awaited for TapEnd {
    const NOTHING: Error = Error::Empty;

    fn is_occupied(&self) -> bool {
        false
    }
}

fn find(tap: *const ESHMTap) -> Result<Found<Seat<TapEnd>>, Fault> {
    TAPS.find(tap.addr()).ok_or(Fault::NoHandle)
}

/// `eshm_tap_open`
///
/// # Safety
///
/// `options` is NULL or a struct with its size in front, whose texts are NULL or texts of C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_tap_open(
    options: *const ESHMOptions,
    direction: c_int,
    from_unread: u8,
) -> *mut ESHMTap {
    call(|| {
        // SAFETY: as the caller promises.
        let (asked, name, directory) = unsafe { given(options)? };
        let mut options = options_named(name, directory);
        options.wait(types::wait(asked.wait)?);
        // SAFETY: as the caller promises.
        if let Some(reads) = unsafe { schema(&asked.reads)? } {
            options.reads(reads);
        }
        let mut tap = options.tap(types::direction(direction)?)?;
        if from_unread != 0 {
            tap.from_oldest();
        }
        let reserved = TAPS.reserve().ok_or(Fault::Param("too many open taps"))?;
        reserved.slot.body.fill(reserved.handle(), TapEnd(tap))?;
        Ok(std::ptr::without_provenance_mut(reserved.publish()))
    })
}

/// `eshm_tap_read`
///
/// # Safety
///
/// `buffer` is NULL or points to `buffer_size` writable bytes; `message` is NULL or has its size
/// in front.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_tap_read(
    tap: *mut ESHMTap,
    buffer: *mut c_void,
    buffer_size: usize,
    message: *mut ESHMMessage,
    timeout_ms: u32,
) -> c_int {
    status(|| {
        let found = find(tap)?;
        // SAFETY: as the caller promises.
        let buffer = unsafe { place(buffer, buffer_size)? };
        let outcome = with_time(
            found.slot.body.by(found.key()),
            timeout_ms,
            buffer,
            |end, buffer| Ok(end.0.try_read(buffer)?),
            |end, buffer, wait| Ok(end.0.read_timeout(buffer, wait)?),
        );
        let struct_size = size_of::<ESHMMessage>();
        let told = match &outcome {
            Ok(seen) => {
                ESHMMessage { struct_size, size: seen.len, id: seen.id.into(), lost: seen.lost }
            }
            Err(fault) => ESHMMessage { struct_size, size: needed(fault), ..Default::default() },
        };
        // SAFETY: as the caller promises.
        unsafe { write_if_wanted(message, &told)? };
        outcome.map(drop)
    })
}

/// `eshm_tap_close`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_tap_close(tap: *mut ESHMTap) -> c_int {
    status(|| close(find(tap)?))
}

/// Closes a handle that is one seat; see `Open::close`.
pub fn close<V: Value>(found: Found<Seat<V>>) -> Result<(), Fault>
where
    Seat<V>: Sync,
{
    let reserved = found.close().ok_or(Fault::NoHandle)?;
    let seat = &reserved.slot.body;
    match seat.hold() {
        Ok(mut held) => {
            drop(seat.empty(&mut held));
            Ok(())
        }
        Err(Denied::Nested) => {
            reserved.reopen();
            Err(Fault::Nested)
        }
        Err(Denied::Forked | Denied::Busy) => {
            std::mem::forget(reserved);
            Ok(())
        }
    }
}
