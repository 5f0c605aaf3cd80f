//! Surviving a restart: the sender dies without a word, and its successor goes on where it stopped.

use std::process::Command;

use eshm::{Options, Role};

fn main() -> eshm::Result<()> {
    if let Some(name) = std::env::args().nth(1) {
        return send(&name);
    }
    let name = format!("restart-{}", std::process::id());
    let mut reader = Options::new(&name).role(Role::Master).open()?;
    let me = std::env::current_exe().expect("a program knows where it is");
    while reader.last_id().is_none_or(|id| id.number < 9) {
        // Each sender kills itself after a few messages; what it wrote is there all the same.
        let _ = Command::new(&me).arg(&name).status().expect("it can be started");
        let mut buffer = [0; 64];
        while let Ok(len) = reader.try_read(&mut buffer) {
            let id = reader.last_id().expect("one was just read");
            println!("message {id}: {}", String::from_utf8_lossy(&buffer[..len]));
        }
    }
    reader.leave()?;
    eshm::remove(&name, false) // who died has not left, so the bus would stay for a successor
}

fn send(name: &str) -> eshm::Result<()> {
    let mut bus = Options::new(name).role(Role::Slave).open()?;
    let next = bus.last_committed().map_or(0, |id| id.number + 1);
    for number in next..next + 3 {
        bus.write(format!("step {number}").as_bytes())?;
    }
    std::process::abort(); // as hard as kill -9: nothing is flushed, nobody says goodbye
}
