//! The demo's account: what was sent, what arrived, and how long the two faults were felt.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::output::style::Paint;
use crate::output::units::{count, nanos};

use super::event::Tick;

/// When something bad happened, was noticed, and was over.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fault {
    pub at_ns: u64,
    pub noticed_ns: Option<u64>,
    pub resumed_ns: Option<u64>,
}

impl Fault {
    /// From the fault until the slave saw it.
    pub fn to_notice(self) -> Option<u64> {
        self.noticed_ns.map(|at| at.saturating_sub(self.at_ns))
    }

    /// From the fault until the slave got the first message of the successor.
    pub fn to_resume(self) -> Option<u64> {
        self.resumed_ns.map(|at| at.saturating_sub(self.at_ns))
    }
}

/// The account.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ledger {
    /// Messages that the masters committed, all together.
    pub sent: u64,
    /// What the slave counted.
    pub seen: Tick,
    /// SIGKILL.
    pub kill: Fault,
    /// SIGSTOP.
    pub freeze: Fault,
    /// The frozen master found itself fenced when it woke up.
    pub fenced: bool,
}

impl Ledger {
    /// Messages that were committed and never came.
    pub fn lost(&self) -> u64 {
        self.seen.lost
            + (self.sent + self.seen.doubled).saturating_sub(self.seen.received + self.seen.lost)
    }

    /// What is not as promised; empty when the ledger is clean.
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut say = |wrong: bool, what: String| {
            if wrong {
                complaints.push(what)
            }
        };
        say(self.sent == 0, "nothing was sent".into());
        say(self.lost() > 0, format!("{} lost", count(self.lost())));
        say(self.seen.doubled > 0, format!("{} doubled", count(self.seen.doubled)));
        say(self.seen.torn > 0, format!("{} torn", count(self.seen.torn)));
        say(
            self.seen.received != self.sent,
            format!("{} sent, {} received", count(self.sent), count(self.seen.received)),
        );
        for (fault, name) in [(&self.kill, "SIGKILL"), (&self.freeze, "the freeze")] {
            say(fault.to_notice().is_none(), format!("{name} was not noticed"));
            say(fault.to_resume().is_none(), format!("the stream did not go on after {name}"));
        }
        say(!self.fenced, "the frozen master did not find itself fenced".into());
        complaints
    }

    /// The account for people.
    pub fn render(&self, paint: Paint) -> String {
        let mut text = String::new();
        let good = |number: u64| {
            if number == 0 {
                paint.green(format!("{:>12}", 0))
            } else {
                paint.red(format!("{:>12}", count(number)))
            }
        };
        let time = |ns: Option<u64>| ns.map_or("never".to_string(), nanos);
        let _ = writeln!(text, "  {}", paint.bold("The ledger"));
        let _ = writeln!(text, "    sent      {:>12}", count(self.sent));
        let _ = writeln!(text, "    received  {:>12}", count(self.seen.received));
        let _ = writeln!(text, "    lost      {}", good(self.lost()));
        let _ = writeln!(text, "    doubled   {}", good(self.seen.doubled));
        let _ = writeln!(text, "    torn      {}", good(self.seen.torn));
        let _ = writeln!(text);
        let _ = writeln!(text, "    {}", paint.dim("                  killed     frozen"));
        let _ = writeln!(
            text,
            "    time to notice  {:>8}   {:>8}",
            time(self.kill.to_notice()),
            time(self.freeze.to_notice())
        );
        let _ = writeln!(
            text,
            "    time to resume  {:>8}   {:>8}",
            time(self.kill.to_resume()),
            time(self.freeze.to_resume())
        );
        let seen = &self.seen;
        let _ = writeln!(
            text,
            "    latency         p50 {}, p99 {}, p99.9 {}",
            nanos(seen.p50_ns),
            nanos(seen.p99_ns),
            nanos(seen.p999_ns)
        );
        text
    }

    /// The account for programs.
    pub fn json(&self) -> Value {
        let fault = |fault: &Fault| json!({ "notice_ns": fault.to_notice(), "resume_ns": fault.to_resume() });
        let seen = &self.seen;
        json!({
            "clean": self.complaints().is_empty(),
            "complaints": self.complaints(),
            "sent": self.sent,
            "received": seen.received,
            "lost": self.lost(),
            "doubled": seen.doubled,
            "torn": seen.torn,
            "killed": fault(&self.kill),
            "frozen": fault(&self.freeze),
            "fenced": self.fenced,
            "latency": { "p50_ns": seen.p50_ns, "p99_ns": seen.p99_ns, "p999_ns": seen.p999_ns, "max_ns": seen.max_ns },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Ledger {
        let fault = Fault { at_ns: 1_000, noticed_ns: Some(601_000), resumed_ns: Some(21_001_000) };
        let seen = Tick {
            received: 1_234_567,
            p50_ns: 900,
            p99_ns: 4100,
            p999_ns: 31_000,
            ..Tick::default()
        };
        Ledger { sent: 1_234_567, seen, kill: fault, freeze: fault, fenced: true }
    }

    #[test]
    fn a_clean_ledger_has_nothing_to_complain_about() {
        assert!(clean().complaints().is_empty());
        let expected = "  The ledger
    sent         1,234,567
    received     1,234,567
    lost                 0
    doubled              0
    torn                 0

                      killed     frozen
    time to notice    600 µs     600 µs
    time to resume   21.0 ms    21.0 ms
    latency         p50 900 ns, p99 4.1 µs, p99.9 31.0 µs
";
        assert_eq!(clean().render(Paint::OFF), expected);
    }

    #[test]
    fn each_thing_that_goes_wrong_is_named() {
        type Spoil = fn(&mut Ledger);
        let spoil: [(Spoil, &str); 7] = [
            (|ledger| ledger.sent += 2, "2 lost"),
            (|ledger| ledger.seen.lost = 3, "3 lost"),
            (|ledger| ledger.seen.doubled = 1, "1 doubled"),
            (|ledger| ledger.seen.torn = 1, "1 torn"),
            (|ledger| ledger.kill.noticed_ns = None, "SIGKILL was not noticed"),
            (|ledger| ledger.freeze.resumed_ns = None, "did not go on after the freeze"),
            (|ledger| ledger.fenced = false, "did not find itself fenced"),
        ];
        for (spoil, complaint) in spoil {
            let mut ledger = clean();
            spoil(&mut ledger);
            let complaints = ledger.complaints().join("; ");
            assert!(complaints.contains(complaint), "{complaint:?} is not in {complaints:?}");
        }
    }
}
