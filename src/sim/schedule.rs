//! Who runs next, and what goes wrong: the choices of a schedule.
//!
//! A choice is made at a step of a task, and is known by that: the task and its how-many-th step. So
//! a schedule is a list of choices, short enough to be read; without any it runs too, each task until
//! it waits or has had its share. Drawn from a seed or read from a list, a choice does the same; and
//! a list from which some are left out still means something, which is what shrinking needs.

use std::collections::BTreeMap;

use super::calls::{CALLS, Call};
use super::kernel::{Life, ProcessId};
use super::random::Random;
use super::world::{Key, On, State, World, resume, with};

/// What goes on after a step.
pub(super) enum Next {
    Go,
    Refuse(i32),
    /// The task hands the baton back.
    Suspend,
}

/// Something that is not the ordinary course of things. Processes go by actor and life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Event {
    /// That task goes on instead.
    Switch(Key),
    /// A process dies, and what it holds is given back after so long.
    Kill(u8, u8, u64),
    /// A process is stopped for so long.
    Stop(u8, u8, u64),
    /// The call is refused with this error.
    Refuse(i32),
    /// All but so many pages are gone, for so long.
    Space(u64, u64),
    /// The process may have so many descriptors, for so long.
    Descriptors(u8, u8, u64, u64),
    /// The file system is read-only for so long.
    ReadOnly(u64),
    /// Membarrier is forbidden to a process from now on.
    ForbidBarrier(u8, u8),
    /// The current process forks; bare, no handlers run. The child lives for so long.
    Fork(bool, u64),
    /// Time passes in which nobody runs.
    Jump(u64),
    /// The machine sleeps for so long; only the time of day goes on.
    Doze(u64),
    /// The task's wait ends although nobody woke it.
    Spurious(Key),
    /// Every descriptor of the current process is closed by its own program.
    CloseAll,
}

/// Kinds of events, in the order of [`Chooser::weights`].
pub(super) const KINDS: usize = 13;

/// A choice: at which step of which task, and what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Choice {
    pub task: Key,
    pub step: u32,
    pub event: Event,
}

enum Source {
    Drawn(Random),
    Listed(BTreeMap<(Key, u32), Vec<Event>>),
    Calm,
}

/// Something that passes.
enum Spell {
    Space(u64),
    Descriptors(ProcessId, usize),
    ReadOnly,
    Child(ProcessId),
}

/// How often each call was met by what.
#[derive(Clone)]
pub(super) struct Coverage {
    pub count: [u64; CALLS],
    pub kills: [u64; CALLS],
    pub stops: [u64; CALLS],
    pub refusals: Vec<[u64; 8]>,
    pub events: [u64; KINDS],
}

pub(super) struct Chooser {
    source: Source,
    /// Steps that a task may make before others have their turn.
    pub slice: u32,
    /// How long a step takes.
    pub step_ns: u64,
    /// How rare events are, and of which kinds.
    mean_gap: u64,
    weights: [u16; KINDS],
    countdown: i64,
    /// What was chosen.
    pub choices: Vec<Choice>,
    preferred: Option<usize>,
    spells: Vec<(u64, Spell)>,
    pub coverage: Coverage,
    /// No more choices after so many steps.
    pub calm_after: u64,
    /// A schedule that takes longer does not come to rest.
    pub limit: u64,
}

impl Coverage {
    pub fn new() -> Coverage {
        Coverage {
            count: [0; CALLS],
            kills: [0; CALLS],
            stops: [0; CALLS],
            refusals: vec![[0; 8]; CALLS],
            events: [0; KINDS],
        }
    }

    pub fn add(&mut self, other: &Coverage) {
        for call in 0..CALLS {
            self.count[call] += other.count[call];
            self.kills[call] += other.kills[call];
            self.stops[call] += other.stops[call];
            for (sum, part) in self.refusals[call].iter_mut().zip(&other.refusals[call]) {
                *sum += part;
            }
        }
        for (sum, part) in self.events.iter_mut().zip(&other.events) {
            *sum += part;
        }
    }
}

impl Chooser {
    /// Choices drawn from a seed: few or many, of some kinds or all.
    pub fn drawn(seed: u64) -> Chooser {
        let mut random = Random::new(seed ^ 0x5eed);
        let mut chooser = Chooser::plain(&mut random);
        for weight in &mut chooser.weights {
            *weight = random.one_of(&[0, 0, 1, 1, 4]);
        }
        chooser.weights[0] = random.one_of(&[2, 8, 30]);
        chooser.countdown = random.gap(chooser.mean_gap) as i64;
        chooser.source = Source::Drawn(random);
        chooser
    }

