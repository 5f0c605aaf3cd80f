//! The ring against models that cannot be wrong.
//!
//! | file | what it shows |
//! |---|---|
//! | `oracle.rs` | random histories with restarts, kills, rebuilds and taps agree with a queue |
//! | `exhaustive.rs` | so do all short histories of tiny rings |
//! | `ghosts.rs` | no payload is ever taken for a commit word |
//! | `torn.rs` | a kill after each store leaves something that a successor understands |
//! | `overwrite.rs` | overwritten rings lose exactly what they say |
//! | `seal.rs` | a seal loses no more of such a ring than one reservation, whoever goes on |
//! | `threads.rs` | two threads at one ring agree on every message |
//! | `lies.rs` | a hostile peer gets errors and wrong messages, nothing else |
//! | `regressions.rs` | what these and the model checker found |
//! | `loom.rs`, `loom/` | every edge of the table in `ring.rs`, in every interleaving (`--cfg loom`) |

#[cfg(not(loom))]
mod exhaustive;
#[cfg(not(loom))]
mod ghosts;
#[cfg(not(loom))]
mod lies;
#[cfg(loom)]
mod loom;
#[cfg(not(loom))]
mod oracle;
#[cfg(not(loom))]
mod overwrite;
#[cfg(not(loom))]
mod regressions;
#[cfg(not(loom))]
mod seal;
#[cfg(not(loom))]
mod threads;
#[cfg(not(loom))]
mod torn;
