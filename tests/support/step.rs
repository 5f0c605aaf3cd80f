//! One machine instruction at a time: a child that kills itself, or freezes, at instruction k of an
//! operation.
//!
//! The processor's trap flag calls a signal handler after every instruction between [`begin`] and
//! [`end`]; the handler counts. Unlike a tracer nobody can forbid it. What takes too many
//! instructions to count them all is killed at a random time instead, see [`kill_soon`].

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::{Board, Child, until};

/// On the board: the child stands still, it may go on, the operation is over.
const FROZEN: usize = 500;
const GO: usize = 501;
const OVER: usize = 502;

static TAKEN: AtomicU64 = AtomicU64::new(0);
static AT: AtomicU64 = AtomicU64::new(0);
/// Where to freeze; none to be killed instead.
static BOARD: AtomicPtr<Board> = AtomicPtr::new(ptr::null_mut());

/// Whether this machine can; if not, says that the test is skipped.
pub fn is_possible() -> bool {
    if cfg!(target_arch = "x86_64") {
        return true;
    }
    super::skipped("only x86-64 can stop at each instruction");
    false
}

extern "C" fn on_step(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if TAKEN.fetch_add(1, Ordering::Relaxed) + 1 != AT.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: null, or a board that was leaked by `begin`.
    let Some(board) = (unsafe { BOARD.load(Ordering::Relaxed).as_ref() }) else {
        // SAFETY: ends this process.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
        return;
    };
    board.set(FROZEN, 1);
    await_go(board);
    stop_counting(context.cast());
}

/// What the handler returns to runs on without traps.
fn stop_counting(context: *mut libc::ucontext_t) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel gives a handler of this kind the context that it returns to.
    unsafe {
        (*context).uc_mcontext.gregs[libc::REG_EFL as usize] &= !0x100;
    }
}

fn await_go(board: &Board) {
    while board.get(GO) == 0 {
        let pause = libc::timespec { tv_sec: 0, tv_nsec: 50_000 };
        // SAFETY: reads the pause, which lives across the call.
        unsafe { libc::nanosleep(&raw const pause, ptr::null_mut()) };
    }
}

/// For the child: from here on instructions count. At number `at` it is killed, or with a board
/// freezes until its parent lets it go on.
pub fn begin(at: u64, board: Option<Board>) {
    AT.store(at, Ordering::Relaxed);
    let board = board.map_or(ptr::null_mut(), |board| Box::into_raw(Box::new(board)));
    BOARD.store(board, Ordering::Relaxed);
    // SAFETY: plain integers and an optional function; zero is an empty mask and no flags.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_step as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler uses only atomics and system calls that a handler may make.
    unsafe { libc::sigaction(libc::SIGTRAP, &raw const action, ptr::null_mut()) };
    set_trap_flag(true);
}

/// For the child: the operation is over. A child that was to freeze and did not waits here.
pub fn end() {
    set_trap_flag(false);
    // SAFETY: null, or a board that was leaked by `begin`.
    if let Some(board) = unsafe { BOARD.load(Ordering::Relaxed).as_ref() } {
        if board.get(FROZEN) == 0 {
            board.set(OVER, 1);
        }
        await_go(board);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn set_trap_flag(on: bool) {
    // SAFETY: changes one flag; the traps that follow are handled, and the stack is balanced.
    unsafe {
        if on {
            std::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq");
        } else {
            std::arch::asm!("pushfq", "and qword ptr [rsp], -257", "popfq");
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn set_trap_flag(_: bool) {}

/// For the parent: waits until the child is frozen; false if the operation was over before.
pub fn is_frozen(board: &Board) -> bool {
    until("the child stands still", || board.get(FROZEN) + board.get(OVER) > 0);
    board.get(FROZEN) == 1
}

/// For the parent: lets a frozen child go on.
pub fn go_on(board: &Board) {
    board.set(GO, 1);
}

/// For the parent: waits for the end of a child; true if it was killed on the way.
pub fn was_killed(child: &mut Child) -> bool {
    let status = child.wait();
    let is_killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(libc::SIGKILL);
    assert!(is_killed || status.success(), "{status}");
    is_killed
}

/// For the child: waits for the parent's [`kill_soon`].
pub fn await_start(board: &Board) {
    board.set(OVER, 1);
    while board.get(GO) == 0 {
        std::hint::spin_loop();
    }
}

/// For the parent: starts what the child waits for, and kills it some nanoseconds later; true if it
/// was not over by itself.
pub fn kill_soon(child: &mut Child, board: &Board, after_ns: u64) -> bool {
    until("the child is there", || board.get(OVER) == 1);
    board.set(GO, 1);
    let started = std::time::Instant::now();
    while started.elapsed().as_nanos() < u128::from(after_ns) {
        std::hint::spin_loop();
    }
    child.signal(libc::SIGKILL);
    was_killed(child)
}

/// Where to stop first, and how far apart: not at every instruction, since each costs a process,
/// but at others in every run. `ESHM_EVERY_STEP` asks for all of them.
pub fn places(usual: u64) -> (u64, u64) {
    match std::env::var_os("ESHM_EVERY_STEP") {
        Some(_) => (1, 1),
        None => (u64::from(std::process::id()) * 31 % usual + 1, usual),
    }
}
