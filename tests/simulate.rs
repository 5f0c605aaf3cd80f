//! The simulation: see `src/sim.rs` and `tools/simulate`.
#![allow(missing_docs)]

fn main() {}
