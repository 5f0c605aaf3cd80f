//! The examples are short, and do what they say.
#![allow(missing_docs)]

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

/// Where cargo put an example: beside the tests.
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    assert!(path.exists(), "{} is not built", path.display());
    path
}

fn output(name: &str) -> String {
    said(name, Command::new(example(name)).output().unwrap())
}

fn said(name: &str, output: Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {out}{err}");
    out.into_owned()
}

#[test]
fn the_first_pair_talks() {
    let name = format!("example-{}", std::process::id());
    let slave = Command::new(example("first_slave"))
        .arg(&name)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let master = Command::new(example("first_master")).arg(&name).output().unwrap();
    assert!(said("first_master", master).contains("the slave says: 5 readings arrived"));
    let slave = said("first_slave", slave.wait_with_output().unwrap());
    assert_eq!(slave, "reading 1\nreading 2\nreading 3\nreading 4\nreading 5\n");
}

/// The pair of programs that the README prints.
#[test]
fn the_readme_prints_the_examples() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let blocks: Vec<&str> = readme
        .split("```rust,no_run\n")
        .skip(1)
        .map(|rest| rest.split_once("```").unwrap().0)
        .collect();
    for (file, block) in ["pair_master.rs", "pair_slave.rs"].into_iter().zip(blocks) {
        let example = std::fs::read_to_string(root.join("examples").join(file)).unwrap();
        assert_eq!(example, block, "examples/{file} and README.md differ");
    }
}

/// A program of the README, in a `/dev/shm` of the test's own. Killed when it is dropped.
struct Started {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Started {
    /// The first one makes the namespace, the others come to it.
    fn new(program: &str, beside: Option<&Started>) -> Started {
        let mut command = Command::new(example(program));
        let pid = beside.map(|other| other.process.id());
        // SAFETY: between fork and exec only system calls are made, on strings that live.
        unsafe { command.pre_exec(move || own_shm(pid)) };
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Started { process, lines }
    }

    /// Reads what it prints until a line is right.
    fn prints(&mut self, what: &str, is_right: impl Fn(&str) -> bool) {
        let found = self.lines.by_ref().map(Result::unwrap).find(|line| is_right(line));
        assert!(found.is_some(), "it ended and had never printed {what}");
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Gives this process a `/dev/shm` that nobody else has, or that of another process.
fn own_shm(beside: Option<u32>) -> std::io::Result<()> {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, setns, unshare};
    if let Some(pid) = beside {
        let namespace = std::fs::File::open(format!("/proc/{pid}/ns/mnt"))?;
        return Ok(setns(namespace, CloneFlags::CLONE_NEWNS)?);
    }
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    Ok(mount(Some("none"), "/dev/shm", Some("tmpfs"), MsFlags::empty(), none)?)
}

/// As printed: in either order, with either of the two killed and started again.
#[test]
fn the_pair_of_the_readme_runs_as_printed() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: it needs a /dev/shm of its own, and so root");
    }
    let is_reading = |line: &str| line.starts_with("Some(MessageId");
    for is_master_first in [true, false] {
        let home = Started::new("pair_slave", None);
        let mut pair = match is_master_first {
            true => {
                let master = Started::new("pair_master", Some(&home));
                drop(home);
                let slave = Started::new("pair_slave", Some(&master));
                (master, slave)
            }
            false => (Started::new("pair_master", Some(&home)), home),
        };
        pair.1.prints("a reading", is_reading);
        // The master is killed: the slave says so, and goes on with the next one.
        pair.0.process.kill().unwrap();
        pair.1.prints("silence", |line| line == "silence; the master is dead");
        pair.0 = Started::new("pair_master", Some(&pair.1));
        pair.1.prints("a reading of the second master", |line| line.contains("epoch: 2"));
        // The slave is killed, and another one goes on where it was.
        pair.1.process.kill().unwrap();
        pair.1 = Started::new("pair_slave", Some(&pair.0));
        pair.1.prints("a reading of the second master", |line| line.contains("epoch: 2"));
    }
}

#[test]
fn telemetry_arrives_whole() {
    assert!(output("telemetry").starts_with("1000000 samples"));
}

#[test]
fn an_image_is_seen_where_it_lies() {
    assert_eq!(output("zero_copy"), "image 1:0 of 65536 bytes, brightest pixel 250\n");
}

#[test]
fn a_restarted_sender_goes_on() {
    let text = output("restart");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 12, "{text}");
    for (number, line) in lines.iter().enumerate() {
        let epoch = number / 3 + 1;
        assert_eq!(*line, format!("message {epoch}:{number}: step {number}"));
    }
}

#[test]
fn latency_is_told_by_percentiles() {
    assert_eq!(output("latency").lines().count(), 5);
}

#[test]
fn none_is_longer_than_forty_lines() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 40, "{}: {lines} lines", path.display());
    }
}
