//! The structs and enums of the headers, laid out as C lays them out.
//!
//! Enums of C come as numbers of their size: a program can pass any, and a Rust enum must not hold
//! one that it does not know. `bool` likewise comes as a byte.
//!
//! `tests/layout.rs` holds sizes, offsets and numbers against what a C compiler makes of the
//! headers.

use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

use eshm::{Cleanup, Disconnect, Error, MessageId, Overflow, PeerState, Role, Takeover, Wait};

use crate::fault::Fault;
use crate::guard::Answer;

/// How to open a bus, as ESHM 1.0 has it.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMConfig {
    pub shm_name: *const c_char,
    pub role: c_int,
    pub disconnect_behavior: c_int,
    pub stale_threshold_ms: u32,
    pub reconnect_wait_ms: u32,
    pub reconnect_retry_interval_ms: u32,
    pub max_reconnect_attempts: u32,
    pub auto_cleanup: u8,
    pub use_threads: u8,
}

impl Answer for ESHMConfig {
    /// The defaults, without a name: `eshm_init` refuses them.
    fn failed(_: c_int) -> Self {
        ESHMConfig {
            shm_name: std::ptr::null(),
            role: role_number(Role::Auto),
            disconnect_behavior: 1,
            stale_threshold_ms: 100,
            reconnect_wait_ms: 5000,
            reconnect_retry_interval_ms: 100,
            max_reconnect_attempts: 50,
            auto_cleanup: 1,
            use_threads: 1,
        }
    }
}

/// Statistics as ESHM 1.0 has them.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMStats {
    pub master_heartbeat: u64,
    pub slave_heartbeat: u64,
    pub master_pid: i32,
    pub slave_pid: i32,
    pub master_alive: u8,
    pub slave_alive: u8,
    pub stale_threshold: u32,
    pub master_heartbeat_delta: u64,
    pub slave_heartbeat_delta: u64,
    pub m2s_write_count: u64,
    pub m2s_read_count: u64,
    pub s2m_write_count: u64,
    pub s2m_read_count: u64,
}

/// Which message.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMMessageId {
    pub epoch: u64,
    pub number: u64,
}

impl From<MessageId> for ESHMMessageId {
    fn from(id: MessageId) -> Self {
        ESHMMessageId { epoch: id.epoch, number: id.number }
    }
}

/// Bytes that somebody else owns.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMView {
    pub data: *const c_void,
    pub size: usize,
}

/// The shape of one direction.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMGeometry {
    pub frames: u64,
    pub frame_size: u32,
    pub overflow: c_int,
}

/// What the messages of one direction are.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMSchema {
    pub name: *const c_char,
    pub version: u32,
    pub reserved: u32,
    pub size: u64,
    pub layout: u64,
}

impl ESHMSchema {
    /// What a program gives, and is told, where nothing is said.
    pub const NONE: ESHMSchema =
        ESHMSchema { name: std::ptr::null(), version: 0, reserved: 0, size: 0, layout: 0 };
}

/// How to open a bus, in full.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMOptions {
    pub struct_size: usize,
    pub name: *const c_char,
    pub directory: *const c_char,
    pub role: c_int,
    pub takeover: c_int,
    pub disconnect_behavior: c_int,
    pub wait: c_int,
    pub master_to_slave: ESHMGeometry,
    pub slave_to_master: ESHMGeometry,
    pub heartbeat_interval_us: u32,
    pub stale_threshold_ms: u32,
    pub reconnect_wait_ms: u32,
    pub reconnect_retry_interval_ms: u32,
    pub max_reconnect_attempts: u32,
    pub mode: u32,
    pub auto_cleanup: u8,
    pub use_threads: u8,
    pub prefault: u8,
    pub lock_memory: u8,
    pub huge_pages: u8,
    pub guard_sigbus: u8,
    pub reserved: [u8; 2],
    pub cleanup: c_int,
    pub open_timeout_ms: u32,
    pub trusted_users: *const u32,
    pub trusted_count: usize,
    pub writes: ESHMSchema,
    pub reads: ESHMSchema,
}

/// About one message.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMMessage {
    pub struct_size: usize,
    pub size: usize,
    pub id: ESHMMessageId,
    pub lost: u64,
}

/// About one role.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMRoleState {
    pub state: c_int,
    pub pid: u32,
    pub epoch: u64,
    pub beats: u64,
    pub progress: u64,
    pub silent_us: u64,
}

