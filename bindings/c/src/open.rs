//! Opening with all options.

use std::ffi::c_char;
use std::path::Path;
use std::time::Duration;

use eshm::{Direction, Disconnect, Endpoint, Error, Geometry, Options, Role, Schema};

use crate::bus::{self, ESHMHandle};
use crate::classic::string;
use crate::fault::Fault;
use crate::guard::call;
use crate::seat::FOREVER;
use crate::sized;
use crate::types::{self, ESHMGeometry, ESHMOptions, ESHMSchema};

/// Where segments are unless said otherwise.
pub const DIRECTORY: &str = "/dev/shm";

/// A time in milliseconds, where 0 stands for the default.
#[must_use]
pub fn milliseconds(given: u32, default: u32) -> Duration {
    Duration::from_millis(if given == 0 { default } else { given }.into())
}

/// Options with nothing but a name and a place.
#[must_use]
pub fn options_named(name: &str, directory: Option<&str>) -> Options {
    let mut options = Options::new(name);
    if let Some(directory) = directory {
        options.directory(Path::new(directory));
    }
    options
}

/// What holds for a program that was compiled when the struct was shorter: as it was then.
fn defaults() -> ESHMOptions {
    ESHMOptions {
        struct_size: size_of::<ESHMOptions>(),
        name: std::ptr::null(),
        directory: std::ptr::null(),
        role: types::role_number(Role::Auto),
        takeover: 0,
        disconnect_behavior: 1,
        wait: 0,
        master_to_slave: ESHMGeometry::default(),
        slave_to_master: ESHMGeometry::default(),
        heartbeat_interval_us: 1000,
        stale_threshold_ms: 100,
        reconnect_wait_ms: 5000,
        reconnect_retry_interval_ms: 100,
        max_reconnect_attempts: 50,
        mode: 0o600,
        auto_cleanup: 1,
        use_threads: 1,
        prefault: 0,
        lock_memory: 0,
        huge_pages: 0,
        guard_sigbus: 0,
        reserved: [0; 2],
        cleanup: 0,
        open_timeout_ms: 0,
        trusted_users: std::ptr::null(),
        trusted_count: 0,
        writes: ESHMSchema::NONE,
        reads: ESHMSchema::NONE,
    }
}

/// Reads what a program gives, and the two texts in it.
///
/// # Safety
///
/// `options` is NULL or a struct with its size in front, whose texts are NULL or texts of C that
/// stay as they are for as long as `'a` lasts.
pub unsafe fn given<'a>(
    options: *const ESHMOptions,
) -> Result<(ESHMOptions, &'a str, Option<&'a str>), Fault> {
    // SAFETY: as the caller promises.
    let asked = unsafe { sized::read(options, defaults())? };
    // SAFETY: as the caller promises.
    let name = unsafe { string(asked.name, "name is NULL")? };
    // SAFETY: as the caller promises.
    let directory = unsafe { directory(asked.directory)? };
    if asked.reserved != [0; 2] {
        return Err(Fault::Param("reserved is not 0; start from eshm_default_options()"));
    }
    Ok((asked, name, directory))
}

/// A directory, where NULL stands for the usual one.
///
/// # Safety
///
/// `path` is NULL or a text of C that stays as it is for as long as `'a` lasts.
pub unsafe fn directory<'a>(path: *const c_char) -> Result<Option<&'a str>, Fault> {
    if path.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    unsafe { string(path, "the directory is NULL") }.map(Some)
}

/// What a program says of the messages of one direction; `None` if it says nothing.
///
/// # Safety
///
/// The name is NULL or a text of C.
pub unsafe fn schema(given: &ESHMSchema) -> Result<Option<Schema>, Fault> {
    if given.reserved != 0 {
        return Err(Fault::Param("reserved is not 0; start from eshm_schema()"));
    }
    if given.name.is_null() {
        let is_silent = given.version == 0 && given.size == 0 && given.layout == 0;
        let fault = Fault::Param("a schema without a name says nothing else either");
        return if is_silent { Ok(None) } else { Err(fault) };
    }
    // SAFETY: as the caller promises.
    let name = unsafe { string(given.name, "the name is NULL")? };
    let schema = Schema::new(name, given.version);
    Ok(Some(schema.with_size(given.size).with_layout(given.layout)))
}

