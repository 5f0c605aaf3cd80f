//! A latency histogram: round trips between two threads, sleeping as little as the default does.

use std::time::{Duration, Instant};

use eshm::{Options, Role};
use hdrhistogram::Histogram;

const TRIPS: u32 = 100_000;

fn main() -> eshm::Result<()> {
    let name = format!("latency-{}", std::process::id());
    let mut ping = Options::new(&name).role(Role::Master).open()?;
    let mut pong = Options::new(&name).role(Role::Slave).open()?;
    let echo = std::thread::spawn(move || -> eshm::Result<()> {
        let mut buffer = [0; 48];
        for _ in 0..TRIPS {
            let len = pong.read(&mut buffer)?;
            pong.write(&buffer[..len])?;
        }
        Ok(())
    });
    let mut times = Histogram::<u64>::new_with_max(10_000_000_000, 3).expect("sensible bounds");
    let mut buffer = [0; 48];
    for _ in 0..TRIPS {
        let start = Instant::now();
        ping.write(&buffer)?;
        ping.read_timeout(&mut buffer, Duration::from_secs(10))?;
        times.saturating_record(start.elapsed().as_nanos() as u64);
    }
    echo.join().expect("the echo does not panic")?;
    for percentile in [50.0, 90.0, 99.0, 99.9, 100.0] {
        println!("{percentile:5} % within {:6} ns", times.value_at_percentile(percentile));
    }
    Ok(())
}
