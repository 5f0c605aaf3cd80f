//! `eshm gc`: removes what nobody holds and nobody misses, and says why.
//!
//! Unread messages are somebody's work: only `--older` takes them along, and only those of that age.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use eshm::{Entry, EntryKind, Peer, PeerState, SegmentState, Snapshot};
use serde_json::json;

use crate::commands::removal::{self, Done};
use crate::commands::{rm, send};
use crate::exit::{FAILED, Failure, Outcome};
use crate::open::Place;
use crate::output::{escape, json as shown, leftover, pid, units};
use crate::parse;

/// Options of `eshm gc`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A bus is removed when no process holds a role in it and nothing in it is unread.\n\
    With --older, those are removed too in which something is unread, if they are that old."
)]
pub struct Args {
    /// Say what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Only what is older than this; even with unread messages in it
    #[arg(long, value_name = "AGE", value_parser = parse::duration)]
    older: Option<Duration>,
    /// Also what belongs to this user, by name or number; else only one's own and root's. Root may
    /// remove any
    #[arg(long, value_name = "USER", value_parser = parse::user)]
    trust: Vec<u32>,
    /// As JSON: one object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    place: Place,
}

/// Something to remove or to keep.
struct Finding {
    name: String,
    path: PathBuf,
    remove: bool,
    why: String,
}

impl Args {
    /// Tidies.
    pub fn run(self) -> Outcome {
        let mut entries = eshm::list_in(&self.place.dir)?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut findings: Vec<Finding> =
            entries.iter().filter_map(|entry| self.judge(entry)).collect();
        let buses = findings.len();
        let mut failed = 0;
        for at in 0.. {
            if at == buses {
                // Now that is known which buses are gone.
                findings.extend(self.orphaned_journals(&entries));
            }
            let Some(finding) = findings.get(at) else { break };
            let tried = finding.remove && !self.dry_run;
            let done = tried.then(|| self.remove(finding));
            failed += u32::from(done.as_ref().is_some_and(|done| *done != Done::Removed));
            if finding.remove && done.as_ref().is_none_or(|done| *done == Done::Removed) {
                entries.retain(|entry| entry.path != finding.path);
            }
            self.tell(finding, done);
        }
        if !self.json && !findings.iter().any(|finding| finding.remove) {
            eprintln!("nothing to remove in {}", self.place.dir.display());
        }
        if failed > 0 {
            return Err(Failure::new(FAILED, format!("{failed} could not be removed")));
        }
        Ok(())
    }

    /// Whether an entry is garbage; `None` if it is not worth a word.
    fn judge(&self, entry: &Entry) -> Option<Finding> {
        let (remove, why) = match &entry.kind {
            EntryKind::Bus(snapshot) => self.judge_bus(snapshot),
            EntryKind::Leftover(why) => self.judge_leftover(&entry.name, &entry.path, why),
            EntryKind::Foreign(why) => (false, format!("foreign: {why}")),
            EntryKind::Unreadable(error) => (false, error.to_string()),
            _ => return None,
        };
        let (remove, why) = match removal::owner(&entry.path).filter(|_| remove) {
            Some(uid) if !removal::is_entitled(uid, &self.trust) => {
                (false, format!("it belongs to user {uid} (--trust {uid} removes it); {why}"))
            }
            _ => (remove, why),
        };
        Some(Finding { name: entry.name.clone(), path: entry.path.clone(), remove, why })
    }

    fn judge_bus(&self, snapshot: &Snapshot) -> (bool, String) {
        let stats = &snapshot.stats;
        let held = [("master", &stats.master), ("slave", &stats.slave)]
            .into_iter()
            .find(|(_, role)| matches!(role.state, PeerState::Alive | PeerState::Hung(_)));
        if let Some((name, role)) = held {
            return (false, format!("the {name} ({}) lives", pid::of(role)));
        }
        let about = if snapshot.state == SegmentState::Retired {
            "retired and empty".to_string()
        } else {
            format!("master {}, slave {}", last_seen(&stats.master), last_seen(&stats.slave))
        };
        let age = Duration::from_secs(shown::age_s(snapshot));
        self.judge_by(age, snapshot.unread.iter().sum(), &about)
    }

