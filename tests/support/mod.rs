//! What the tests stand on: buses with names of their own, and real processes that can be told what
//! to do, killed, stopped and continued.
//!
//! A child process is this test's own executable, started again. Each test file names the parts
//! that its children can play with [`children!`]; the part is played before `main`, so a child has
//! one thread and nothing of the test runner. Parent and child talk in lines.
//!
//! Nothing here sleeps to make sure of something: [`until`] waits for a condition, and gives up only
//! after a time that no healthy machine needs.
#![allow(dead_code, missing_docs, unused_imports, unused_macros)]

pub mod child;
pub mod confined;
pub mod files;
pub mod servant;
pub mod step;

use std::fmt::Debug;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use child::{Child, Talk};
pub use files::{Board, Room};
pub use servant::Servant;

use eshm::{Endpoint, Error, Options, Role};

/// Longer than anything here takes, even on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Names the parts that child processes of this test file can play.
#[macro_export]
macro_rules! children {
    ($($name:literal => $part:expr),* $(,)?) => {
        extern "C" fn play_part() {
            const PARTS: &[(&str, fn(&mut $crate::support::Talk))] = &[
                ("servant", $crate::support::servant::serve),
                ("user", $crate::support::confined::serve_as),
                $(($name, $part)),*
            ];
            $crate::support::child::play(PARTS);
        }
        // SAFETY: the section holds the addresses of functions that run before `main`.
        #[used]
        #[unsafe(link_section = ".init_array")]
        static PLAY_PART: extern "C" fn() = play_part;
    };
}

/// Says aloud that a test did not run, and why: past the capture of the test runner.
pub fn skipped(why: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// Whether this process is root; if not, says that the test is skipped.
pub fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        skipped("it needs root");
    }
    is_root
}

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(comes_true(PATIENCE, condition), "never came true: {what}");
}

/// Whether a condition comes true in time.
pub fn comes_true(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let started = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if started.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The name of a bus that no other test uses. When it is dropped nothing of it may be left.
pub struct Bus {
    name: String,
    directory: PathBuf,
    may_leave: bool,
}

impl Bus {
    pub fn new(tag: &str) -> Bus {
        Bus::inside(Path::new("/dev/shm"), tag)
    }

    pub fn inside(directory: &Path, tag: &str) -> Bus {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test.{tag}.{}.{number}", std::process::id());
        Bus { name, directory: directory.to_owned(), may_leave: false }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Options for it, with tests in mind.
    pub fn options(&self, role: Role) -> Options {
        let mut options = Options::new(&self.name);
        options.directory(&self.directory).role(role);
        if role == Role::Master {
            options.frames(1024);
        }
        options.read_timeout(PATIENCE).write_timeout(PATIENCE).open_timeout(Duration::ZERO);
        options
    }

    pub fn master(&self) -> Endpoint {
        self.options(Role::Master).open().expect("a master")
    }

    pub fn slave(&self) -> Endpoint {
        self.options(Role::Slave).open().expect("a slave")
    }

    /// Both ends, in this process.
    pub fn pair(&self) -> (Endpoint, Endpoint) {
        let master = self.master();
        (master, self.slave())
    }

    /// A child process that opens it as told.
    pub fn servant(&self, role: &str, more: &str) -> Servant {
        let mut servant = Servant::new();
        let directory = self.directory.display();
        let answer = servant.ask(&format!("open {} dir={directory} role={role} {more}", self.name));
        assert!(answer.starts_with("ok"), "{role} {more}: {answer}");
        servant
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join(format!("eshm_{}", self.name.replace('/', "_")))
    }

    /// All files of this bus.
    pub fn files(&self) -> Vec<PathBuf> {
        let prefix = self.path();
        let prefix = prefix.file_name().unwrap().to_str().unwrap();
        let entries = std::fs::read_dir(&self.directory).expect("the directory");
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let is_ours = |path: &PathBuf| {
            path.file_name().is_some_and(|name| {
                let rest = name.to_str().and_then(|name| name.strip_prefix(prefix));
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('~'))
            })
        };
        paths.filter(is_ours).collect()
    }

    /// For tests that end with a killed owner: what it left is removed here.
    pub fn may_leave(&mut self) {
        self.may_leave = true;
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let left = self.files();
        // What stays must be what the rule keeps: somebody was killed, or something is unread.
        let kept = eshm::inspect_in(&self.directory, &self.name).is_ok_and(|found| {
            let is_dead = |peer: eshm::Peer| peer.state == eshm::PeerState::Dead;
            is_dead(found.stats.master) || is_dead(found.stats.slave) || found.unread != [0, 0]
        });
        if kept && left.len() == 1 {
            let removed = eshm::remove_in(&self.directory, &self.name, false);
            let is_fine = removed.is_ok() || self.may_leave || std::thread::panicking();
            assert!(is_fine, "somebody is there: {removed:?}");
        }
        for path in self.files() {
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(path));
        }
        let is_fine = self.may_leave || kept || left.is_empty() || std::thread::panicking();
        assert!(is_fine, "left behind: {left:?}");
    }
}

