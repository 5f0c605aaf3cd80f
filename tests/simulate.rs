//! The simulation: see `src/sim.rs` and `tools/simulate`.
#![allow(missing_docs)]

fn main() {
    #[cfg(eshm_sim)]
    eshm::sim::main();
    #[cfg(not(eshm_sim))]
    println!("the simulation is a build of its own: tools/simulate");
}
