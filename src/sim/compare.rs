//! The simulated kernel beside the real one: the same calls of `sys` on both, and equal answers.
//!
//! A sequence of calls is drawn from a seed. Each side makes it with files, names and users of its
//! own, and says what it was answered; what differs by nature (numbers of files) is counted in the
//! order in which it was met. See `tests/kernel.rs`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::kernel::{Node, prepare};
use super::random::Random;
use super::schedule::Chooser;
use super::world::{HARNESS, World, enter, with};
use super::{linux, sys};
use crate::error::Error;

/// Bytes of a page.
const PAGE: u64 = 4096;
/// Files and mappings that one side has at a time.
const PLACES: u64 = 6;
/// Who makes the calls, as user and group: root and three others, two of them of one group.
const USERS: [(u32, u32); 4] = [(0, 0), (1000, 100), (1001, 100), (2000, 2000)];
/// What there is besides files of the library.
const STRANGE: [Strange; 3] = [Strange::Fifo, Strange::Symlink, Strange::Directory];

/// What somebody else may have put under a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Strange {
    Fifo,
    Symlink,
    Directory,
}

/// What the real side needs and the library has no call for.
pub trait Outside {
    /// Makes all further calls as this user of this group.
    fn become_user(&self, uid: u32, gid: u32);
    /// Puts something under a name, or gives the number of the error.
    fn plant(&self, what: Strange, path: &Path) -> Result<(), i32>;
}

/// Where the real side plays.
pub struct Stage<'a> {
    /// Holds `shm`, of this user and sticky (mode 1777), and `own` (mode 770), of user 1000 and group 100
    /// or, where there are no others, of this one.
    pub place: &'a Path,
    /// Its free pages, if it has no more than these; then both run out of them.
    pub pages: Option<u64>,
    /// Whether this process may become others.
    pub has_users: bool,
    /// Who this process is: user and group.
    pub me: (u32, u32),
    /// For what the library has no call for.
    pub outside: &'a dyn Outside,
}