    /// Choices as they were made before; the rest as that seed has it.
    pub fn listed(seed: u64, choices: &[Choice]) -> Chooser {
        let mut chooser = Chooser::plain(&mut Random::new(seed ^ 0x5eed));
        let mut list: BTreeMap<(Key, u32), Vec<Event>> = BTreeMap::new();
        for choice in choices {
            list.entry((choice.task, choice.step)).or_default().push(choice.event);
        }
        chooser.source = Source::Listed(list);
        chooser
    }

    fn plain(random: &mut Random) -> Chooser {
        Chooser {
            source: Source::Calm,
            slice: random.one_of(&[20, 100, 500]),
            step_ns: random.one_of(&[100, 500, 2_000, 10_000]),
            mean_gap: random.one_of(&[10, 40, 150, 600, 2500]),
            weights: [0; KINDS],
            countdown: i64::MAX,
            choices: Vec::new(),
            preferred: None,
            spells: Vec::new(),
            coverage: Coverage::new(),
            calm_after: 4000,
            limit: 400_000,
        }
    }

    pub fn is_calm(&self) -> bool {
        matches!(self.source, Source::Calm)
    }
}

impl World {
    /// A task is about to make a step.
    pub fn consider(&mut self, call: Call) -> Next {
        let Some(current) = self.current else { return Next::Go };
        if self.failure.is_some() {
            // What unwinds runs its destructors; nobody else runs on.
            return if std::thread::panicking() { Next::Go } else { Next::Suspend };
        }
        if self.must_be_still {
            self.fail(format!("a handle that is dropped in a child makes a step: {call:?}"));
            return Next::Suspend;
        }
        self.steps += 1;
        self.kernel.now = self.steps;
        self.now_ns += self.chooser.step_ns;
        self.wall_ns += self.chooser.step_ns;
        self.chooser.coverage.count[call as usize] += 1;
        let mixed = self.fingerprint ^ (current as u64) << 8 ^ call as u64 ^ self.now_ns << 16;
        self.fingerprint = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let task = &mut self.tasks[current];
        task.steps += 1;
        task.at = call;
        if self.steps >= self.chooser.calm_after && !self.chooser.is_calm() {
            self.calm_down();
        }
        if self.steps > self.chooser.limit {
            let states = self.states();
            match self.is_lenient {
                true => self.is_over = true,
                false => self.fail(format!("no rest after {} steps: {states}", self.steps)),
            }
            return Next::Suspend;
        }
        if let Some(crime) = self.kernel.crime.take() {
            self.fail(crime);
            return Next::Suspend;
        }
        let chosen = self.choose(current, call);
        if matches!(chosen, Next::Go) {
            self.slice_left = self.slice_left.saturating_sub(1);
            if self.slice_left == 0 {
                return Next::Suspend;
            }
        }
        chosen
    }

    fn choose(&mut self, current: usize, call: Call) -> Next {
        let (task, step) = (self.tasks[current].key, self.tasks[current].steps);
        match &mut self.chooser.source {
            Source::Calm => Next::Go,
            Source::Drawn(_) => {
                self.chooser.countdown -= call.weight();
                if self.chooser.countdown > 0 {
                    return Next::Go;
                }
                let Some(event) = self.draw(current, call) else { return Next::Go };
                self.chooser.choices.push(Choice { task, step, event });
                self.apply(event, current, call)
            }
            Source::Listed(list) => {
                let Some(events) = list.remove(&(task, step)) else { return Next::Go };
                let mut next = Next::Go;
                for event in events {
                    self.chooser.choices.push(Choice { task, step, event });
                    match self.apply(event, current, call) {
                        Next::Go => {}
                        other => next = other,
                    }
                }
                next
            }
        }
    }

    // --- drawing ------------------------------------------------------------------------------

    fn draw(&mut self, current: usize, call: Call) -> Option<Event> {
        let Source::Drawn(random) = &mut self.chooser.source else { return None };
        let mut random = random.clone();
        self.chooser.countdown = random.gap(self.chooser.mean_gap) as i64;
        let sum: u64 = self.chooser.weights.iter().map(|&weight| u64::from(weight)).sum();
        let mut place = random.below(sum);
        let mut kind = 0;
        while place >= u64::from(self.chooser.weights[kind]) {
            place -= u64::from(self.chooser.weights[kind]);
            kind += 1;
        }
        let event = self.draw_kind(kind, current, call, &mut random);
        if event.is_some() {
            self.chooser.coverage.events[kind] += 1;
        }
        if let Source::Drawn(stored) = &mut self.chooser.source {
            *stored = random;
        }
        event
    }

