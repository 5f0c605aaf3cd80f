//! `eshm bench`: latency and throughput between two processes here, beside what else there is.
//!
//! Every transport does the same work: two processes, each kept on a core of its own, messages
//! copied in and out with one call each, numbered and checked on arrival.

pub mod far;
mod limit;
mod link;
mod near;
mod report;
mod results;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::exit::{Failure, Outcome, SYSTEM, USAGE};
use crate::machine::{self, Machine};
use crate::open::Place;
use crate::output::percentiles;
use crate::output::style;
use crate::parse;
use crate::signals::Stop;

use link::Transport;
use near::Near;
use results::{Latency, Results, Throughput};

/// Options of `eshm bench`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  eshm bench --report bench.html\n  eshm bench --time 5s --json > bench.json"
)]
pub struct Args {
    /// How long each measurement takes
    #[arg(long, value_name = "TIME", value_parser = parse::duration, default_value = "1s")]
    time: Duration,
    /// Bytes of a message in the latency measurements
    #[arg(short, long, value_name = "BYTES", value_parser = parse::size, default_value = "48")]
    size: u64,
    /// Bytes of a message in the throughput measurements
    #[arg(long, value_name = "BYTES,…", value_parser = parse::size, value_delimiter = ',', default_value = "48,1K,16K,64K")]
    sizes: Vec<u64>,
    /// The two hardware threads to use [default: two cores near each other]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    cpus: Vec<usize>,
    /// Write a page with curves and bars to this file
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write each histogram to PATH-TRANSPORT.hgrm, in the text format of HdrHistogram
    #[arg(long, value_name = "PATH")]
    hgrm: Option<PathBuf>,
    /// The results in JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    place: Place,
}

impl Args {
    /// Measures.
    pub fn run(self) -> Outcome {
        let stop = Stop::install()?;
        self.check()?;
        let machine = Machine::read();
        let pair = self.pair(&machine);
        if pair.is_none() {
            eprintln!(
                "eshm: only one core is usable: both sides take turns, the numbers say little"
            );
        }
        if !machine.busy().is_empty() {
            eprintln!("eshm: {}", machine.busy());
        }
        let near =
            Near { directory: self.place.dir.clone(), cpus: pair, time: self.time, stop: &stop };
        let results = self.measure(&near, machine, pair)?;
        self.write_files(&results)?;
        if self.json {
            println!("{}", results.json());
        } else {
            print!("{}", results.render(style::stdout()));
        }
        if let Some(path) = &self.report {
            eprintln!("eshm: the report is in {}", path.display());
        }
        Ok(())
    }

    fn check(&self) -> Outcome {
        let too_small =
            self.sizes.iter().chain([&self.size]).any(|&size| !(16..=1 << 20).contains(&size));
        if too_small {
            return Err(Failure::new(USAGE, "sizes are between 16 bytes and 1 MiB"));
        }
        if !matches!(self.cpus.len(), 0 | 2) {
            return Err(Failure::new(USAGE, "--cpus: two numbers, as 0,1"));
        }
        let usable = machine::usable();
        match self.cpus.iter().find(|cpu| !usable.contains(cpu)) {
            Some(cpu) => Err(Failure::new(
                USAGE,
                format!("--cpus: {cpu} is not usable here; these are: {usable:?}"),
            )),
            None => Ok(()),
        }
    }

    fn pair(&self, machine: &Machine) -> Option<(usize, usize)> {
        match self.cpus[..] {
            [a, b] => Some((a, b)),
            _ => machine.pair(&machine::usable()),
        }
    }

    fn measure(
        &self,
        near: &Near<'_>,
        machine: Machine,
        pair: Option<(usize, usize)>,
    ) -> Outcome<Results> {
        let size = usize::try_from(self.size).unwrap_or(48);
        let bar =
            progress(Transport::ALL.len() + 1 + self.sizes.len() * (Transport::STREAMS.len() + 1));
        let mut results = Results::new(machine, pair, size, self.time);
        for transport in Transport::ALL {
            bar.set_message(format!("round trips, {}", transport.name()));
            results.latencies.push(Latency {
                transport: transport.name(),
                histogram: near.round_trips(transport, size)?,
            });
            bar.inc(1);
        }
        bar.set_message("round trips, the physical limit");
        results
            .latencies
            .push(Latency { transport: limit::BOUNCE, histogram: limit::bounce(near)? });
        bar.inc(1);
        for &size in &self.sizes {
            let size = usize::try_from(size).unwrap_or(48);
            for transport in Transport::STREAMS {
                bar.set_message(format!("throughput, {}, {size} bytes", transport.name()));
                results.throughputs.push(Throughput::new(
                    transport.name(),
                    size,
                    near.stream(transport, size)?,
                ));
                bar.inc(1);
            }
            bar.set_message("throughput, two bare copies");
            results.throughputs.push(Throughput::new(limit::COPY, size, limit::copy(near, size)?));
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(results)
    }

    fn write_files(&self, results: &Results) -> Outcome {
        let failed = |path: &std::path::Path, error| {
            Failure::new(SYSTEM, format!("{}: {error}", path.display()))
        };
        if let Some(path) = &self.report {
            fs::write(path, report::page(results)).map_err(|error| failed(path, error))?;
        }
        if let Some(prefix) = &self.hgrm {
            for latency in &results.latencies {
                let path = PathBuf::from(format!(
                    "{}-{}.hgrm",
                    prefix.display(),
                    latency.transport.replace(' ', "-")
                ));
                fs::write(&path, percentiles::hgrm(&latency.histogram))
                    .map_err(|error| failed(&path, error))?;
            }
        }
        Ok(())
    }
}

/// Steps done, on stderr if that is a terminal.
fn progress(steps: usize) -> ProgressBar {
    let target = if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let look = ProgressStyle::with_template("[{bar:24}] {pos}/{len}  {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(steps as u64), target)
        .with_style(look.progress_chars("=> "));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
