//! `eshm stat`: everything of one segment, or one field of it for scripts.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use eshm::{Geometry, Peer, PeerState, RingStats, Snapshot};
use serde_json::Value;

use crate::exit::{Failure, Outcome, USAGE};
use crate::open::Place;
use crate::output::style::{self, Paint};
use crate::output::{Out, escape, json, pid, units};
use crate::parse;
use crate::signals::Stop;

/// Options of `eshm stat`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    eshm stat telemetry\n  \
    eshm stat telemetry master_to_slave.backlog      one number\n  \
    eshm stat telemetry --watch 500ms")]
pub struct Args {
    /// The name of the bus
    name: String,
    /// Print only this field, as it is called in --json: `master.state`, `slave_to_master.backlog`
    field: Option<String>,
    /// Look again and again [default interval: 1s]
    #[arg(short, long, value_name = "TIME", value_parser = parse::duration, num_args = 0..=1, default_missing_value = "1s")]
    watch: Option<Duration>,
    /// As JSON: one object, or one a line with --watch
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    place: Place,
}

impl Args {
    /// Tells.
    pub fn run(self) -> Outcome {
        let mut seen = Seen::default();
        let Some(interval) = self.watch else {
            return self.look(&mut Out::stdout(None)?, &mut seen);
        };
        let stop = Stop::install()?;
        let in_place = io::stdout().is_terminal() && !self.json && self.field.is_none();
        let mut out = Out::stdout(Some(&stop))?;
        loop {
            if in_place {
                write!(out, "\x1b[H\x1b[J")?;
            }
            self.look(&mut out, &mut seen)?;
            stop.sleep(interval)?;
        }
    }

    /// Looks once more.
    fn look(&self, out: &mut Out, seen: &mut Seen) -> Outcome {
        let mut snapshot = eshm::inspect_in(&self.place.dir, &self.name)?;
        seen.add_silence(&mut snapshot);
        let text = match &self.field {
            Some(field) => format!("{}\n", pick(&json::segment(&snapshot), field)?),
            None if self.json => format!("{}\n", json::segment(&snapshot)),
            None => render(&snapshot, seen.before.as_ref(), style::stdout()),
        };
        out.write_all(text.as_bytes())?;
        out.flush()?;
        seen.before = Some(snapshot);
        Ok(())
    }
}

/// What earlier looks have seen.
#[derive(Default)]
struct Seen {
    before: Option<Snapshot>,
    /// Since when the hearts of master and slave stand still, and at which beat.
    silent: [Option<(Instant, u64)>; 2],
}

impl Seen {
    /// One look watches a silent heart no longer than it must; several looks know more.
    fn add_silence(&mut self, snapshot: &mut Snapshot) {
        let roles = [&mut snapshot.stats.master, &mut snapshot.stats.slave];
        for (role, silent) in roles.into_iter().zip(&mut self.silent) {
            let PeerState::Hung(this_look) = role.state else {
                *silent = None;
                continue;
            };
            let known = silent.filter(|(_, beats)| *beats == role.beats);
            let since = known.map_or_else(|| Instant::now() - this_look, |(since, _)| since);
            *silent = Some((since, role.beats));
            role.state = PeerState::Hung(since.elapsed().max(this_look));
        }
    }
}

/// One field, as a script wants it: text without quotes.
fn pick(value: &Value, field: &str) -> Outcome<String> {
    let found = field.split('.').try_fold(value, |value, part| value.get(part));
    match found {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Null) => Ok(String::new()),
        Some(value) => Ok(value.to_string()),
        None => {
            Err(Failure::new(USAGE, format!("no field \"{}\"", escape::bytes(field.as_bytes())))
                .remedy(format!("one of: {}", names(value, "").join(" "))))
        }
    }
}

/// The names of all fields.
fn names(value: &Value, before: &str) -> Vec<String> {
    let Value::Object(fields) = value else {
        return vec![before.to_string()];
    };
    let full =
        |name: &String| if before.is_empty() { name.clone() } else { format!("{before}.{name}") };
    fields.iter().flat_map(|(name, value)| names(value, &full(name))).collect()
}

