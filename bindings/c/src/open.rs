//! Opening with all options.

use std::ffi::c_char;
use std::path::Path;
use std::time::Duration;

use eshm::{Direction, Disconnect, Endpoint, Error, Geometry, Options, Role};

use crate::bus::{self, ESHMHandle};
use crate::classic::string;
use crate::fault::Fault;
use crate::guard::call;
use crate::sized;
use crate::types::{self, ESHMGeometry, ESHMOptions};

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

/// The options of a program that set none.
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
        reserved_2: 0,
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
    if asked.reserved != [0; 2] || asked.reserved_2 != 0 {
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

/// `eshm_open`
///
/// # Safety
///
/// `options` is NULL or a struct with its size in front, whose texts are NULL or texts of C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_open(options: *const ESHMOptions) -> *mut ESHMHandle {
    call(|| {
        // SAFETY: as the caller promises.
        let (asked, name, directory) = unsafe { given(options)? };
        let mut options = options_named(name, directory);
        behave(&mut options, &asked)?;
        shape(&mut options, &asked)?;
        place(&mut options, &asked);
        open(&options, milliseconds(asked.stale_threshold_ms, 100))
    })
}

fn behave(options: &mut Options, asked: &ESHMOptions) -> Result<(), Fault> {
    let beat = if asked.heartbeat_interval_us == 0 { 1000 } else { asked.heartbeat_interval_us };
    options
        .role(types::role(asked.role)?)
        .takeover(types::takeover(asked.takeover)?)
        .open_timeout(Duration::ZERO)
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
        let usual = Geometry::default();
        let geometry = Geometry {
            frame_size: if wish.frame_size == 0 { usual.frame_size } else { wish.frame_size },
            frames: if wish.frames == 0 { usual.frames } else { wish.frames },
            overflow: types::overflow(wish.overflow)?,
        };
        options.direction(direction, geometry);
    }
    Ok(())
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

/// Opens, and makes a handle.
fn open(options: &Options, stale_after: Duration) -> Result<*mut ESHMHandle, Fault> {
    bus::publish(connect(options)?, stale_after, None)
}

/// Opens as all handles of C are.
pub fn connect(options: &Options) -> Result<Endpoint, Error> {
    let endpoint = options.open()?;
    if endpoint.role() == Role::Master {
        // Only a slave gives up on its peer: a master that has no slave waits for one.
        endpoint.set_on_disconnect(Disconnect::Never);
    }
    Ok(endpoint)
}