/// The other side.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMPeer {
    pub struct_size: usize,
    pub peer: ESHMRoleState,
}

/// About one direction.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMRingStats {
    pub written: u64,
    pub read: u64,
    pub bytes: u64,
    pub backlog: u64,
    pub backlog_frames: u64,
    pub frames: u64,
    pub high_water: u64,
    pub times_full: u64,
    pub lost: u64,
    pub reader_parks: u64,
    pub reader_wakes: u64,
    pub writer_parks: u64,
    pub writer_wakes: u64,
}

/// Statistics in full.
#[repr(C)]
#[derive(Clone, Copy, Default)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMStatsEx {
    pub struct_size: usize,
    pub master: ESHMRoleState,
    pub slave: ESHMRoleState,
    pub master_to_slave: ESHMRingStats,
    pub slave_to_master: ESHMRingStats,
}

/// A file that was found.
#[repr(C)]
#[derive(Clone, Copy)]
#[expect(missing_docs, reason = "the header documents every field")]
pub struct ESHMEntry {
    pub struct_size: usize,
    pub name: *const c_char,
    pub path: *const c_char,
    pub why: *const c_char,
    pub kind: c_int,
    pub state: c_int,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub created_ns: i64,
    pub generation: u64,
    pub master_to_slave: ESHMGeometry,
    pub slave_to_master: ESHMGeometry,
    pub master: ESHMRoleState,
    pub slave: ESHMRoleState,
    pub master_to_slave_stats: ESHMRingStats,
    pub slave_to_master_stats: ESHMRingStats,
    pub master_to_slave_schema: ESHMSchema,
    pub slave_to_master_schema: ESHMSchema,
}

fn unknown(what: &'static str, value: c_int) -> Fault {
    let value = u64::from(value.unsigned_abs());
    Fault::Eshm(Error::Config { what, value, why: "no such number in eshm_data.h" })
}

/// `enum ESHMRole`
pub fn role(number: c_int) -> Result<Role, Fault> {
    [Role::Master, Role::Slave, Role::Auto].at(number).ok_or_else(|| unknown("role", number))
}

/// `enum ESHMDisconnectBehavior`
pub fn disconnect(number: c_int) -> Result<Disconnect, Fault> {
    let all = [Disconnect::Immediately, Disconnect::OnTimeout, Disconnect::Never];
    all.at(number).ok_or_else(|| unknown("disconnect_behavior", number))
}

/// `enum ESHMTakeover`
pub fn takeover(number: c_int) -> Result<Takeover, Fault> {
    let all = [Takeover::Never, Takeover::Hung, Takeover::Always];
    all.at(number).ok_or_else(|| unknown("takeover", number))
}

/// `enum ESHMWait`
pub fn wait(number: c_int) -> Result<Wait, Fault> {
    [Wait::Adaptive, Wait::Spin, Wait::Park].at(number).ok_or_else(|| unknown("wait", number))
}

/// `enum ESHMOverflow`, where none is what the bus has.
pub fn overflow(number: c_int) -> Result<Option<Overflow>, Fault> {
    let all = [Some(Overflow::Refuse), Some(Overflow::Overwrite), None];
    all.at(number).ok_or_else(|| unknown("overflow", number))
}

/// `enum ESHMCleanup`, and the yes or no that was there before it: a no is a no.
pub fn cleanup(number: c_int, is_wanted: bool) -> Result<Cleanup, Fault> {
    let all = [Cleanup::WhenRead, Cleanup::Always, Cleanup::Never];
    let wish = all.at(number).ok_or_else(|| unknown("cleanup", number))?;
    Ok(if is_wanted { wish } else { Cleanup::Never })
}

/// `enum ESHMDirection`
pub fn direction(number: c_int) -> Result<eshm::Direction, Fault> {
    eshm::Direction::BOTH.at(number).ok_or_else(|| unknown("direction", number))
}

/// `enum ESHMWish`
#[must_use]
pub fn wish_bit(refusal: &eshm::Refusal) -> u32 {
    match refusal.what {
        "prefault" => 1,
        "lock_memory" => 2,
        _ => 4,
    }
}

/// The number of a role.
#[must_use]
pub fn role_number(role: Role) -> c_int {
    match role {
        Role::Master => 0,
        Role::Slave => 1,
        Role::Auto => 2,
    }
}

