//! The slave. Either of the two may be started first, and started again as often as you like.

use eshm::{Options, Role};

fn main() -> eshm::Result<()> {
    let mut bus = Options::new("telemetry").role(Role::Slave).open()?;
    let mut buffer = [0; 64];
    loop {
        match bus.read(&mut buffer) {
            Ok(len) => println!("{:?} {:?}", bus.last_id(), &buffer[..len]),
            Err(eshm::Error::Timeout) => println!("silence; the master is {}", bus.peer().state),
            Err(error) => return Err(error),
        }
    }
}
