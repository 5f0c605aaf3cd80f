//! One schedule from beginning to end: the actors, then whoever comes when all is over.
//!
//! At rest nobody is left, and everything that passes has passed. Then a master and a slave that are
//! entitled to the bus open it, which must succeed; they read what is there, and leave. After that
//! the ledger must be even, and nothing be left but what the removal rule keeps.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::actors::{ASIDE, NAME, Player, creating, group_of, path_of};
use super::heap;
use super::kernel::{PAGE, ProcessId};
use super::random::Random;
use super::scenario::{GROUP, OWN, OWNER, Part, STICKY, Scenario, Wish};
use super::schedule::{Choice, Chooser, Coverage, Director, Event, run};
use super::sys::clock::sleep;
use super::world::{Key, World, enter, with};
use crate::{Endpoint, Error, Role};

/// What came of a schedule.
pub(super) struct Outcome {
    pub failure: Option<String>,
    pub choices: Vec<Choice>,
    pub coverage: Coverage,
    pub steps: u64,
    pub written: u64,
    pub read: u64,
    /// The sum of all that happened: the same schedule has the same.
    pub fingerprint: u64,
}

/// Where the choices come from.
pub(super) enum Choices<'a> {
    Drawn,
    Listed(&'a [Choice]),
}

/// The actors that come when all is over.
const HEIR: u8 = 50;
/// How long they may take to open the bus.
const HEIR_PATIENCE: Duration = Duration::from_secs(2);

struct Play {
    scenario: Rc<Scenario>,
    lives: Vec<u8>,
    has_heirs: bool,
}

/// Runs one schedule.
pub(super) fn play(scenario: &Scenario, choices: Choices<'_>, is_verbose: bool) -> Outcome {
    super::kernel::prepare();
    heap::begin();
    let chooser = match choices {
        Choices::Drawn => Chooser::drawn(scenario.seed),
        Choices::Listed(list) => Chooser::listed(scenario.seed, list),
    };
    let mut world = Box::new(World::new(chooser, scenario.free_pages));
    world.is_verbose = is_verbose;
    world.is_lenient = scenario.has_vandal();
    world.ledger.is_lenient = scenario.has_vandal();
    world.random_state = scenario.seed;
    world.cores = scenario.cores;
    world.kernel.has_barrier = scenario.has_barrier;
    world.kernel.mkdir(STICKY, 0, 0, 0o1777);
    world.kernel.mkdir(OWN, OWNER, GROUP, 0o770);
    let copy = Rc::new(scenario.clone());
    let lives = vec![0; copy.plans.len()];
    let mut play = Play { scenario: copy, lives, has_heirs: false };
    enter(&mut world, || {
        for actor in 0..play.scenario.plans.len() {
            play.start(actor);
        }
        run(&mut play);
    });
    world.bury_all();
    world.kernel.clear_buffers();
    let outcome = heap::outside(|| Outcome {
        failure: world.failure.as_deref().map(str::to_owned),
        choices: world.chooser.choices.to_vec(),
        coverage: world.chooser.coverage.clone(),
        steps: world.steps,
        written: world.ledger.written,
        read: world.ledger.read,
        fingerprint: world.fingerprint,
    });
    // All that is left of it lies in the arena, and some of it belongs to the dead.
    std::mem::forget((world, play));
    heap::end();
    outcome
}

impl Play {
    /// The next life of an actor.
    fn start(&mut self, actor: usize) {
        let plan = self.scenario.plans[actor].clone();
        let life = self.lives[actor];
        self.lives[actor] += 1;
        let seed = self.scenario.seed ^ (actor as u64 + 1) << 32 ^ u64::from(life) << 48;
        let is_foreign = matches!(
            plan.part,
            Part::Planter | Part::Unnamer | Part::Vandal | Part::Holder | Part::Impostor
        );
        let (uid, is_contained, has_pidfds) = (plan.uid, plan.is_contained, plan.has_pidfds);
        let player = Player {
            scenario: Rc::clone(&self.scenario),
            plan,
            random: Random::new(seed),
            directory: self.scenario.directory.into(),
        };
        let key = Key { actor: actor as u8, life, thread: 0 };
        let process = start(key, uid, is_foreign, Box::new(move || player.live()));
        with(|world| {
            let process = &mut world.kernel.processes[process];
            (process.is_contained, process.has_pidfds) = (is_contained, has_pidfds);
        });
    }

    /// A master and a slave open the bus, drain it, and leave.
    fn start_heirs(&mut self) {
        self.has_heirs = true;
        self.check_gone();
        with(|world| {
            world.calm_down();
            // Who plants things has taken them away, but for what was planted by the killed.
            let path = path_of(&self.scenario, NAME);
            let planted = world.kernel.at(&path).filter(|&ino| world.kernel.inodes[ino].is_foreign);
            if planted.is_some() {
                let _ = world.kernel.unlink(super::world::HARNESS, &path);
            }
        });
        for (pair, name) in [NAME, ASIDE].into_iter().enumerate() {
            let stage = Rc::new(Cell::new(0));
            for (index, role) in [Role::Master, Role::Slave].into_iter().enumerate() {
                let (scenario, stage) = (Rc::clone(&self.scenario), Rc::clone(&stage));
                let key = Key { actor: HEIR + (2 * pair + index) as u8, life: 0, thread: 0 };
                let body = move || inherit(&scenario, name, role, &stage);
                start(key, self.scenario.heir_uid, false, Box::new(body));
            }
        }
    }