fn render(snapshot: &Snapshot, before: Option<&Snapshot>, paint: Paint) -> String {
    let mut text = String::new();
    let stats = &snapshot.stats;
    let _ = writeln!(
        text,
        "{}  {}",
        paint.bold(escape::bytes(snapshot.name.as_bytes())),
        snapshot.path.display()
    );
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {} {value}", paint.dim(format!("{label:<11}")));
    };
    line("size", units::bytes(snapshot.size));
    line("mode", format!("{:04o}, uid {}", snapshot.mode & 0o7777, snapshot.uid));
    line("age", units::age(Duration::from_secs(json::age_s(snapshot))));
    line(
        "state",
        format!("{}, generation {}", json::segment_state(snapshot.state), snapshot.generation),
    );
    line(
        "heartbeat",
        format!(
            "every {}, hung after {}",
            short(snapshot.beat_interval),
            short(snapshot.stale_after)
        ),
    );
    line("master", role(&stats.master, paint));
    line("slave", role(&stats.slave, paint));
    let earlier = before.map(|before| &before.stats);
    let [down_schema, up_schema] = &snapshot.schemas;
    let down = (
        down_schema.as_ref(),
        snapshot.master_to_slave,
        &stats.master_to_slave,
        earlier.map(|stats| &stats.master_to_slave),
    );
    let up = (
        up_schema.as_ref(),
        snapshot.slave_to_master,
        &stats.slave_to_master,
        earlier.map(|stats| &stats.slave_to_master),
    );
    for (title, (schema, geometry, ring, earlier)) in
        [("master > slave", down), ("slave > master", up)]
    {
        let _ = write!(
            text,
            "\n{}\n  {} {}\n{}",
            paint.bold(title),
            paint.dim(format!("{:<11}", "schema")),
            schema.map_or_else(
                || paint.dim("not said"),
                |schema| escape::bytes(schema.to_string().as_bytes())
            ),
            render_ring(geometry, ring, earlier, paint)
        );
    }
    text
}

fn short(time: Duration) -> String {
    units::nanos(crate::clock::ns(time))
}

fn role(role: &Peer, paint: Paint) -> String {
    let since = match role.state {
        PeerState::Absent => return paint.dim("nobody yet"),
        PeerState::Hung(silent) => format!(" for at least {}", short(silent)),
        _ => String::new(),
    };
    let word = role.state.name();
    let state = match role.state {
        PeerState::Alive => paint.green(word),
        PeerState::Hung(_) | PeerState::Dead => paint.red(word),
        _ => paint.dim(word),
    };
    format!(
        "{}, {state}{since}, epoch {}, {}",
        pid::of(role),
        role.epoch,
        units::plural(role.beats, "beat")
    )
}

fn render_ring(
    geometry: Geometry,
    ring: &RingStats,
    before: Option<&RingStats>,
    paint: Paint,
) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        let _ = writeln!(text, "  {} {value}", paint.dim(format!("{label:<11}")));
    };
    let full = if ring.frames == 0 {
        0.0
    } else {
        ring.backlog_frames as f64 * 100.0 / ring.frames as f64
    };
    let more = before.map_or(String::new(), |before| {
        format!(" (+{})", units::count(ring.written - before.written.min(ring.written)))
    });
    line(
        "frames",
        format!(
            "{} of {} B, messages of up to {}, {} when full",
            units::count(geometry.frames),
            geometry.frame_size,
            units::bytes(geometry.max_message() as u64),
            json::overflow(geometry.overflow)
        ),
    );
    line(
        "written",
        format!("{}{more}, {}", units::plural(ring.written, "message"), units::bytes(ring.bytes)),
    );
    line("read", units::plural(ring.read, "message"));
    line("unread", format!("{}, {full:.1} % of the ring", units::plural(ring.backlog, "message")));
    line(
        "high water",
        format!("{} of {} frames", units::count(ring.high_water), units::count(ring.frames)),
    );
    line("found full", units::plural(ring.times_full, "time"));
    let lost = units::plural(ring.lost, "message");
    line("lost", if ring.lost > 0 { paint.red(lost) } else { lost });
    line(
        "reader",
        format!(
            "slept {}, woken {}",
            units::plural(ring.reader_parks, "time"),
            units::plural(ring.reader_wakes, "time")
        ),
    );
    line(
        "writer",
        format!(
            "slept {}, woken {}",
            units::plural(ring.writer_parks, "time"),
            units::plural(ring.writer_wakes, "time")
        ),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_picked_bare_and_a_wrong_one_lists_the_right_ones() {
        let value = serde_json::json!({ "name": "a", "master": { "pid": 7, "silent_ms": null } });
        assert_eq!(pick(&value, "name").unwrap(), "a");
        assert_eq!(pick(&value, "master.pid").unwrap(), "7");
        assert_eq!(pick(&value, "master.silent_ms").unwrap(), "");
        let Err(Failure::Told { remedy, .. }) = pick(&value, "master.x") else {
            panic!("must fail")
        };
        assert_eq!(remedy, "one of: master.pid master.silent_ms name");
    }
}
