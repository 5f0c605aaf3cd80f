//! What can go wrong, grouped by what the caller should do about it.
//!
//! Assertions are for this library's own bugs, errors for the world, [`Error::Corrupt`] for bytes
//! that no correct peer writes. The variants that a busy loop meets ([`Error::Full`],
//! [`Error::Empty`], [`Error::Timeout`]) carry nothing and allocate nothing.
#![forbid(unsafe_code)]

use std::fmt;
use std::time::Duration;

use crate::config::{Direction, Role};
use crate::schema::Schema;

/// Shorthand for a result of this library.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, grouped by what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    // --- wait -------------------------------------------------------------------------------
    /// The ring has no room for the message now. Nothing was written; try again later.
    Full,
    /// There is no message to read now.
    Empty,
    /// The time allowed for the call ran out. Nothing was written or consumed.
    Timeout,

    // --- reconnect --------------------------------------------------------------------------
    /// The peer is gone (it died or left), nothing it sent is unread, and the reconnect limits are
    /// used up. Reading goes on by itself when a peer comes back.
    PeerDead {
        /// The role that nobody holds.
        role: Role,
        /// The process that held it last; 0 when nobody ever did.
        pid: u32,
        /// Whether that number is of another PID namespace than that of this process.
        is_foreign: bool,
    },
    /// The peer holds its role but its heartbeat stands still.
    PeerHung {
        /// The role of the hung peer.
        role: Role,
        /// The process that holds it.
        pid: u32,
        /// Whether that number is of another PID namespace than that of this process.
        is_foreign: bool,
        /// How long its heartbeat has stood still, in time that this process observed.
        silent: Duration,
    },
    /// This endpoint was replaced by a successor. It must be dropped and opened again.
    Fenced {
        /// The role it held.
        role: Role,
        /// The process that holds the role now; 0 when it is not known.
        by_pid: u32,
        /// Whether that number is of another PID namespace than that of this process.
        is_foreign: bool,
    },
    /// The handle was inherited through `fork`; it belongs to the parent. Open one of your own.
    Forked,
    /// The bus was taken away from this endpoint: it was removed, its file was cut short, or its
    /// name is gone and with it every way for a peer to come back.
    Lost {
        /// What was found.
        what: &'static str,
        /// How many of this endpoint's own messages nobody has read, as far as can be told.
        unread: u64,
    },

    // --- fix the configuration --------------------------------------------------------------
    /// The name cannot be used.
    Name {
        /// The name as given, escaped.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A value of the configuration cannot be used.
    Config {
        /// The option.
        what: &'static str,
        /// The value as given.
        value: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The role, or with [`Role::Auto`] both, is held by somebody else.
    RoleTaken {
        /// The role that was asked for.
        role: Role,
        /// The process that holds it.
        pid: u32,
        /// Whether that number is of another PID namespace than that of this process.
        is_foreign: bool,
        /// Its state: `alive`, `hung`, or `moving` (to a segment just rebuilt).
        state: &'static str,
    },
    /// The message is longer than the ring carries.
    TooLong {
        /// The length of the message.
        len: usize,
        /// The longest message that this direction carries.
        max: usize,
    },
    /// The buffer is shorter than the message, which stays where it is.
    BufferTooSmall {
        /// The length of the message.
        len: usize,
        /// The length of the buffer.
        buffer: usize,
    },
    /// The message has another length than the type it was to be read as; it stays where it is.
    WrongSize {
        /// The length of the message.
        len: usize,
        /// The size of the type.
        expected: usize,
    },
    /// The segment that is there has another geometry than was asked for.
    Geometry {
        /// The property that differs.
        what: &'static str,
        /// The value asked for.
        asked: u64,
        /// The value of the segment.
        found: u64,
    },
    /// The messages of the bus are others than this side says, or the bus does not say what they are.
    Schema {
        /// The direction in which they differ.
        direction: Direction,
        /// What this side says.
        asked: Box<Schema>,
        /// What the bus carries; `None` if whoever made it did not say.
        found: Option<Box<Schema>>,
    },
    /// No segment has this name. A slave waits for its master to create it.
    NotFound {
        /// Where it was looked for.
        path: String,
    },
    /// The file under the name may not be used by this process.
    Access {
        /// The file.
        path: String,
        /// What is wrong: its owner, its mode or its kind.
        why: String,
    },

    // --- a segment of somebody else ---------------------------------------------------------
    /// The file under the name is not a segment of this library. It was left as it was.
    Foreign {
        /// The file.
        path: String,
        /// What it seems to be.
        why: String,
    },
    /// The segment was made by a build of this library that lays out memory in another way.
    Layout {
        /// The property that differs.
        what: &'static str,
        /// Its value in this build.
        ours: u64,
        /// Its value in the segment.
        theirs: u64,
    },

    // --- the system -------------------------------------------------------------------------
    /// The operating system refused.
    Os {
        /// The call that failed.
        operation: &'static str,
        /// What it was applied to.
        object: String,
        /// The number of the error, as in `errno`.
        errno: i32,
    },

    // --- a broken segment -------------------------------------------------------------------
    /// Shared memory holds something that no correct peer writes. The endpoint does not touch that
    /// direction any more.
    Corrupt {
        /// The invariant that does not hold.
        what: &'static str,
    },
}

impl Error {
    /// True for the errors that go away by waiting: [`Error::Full`], [`Error::Empty`],
    /// [`Error::Timeout`].
    #[must_use]
    pub fn is_wait(&self) -> bool {
        matches!(self, Error::Full | Error::Empty | Error::Timeout)
    }

    /// What is said of whoever has a role, or had it.
    fn write_owner(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::PeerDead { role, pid: 0, .. } => write!(f, "no {role} is there"),
            Error::PeerDead { role, pid, is_foreign } => {
                write!(f, "the {role} ({}) is gone", Pid(*pid, *is_foreign))
            }
            Error::PeerHung { role, pid, is_foreign, silent } => {
                let (pid, silent_ms) = (Pid(*pid, *is_foreign), silent.as_millis());
                write!(f, "the {role} ({pid}) hangs: no beat for {silent_ms} ms")
            }
            Error::Fenced { role, by_pid: 0, .. } => {
                write!(f, "fenced: another process took the role of {role}; open the bus again")
            }
            Error::Fenced { role, by_pid, is_foreign } => {
                let by = Pid(*by_pid, *is_foreign);
                write!(f, "fenced: {by} took the role of {role}; open the bus again")
            }
            Error::RoleTaken { role: Role::Auto, pid, is_foreign, state } => {
                let slave = Pid(*pid, *is_foreign);
                write!(f, "both roles are taken: the slave is {slave} ({state})")
            }
            Error::RoleTaken { role, pid, is_foreign, state } => {
                let pid = Pid(*pid, *is_foreign);
                write!(f, "the role of {role} is taken by {pid} ({state})")
            }
            _ => unreachable!("only errors about an owner"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Full => f.write_str("the ring is full: the reader has not made room yet"),
            Error::Empty => f.write_str("no message is waiting"),
            Error::Timeout => f.write_str("timed out"),
            Error::PeerDead { .. }
            | Error::PeerHung { .. }
            | Error::Fenced { .. }
            | Error::RoleTaken { .. } => self.write_owner(f),
            Error::Forked => {
                f.write_str("this handle belongs to the parent process; open one after the fork")
            }
            Error::Lost { what, unread } => write_lost(f, what, *unread),
            Error::Name { name, why } => write!(f, "name \"{name}\": {why}"),
            Error::Config { what, value, why } => write!(f, "{what} = {value}: {why}"),
            Error::TooLong { len, max } => {
                write!(
                    f,
                    "a message of {len} bytes is too long: this direction carries up to {max}"
                )
            }
            Error::BufferTooSmall { len, buffer } => {
                write!(f, "the message has {len} bytes, the buffer only {buffer}; it is kept")
            }
            Error::WrongSize { len, expected } => {
                write!(f, "the message has {len} bytes, the type {expected}; it is kept")
            }
            Error::Geometry { what, asked, found } => {
                write!(f, "the segment has {what} {found}, not {asked} as asked for")
            }
            Error::Schema { direction, asked, found } => {
                write_schema(f, *direction, asked, found.as_deref())
            }
            Error::NotFound { path } => write!(f, "{path}: no such segment; is a master running?"),
            Error::Access { path, why } => write!(f, "{path}: {why}; left as it is"),
            Error::Foreign { path, why } => {
                write!(f, "{path}: not a segment of eshm ({why}); left as it is")
            }
            Error::Layout { what, ours, theirs } => write!(
                f,
                "the segment is of another build of eshm: {what} {theirs:#x}, here {ours:#x}"
            ),
            Error::Os { operation, object, errno } => {
                write!(f, "{operation} {object}: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Error::Corrupt { what } => write!(f, "the segment is corrupt: {what}"),
        }
    }
}

/// A process, and whether its number is of another PID namespace: here it may be that of another.
struct Pid(u32, bool);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elsewhere = if self.1 { " of another PID namespace" } else { "" };
        write!(f, "pid {}{elsewhere}", self.0)
    }
}

fn write_lost(f: &mut fmt::Formatter<'_>, what: &str, unread: u64) -> fmt::Result {
    write!(f, "the bus is lost: {what}; ")?;
    if unread > 0 {
        write!(f, "{unread} messages of this side were not read; ")?;
    }
    f.write_str("open it again")
}

fn write_schema(
    f: &mut fmt::Formatter<'_>,
    direction: Direction,
    asked: &Schema,
    found: Option<&Schema>,
) -> fmt::Result {
    let (from, to) = (direction.writer(), direction.reader());
    match found {
        Some(found) => write!(f, "the bus carries {found} from {from} to {to}, not {asked} as")?,
        None => write!(f, "the bus carries no schema from {from} to {to}, and {asked} is what")?,
    }
    f.write_str(" this side says")
}

impl std::error::Error for Error {}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        use std::io::ErrorKind as Kind;
        let kind = match &error {
            Error::Os { errno, .. } => return std::io::Error::from_raw_os_error(*errno),
            Error::Full | Error::Empty => Kind::WouldBlock,
            Error::Timeout => Kind::TimedOut,
            Error::PeerDead { .. } | Error::Fenced { .. } | Error::Lost { .. } => Kind::BrokenPipe,
            Error::NotFound { .. } => Kind::NotFound,
            Error::Access { .. } => Kind::PermissionDenied,
            Error::RoleTaken { .. } => Kind::AddrInUse,
            Error::Corrupt { .. } | Error::Foreign { .. } | Error::Layout { .. } => {
                Kind::InvalidData
            }
            _ => Kind::InvalidInput,
        };
        std::io::Error::new(kind, error)
    }
}
