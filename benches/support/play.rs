//! The loops under the clock. The near side pings and sends, the far side echoes and receives.
//!
//! A round trip begins before the message is made and ends when the reply is checked; it includes
//! one reading of the clock, in the limits too. A stream is timed by its receiver.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::limits::{Copies, Futexes, Line, Textbook};
use super::link::{BATCH, Bus, Link, ring_bytes, until};
use super::message::{Book, END, Message, START, fill, is};
use super::system::{clock_step_ns, now_ns, wait_until};
use super::{Facts, Meeting, Order, Result, Why};

/// How long a paced sender rests between two messages.
pub const PERIOD: Duration = Duration::from_millis(2);

/// Messages that a writer sends at one go when only its cost is of interest.
pub const BURST: u64 = 256;

/// Messages of a batch that goes there and back.
pub fn batch_len(bytes: usize) -> usize {
    (ring_bytes(bytes) / 4 / bytes).clamp(1, 16)
}

/// The life of a side whose order names a link, a size and a measure.
pub fn side(order: &Order, meeting: &mut Meeting) -> Result<Facts> {
    // Nothing of these depends on the size.
    match order.text("link") {
        "line" => return end::<1, Line>(order, meeting),
        "futexes" => return end::<1, Futexes>(order, meeting),
        _ => {}
    }
    match order.number("bytes")? {
        8 => sized::<1>(order, meeting),
        48 => sized::<6>(order, meeting),
        256 => sized::<32>(order, meeting),
        1024 => sized::<128>(order, meeting),
        4096 => sized::<512>(order, meeting),
        65536 => sized::<8192>(order, meeting),
        other => Err(format!("the loops are not compiled for {other} bytes")),
    }
}

fn sized<const W: usize>(order: &Order, meeting: &mut Meeting) -> Result<Facts> {
    match (order.text("link"), order.text("wait")) {
        ("textbook", _) => end::<W, Textbook<W>>(order, meeting),
        ("copies", _) => end::<W, Copies<W>>(order, meeting),
        (_, "poll") => end::<W, Bus<W, true>>(order, meeting),
        _ => end::<W, Bus<W, false>>(order, meeting),
    }
}

/// How long a piece takes.
#[derive(Clone, Copy)]
pub struct Length {
    /// Before anything counts.
    pub warm_ns: u64,
    pub counted_ns: u64,
}

impl Length {
    /// As the order says.
    pub fn of(order: &Order) -> Result<Length> {
        let counted_ns = order.number("millis")? * 1_000_000;
        Ok(Length { warm_ns: counted_ns / 4, counted_ns })
    }
}

fn end<const W: usize, L: Link<W>>(order: &Order, meeting: &mut Meeting) -> Result<Facts> {
    let length = Length::of(order)?;
    let mut link = L::open(order, meeting)?;
    meeting.meet()?;
    let facts = match (order.text("measure"), order.is_near(), order.text("mode")) {
        ("trip", true, "batches") => ping_many(&mut link, length)?,
        ("trip", true, "in place") => ping(&mut link, length, ping_in_place)?,
        ("trip", true, _) => {
            let mut page = Message([0; W]);
            ping(&mut link, length, |link: &mut L, number| ping_copy(link, &mut page, number))?
        }
        ("trip", false, "batches") => echo_many(&mut link),
        ("trip", false, "in place") => echo_in_place(&mut link),
        ("trip", false, _) => echo(&mut link),
        ("stream", true, mode) => stream(&mut link, length, mode),
        ("stream", false, mode) => take_stream(&mut link, mode)?,
        ("paced", true, _) => send_paced(&mut link, length),
        ("paced", false, _) => take_paced(&mut link)?,
        ("bursts", true, _) => send_bursts(&mut link, length)?,
        ("bursts", false, _) => take_stream(&mut link, "single").map(|_| Facts::new())?,
        (other, ..) => return Err(format!("nothing is called {other}")),
    };
    // Nobody takes down its end while the other one uses it.
    meeting.meet()?;
    Ok(facts)
}

// --- times --------------------------------------------------------------------------------------

/// Times in nanoseconds.
pub struct Times(Histogram<u64>);

impl Times {
    /// None yet.
    pub fn new() -> Result<Times> {
        let bounds = Histogram::new_with_bounds(1, 600_000_000_000, 3);
        bounds.map(Times).why("make a histogram")
    }

