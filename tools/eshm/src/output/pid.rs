//! Process ids, as people can take them: in a container the numbers are others.

use eshm::Peer;

/// The process, as in `pid 17`; said with it if that number is of another PID namespace.
pub fn of(peer: &Peer) -> String {
    let elsewhere = if peer.is_foreign { " of another PID namespace" } else { "" };
    format!("pid {}{elsewhere}", peer.pid)
}

/// The number for a table: `ns:17` if it is of another PID namespace.
pub fn short(peer: &Peer) -> String {
    format!("{}{}", if peer.is_foreign { "ns:" } else { "" }, peer.pid)
}
