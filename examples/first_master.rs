//! A first master: sends a few readings, and says when somebody listens.
//!
//! `cargo run --example first_master` in one terminal, `first_slave` in another.

use std::time::Duration;

use eshm::{Options, Role};

fn main() -> eshm::Result<()> {
    let name = std::env::args().nth(1).unwrap_or("first".into());
    let mut bus = Options::new(name).role(Role::Master).open()?;
    let slave = bus.wait_for_peer(Duration::from_secs(60))?;
    println!("the slave is here (pid {})", slave.pid);
    for reading in 1..=5 {
        bus.write(format!("reading {reading}").as_bytes())?;
    }
    bus.write(b"")?; // an empty message is a message: here it says that this was all
    let mut answer = [0; 64];
    let len = bus.read(&mut answer)?;
    println!("the slave says: {}", String::from_utf8_lossy(&answer[..len]));
    bus.leave()
}
