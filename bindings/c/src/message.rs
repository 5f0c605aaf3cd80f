//! One message at a time, with a timeout, an id, a length.

use std::ffi::{c_int, c_void};
use std::time::Duration;

use eshm::Error;

use crate::bus::{ESHMHandle, Open, ReadEnd};
use crate::classic::{given, out, place};
use crate::fault::Fault;
use crate::guard::status;
use crate::seat::{at_once, with_time};
use crate::sized::write_if_wanted;
use crate::types::{self, ESHMGeometry, ESHMMessage, ESHMMessageId};

/// Turns "none" into the code for it.
fn some_id(id: Option<eshm::MessageId>) -> Result<ESHMMessageId, Fault> {
    id.map(ESHMMessageId::from).ok_or(Fault::Eshm(Error::Empty))
}

/// `eshm_write_ex`
///
/// # Safety
///
/// `data` is NULL or points to `size` readable bytes; `id` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_write_ex(
    handle: *mut ESHMHandle,
    data: *const c_void,
    size: usize,
    id: *mut ESHMMessageId,
    timeout_ms: u32,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let message = unsafe { given(data, size)? };
        let written = with_time(
            open.writer(),
            timeout_ms,
            message,
            |end, message| {
                end.writer.try_write(message)?;
                Ok(end.writer.last_committed())
            },
            |end, message, wait| {
                end.writer.write_timeout(message, wait)?;
                Ok(end.writer.last_committed())
            },
        )?;
        // SAFETY: as the caller promises.
        if let (Some(id), Some(written)) = (unsafe { id.as_mut() }, written) {
            *id = written.into();
        }
        Ok(())
    })
}

/// What is told about the message that the reader read, or refused to read, last.
fn about(end: &mut ReadEnd, outcome: &Result<usize, Fault>) -> ESHMMessage {
    let (size, id) = match outcome {
        Ok(len) => (*len, end.reader.last_id().map(ESHMMessageId::from).unwrap_or_default()),
        Err(fault) => (needed(fault), ESHMMessageId::default()),
    };
    let lost = if outcome.is_ok() { end.lost_now() } else { 0 };
    ESHMMessage { struct_size: size_of::<ESHMMessage>(), size, id, lost }
}

/// How long a buffer must be, if that was what was wrong.
#[must_use]
pub fn needed(fault: &Fault) -> usize {
    match fault {
        Fault::Eshm(Error::BufferTooSmall { len, .. } | Error::WrongSize { len, .. }) => *len,
        _ => 0,
    }
}

/// `eshm_read_message`
///
/// # Safety
///
/// `buffer` is NULL or points to `buffer_size` writable bytes; `message` is NULL or has its size
/// in front.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_read_message(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    buffer_size: usize,
    message: *mut ESHMMessage,
    timeout_ms: u32,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let buffer = unsafe { place(buffer, buffer_size)? };
        let mut told = ESHMMessage::default();
        let outcome = with_time(
            open.reader(),
            timeout_ms,
            (buffer, &mut told),
            |end, (buffer, told)| {
                let outcome = end.reader.try_read(buffer).map_err(Fault::Eshm);
                **told = about(end, &outcome);
                outcome
            },
            |end, (buffer, told), wait| {
                let outcome = end.reader.read_timeout(buffer, wait).map_err(Fault::Eshm);
                **told = about(end, &outcome);
                outcome
            },
        );
        // SAFETY: as the caller promises.
        unsafe { write_if_wanted(message, &told)? };
        outcome.map(drop)
    })
}

/// `eshm_read_exact`
///
/// # Safety
///
/// As for [`eshm_read_message`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_read_exact(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    size: usize,
    message: *mut ESHMMessage,
    timeout_ms: u32,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let buffer = unsafe { place(buffer, size)? };
        let mut told = ESHMMessage::default();
        let outcome = with_time(
            open.reader(),
            timeout_ms,
            (buffer, &mut told),
            |end, (buffer, told)| read_exactly(end, None, buffer, told),
            |end, (buffer, told), wait| read_exactly(end, Some(wait), buffer, told),
        );
        // SAFETY: as the caller promises.
        unsafe { write_if_wanted(message, &told)? };
        outcome
    })
}