    fn draw_kind(
        &self,
        kind: usize,
        current: usize,
        call: Call,
        random: &mut Random,
    ) -> Option<Event> {
        const MS: u64 = 1_000_000;
        let spell = random.one_of(&[MS / 10, MS, 5 * MS, 30 * MS]);
        let mine = self.victim(Some(self.tasks[current].process), random);
        let any = |random: &mut Random| match random.once_in(2) {
            true => mine,
            false => self.victim(None, random),
        };
        Some(match kind {
            0 => Event::Switch(self.other(random, current, |state| state == State::Ready)?),
            1 => {
                let (actor, life) = any(random)?;
                Event::Kill(actor, life, random.one_of(&[0, 0, 0, MS, 20 * MS]))
            }
            2 => {
                let (actor, life) = any(random)?;
                Event::Stop(actor, life, random.one_of(&[MS / 10, MS, 15 * MS, 60 * MS, 200 * MS]))
            }
            3 => match call.refusals() {
                [] => return None,
                list if mine.is_some() => Event::Refuse(random.one_of(list)),
                _ => return None,
            },
            4 => Event::Space(random.below(64), spell),
            5 => {
                let (actor, life) = any(random)?;
                Event::Descriptors(actor, life, random.below(3), spell)
            }
            6 => Event::ReadOnly(spell),
            7 => {
                let (actor, life) = any(random)?;
                Event::ForbidBarrier(actor, life)
            }
            8 => mine.map(|_| Event::Fork(random.once_in(3), spell * 4))?,
            9 => Event::Jump(random.one_of(&[MS / 2, 5 * MS, 60 * MS, 3_600_000 * MS])),
            10 => Event::Doze(random.one_of(&[1000 * MS, 3_600_000 * MS])),
            11 => {
                let waits = |state| matches!(state, State::Waiting(On::Word(_) | On::Deaths, _));
                Event::Spurious(self.other(random, current, waits)?)
            }
            _ => mine.map(|_| Event::CloseAll)?,
        })
    }

    /// Another task in such a state.
    fn other(
        &self,
        random: &mut Random,
        current: usize,
        fits: impl Fn(State) -> bool,
    ) -> Option<Key> {
        let count = self.tasks.len();
        let start = random.below(count as u64) as usize;
        (0..count).map(|step| (start + step) % count).find_map(|index| {
            let task = &self.tasks[index];
            let runs = self.kernel.processes[task.process].life == Life::Running;
            (index != current && runs && fits(task.state)).then_some(task.key)
        })
    }

    /// A process to which things may happen.
    fn victim(&self, which: Option<ProcessId>, random: &mut Random) -> Option<(u8, u8)> {
        let count = self.actors.len();
        let start = random.below(count.max(1) as u64) as usize;
        (0..count).map(|step| (start + step) % count).find_map(|index| {
            let actor = &self.actors[index];
            let life = self.kernel.processes[actor.process].life;
            let fits = which.is_none_or(|process| process == actor.process)
                && actor.is_fair_game
                && matches!(life, Life::Running | Life::Stopped);
            fits.then_some((actor.key.actor, actor.key.life))
        })
    }

    // --- applying -----------------------------------------------------------------------------

    fn apply(&mut self, event: Event, current: usize, call: Call) -> Next {
        if self.is_verbose {
            self.tell(call, &format!("*** {event}"));
        }
        let process = self.tasks[current].process;
        match event {
            Event::Switch(key) => {
                self.chooser.preferred = self.index_of(key);
                return Next::Suspend;
            }
            Event::Kill(actor, life, linger_ns) => {
                return self.strike(actor, life, process, |world, victim| {
                    world.count(victim, |coverage| &mut coverage.kills);
                    world.kill(victim, linger_ns);
                });
            }
            Event::Stop(actor, life, for_ns) => {
                return self.strike(actor, life, process, |world, victim| {
                    world.count(victim, |coverage| &mut coverage.stops);
                    world.stop(victim, for_ns);
                });
            }
            Event::Refuse(errno) => {
                let place = call.refusals().iter().position(|&it| it == errno);
                let Some(place) = place else { return Next::Go };
                self.chooser.coverage.refusals[call as usize][place] += 1;
                if let Some(actor) = self.actor_mut(process) {
                    actor.refused += 1;
                }
                return Next::Refuse(errno);
            }
            Event::Jump(ns) => {
                self.now_ns += ns;
                self.wall_ns += ns;
                return Next::Suspend;
            }
            other => self.apply_quietly(other),
        }
        Next::Go
    }

