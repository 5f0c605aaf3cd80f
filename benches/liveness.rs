//! How soon a death and a hang are noticed, and how soon a successor's first message is there.
//!
//! Real deaths (SIGKILL) and real hangs (SIGSTOP) of real processes. The master lives in the process
//! that a person starts; its slaves come and go. Nothing here asserts a time: the targets stand
//! beside the figures.

mod support;

use std::process::ExitCode;
use std::time::Duration;

use eshm::{Disconnect, Endpoint, Error, Options, PeerState, Role, Wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use support::figure::{Run, Sample, Target, cell, progress, row};
use support::stage::{Folder, Side};
use support::system::{interrupted, now_ns};
use support::{Bench, Facts, Flags, Meeting, Order, Result, Why};

const HELP: &str = "\
liveness: how soon a death and a hang are noticed

  --quick          few of everything; under 15 s
  --deaths N       deaths of each kind (default 1000)
  --hangs N        hangs (default 50)
  --minutes M      how long to wait for false alarms, beside four busy loops (default 0.25)
";

const BENCH: Bench = Bench {
    name: "liveness",
    help: HELP,
    values: &["deaths", "hangs", "minutes"],
    switches: &["quick"],
    side,
    conduct,
};

/// The library's defaults, spelled out as the figures hang on them.
const BEAT: Duration = Duration::from_millis(1);
const STALE: Duration = Duration::from_millis(100);
/// Busy loops beside which nobody may be taken for hung.
const BUSY: usize = 4;
/// Whoever has not come, or was not noticed, after this long never will.
const PATIENCE_NS: u64 = 10_000_000_000;
/// Between two looks at the peer's state.
const LOOKS_APART: Duration = Duration::from_micros(20);

fn main() -> ExitCode {
    BENCH.main()
}

fn conduct(flags: &Flags) -> Result<()> {
    let deaths: usize = flags.number("deaths", 40, 1000)?;
    let hangs: usize = flags.number("hangs", 3, 50)?;
    let minutes: f64 = flags.number("minutes", 0.03, 0.25)?;
    // Looks are no further apart than asked for.
    nix::sys::prctl::set_timerslack(1).why("ask for exact sleeps")?;
    let folder = Folder::new()?;
    let mut watcher = Watcher::open(&folder)?;
    let calm = watcher.deaths("deaths", deaths)?;
    let successions = watcher.successions(deaths)?;
    let hung = watcher.hangs(hangs)?;
    let busy = busy_loops(60)?;
    let crowded = watcher.deaths("deaths beside busy loops", deaths.div_ceil(10))?;
    drop(busy);
    let alarms = watcher.false_alarms(minutes)?;
    progress("");

    let method = format!(
        "beats of {BEAT:?}, stale after {STALE:?}; states looked at every {LOOKS_APART:?} and later"
    );
    let mut run = Run::without_rounds("liveness", flags, &method);
    times(&mut run, &calm, &crowded, &successions, &hung);
    alarm_table(&mut run, &alarms);
    targets(&mut run, &calm, &successions, &hung, &alarms);
    run.finish()
}

// --- the slaves ---------------------------------------------------------------------------------

fn side(order: &Order, meeting: &mut Meeting) -> Result<Facts> {
    if order.text("life") == "busy" {
        meeting.meet()?;
        loop {
            std::hint::black_box(now_ns());
        }
    }
    let mut options = options(order.text("folder"));
    options.role(Role::Slave);
    meeting.meet()?;
    let (mut bus, tries) = take_the_role(&options)?;
    // When the role was taken, and how often it was tried.
    let first: [u64; 2] = [now_ns(), tries];
    bus.write(bytemuck::cast_slice(&first)).why("write")?;
    match order.text("life") {
        "sleeper" => loop {
            let _ = bus.read_timeout(&mut [0; 64], Duration::from_secs(60));
        },
        "watcher" => {
            let alarms = watch_for_alarms(&bus, order.number("millis")?);
            meeting.meet()?;
            Ok(alarms)
        }
        _ => loop {
            match bus.write(&[0; 48]) {
                Ok(()) | Err(Error::Timeout) => {}
                Err(error) => return Err(error.to_string()),
            }
        },
    }
}

fn options(folder: &str) -> Options {
    let mut options = Options::new("liveness");
    options
        .directory(folder)
        .beat_interval(BEAT)
        .stale_after(STALE)
        .on_disconnect(Disconnect::Never)
        .wait(Wait::Adaptive);
    options
}

/// Opens the bus as soon as nobody else holds the role.
fn take_the_role(options: &Options) -> Result<(Endpoint, u64)> {
    let end = now_ns() + 60_000_000_000;
    let mut tries = 1;
    loop {
        match options.open() {
            Ok(bus) => return Ok((bus, tries)),
            Err(Error::RoleTaken { .. }) if now_ns() < end => tries += 1,
            Err(error) => return Err(format!("take the role: {error}")),
        }
    }
}

fn busy_loops(seconds: u64) -> Result<Vec<Side>> {
    let order = Order::default().with("life", "busy").with("life_s", seconds + 30);
    let start = |_| {
        let mut side = Side::start(&order)?;
        side.hear_meet()?;
        side.go_on()?;
        Ok(side)
    };
    (0..BUSY).map(start).collect()
}

// --- the master ---------------------------------------------------------------------------------

/// The side that lives on.
struct Watcher {
    bus: Endpoint,
    order: Order,
    page: [u8; 64],
    dice: u64,
}

/// Times of deaths, in milliseconds since the kill.
#[derive(Default)]
struct Deaths {
    /// Until the state said so, of a slave that wrote as fast as it could, and of one asleep.
    of_writers: Sample,
    of_sleepers: Sample,
    /// Until a master asleep in `read` was told.
    told: Sample,
    /// Until the first message of a process that was started when the death was noticed.
    restarted: Sample,
}

#[derive(Default)]
struct Successions {
    /// Until the successor had the role, and until its first message was read.
    taken: Sample,
    delivered: Sample,
}

#[derive(Default)]
struct Hangs {
    /// Beyond the threshold, until the state said so.
    noticed: Sample,
    /// From SIGCONT until the state said alive.
    recovered: Sample,
}

struct Alarms {
    minutes: f64,
    master: Facts,
    slave: Facts,
}

fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

impl Watcher {
    fn open(folder: &Folder) -> Result<Watcher> {
        let path = folder.path().display().to_string();
        let bus = options(&path).role(Role::Master).open().why("open the master")?;
        let order = Order::default().with("folder", path);
        Ok(Watcher { bus, order, page: [0; 64], dice: 1 })
    }

    /// Up to two milliseconds, so that kills fall anywhere between two beats.
    fn pause(&mut self) -> Duration {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        Duration::from_nanos((self.dice >> 33) % 2_000_000)
    }

    /// Starts a slave that goes on to open the bus.
    fn start(&self, life: &str) -> Result<Side> {
        let mut side = Side::start(&self.order.clone().with("life", life))?;
        side.hear_meet()?;
        side.go_on()?;
        Ok(side)
    }

    /// Reads what waits.
    fn drain(&mut self) {
        while self.bus.try_read(&mut self.page).is_ok() {}
    }

    /// Reads on until a message of a later owner than this comes; gives when that was, and when the
    /// owner had taken its role.
    fn first_message_after(&mut self, epoch: u64) -> Result<(u64, u64)> {
        let end = now_ns() + PATIENCE_NS;
        while now_ns() < end {
            match self.bus.read_timeout(&mut self.page, Duration::from_millis(100)) {
                Ok(_) if self.bus.last_id().is_some_and(|id| id.epoch > epoch) => {
                    let word: &[u8; 8] = self.page.first_chunk().expect("64 bytes");
                    return Ok((now_ns(), u64::from_ne_bytes(*word)));
                }
                Ok(_) | Err(Error::Timeout | Error::PeerDead { .. }) => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
        Err(format!("no message of a successor of epoch {epoch} came"))
    }

    /// Waits until the peer's state is as wished, reading meanwhile, and gives when that was.
    fn when(&mut self, what: &str, wished: fn(PeerState) -> bool) -> Result<u64> {
        let end = now_ns() + PATIENCE_NS;
        while now_ns() < end {
            if wished(self.bus.peer().state) {
                return Ok(now_ns());
            }
            self.drain();
            std::thread::sleep(LOOKS_APART);
        }
        Err(format!("the peer was never found {what}, but {}", self.bus.peer().state))
    }

    /// Waits in `read` until it says that the peer is dead, and gives when that was.
    fn when_told(&mut self) -> Result<u64> {
        let end = now_ns() + PATIENCE_NS;
        while now_ns() < end {
            match self.bus.read_timeout(&mut self.page, Duration::from_secs(1)) {
                Err(Error::PeerDead { .. }) => return Ok(now_ns()),
                Ok(_) | Err(Error::Timeout) => {}
                Err(error) => return Err(format!("read: {error}")),
            }
        }
        Err("the reader was never told of a death".into())
    }

    fn deaths(&mut self, what: &str, count: usize) -> Result<Deaths> {
        let mut times = Deaths::default();
        let mut epoch = self.bus.peer().epoch;
        let mut killed = None;
        for number in 0..3 * count {
            show(what, number, 3 * count)?;
            // A third each: found in the state of a writer, of a sleeper; told by `read`.
            let is_told = number % 3 == 2;
            let mut slave = self.start(["writer", "sleeper", "sleeper"][number % 3])?;
            let (came, _) = self.first_message_after(epoch)?;
            if let Some(killed) = killed {
                times.restarted.record(millis(came - killed));
            }
            self.when("alive", |state| state == PeerState::Alive)?;
            epoch = self.bus.peer().epoch;
            std::thread::sleep(self.pause());
            let reading = if is_told { Disconnect::Immediately } else { Disconnect::Never };
            self.bus.set_on_disconnect(reading);
            let kill = now_ns();
            slave.kill()?;
            let noticed = match is_told {
                true => self.when_told()?,
                false => self.when("dead", |state| state == PeerState::Dead)?,
            };
            self.bus.set_on_disconnect(Disconnect::Never);
            let sample = match number % 3 {
                0 => &mut times.of_writers,
                1 => &mut times.of_sleepers,
                _ => &mut times.told,
            };
            sample.record(millis(noticed - kill));
            killed = Some(kill);
        }
        Ok(times)
    }

    /// Deaths with a successor that stands by and tries to open again and again.
    fn successions(&mut self, count: usize) -> Result<Successions> {
        let mut times = Successions::default();
        let mut epoch = self.bus.peer().epoch;
        let mut current = self.start("writer")?;
        self.first_message_after(epoch)?;
        for number in 0..count {
            show("successions", number, count)?;
            epoch = self.bus.peer().epoch;
            let next = self.start("writer")?;
            let end = now_ns() + 5_000_000 + self.pause().as_nanos() as u64;
            while now_ns() < end {
                self.drain();
                std::thread::sleep(LOOKS_APART);
            }
            let kill = now_ns();
            current.kill()?;
            let (delivered, taken) = self.first_message_after(epoch)?;
            times.taken.record(millis(taken.saturating_sub(kill)));
            times.delivered.record(millis(delivered - kill));
            current = next;
        }
        current.kill()?;
        self.when("dead", |state| state == PeerState::Dead)?;
        Ok(times)
    }

    fn hangs(&mut self, count: usize) -> Result<Hangs> {
        let mut times = Hangs::default();
        let epoch = self.bus.peer().epoch;
        let mut slave = self.start("sleeper")?;
        self.first_message_after(epoch)?;
        self.when("alive", |state| state == PeerState::Alive)?;
        let pid = Pid::from_raw(slave.pid() as i32);
        for number in 0..count {
            show("hangs", number, count)?;
            std::thread::sleep(self.pause());
            let stopped = now_ns();
            kill(pid, Signal::SIGSTOP).why("stop the slave")?;
            let noticed = self.when("hung", |state| matches!(state, PeerState::Hung(_)))?;
            times.noticed.record(millis(noticed - stopped) - STALE.as_secs_f64() * 1e3);
            let continued = now_ns();
            kill(pid, Signal::SIGCONT).why("continue the slave")?;
            let alive = self.when("alive", |state| state == PeerState::Alive)?;
            times.recovered.record(millis(alive - continued));
        }
        slave.kill()?;
        self.when("dead", |state| state == PeerState::Dead)?;
        Ok(times)
    }

    /// Watches a living peer, and is watched by it, beside busy loops.
    fn false_alarms(&mut self, minutes: f64) -> Result<Alarms> {
        progress(&format!("false alarms, {minutes} minutes"));
        let length = (minutes * 60e3) as u64;
        let epoch = self.bus.peer().epoch;
        let order = self.order.clone().with("life", "watcher").with("millis", length);
        let mut slave = Side::start(&order.with("life_s", length / 1000 + 60))?;
        slave.hear_meet()?;
        let loops = busy_loops(length / 1000)?;
        slave.go_on()?;
        self.first_message_after(epoch)?;
        self.when("alive", |state| state == PeerState::Alive)?;
        let master = watch_for_alarms(&self.bus, length);
        slave.hear_meet()?;
        drop(loops);
        slave.go_on()?;
        let slave = slave.hear_result()?;
        if interrupted() {
            return Err("interrupted; cleaned up".into());
        }
        Ok(Alarms { minutes, master, slave })
    }
}

fn show(what: &str, number: usize, count: usize) -> Result<()> {
    progress(&format!("{what}, {number} of {count}"));
    if interrupted() { Err("interrupted; cleaned up".into()) } else { Ok(()) }
}

/// Looks at the peer every millisecond and counts how often it did not seem alive.
fn watch_for_alarms(bus: &Endpoint, millis: u64) -> Facts {
    let end = now_ns() + millis * 1_000_000;
    let mut last = bus.peer();
    let (mut alarms, mut looks) = (0, 0);
    let (mut beaten, mut longest) = (now_ns(), 0);
    while now_ns() < end && !interrupted() {
        std::thread::sleep(Duration::from_millis(1));
        let (now, peer) = (now_ns(), bus.peer());
        looks += 1;
        let (was, is) = (last.state == PeerState::Alive, peer.state == PeerState::Alive);
        // The last look of one side may see the other one leave.
        alarms += u64::from(was && !is && peer.state != PeerState::Left);
        longest = longest.max(now - beaten);
        if peer.beats != last.beats {
            beaten = now;
        }
        last = peer;
    }
    Facts::from([
        ("alarms".into(), alarms as f64),
        ("looks".into(), looks as f64),
        ("silence_ms".into(), longest as f64 / 1e6),
    ])
}

// --- tables -------------------------------------------------------------------------------------

fn times(run: &mut Run, calm: &Deaths, crowded: &Deaths, successions: &Successions, hung: &Hangs) {
    let mut lines = vec![row(["ms", "p50", "p99", "max", "count"])];
    let all = [
        ("from a kill to the state Dead, of a slave that writes", &calm.of_writers),
        ("from a kill to the state Dead, of a slave asleep in read", &calm.of_sleepers),
        ("from a kill to PeerDead out of a read that slept", &calm.told),
        ("beside busy loops: to the state Dead, of a slave that writes", &crowded.of_writers),
        ("beside busy loops: to the state Dead, of a slave asleep", &crowded.of_sleepers),
        ("beside busy loops: to PeerDead out of a read", &crowded.told),
        ("from a kill to the role taken by a successor that stands by", &successions.taken),
        ("from a kill to the first message of that successor", &successions.delivered),
        ("from a kill to the first message of a process started then", &calm.restarted),
        ("from a stop to the state Hung, beyond the threshold", &hung.noticed),
        ("from going on to the state Alive", &hung.recovered),
    ];
    for (title, sample) in all {
        let mut line = vec![title.to_string()];
        line.extend(sample.cells());
        lines.push(line);
        run.keep_value(title, sample.json());
    }
    run.table("deaths by SIGKILL, hangs by SIGSTOP", &lines);
}

fn alarm_table(run: &mut Run, alarms: &Alarms) {
    let mut lines = vec![row(["", "alarms", "looks", "longest without a new beat, ms"])];
    for (title, facts) in [("master of slave", &alarms.master), ("slave of master", &alarms.slave)]
    {
        let mut line = vec![title.to_string()];
        let facts = ["alarms", "looks", "silence_ms"].map(|name| cell(facts.get(name).copied()));
        line.extend(facts);
        lines.push(line);
    }
    let minutes = alarms.minutes;
    let title =
        format!("false alarms in {minutes} minutes beside {BUSY} busy loops; states sampled");
    run.table(&title, &lines);
    run.keep(
        "false_alarms",
        json!({
            "minutes": minutes, "busy_loops": BUSY, "master": alarms.master, "slave": alarms.slave,
        }),
    );
}

fn targets(run: &mut Run, calm: &Deaths, next: &Successions, hung: &Hangs, alarms: &Alarms) {
    let worst = |a: &Sample, b: &Sample| Some(a.at(0.99)?.max(b.at(0.99)?));
    let alarmed =
        [&alarms.master, &alarms.slave].iter().filter_map(|facts| facts.get("alarms")).sum();
    let aim = |what, aim, unit, measured| Target { what, aim, measured, unit };
    let noticed = worst(&calm.of_writers, &calm.of_sleepers);
    let what = match alarms.minutes >= 10.0 {
        true => "false alarms in 10 minutes beside four busy loops",
        false => "false alarms (10 minutes are asked for: --minutes 10)",
    };
    let lines = [
        aim("a death is noticed, p99", "<= 5 ms", " ms", noticed),
        aim(
            "a hang is noticed, beyond the threshold, max",
            "<= 20 ms",
            " ms",
            hung.noticed.at(1.0),
        ),
        aim("first message of a successor that stands by, p99", "", " ms", next.delivered.at(0.99)),
        aim(what, "0", "", Some(alarmed)),
    ];
    run.targets(&lines);
}
