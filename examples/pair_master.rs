//! The master.

use std::time::Duration;

use eshm::{Options, Role};

fn main() -> eshm::Result<()> {
    let mut bus = Options::new("telemetry").role(Role::Master).open()?;
    for reading in 0u64.. {
        bus.write(&reading.to_le_bytes())?; // waits if the slave is behind, or not there yet
        std::thread::sleep(Duration::from_millis(10)); // without it: some millions a second
    }
    Ok(())
}