/// `eshm_open`
///
/// # Safety
///
/// `options` is NULL or a struct with its size in front, whose texts are NULL or texts of C, and
/// whose list of users is NULL or as long as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_open(options: *const ESHMOptions) -> *mut ESHMHandle {
    call(|| {
        // SAFETY: as the caller promises.
        let (asked, name, directory) = unsafe { given(options)? };
        let mut options = options_named(name, directory);
        behave(&mut options, &asked)?;
        shape(&mut options, &asked)?;
        place(&mut options, &asked);
        // SAFETY: as the caller promises.
        for &user in unsafe { trusted(&asked)? } {
            options.trust_user(user);
        }
        // SAFETY: as the caller promises.
        if let Some(writes) = unsafe { schema(&asked.writes)? } {
            options.writes(writes);
        }
        // SAFETY: as the caller promises.
        if let Some(reads) = unsafe { schema(&asked.reads)? } {
            options.reads(reads);
        }
        bus::publish(options.open()?, milliseconds(asked.stale_threshold_ms, 100), None)
    })
}

fn behave(options: &mut Options, asked: &ESHMOptions) -> Result<(), Fault> {
    let beat = if asked.heartbeat_interval_us == 0 { 1000 } else { asked.heartbeat_interval_us };
    options
        .role(types::role(asked.role)?)
        .takeover(types::takeover(asked.takeover)?)
        .open_timeout(open_timeout(asked.open_timeout_ms))
        .on_disconnect(types::disconnect(asked.disconnect_behavior)?)
        .wait(types::wait(asked.wait)?)
        .beat_interval(Duration::from_micros(beat.into()))
        .stale_after(milliseconds(asked.stale_threshold_ms, 100))
        .reconnect_wait(Duration::from_millis(asked.reconnect_wait_ms.into()))
        .reconnect_interval(milliseconds(asked.reconnect_retry_interval_ms, 1))
        .reconnect_attempts(asked.max_reconnect_attempts)
        .background(asked.use_threads != 0);
    options.cleanup(types::cleanup(asked.cleanup, asked.auto_cleanup != 0)?);
    Ok(())
}

fn shape(options: &mut Options, asked: &ESHMOptions) -> Result<(), Fault> {
    let wishes = [asked.master_to_slave, asked.slave_to_master];
    for (direction, wish) in Direction::BOTH.into_iter().zip(wishes) {
        if wish == ESHMGeometry::default() {
            continue;
        }
        let frame_size = Some(wish.frame_size).filter(|&bytes| bytes != 0);
        let frames = Some(wish.frames).filter(|&frames| frames != 0);
        let usual = Geometry::default();
        match types::overflow(wish.overflow)? {
            None => options.ask(direction, frame_size, frames, None),
            Some(overflow) => options.direction(
                direction,
                Geometry {
                    frame_size: frame_size.unwrap_or(usual.frame_size),
                    frames: frames.unwrap_or(usual.frames),
                    overflow,
                },
            ),
        };
    }
    Ok(())
}

/// How long a slave waits for a master to make the bus.
fn open_timeout(timeout_ms: u32) -> Duration {
    if timeout_ms == FOREVER { Duration::MAX } else { Duration::from_millis(timeout_ms.into()) }
}

/// The users whose files are trusted too.
///
/// # Safety
///
/// The list is NULL or as long as it says.
unsafe fn trusted(asked: &ESHMOptions) -> Result<&[u32], Fault> {
    if asked.trusted_count == 0 {
        return Ok(&[]);
    }
    if asked.trusted_users.is_null() || asked.trusted_count > isize::MAX as usize / size_of::<u32>()
    {
        return Err(Fault::Param("trusted_users is NULL, their count is not 0"));
    }
    // SAFETY: as the caller promises, and neither NULL nor too long.
    Ok(unsafe { std::slice::from_raw_parts(asked.trusted_users, asked.trusted_count) })
}

fn place(options: &mut Options, asked: &ESHMOptions) {
    if asked.mode != 0 {
        options.mode(asked.mode);
    }
    options
        .prefault(asked.prefault != 0)
        .lock_memory(asked.lock_memory != 0)
        .huge_pages(asked.huge_pages != 0)
        .guard_sigbus(asked.guard_sigbus != 0);
}

/// Opens as handles of ESHM 1.0 are.
pub fn connect(options: &Options) -> Result<Endpoint, Error> {
    let endpoint = options.open()?;
    if endpoint.role() == Role::Master {
        // Only a slave gives up on its peer: a master that has no slave waits for one.
        endpoint.set_on_disconnect(Disconnect::Never);
    }
    Ok(endpoint)
}