/// A call, with places of files and mappings by number.
#[derive(Debug)]
enum Op {
    Become(usize),
    Plant(usize, String),
    Create(u64, &'static str, u32),
    Open(u64, String, bool),
    Close(u64),
    Link(u64, String),
    Rename(String, String),
    Unlink(String),
    Names(&'static str),
    Facts(u64),
    FactsAt(String),
    Allocate(u64, u64, u64),
    Punch(u64, u64, u64),
    Read(u64, u64, usize),
    Lock(u64, u64, u64, bool),
    Unlock(u64, u64, u64),
    IsLocked(u64, u64, u64),
    Map(u64, u64, u64, u64, bool),
    Unmap(u64),
    /// Writes a word to a mapping, where it is sure to have a page.
    Poke(u64, u64, u64),
    Futex(u64),
}

fn drawn(random: &mut Random, stage: &Stage<'_>) -> Op {
    const LONG: &str = "a-name-of-256-bytes";
    let name = |random: &mut Random| {
        let directory = random.one_of(&["shm", "shm", "own", "missing"]);
        match random.below(40) {
            0 => format!("{directory}/{}", LONG.repeat(14)),
            _ => format!("{directory}/{}", random.one_of(&["a", "b", "c"])),
        }
    };
    let file = |random: &mut Random| random.below(PLACES);
    let range = |random: &mut Random| (random.below(12), 1 + random.below(8));
    match random.below(44) {
        0 if stage.has_users => Op::Become(random.below(USERS.len() as u64) as usize),
        1 => Op::Plant(random.below(3) as usize, name(random)),
        2..=4 => {
            let mode = random.one_of(&[0o600, 0o660, 0o640, 0o666]);
            Op::Create(file(random), random.one_of(&["shm", "shm", "own"]), mode)
        }
        5..=9 => Op::Open(file(random), name(random), random.once_in(2)),
        10 | 11 => Op::Close(file(random)),
        12..=15 => Op::Link(file(random), name(random)),
        16 | 17 => Op::Rename(name(random), name(random)),
        18 | 19 => Op::Unlink(name(random)),
        20 => Op::Names(random.one_of(&["shm", "own", "missing"])),
        21 | 22 => Op::Facts(file(random)),
        23 => Op::FactsAt(name(random)),
        24..=26 => Op::Allocate(file(random), random.below(30) * PAGE, random.below(24) * PAGE),
        27 => Op::Punch(file(random), random.below(30) * PAGE, random.below(12) * PAGE),
        28 | 29 => {
            let off = random.below(30) * PAGE + random.below(100);
            Op::Read(file(random), off, random.one_of(&[1, 64, 5000]))
        }
        30..=33 => {
            let (from, len) = range(random);
            Op::Lock(file(random), from, len, random.once_in(3))
        }
        34 => {
            let (from, len) = range(random);
            Op::Unlock(file(random), from, len)
        }
        35 | 36 => {
            let (from, len) = range(random);
            Op::IsLocked(file(random), from, len)
        }
        37 | 38 => {
            let (off, len) = (random.below(20) * PAGE, (1 + random.below(12)) * PAGE);
            Op::Map(file(random), file(random), off, len, !random.once_in(3))
        }
        39 => Op::Unmap(file(random)),
        40..=42 => Op::Poke(file(random), random.below(12), random.next()),
        _ => Op::Futex(file(random)),
    }
}

/// One of the two kernels, by the calls of `sys`.
trait Side {
    type File;
    type Map;
    fn root(&self) -> PathBuf;
    fn become_user(&self, uid: u32, gid: u32);
    fn plant(&self, what: Strange, path: &Path) -> Result<(), i32>;
    fn create(dir: &Path, mode: u32) -> crate::Result<Self::File>;
    fn open(path: &Path, writable: bool) -> crate::Result<Option<Self::File>>;
    fn link(file: &Self::File, path: &Path) -> crate::Result<bool>;
    fn rename(from: &Path, to: &Path) -> crate::Result<bool>;
    fn unlink(path: &Path) -> crate::Result<bool>;
    fn names(dir: &Path) -> crate::Result<Vec<String>>;
    fn facts(file: &Self::File) -> crate::Result<Facts>;
    fn facts_at(path: &Path) -> crate::Result<Option<Facts>>;
    fn allocate(file: &Self::File, off: u64, len: u64) -> crate::Result<()>;
    fn punch(file: &Self::File, off: u64, len: u64) -> crate::Result<()>;
    fn read(file: &Self::File, off: u64, len: usize) -> crate::Result<Vec<u8>>;
    fn lock(file: &Self::File, from: u64, to: u64, is_shared: bool) -> crate::Result<bool>;
    fn unlock(file: &Self::File, from: u64, to: u64) -> crate::Result<()>;
    fn is_locked(file: &Self::File, from: u64, to: u64) -> crate::Result<bool>;
    fn map(file: &Self::File, off: u64, len: u64, writable: bool) -> crate::Result<Self::Map>;
    fn start(map: &Self::Map) -> *mut u8;
    /// Sleeps although the word is another; sleeps for a moment; wakes nobody.
    fn futex(map: &Self::Map) -> (bool, bool, usize);
}

/// What can be compared of the facts of a file.
struct Facts {
    ino: u64,
    is_regular: bool,
    kind: String,
    uid: u32,
    rest: String,
}

/// The two differ in nothing but the module they call.
macro_rules! side {
    ($rooms:ident) => {
        type File = $rooms::shm::File;
        type Map = $rooms::map::Mapping;

        fn create(dir: &Path, mode: u32) -> crate::Result<Self::File> {
            $rooms::shm::create_unnamed(dir, mode)
        }
        fn open(path: &Path, writable: bool) -> crate::Result<Option<Self::File>> {
            $rooms::shm::open(path, writable)
        }
        fn link(file: &Self::File, path: &Path) -> crate::Result<bool> {
            $rooms::shm::link_unnamed(file, path)
        }
        fn rename(from: &Path, to: &Path) -> crate::Result<bool> {
            $rooms::shm::rename_noreplace(from, to)
        }
        fn unlink(path: &Path) -> crate::Result<bool> {
            $rooms::shm::unlink(path)
        }
        fn names(dir: &Path) -> crate::Result<Vec<String>> {
            let names = $rooms::shm::names_in(dir)?;
            Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
        }
        fn facts(file: &Self::File) -> crate::Result<Facts> {
            $rooms::shm::facts(file).map(|facts| told!(facts, $rooms))
        }
        fn facts_at(path: &Path) -> crate::Result<Option<Facts>> {
            Ok($rooms::shm::facts_at(path)?.map(|facts| told!(facts, $rooms)))
        }
        fn allocate(file: &Self::File, off: u64, len: u64) -> crate::Result<()> {
            $rooms::shm::allocate(file, off, len)
        }
        fn punch(file: &Self::File, off: u64, len: u64) -> crate::Result<()> {
            $rooms::shm::punch(file, off, len)
        }
        fn read(file: &Self::File, off: u64, len: usize) -> crate::Result<Vec<u8>> {
            $rooms::shm::read_at(file, off, len)
        }
        fn lock(file: &Self::File, from: u64, to: u64, is_shared: bool) -> crate::Result<bool> {
            use $rooms::lock::Hold::{Alone, Shared};
            $rooms::lock::try_lock(file, from..to, if is_shared { Shared } else { Alone })
        }
        fn unlock(file: &Self::File, from: u64, to: u64) -> crate::Result<()> {
            $rooms::lock::unlock(file, from..to)
        }
        fn is_locked(file: &Self::File, from: u64, to: u64) -> crate::Result<bool> {
            $rooms::lock::is_locked(file, from..to)
        }
        fn map(file: &Self::File, off: u64, len: u64, writable: bool) -> crate::Result<Self::Map> {
            $rooms::map::Mapping::shared(file, off, len as usize, writable)
        }
        fn start(map: &Self::Map) -> *mut u8 {
            map.as_ptr()
        }
    };
}

/// The facts of a file, as both tell them. Of what is no file of the library only kind and owner count.
macro_rules! told {
    ($facts:ident, $rooms:ident) => {
        Facts {
            ino: $facts.id.ino,
            is_regular: $facts.kind == $rooms::shm::Kind::Regular,
            kind: format!("{:?}", $facts.kind),
            uid: $facts.uid,
            rest: format!(
                "{} bytes, {} allocated, {:o}, group {}, {} names",
                $facts.size, $facts.allocated, $facts.mode, $facts.gid, $facts.links
            ),
        }
    };
}

struct Linux<'a>(&'a Stage<'a>);

impl Side for Linux<'_> {
    side!(linux);

    fn root(&self) -> PathBuf {
        self.0.place.to_owned()
    }
    fn become_user(&self, uid: u32, gid: u32) {
        self.0.outside.become_user(uid, gid);
    }
    fn plant(&self, what: Strange, path: &Path) -> Result<(), i32> {
        self.0.outside.plant(what, path)
    }
    fn futex(map: &Self::Map) -> (bool, bool, usize) {
        // SAFETY: a page of the file is there, as the caller made sure, and is used through atomics.
        let word = unsafe { AtomicU32::from_ptr(map.as_ptr().cast()) };
        let now = word.load(Ordering::Relaxed);
        let moment = Duration::from_micros(50);
        let (other, same) = (
            linux::futex::wait(word, now.wrapping_add(1), moment),
            linux::futex::wait(word, now, moment),
        );
        (other, same, linux::futex::wake(word, 1) as usize)
    }
}

struct Simulated;

impl Side for Simulated {
    side!(sys);