/// The number of a state, and for how long a hung peer has been silent.
#[must_use]
pub fn state_number(state: PeerState) -> (c_int, Duration) {
    match state {
        PeerState::Absent => (0, Duration::ZERO),
        PeerState::Alive => (1, Duration::ZERO),
        PeerState::Hung(silent) => (2, silent),
        PeerState::Dead => (3, Duration::ZERO),
        PeerState::Left => (4, Duration::ZERO),
    }
}

impl From<eshm::Geometry> for ESHMGeometry {
    fn from(geometry: eshm::Geometry) -> Self {
        let overflow = match geometry.overflow {
            Overflow::Refuse => 0,
            Overflow::Overwrite => 1,
        };
        ESHMGeometry { frames: geometry.frames, frame_size: geometry.frame_size, overflow }
    }
}

trait At<T> {
    fn at(&self, number: c_int) -> Option<T>;
}

impl<T: Copy, const N: usize> At<T> for [T; N] {
    fn at(&self, number: c_int) -> Option<T> {
        usize::try_from(number).ok().and_then(|index| self.get(index)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same lines as `tests/c/table.c` prints for structs and their fields.
    macro_rules! table {
        ($($type:ident { $($field:ident)* })*) => {{
            let mut lines = Vec::new();
            $(
                lines.push(format!("{} {}", stringify!($type), size_of::<$type>()));
                $(
                    let size = field_size(|value: &$type| &raw const value.$field);
                    let offset = std::mem::offset_of!($type, $field);
                    let (of, field) = (stringify!($type), stringify!($field));
                    lines.push(format!("{of}.{field} {offset} {size}"));
                )*
            )*
            lines
        }};
    }

    fn field_size<T, F>(_: impl Fn(&T) -> *const F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_old_no_to_the_cleanup_is_a_no() {
        let wish = |number, is_wanted| cleanup(number, is_wanted).ok();
        // Programs that know no `cleanup` have 0 there.
        assert_eq!(
            (wish(0, true), wish(0, false)),
            (Some(Cleanup::WhenRead), Some(Cleanup::Never))
        );
        assert_eq!((wish(1, true), wish(1, false)), (Some(Cleanup::Always), Some(Cleanup::Never)));
        assert_eq!((wish(2, true), wish(2, false)), (Some(Cleanup::Never), Some(Cleanup::Never)));
        assert_eq!((wish(3, true), wish(-1, false)), (None, None));
    }

    #[test]
    fn structs_lie_as_in_c() {
        let ours = table! {
            ESHMConfig { shm_name role disconnect_behavior stale_threshold_ms reconnect_wait_ms reconnect_retry_interval_ms max_reconnect_attempts auto_cleanup use_threads }
            ESHMStats { master_heartbeat slave_heartbeat master_pid slave_pid master_alive slave_alive stale_threshold master_heartbeat_delta slave_heartbeat_delta m2s_write_count m2s_read_count s2m_write_count s2m_read_count }
            ESHMMessageId { epoch number }
            ESHMView { data size }
            ESHMGeometry { frames frame_size overflow }
            ESHMSchema { name version reserved size layout }
            ESHMOptions { struct_size name directory role takeover disconnect_behavior wait master_to_slave slave_to_master heartbeat_interval_us stale_threshold_ms reconnect_wait_ms reconnect_retry_interval_ms max_reconnect_attempts mode auto_cleanup use_threads prefault lock_memory huge_pages guard_sigbus reserved cleanup open_timeout_ms trusted_users trusted_count writes reads }
            ESHMMessage { struct_size size id lost }
            ESHMRoleState { state pid epoch beats progress silent_us }
            ESHMPeer { struct_size peer }
            ESHMRingStats { written read bytes backlog backlog_frames frames high_water times_full lost reader_parks reader_wakes writer_parks writer_wakes }
            ESHMStatsEx { struct_size master slave master_to_slave slave_to_master }
            ESHMEntry { struct_size name path why kind state size mode uid created_ns generation master_to_slave slave_to_master master slave master_to_slave_stats slave_to_master_stats master_to_slave_schema slave_to_master_schema }
        };
        let theirs: Vec<_> = include_str!("../tests/layout.txt")
            .lines()
            .filter(|line| {
                let name = line.split(['.', ' ']).next().unwrap_or_default();
                line.contains('.') || ours.iter().any(|ours| ours.starts_with(&format!("{name} ")))
            })
            .collect();
        assert_eq!(ours, theirs);
    }
}
