//! Child processes, and lines to talk with them.

use std::io::{BufRead, Read, Write};
use std::os::fd::AsRawFd;
use std::process::{ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;

const PART: &str = "ESHM_TEST_PART";
const WORDS: &str = "ESHM_TEST_WORDS";

/// The child's side of the talk.
pub struct Talk {
    pub words: Vec<String>,
}

impl Talk {
    pub fn say(&mut self, line: impl AsRef<str>) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{}", line.as_ref()).and_then(|()| out.flush());
    }

    /// The parent's next line. Without a parent there is nothing left to do.
    pub fn hear(&mut self) -> String {
        let mut line = String::new();
        match std::io::stdin().lock().read_line(&mut line) {
            Ok(1..) => line.trim_end().to_owned(),
            _ => leave_at_once(3),
        }
    }

    pub fn word(&self, index: usize) -> &str {
        &self.words[index]
    }

    pub fn number(&self, index: usize) -> u64 {
        self.word(index).parse().expect("a number")
    }
}

/// Ends the process with nothing cleaned up.
pub fn leave_at_once(code: i32) -> ! {
    // SAFETY: leaving is always allowed.
    unsafe { libc::_exit(code) }
}

/// Plays a part, if this process was started to do so. Does not return then.
pub fn play(parts: &[(&str, fn(&mut Talk))]) {
    let Ok(part) = std::env::var(PART) else { return };
    let Some((_, play)) = parts.iter().find(|(name, _)| *name == part) else {
        eprintln!("no such part: {part}");
        leave_at_once(4);
    };
    // SAFETY: asks for a signal when the parent dies; no memory is touched.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let words = std::env::var(WORDS).unwrap_or_default();
    let mut talk = Talk { words: words.split_whitespace().map(str::to_owned).collect() };
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| play(&mut talk)));
    leave_at_once(if played.is_ok() { 0 } else { 101 });
}

/// A process that plays a part. Killed when dropped, if it still runs.
pub struct Child {
    process: std::process::Child,
    to: Option<ChildStdin>,
    from: ChildStdout,
    heard: Vec<u8>,
    status: Option<ExitStatus>,
}

impl Child {
    pub fn spawn(part: &str, words: &str) -> Child {
        Child::spawn_with(part, words, |_| {})
    }

    /// As `spawn`, with something to be said about the process before it starts.
    pub fn spawn_with(part: &str, words: &str, change: impl FnOnce(&mut Command)) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("this executable"));
        command.env(PART, part).env(WORDS, words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        change(&mut command);
        let mut process = command.spawn().expect("a child process");
        let (to, from) = (process.stdin.take(), process.stdout.take().expect("its output"));
        Child { process, to, from, heard: Vec::new(), status: None }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn tell(&mut self, line: &str) {
        let to = self.to.as_mut().expect("an open pipe");
        writeln!(to, "{line}").and_then(|()| to.flush()).expect("the child listens");
    }

    /// The child's next line.
    #[track_caller]
    pub fn hear(&mut self) -> String {
        self.hear_within(PATIENCE).unwrap_or_else(|| panic!("the child says nothing"))
    }

    /// The child's next line, if it comes in time.
    #[track_caller]
    pub fn hear_within(&mut self, limit: Duration) -> Option<String> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.heard.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let mut poll =
                libc::pollfd { fd: self.from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one descriptor of ours, alive across the call.
            let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32) };
            if ready == 0 {
                return None;
            }
            let mut bytes = [0; 4096];
            match self.from.read(&mut bytes) {
                Ok(0) => panic!("the child ended: {}", self.wait()),
                Ok(count) => self.heard.extend(&bytes[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no word from the child: {error}"),
            }
        }
    }

    /// Waits for exactly this line.
    #[track_caller]
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.hear(), line);
    }

    pub fn ask(&mut self, line: &str) -> String {
        self.tell(line);
        self.hear()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: sends a signal to a child that was not waited for, so the number is its own.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// Ends it as a crash would, and waits until it is gone.
    pub fn kill(&mut self) -> ExitStatus {
        self.signal(libc::SIGKILL);
        self.wait()
    }

    /// Stops it, and returns when all of it stands still.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
        self.await_state(libc::WSTOPPED);
    }

    pub fn go_on(&self) {
        self.signal(libc::SIGCONT);
        self.await_state(libc::WCONTINUED);
    }

    fn await_state(&self, state: i32) {
        // SAFETY: plain integers, so zero is a value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: writes `info`, which lives across the call.
        unsafe { libc::waitid(libc::P_PID, self.pid(), &raw mut info, state) };
    }

    pub fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.process.try_wait().expect("a child to wait for");
        }
        self.status.is_none()
    }

    /// Waits until it ends by itself.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        self.to = None;
        if let Some(status) = self.status {
            return status;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait().expect("a child to wait for") {
                self.status = Some(status);
                return status;
            }
            if Instant::now() > deadline {
                let _ = self.process.kill();
                panic!("the child does not end");
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    /// Waits until it ends well.
    #[track_caller]
    pub fn finish(mut self) {
        let status = self.wait();
        assert!(status.success(), "the child ended with {status}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
