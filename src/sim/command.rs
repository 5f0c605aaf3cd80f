//! What `tools/simulate` runs: many schedules, one again, or a failing one made shorter.

use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::events::table;
use super::play::{Choices, Outcome, play};
use super::scenario::Scenario;
use super::schedule::{Choice, Coverage};

/// What was asked for.
struct Wishes {
    seed: u64,
    schedules: u64,
    minutes: Option<f64>,
    replay: Option<u64>,
    shows_coverage: bool,
    shrinks: bool,
    keeps_going: bool,
    /// Each of so many schedules is run twice, to see that it is the same.
    check_every: u64,
    /// Schedules that run at the same time, each in a world of its own.
    jobs: usize,
}

fn wishes() -> Wishes {
    let mut wishes = Wishes {
        seed: 1,
        schedules: 1000,
        minutes: None,
        replay: None,
        shows_coverage: false,
        shrinks: true,
        keeps_going: false,
        check_every: 1000,
        jobs: std::thread::available_parallelism().map_or(1, NonZero::get),
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || {
            let value = args.next().unwrap_or_default();
            value.parse::<f64>().unwrap_or_else(|_| panic!("{arg} {value}: a number is missing"))
        };
        match arg.as_str() {
            "--seed" => wishes.seed = number() as u64,
            "--schedules" => wishes.schedules = number() as u64,
            "--minutes" => wishes.minutes = Some(number()),
            "--replay" => wishes.replay = Some(number() as u64),
            "--check-every" => wishes.check_every = (number() as u64).max(1),
            "--jobs" => wishes.jobs = (number() as usize).max(1),
            "--coverage" => wishes.shows_coverage = true,
            "--no-shrink" => wishes.shrinks = false,
            "--keep-going" => wishes.keeps_going = true,
            other => panic!("{other}: not known; see tools/simulate"),
        }
    }
    wishes
}

/// The seed that a job runs now.
type Present = Arc<AtomicU64>;
/// In place of a seed: the job is over.
const OVER: u64 = u64::MAX;
/// No schedule takes this long, unless it goes round in a circle without making a step.
const LONGEST: Duration = Duration::from_secs(20);

/// Ends the program when a schedule does not end.
fn watch(jobs: &[Present]) {
    let mut last = vec![(OVER, Instant::now()); jobs.len()];
    loop {
        std::thread::sleep(Duration::from_secs(1));
        for (present, last) in jobs.iter().zip(&mut last) {
            let seed = present.load(Ordering::Relaxed);
            if seed != last.0 {
                *last = (seed, Instant::now());
            } else if seed != OVER && last.1.elapsed() > LONGEST {
                eprintln!("seed {seed}: goes round in a circle without a step");
                std::process::abort();
            }
        }
    }
}

/// The whole program.
pub fn main() {
    println!("simulation");
    super::catch_panics();
    let wishes = wishes();
    if let Some(seed) = wishes.replay {
        let present = Present::new(seed.into());
        std::thread::spawn(move || watch(&[present]));
        replay(seed, &wishes);
        return;
    }
    let started = Instant::now();
    let (sum, failed) = run(&wishes, started);
    if let (Some(seed), false) = (failed, wishes.keeps_going) {
        if wishes.shrinks {
            shrink(seed, play(&Scenario::drawn(seed), Choices::Drawn, false));
        }
        println!("again, step by step: tools/simulate --replay {seed}");
        std::process::exit(1);
    }
    sum.tell(started.elapsed());
    if wishes.shows_coverage {
        println!("{}", table(&sum.coverage));
    }
    if sum.failures > 0 {
        std::process::exit(1);
    }
}

/// Seeds, one after the other, for whichever job is free.
struct Queue {
    next: AtomicU64,
    /// Something failed, and that is enough.
    is_over: AtomicBool,
    /// The first seed that failed. Seeds are handed out in order, and what was begun is finished: so
    /// it is the first of all, however many jobs there are.
    failed: Mutex<Option<u64>>,
}

impl Queue {
    fn take(&self, wishes: &Wishes, started: Instant) -> Option<u64> {
        let is_late = |minutes: f64| started.elapsed() > Duration::from_secs_f64(minutes * 60.0);
        if self.is_over.load(Ordering::Relaxed) || wishes.minutes.is_some_and(is_late) {
            return None;
        }
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        let is_left = wishes.minutes.is_some() || seed < wishes.seed + wishes.schedules;
        is_left.then_some(seed)
    }

    fn note_failure(&self, seed: u64) {
        let mut failed = self.failed.lock().expect("no panic while it is locked");
        *failed = Some(failed.map_or(seed, |first| first.min(seed)));
    }
}

