//! What the machine itself allows: a cache line bounced between two cores, which no round trip can
//! beat; and, to compare throughput with, blocks copied in and out with a handover that costs next to
//! nothing.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Instant;

use hdrhistogram::Histogram;

use crate::clock;
use crate::exit::Outcome;
use crate::machine;
use crate::output::percentiles;

use super::near::{Near, Streamed};

/// The name of the limit of round trips.
pub const BOUNCE: &str = "bare cache line";
/// The name of what throughput is compared with.
pub const COPY: &str = "two bare copies";

/// A word on a cache line of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// Times a word's way to the other core and back.
pub fn bounce(near: &Near<'_>) -> Outcome<Histogram<u64>> {
    let (there, back, ended) =
        (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)), AtomicBool::new(false));
    let mut histogram = percentiles::histogram();
    let outcome = thread::scope(|scope| {
        scope.spawn(|| {
            pin_far(near);
            let mut last = 0;
            while !ended.load(Ordering::Relaxed) {
                let seen = there.0.load(Ordering::Acquire);
                if seen != last {
                    last = seen;
                    back.0.store(seen, Ordering::Release);
                }
            }
        });
        near.pin();
        let outcome = bounce_here(near, &there, &back, &mut histogram);
        ended.store(true, Ordering::Relaxed);
        outcome
    });
    outcome.map(|()| histogram)
}

fn bounce_here(
    near: &Near<'_>,
    there: &Line,
    back: &Line,
    histogram: &mut Histogram<u64>,
) -> Outcome {
    let started = Instant::now();
    let mut next = 1u64;
    while started.elapsed() < near.time {
        for _ in 0..64 {
            let before = clock::now_ns();
            there.0.store(next, Ordering::Release);
            while back.0.load(Ordering::Acquire) != next {
                std::hint::spin_loop();
            }
            histogram.saturating_record((clock::now_ns() - before).max(1));
            next += 1;
        }
        near.stop.check()?;
    }
    Ok(())
}

/// Times blocks that one thread copies in and another one copies out, several messages to a block
/// so that handing over costs next to nothing.
pub fn copy(near: &Near<'_>, size: usize) -> Outcome<Streamed> {
    let per_block = ((64 << 10) / size).max(1);
    let (give, take) = mpsc::channel::<Vec<u8>>();
    let (give_back, empties) = mpsc::channel::<Vec<u8>>();
    for _ in 0..8 {
        let _ = give_back.send(vec![0u8; size * per_block]);
    }
    thread::scope(|scope| {
        scope.spawn(move || {
            pin_far(near);
            let mut out = vec![0u8; size];
            while let Some(block) = spin(&take) {
                for message in block.chunks_exact(size) {
                    out.copy_from_slice(message);
                    std::hint::black_box(&mut out);
                }
                let _ = give_back.send(block);
            }
        });
        near.pin();
        let source = vec![0x5au8; size];
        let started = Instant::now();
        let mut messages = 0;
        while started.elapsed() < near.time {
            let Some(mut block) = spin(&empties) else { break };
            for message in block.chunks_exact_mut(size) {
                message.copy_from_slice(std::hint::black_box(&source));
            }
            let _ = give.send(block);
            messages += per_block as u64;
            near.stop.check()?;
        }
        drop(give);
        Ok(Streamed { messages, seconds: started.elapsed().as_secs_f64() })
    })
}

/// Waits without sleeping; `None` when nothing more will come.
fn spin<T>(from: &mpsc::Receiver<T>) -> Option<T> {
    loop {
        match from.try_recv() {
            Ok(thing) => return Some(thing),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => std::hint::spin_loop(),
        }
    }
}

fn pin_far(near: &Near<'_>) {
    if let Some((_, far)) = near.cpus {
        let _ = machine::pin(far);
    }
}
