//! The world of one schedule: the kernel, the tasks that run on it, and who runs now.
//!
//! Each thread of a simulated process is a coroutine. All of them share one thread of the real
//! machine and hand over a baton: a task runs until a step at which the schedule says otherwise, or
//! until it waits. So the code under test is the code that ships, and nothing ever runs at the same
//! time; what is explored is the order of the steps.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use super::calls::Call;
use super::kernel::{Access, Fault, Ino, Kernel, Life, ProcessId, TableId, Who};
use super::ledger::Ledger;
use super::rules::{Seated, Visits};
use super::schedule::{Chooser, Next};
use crate::layout::Turn;

/// Bytes of stack of a task.
const STACK: usize = 256 << 10;

/// Which task, the same in every run of a schedule: the actor, its how-many-th life, the thread.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    pub actor: u8,
    pub life: u8,
    pub thread: u16,
}

/// What a task waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum On {
    Time,
    /// A word, by its address, and by its process if it is private.
    Word(usize),
    Mutex(usize),
    Deaths,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    Ready,
    /// Waits, until this time at the latest.
    Waiting(On, u64),
    Over,
}

pub(super) struct Task {
    pub key: Key,
    pub process: ProcessId,
    pub table: TableId,
    pub state: State,
    /// What it is about to do, or in the middle of.
    pub at: Call,
    /// How many it has made.
    pub steps: u32,
    /// How its last wait ended.
    pub is_woken: bool,
    /// The processes whose death wakes it.
    pub watching: Vec<u32>,
    coroutine: Option<Coroutine<(), (), (), DefaultStack>>,
    yielder: *const Yielder<(), ()>,
}

/// What a process of the schedule is, beyond what the kernel knows.
pub(super) struct Actor {
    pub key: Key,
    pub process: ProcessId,
    /// Stopped until then.
    pub continue_at: u64,
    /// Dying, and what it holds is given back from then on.
    pub reap_at: u64,
    /// Threads that it has started besides its first.
    pub threads: u16,
    /// Nobody has been told of its end.
    pub is_news: bool,
    /// May be killed, stopped and refused things.
    pub is_fair_game: bool,
    /// How often the system refused it something out of the blue; its descriptors were closed.
    pub refused: u32,
    pub was_closed: bool,
    /// Removes buses, whatever is unread; or those that nobody holds and in which nothing is.
    pub may_remove: bool,
    pub collects: bool,
    /// When its background thread ran last, and the long times in which it did not.
    pub ran_at: u64,
    /// How long others ran while a thread of this process could have.
    pub stolen_ns: u64,
    pub silences: Vec<(u64, u64)>,
}

/// Shorter times without a beat are not kept.
const SILENCE: u64 = 2_000_000;

impl Actor {
    /// The longest time without a step of the background thread that ended after `since`.
    pub fn longest_silence(&self, since: u64, now: u64) -> u64 {
        let ended = self.silences.iter().filter(|(_, end)| *end >= since);
        ended.map(|(from, end)| end - from).chain([now - self.ran_at]).max().unwrap_or(0)
    }
}

pub(super) struct World {
    pub kernel: Kernel,
    pub ledger: Ledger,
    pub chooser: Chooser,
    pub tasks: Vec<Task>,
    pub actors: Vec<Actor>,
    pub current: Option<usize>,
    /// Awake time and time of day, in nanoseconds.
    pub now_ns: u64,
    pub wall_ns: u64,
    pub steps: u64,
    pub slice_left: u32,
    /// The file was changed from outside: then rest may be long in coming, and is not waited for.
    pub is_lenient: bool,
    pub is_over: bool,
    /// Whoever runs now must make no step at all.
    pub must_be_still: bool,
    /// Of all steps so far: the same schedule has the same.
    pub fingerprint: u64,
    pub failure: Option<String>,
    pub is_verbose: bool,
    pub random_state: u64,
    pub cores: usize,
    /// Memory was short, or the file system read-only, for somebody at some time.
    pub is_short: bool,
    /// Who has which role, as far as it was told, and how often each file was opened and left.
    pub seated: Vec<Seated>,
    pub visits: BTreeMap<Ino, Visits>,
    /// The file whose turn is stored to after the present step, and the turn before.
    pub swapped: Option<(Ino, Turn, ProcessId)>,
    /// When a retired file was last revived; and those that were unlinked in that very moment.
    pub revived: BTreeMap<Ino, u64>,
    pub abandoned: Vec<Ino>,
}

thread_local! {
    static WORLD: Cell<*mut World> = const { Cell::new(ptr::null_mut()) };
    static STACKS: Cell<Vec<DefaultStack>> = const { Cell::new(Vec::new()) };
}