    /// Those after which the task goes on.
    fn apply_quietly(&mut self, event: Event) {
        match event {
            Event::Space(left, for_ns) => {
                self.is_short = true;
                let taken = self.kernel.free_pages.saturating_sub(left);
                self.kernel.free_pages -= taken;
                self.cast(Spell::Space(taken), for_ns);
            }
            Event::Descriptors(actor, life, limit, for_ns) => {
                if let Some(victim) = self.process_of(actor, life) {
                    let before = self.kernel.processes[victim].fd_limit;
                    self.kernel.processes[victim].fd_limit = limit as usize;
                    if let Some(actor) = self.actor_mut(victim) {
                        actor.refused += 1;
                    }
                    self.cast(Spell::Descriptors(victim, before.max(64)), for_ns);
                }
            }
            Event::ReadOnly(for_ns) => {
                self.is_short = true;
                self.kernel.is_read_only = true;
                self.cast(Spell::ReadOnly, for_ns);
            }
            Event::ForbidBarrier(actor, life) => {
                if let Some(victim) = self.process_of(actor, life) {
                    self.kernel.processes[victim].is_barrier_forbidden = true;
                    if let Some(actor) = self.actor_mut(victim) {
                        actor.refused += 1;
                    }
                }
            }
            Event::Fork(is_bare, for_ns) => self.fork_idle(is_bare, for_ns),
            Event::Doze(ns) => self.wall_ns += ns,
            Event::Spurious(key) => {
                if let Some(task) = self.index_of(key).map(|index| &mut self.tasks[index])
                    && matches!(task.state, State::Waiting(On::Word(_) | On::Deaths, _))
                {
                    (task.state, task.is_woken) = (State::Ready, true);
                }
            }
            Event::CloseAll => {
                let who = self.who();
                let table = self.kernel.processes[who.process].table;
                let mine = super::kernel::Who { table, ..who };
                let fds: Vec<i32> = self.kernel.tables[table].fds.keys().copied().collect();
                for fd in fds {
                    let _ = self.kernel.close(mine, fd);
                }
                if let Some(actor) = self.actor_mut(who.process) {
                    actor.was_closed = true;
                }
            }
            _ => {}
        }
    }

    /// Something happens to a process, perhaps to the current one.
    fn strike(
        &mut self,
        actor: u8,
        life: u8,
        current: ProcessId,
        how: impl FnOnce(&mut World, ProcessId),
    ) -> Next {
        let Some(victim) = self.process_of(actor, life) else { return Next::Go };
        how(self, victim);
        if victim == current { Next::Suspend } else { Next::Go }
    }

    fn count(&mut self, victim: ProcessId, of: impl Fn(&mut Coverage) -> &mut [u64; CALLS]) {
        for task in &self.tasks {
            if task.process == victim && task.state != State::Over {
                of(&mut self.chooser.coverage)[task.at as usize] += 1;
            }
        }
    }

    fn index_of(&self, key: Key) -> Option<usize> {
        self.tasks.iter().position(|task| task.key == key)
    }

    /// A child that does nothing, but has what a child has.
    fn fork_idle(&mut self, is_bare: bool, for_ns: u64) {
        let child = self.kernel.fork(self.who(), is_bare);
        self.cast(Spell::Child(child), for_ns);
    }

    fn cast(&mut self, spell: Spell, for_ns: u64) {
        self.chooser.spells.push((self.now_ns + for_ns, spell));
    }

    fn lift(&mut self, spell: Spell) {
        match spell {
            Spell::Space(pages) => self.kernel.free_pages += pages,
            Spell::Descriptors(process, limit) => self.kernel.processes[process].fd_limit = limit,
            Spell::ReadOnly => self.kernel.is_read_only = false,
            Spell::Child(child) => {
                self.kernel.processes[child].life = Life::Dying;
                while self.kernel.reap_one(child) {}
            }
        }
    }

    /// No more choices: everything that passes has passed, and who was stopped goes on.
    pub fn calm_down(&mut self) {
        self.chooser.source = Source::Calm;
        for (_, spell) in std::mem::take(&mut self.chooser.spells) {
            self.lift(spell);
        }
        let processes: Vec<ProcessId> = self.actors.iter().map(|actor| actor.process).collect();
        processes.into_iter().for_each(|process| self.go_on(process));
    }

    // --- the course of time -------------------------------------------------------------------

