//! The loops under the clock, compiled once for each contender and message size.
//!
//! The near side pings and sends; the far side echoes and receives. Making and checking a message is
//! the same work for all, and lies under the clock: a round trip begins with an empty page and ends
//! when the last word of the reply has been checked.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::contender::{BATCH, Link, Measure, Mode, Result, Why};
use crate::message::{Book, END, FIRST, Message, START, fill, fill_new, is};
use crate::system::{clock_step_ns, now_ns};

/// What a side has to say at the end, by name.
pub type Facts = Vec<(&'static str, u64)>;

/// What is to be played.
#[derive(Clone, Copy)]
pub struct Piece {
    /// Round trip or stream.
    pub measure: Measure,
    /// How messages are handed over.
    pub mode: Mode,
    /// How long, after a quarter of this for warming up.
    pub length: Duration,
}

impl Piece {
    fn warm_ns(&self) -> u64 {
        self.length.as_nanos() as u64 / 4
    }

    fn length_ns(&self) -> u64 {
        self.length.as_nanos() as u64
    }
}

/// The side that pings, or sends the stream.
pub fn near<const W: usize, L: Link<W>>(link: &mut L, piece: Piece) -> Result<Facts> {
    match (piece.measure, piece.mode) {
        (Measure::RoundTrip, Mode::InPlace) => ping(link, piece, ping_in_place),
        (Measure::RoundTrip, _) => {
            let mut message = [0; W];
            ping(link, piece, |link: &mut L, number| ping_copying(link, &mut message, number))
        }
        (Measure::Stream, Mode::Single) => {
            let mut message = [0; W];
            send(link, piece, 1, move |link: &mut L, number| {
                fill(&mut message, number);
                link.send(&message);
            })
        }
        (Measure::Stream, Mode::InPlace) => send(link, piece, 1, send_in_place),
        (Measure::Stream, Mode::Batch) => {
            let mut batch = vec![[0; W]; BATCH];
            send(link, piece, BATCH as u64, move |link: &mut L, first| {
                for (message, number) in batch.iter_mut().zip(first..) {
                    fill(message, number);
                }
                link.send_batch(&batch);
            })
        }
    }
}

/// The side that echoes, or receives the stream.
pub fn far<const W: usize, L: Link<W>>(link: &mut L, piece: Piece) -> Result<Facts> {
    match (piece.measure, piece.mode) {
        (Measure::RoundTrip, Mode::InPlace) => echo_in_place(link),
        (Measure::RoundTrip, _) => echo(link),
        (Measure::Stream, mode) => receive(link, mode),
    }
}

/// One round trip: the time it took, and whether the reply was right.
type Trip = (u64, bool);

fn ping<const W: usize, L: Link<W>>(
    link: &mut L,
    piece: Piece,
    mut trip: impl FnMut(&mut L, u64) -> Trip,
) -> Result<Facts> {
    let mut times = Times::new()?;
    let mut number = FIRST;
    let mut wrong = 0;
    let warm_until = now_ns() + piece.warm_ns();
    while now_ns() < warm_until {
        wrong += u64::from(!trip(link, number).1);
        number += 1;
    }
    let end = now_ns() + piece.length_ns();
    while now_ns() < end {
        let (time, right) = trip(link, number);
        wrong += u64::from(!right);
        number += 1;
        times.record(time);
    }
    let mut last = [0; W];
    fill(&mut last, END);
    link.send(&last);
    let mut facts = times.facts();
    facts.push(("corrupt", wrong));
    Ok(facts)
}

/// The times of round trips, in tenths of nanoseconds.
struct Times {
    tenths: Histogram<u64>,
    step: u64,
    phase: u64,
}

impl Times {
    fn new() -> Result<Times> {
        let tenths = Histogram::new_with_bounds(1, 600_000_000_000, 3).why("make a histogram")?;
        Ok(Times { tenths, step: 10 * clock_step_ns(), phase: 0 })
    }

    /// Records a time. A clock that goes in steps says the same for all times within a step, or the
    /// next; spread over the step, the quantiles are again finer than it.
    #[inline(always)]
    fn record(&mut self, nanos: u64) {
        self.phase += 1;
        let within = (self.phase * self.step / 32) % self.step.max(1);
        self.tenths.saturating_record((10 * nanos + within).saturating_sub(self.step / 2));
    }

    fn facts(&self) -> Facts {
        let at = |quantile| self.tenths.value_at_quantile(quantile);
        vec![
            ("p50", at(0.5)),
            ("p90", at(0.9)),
            ("p99", at(0.99)),
            ("p999", at(0.999)),
            ("max", self.tenths.max()),
            ("trips", self.tenths.len()),
        ]
    }
}

#[inline(always)]
fn ping_copying<const W: usize, L: Link<W>>(
    link: &mut L,
    message: &mut Message<W>,
    number: u64,
) -> Trip {
    let start = now_ns();
    fill(message, number);
    link.send(message);
    link.receive(message);
    let right = is(message, number);
    (now_ns() - start, right)
}

#[inline(always)]
fn ping_in_place<const W: usize, L: Link<W>>(link: &mut L, number: u64) -> Trip {
    let start = now_ns();
    send_in_place(link, number);
    let right = link.receive_in_place(|reply| is(reply, number));
    (now_ns() - start, right)
}

fn echo<const W: usize, L: Link<W>>(link: &mut L) -> Result<Facts> {
    let mut message = [0; W];
    loop {
        link.receive(&mut message);
        if message[0] == END {
            return Ok(vec![]);
        }
        link.send(&message);
    }
}

fn echo_in_place<const W: usize, L: Link<W>>(link: &mut L) -> Result<Facts> {
    let mut wrong = 0;
    loop {
        let (number, right) =
            link.receive_in_place(|message| (message[0], is(message, message[0])));
        if number == END {
            return Ok(vec![("corrupt_there", wrong)]);
        }
        wrong += u64::from(!right);
        send_in_place(link, number);
    }
}

#[inline(always)]
fn send_in_place<const W: usize, L: Link<W>>(link: &mut L, number: u64) {
    link.send_in_place(|place| fill_new(place, number));
}

/// How many messages go between two looks at the clock.
const STRIDE: u64 = 256;

fn send<const W: usize, L: Link<W>>(
    link: &mut L,
    piece: Piece,
    step: u64,
    mut step_from: impl FnMut(&mut L, u64),
) -> Result<Facts> {
    let mut number = FIRST;
    // A stride of large messages would overrun a short measurement by far.
    let stride = (STRIDE / step).min((1 << 18) / (8 * W as u64 * step)).max(1);
    for (nanos, mark) in [(piece.warm_ns(), START), (piece.length_ns(), END)] {
        let end = now_ns() + nanos;
        while now_ns() < end {
            for _ in 0..stride {
                step_from(link, number);
                number += step;
            }
        }
        let mut message = [0; W];
        fill(&mut message, mark);
        link.send(&message);
    }
    Ok(vec![("sent", number - FIRST)])
}

fn receive<const W: usize, L: Link<W>>(link: &mut L, mode: Mode) -> Result<Facts> {
    let mut book = Book::new();
    match mode {
        Mode::Single => {
            let mut message = [0; W];
            loop {
                link.receive(&mut message);
                if !book.enter(&message) {
                    break;
                }
            }
        }
        Mode::InPlace => while link.receive_in_place(|message| book.enter(message)) {},
        Mode::Batch => {
            let mut more = true;
            while more {
                link.receive_batch(|message| more &= book.enter(message));
            }
        }
    }
    let (messages, nanos) = book.pace()?;
    Ok(vec![
        ("messages", messages),
        ("nanos", nanos),
        ("received", book.good()),
        ("lost", book.lost),
        ("corrupt", book.corrupt),
        ("disordered", book.disordered),
    ])
}