    fn root(&self) -> PathBuf {
        "/".into()
    }
    fn become_user(&self, uid: u32, gid: u32) {
        with(|world| {
            let process = &mut world.kernel.processes[HARNESS.process];
            (process.uid, process.gid) = (uid, gid);
        });
    }
    fn plant(&self, what: Strange, path: &Path) -> Result<(), i32> {
        let node = match what {
            Strange::Fifo => Node::Fifo,
            Strange::Symlink => Node::Symlink,
            Strange::Directory => Node::Directory(BTreeMap::new()),
        };
        with(|world| world.kernel.plant(HARNESS, path, node, 0o600)).map(|_| ())
    }
    fn futex(map: &Self::Map) -> (bool, bool, usize) {
        // SAFETY: as on the other side; the buffers of files never move.
        let word = unsafe { &*map.as_ptr().cast::<crate::sync::AtomicU32>() };
        let now = word.quietly().load(Ordering::Relaxed);
        let moment = Duration::from_micros(50);
        let (other, same) = (
            sys::futex::wait(word, now.wrapping_add(1), moment),
            sys::futex::wait(word, now, moment),
        );
        (other, same, sys::futex::wake(word, 1))
    }
}

/// An open file, and which user made it, if it was made here.
struct Opened<F> {
    file: F,
    serial: u64,
    maker: Option<usize>,
}

/// A mapping of the file that was opened with this serial number.
struct Mapped<M> {
    map: M,
    serial: u64,
    off: u64,
    len: u64,
    is_writable: bool,
}

/// What one side has in its hands.
struct Table<S: Side> {
    side: S,
    files: BTreeMap<u64, Opened<S::File>>,
    maps: BTreeMap<u64, Mapped<S::Map>>,
    serial: u64,
    user: usize,
    /// Numbers of files, in the order in which they were met.
    met: Vec<u64>,
}

fn answer<T: std::fmt::Debug>(result: crate::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(Error::Os { errno, .. }) => std::io::Error::from_raw_os_error(errno).to_string(),
        Err(error) => error.to_string(),
    }
}

