//! Random kills and fences under load: one side streams, dies or is stopped at any moment and is
//! replaced, again and again, on one bus; the other side reads every number once, in order, whole.
//! The same where messages are overwritten: each one is read or counted. A tap listens to each direction
//! all the while, and hears what the readers are told.
//!
//! `cargo test --test proof_random` does 2,000 kills and 1,000 fences; `tools/kill-100k` more. With
//! `--kills N`, `--fences N` and `--seed N` anything else.

mod proof;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use eshm::{Direction, Endpoint, Error, MessageId, Role, Takeover, Tap};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use proof::ledger::{Page, message, mix, seq_of};
use proof::points::fresh_name;
use proof::scene::direction_of;
use proof::worker::{Note, Reading, Worker, len_of, racing_options};
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
    for (role, races) in
        [(Role::Slave, false), (Role::Slave, true), (Role::Master, false), (Role::Master, true)]
    {
        let mut run = Run::new(role, races, seed);
        run.kills(number("--kills", 2000) / 4);
        run.close("kills");
        let mut run = Run::new(role, races, seed ^ 1);
        run.fences(number("--fences", 1000) / 4);
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
    /// Whether messages are overwritten.
    races: bool,
    /// What the workers write is heard, and what they read.
    ears: [Ear; 2],
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
    /// Lost to this side because it was slow, and counted.
    overwritten: u64,
}

impl Run {
    fn new(role: Role, races: bool, seed: u64) -> Run {
        let name = fresh_name();
        let mut own = racing_options(&name, role.peer(), races);
        own.background(false);
        // Only a master creates; as a slave this side needs one for a moment.
        let maker = (role == Role::Master)
            .then(|| racing_options(&name, role, races).background(false).open());
        let bus = own.open().expect("a new bus");
        drop(maker);
        let ears = [role, role.peer()].map(|role| Ear::open(&name, direction_of(role)));
        let pages = [Page::new(), Page::new()];
        let (dice, began) = (mix(seed), Instant::now());
        let ledger = Ledger::default();
        Run {
            name,
            role,
            bus,
            races,
            ears,
            dice,
            next_in: 0,
            next_out: 0,
            pages,
            turn: 0,
            began,
            ledger,
        }
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
        let (name, role, races, page) = (self.name.clone(), self.role, self.races, self.page());
        Worker { name, races, role, takeover, seed: self.roll(), page }.start()
    }

    /// Reads and writes whatever there is to be read and written now.
    fn pump(&mut self) {
        let mut buffer = [0; 1024];
        for _ in 0..16 {
            let lost = self.bus.lost();
            match self.bus.try_read(&mut buffer) {
                Ok(len) => {
                    let seq = seq_of(&buffer[..len]).expect("a torn message");
                    let next = self.next_in + (self.bus.lost() - lost);
                    assert_eq!(seq, next, "the next message from the {}", self.role);
                    let id = self.bus.last_id().expect("just read");
                    assert_eq!(id.number, seq);
                    self.ears[0].compare(id);
                    self.ledger.overwritten += next - self.next_in;
                    self.next_in = next + 1;
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
        for ear in &mut self.ears {
            ear.listen(16);
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
        let (mut ahead, back) = reading.slack(self.races);
        if self.races {
            // What was lost just before is known to the bus alone.
            ahead = self.next_out;
        }
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
        if self.races {
            // It may have found that messages are lost, and no other one.
            assert!(handed <= begins && begins <= self.next_out, "{handed} {begins} {reading:?}");
            return;
        }
        assert_eq!(handed, begins, "handed out ({reading:?}), and read by the next");
    }

    /// Leaves, and tells what happened.
    fn close(mut self, what: &str) {
        self.drain();
        let time = self.began.elapsed().as_secs_f64();
        let overwrites = if self.races { ", overwriting" } else { "" };
        let ends = [self.next_in, self.next_out];
        let heard = self.ears.each_mut().map(|ear| ear.hear_rest());
        assert_eq!(heard, ends, "the taps have heard the last one");
        println!(
            "{what} of a {}{overwrites}: {} in {time:.1} s; {} messages read and {} written by the \
             other side, 0 lost, 0 doubled, 0 torn; taps heard {:?}; {:?}",
            self.role,
            self.ledger.rounds,
            self.next_in - self.ledger.overwritten,
            self.next_out,
            self.ears.each_ref().map(|ear| ear.heard),
            self.ledger
        );
        self.bus.leave().expect("leaves");
        if self.races && eshm::inspect(&self.name).is_ok() {
            // Nothing is unread where messages are overwritten; a killed worker has not left.
            eshm::remove(&self.name, false).expect("nobody is there any more");
        }
        remove_kept(&self.name);
    }
}

/// A tap beside a stream.
struct Ear {
    tap: Tap,
    /// The number of the next message; unknown until the first one.
    next: Option<u64>,
    heard: u64,
    /// The last ids that were heard or read, by number: whoever comes second compares.
    known: Vec<Option<MessageId>>,
}

impl Ear {
    fn open(name: &str, direction: Direction) -> Ear {
        let tap = Tap::open(name, direction).expect("a bus to listen to");
        Ear { tap, next: None, heard: 0, known: vec![None; 4096] }
    }

    /// Hears up to so many messages; false if there was none.
    fn listen(&mut self, most: usize) -> bool {
        let mut buffer = [0; 1024];
        for count in 0..most {
            let message = match self.tap.try_read(&mut buffer) {
                Ok(message) => message,
                Err(Error::Empty) => return count > 0,
                Err(error) => panic!("the tap: {error}"),
            };
            let seq = seq_of(&buffer[..message.len]).expect("a torn message heard");
            let next = self.next.unwrap_or(seq - message.lost) + message.lost;
            assert_eq!((seq, message.id.number), (next, next), "the next one to hear");
            self.next = Some(next + 1);
            self.heard += 1;
            self.compare(message.id);
        }
        true
    }

    /// A message from behind a cut has the number of one that came after it, but another author.
    fn compare(&mut self, id: MessageId) {
        let at = id.number as usize % self.known.len();
        if let Some(known) = self.known[at].filter(|known| known.number == id.number) {
            assert_eq!(known, id, "heard, and read");
        }
        self.known[at] = Some(id);
    }

    /// Hears all there is, and says which one is the next.
    fn hear_rest(&mut self) -> u64 {
        for _ in 0..4 {
            while self.listen(16) {}
        }
        self.next.unwrap_or(0)
    }
}
