//! What the tests of the command share: a directory of segments for each test, and the real
//! program. Nothing may be left in that directory when a test ends.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs;
use std::io::{Read, Write, empty};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Whatever is waited for must have happened by then, or the test fails.
const LIMIT: Duration = Duration::from_secs(30);

/// A directory of segments for one test, in memory, and a directory for its files.
pub struct Place {
    segments: TempDir,
    files: TempDir,
}

impl Place {
    /// A new one.
    pub fn new() -> Place {
        let segments =
            tempfile::Builder::new().prefix("eshm-cli-test-").tempdir_in("/dev/shm").unwrap();
        Place { segments, files: tempfile::tempdir().unwrap() }
    }

    /// Where the segments are.
    pub fn dir(&self) -> &Path {
        self.segments.path()
    }

    /// The path of a file of the test.
    pub fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// The program with these arguments, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eshm"));
        command
            .args(args)
            .env("ESHM_DIR", self.dir())
            .env_remove("NO_COLOR")
            .env("TERM", "xterm-256color");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Runs the program to its end, with that on its stdin.
    pub fn feed(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        let writer = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
        let ran = Ran::of(child.wait_with_output().unwrap());
        writer.join().unwrap();
        ran
    }

    /// Starts the program; what it says is collected.
    pub fn start(&self, args: &[&str]) -> Running {
        Running::of(&mut self.command(args))
    }

    /// Starts the program with a pipe as its stdin.
    pub fn start_fed(&self, args: &[&str]) -> (Running, ChildStdin) {
        let mut running = Running::of(self.command(args).stdin(Stdio::piped()));
        let stdin = running.child.stdin.take().unwrap();
        (running, stdin)
    }

    /// Options for a bus of this test.
    pub fn bus(&self, name: &str) -> eshm::Options {
        let mut options = eshm::Options::new(name);
        options.directory(self.dir());
        options
    }

    /// A bus whose master was killed with three messages in it; gives its pid.
    pub fn orphan(&self, name: &str) -> u32 {
        let (send, mut stdin) = self.start_fed(&["send", name]);
        stdin.write_all(b"1\n2\n3\n").unwrap();
        self.until(name, |now| now.stats.master_to_slave.written == 3);
        let pid = send.child.id();
        send.kill();
        pid
    }

    /// Takes away what nobody holds, whatever is unread.
    pub fn sweep(&self) {
        self.run(&["gc", "--older", "0s"]).ok();
    }

    /// Whether the program has ended, looked at without waiting for it.
    pub fn has_ended(&self, program: &Running) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", program.child.id()));
        stat.is_ok_and(|stat| stat.contains(") Z "))
    }

    /// What lies in the directory of segments.
    pub fn left(&self) -> Vec<String> {
        let files = fs::read_dir(self.dir()).unwrap().flatten();
        let mut names: Vec<String> =
            files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Waits until the bus is there and `seen` is true of it.
    pub fn until(&self, name: &str, mut seen: impl FnMut(&eshm::Snapshot) -> bool) {
        until(&format!("{name} to be as expected"), || {
            eshm::inspect_in(self.dir(), name).is_ok_and(|now| seen(&now))
        });
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.left(), [] as [String; 0], "the test left something behind");
        }
    }
}

/// Waits until something is true; it is looked at again and again.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that runs; dropped, it is killed.
pub struct Running {
    /// The process.
    pub child: Child,
    said: Vec<JoinHandle<Vec<u8>>>,
}

impl Running {
    fn of(command: &mut Command) -> Running {
        let mut child = command.spawn().unwrap();
        let said =
            vec![collect(child.stdout.take().unwrap()), collect(child.stderr.take().unwrap())];
        Running { child, said }
    }

    /// One whose pipes the test reads itself.
    pub fn bare(command: &mut Command) -> Running {
        Running { child: command.spawn().unwrap(), said: Vec::new() }
    }

    /// Its pid.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Kills it as SIGKILL does, and waits until it is gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end, which must come by itself.
    pub fn end(mut self) -> Ran {
        drop(self.child.stdin.take());
        if self.said.is_empty() {
            // What the test has taken for itself is empty here.
            self.said.push(self.child.stdout.take().map_or_else(|| collect(empty()), collect));
            self.said.push(self.child.stderr.take().map_or_else(|| collect(empty()), collect));
        }
        let mut status = None;
        until("the end of the program", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let mut said = self.said.drain(..).map(|reader| reader.join().unwrap());
        let (stdout, stderr) = (said.next().unwrap_or_default(), said.next().unwrap_or_default());
        Ran::of(Output { status: status.unwrap(), stdout, stderr })
    }
}

/// Reads a pipe to its end, beside the test.
fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; 128 + N for signal N, as in a shell.
    pub code: i32,
    /// Data.
    pub stdout: Vec<u8>,
    /// Talk.
    pub stderr: String,
}

impl Ran {
    /// Of a program that has ended.
    pub fn of(output: Output) -> Ran {
        use std::os::unix::process::ExitStatusExt;
        let code =
            output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        Ran {
            code,
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, if it went well.
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    /// The same, if it ended with that code.
    pub fn code(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.text(), self.stderr);
        self
    }

    /// Its data as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its data as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Its data as JSON, an object a line.
    pub fn json_lines(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Compares what is shown with a snapshot, in which PPPPP stands for the pid of the test. Rows are
/// compared word by word: how wide a column is depends on the pid.
#[track_caller]
pub fn same(shown: &str, expected: &str) {
    let shown = shown.replace(&std::process::id().to_string(), "PPPPP");
    let words = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split_whitespace().map(str::to_string).collect()).collect()
    };
    assert_eq!(words(&shown), words(expected), "\nshown:\n{shown}\nexpected:\n{expected}");
}
