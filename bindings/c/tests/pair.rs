//! The pairs of programs that README and examples print: in either order, with either of the two
//! killed and started again. Their buses have fixed names, so each pair gets a `/dev/shm` of its own.

mod support;

use std::ffi::CString;
use std::io::{self, BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use support::{Build, PACKAGE, compile, say_missing};

/// A program of a pair. Killed when it is dropped.
struct Started {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Started {
    /// The first one makes the namespace, the others come to it.
    fn new(program: &Path, beside: Option<&Started>) -> Started {
        let mut command = Command::new(program);
        let beside = beside.map(|other| format!("/proc/{}/ns/mnt", other.process.id()));
        let beside = beside.map(|path| CString::new(path).expect("no NUL in it"));
        // SAFETY: between fork and exec only system calls are made, on strings that live.
        unsafe { command.pre_exec(move || own_shm(beside.as_ref())) };
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Started { process, lines }
    }

    /// Reads what it prints until a line is right.
    fn prints(&mut self, what: &str, is_right: impl Fn(&str) -> bool) {
        let mut lines = self.lines.by_ref().map(|line| line.expect("a text"));
        assert!(lines.any(|line| is_right(&line)), "it ended and had never printed {what}");
    }

    fn kill(&mut self) {
        self.process.kill().expect("it is our child");
        self.process.wait().expect("it is our child");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Gives this process a `/dev/shm` that nobody else has, or that of another process.
fn own_shm(beside: Option<&CString>) -> io::Result<()> {
    let done = |result: libc::c_int| match result {
        -1 => Err(io::Error::last_os_error()),
        other => Ok(other),
    };
    let none = std::ptr::null();
    // SAFETY: texts of C that live, and NULL where it stands for nothing.
    unsafe {
        if let Some(path) = beside {
            let namespace = done(libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))?;
            return done(libc::setns(namespace, libc::CLONE_NEWNS)).map(drop);
        }
        done(libc::unshare(libc::CLONE_NEWNS))?;
        let (root, shm, kind) = (c"/".as_ptr(), c"/dev/shm".as_ptr(), c"tmpfs".as_ptr());
        done(libc::mount(none, root, none.cast(), libc::MS_REC | libc::MS_PRIVATE, none.cast()))?;
        done(libc::mount(kind, shm, kind, 0, none.cast())).map(drop)
    }
}

/// What a slave prints.
struct Said {
    /// Something that it has read.
    reading: fn(&str) -> bool,
    /// The same of a second master, if that can be told.
    second: fn(&str) -> bool,
    /// That nothing comes.
    silence: &'static str,
}

/// In either order, with either of the two killed and started again; then the other order.
fn runs(programs: [&str; 2], standard: &'static str, said: &Said) {
    let compiled: Vec<PathBuf> = programs
        .iter()
        .filter_map(|name| compile(&format!("../../examples/{name}"), Build::shared(standard)))
        .collect();
    let [master, slave] = &compiled[..] else { return };
    // SAFETY: asks who this is.
    if unsafe { libc::geteuid() } != 0 {
        return say_missing("it needs a /dev/shm of its own, and so root");
    }
    for is_master_first in [true, false] {
        let mut pair = if is_master_first {
            let first = Started::new(master, None);
            let second = Started::new(slave, Some(&first));
            (first, second)
        } else {
            let first = Started::new(slave, None);
            (Started::new(master, Some(&first)), first)
        };
        pair.1.prints("a reading", said.reading);
        pair.0.kill();
        pair.1.prints("silence", |line| line == said.silence);
        pair.0 = Started::new(master, Some(&pair.1));
        pair.1.prints("a reading of the second master", said.second);
        pair.1.kill();
        pair.1 = Started::new(slave, Some(&pair.0));
        pair.1.prints("a reading of the second master", said.second);
    }
}

#[test]
fn the_cpp_pair_of_the_readme_runs_as_printed() {
    let is_reading = |line: &str| line.split_once(": ").is_some_and(|(epoch, _)| epoch == "1");
    let is_second = |line: &str| line.starts_with("2: ");
    let silence = "silence; the master is gone";
    let said = Said { reading: is_reading, second: is_second, silence };
    runs(["pair_master.cpp", "pair_slave.cpp"], "c++17", &said);
}

#[test]
fn the_pair_in_c_runs_as_printed() {
    let is_reading = |line: &str| line.contains(" s: ");
    let said = Said { reading: is_reading, second: is_reading, silence: "silence" };
    runs(["master.c", "slave.c"], "c99", &said);
}

/// The C++ programs that the README prints.
#[test]
fn the_readme_prints_the_examples() {
    let root = Path::new(PACKAGE);
    let readme = std::fs::read_to_string(root.join("../../README.md")).expect("there is one");
    let printed: Vec<&str> = readme
        .split("```cpp\n")
        .skip(1)
        .map(|rest| rest.split_once("```").expect("an end").0)
        .collect();
    let names = ["pair_master.cpp", "pair_slave.cpp"];
    assert_eq!(printed.len(), names.len());
    for (name, block) in names.into_iter().zip(printed) {
        let example = std::fs::read_to_string(root.join("examples").join(name));
        assert_eq!(example.expect("there is one"), block, "{name} and README.md differ");
    }
}

#[test]
fn none_is_longer_than_forty_lines() {
    for name in ["pair_master.cpp", "pair_slave.cpp", "master.c", "slave.c"] {
        let path = Path::new(PACKAGE).join("examples").join(name);
        let lines = std::fs::read_to_string(path).expect("there is one").lines().count();
        assert!(lines <= 40, "{name}: {lines} lines");
    }
}
