//! A long run: two processes stream both ways, and every few seconds one of them is killed, or
//! stopped, replaced and continued. Shows its progress, and ends with a ledger and with what memory
//! and descriptors have grown by.
//!
//! In the first half only the slave is replaced and in the second half only the master, so that the
//! other one lives long enough to show a drift. `tools/soak --minutes 60` is the long version.

mod proof;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use eshm::{Role, Takeover};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use proof::ledger::{Page, mix};
use proof::points::fresh_name;
use proof::worker::{BATCH, Load, Note, Reading, Worker};
use proof::{be_patient, remove_kept};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let number = |name: &str, default: f64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let length = Duration::from_secs_f64(number("--minutes", 0.05) * 60.0);
    let every = Duration::from_secs_f64(number("--every", length.as_secs_f64() / 20.0).min(3.0));
    Soak::new().run(length, every);
    ExitCode::SUCCESS
}

/// One side: who is at it now, and where those before stood.
struct Side {
    role: Role,
    pid: Pid,
    page: &'static Page,
    spare: &'static Page,
    /// The next message for its reader, and how that one reads.
    stood: Option<(u64, Reading)>,
    grown: [i64; 2],
}

#[derive(Debug, Default)]
struct Ledger {
    kills: u64,
    fences: u64,
    committed_untold: u64,
    taken_along: u64,
    shown_again: u64,
}

struct Soak {
    name: String,
    dice: u64,
    sides: [Side; 2],
    ledger: Ledger,
    began: Instant,
}

impl Soak {
    fn new() -> Soak {
        let name = fresh_name();
        let mut dice = u64::from(std::process::id());
        println!("seed {dice}");
        let sides = [Role::Master, Role::Slave].map(|role| {
            dice = mix(dice);
            let (page, spare) = (Page::new(), Page::new());
            let name = name.clone();
            let worker =
                Worker { name, races: false, role, takeover: Takeover::Never, seed: dice, page };
            Side { role, pid: worker.start(), page, spare, stood: None, grown: [0; 2] }
        });
        Soak { name, dice, sides, ledger: Ledger::default(), began: Instant::now() }
    }

    fn run(mut self, length: Duration, every: Duration) {
        let mut shown = Instant::now();
        for index in 0..2 {
            await_note(&self.sides, index, Note::FirstIn);
        }
        while self.began.elapsed() < length {
            be_patient();
            std::thread::sleep(every);
            let is_first_half = self.began.elapsed() < length / 2;
            self.replace(usize::from(is_first_half));
            if shown.elapsed() > Duration::from_secs(10).min(length / 4) {
                shown = Instant::now();
                self.show();
            }
        }
        self.end();
    }

    /// Replaces one side: two times of three it is killed, the third time fenced.
    fn replace(&mut self, index: usize) {
        self.dice = mix(self.dice);
        let is_fence = self.dice.is_multiple_of(3);
        let side = &mut self.sides[index];
        note_growth(side);
        let (old, old_pid) = (side.page, side.pid);
        let signal = if is_fence { Signal::SIGSTOP } else { Signal::SIGKILL };
        kill(old_pid, signal).expect("a signal");
        let status = waitpid(old_pid, Some(WaitPidFlag::WUNTRACED)).expect("waitpid");
        let is_so = matches!(
            status,
            WaitStatus::Signaled(_, Signal::SIGKILL, _) | WaitStatus::Stopped(_, Signal::SIGSTOP)
        );
        assert!(is_so, "the {} ended with {status:?}: {}", side.role, old.text());
        side.spare.clear();
        let takeover = if is_fence { Takeover::Always } else { Takeover::Never };
        let (name, role, page) = (self.name.clone(), side.role, side.spare);
        side.pid = Worker { name, races: false, role, takeover, seed: self.dice, page }.start();
        (side.page, side.spare) = (side.spare, side.page);
        await_note(&self.sides, index, Note::FirstIn);
        if is_fence {
            kill(old_pid, Signal::SIGCONT).expect("continue");
            let status = await_exit(old_pid);
            assert_eq!(status, WaitStatus::Exited(old_pid, 0), "replaced: {}", old.text());
        }
        self.reckon(index, old, is_fence);
    }

