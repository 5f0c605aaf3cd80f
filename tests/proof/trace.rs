//! A child under the control of its parent, instruction by instruction.
//!
//! The child runs freely from one *mark* to the next. Between two marks its parent takes it to any
//! instruction, and there kills it, leaves it frozen, or makes the system refuse a call. The code
//! of parent and child lies at the same addresses, because the child is forked; so a place is just
//! an address, and a breakpoint there spares stepping through all that comes before.

use std::arch::global_asm;
use std::ffi::c_long;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

// A breakpoint of our own, known by its address.
global_asm!(
    ".globl eshm_proof_mark",
    ".type eshm_proof_mark,@function",
    "eshm_proof_mark:",
    "int3",
    "ret",
    ".size eshm_proof_mark, . - eshm_proof_mark",
);

unsafe extern "C" {
    fn eshm_proof_mark();
}

/// Stops the child here, for its parent to look.
pub fn mark() {
    // SAFETY: one trap and a return; touches nothing.
    unsafe { eshm_proof_mark() }
}

fn mark_pc() -> u64 {
    eshm_proof_mark as *const () as u64 + 1
}

/// Why the child stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    Mark,
    /// One instruction further, or at a breakpoint.
    Trap,
    /// Entering or leaving the kernel.
    Syscall,
    Signal(Signal),
    Ended(WaitStatus),
}

/// The child.
pub struct Traced {
    pub pid: Pid,
    is_over: bool,
}