/// A message that shows what number it has and whether it is whole: the number, then bytes that
/// follow from it. Lengths vary from 8 to `longest`.
pub fn message(number: u64, longest: usize) -> Vec<u8> {
    let spread = (longest.max(8) - 8 + 1) as u64;
    let len = 8 + (number.wrapping_mul(7919) % spread) as usize;
    let mut bytes = vec![0; len];
    fill(number, &mut bytes);
    bytes
}

/// Writes a message of this number over all of the bytes.
pub fn fill(number: u64, bytes: &mut [u8]) {
    let (head, rest) = bytes.split_at_mut(8);
    head.copy_from_slice(&number.to_le_bytes());
    for (index, byte) in rest.iter_mut().enumerate() {
        *byte = (number.wrapping_mul(31) as usize + index * 7) as u8;
    }
}

/// The number of a message, every byte of which is checked.
#[track_caller]
pub fn number_of(bytes: &[u8]) -> u64 {
    assert!(bytes.len() >= 8, "torn: {} bytes only", bytes.len());
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let mut expected = vec![0; bytes.len()];
    fill(number, &mut expected);
    assert!(bytes == expected, "message {number} is torn: {bytes:02x?}");
    number
}

/// Reads one message and gives its number.
#[track_caller]
pub fn read_number(endpoint: &mut Endpoint) -> u64 {
    let mut buffer = [0; 4096];
    let len = endpoint.read(&mut buffer).expect("a message");
    number_of(&buffer[..len])
}

/// Reads whatever waits.
#[track_caller]
pub fn drain(endpoint: &mut Endpoint) -> Vec<u64> {
    let mut buffer = [0; 4096];
    let mut numbers = Vec::new();
    loop {
        match endpoint.try_read(&mut buffer) {
            Ok(len) => numbers.push(number_of(&buffer[..len])),
            Err(Error::Empty) => return numbers,
            Err(error) => panic!("after {numbers:?}: {error}"),
        }
    }
}

/// The longest time without a beat of the watcher's peer until a child answers; and the answer.
#[track_caller]
pub fn longest_gap(watcher: &Endpoint, child: &mut Child) -> (Duration, String) {
    let (mut beats, mut since) = (watcher.peer().beats, Instant::now());
    let (mut longest, started) = (Duration::ZERO, since);
    loop {
        let answer = child.hear_within(Duration::ZERO);
        let now = watcher.peer().beats;
        longest = longest.max(since.elapsed());
        if now != beats {
            (beats, since) = (now, Instant::now());
        }
        if let Some(answer) = answer {
            return (longest, answer);
        }
        assert!(started.elapsed() < PATIENCE, "the child does not answer");
        std::thread::sleep(Duration::from_micros(100));
    }
}

/// Writes the messages of these numbers.
#[track_caller]
pub fn send(endpoint: &mut Endpoint, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        endpoint.write(&message(number, 100)).expect("written");
    }
}

/// Numbers at random, the same in every run with the same seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }
}

/// The error of a call that must fail.
#[track_caller]
pub fn error_of<T>(result: Result<T, Error>) -> Error {
    match result {
        Ok(_) => panic!("it worked"),
        Err(error) => error,
    }
}