    /// Compares what the old one was told with what its successor found.
    fn reckon(&mut self, index: usize, old: &'static Page, is_fence: bool) {
        let (side, ledger) = (&mut self.sides[index], &mut self.ledger);
        let (told, found) = (Note::NextOut.get(old), Note::FirstOut.get(side.page));
        let untold = found.checked_sub(told).expect("told more messages than there are");
        assert!(untold <= if is_fence { 0 } else { BATCH as u64 }, "{untold} messages untold");
        ledger.committed_untold += untold;
        let reading = Reading::from(Note::Reading.get(old));
        let next = Note::NextIn.get(old).max(Note::FirstIn.get(old).saturating_sub(1));
        let begins = Note::FirstIn.get(side.page) - 1;
        let (ahead, back) = if is_fence { (0, 0) } else { reading.slack(false) };
        let is_right = begins <= next + ahead && begins + back >= next;
        assert!(is_right, "{next} was next after {reading:?}, and {begins} was read first");
        ledger.taken_along += begins.saturating_sub(next);
        ledger.shown_again += next.saturating_sub(begins);
        side.stood = Some((next, reading));
        *(if is_fence { &mut ledger.fences } else { &mut ledger.kills }) += 1;
    }

    fn show(&self) {
        let [master, slave] = [0, 1].map(|index| Note::NextOut.get(self.sides[index].page));
        let loads = [0, 1].map(|index| Load::of(self.sides[index].page)[1]);
        println!(
            "{:6.0} s: {} kills, {} fences; {:.1} M messages to the slave, {:.1} M to the master; \
             master {} KiB, {} descriptors, slave {} KiB, {} descriptors",
            self.began.elapsed().as_secs_f32(),
            self.ledger.kills,
            self.ledger.fences,
            master as f64 / 1e6,
            slave as f64 / 1e6,
            loads[0].kib,
            loads[0].descriptors,
            loads[1].kib,
            loads[1].descriptors,
        );
    }

    fn end(mut self) {
        self.show();
        for side in &mut self.sides {
            note_growth(side);
            Note::Stop.set(side.page, 1);
        }
        for side in &self.sides {
            let status = await_exit(side.pid);
            let text = side.page.text();
            assert_eq!(status, WaitStatus::Exited(side.pid, 0), "the {}: {text}", side.role);
        }
        for (index, peer) in [(0, 1), (1, 0)] {
            let (written, read) = (
                Note::NextOut.get(self.sides[index].page),
                Note::NextIn.get(self.sides[peer].page),
            );
            assert!(read <= written, "{read} messages read, {written} written");
            let side = &self.sides[index];
            println!(
                "{} wrote {written} messages, {read} were read in order; grown at most by {} KiB \
                 and {} descriptors",
                side.role, side.grown[0], side.grown[1]
            );
        }
        remove_kept(&self.name);
        println!(
            "{:?} in {:.0} s: 0 lost, 0 doubled, 0 torn, nothing left over",
            self.ledger,
            self.began.elapsed().as_secs_f32()
        );
    }
}

fn note_growth(side: &mut Side) {
    let [began, now] = Load::of(side.page);
    let grown =
        [now.kib as i64 - began.kib as i64, now.descriptors as i64 - began.descriptors as i64];
    for (most, grown) in side.grown.iter_mut().zip(grown) {
        *most = (*most).max(grown);
    }
}

/// Waits until one side has come so far, while both live.
fn await_note(sides: &[Side; 2], index: usize, note: Note) {
    let started = Instant::now();
    while note.get(sides[index].page) == 0 {
        for side in sides {
            let status = waitpid(side.pid, Some(WaitPidFlag::WNOHANG)).expect("waitpid");
            let text = side.page.text();
            assert_eq!(status, WaitStatus::StillAlive, "the {}: {text}", side.role);
        }
        let role = sides[index].role;
        assert!(started.elapsed() < proof::PATIENCE, "the {role} hangs before {note:?}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn await_exit(pid: Pid) -> WaitStatus {
    let started = Instant::now();
    loop {
        let status = waitpid(pid, Some(WaitPidFlag::WNOHANG)).expect("waitpid");
        if !matches!(status, WaitStatus::StillAlive | WaitStatus::Continued(_)) {
            return status;
        }
        assert!(started.elapsed() < proof::PATIENCE, "it hangs");
        std::thread::sleep(Duration::from_micros(200));
    }
}
