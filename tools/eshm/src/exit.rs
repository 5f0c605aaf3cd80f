//! What the program answers to its caller: one number, and one line that names the remedy.
//!
//! The numbers are a promise (`docs/cli.md`); scripts branch on them. Add, never change.

use std::borrow::Cow;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use eshm::Error;

use crate::output::{escape, style};
use crate::record::TooLong;

/// The job was done, and something it checked is not as it should be.
pub const FAILED: u8 = 1;
/// The command line makes no sense.
pub const USAGE: u8 = 2;
/// No segment has the name.
pub const NOT_FOUND: u8 = 3;
/// The time allowed ran out.
pub const TIMEOUT: u8 = 4;
/// A living process holds what was asked for.
pub const HELD: u8 = 5;
/// The other side is gone.
pub const PEER_GONE: u8 = 6;
/// Another process took this one's place.
pub const FENCED: u8 = 7;
/// The segment cannot be used: foreign, of another version, broken, or not ours to open.
pub const UNUSABLE: u8 = 8;
/// The operating system refused.
pub const SYSTEM: u8 = 9;
/// 128 + SIGPIPE: whoever read our output has gone away.
const CLOSED_PIPE: u8 = 141;

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// An error to be told: its exit code, what happened, and what to do about it.
    Told {
        /// The exit code.
        code: u8,
        /// What happened.
        text: String,
        /// What the person can do about it; may be empty.
        remedy: String,
    },
    /// The reader of our output has gone away: end quietly.
    ClosedPipe,
    /// A signal asked us to end.
    Signal(i32),
}

/// Shorthand for a command's result.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure without a remedy of its own.
    pub fn new(code: u8, text: impl Into<String>) -> Failure {
        Failure::Told { code, text: text.into(), remedy: String::new() }
    }

    /// The same, with what to do about it.
    #[must_use]
    pub fn remedy(self, advice: impl Into<String>) -> Failure {
        match self {
            Failure::Told { code, text, .. } => Failure::Told { code, text, remedy: advice.into() },
            other => other,
        }
    }

    /// The same, said of a certain thing.
    #[must_use]
    pub fn about(self, what: impl Display) -> Failure {
        match self {
            Failure::Told { code, text, remedy } => {
                Failure::Told { code, text: format!("{what}: {text}"), remedy }
            }
            other => other,
        }
    }

    /// Says what is to be said and gives the exit code. Ends by the signal that asked for it, so
    /// that a shell's loop stops as well.
    pub fn report(self, json: bool) -> ExitCode {
        match self {
            Failure::ClosedPipe => ExitCode::from(CLOSED_PIPE),
            Failure::Signal(signal) => {
                // The first process of a container is spared the default action, so that it cannot
                // end by the signal itself; the call below would abort there.
                if std::process::id() != 1 {
                    let _ = signal_hook::low_level::emulate_default_handler(signal);
                }
                ExitCode::from(128 + u8::try_from(signal).unwrap_or(0))
            }
            Failure::Told { code, text, remedy } => {
                tell(code, &text, &remedy, json);
                ExitCode::from(code)
            }
        }
    }
}

/// One error on stderr; a line of JSON when the output is JSON too.
fn tell(code: u8, text: &str, remedy: &str, json: bool) {
    let mut stderr = io::stderr().lock();
    let text = escape::line(text);
    let _ = if json {
        let value = serde_json::json!({ "error": text, "remedy": remedy, "exit": code });
        writeln!(stderr, "{value}")
    } else {
        let paint = style::stderr();
        let advice = if remedy.is_empty() {
            String::new()
        } else {
            format!("\n  {} {remedy}", paint.dim("try:"))
        };
        writeln!(stderr, "{} {text}{advice}", paint.red("eshm:"))
    };
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let (code, remedy) = meaning(&error);
        Failure::new(code, error.to_string()).remedy(remedy)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        if error.kind() == ErrorKind::BrokenPipe {
            return Failure::ClosedPipe;
        }
        let error = match error.downcast::<crate::signals::Stopped>() {
            Ok(stopped) => return Failure::Signal(stopped.0),
            Err(error) => error,
        };
        match error.downcast::<TooLong>() {
            Ok(TooLong(text)) => {
                Failure::new(USAGE, text).remedy(meaning(&Error::TooLong { len: 0, max: 0 }).1)
            }
            Err(error) => Failure::new(SYSTEM, error.to_string()),
        }
    }
}

