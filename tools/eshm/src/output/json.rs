//! The JSON of segments: stable names (`docs/cli.md`), units at their ends, plain numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use eshm::{
    Entry, EntryKind, Geometry, Overflow, Peer, PeerState, RingStats, Schema, SegmentState,
    Snapshot,
};
use serde_json::{Value, json};

use super::escape;

/// Anything that `ls` may find.
pub fn entry(entry: &Entry) -> Value {
    let odd = |kind: &str, why: String| json!({ "name": escape::line(&entry.name), "path": entry.path.to_string_lossy(), "kind": kind, "why": escape::line(&why) });
    match &entry.kind {
        EntryKind::Bus(snapshot) => segment(snapshot),
        EntryKind::Leftover(why) => odd("leftover", why.to_string()),
        EntryKind::Foreign(why) => odd("foreign", why.to_string()),
        EntryKind::Unreadable(error) => odd("unreadable", error.to_string()),
        _ => odd("unknown", String::new()),
    }
}

/// Everything of one segment.
pub fn segment(snapshot: &Snapshot) -> Value {
    json!({
        "name": snapshot.name,
        "path": snapshot.path.to_string_lossy(),
        "kind": "bus",
        "size_bytes": snapshot.size,
        "mode": format!("{:04o}", snapshot.mode & 0o7777),
        "uid": snapshot.uid,
        "created_unix_ms": millis_since_epoch(snapshot.created),
        "age_s": age_s(snapshot),
        "generation": snapshot.generation,
        "state": segment_state(snapshot.state),
        "beat_interval_ms": snapshot.beat_interval.as_secs_f64() * 1e3,
        "stale_after_ms": snapshot.stale_after.as_secs_f64() * 1e3,
        "master": role(&snapshot.stats.master),
        "slave": role(&snapshot.stats.slave),
        "master_to_slave": ring(snapshot.master_to_slave, &snapshot.stats.master_to_slave, snapshot.unread[0], snapshot.schemas[0].as_ref()),
        "slave_to_master": ring(snapshot.slave_to_master, &snapshot.stats.slave_to_master, snapshot.unread[1], snapshot.schemas[1].as_ref()),
    })
}

/// One side of a segment.
pub fn role(role: &Peer) -> Value {
    let silent_ms = match role.state {
        PeerState::Hung(silent) => Some(silent.as_millis()),
        _ => None,
    };
    json!({
        "state": role.state.name(),
        "pid": role.pid,
        "foreign_pid": role.is_foreign,
        "epoch": role.epoch,
        "beats": role.beats,
        "progress": role.progress,
        "silent_ms": silent_ms.and_then(|ms| u64::try_from(ms).ok()),
    })
}

fn ring(geometry: Geometry, ring: &RingStats, unread: u64, schema: Option<&Schema>) -> Value {
    json!({
        "schema_name": schema.map(Schema::name),
        "schema_version": schema.map(Schema::version),
        "schema_size_bytes": schema.and_then(Schema::size),
        "schema_layout": schema.and_then(Schema::layout).map(|layout| format!("{layout:016x}")),
        "frame_size": geometry.frame_size,
        "frames": geometry.frames,
        "overflow": overflow(geometry.overflow),
        "max_message": geometry.max_message(),
        "written": ring.written,
        "read": ring.read,
        "bytes": ring.bytes,
        "backlog": ring.backlog,
        "unread": unread,
        "backlog_frames": ring.backlog_frames,
        "high_water_frames": ring.high_water,
        "times_full": ring.times_full,
        "lost": ring.lost,
        "reader_parks": ring.reader_parks,
        "reader_wakes": ring.reader_wakes,
        "writer_parks": ring.writer_parks,
        "writer_wakes": ring.writer_wakes,
    })
}

/// The word for a segment's state.
pub fn segment_state(state: SegmentState) -> &'static str {
    match state {
        SegmentState::Live => "live",
        SegmentState::Sealed => "sealed",
        SegmentState::Retired => "retired",
    }
}

/// The word for what happens when a direction is full.
pub fn overflow(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::Refuse => "refuse",
        Overflow::Overwrite => "overwrite",
    }
}

/// Seconds since the segment was made.
pub fn age_s(snapshot: &Snapshot) -> u64 {
    snapshot.created.elapsed().map_or(0, |age| age.as_secs())
}

fn millis_since_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|t| u64::try_from(t.as_millis()).ok())
        .unwrap_or(0)
}
