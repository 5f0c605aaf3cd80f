//! Random kills and fences under load: one side streams, dies or is stopped at any moment and is
//! replaced, again and again, on one bus; the other side reads every number once, in order, whole.
//!
//! `cargo test --test proof_random` does 2,000 kills and 1,000 fences; `tools/kill-100k` more. With
//! `--kills N`, `--fences N` and `--seed N` anything else.

mod proof;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use eshm::{Endpoint, Error, Role, Takeover};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use proof::ledger::{Page, message, mix, seq_of};
use proof::points::fresh_name;
use proof::worker::{Note, Reading, Worker, len_of, options};
use proof::{be_patient, remove_kept};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let number = |name: &str, default: u64| {
        let at = args.iter().position(|arg| arg == name);
        at.and_then(|at| args.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let seed = number("--seed", u64::from(std::process::id()));
    println!("seed {seed}");
    for role in [Role::Slave, Role::Master] {
        let mut run = Run::new(role, seed);
        run.kills(number("--kills", 2000) / 2);
        run.close("kills");
        let mut run = Run::new(role, seed ^ 1);
        run.fences(number("--fences", 1000) / 2);
        run.close("fences");
    }
    ExitCode::SUCCESS
}

/// One bus: this process is one side of it, a worker the other.
struct Run {
    name: String,
    /// The role of the workers.
    role: Role,
    bus: Endpoint,
    dice: u64,
    /// The next number that the workers send.
    next_in: u64,
    /// The next number to send to them.
    next_out: u64,
    pages: [&'static Page; 2],
    turn: usize,
    began: Instant,
    ledger: Ledger,
}

/// Where the next reader will begin, by what the killed ones noted: at `next`, or further on by what
/// they may have taken with them, or before it by what may be shown again.
#[derive(Debug)]
struct Stand {
    next: u64,
    ahead: u64,
    back: u64,
}

/// What happened.
#[derive(Debug, Default)]
struct Ledger {
    rounds: u64,
    /// Committed by a killed writer that was not told any more.
    committed_untold: u64,
    /// In the hands of a killed reader.
    taken_along: u64,
    /// Shown by a killed reader and shown again.
    shown_again: u64,
    /// Killed before they were open.
    early: u64,
}

impl Run {
    fn new(role: Role, seed: u64) -> Run {
        let name = fresh_name();
        let mut own = options(&name, role.peer());
        own.background(false);
        // Only a master creates; as a slave this side needs one for a moment.
        let maker = (role == Role::Master).then(|| options(&name, role).background(false).open());
        let bus = own.open().expect("a new bus");
        drop(maker);
        let pages = [Page::new(), Page::new()];
        let (dice, began) = (mix(seed), Instant::now());
        let ledger = Ledger::default();
        Run { name, role, bus, dice, next_in: 0, next_out: 0, pages, turn: 0, began, ledger }
    }

    fn roll(&mut self) -> u64 {
        self.dice = mix(self.dice);
        self.dice
    }

    /// The page of the worker of this round, and of the one before.
    fn page(&self) -> &'static Page {
        self.pages[self.turn % 2]
    }

    fn page_before(&self) -> &'static Page {
        self.pages[(self.turn + 1) % 2]
    }

    fn start(&mut self, takeover: Takeover) -> Pid {
        be_patient();
        self.turn += 1;
        self.page().clear();
        let (name, role, page) = (self.name.clone(), self.role, self.page());
        Worker { name, role, takeover, seed: self.roll(), page }.start()
    }

    /// Reads and writes whatever there is to be read and written now.
    fn pump(&mut self) {
        let mut buffer = [0; 1024];
        for _ in 0..16 {
            match self.bus.try_read(&mut buffer) {
                Ok(len) => {
                    let seq = seq_of(&buffer[..len]).expect("a torn message");
                    assert_eq!(seq, self.next_in, "the next message from the {}", self.role);
                    assert_eq!(self.bus.last_id().map(|id| id.number), Some(seq));
                    self.next_in += 1;
                }
                Err(Error::Empty) => break,
                Err(error) => panic!("reading: {error}"),
            }
        }
        for _ in 0..16 {
            match self.bus.try_write(&message(self.next_out, len_of(self.next_out), 0)) {
                Ok(()) => self.next_out += 1,
                Err(Error::Full) => break,
                Err(error) => panic!("writing: {error}"),
            }
        }
    }

    fn pump_for(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.pump();
        }
    }

    /// Pumps until a worker has got somewhere, or ended.
    fn pump_until(&mut self, worker: Pid, note: Note) {
        let page = self.page();
        let started = Instant::now();
        while note.get(page) == 0 {
            self.pump();
            let status = waitpid(worker, Some(WaitPidFlag::WNOHANG)).expect("waitpid");
            assert_eq!(status, WaitStatus::StillAlive, "the worker: {}", page.text());
            assert!(started.elapsed() < proof::PATIENCE, "the worker hangs before {note:?}");
        }
    }

    /// Everything that is in the ring.
    fn drain(&mut self) {
        let mut quiet = 0;
        while quiet < 3 {
            let before = self.next_in;
            self.pump();
            quiet = if self.next_in == before { quiet + 1 } else { 0 };
        }
    }

    fn kills(&mut self, rounds: u64) {
        let mut stood: Option<Stand> = None;
        for _ in 0..rounds {
            let worker = self.start(Takeover::Never);
            let is_early = self.roll().is_multiple_of(4);
            if !is_early {
                self.pump_until(worker, Note::Ready);
            }
            let longest = if is_early { 1500 } else { 1000 };
            let pause = self.roll() % longest;
            self.pump_for(Duration::from_micros(pause));
            kill(worker, Signal::SIGKILL).expect("kill");
            let status = waitpid(worker, None).expect("waitpid");
            let page = self.page();
            let is_killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
            assert!(is_killed, "the worker ended with {status:?}: {}", page.text());
            self.drain();
            self.reckon_kill(page, &mut stood);
        }
    }

    /// Compares what a killed worker noted with what came of it.
    fn reckon_kill(&mut self, page: &'static Page, stood: &mut Option<Stand>) {
        self.ledger.rounds += 1;
        if Note::Ready.get(page) == 0 {
            self.ledger.early += 1;
            return;
        }
        let told = Note::NextOut.get(page);
        assert!(told <= self.next_in, "{told} messages were told, {} came", self.next_in);
        self.ledger.committed_untold += self.next_in - told;
        let reading = Reading::from(Note::Reading.get(page));
        let (ahead, back) = reading.slack();
        let first = Note::FirstIn.get(page);
        if first == 0 {
            // It may have taken what it did not come to note.
            if let Some(stood) = stood {
                stood.ahead += ahead;
            }
            return;
        }
        if let Some(stood) = stood {
            let (begins, next) = (first - 1, stood.next);
            let is_right = begins <= next + stood.ahead && begins + stood.back >= next;
            assert!(is_right, "{stood:?} stood there, and {begins} was read first");
            self.ledger.taken_along += begins.saturating_sub(next);
            self.ledger.shown_again += next.saturating_sub(begins);
        }
        // Killed before it noted the first: then it stands where that one was.
        let next = Note::NextIn.get(page).max(first - 1);
        *stood = Some(Stand { next, ahead, back });
    }

    fn fences(&mut self, rounds: u64) {
        let mut worker = self.start(Takeover::Never);
        for _ in 0..rounds {
            self.pump_until(worker, Note::FirstIn);
            let pause = self.roll() % 500;
            self.pump_for(Duration::from_micros(pause));
            kill(worker, Signal::SIGSTOP).expect("stop");
            waitpid(worker, Some(WaitPidFlag::WUNTRACED)).expect("waitpid");
            let stopped = worker;
            worker = self.start(Takeover::Always);
            if self.roll().is_multiple_of(2) {
                self.pump_until(worker, Note::FirstIn);
            }
            kill(stopped, Signal::SIGCONT).expect("continue");
            self.pump_until(worker, Note::FirstIn);
            let status = self.await_end(stopped);
            let page = self.page_before();
            assert_eq!(status, WaitStatus::Exited(stopped, 0), "replaced: {}", page.text());
            self.reckon_fence();
        }
        Note::Stop.set(self.page(), 1);
        let status = self.await_end(worker);
        assert_eq!(status, WaitStatus::Exited(worker, 0), "{}", self.page().text());
        self.drain();
    }

    fn await_end(&mut self, worker: Pid) -> WaitStatus {
        let started = Instant::now();
        loop {
            self.pump();
            let status = waitpid(worker, Some(WaitPidFlag::WNOHANG)).expect("waitpid");
            if !matches!(status, WaitStatus::StillAlive | WaitStatus::Continued(_)) {
                return status;
            }
            assert!(started.elapsed() < proof::PATIENCE, "the worker hangs");
        }
    }

    /// What the replaced one was told must be exactly what its successor found.
    fn reckon_fence(&mut self) {
        let (old, new) = (self.page_before(), self.page());
        self.ledger.rounds += 1;
        assert_eq!(Note::NextOut.get(old), Note::FirstOut.get(new), "told, and found by the next");
        let reading = Reading::from(Note::Reading.get(old));
        let (handed, begins) = (Note::NextIn.get(old), Note::FirstIn.get(new) - 1);
        assert_eq!(handed, begins, "handed out ({reading:?}), and read by the next");
    }

    /// Leaves, and tells what happened.
    fn close(mut self, what: &str) {
        self.drain();
        let time = self.began.elapsed().as_secs_f64();
        println!(
            "{what} of a {}: {} in {time:.1} s; {} messages read and {} written by the other side, \
             0 lost, 0 doubled, 0 torn; {:?}",
            self.role, self.ledger.rounds, self.next_in, self.next_out, self.ledger
        );
        self.bus.leave().expect("leaves");
        remove_kept(&self.name);
    }
}
