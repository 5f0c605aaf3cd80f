//! Writing and reading in place: claim and commit or abort, peek and release or keep.
//!
//! Between the two calls the half is nobody's turn: it carries the open claim or peek, and to
//! everybody else looks full or empty. So a program that forgets one blocks no thread.

use std::ffi::{c_int, c_void};
use std::time::Duration;

use crate::bus::{ESHMHandle, Open, ReadEnd, WriteEnd};
use crate::classic::out;
use crate::fault::Fault;
use crate::guard::status;
use crate::seat::with_time;
use crate::sized::write_if_wanted;
use crate::types::{ESHMMessage, ESHMView};

/// `eshm_claim`
///
/// # Safety
///
/// `place` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_claim(
    handle: *mut ESHMHandle,
    size: usize,
    place: *mut *mut c_void,
    timeout_ms: u32,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let place = unsafe { out(place)? };
        *place = std::ptr::null_mut();
        *place = with_time(
            open.writer(),
            timeout_ms,
            size,
            |end, size| claim(end, *size, None),
            |end, size, wait| claim(end, *size, Some(wait)),
        )?;
        Ok(())
    })
}

fn claim(end: &mut WriteEnd, size: usize, wait: Option<Duration>) -> Result<*mut c_void, Fault> {
    // SAFETY: the claim goes into `end`, which drops it before the writer, and while it is there
    // nothing uses the writer: every call looks for it first (`Awaited::is_occupied`).
    let writer = unsafe { end.writer.get_long() };
    let mut claim = match wait {
        None => writer.try_claim(size)?,
        Some(wait) => writer.claim_timeout(size, wait)?,
    };
    let place = claim.as_mut_ptr().cast();
    end.claim = Some(claim);
    Ok(place)
}

/// `eshm_commit`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_commit(handle: *mut ESHMHandle, size: usize) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        let mut end = open.writer().take_briefly()?;
        let claim = end.claim.take().ok_or(Fault::Param("no claim is open"))?;
        if size > claim.len() {
            end.claim = Some(claim);
            return Err(Fault::Param("more is to be committed than was claimed"));
        }
        Ok(claim.commit_len(size)?)
    })
}

/// `eshm_abort`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_abort(handle: *mut ESHMHandle) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        let mut end = open.writer().take_briefly()?;
        end.claim.take().map(drop).ok_or(Fault::Param("no claim is open"))
    })
}

/// `eshm_peek`
///
/// # Safety
///
/// `view` is NULL or writable; `message` is NULL or has its size in front.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_peek(
    handle: *mut ESHMHandle,
    view: *mut ESHMView,
    message: *mut ESHMMessage,
    timeout_ms: u32,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let view = unsafe { out(view)? };
        *view = ESHMView { data: std::ptr::null(), size: 0 };
        let (seen, told) = with_time(
            open.reader(),
            timeout_ms,
            (),
            |end, ()| peek(end, None),
            |end, (), wait| peek(end, Some(wait)),
        )?;
        *view = seen;
        // SAFETY: as the caller promises.
        unsafe { write_if_wanted(message, &told) }
    })
}

fn peek(end: &mut ReadEnd, wait: Option<Duration>) -> Result<(ESHMView, ESHMMessage), Fault> {
    if let Some(wait) = wait {
        end.reader.peek_timeout(wait)?;
    }
    // Finds the message, and with it what was lost before it: an open peek lets nobody ask.
    end.reader.next_len()?;
    let lost = end.lost_now();
    // SAFETY: as in `claim`.
    let peek = unsafe { end.reader.get_long() }.try_peek()?;
    let view = ESHMView { data: peek.as_ptr().cast(), size: peek.len() };
    let id = peek.id().into();
    let struct_size = size_of::<ESHMMessage>();
    end.peek = Some(peek);
    Ok((view, ESHMMessage { struct_size, size: view.size, id, lost }))
}

/// `eshm_release`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_release(handle: *mut ESHMHandle) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        let mut end = open.reader().take_briefly()?;
        let peek = end.peek.take().ok_or(Fault::Param("no peek is open"))?;
        Ok(peek.release()?)
    })
}

/// `eshm_keep`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_keep(handle: *mut ESHMHandle) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        let mut end = open.reader().take_briefly()?;
        end.peek.take().map(drop).ok_or(Fault::Param("no peek is open"))
    })
}
