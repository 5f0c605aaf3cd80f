//! Typed telemetry at a high rate: plain structs in, plain structs out, none lost.

use std::time::Instant;

use bytemuck::{Pod, Zeroable};
use eshm::{Options, Role};

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Sample {
    number: u64,
    at_ns: u64,
    position: [f32; 4],
    torque: [f32; 4],
}

const SAMPLES: u64 = 1_000_000;

fn main() -> eshm::Result<()> {
    let name = format!("telemetry-{}", std::process::id());
    let mut robot = Options::new(&name).role(Role::Master).open()?;
    let mut desk = Options::new(&name).role(Role::Slave).open()?;
    let start = Instant::now();
    let sender = std::thread::spawn(move || -> eshm::Result<()> {
        for number in 0..SAMPLES {
            let at_ns = start.elapsed().as_nanos() as u64;
            robot.write_value(&Sample { number, at_ns, position: [0.5; 4], torque: [0.1; 4] })?;
        }
        Ok(())
    });
    for number in 0..SAMPLES {
        let sample: Sample = desk.read_value()?;
        assert_eq!(sample.number, number, "nothing is lost, nothing changes places");
    }
    sender.join().expect("the sender does not panic")?;
    println!("{SAMPLES} samples, {:.1} M/s", SAMPLES as f64 / start.elapsed().as_micros() as f64);
    Ok(())
}