/// The process that the harness itself is: root, and never killed.
pub(super) const HARNESS: Who = Who { process: 0, table: 0 };

/// Makes this world the one of this thread while `run` runs.
pub(super) fn enter<T>(world: &mut World, run: impl FnOnce() -> T) -> T {
    let before = WORLD.replace(world);
    let result = run();
    WORLD.set(before);
    result
}

/// Whether this thread simulates at all.
#[inline]
pub(super) fn is_inside() -> bool {
    !WORLD.get().is_null()
}

/// The world, for a moment: `look` must neither take a step nor wait.
#[inline]
pub(super) fn with<T>(look: impl FnOnce(&mut World) -> T) -> T {
    let world = WORLD.get();
    assert!(!world.is_null(), "a call into the simulated system from outside of any schedule");
    // SAFETY: set by `enter`, which outlives all that runs inside; everything runs on this one
    // thread, and no `look` switches to another task, so this is the only reference.
    look(unsafe { &mut *world })
}

/// One step of the current task. The number of an error if the system refuses it.
pub(super) fn step(call: Call) -> Option<i32> {
    step_at(call, None)
}

/// The same, with what a reader of the log wants to know.
pub(super) fn step_with(call: Call, about: impl FnOnce() -> String) -> Option<i32> {
    if is_inside() && with(|world| world.is_verbose) {
        let line = about();
        with(|world| world.tell(call, &line));
    }
    step(call)
}

fn step_at(call: Call, place: Option<(usize, u64)>) -> Option<i32> {
    if !is_inside() {
        return None;
    }
    let next = with(|world| {
        if let (true, Some((buffer, off))) = (world.is_verbose, place) {
            world.tell(call, &format!("file {buffer} at {off:#x}"));
        }
        world.check_turn();
        world.consider(call)
    });
    match next {
        Next::Go => None,
        Next::Refuse(errno) => Some(errno),
        Next::Suspend => {
            suspend();
            None
        }
    }
}

/// The current task goes to sleep; false if the time is up before it is woken.
pub(super) fn wait(on: On, deadline: u64) -> bool {
    let must_wait = with(|world| {
        let Some(current) = world.current else { return false };
        if std::thread::panicking() {
            world.now_ns = world.now_ns.max(deadline.min(world.now_ns + 1_000_000_000));
            return false;
        }
        world.tasks[current].state = State::Waiting(on, deadline);
        world.tasks[current].is_woken = false;
        true
    });
    if !must_wait {
        return false;
    }
    suspend();
    with(|world| world.current.is_some_and(|current| world.tasks[current].is_woken))
}

/// Hands the baton back. Returns when this task is to run on, which is never if it was killed.
fn suspend() {
    let yielder = with(|world| world.current.map(|current| world.tasks[current].yielder));
    if let Some(yielder) = yielder {
        // SAFETY: set at the beginning of the task, on whose stack this runs, and alive as long.
        unsafe { &*yielder }.suspend(());
    }
}

/// A step before an access to this word, if it lies in a file. What the access must do instead of
/// being made, if anything.
#[inline]
pub(crate) fn word_step(address: usize, is_store: bool) -> Reach {
    match super::kernel::place_of(address) {
        None => Reach::There,
        Some(place) => shared_step(place, is_store),
    }
}

/// Whether a word can be reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    There,
    /// A guard has put zeros there.
    Zeros,
}

#[inline(never)]
fn shared_step(place: (usize, u64), is_store: bool) -> Reach {
    if !is_inside() {
        return Reach::There;
    }
    let (call, access) =
        if is_store { (Call::Store, Access::Store) } else { (Call::Load, Access::Load) };
    step_at(call, Some(place));
    let fault = with(|world| {
        let who = world.who();
        if world.failure.is_some() || who == HARNESS {
            return None;
        }
        world.note_swap(place, is_store);
        let fault = world.kernel.access(who.process, place, access).err()?;
        match fault {
            Fault::Guarded => {}
            Fault::Bus => world.kill(who.process, 0),
            Fault::Unmapped => {
                let (key, (file, off)) = (world.key(), place);
                world.fail(format!("{key:?}: {access:?} of file {file} at {off:#x}, not mapped"));
            }
        }
        Some(fault)
    });
    match fault {
        None => Reach::There,
        Some(Fault::Guarded) => Reach::Zeros,
        Some(_) => {
            suspend();
            Reach::Zeros
        }
    }
}

