//! `eshm ls`: every segment of this machine in one line.

use std::io::Write;

use eshm::{Entry, EntryKind, Geometry, Overflow, Peer, PeerState, SegmentState, Snapshot};

use crate::exit::Outcome;
use crate::open::Place;
use crate::output::style::{self, Paint};
use crate::output::table::{Align, Cell, Table};
use crate::output::{Out, escape, json, leftover, pid, units};

/// Options of `eshm ls`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON: an array of objects
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

impl Args {
    /// Lists.
    pub fn run(self) -> Outcome {
        let entries = eshm::list_in(&self.place.dir)?;
        let mut out = Out::stdout(None)?;
        if self.json {
            let all: Vec<_> = entries.iter().map(json::entry).collect();
            writeln!(out, "{}", serde_json::Value::from(all))?;
        } else if entries.is_empty() {
            eprintln!(
                "no segments in {}; make one with: {}",
                self.place.dir.display(),
                self.place.command("send first")
            );
        } else {
            write!(out, "{}", render(&entries, style::stdout()))?;
        }
        out.flush()?;
        Ok(())
    }
}

/// The table of the buses, and what else is there.
fn render(entries: &[Entry], paint: Paint) -> String {
    let mut buses = Table::new(&[
        ("name", Align::Left),
        ("size", Align::Right),
        ("frames", Align::Left),
        ("master", Align::Left),
        ("slave", Align::Left),
        ("unread", Align::Right),
        ("age", Align::Right),
        ("", Align::Left),
    ]);
    let mut odd = String::new();
    let mut any = false;
    for entry in entries {
        match &entry.kind {
            EntryKind::Bus(snapshot) => {
                any = true;
                buses.row(row(snapshot, paint));
            }
            _ => odd.push_str(&oddity(entry, paint)),
        }
    }
    let table = if any { buses.render(paint) } else { String::new() };
    let gap = if any && !odd.is_empty() { "\n" } else { "" };
    format!("{table}{gap}{odd}")
}

fn row(snapshot: &Snapshot, paint: Paint) -> Vec<Cell> {
    let stats = &snapshot.stats;
    vec![
        Cell::painted(escape::bytes(snapshot.name.as_bytes()), |name| paint.cyan(name)),
        Cell::plain(units::bytes(snapshot.size)),
        Cell::plain(shape(snapshot)),
        role(&stats.master, paint),
        role(&stats.slave, paint),
        Cell::plain(unread(snapshot)),
        Cell::plain(units::age(std::time::Duration::from_secs(json::age_s(snapshot)))),
        Cell::painted(note(snapshot), |note| paint.yellow(note)),
    ]
}

/// What nobody has read, with its direction.
fn unread(snapshot: &Snapshot) -> String {
    let ways = snapshot.unread.iter().zip(["m>s", "s>m"]).filter(|(count, _)| **count > 0);
    let counts: Vec<String> =
        ways.map(|(count, way)| format!("{} {way}", units::count(*count))).collect();
    if counts.is_empty() { "0".to_string() } else { counts.join(", ") }
}

/// The geometry in one word; of both directions if they differ.
fn shape(snapshot: &Snapshot) -> String {
    let one = |geometry: &Geometry| {
        format!("{} x {} B", units::count(geometry.frames), geometry.frame_size)
    };
    let (down, up) = (&snapshot.master_to_slave, &snapshot.slave_to_master);
    if (down.frames, down.frame_size) == (up.frames, up.frame_size) {
        one(down)
    } else {
        format!("{} / {}", one(down), one(up))
    }
}

fn role(role: &Peer, paint: Paint) -> Cell {
    let text = match role.state {
        PeerState::Absent => "-".to_string(),
        state => format!("{} {}", pid::short(role), state),
    };
    Cell::painted(text, |text| match role.state {
        PeerState::Alive => paint.green(text),
        PeerState::Hung(_) | PeerState::Dead => paint.red(text),
        _ => paint.dim(text),
    })
}

/// What a segment carries, and what is unusual about it.
fn note(snapshot: &Snapshot) -> String {
    let ways = snapshot.schemas.iter().zip(["m>s", "s>m"]);
    let mut notes: Vec<String> = ways
        .filter_map(|(schema, way)| {
            let schema = schema.as_ref()?;
            let name = escape::bytes(schema.name().as_bytes());
            Some(format!("{name}:{} {way}", schema.version()))
        })
        .collect();
    if snapshot.state != SegmentState::Live {
        notes.push(json::segment_state(snapshot.state).to_string());
    }
    if snapshot.mode & 0o077 != 0 {
        notes.push(format!("mode {:04o}", snapshot.mode & 0o7777));
    }
    let rings = [snapshot.master_to_slave, snapshot.slave_to_master];
    if rings.iter().any(|ring| ring.overflow == Overflow::Overwrite) {
        notes.push("overwrites".to_string());
    }
    if snapshot.stats.master.is_foreign || snapshot.stats.slave.is_foreign {
        notes.push("ns: another PID namespace".to_string());
    }
    let lost = snapshot.stats.master_to_slave.lost + snapshot.stats.slave_to_master.lost;
    if lost > 0 {
        notes.push(format!("{} lost", units::count(lost)));
    }
    notes.join(", ")
}

/// A file that is no bus of ours, and why.
fn oddity(entry: &Entry, paint: Paint) -> String {
    let (kind, why) = match &entry.kind {
        EntryKind::Leftover(why) => {
            let age = leftover::age(&entry.path).map(|age| format!(", {} ago", units::age(age)));
            ("leftover", format!("{why}{}", age.unwrap_or_default()))
        }
        EntryKind::Foreign(why) => ("foreign", why.to_string()),
        EntryKind::Unreadable(error) => ("unusable", error.to_string()),
        _ => return String::new(),
    };
    let path = escape::bytes(entry.path.as_os_str().as_encoded_bytes());
    format!("{} {path}: {}\n", paint.yellow(format!("{kind:<9}")), escape::bytes(why.as_bytes()))
}