impl Traced {
    /// Forks a child that stops at its first mark.
    pub fn spawn(body: impl FnOnce()) -> Traced {
        // SAFETY: this process has one thread here, so the child may do whatever it likes.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                ptrace::traceme().expect("a debugger or a filter forbids to trace");
                mark();
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
                // SAFETY: leaves at once; nothing of the parent's is dropped here.
                unsafe { libc::_exit(if done.is_ok() { 0 } else { 101 }) }
            }
            ForkResult::Parent { child } => {
                let mut traced = Traced { pid: child, is_over: false };
                assert_eq!(traced.wait(None), Stop::Mark);
                let options = Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACESYSGOOD;
                ptrace::setoptions(child, options).expect("setoptions");
                traced
            }
        }
    }

    /// Waits until it stops. `idle` is called once if it seems to sleep.
    fn wait(&mut self, mut idle: Option<&mut dyn FnMut()>) -> Stop {
        let mut turns = 0;
        loop {
            let flags = idle.is_some().then_some(WaitPidFlag::WNOHANG);
            match waitpid(self.pid, flags) {
                Ok(WaitStatus::StillAlive) => {
                    turns += 1;
                    if turns > 200 {
                        idle.take().expect("only polled with a hook")();
                    } else {
                        std::thread::yield_now();
                    }
                }
                Ok(WaitStatus::Stopped(_, Signal::SIGTRAP)) => {
                    return if self.pc() == mark_pc() { Stop::Mark } else { Stop::Trap };
                }
                Ok(WaitStatus::PtraceSyscall(_)) => return Stop::Syscall,
                Ok(WaitStatus::Stopped(_, signal)) => return Stop::Signal(signal),
                Ok(ended) => {
                    self.is_over = true;
                    return Stop::Ended(ended);
                }
                Err(Errno::EINTR) => panic!("the child hangs at {:#x}", self.pc_of_stuck()),
                Err(error) => panic!("waitpid: {error}"),
            }
        }
    }

    /// Where it hangs, for the message only.
    fn pc_of_stuck(&self) -> u64 {
        let _ = kill(self.pid, Signal::SIGSTOP);
        let _ = waitpid(self.pid, None);
        ptrace::getregs(self.pid).map_or(0, |regs| regs.rip)
    }

    /// The address of its next instruction.
    pub fn pc(&self) -> u64 {
        let offset = std::mem::offset_of!(libc::user_regs_struct, rip);
        ptrace::read_user(self.pid, offset as ptrace::AddressType).expect("registers") as u64
    }

    /// Executes one instruction.
    pub fn step(&mut self, idle: Option<&mut dyn FnMut()>) -> Stop {
        ptrace::step(self.pid, None).expect("step");
        self.wait(idle)
    }

    /// Lets it run to its next mark.
    pub fn run_to_mark(&mut self, idle: Option<&mut dyn FnMut()>) {
        ptrace::cont(self.pid, None).expect("cont");
        let stop = self.wait(idle);
        assert_eq!(stop, Stop::Mark, "the child did not come to its mark");
    }

    /// Lets it run to the next entry into or exit from the kernel, or its mark.
    pub fn run_to_syscall(&mut self, idle: Option<&mut dyn FnMut()>) -> Stop {
        ptrace::syscall(self.pid, None).expect("syscall");
        self.wait(idle)
    }

    /// At an entry into the kernel: which call, with which arguments.
    pub fn call(&self) -> (i64, [u64; 6]) {
        let regs = ptrace::getregs(self.pid).expect("registers");
        (regs.orig_rax as i64, [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9])
    }

    /// At an entry into the kernel: refuses the call with this error. Stops at the exit.
    pub fn refuse(&mut self, errno: i32) {
        let mut regs = ptrace::getregs(self.pid).expect("registers");
        regs.orig_rax = u64::MAX;
        ptrace::setregs(self.pid, regs).expect("registers");
        assert_eq!(self.run_to_syscall(None), Stop::Syscall);
        let mut regs = ptrace::getregs(self.pid).expect("registers");
        regs.rax = i64::from(-errno) as u64;
        ptrace::setregs(self.pid, regs).expect("registers");
    }

    /// Lets it run until it comes to this address.
    fn run_to(&mut self, pc: u64, idle: Option<&mut dyn FnMut()>) -> Stop {
        let word = ptrace::read(self.pid, pc as ptrace::AddressType).expect("its code");
        let trap = (word & !0xff) | 0xcc;
        ptrace::write(self.pid, pc as ptrace::AddressType, trap).expect("a breakpoint");
        ptrace::cont(self.pid, None).expect("cont");
        let stop = self.wait(idle);
        if !matches!(stop, Stop::Ended(_)) {
            ptrace::write(self.pid, pc as ptrace::AddressType, word).expect("its code");
        }
        if stop == Stop::Trap && self.pc() == pc + 1 {
            let mut regs = ptrace::getregs(self.pid).expect("registers");
            regs.rip = pc;
            ptrace::setregs(self.pid, regs).expect("registers");
        }
        stop
    }

    /// Takes it to instruction `k` of a recorded path. False if it did not come there.
    pub fn go(&mut self, path: &Path, k: usize, mut idle: Option<&mut dyn FnMut()>) -> bool {
        let anchor = path.anchor(k);
        if anchor > 0 {
            let stop = self.run_to(path.pcs[anchor], reborrow(&mut idle));
            if stop != Stop::Trap {
                return false;
            }
        }
        for _ in anchor..k {
            if self.step(reborrow(&mut idle)) != Stop::Trap {
                return false;
            }
        }
        true
    }

    /// SIGKILL, and waits until nothing is left of it but the number.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if !self.is_over {
            let _ = kill(self.pid, Signal::SIGKILL);
            while matches!(
                self.wait(None),
                Stop::Trap | Stop::Mark | Stop::Syscall | Stop::Signal(_)
            ) {}
        }
    }

    /// Lets it run on to whatever stops it next.
    pub fn resume(&mut self) -> Stop {
        ptrace::cont(self.pid, None).expect("cont");
        self.wait(None)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end();
    }
}

/// The same hook once more.
pub fn reborrow<'a>(hook: &'a mut Option<&mut dyn FnMut()>) -> Option<&'a mut dyn FnMut()> {
    match hook {
        Some(hook) => Some(*hook),
        None => None,
    }
}