/// The exit code of an error of the library, and the advice that goes with it.
fn meaning(error: &Error) -> (u8, Cow<'static, str>) {
    let (code, remedy) = match error {
        Error::Full | Error::Empty | Error::Timeout => {
            (TIMEOUT, "a longer --timeout, or look at both sides with: eshm ls")
        }
        Error::PeerDead { .. } => {
            (PEER_GONE, "start the other side again; unread messages are kept")
        }
        Error::PeerHung { .. } => (
            PEER_GONE,
            "find out why it hangs, or replace it: the same command with --takeover hung",
        ),
        Error::Fenced { .. } => (FENCED, "another process was told to take over; see: eshm ls"),
        Error::Lost { .. } => (FENCED, "start it again"),
        Error::RoleTaken { .. } => {
            (HELD, "the other --role, or --takeover hung if that process hangs; see: eshm ls")
        }
        Error::NotFound { .. } => (NOT_FOUND, "eshm ls shows what is there"),
        Error::TooLong { .. } => (
            USAGE,
            "create the segment with more room: --frames 65536 on the side that starts first",
        ),
        Error::Geometry { .. } => (USAGE, "leave the option away to take the segment as it is"),
        Error::Schema { .. } => (
            USAGE,
            "the version of the program that fits, or leave --schema away to take the bus as it is",
        ),
        Error::Foreign { .. } => (UNUSABLE, "another name; this file belongs to somebody else"),
        Error::Layout { .. } => (UNUSABLE, "the same version of eshm on both sides"),
        Error::Corrupt { .. } => (UNUSABLE, "stop both sides, then: eshm rm NAME"),
        Error::Access { why, .. } => return (UNUSABLE, access(why)),
        Error::Os { operation, object, errno } => {
            return (SYSTEM, system(operation, object, *errno));
        }
        _ => (USAGE, ""),
    };
    (code, remedy.into())
}

/// What to do about a file that may not be used, by what the library says of it.
fn access(why: &str) -> Cow<'static, str> {
    if let Some(owner) = why.strip_prefix("it belongs to user ") {
        let name = owner.split([' ', ',']).next().unwrap_or_default();
        return format!("if that user may be trusted: --trust {name}").into();
    }
    let remedy = if why.starts_with("permission denied in") {
        "another --dir, or let this user into that directory (chmod, a group)"
    } else if why.starts_with("permission denied") {
        "run as that user, or make the segment with --mode 660 for a group that has both"
    } else if why.starts_with("others may use it") {
        "leave --mode away to take the segment as it is"
    } else {
        "eshm ls and ls -l show what is there"
    };
    remedy.into()
}

/// What to do when the system refuses.
fn system(operation: &str, object: &str, errno: i32) -> Cow<'static, str> {
    use nix::errno::Errno;
    let remedy = match Errno::from_raw(errno) {
        // Files are not found in another way (`Error::NotFound`): this is the directory of the segments.
        Errno::ENOENT if matches!(operation, "open" | "readdir") && object.starts_with('/') => {
            return format!("mkdir -p {object}, or the right directory with --dir").into();
        }
        Errno::ENOSPC => {
            "fewer --frames, or more room: eshm ls shows what takes it, eshm gc or eshm rm NAME gives it back, mount -o remount,size=1G on that directory makes more"
        }
        Errno::EFBIG => "fewer --frames, or a higher limit: ulimit -f",
        _ => "eshm doctor looks at what the system allows",
    };
    remedy.into()
}
