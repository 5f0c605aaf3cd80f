//! A first slave: reads until an empty message comes, and answers.

use eshm::{Options, Role};

fn main() -> eshm::Result<()> {
    let name = std::env::args().nth(1).unwrap_or("first".into());
    let mut bus = Options::new(name).role(Role::Slave).open()?; // waits for the master
    let mut buffer = [0; 64];
    let mut count = 0;
    loop {
        let len = bus.read(&mut buffer)?;
        if len == 0 {
            break;
        }
        count += 1;
        println!("{}", String::from_utf8_lossy(&buffer[..len]));
    }
    bus.write(format!("{count} readings arrived").as_bytes())?;
    bus.leave()
}
