//! `eshm gc`: removes what nobody holds, and says why.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eshm::{Entry, EntryKind, Peer, PeerState, Snapshot};
use serde_json::json;

use crate::commands::send;
use crate::exit::{FAILED, Failure, Outcome};
use crate::open::Place;
use crate::output::{escape, json as shown, units};
use crate::parse;

/// Options of `eshm gc`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Say what would be removed, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Only what is older than this
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    older: Option<Duration>,
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
        findings.extend(orphaned_journals(&self.place.dir, &entries));
        let mut failed = 0;
        for finding in &findings {
            let result =
                if finding.remove && !self.dry_run { self.remove(finding) } else { Ok(()) };
            failed += u32::from(result.is_err());
            self.tell(finding, result.err());
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
            EntryKind::Leftover(why) => (true, why.to_string()),
            EntryKind::Foreign(why) => (false, format!("foreign: {why}")),
            EntryKind::Unreadable(error) => (false, error.to_string()),
            _ => return None,
        };
        Some(Finding { name: entry.name.clone(), path: entry.path.clone(), remove, why })
    }

    fn judge_bus(&self, snapshot: &Snapshot) -> (bool, String) {
        let stats = &snapshot.stats;
        let held = [("master", &stats.master), ("slave", &stats.slave)]
            .into_iter()
            .find(|(_, role)| matches!(role.state, PeerState::Alive | PeerState::Hung(_)));
        if let Some((name, role)) = held {
            return (false, format!("the {name} (pid {}) lives", role.pid));
        }
        let age = Duration::from_secs(shown::age_s(snapshot));
        if self.older.is_some_and(|limit| age < limit) {
            return (false, format!("only {} old", units::age(age)));
        }
        let unread = stats.master_to_slave.backlog + stats.slave_to_master.backlog;
        let unread = if unread > 0 {
            format!(", {} unread", units::plural(unread, "message"))
        } else {
            String::new()
        };
        (
            true,
            format!(
                "master {}, slave {}{unread}",
                last_seen(&stats.master),
                last_seen(&stats.slave)
            ),
        )
    }

    fn remove(&self, finding: &Finding) -> Outcome {
        if finding
            .path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(send::JOURNAL_PREFIX))
        {
            return Ok(fs::remove_file(&finding.path)?);
        }
        Ok(eshm::remove_in(&self.place.dir, &finding.name, false)?)
    }

    fn tell(&self, finding: &Finding, error: Option<Failure>) {
        let failure = match &error {
            Some(Failure::Told { text, .. }) => Some(text.clone()),
            _ => None,
        };
        if self.json {
            let removed = finding.remove && !self.dry_run && error.is_none();
            println!(
                "{}",
                json!({ "name": finding.name, "path": finding.path.to_string_lossy(), "garbage": finding.remove,
                                   "removed": removed, "why": finding.why, "error": failure })
            );
            return;
        }
        let verb = match (finding.remove, self.dry_run, &failure) {
            (false, ..) => "keep",
            (true, _, Some(_)) => "cannot remove",
            (true, true, None) => "would remove",
            (true, false, None) => "removed",
        };
        let name = escape::bytes(finding.name.as_bytes());
        let failure = failure.map_or(String::new(), |text| format!("; {text}"));
        println!("{verb} {name}: {}{failure}", escape::bytes(finding.why.as_bytes()));
    }
}

fn last_seen(role: &Peer) -> String {
    match role.state {
        PeerState::Absent => "never there".to_string(),
        state => format!("{} (pid {})", state, role.pid),
    }
}

/// Journals of killed senders whose segment is gone.
fn orphaned_journals(directory: &Path, entries: &[Entry]) -> Vec<Finding> {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files
        .filter_map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            let bus = name.strip_prefix(send::JOURNAL_PREFIX)?;
            let alive = entries.iter().any(|entry| {
                let stored = entry.name.replace('/', "_");
                bus.strip_prefix(&stored).is_some_and(|rest| rest.starts_with('_'))
            });
            (!alive).then(|| Finding {
                why: "journal of a killed sender whose segment is gone".into(),
                path: file.path(),
                remove: true,
                name,
            })
        })
        .collect()
}
