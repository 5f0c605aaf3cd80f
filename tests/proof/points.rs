//! Which points there are in an operation, and what happened at each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use eshm::Role;

use super::ledger::{Page, Told};
use super::scene::Op;
use super::stage::{Cut, Stage};
use super::trace::{Path, Stop, record_changes};

/// What was done and found.
#[derive(Default)]
pub struct Tally {
    pub instructions: usize,
    pub syscalls: usize,
    pub changes: usize,
    /// Points to which the child did not come, because its path was another one this time. It was
    /// cut short elsewhere, which is checked all the same.
    pub missed: usize,
    pub failed: usize,
    answers: BTreeMap<String, usize>,
}

impl Tally {
    pub fn points(&self) -> usize {
        self.instructions + self.syscalls + self.changes
    }

    pub fn add(&mut self, other: &Tally) {
        self.instructions += other.instructions;
        self.syscalls += other.syscalls;
        self.changes += other.changes;
        self.missed += other.missed;
        self.failed += other.failed;
    }

    /// One point, if the child came to it; else one that was missed.
    pub fn count(&mut self, came: bool) -> usize {
        self.missed += usize::from(!came);
        usize::from(came)
    }

    pub fn note(&mut self, place: &str, result: Result<Told, String>) {
        match result {
            Ok(told) => {
                let answer = match told {
                    Told::Nothing => "-".to_owned(),
                    Told::Ok(_) => "ok".to_owned(),
                    Told::Fenced => "fenced".to_owned(),
                    Told::Wait => "wait".to_owned(),
                    Told::Other(text) => without_numbers(&text),
                };
                *self.answers.entry(answer).or_default() += 1;
            }
            Err(fault) => {
                self.failed += 1;
                if self.failed <= 3 {
                    println!("FAILED {place}: {fault}");
                }
            }
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let answers: Vec<String> =
            self.answers.iter().map(|(answer, count)| format!("{answer} {count}")).collect();
        format!(
            "{:6} points ({:5} instructions, {:4} calls, {:4} changes), {:3} missed; {}",
            self.points(),
            self.instructions,
            self.syscalls,
            self.changes,
            self.missed,
            answers.join(", ")
        )
    }
}

/// A text with its paths and process ids taken out, so that equal ones count as equal.
fn without_numbers(text: &str) -> String {
    let words = text.split(' ').filter(|word| !word.contains('/'));
    let words: Vec<&str> = words.map(|word| word.trim_matches(|c: char| c.is_numeric())).collect();
    words.join(" ").chars().take(60).collect()
}

/// A bus that no other point uses. All names have the same length, so that all paths are the same.
pub fn fresh_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("proof-{:07}-{count:06}", std::process::id())
}

/// One operation in one role, cut short at many points.
pub struct Subject {
    pub op: Op,
    pub role: Role,
    pub page: &'static Page,
    pub cut: Cut,
    /// At most this many points of each kind; evenly spread.
    pub most: usize,
}

impl Subject {
    fn set(&self) -> Stage {
        Stage::set(self.op, self.role, self.page, fresh_name())
    }

    fn place(&self, at: impl std::fmt::Display) -> String {
        format!("{:?} as {} {at}", self.op, self.role)
    }

    /// All points of the kind that suits the operation.
    pub fn run(&self) -> Tally {
        let mut tally = Tally::default();
        if self.op.is_long() {
            self.every_call(&mut tally);
            if self.most == usize::MAX {
                self.every_change(&mut tally);
            }
        } else {
            self.every_instruction(&mut tally);
        }
        tally
    }

    fn every_instruction(&self, tally: &mut Tally) {
        let mut stage = self.set();
        let mut path = stage.direct(Path::record);
        // The last point: the operation is over and its answer known.
        tally.instructions += 1;
        tally.note(&self.place("at its end"), stage.reckon(self.cut));
        if self.op.has_threads() {
            path = path.without_breakpoints();
        }
        // The last of them is the mark itself.
        for k in spread(path.pcs.len() - 1, self.most) {
            let mut stage = self.set();
            stage.is_hasty = k % 2 == 1;
            stage.is_anew = k % 4 == 2;
            let came = stage.direct(|child, idle| child.go(&path, k, idle));
            tally.instructions += tally.count(came);
            tally.note(&self.place(format_args!("after {k} instructions")), stage.reckon(self.cut));
        }
    }

    /// Before and after every system call.
    fn every_call(&self, tally: &mut Tally) {
        let mut stage = self.set();
        let mut stops = 0;
        while stage.direct(|child, idle| child.run_to_syscall(idle)) == Stop::Syscall {
            stops += 1;
        }
        tally.note(&self.place("at its end"), stage.reckon(self.cut));
        tally.syscalls += 1;
        for stop in spread(stops, self.most) {
            let mut stage = self.set();
            let mut came = true;
            for _ in 0..=stop {
                came =
                    came && stage.direct(|child, idle| child.run_to_syscall(idle)) == Stop::Syscall;
            }
            tally.syscalls += tally.count(came);
            let side = if stop % 2 == 0 { "before" } else { "after" };
            let place = self.place(format_args!("{side} call {}", stop / 2));
            tally.note(&place, stage.reckon(self.cut));
        }
    }

    /// After every instruction that changes a segment.
    fn every_change(&self, tally: &mut Tally) {
        let mut stage = self.set();
        let path = format!("/dev/shm/eshm_{}", stage.scene.name);
        let stretches = stage.direct(|child, _| record_changes(child, &path));
        tally.note(&self.place("recorded"), stage.reckon(self.cut));
        for (call, stretch) in stretches.iter().enumerate() {
            for &change in &stretch.changes {
                let mut stage = self.set();
                let came = stage.direct(|child, idle| {
                    let mut came = true;
                    for _ in 0..2 * call {
                        came = came && child.run_to_syscall(None) == Stop::Syscall;
                    }
                    came && child.go(&stretch.path, change, idle)
                });
                tally.changes += tally.count(came);
                let place = self.place(format_args!("call {call}, {change} instructions on"));
                tally.note(&place, stage.reckon(self.cut));
            }
        }
    }
}

/// At most `most` of the numbers below `count`, from the first to the last.
pub fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|index| index * (count - 1) / (most - 1).max(1)).collect()
}

/// All operations in all their roles; prints a line for each. How many points failed.
pub fn run_all(ops: &[Op], cut: Cut, most: [usize; 2], wants: impl Fn(&str) -> bool) -> Tally {
    let page = Page::new();
    let mut total = Tally::default();
    let started = Instant::now();
    for (index, &op) in ops.iter().enumerate() {
        for (turn, &role) in op.roles().iter().enumerate() {
            let most = most[usize::from(op.is_long())];
            // In the quick version the roles take turns, and killing and freezing the other way.
            let is_other = (index + turn + cut as usize) % 2 == 1;
            if most != usize::MAX && op.roles().len() > 1 && is_other {
                continue;
            }
            let name = format!("{op:?} {role}");
            if !wants(&name) {
                continue;
            }
            let began = Instant::now();
            let tally = Subject { op, role, page, cut, most }.run();
            println!("{name:24} {} [{:.1} s]", tally.line(), began.elapsed().as_secs_f32());
            total.add(&tally);
        }
    }
    println!(
        "total: {} points ({} instructions, {} calls, {} changes), {} missed, {} failed, {:.0} s",
        total.points(),
        total.instructions,
        total.syscalls,
        total.changes,
        total.missed,
        total.failed,
        started.elapsed().as_secs_f32()
    );
    total
}