    /// Takes in one more.
    #[inline(always)]
    pub fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos.max(1));
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// The percentiles, in nanoseconds.
    pub fn facts(&self) -> Facts {
        let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
        let mut facts: Facts =
            quantiles.into_iter().map(|(name, at)| (name.to_string(), self.at(at))).collect();
        facts.insert("max".into(), self.0.max() as f64);
        facts.insert("count".into(), self.0.len() as f64);
        facts
    }

    /// The value at a quantile. A clock that goes in steps says one value for all times within a
    /// step; they are taken to be spread over it, so that the answer is finer than the clock.
    pub fn at(&self, quantile: f64) -> f64 {
        let step = clock_step_ns();
        let rank = quantile * self.0.len() as f64;
        let mut before = 0.0;
        let mut all = self.0.iter_recorded().peekable();
        while let Some(first) = all.next() {
            let value = first.value_iterated_to();
            let width = step.max(self.0.equivalent_range(value));
            let bin = (value + width / 2) / width;
            let mut count = first.count_since_last_iteration();
            while let Some(more) =
                all.next_if(|next| (next.value_iterated_to() + width / 2) / width == bin)
            {
                count += more.count_since_last_iteration();
            }
            let within = (rank - before) / count as f64;
            if within <= 1.0 {
                let value = (bin as f64 - 0.5 + within) * width as f64;
                return value.clamp(0.0, self.0.max() as f64);
            }
            before += count as f64;
        }
        self.0.max() as f64
    }
}

// --- round trips --------------------------------------------------------------------------------

fn ping<const W: usize, L: Link<W>>(
    link: &mut L,
    length: Length,
    mut trip: impl FnMut(&mut L, u64) -> u64,
) -> Result<Facts> {
    let mut times = Times::new()?;
    let mut number = 0;
    let mut start = now_ns();
    for (nanos, counts) in [(length.warm_ns, false), (length.counted_ns, true)] {
        let end = start + nanos;
        while start < end {
            let nanos = trip(link, number);
            number += 1;
            if counts {
                times.record(nanos);
            }
            start = now_ns();
        }
    }
    link.send(&Message::new(END));
    Ok(times.facts())
}

#[inline(always)]
fn ping_copy<const W: usize, L: Link<W>>(link: &mut L, page: &mut Message<W>, number: u64) -> u64 {
    let start = now_ns();
    fill(&mut page.0, number);
    link.send(page);
    link.receive(page);
    let right = is(&page.0, number);
    let nanos = now_ns() - start;
    assert!(right, "the reply to message {number} is not the message");
    nanos
}

#[inline(always)]
fn ping_in_place<const W: usize, L: Link<W>>(link: &mut L, number: u64) -> u64 {
    let start = now_ns();
    link.send_in_place(number);
    let right = link.receive_in_place(|reply| is(reply, number));
    let nanos = now_ns() - start;
    assert!(right, "the reply to message {number} is not the message");
    nanos
}

fn ping_many<const W: usize, L: Link<W>>(link: &mut L, length: Length) -> Result<Facts> {
    let count = batch_len(8 * W) as u64;
    let mut page = vec![Message([0; W]); count as usize];
    ping(link, length, |link: &mut L, trip| {
        let first = trip * count;
        let start = now_ns();
        for (message, number) in page.iter_mut().zip(first..) {
            fill(&mut message.0, number);
        }
        link.send_many(&page);
        let (mut next, mut right) = (first, true);
        while next < first + count {
            link.receive_many(|reply| {
                right &= is(reply, next);
                next += 1;
            });
        }
        let nanos = now_ns() - start;
        assert!(right, "the replies to batch {trip} are not the batch");
        nanos
    })
}

fn echo<const W: usize, L: Link<W>>(link: &mut L) -> Facts {
    let mut page = Message([0; W]);
    loop {
        link.receive(&mut page);
        if page.0[0] == END {
            return Facts::new();
        }
        link.send(&page);
    }
}

fn echo_many<const W: usize, L: Link<W>>(link: &mut L) -> Facts {
    // Too much for a stack.
    let mut page: Vec<Message<W>> = std::iter::repeat_n(Message([0; W]), BATCH).collect();
    loop {
        let mut count = 0;
        link.receive_many(|message| {
            page[count].0.copy_from_slice(message);
            count += 1;
        });
        if page[count - 1].0[0] == END {
            return Facts::new();
        }
        link.send_many(&page[..count]);
    }
}

fn echo_in_place<const W: usize, L: Link<W>>(link: &mut L) -> Facts {
    loop {
        let number = link.receive_in_place(|message| {
            assert!(is(message, message[0]), "message {} came damaged", message[0]);
            message[0]
        });
        if number == END {
            return Facts::new();
        }
        link.send_in_place(number);
    }
}

// --- streams ------------------------------------------------------------------------------------

/// Bytes between two looks at the clock.
const STRIDE_BYTES: u64 = 256 << 10;
/// Messages between two looks at the clock, at most.
const STRIDE: u64 = 256;

/// Calls `send` with one number after the other, `step` apart, between the marks of a stream.
pub fn between_marks<T>(
    length: Length,
    bytes: u64,
    step: u64,
    to: &mut T,
    mut send: impl FnMut(&mut T, u64),
    mut mark: impl FnMut(&mut T, u64),
) -> Facts {
    let stride = (STRIDE / step).min(STRIDE_BYTES / (bytes * step)).max(1);
    let mut number = 0;
    for (nanos, last) in [(length.warm_ns, START), (length.counted_ns, END)] {
        let end = now_ns() + nanos;
        while now_ns() < end {
            for _ in 0..stride {
                send(to, number);
                number += step;
            }
        }
        mark(to, last);
    }
    Facts::from([("sent".into(), number as f64)])
}

