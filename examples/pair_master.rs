//! The master.

use eshm::{Options, Role};

fn main() -> eshm::Result<()> {
    let mut bus = Options::new("telemetry").role(Role::Master).open()?;
    for reading in 0u64.. {
        bus.write(&reading.to_le_bytes())?; // waits if the slave is behind, or not there yet
    }
    Ok(())
}
