//! What is known of both sides, in full.

use std::ffi::c_int;
use std::time::{Duration, Instant};

use eshm::{Error, Peer, PeerState, RingStats, Stats};

use crate::bus::{ESHMHandle, Open};
use crate::fault::Fault;
use crate::guard::{call, status};
use crate::sized;
use crate::types::{self, ESHMPeer, ESHMRingStats, ESHMRoleState, ESHMStatsEx};

/// How often a peer that is awaited is looked for.
const LOOK: Duration = Duration::from_millis(1);

impl From<&Peer> for ESHMRoleState {
    fn from(peer: &Peer) -> Self {
        let (state, silent) = types::state_number(peer.state);
        ESHMRoleState {
            state,
            pid: peer.pid,
            epoch: peer.epoch,
            beats: peer.beats,
            progress: peer.progress,
            silent_us: u64::try_from(silent.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

impl From<&RingStats> for ESHMRingStats {
    fn from(ring: &RingStats) -> Self {
        ESHMRingStats {
            written: ring.written,
            read: ring.read,
            bytes: ring.bytes,
            backlog: ring.backlog,
            backlog_frames: ring.backlog_frames,
            frames: ring.frames,
            high_water: ring.high_water,
            times_full: ring.times_full,
            lost: ring.lost,
            reader_parks: ring.reader_parks,
            reader_wakes: ring.reader_wakes,
            writer_parks: ring.writer_parks,
            writer_wakes: ring.writer_wakes,
        }
    }
}

impl From<&Stats> for ESHMStatsEx {
    fn from(stats: &Stats) -> Self {
        ESHMStatsEx {
            struct_size: size_of::<ESHMStatsEx>(),
            master: (&stats.master).into(),
            slave: (&stats.slave).into(),
            master_to_slave: (&stats.master_to_slave).into(),
            slave_to_master: (&stats.slave_to_master).into(),
        }
    }
}

/// `eshm_version`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_version() -> u32 {
    call(|| {
        let number = |text: &str| text.parse::<u32>().map_err(|_| Fault::Param("no number"));
        let major = number(env!("CARGO_PKG_VERSION_MAJOR"))?;
        let minor = number(env!("CARGO_PKG_VERSION_MINOR"))?;
        Ok(major * 10_000 + minor * 100 + number(env!("CARGO_PKG_VERSION_PATCH"))?)
    })
}

/// `eshm_refused_wishes`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_refused_wishes(handle: *mut ESHMHandle) -> u32 {
    call(|| Open::find(handle)?.with_shown(|shown| shown.refused))
}

/// `eshm_get_peer`
///
/// # Safety
///
/// `peer` is NULL or has its size in front.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_get_peer(handle: *mut ESHMHandle, peer: *mut ESHMPeer) -> c_int {
    status(|| {
        let state = Open::find(handle)?.with_shown(|shown| shown.watch.peer())?;
        let told = ESHMPeer { struct_size: size_of::<ESHMPeer>(), peer: (&state).into() };
        // SAFETY: as the caller promises.
        unsafe { sized::write(peer, &told) }
    })
}

/// `eshm_wait_for_peer`
#[unsafe(no_mangle)]
pub extern "C" fn eshm_wait_for_peer(handle: *mut ESHMHandle, timeout_ms: u32) -> c_int {
    status(|| {
        let open = Open::find(handle)?;
        let end = Instant::now() + Duration::from_millis(timeout_ms.into());
        // Looked for in short steps, so that the handle can be destroyed meanwhile.
        while open.with_shown(|shown| shown.watch.peer().state)? != PeerState::Alive {
            if timeout_ms != u32::MAX && Instant::now() >= end {
                let error = if timeout_ms == 0 { Error::Empty } else { Error::Timeout };
                return Err(error.into());
            }
            std::thread::sleep(LOOK);
        }
        Ok(())
    })
}

/// `eshm_get_stats_ex`
///
/// # Safety
///
/// `stats` is NULL or has its size in front.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn eshm_get_stats_ex(
    handle: *mut ESHMHandle,
    stats: *mut ESHMStatsEx,
) -> c_int {
    status(|| {
        let told = Open::find(handle)?.with_shown(|shown| (&shown.watch.stats()).into())?;
        // SAFETY: as the caller promises.
        unsafe { sized::write(stats, &told) }
    })
}
