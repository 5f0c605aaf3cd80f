//! One side of a measurement: the process that the conductor starts twice.
//!
//! It speaks with the conductor in lines over its standard input and output: it says `created`, is
//! told to go on, says `ready`, is told to go on, plays, and says `result name=value …`.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::Barrier;
use std::time::Duration;

use crate::contender::{Contender, Kind, Link, Measure, Mode, Place, Result, Why};
use crate::contenders;
use crate::play::{self, Facts, Piece};
use crate::system;

/// The first argument of a side.
pub const FLAG: &str = "--side";
/// The words before the facts at the end.
pub const RESULT: &str = "result";

/// No measurement takes longer than its own length and this.
const GRACE: Duration = Duration::from_secs(15);

/// What a side is told on its command line.
#[derive(Clone)]
pub struct Order {
    /// The contender's name.
    pub contender: &'static str,
    /// Message size in bytes.
    pub bytes: usize,
    /// What is played.
    pub piece: Piece,
    /// Where.
    pub place: Place,
    /// The cores of the two sides.
    pub cores: Option<(usize, usize)>,
}

impl Order {
    /// The command line; read back by [`Order::parse`].
    pub fn args(&self) -> Vec<String> {
        let (near, far) = self.cores.map_or((-1, -1), |(near, far)| (near as i64, far as i64));
        vec![
            FLAG.to_string(),
            self.contender.to_string(),
            self.bytes.to_string(),
            (self.piece.measure as u8).to_string(),
            (self.piece.mode as u8).to_string(),
            self.piece.length.as_millis().to_string(),
            self.place.directory.display().to_string(),
            u8::from(self.place.near).to_string(),
            self.place.slots.to_string(),
            self.place.ring_bytes.to_string(),
            near.to_string(),
            far.to_string(),
        ]
    }

    fn parse(args: &[String]) -> Result<Order> {
        let [contender, bytes, measure, mode, millis, directory, near, slots, ring, a, b] = args
        else {
            return Err(format!("{FLAG} is for the program's own use"));
        };
        let number = |text: &String| text.parse::<i64>().why(text);
        let (a, b) = (number(a)?, number(b)?);
        Ok(Order {
            contender: contenders::named(contender)?.name,
            bytes: number(bytes)? as usize,
            piece: Piece {
                measure: if number(measure)? == 0 { Measure::RoundTrip } else { Measure::Stream },
                mode: [Mode::Single, Mode::Batch, Mode::InPlace][number(mode)? as usize],
                length: Duration::from_millis(number(millis)? as u64),
            },
            place: Place {
                directory: PathBuf::from(directory),
                near: number(near)? == 1,
                slots: number(slots)? as usize,
                ring_bytes: number(ring)? as usize,
            },
            cores: (a >= 0).then_some((a as usize, b as usize)),
        })
    }

    fn pin(&self, near: bool) -> Result<()> {
        match self.cores {
            Some((core, _)) if near => system::pin(core),
            Some((_, core)) => system::pin(core),
            None => Ok(()),
        }
    }
}

/// The whole life of a side.
pub fn run(args: &[String]) -> Result<()> {
    let order = Order::parse(args)?;
    // For the foot of the table: what happened, without the way there.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{}", panic.payload_as_str().unwrap_or("panicked"));
    }));
    let limit = order.piece.length * 5 / 4 + GRACE;
    system::live_no_longer_than(limit.as_secs() as u32 + 1);
    let facts = (contenders::named(order.contender)?.play)(&order)?;
    let facts: Vec<String> = facts.iter().map(|(name, value)| format!("{name}={value}")).collect();
    say(&format!("{RESULT} {}", facts.join(" ")))
}

/// Plays a contender at the size that the order names.
pub fn play<C: Contender>(order: &Order) -> Result<Facts> {
    match order.bytes {
        8 => play_sized::<C, 1>(order),
        48 => play_sized::<C, 6>(order),
        256 => play_sized::<C, 32>(order),
        1024 => play_sized::<C, 128>(order),
        4096 => play_sized::<C, 512>(order),
        65536 => play_sized::<C, 8192>(order),
        other => Err(format!("the loops are not compiled for {other} bytes")),
    }
}

fn play_sized<C: Contender, const W: usize>(order: &Order) -> Result<Facts> {
    match C::KIND {
        Kind::Yardstick | Kind::Processes => as_process::<W, C::Link<W>>(order),
        Kind::Threads => as_threads::<W, C::Link<W>>(order),
    }
}

fn as_process<const W: usize, L: Link<W>>(order: &Order) -> Result<Facts> {
    order.pin(order.place.near)?;
    let half = L::create(&order.place)?;
    meet("created")?;
    let mut link = L::join(half, &order.place)?;
    meet("ready")?;
    let facts = match order.place.near {
        true => play::near(&mut link, order.piece)?,
        false => play::far(&mut link, order.piece)?,
    };
    // Neither side takes its end down while the other still uses it.
    meet("done")?;
    Ok(facts)
}

/// Both sides as threads of this process.
fn as_threads<const W: usize, L: Link<W>>(order: &Order) -> Result<Facts> {
    let meeting = Barrier::new(2);
    let half = L::create(&order.place)?;
    std::thread::scope(|scope| {
        let far = scope.spawn(|| {
            order.pin(false)?;
            let place = Place { near: false, ..order.place.clone() };
            let link = L::create(&place).and_then(|half| L::join(half, &place));
            meeting.wait();
            play::far(&mut link?, order.piece)
        });
        order.pin(true)?;
        let link = L::join(half, &order.place);
        meeting.wait();
        let mut facts = play::near(&mut link?, order.piece)?;
        let far = far.join().map_err(|_| "the far thread panicked".to_string())?;
        facts.extend(far?);
        Ok(facts)
    })
}

/// Says where this side has got to, and waits until it is told to go on.
fn meet(word: &str) -> Result<()> {
    say(word)?;
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line).why("listen to the conductor")? {
        0 => Err("the conductor is gone".to_string()),
        _ => Ok(()),
    }
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).why("speak to the conductor")
}