    /// Whoever came has left, and so the bus is gone.
    fn check_gone(&self) {
        let scenario = &self.scenario;
        let wants_it = scenario.plans.iter().any(|plan| plan.wish == Wish::Never);
        let is_open = scenario.plans.iter().any(|plan| plan.uid != scenario.plans[0].uid)
            && scenario.directory == STICKY;
        let has_others = scenario.has_foreign() || scenario.has(|part| part == Part::Holder);
        if scenario.keeps || wants_it || is_open || has_others || scenario.can_lose() {
            return;
        }
        with(|world| {
            for name in [NAME, ASIDE] {
                let Some(ino) = world.kernel.at(&path_of(scenario, name)) else { continue };
                if world.must_be_gone(ino) {
                    world.fail(format!("all have left file {ino}, and it is still there"));
                }
            }
        });
    }

    /// Everybody has left.
    fn check_rest(&self) {
        let scenario = &self.scenario;
        with(|world| {
            world.excuse_aside(scenario.directory);
            world.ledger.check_rest();
            if let Some(wrong) = world.ledger.wrong.take() {
                world.fail(wrong);
            }
            if scenario.has_vandal() {
                return;
            }
            for name in [NAME, ASIDE] {
                let Some(ino) = world.kernel.at(&path_of(scenario, name)) else { continue };
                let inode = &world.kernel.inodes[ino];
                let (pages, uid) = (inode.pages.count(), inode.uid);
                let must_stay =
                    scenario.keeps || scenario.directory == STICKY && uid != scenario.heir_uid;
                let may_have = if scenario.keeps { u64::MAX } else { 64 * 1024 / PAGE };
                if !must_stay || pages > may_have {
                    world.fail(format!("the bus is still there, with {pages} pages"));
                }
            }
            let was_killed = world.chooser.choices.iter().any(|choice| {
                matches!(choice.event, Event::Kill(..) | Event::Refuse(_) | Event::ReadOnly(_))
            });
            if !was_killed {
                let names = world.kernel.list(super::world::HARNESS, Path::new(scenario.directory));
                let left = names.unwrap_or_default();
                if let Some(left) = left.iter().find(|name| name.contains('~')) {
                    world.fail(format!("{left} is left behind"));
                }
            }
        });
    }
}

fn start(key: Key, uid: u32, is_foreign: bool, body: Box<dyn FnOnce()>) -> ProcessId {
    with(|world| {
        let process = world.kernel.spawn(uid, group_of(uid), None);
        world.kernel.processes[process].is_foreign = is_foreign;
        world.start(key, process, body);
        process
    })
}

impl Director for Play {
    fn ended(&mut self, process: ProcessId) {
        let key = with(|world| world.actor_mut(process).map(|actor| actor.key));
        let actor = key.map_or(usize::MAX, |key| usize::from(key.actor));
        let is_left = self.scenario.plans.get(actor).is_some_and(|it| self.lives[actor] < it.lives);
        if is_left && !self.has_heirs {
            self.start(actor);
        }
    }

    fn rest(&mut self) -> bool {
        if self.has_heirs {
            self.check_rest();
            return false;
        }
        self.start_heirs();
        true
    }
}

/// The life of an heir.
fn inherit(scenario: &Scenario, name: &str, role: Role, stage: &Cell<u32>) {
    let options = creating(scenario, name, role);
    let deadline = with(|world| world.now_ns) + HEIR_PATIENCE.as_nanos() as u64;
    if role == Role::Slave {
        while stage.get() == 0 {
            sleep(Duration::from_millis(1));
        }
    }
    let mut endpoint = loop {
        match options.open() {
            Ok(endpoint) => break endpoint,
            Err(error) if with(|world| world.now_ns) > deadline => {
                stage.set(99);
                if !scenario.has_vandal() {
                    with(|world| world.fail(format!("the bus cannot be had any more: {error}")));
                }
                return;
            }
            Err(_) => sleep(Duration::from_millis(5)),
        }
    };
    stage.set(stage.get() + 1);
    drain(scenario, &mut endpoint, role);
    stage.set(stage.get() + 1);
    // Whoever leaves first leaves a bus with a peer; both have read all by then.
    while stage.get() < 4 {
        sleep(Duration::from_millis(1));
    }
    if let Err(error) = endpoint.leave() {
        with(|world| world.fail(format!("leaving at the end: {error}")));
    }
    sleep(Duration::from_millis(30));
}

fn drain(scenario: &Scenario, endpoint: &mut Endpoint, role: Role) {
    let (ino, process) = with(|world| {
        let process = world.who().process;
        let maps = &world.kernel.processes[process].maps;
        (maps.iter().max_by_key(|map| map.serial).map_or(0, |map| map.ino), process)
    });
    let direction = role.peer().writes() as usize;
    let stream = with(|world| world.ledger.stream(ino, direction, scenario.is_overwritten));
    let mut last = None;
    loop {
        let mut buffer = [0; 512];
        with(|world| world.ledger.begin_read(process, stream, last, 1));
        let result = endpoint.read_timeout(&mut buffer, Duration::from_millis(2));
        with(|world| world.ledger.end_read(process));
        match result {
            Ok(len) => with(|world| {
                if let Some(attempt) = world.ledger.recognise(stream, &buffer[..len]) {
                    world.ledger.read(stream, attempt, last);
                    last = Some(attempt);
                }
                if let Some(wrong) = world.ledger.wrong.take() {
                    world.fail(wrong);
                }
            }),
            Err(Error::Timeout | Error::PeerDead { .. }) => return,
            Err(error) => {
                if !scenario.has_vandal() {
                    with(|world| world.fail(format!("draining at the end: {error}")));
                }
                return;
            }
        }
    }
}
