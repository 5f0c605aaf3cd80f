//! The calls of ESHM 1.0: same symbols, same structs, same numbers. Those that carry messages are in
//! [`path`](crate::path).

use std::ffi::{CStr, c_char, c_int, c_void};
use std::time::Duration;

use eshm::{Endpoint, Error, Options, PeerState, Role, Takeover};

use crate::again::{Again, Search, going_on};
use crate::bus::{self, ESHMHandle, Open, ReadEnd, Shown};
use crate::fault::Fault;
use crate::guard::{Answer, call, status};
use crate::open::{connect, milliseconds, options_named};
use crate::seat::at_once;
use crate::types::{self, ESHMConfig, ESHMStats};

/// How often an AUTO looks again when the master comes and goes at the same time.
const ROUNDS: u32 = 100;

/// What a program gives to be written.
///
/// # Safety
///
/// `data` is NULL or points to `size` bytes that stay as they are for as long as `'a` lasts.
pub unsafe fn given<'a>(data: *const c_void, size: usize) -> Result<&'a [u8], Fault> {
    match (data.is_null(), size) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(Fault::Param("data is NULL, its size is not 0")),
        (_, size) if size > isize::MAX as usize => {
            Err(Fault::Param("size is no size of an object"))
        }
        // SAFETY: as the caller promises, and neither NULL nor too long.
        (false, size) => Ok(unsafe { std::slice::from_raw_parts(data.cast(), size) }),
    }
}

/// Where a program wants something read to.
///
/// # Safety
///
/// `buffer` is NULL or points to `size` bytes that nobody else uses for as long as `'a` lasts.
pub unsafe fn place<'a>(buffer: *mut c_void, size: usize) -> Result<&'a mut [u8], Fault> {
    // No object is larger, but a caller may say "more than enough".
    let size = size.min(isize::MAX as usize);
    match (buffer.is_null(), size) {
        (_, 0) => Ok(&mut []),
        (true, _) => Err(Fault::Param("buffer is NULL, its size is not 0")),
        // SAFETY: as the caller promises, and neither NULL nor too long.
        (false, size) => Ok(unsafe { std::slice::from_raw_parts_mut(buffer.cast(), size) }),
    }
}

/// Where a program wants one value.
///
/// # Safety
///
/// `to` is NULL or may be written for as long as `'a` lasts.
pub unsafe fn out<'a, T>(to: *mut T) -> Result<&'a mut T, Fault> {
    // SAFETY: as the caller promises.
    unsafe { to.as_mut() }.ok_or(Fault::Param("the place for the result is NULL"))
}

/// A text of C.
///
/// # Safety
///
/// `text` is NULL or ends with a NUL, and stays as it is for as long as `'a` lasts.
pub unsafe fn string<'a>(text: *const c_char, what: &'static str) -> Result<&'a str, Fault> {
    if text.is_null() {
        return Err(Fault::Param(what));
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Fault::Param("a name or path is not UTF-8"))
}

/// `eshm_default_config`: the function of the header, for languages that do not read it.
#[unsafe(no_mangle)]
pub extern "C" fn eshm_default_config(shm_name: *const c_char) -> ESHMConfig {
    call(|| Ok(ESHMConfig { shm_name, ..ESHMConfig::failed(0) }))
}

/// `eshm_init`
///
/// # Safety
///
/// `config` is NULL or points to a configuration whose name is NULL or a text of C.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_init(config: *const ESHMConfig) -> *mut ESHMHandle {
    call(|| {
        // SAFETY: as the caller promises.
        let config = unsafe { config.as_ref() }.ok_or(Fault::Param("config is NULL"))?;
        // SAFETY: as the caller promises.
        let name = unsafe { string(config.shm_name, "shm_name is NULL")? };
        init(config, name)
    })
}