fn stream<const W: usize, L: Link<W>>(link: &mut L, length: Length, mode: &str) -> Facts {
    let mark = |link: &mut L, number| link.send(&Message::new(number));
    let bytes = 8 * W as u64;
    match mode {
        "batches" => {
            let mut page = vec![Message([0; W]); BATCH];
            let send = |link: &mut L, first| {
                for (message, number) in page.iter_mut().zip(first..) {
                    fill(&mut message.0, number);
                }
                link.send_many(&page);
            };
            between_marks(length, bytes, BATCH as u64, link, send, mark)
        }
        "in place" => between_marks(length, bytes, 1, link, L::send_in_place, mark),
        _ => {
            let mut page = Message([0; W]);
            let send = |link: &mut L, number| {
                fill(&mut page.0, number);
                link.send(&page);
            };
            between_marks(length, bytes, 1, link, send, mark)
        }
    }
}

fn take_stream<const W: usize, L: Link<W>>(link: &mut L, mode: &str) -> Result<Facts> {
    let mut book = Book::default();
    match mode {
        "batches" => {
            let mut goes_on = true;
            while goes_on {
                link.receive_many(|message| goes_on = book.enter(message));
            }
        }
        "in place" => while link.receive_in_place(|message| book.enter(message)) {},
        _ => {
            let mut page = Message([0; W]);
            loop {
                link.receive(&mut page);
                if !book.enter(&page.0) {
                    break;
                }
            }
        }
    }
    pace(&book)
}

/// What the receiver of a stream says of it.
pub fn pace(book: &Book) -> Result<Facts> {
    let (messages, nanos) = book.pace()?;
    let rate = messages as f64 * 1e9 / nanos as f64;
    Ok(Facts::from([
        ("messages".into(), messages as f64),
        ("nanos".into(), nanos as f64),
        ("rate".into(), rate),
    ]))
}

/// The cost of a write alone: bursts that fit into the ring, each begun when the reader has taken
/// all of the last one.
fn send_bursts<const W: usize, L: Link<W>>(link: &mut L, length: Length) -> Result<Facts> {
    let mut times = Times::new()?;
    let mut page = Message([0; W]);
    let mut next = 0;
    let mut start = now_ns();
    for (nanos, last) in [(length.warm_ns, START), (length.counted_ns, END)] {
        let end = start + nanos;
        while start < end {
            until(|| (link.backlog() == 0).then_some(()));
            let begun = now_ns();
            for number in next..next + BURST {
                fill(&mut page.0, number);
                link.send(&page);
            }
            start = now_ns();
            next += BURST;
            if last == END {
                times.record(start - begun);
            }
        }
        link.send(&Message::new(last));
    }
    let mut facts = times.facts();
    for name in ["p50", "p90", "p99", "p99.9", "max"] {
        facts.entry(name.into()).and_modify(|nanos| *nanos /= BURST as f64);
    }
    Ok(facts)
}

// --- paced --------------------------------------------------------------------------------------

/// Paced messages before anything counts.
const PACED_WARM: u64 = 20;

/// One message at each tick of a fixed schedule. Each carries the time at which it was to be sent,
/// so that a sender that is held up cannot hide what its messages would have had to wait.
fn send_paced<const W: usize, L: Link<W>>(link: &mut L, length: Length) -> Facts {
    let period = PERIOD.as_nanos() as u64;
    let start = now_ns() + 10_000_000;
    let count = PACED_WARM + length.counted_ns / period;
    let mut late = 0;
    for tick in 0..count {
        let due = start + tick * period;
        wait_until(due);
        late += u64::from(now_ns() - due > 20_000);
        link.send(&Message::new(due));
    }
    wait_until(now_ns() + 10 * period);
    link.send(&Message::new(END));
    Facts::from([("sent_late".into(), late as f64)])
}

fn take_paced<const W: usize, L: Link<W>>(link: &mut L) -> Result<Facts> {
    let period = PERIOD.as_nanos() as u64;
    let mut times = Times::new()?;
    let mut page = Message([0; W]);
    let (mut tick, mut due) = (0, 0);
    loop {
        link.receive(&mut page);
        let now = now_ns();
        let number = page.0[0];
        assert!(is(&page.0, number), "a message came damaged");
        if number == END {
            return Ok(times.facts());
        }
        // A bare futex keeps only the last of the messages that came while its side slept; each of
        // those before has waited all the longer.
        due = if due == 0 { number } else { due + period };
        while due <= number {
            if tick >= PACED_WARM {
                times.record(now.saturating_sub(due));
            }
            tick += 1;
            due += period;
        }
        due = number;
    }
}
