//! Many messages with one call.

use std::ffi::{c_int, c_void};
use std::time::Duration;

use eshm::Error;

use crate::bus::{ESHMHandle, Open, ReadEnd};
use crate::classic::{given, out, place};
use crate::fault::Fault;
use crate::guard::status;
use crate::seat::{at_once, with_time};
use crate::types::ESHMView;

/// A view whose bytes were checked to be there.
#[repr(transparent)]
struct Checked(ESHMView);

impl AsRef<[u8]> for Checked {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: only made by `checked`, whose caller promised the bytes; NULL was refused there.
        unsafe { given(self.0.data, self.0.size) }.unwrap_or(&[])
    }
}

/// # Safety
///
/// `views` is NULL or points to `count` views of bytes that stay as they are as long as `'a` lasts.
unsafe fn checked<'a>(views: *const ESHMView, count: usize) -> Result<&'a [Checked], Fault> {
    if count == 0 {
        return Ok(&[]);
    }
    if views.is_null() || count > isize::MAX as usize / size_of::<ESHMView>() {
        return Err(Fault::Param("messages is NULL, their count is not 0"));
    }
    // SAFETY: as the caller promises; `Checked` is laid out as the view it holds.
    let views = unsafe { std::slice::from_raw_parts(views.cast::<Checked>(), count) };
    for view in views {
        // SAFETY: as the caller promises.
        unsafe { given(view.0.data, view.0.size)? };
    }
    Ok(views)
}

/// `eshm_write_many`
///
/// # Safety
///
/// `messages` is NULL or points to `count` views, each of readable bytes; `written` is NULL or
/// writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_write_many(
    handle: *mut ESHMHandle,
    messages: *const ESHMView,
    count: usize,
    written: *mut usize,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let (messages, written) = unsafe { (checked(messages, count)?, out(written)?) };
        *written = 0;
        if messages.is_empty() {
            return Ok(());
        }
        *written = at_once(open.writer(), |end| Ok(end.writer.try_write_many(messages)?))?;
        Ok(())
    })
}

/// `eshm_write_many_ex`
///
/// # Safety
///
/// As for [`eshm_write_many`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_write_many_ex(
    handle: *mut ESHMHandle,
    messages: *const ESHMView,
    count: usize,
    written: *mut usize,
    timeout_ms: u32,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let (messages, written) = unsafe { (checked(messages, count)?, out(written)?) };
        *written = 0;
        if messages.is_empty() {
            return Ok(());
        }
        let outcome = with_time(
            open.writer(),
            timeout_ms,
            &mut *written,
            |end, done| {
                **done += end.writer.try_write_many(&messages[**done..])?;
                all_or_full(**done, messages.len())
            },
            |end, done, wait| {
                **done += end.writer.write_many_timeout(&messages[**done..], wait)?;
                all_or_full(**done, messages.len())
            },
        );
        // What keeps the rest back is found by the call that begins with it.
        if *written > 0 { Ok(()) } else { outcome }
    })
}

/// Whether there is nothing left to write.
fn all_or_full(written: usize, count: usize) -> Result<(), Fault> {
    if written == count { Ok(()) } else { Err(Fault::Eshm(Error::Full)) }
}

/// `eshm_read_many`
///
/// # Safety
///
/// `buffer` is NULL or points to `buffer_size` writable bytes, `messages` is NULL or points to
/// `max_messages` writable views; `count` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_read_many(
    handle: *mut ESHMHandle,
    buffer: *mut c_void,
    buffer_size: usize,
    messages: *mut ESHMView,
    max_messages: usize,
    count: *mut usize,
    timeout_ms: u32,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let (buffer, count) = unsafe { (place(buffer, buffer_size)?, out(count)?) };
        *count = 0;
        if messages.is_null() || max_messages == 0 {
            return Err(Fault::Param("there is no place for a message"));
        }
        if max_messages > isize::MAX as usize / size_of::<ESHMView>() {
            return Err(Fault::Param("max_messages is no count of objects"));
        }
        // SAFETY: as the caller promises, not NULL, and no longer than an object can be.
        let views = unsafe { std::slice::from_raw_parts_mut(messages, max_messages) };
        *count = with_time(
            open.reader(),
            timeout_ms,
            (buffer, views),
            |end, (buffer, views)| fill(end, None, buffer, views),
            |end, (buffer, views), wait| fill(end, Some(wait), buffer, views),
        )?;
        Ok(())
    })
}

/// Copies what is waiting: the first message with patience, the others if they are there and fit.
fn fill(
    end: &mut ReadEnd,
    wait: Option<Duration>,
    buffer: &mut [u8],
    views: &mut [ESHMView],
) -> Result<usize, Fault> {
    let (mut used, mut count) = (0, 0);
    for view in views {
        let rest = &mut buffer[used..];
        let data = rest.as_ptr().cast();
        let outcome = match wait {
            Some(wait) if count == 0 => end.reader.read_timeout(rest, wait),
            _ => end.reader.try_read(rest),
        };
        match outcome {
            Ok(size) => *view = ESHMView { data, size },
            Err(error) if count == 0 => return Err(error.into()),
            // Whatever it is, the message stays, and the next call meets it first.
            Err(_) => break,
        }
        used += view.size;
        count += 1;
    }
    Ok(count)
}
