//! What was chosen, and how often, for people.

use std::fmt;

use super::calls::ALL;
use super::schedule::{Coverage, Event};

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = |errno: i32| std::io::Error::from_raw_os_error(errno);
        match *self {
            Event::Switch(key) => write!(f, "{key} goes on"),
            Event::Kill(actor, life, 0) => write!(f, "{actor}.{life} is killed"),
            Event::Kill(actor, life, ns) => {
                write!(f, "{actor}.{life} is killed, and lingers for {} us", ns / 1000)
            }
            Event::Stop(actor, life, ns) => {
                write!(f, "{actor}.{life} is stopped for {} us", ns / 1000)
            }
            Event::Refuse(errno) => write!(f, "refused: {}", error(errno)),
            Event::Space(pages, ns) => write!(f, "{pages} pages are left for {} us", ns / 1000),
            Event::Descriptors(actor, life, limit, ns) => {
                write!(f, "{actor}.{life} may have {limit} descriptors for {} us", ns / 1000)
            }
            Event::ReadOnly(ns) => write!(f, "read-only for {} us", ns / 1000),
            Event::ForbidBarrier(actor, life) => write!(f, "{actor}.{life} may not membarrier"),
            Event::Fork(is_bare, ns) => {
                write!(f, "{} for {} us", if is_bare { "clones" } else { "forks" }, ns / 1000)
            }
            Event::Jump(ns) => write!(f, "nobody runs for {} us", ns / 1000),
            Event::Doze(ns) => write!(f, "the machine sleeps for {} us", ns / 1000),
            Event::Spurious(key) => write!(f, "{key} wakes up for nothing"),
            Event::CloseAll => write!(f, "closes every descriptor"),
        }
    }
}

/// A line for each call: how often it was made, and what it was met by.
pub(super) fn table(coverage: &Coverage) -> String {
    let mut lines =
        vec![format!("{:<16}{:>12}{:>9}{:>9}  refused", "", "made", "killed", "stopped")];
    for call in ALL {
        let at = call as usize;
        let refused = call.refusals().iter().zip(&coverage.refusals[at]).map(|(errno, count)| {
            let name = std::io::Error::from_raw_os_error(*errno).to_string();
            let name = name.split(" (").next().unwrap_or_default().to_lowercase();
            format!("{name} {count}")
        });
        let refused = refused.collect::<Vec<_>>().join(", ");
        let (made, killed, stopped) = (coverage.count[at], coverage.kills[at], coverage.stops[at]);
        lines.push(format!("{call:<16?}{made:>12}{killed:>9}{stopped:>9}  {refused}"));
    }
    lines.join("\n")
}
