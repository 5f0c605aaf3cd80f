//! Who takes part, in the order of the table. One file each; a new peer is a file and a line here.

mod bytes;
mod copies;
mod crossbeam;
mod eshm;
mod exchange;
mod futex;
mod iceoryx;
mod ipc_ring;
mod line;
mod pipe;
mod ringfire;
mod rtrb;
mod shaq;
mod textbook;
mod unix;

use crate::contender::{Contender, Kind, Measure, Mode};
use crate::play::Facts;
use crate::side::{self, Order};

/// A contender, as far as it can be known without its types.
pub struct Entry {
    /// Its name in the table.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Version and settings.
    pub settings: &'static str,
    /// What it can do.
    pub can: &'static [(Measure, Mode)],
    /// Whether the size of the message does not matter.
    pub sizeless: bool,
    /// Why it cannot do a size, if it cannot.
    pub refuses: fn(usize) -> Option<&'static str>,
    /// Plays one side.
    pub play: fn(&Order) -> Result<Facts, String>,
}

/// All of them.
pub static ALL: &[Entry] = &[
    entry::<line::Line>(),
    entry::<futex::Futex>(),
    entry::<copies::Copies>(),
    entry::<textbook::Textbook>(),
    entry::<eshm::Eshm>(),
    entry::<ringfire::Ringfire>(),
    entry::<shaq::Shaq>(),
    entry::<iceoryx::Iceoryx>(),
    entry::<ipc_ring::IpcRing>(),
    entry::<unix::Unix>(),
    entry::<pipe::Pipe>(),
    entry::<rtrb::Rtrb>(),
    entry::<crossbeam::Crossbeam>(),
];

const fn entry<C: Contender>() -> Entry {
    Entry {
        name: C::NAME,
        kind: C::KIND,
        settings: C::SETTINGS,
        can: C::CAN,
        sizeless: C::SIZELESS,
        refuses: C::refuses,
        play: side::play::<C>,
    }
}

/// The contender with this name.
pub fn named(name: &str) -> Result<&'static Entry, String> {
    let names = || ALL.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", ");
    let found = ALL.iter().find(|entry| entry.name == name);
    found.ok_or_else(|| format!("{name}: no such contender; there are {}", names()))
}

impl Entry {
    /// Whether the others are divided by it; then it is always measured.
    pub fn is_yardstick(&self) -> bool {
        self.kind == Kind::Yardstick
    }

    /// Why a figure is not there, if it cannot be; otherwise it is measured.
    pub fn refusal(&self, mode: Mode, bytes: usize) -> Option<&'static str> {
        if mode == Mode::Batch && bytes > LARGEST_IN_BATCH {
            return Some("one message is as much as a batch of small ones");
        }
        (self.refuses)(bytes)
    }
}

/// Above this the cost of a call no longer matters.
const LARGEST_IN_BATCH: usize = 4096;

/// One call per message, both ways.
const SINGLE: &[(Measure, Mode)] =
    &[(Measure::RoundTrip, Mode::Single), (Measure::Stream, Mode::Single)];
/// The same, and streams in batches.
const SINGLE_AND_BATCH: &[(Measure, Mode)] = &[
    (Measure::RoundTrip, Mode::Single),
    (Measure::Stream, Mode::Single),
    (Measure::Stream, Mode::Batch),
];
/// The same, and without copies.
const EVERYTHING: &[(Measure, Mode)] = &[
    (Measure::RoundTrip, Mode::Single),
    (Measure::RoundTrip, Mode::InPlace),
    (Measure::Stream, Mode::Single),
    (Measure::Stream, Mode::Batch),
    (Measure::Stream, Mode::InPlace),
];