/// Runs all schedules. What they come to, and the first seed that failed.
fn run(wishes: &Wishes, started: Instant) -> (Sum, Option<u64>) {
    let queue = Queue {
        next: AtomicU64::new(wishes.seed),
        is_over: AtomicBool::new(false),
        failed: Mutex::new(None),
    };
    let present: Vec<Present> = (0..wishes.jobs).map(|_| Present::new(OVER.into())).collect();
    let watched = present.clone();
    std::thread::spawn(move || watch(&watched));
    let mut sum = Sum::new();
    std::thread::scope(|scope| {
        let queue = &queue;
        let job = |present| scope.spawn(move || work(queue, wishes, started, present));
        let jobs: Vec<_> = present.iter().map(job).collect();
        for job in jobs {
            sum.merge(&job.join().expect("a job catches what goes wrong in it"));
        }
    });
    let failed = queue.failed.into_inner().expect("no panic while it was locked");
    (sum, failed)
}

/// One job: schedules as long as there are any.
fn work(queue: &Queue, wishes: &Wishes, started: Instant, present: &Present) -> Sum {
    let mut sum = Sum::new();
    while let Some(seed) = queue.take(wishes, started) {
        present.store(seed, Ordering::Relaxed);
        let outcome = play(&Scenario::drawn(seed), Choices::Drawn, false);
        sum.add(&outcome);
        if seed.is_multiple_of(wishes.check_every) {
            check_repeatable(seed, &outcome);
        }
        if let Some(failure) = &outcome.failure {
            println!("seed {seed}: {failure}");
            queue.note_failure(seed);
            queue.is_over.fetch_or(!wishes.keeps_going, Ordering::Relaxed);
        }
    }
    present.store(OVER, Ordering::Relaxed);
    sum
}

fn check_repeatable(seed: u64, outcome: &Outcome) {
    let again = play(&Scenario::drawn(seed), Choices::Drawn, false);
    if outcome.fingerprint != again.fingerprint {
        println!("seed {seed} is not repeatable: {} and {} steps", outcome.steps, again.steps);
        std::process::exit(2);
    }
}

fn replay(seed: u64, wishes: &Wishes) {
    let scenario = Scenario::drawn(seed);
    println!("{scenario:#?}");
    let outcome = play(&scenario, Choices::Drawn, false);
    if let (true, Some(_)) = (wishes.shrinks, &outcome.failure) {
        let shorter = shrink(seed, outcome);
        play(&scenario, Choices::Listed(&shorter), true);
        return;
    }
    play(&scenario, Choices::Drawn, true);
}

/// Leaves choices out as long as it fails in the same way. Tells and gives what is left.
fn shrink(seed: u64, outcome: Outcome) -> Vec<Choice> {
    let scenario = Scenario::drawn(seed);
    let kind = |failure: &str| {
        let letters = failure.chars().filter(|letter| letter.is_alphabetic());
        letters.take(24).collect::<String>()
    };
    let wanted = kind(outcome.failure.as_deref().unwrap_or_default());
    let fails = |choices: &[Choice]| {
        let failure = play(&scenario, Choices::Listed(choices), false).failure;
        failure.is_some_and(|failure| kind(&failure) == wanted)
    };
    let mut choices = outcome.choices;
    if !fails(&choices) {
        println!("listed, the same choices do not fail in the same way");
        return choices;
    }
    let mut size = choices.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < choices.len() {
            let mut fewer = choices.clone();
            fewer.drain(at..(at + size).min(choices.len()));
            if fails(&fewer) { choices = fewer } else { at += size }
        }
        size = if size == 1 { 0 } else { size / 2 };
    }
    println!("{} choices are enough:", choices.len());
    for choice in &choices {
        println!("  at step {} of {}: {}", choice.step, choice.task, choice.event);
    }
    choices
}

/// What all schedules come to.
struct Sum {
    schedules: u64,
    failures: u64,
    steps: u64,
    written: u64,
    read: u64,
    coverage: Coverage,
}

impl Sum {
    fn new() -> Sum {
        let coverage = Coverage::new();
        Sum { schedules: 0, failures: 0, steps: 0, written: 0, read: 0, coverage }
    }

    fn add(&mut self, outcome: &Outcome) {
        self.schedules += 1;
        self.failures += u64::from(outcome.failure.is_some());
        self.steps += outcome.steps;
        self.written += outcome.written;
        self.read += outcome.read;
        self.coverage.add(&outcome.coverage);
    }

    fn merge(&mut self, other: &Sum) {
        self.schedules += other.schedules;
        self.failures += other.failures;
        self.steps += other.steps;
        self.written += other.written;
        self.read += other.read;
        self.coverage.add(&other.coverage);
    }

    fn tell(&self, took: Duration) {
        let each = |sum: u64| sum as f64 / self.schedules.max(1) as f64;
        println!(
            "{} schedules in {:.1} s ({:.0} a second), {} failed; each {:.0} steps, {:.1} written, \
             {:.1} read",
            self.schedules,
            took.as_secs_f64(),
            self.schedules as f64 / took.as_secs_f64(),
            self.failures,
            each(self.steps),
            each(self.written),
            each(self.read),
        );
    }
}