fn init(config: &ESHMConfig, name: &str) -> Result<*mut ESHMHandle, Fault> {
    let role = types::role(config.role)?;
    let stale_after = milliseconds(config.stale_threshold_ms, 100);
    let search = Search {
        behaviour: types::disconnect(config.disconnect_behavior)?,
        interval: milliseconds(config.reconnect_retry_interval_ms, 1),
        attempts: config.max_reconnect_attempts,
        wait: Duration::from_millis(config.reconnect_wait_ms.into()),
    };
    let mut options = options_named(name, None);
    options
        .open_timeout(Duration::ZERO)
        .on_disconnect(search.behaviour)
        .stale_after(stale_after)
        .reconnect_wait(search.wait)
        .reconnect_interval(search.interval)
        .reconnect_attempts(search.attempts)
        .background(config.use_threads != 0);
    clean_up(&mut options, config.auto_cleanup != 0);
    match role {
        // Takes over whoever held the role.
        Role::Master => options.role(role).takeover(Takeover::Always),
        // Only from one who does not answer any more.
        Role::Slave => options.role(role).takeover(Takeover::Hung),
        Role::Auto => options.takeover(Takeover::Hung),
    };
    let endpoint = match role {
        Role::Auto => connect_either(&mut options)?,
        Role::Master | Role::Slave => connect(&options)?,
    };
    let again = Again::new(&options, endpoint.role(), search);
    bus::publish(endpoint, stale_after, Some(again))
}

/// Whether the bus is removed by the last to leave, as ESHM 1.0 has it: yes or no.
fn clean_up(options: &mut Options, wanted: bool) {
    options.classic_cleanup(wanted);
}

/// Master if nobody is, where a master that hangs is nobody, else slave.
fn connect_either(options: &mut Options) -> Result<Endpoint, Fault> {
    for _ in 0..ROUNDS {
        match connect(options.role(Role::Master)) {
            Err(Error::RoleTaken { .. }) => {}
            done => return Ok(done?),
        }
        match connect(options.role(Role::Slave)) {
            // The master left in between.
            Err(Error::NotFound { .. }) => {}
            done => return Ok(done?),
        }
    }
    Err(Fault::Eshm(Error::Timeout))
}

/// `eshm_destroy`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_destroy(handle: *mut ESHMHandle) -> c_int {
    status(|| Open::find(handle)?.close())
}

/// `eshm_update_heartbeat`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_update_heartbeat(handle: *mut ESHMHandle) -> c_int {
    status(|| {
        let beaten =
            Open::find(handle).and_then(|open| open.with_shown(|shown| shown.watch.beat()));
        beaten.map_err(|_| Fault::NoHeart)
    })
}

/// `eshm_check_remote_alive`
///
/// # Safety
///
/// `is_alive` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_check_remote_alive(
    handle: *mut ESHMHandle,
    is_alive: *mut u8,
) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let is_alive = unsafe { out(is_alive)? };
        let mut state = open.with_shown(|shown| shown.watch.peer().state)?;
        if state != PeerState::Alive {
            look_again(handle);
            state = open.with_shown(|shown| shown.watch.peer().state)?;
        }
        *is_alive = u8::from(state == PeerState::Alive);
        Ok(())
    })
}

/// Opens the bus again if it is lost, for a program that waits for its peer before it reads.
fn look_again(handle: *const ESHMHandle) {
    // Whatever this says, reading will say.
    let _ = going_on::<ReadEnd, _>(handle, 0, |open, _| {
        at_once(open.reader(), |end| Ok(end.reader.next_len()?))
    });
}

/// `eshm_get_role`
///
/// # Safety
///
/// `role` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_get_role(handle: *mut ESHMHandle, role: *mut c_int) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let role = unsafe { out(role)? };
        *role = open.with_shown(|shown| types::role_number(shown.role))?;
        Ok(())
    })
}

/// `eshm_get_stats`
///
/// # Safety
///
/// `stats` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_get_stats(handle: *mut ESHMHandle, stats: *mut ESHMStats) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        // SAFETY: as the caller promises.
        let stats = unsafe { out(stats)? };
        *stats = open.with_shown(stats_of)?;
        Ok(())
    })
}

fn stats_of(shown: &Shown) -> ESHMStats {
    let now = shown.watch.stats();
    let [master_heartbeat_delta, slave_heartbeat_delta] =
        shown.beats_since([now.master.beats, now.slave.beats]);
    ESHMStats {
        master_heartbeat: now.master.beats,
        slave_heartbeat: now.slave.beats,
        master_pid: now.master.pid.cast_signed(),
        slave_pid: now.slave.pid.cast_signed(),
        master_alive: u8::from(now.master.state == PeerState::Alive),
        slave_alive: u8::from(now.slave.state == PeerState::Alive),
        stale_threshold: shown.stale_after_ms,
        master_heartbeat_delta,
        slave_heartbeat_delta,
        m2s_write_count: now.master_to_slave.written,
        m2s_read_count: now.master_to_slave.read,
        s2m_write_count: now.slave_to_master.written,
        s2m_read_count: now.slave_to_master.read,
    }
}