impl World {
    /// Nothing but the harness, and a file system with so much room.
    pub fn new(chooser: Chooser, free_pages: u64) -> World {
        let mut kernel = Kernel::new(free_pages);
        let harness = kernel.spawn(0, 0, Some(1));
        kernel.processes[harness].is_foreign = true;
        World {
            kernel,
            ledger: Ledger::default(),
            slice_left: chooser.slice,
            chooser,
            tasks: Vec::new(),
            actors: Vec::new(),
            current: None,
            now_ns: 1_000_000_000_000,
            wall_ns: 1_700_000_000_000_000_000,
            steps: 0,
            is_lenient: false,
            is_over: false,
            must_be_still: false,
            fingerprint: 0,
            failure: None,
            is_verbose: false,
            random_state: 1,
            cores: 1,
            is_short: false,
            seated: Vec::new(),
            visits: BTreeMap::new(),
            swapped: None,
            revived: BTreeMap::new(),
            abandoned: Vec::new(),
        }
    }

    /// Who makes the present step.
    pub fn who(&self) -> Who {
        self.current.map_or(HARNESS, |current| {
            let task = &self.tasks[current];
            Who { process: task.process, table: task.table }
        })
    }

    /// The task that runs now.
    pub fn key(&self) -> Option<Key> {
        self.current.map(|current| self.tasks[current].key)
    }

    /// The schedule ends here, badly.
    pub fn fail(&mut self, why: String) {
        if self.failure.is_none() {
            if self.is_verbose {
                eprintln!("FAILED {why}");
            }
            self.failure = Some(why);
        }
    }

    pub fn tell(&self, call: Call, about: &str) {
        let (at_us, key) = ((self.now_ns - 1_000_000_000_000) as f64 / 1e3, self.key());
        let key = key.map_or("harness".into(), |key| key.to_string());
        eprintln!("{:>7} {at_us:>11.1} us {key:<8} {call:?} {about}", self.steps);
    }

    // --- processes and tasks ------------------------------------------------------------------

    /// A new process of an actor, which runs `main` and then exits.
    pub fn start(&mut self, key: Key, process: ProcessId, main: Box<dyn FnOnce()>) {
        let is_fair_game = !self.kernel.processes[process].is_foreign;
        let table = self.kernel.processes[process].table;
        self.actors.push(Actor {
            key,
            process,
            continue_at: u64::MAX,
            reap_at: u64::MAX,
            threads: 0,
            is_news: true,
            is_fair_game,
            refused: 0,
            was_closed: false,
            may_remove: false,
            collects: false,
            ran_at: self.now_ns,
            stolen_ns: 0,
            silences: Vec::new(),
        });
        self.add_task(key, process, table, main);
    }

    /// A further thread of the current process.
    pub fn start_thread(&mut self, main: Box<dyn FnOnce()>) {
        let (who, now_ns) = (self.who(), self.now_ns);
        let actor = self.actor_mut(who.process).expect("only actors have threads");
        actor.threads += 1;
        actor.ran_at = now_ns;
        let key = Key { thread: actor.threads, ..actor.key };
        self.add_task(key, who.process, who.table, main);
    }