impl<S: Side> Table<S> {
    fn new(side: S) -> Table<S> {
        let (files, maps) = (BTreeMap::new(), BTreeMap::new());
        Table { side, files, maps, serial: 0, user: 0, met: Vec::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.side.root().join(name)
    }

    fn keep(&mut self, place: u64, file: S::File, maker: Option<usize>) {
        self.serial += 1;
        self.files.insert(place, Opened { file, serial: self.serial, maker });
    }

    fn tell(&mut self, facts: Facts) -> String {
        let met = self.met.iter().position(|&ino| ino == facts.ino).unwrap_or_else(|| {
            self.met.push(facts.ino);
            self.met.len() - 1
        });
        let rest = if facts.is_regular { facts.rest.as_str() } else { "" };
        format!("file {met}, {}, user {}, {rest}", facts.kind, facts.uid)
    }

    /// Makes a call, and says what came of it.
    fn make(&mut self, op: &Op) -> String {
        match op {
            Op::Become(user) => {
                let (uid, gid) = USERS[*user];
                self.side.become_user(uid, gid);
                self.user = *user;
                "now".into()
            }
            Op::Plant(what, name) => {
                format!("{:?}", self.side.plant(STRANGE[*what], &self.path(name)))
            }
            Op::Create(place, dir, mode) => {
                self.files.remove(place);
                let made = S::create(&self.path(dir), *mode);
                answer(made.map(|file| self.keep(*place, file, Some(self.user))))
            }
            Op::Open(place, name, writable) => {
                self.files.remove(place);
                let opened = S::open(&self.path(name), *writable);
                answer(opened.map(|file| file.map(|file| self.keep(*place, file, None)).is_some()))
            }
            Op::Close(place) => format!("{}", self.files.remove(place).is_some()),
            Op::Rename(from, to) => answer(S::rename(&self.path(from), &self.path(to))),
            Op::Unlink(name) => answer(S::unlink(&self.path(name))),
            Op::Names(dir) => answer(S::names(&self.path(dir)).map(|mut names| {
                names.sort();
                names
            })),
            Op::FactsAt(name) => match S::facts_at(&self.path(name)) {
                Ok(Some(facts)) => self.tell(facts),
                other => answer(other.map(|_| "nothing")),
            },
            Op::Unmap(place) => format!("{}", self.maps.remove(place).is_some()),
            Op::Poke(place, page, value) => self.poke(*place, *page, Some(*value)),
            Op::Futex(place) => self.poke(*place, 0, None),
            _ => self.make_with_file(op).unwrap_or_else(|| "no file".into()),
        }
    }

    /// Those that need an open file.
    fn make_with_file(&mut self, op: &Op) -> Option<String> {
        Some(match *op {
            Op::Link(place, ref name) => {
                let opened = self.files.get(&place)?;
                // Whether others may do so depends on a setting of the system (protected_hardlinks).
                if opened.maker != Some(self.user) && self.user != 0 {
                    return None;
                }
                answer(S::link(&opened.file, &self.path(name)))
            }
            Op::Facts(place) => {
                let facts = S::facts(&self.files.get(&place)?.file);
                facts.map_or_else(|error| answer::<()>(Err(error)), |facts| self.tell(facts))
            }
            Op::Allocate(place, off, len) => {
                answer(S::allocate(&self.files.get(&place)?.file, off, len))
            }
            Op::Punch(place, off, len) => answer(S::punch(&self.files.get(&place)?.file, off, len)),
            Op::Read(place, off, len) => answer(S::read(&self.files.get(&place)?.file, off, len)),
            Op::Lock(place, from, len, is_shared) => {
                answer(S::lock(&self.files.get(&place)?.file, from, from + len, is_shared))
            }
            Op::Unlock(place, from, len) => {
                answer(S::unlock(&self.files.get(&place)?.file, from, from + len))
            }
            Op::IsLocked(place, from, len) => {
                answer(S::is_locked(&self.files.get(&place)?.file, from, from + len))
            }
            Op::Map(place, to, off, len, is_writable) => {
                let opened = self.files.get(&place)?;
                let (mapped, serial) = (S::map(&opened.file, off, len, is_writable), opened.serial);
                self.maps.remove(&to);
                answer(mapped.map(|map| {
                    self.maps.insert(to, Mapped { map, serial, off, len, is_writable });
                }))
            }
            _ => return None,
        })
    }

    /// Writes to a page of a mapping, and says what was there; or sleeps on its first word.
    fn poke(&mut self, place: u64, page: u64, value: Option<u64>) -> String {
        let Some(mapped) = self.maps.get(&place) else { return "no mapping".into() };
        let opened = self.files.values().find(|opened| opened.serial == mapped.serial);
        let Some(opened) = opened else { return "its file is closed".into() };
        let off = page * PAGE % mapped.len;
        // So that the page is sure to be there: an access without one is a signal.
        if let Err(error) = S::allocate(&opened.file, mapped.off + off, PAGE) {
            return answer::<()>(Err(error));
        }
        let Some(value) = value else { return format!("{:?}", S::futex(&mapped.map)) };
        // SAFETY: inside the mapping, aligned, with a page, and used through atomics alone.
        let word = unsafe { AtomicU64::from_ptr(S::start(&mapped.map).add(off as usize).cast()) };
        let before = word.load(Ordering::Relaxed);
        if mapped.is_writable {
            word.store(value, Ordering::Relaxed);
        }
        format!("{before:x}")
    }
}

/// Makes `count` calls drawn from the seed on both sides. The first difference, if there is one, with
/// all that came before.
///
/// # Errors
/// What differs.
pub fn compare(seed: u64, count: usize, stage: &Stage<'_>) -> Result<(), String> {
    prepare();
    let mut random = Random::new(seed);
    let mut world = World::new(Chooser::drawn(seed), stage.pages.unwrap_or(1 << 30));
    let (uid, gid) = stage.me;
    let owner = if stage.has_users { USERS[1] } else { stage.me };
    world.kernel.mkdir("/shm", uid, gid, 0o1777);
    world.kernel.mkdir("/own", owner.0, owner.1, 0o770);
    let outcome = enter(&mut world, || {
        Simulated.become_user(uid, gid);
        let (mut real, mut simulated) = (Table::new(Linux(stage)), Table::new(Simulated));
        let mut log = Vec::new();
        for _ in 0..count {
            let op = drawn(&mut random, stage);
            let answers = (real.make(&op), simulated.make(&op));
            log.push(format!("{op:?}: {}", answers.0));
            if answers.0 != answers.1 {
                let log = log.join("\n");
                return Err(format!("seed {seed}:\n{log}\nbut simulated: {}", answers.1));
            }
        }
        stage.outside.become_user(uid, gid);
        Ok(())
    });
    world.kernel.clear_buffers();
    outcome
}