    /// One that was moved aside to be removed: retired, unless somebody took it up meanwhile.
    fn judge_leftover(&self, name: &str, path: &Path, why: &str) -> (bool, String) {
        let Some(age) = leftover::age(path) else { return (false, format!("{why}; gone by now")) };
        match eshm::inspect_in(&self.place.dir, name).ok() {
            Some(snapshot) => self.judge_by(age, snapshot.unread.iter().sum(), why),
            None => (false, format!("{why}; it cannot be looked into")),
        }
    }

    /// By age and by what is unread, if nobody holds it.
    fn judge_by(&self, age: Duration, unread: u64, about: &str) -> (bool, String) {
        let old = format!("{} old", units::age(age));
        let messages = units::plural(unread, "message");
        match (unread, self.older) {
            (_, Some(limit)) if age < limit => (false, format!("only {old}")),
            (0, _) => (true, format!("{about}, {old}")),
            (_, Some(_)) => (true, format!("{about}, {messages} unread, {old}")),
            (_, None) => (false, format!("{messages} unread, {old}; {about}")),
        }
    }

    fn remove(&self, finding: &Finding) -> Done {
        if finding.name.starts_with(send::JOURNAL_PREFIX) {
            return match fs::remove_file(&finding.path) {
                Ok(()) => Done::Removed,
                Err(error) => Done::Kept(eshm::Error::Os {
                    operation: "unlink",
                    object: finding.path.display().to_string(),
                    errno: error.raw_os_error().unwrap_or(0),
                }),
            };
        }
        let (dir, path, name) = (&self.place.dir, &finding.path, &finding.name);
        match self.older {
            Some(_) => removal::remove(dir, path, name, false, &self.trust),
            None => removal::remove_read(dir, path, name, &self.trust),
        }
    }

    fn tell(&self, finding: &Finding, done: Option<Done>) {
        let failure = done.as_ref().and_then(|done| rm::why(done, &self.place.dir));
        if self.json {
            println!(
                "{}",
                json!({ "name": finding.name, "path": finding.path.to_string_lossy(), "garbage": finding.remove,
                        "removed": done == Some(Done::Removed), "emptied": done == Some(Done::Emptied),
                        "why": finding.why, "error": failure })
            );
            return;
        }
        let verb = match (finding.remove, &done) {
            (false, _) => "keep",
            (true, None) => "would remove",
            (true, Some(Done::Removed)) => "removed",
            (true, Some(Done::Emptied)) => "emptied",
            (true, Some(Done::Revived | Done::Kept(_))) => "cannot remove",
        };
        let name = escape::bytes(finding.name.as_bytes());
        let failure = failure.map_or(String::new(), |text| format!("; {}", escape::line(&text)));
        println!("{verb} {name}: {}{failure}", escape::bytes(finding.why.as_bytes()));
    }

    /// Journals of killed senders whose segment is gone.
    fn orphaned_journals(&self, entries: &[Entry]) -> Vec<Finding> {
        let files = fs::read_dir(&self.place.dir).into_iter().flatten().flatten();
        let journals = files.filter_map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            let bus = name.strip_prefix(send::JOURNAL_PREFIX)?;
            let alive = entries.iter().any(|entry| {
                let stored = entry.name.replace('/', "_");
                bus.strip_prefix(&stored).is_some_and(|rest| rest.starts_with('_'))
            });
            let written = file.metadata().ok()?.modified().ok()?;
            let age = SystemTime::now().duration_since(written).unwrap_or_default();
            let about = "journal of a killed sender whose segment is gone";
            let (remove, why) = self.judge_by(age, 0, about);
            (!alive).then(|| Finding { why, path: file.path(), remove, name })
        });
        journals.collect()
    }
}

fn last_seen(role: &Peer) -> String {
    match role.state {
        PeerState::Absent => "never there".to_string(),
        state => format!("{} ({})", state, pid::of(role)),
    }
}