/// The instructions that a child executed: `pcs[k]` is the one after `k` of them.
#[derive(Debug, Default, Clone)]
pub struct Path {
    pub pcs: Vec<u64>,
    anchors: Vec<usize>,
    known: std::collections::HashSet<u64>,
}

impl Path {
    pub fn push(&mut self, pc: u64) {
        if self.known.insert(pc) {
            self.anchors.push(self.pcs.len());
        }
        self.pcs.push(pc);
    }

    /// For a child with threads, which would all meet a breakpoint: always steps.
    pub fn without_breakpoints(mut self) -> Path {
        self.anchors = vec![0];
        self
    }

    /// Where each instruction of the code was met for the first time, but for the last.
    pub fn firsts(&self) -> Vec<usize> {
        self.anchors.iter().copied().filter(|at| at + 1 < self.pcs.len()).collect()
    }

    /// The last instruction up to `k` that was met for the first time.
    fn anchor(&self, k: usize) -> usize {
        self.anchors[self.anchors.partition_point(|&at| at <= k) - 1]
    }

    /// Steps a child from one mark to the next, and notes where it came by.
    pub fn record(child: &mut Traced, mut idle: Option<&mut dyn FnMut()>) -> Path {
        let mut path = Path::default();
        loop {
            path.push(child.pc());
            match child.step(reborrow(&mut idle)) {
                Stop::Trap => {}
                Stop::Mark => return path,
                other => panic!("stopped while recorded: {other:?}"),
            }
        }
    }
}

/// Where the segments of a child change between two of its system calls.
#[derive(Debug, Default)]
pub struct Stretch {
    pub path: Path,
    /// Instructions after which a segment was another one than before.
    pub changes: Vec<usize>,
}

/// Steps a child from one mark to the next and compares all segments after each instruction. A
/// stretch for each time between two system calls.
pub fn record_changes(child: &mut Traced, name: &str) -> Vec<Stretch> {
    let mut seen = Watched::default();
    seen.add_file(name);
    let mut stretches = vec![Stretch::default()];
    loop {
        let pc = child.pc();
        let last = stretches.last_mut().expect("never empty");
        last.path.push(pc);
        // SAFETY: the child runs the code of this very process, which is mapped at this address.
        let is_syscall = unsafe { (pc as *const [u8; 2]).read_unaligned() } == [0x0f, 0x05];
        let mapped = is_syscall.then(|| ptrace::getregs(child.pid).expect("registers"));
        match child.step(None) {
            Stop::Trap => {}
            Stop::Mark => return stretches,
            other => panic!("stopped while recorded: {other:?}"),
        }
        if let Some(regs) = mapped {
            let is_shared = regs.r10 & libc::MAP_SHARED as u64 != 0 && (regs.r8 as i32) >= 0;
            if regs.rax as c_long == libc::SYS_mmap && is_shared {
                seen.add_file(&format!("/proc/{}/fd/{}", child.pid, regs.r8 as i32));
            }
            stretches.push(Stretch::default());
        } else if seen.has_changed() {
            last.changes.push(last.path.pcs.len());
        }
    }
}

/// Segments, mapped a second time, and what was in them at the last look.
#[derive(Default)]
struct Watched {
    maps: Vec<(memmap2::Mmap, Vec<u8>)>,
}

impl Watched {
    fn add_file(&mut self, path: &str) {
        let Ok(file) = std::fs::File::open(path) else { return };
        // SAFETY: compared with volatile intent only while the child stands still.
        let Ok(map) = (unsafe { memmap2::Mmap::map(file.as_raw_fd()) }) else { return };
        let bytes = map.to_vec();
        self.maps.push((map, bytes));
    }

    fn has_changed(&mut self) -> bool {
        let mut changed = false;
        for (map, before) in &mut self.maps {
            // The optimizer must not believe that a mapping keeps its bytes.
            let now: &[u8] = std::hint::black_box(&**map);
            if now != &before[..] {
                before.copy_from_slice(now);
                changed = true;
            }
        }
        changed
    }
}