    fn add_task(&mut self, key: Key, process: ProcessId, table: TableId, main: Box<dyn FnOnce()>) {
        let index = self.tasks.len();
        let stack = super::heap::outside(|| {
            let mut stacks = STACKS.take();
            let stack = stacks.pop();
            STACKS.set(stacks);
            stack.unwrap_or_else(|| DefaultStack::new(STACK).expect("a stack"))
        });
        let coroutine = Coroutine::with_stack(stack, move |yielder: &Yielder<(), ()>, ()| {
            with(|world| world.tasks[index].yielder = yielder);
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(main));
            with(|world| {
                world.tasks[index].state = State::Over;
                if result.is_err() {
                    world.fail(format!("{key}: panicked: {}", super::take_panic()));
                }
                if key.thread == 0 {
                    world.kill(process, 0);
                }
            });
        });
        self.tasks.push(Task {
            key,
            process,
            table,
            state: State::Ready,
            at: Call::Begin,
            steps: 0,
            is_woken: false,
            watching: Vec::new(),
            coroutine: Some(coroutine),
            yielder: ptr::null(),
        });
    }

    pub fn actor_mut(&mut self, process: ProcessId) -> Option<&mut Actor> {
        self.actors.iter_mut().find(|actor| actor.process == process)
    }

    /// A task runs now, or ran until now.
    fn note_run(&mut self, index: usize) {
        let (now, process) = (self.now_ns, self.tasks[index].process);
        if self.tasks[index].key.thread == 0 {
            return;
        }
        if let Some(actor) = self.actor_mut(process) {
            let from = std::mem::replace(&mut actor.ran_at, now);
            if now - from > SILENCE {
                actor.silences.push((from, now));
            }
        }
    }

    /// The time, without what others took from the current process.
    pub fn own_time_ns(&self) -> u64 {
        let process = self.who().process;
        let actor = self.actors.iter().find(|actor| actor.process == process);
        self.now_ns - actor.map_or(0, |actor| actor.stolen_ns)
    }

    /// A process has run for so long, while others could have.
    fn note_theft(&mut self, by: ProcessId, taken_ns: u64) {
        let tasks = &self.tasks;
        for actor in self.actors.iter_mut().filter(|actor| actor.process != by && taken_ns > 0) {
            let could = |it: &Task| it.process == actor.process && it.state == State::Ready;
            if tasks.iter().any(could) {
                actor.stolen_ns += taken_ns;
            }
        }
    }

    pub fn process_of(&self, actor: u8, life: u8) -> Option<ProcessId> {
        let of = |it: &&Actor| it.key.actor == actor && it.key.life == life;
        self.actors.iter().find(of).map(|actor| actor.process)
    }

    /// The process ends here. What it holds is given back after a while, one thing at a time.
    pub fn kill(&mut self, process: ProcessId, linger_ns: u64) {
        let life = self.kernel.processes[process].life;
        if matches!(life, Life::Dying | Life::Dead) {
            return;
        }
        self.kernel.processes[process].life = Life::Dying;
        self.ledger.died(process);
        for task in self.tasks.iter_mut().filter(|task| task.process == process) {
            task.state = State::Over;
        }
        let reap_at = self.now_ns + linger_ns;
        if let Some(actor) = self.actor_mut(process) {
            (actor.reap_at, actor.continue_at) = (reap_at, u64::MAX);
        }
    }

    pub fn stop(&mut self, process: ProcessId, for_ns: u64) {
        if self.kernel.processes[process].life == Life::Running {
            self.kernel.processes[process].life = Life::Stopped;
            let until = self.now_ns + for_ns;
            if let Some(actor) = self.actor_mut(process) {
                actor.continue_at = until;
            }
        }
    }

    pub fn go_on(&mut self, process: ProcessId) {
        if self.kernel.processes[process].life == Life::Stopped {
            self.kernel.processes[process].life = Life::Running;
            if let Some(actor) = self.actor_mut(process) {
                actor.continue_at = u64::MAX;
            }
        }
    }

    /// Wakes up to `count` tasks that wait for this, the first ones first.
    pub fn wake(&mut self, on: On, count: usize) -> usize {
        let mut woken = 0;
        for task in &mut self.tasks {
            if woken < count && matches!(task.state, State::Waiting(it, _) if it == on) {
                (task.state, task.is_woken) = (State::Ready, true);
                woken += 1;
            }
        }
        woken
    }

    /// Takes the stacks of those that are over, without running anything on them.
    pub fn bury(&mut self) {
        for task in self.tasks.iter_mut().filter(|task| task.state == State::Over) {
            if let Some(coroutine) = task.coroutine.take() {
                forget(coroutine);
            }
        }
    }

    /// Ends all tasks where they are.
    pub fn bury_all(&mut self) {
        self.tasks.iter_mut().for_each(|task| task.state = State::Over);
        self.bury();
    }
}

/// Runs a task until it hands the baton back.
pub(super) fn resume(index: usize) {
    let (mut coroutine, since_ns) = with(|world| {
        world.current = Some(index);
        world.note_run(index);
        let coroutine = world.tasks[index].coroutine.take().expect("a task that is not over");
        (coroutine, world.now_ns)
    });
    let result = coroutine.resume(());
    with(|world| {
        world.note_run(index);
        world.note_theft(world.tasks[index].process, world.now_ns - since_ns);
        world.current = None;
    });
    match result {
        CoroutineResult::Yield(()) => {
            with(|world| world.tasks[index].coroutine = Some(coroutine));
        }
        CoroutineResult::Return(()) => keep(coroutine.into_stack()),
    }
}

fn forget(mut coroutine: Coroutine<(), (), (), DefaultStack>) {
    if !coroutine.done() {
        // SAFETY: what lies on that stack belongs to a process that no longer exists. Nothing
        // outside refers to it: its heap goes with the schedule, and the yielder is used no more.
        unsafe { coroutine.force_reset() };
    }
    keep(coroutine.into_stack());
}

/// For the next task.
fn keep(stack: DefaultStack) {
    super::heap::outside(|| {
        let mut stacks = STACKS.take();
        stacks.push(stack);
        STACKS.set(stacks);
    });
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.actor, self.life)?;
        if self.thread > 0 { write!(f, "t{}", self.thread) } else { Ok(()) }
    }
}