fn read_exactly(
    end: &mut ReadEnd,
    wait: Option<Duration>,
    buffer: &mut [u8],
    told: &mut ESHMMessage,
) -> Result<(), Fault> {
    if let Some(wait) = wait {
        // Waits for it, and leaves it where it is.
        end.reader.peek_timeout(wait)?;
    }
    let outcome = end.reader.try_read_exact(buffer).map(|()| buffer.len()).map_err(Fault::Eshm);
    *told = about(end, &outcome);
    outcome.map(drop)
}

/// `eshm_max_message`
///
/// # Safety
///
/// `size` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_max_message(handle: *mut ESHMHandle, size: *mut usize) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let size = unsafe { out(size)? };
        *size = open.with_shown(|shown| shown.geometry(shown.role.writes()).max_message())?;
        Ok(())
    })
}

/// `eshm_next_size`
///
/// # Safety
///
/// `size` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_next_size(handle: *mut ESHMHandle, size: *mut usize) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let size = unsafe { out(size)? };
        *size = at_once(open.reader(), |end| Ok(end.reader.next_len()?))?;
        Ok(())
    })
}

/// `eshm_skip_to_latest`
///
/// # Safety
///
/// `skipped` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_skip_to_latest(handle: *mut ESHMHandle, skipped: *mut u64) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        let count = at_once(open.reader(), |end| Ok(end.reader.skip_to_latest()?))?;
        // SAFETY: as the caller promises.
        if let Some(skipped) = unsafe { skipped.as_mut() } {
            *skipped = count;
        }
        Ok(())
    })
}

/// `eshm_last_committed`
///
/// # Safety
///
/// `id` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_last_committed(
    handle: *mut ESHMHandle,
    id: *mut ESHMMessageId,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let id = unsafe { out(id)? };
        let end = open.writer().take_briefly()?;
        if end.claim.is_some() {
            return Err(Fault::Param("a claim is open: commit or abort it first"));
        }
        *id = some_id(end.writer.last_committed())?;
        Ok(())
    })
}

/// `eshm_last_read`
///
/// # Safety
///
/// `id` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_last_read(handle: *mut ESHMHandle, id: *mut ESHMMessageId) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let id = unsafe { out(id)? };
        let end = open.reader().take_briefly()?;
        *id = some_id(end.unpeeked()?.last_id())?;
        Ok(())
    })
}

/// `eshm_lost`
///
/// # Safety
///
/// `lost` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_lost(handle: *mut ESHMHandle, lost: *mut u64) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let lost = unsafe { out(lost)? };
        let mut end = open.reader().take_briefly()?;
        let counted = end.unpeeked()?.lost();
        *lost = end.losses.total(counted);
        Ok(())
    })
}

/// `eshm_get_geometry`
///
/// # Safety
///
/// `geometry` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_get_geometry(
    handle: *mut ESHMHandle,
    direction: c_int,
    geometry: *mut ESHMGeometry,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let geometry = unsafe { out(geometry)? };
        let direction = types::direction(direction)?;
        *geometry = open.with_shown(|shown| shown.geometry(direction).into())?;
        Ok(())
    })
}

impl ReadEnd {
    /// How many messages were lost that the program was not told of yet.
    pub fn lost_now(&mut self) -> u64 {
        self.losses.untold(self.reader.lost())
    }

    /// The reader, unless a peek borrows it.
    fn unpeeked(&self) -> Result<&eshm::Reader, Fault> {
        match self.peek {
            Some(_) => Err(Fault::Param("a peek is open: release or keep it first")),
            None => Ok(&self.reader),
        }
    }
}
