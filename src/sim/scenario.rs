//! Who takes part in a schedule, and how the machine is: drawn from a seed.

use super::random::Random;
use crate::Cleanup;

/// What an actor does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    Master,
    Slave,
    Auto,
    /// Takes over a role whose owner hangs.
    StandBy(bool),
    /// Takes over a role whatever its owner does.
    Usurper(bool),
    /// Listens to a direction.
    Tap(usize),
    /// Removes the bus; by force, or only while nobody is there.
    Remover(bool),
    /// Removes what `eshm gc` does: what nobody holds and in which nothing is unread.
    Collector,
    Lister,
    /// Puts other things under the name, and takes them away.
    Planter,
    /// Removes the name of the living bus, as `rm` and a logout do.
    Unnamer,
    /// Truncates the file.
    Vandal,
    /// Holds shared locks on it.
    Holder,
    /// A stranger with a bus of that name, which everybody may use.
    Impostor,
    /// Has both roles, in one process.
    Both,
}

/// What a member wishes for the end of the bus.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    WhenRead,
    Always,
    Never,
}

impl Wish {
    pub fn cleanup(self) -> Cleanup {
        match self {
            Wish::WhenRead => Cleanup::WhenRead,
            Wish::Always => Cleanup::Always,
            Wish::Never => Cleanup::Never,
        }
    }
}

/// An actor.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub part: Part,
    /// How often it is started.
    pub lives: u8,
    /// Things that it does in each life.
    pub ops: u32,
    pub uid: u32,
    /// On the other bus.
    pub is_aside: bool,
    pub has_background: bool,
    pub wish: Wish,
    pub beat_ms: u64,
    /// In a pid namespace of its own.
    pub is_contained: bool,
    pub has_pidfds: bool,
    /// Wants its memory filled, kept and in huge pages.
    pub prepares: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub seed: u64,
    pub plans: Vec<Plan>,
    pub directory: &'static str,
    pub mode: u32,
    pub frames: u64,
    pub is_overwritten: bool,
    pub free_pages: u64,
    pub keeps: bool,
    pub stale_ms: u64,
    pub has_barrier: bool,
    pub cores: usize,
    pub guards: bool,
    /// Who comes when all is over.
    pub heir_uid: u32,
}

/// A directory as `/dev/shm` is, and one of the user's own.
pub(super) const STICKY: &str = "/shm";
pub(super) const OWN: &str = "/own";
pub(super) const OWNER: u32 = 1000;
pub(super) const FRIEND: u32 = 1001;
pub(super) const STRANGER: u32 = 2000;
pub(super) const GROUP: u32 = 100;

/// Whoever comes besides the first two.
const OTHERS: [Part; 21] = [
    Part::Master,
    Part::Slave,
    Part::Auto,
    Part::StandBy(false),
    Part::StandBy(true),
    Part::StandBy(false),
    Part::StandBy(true),
    Part::Usurper(false),
    Part::Usurper(true),
    Part::Tap(0),
    Part::Tap(1),
    Part::Remover(false),
    Part::Remover(true),
    Part::Collector,
    Part::Lister,
    Part::Planter,
    Part::Unnamer,
    Part::Vandal,
    Part::Holder,
    Part::Impostor,
    Part::Both,
];

impl Plan {
    /// Like most.
    fn of(part: Part, uid: u32, most: u64, random: &mut Random) -> Plan {
        Plan {
            part,
            lives: random.one_of(&[1, 1, 2, 3]),
            ops: random.below(most) as u32 + 1,
            uid,
            is_aside: false,
            has_background: !random.once_in(6),
            wish: Wish::WhenRead,
            beat_ms: 1,
            is_contained: false,
            has_pidfds: true,
            prepares: false,
        }
    }
}

impl Scenario {
    pub fn drawn(seed: u64) -> Scenario {
        let mut random = Random::new(seed);
        let has_friend = random.once_in(4);
        let mut scenario = Scenario {
            seed,
            plans: Vec::new(),
            directory: random.one_of(&[STICKY, STICKY, OWN]),
            mode: if has_friend { 0o660 } else { 0o600 },
            frames: random.one_of(&[2, 4, 8, 16]),
            is_overwritten: random.once_in(6),
            free_pages: random.one_of(&[20_000, 20_000, 20_000, 400]),
            keeps: random.once_in(8),
            stale_ms: random.one_of(&[15, 30, 60]),
            has_barrier: !random.once_in(5),
            cores: if random.once_in(8) { 2 } else { 1 },
            guards: random.once_in(5),
            heir_uid: OWNER,
        };
        let user = |random: &mut Random| match has_friend && random.once_in(2) {
            true => FRIEND,
            false => OWNER,
        };
        scenario.heir_uid = user(&mut random);
        let first = [Part::Master, random.one_of(&[Part::Slave, Part::Slave, Part::Auto])];
        for part in first {
            let uid = user(&mut random);
            scenario.plans.push(Plan::of(part, uid, 12, &mut random));
        }
        for _ in 0..random.one_of(&[0, 1, 1, 2, 2, 3, 4]) {
            let part = random.one_of(&OTHERS);
            let is_member = matches!(part, Part::Master | Part::Slave | Part::Auto);
            let uid = match part {
                Part::Planter => random.one_of(&[OWNER, STRANGER]),
                Part::Impostor => STRANGER,
                Part::Unnamer | Part::Vandal => OWNER,
                _ => user(&mut random),
            };
            let mut plan = Plan::of(part, uid, 10, &mut random);
            plan.is_aside = is_member && random.once_in(3);
            scenario.plans.push(plan);
        }
        scenario.vary(&mut random);
        scenario
    }

    /// Wishes, hearts and namespaces: mostly the same for all.
    fn vary(&mut self, random: &mut Random) {
        let wishes: &[Wish] = match random.below(8) {
            _ if self.keeps => &[Wish::Never],
            0 => &[Wish::Always],
            1 | 2 => &[Wish::Always, Wish::WhenRead, Wish::Never],
            _ => &[Wish::WhenRead],
        };
        for plan in &mut self.plans {
            plan.wish = random.one_of(wishes);
            plan.beat_ms = random.one_of(&[1, 1, 1, 7]);
            plan.is_contained = random.once_in(6);
            plan.has_pidfds = !random.once_in(6);
            plan.prepares = random.once_in(8);
        }
    }

    /// Whether two users share the bus.
    pub fn has_friend(&self) -> bool {
        self.mode != 0o600
    }

    pub fn has(&self, is_it: impl Fn(Part) -> bool) -> bool {
        self.plans.iter().any(|plan| is_it(plan.part))
    }

    /// Whether somebody changes the file's bytes or length from outside.
    pub fn has_vandal(&self) -> bool {
        self.has(|part| part == Part::Vandal)
    }

    /// Whether a bus can lose its name while it lives.
    pub fn can_lose(&self) -> bool {
        self.has(|part| matches!(part, Part::Remover(_) | Part::Unnamer | Part::Vandal))
    }

    /// Whether somebody removes it under those who are there.
    pub fn has_force(&self) -> bool {
        self.has(|part| matches!(part, Part::Remover(true) | Part::Vandal))
    }

    pub fn has_foreign(&self) -> bool {
        self.has(|part| matches!(part, Part::Planter | Part::Vandal | Part::Impostor))
    }
}
