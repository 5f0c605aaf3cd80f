//! What the processes of the demo tell the one that started them: a line of JSON each.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// Something happened in a master or in the slave.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A master has its role, and goes on at message `next`.
    Opened { epoch: u64, next: u64, at_ns: u64 },
    /// A master found another one in its place.
    Fenced { by_pid: u32 },
    /// A master left; the stream has that many messages.
    Sent { total: u64 },
    /// How the slave is doing.
    Tick(Tick),
    /// The slave saw that its master does not live any more.
    Noticed { hung: bool, at_ns: u64 },
    /// The slave got the first message of a new master.
    Resumed { epoch: u64, at_ns: u64 },
    /// The slave has read all and left.
    Received(Tick),
}

/// What the slave counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Tick {
    /// When the slave took the count.
    pub at_ns: u64,
    pub received: u64,
    pub lost: u64,
    pub doubled: u64,
    pub torn: u64,
    pub backlog: u64,
    pub master_beats: u64,
    pub slave_beats: u64,
    /// Latencies since the last tick; over the whole time in the last event.
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub max_ns: u64,
}

impl Event {
    /// Tells it. A parent that does not listen any more is no matter: stdin will close as well.
    pub fn tell(&self) {
        let mut stdout = io::stdout().lock();
        if let Ok(line) = serde_json::to_string(self) {
            let _ = writeln!(stdout, "{line}");
            let _ = stdout.flush();
        }
    }
}
