//! What the proofs share. Read `scene.rs` first: which operations there are, and what must hold
//! after each of them was cut short.
#![allow(dead_code, missing_docs)]

pub mod ledger;
pub mod listener;
pub mod points;
pub mod race;
pub mod scene;
pub mod stage;
pub mod trace;
pub mod worker;

use std::time::Duration;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Nothing that a proof waits for takes longer; then it hangs, and the proof fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

extern "C" fn ring(_: libc::c_int) {}

/// Ends every wait of this process with EINTR once the patience is over. To be called again at
/// each new point.
pub fn be_patient() {
    let action = SigAction::new(SigHandler::Handler(ring), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing at all.
    unsafe { sigaction(Signal::SIGALRM, &action) }.expect("sigaction");
    nix::unistd::alarm::set(PATIENCE.as_secs() as u32);
}

/// What the command line asks of a proof that has its own `main`.
pub struct Wish {
    /// The whole of it, not the quick version.
    pub is_full: bool,
    /// Only operations with one of these in their names.
    pub only: Vec<String>,
}

impl Wish {
    /// As `cargo test` would call a test binary. `None` if only a list of tests is asked for.
    pub fn read() -> Option<Wish> {
        let args: Vec<String> = std::env::args().skip(1).collect();
        if args.iter().any(|arg| arg == "--list") {
            return None;
        }
        let is_full = args.iter().any(|arg| arg == "--ignored" || arg == "--include-ignored");
        let only = args.into_iter().filter(|arg| !arg.starts_with('-')).collect();
        Some(Wish { is_full, only })
    }

    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }
}

/// Names in `/dev/shm` that belong to this bus.
pub fn leftovers(name: &str) -> Vec<String> {
    let prefix = format!("eshm_{name}");
    let entries = std::fs::read_dir("/dev/shm").expect("/dev/shm");
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

/// Removes what the rule of removal keeps: a bus with unread messages. Then nothing may be left.
pub fn remove_kept(name: &str) {
    if let Ok(kept) = eshm::inspect(name) {
        assert_ne!(kept.unread, [0, 0], "left over: {kept:?}");
        eshm::remove(name, false).expect("nobody is there any more");
    }
    assert_eq!(leftovers(name), [""; 0], "left over");
}