    /// What is due by now: spells, stops, waits, and what the dead hold.
    fn catch_up(&mut self) {
        let now = self.now_ns;
        while let Some(due) = self.chooser.spells.iter().position(|(at, _)| *at <= now) {
            let (_, spell) = self.chooser.spells.swap_remove(due);
            self.lift(spell);
        }
        for index in 0..self.actors.len() {
            let process = self.actors[index].process;
            if self.actors[index].continue_at <= now {
                self.go_on(process);
            }
            if self.actors[index].reap_at <= now && !self.kernel.reap_one(process) {
                self.actors[index].reap_at = u64::MAX;
                self.tell_death(process);
            }
        }
        for task in &mut self.tasks {
            if matches!(task.state, State::Waiting(_, until) if until <= now) {
                task.state = State::Ready;
            }
        }
    }

    fn tell_death(&mut self, process: ProcessId) {
        let pid = self.kernel.processes[process].pid;
        for task in &mut self.tasks {
            if matches!(task.state, State::Waiting(On::Deaths, _)) && task.watching.contains(&pid) {
                (task.state, task.is_woken) = (State::Ready, true);
            }
        }
    }

    /// When something is due next.
    fn next_due(&self) -> Option<u64> {
        let spells = self.chooser.spells.iter().map(|(at, _)| *at);
        let actors = self.actors.iter().map(|actor| actor.continue_at.min(actor.reap_at));
        let waits = self.tasks.iter().filter_map(|task| match task.state {
            State::Waiting(_, until) if self.runs(task.process) => Some(until),
            _ => None,
        });
        spells.chain(actors).chain(waits).min().filter(|&at| at != u64::MAX)
    }

    fn runs(&self, process: ProcessId) -> bool {
        self.kernel.processes[process].life == Life::Running
    }

    /// The task that runs now, if any can.
    fn pick(&mut self, last: usize) -> Option<usize> {
        let wished = self.chooser.preferred.take();
        let can = |index: usize| {
            let task = &self.tasks[index];
            task.state == State::Ready && self.runs(task.process)
        };
        let preferred = wished.filter(|&index| can(index));
        let count = self.tasks.len();
        preferred.or_else(|| (1..=count).map(|step| (last + step) % count).find(|&it| can(it)))
    }

    fn states(&self) -> String {
        let of = |task: &super::world::Task| format!("{} {:?} {:?}", task.key, task.at, task.state);
        let alive = self.tasks.iter().filter(|task| task.state != State::Over);
        alive.map(of).collect::<Vec<_>>().join(", ")
    }
}

/// What decides which processes there are.
pub(super) trait Director {
    /// The process is dead, and holds nothing any more.
    fn ended(&mut self, process: ProcessId);
    /// Nobody is left. False if nothing is to follow.
    fn rest(&mut self) -> bool;
}

/// Runs the world of this thread until nothing is left to do, or something is wrong.
pub(super) fn run(director: &mut dyn Director) {
    let mut last = 0;
    loop {
        let next = with(|world| {
            world.bury();
            if let Some(crime) = world.kernel.crime.take() {
                world.fail(crime);
            }
            if world.failure.is_some() || world.is_over {
                return None;
            }
            world.catch_up();
            Some(world.pick(last))
        });
        let Some(next) = next else { return };
        if report_ends(director) {
            continue;
        }
        match next {
            Some(index) => {
                with(|world| world.slice_left = world.chooser.slice);
                last = index;
                resume(index);
            }
            None if !pass_time() && !director.rest() => return,
            None => {}
        }
    }
}

/// Tells the director of a process that has ended; false if none has.
fn report_ends(director: &mut dyn Director) -> bool {
    let ended = with(|world| {
        let kernel = &world.kernel;
        let news = world
            .actors
            .iter_mut()
            .find(|actor| actor.is_news && kernel.processes[actor.process].life == Life::Dead);
        news.map(|actor| {
            actor.is_news = false;
            actor.process
        })
    });
    if let Some(process) = ended {
        director.ended(process);
    }
    ended.is_some()
}

/// Nobody can run: time goes on to where somebody can. False if nobody ever can.
fn pass_time() -> bool {
    with(|world| {
        if let Some(due) = world.next_due() {
            world.wall_ns += due.saturating_sub(world.now_ns);
            world.now_ns = world.now_ns.max(due);
            return true;
        }
        if world.tasks.iter().any(|task| task.state != State::Over) {
            let states = world.states();
            world.fail(format!("everybody waits for ever: {states}"));
        }
        false
    })
}
