//! One machine instruction at a time: a traced child that stops at instruction k of an operation.
//!
//! The child marks the operation with [`mark`] before and after it. Its parent lets it run to the
//! first mark, then steps, and does at the wanted instruction what it came for.

use super::Child;

/// Where a traced child stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stand {
    /// At a mark.
    Mark,
    /// Somewhere between two instructions.
    Between,
    /// It is gone.
    Ended,
}

/// For the child: lets itself be traced by its parent. False where that is forbidden.
pub fn allow() -> bool {
    // SAFETY: asks to be traced; no memory is touched.
    unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) == 0 }
}

/// For the child: stops here, for the parent to see.
pub fn mark() {
    // SAFETY: sends a signal to this thread.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Waits until the traced child stops, and says where.
pub fn stand(child: &mut Child) -> Stand {
    let mut status = 0;
    loop {
        // SAFETY: `status` lives across the call.
        let pid = unsafe { libc::waitpid(child.pid() as i32, &raw mut status, libc::__WALL) };
        if pid == child.pid() as i32 {
            break;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.kind(), std::io::ErrorKind::Interrupted, "{error}");
    }
    if !libc::WIFSTOPPED(status) {
        child.note_status(status);
        return Stand::Ended;
    }
    match libc::WSTOPSIG(status) {
        libc::SIGSTOP => Stand::Mark,
        _ => Stand::Between,
    }
}

fn request(child: &Child, request: libc::c_uint) {
    // SAFETY: the child is traced by this thread and stopped; no memory of ours is touched.
    let done = unsafe { libc::ptrace(request, child.pid() as i32, 0, 0) };
    assert_eq!(done, 0, "ptrace: {}", std::io::Error::last_os_error());
}

/// Runs one instruction.
pub fn step(child: &mut Child) -> Stand {
    request(child, libc::PTRACE_SINGLESTEP);
    stand(child)
}

/// Runs to the next mark or the end.
pub fn run(child: &mut Child) -> Stand {
    request(child, libc::PTRACE_CONT);
    stand(child)
}

/// Lets it go its own way.
pub fn release(child: &Child) {
    request(child, libc::PTRACE_DETACH);
}

/// Takes `count` steps from a mark; fewer if the next mark or the end comes first.
pub fn walk(child: &mut Child, count: u64) -> Stand {
    for _ in 0..count {
        match step(child) {
            Stand::Between => {}
            other => return other,
        }
    }
    Stand::Between
}

/// Passes `calls` entries to and exits from the kernel, then `steps` instructions.
pub fn walk_calls(child: &mut Child, calls: u64, steps: u64) -> Stand {
    for _ in 0..calls {
        request(child, libc::PTRACE_SYSCALL);
        match stand(child) {
            Stand::Between => {}
            other => return other,
        }
    }
    walk(child, steps)
}

/// Where to stop first, and how far apart: not at every instruction, since each costs a process,
/// but at others in every run. `ESHM_EVERY_STEP` asks for all of them.
pub fn places(usual: u64) -> (u64, u64) {
    match std::env::var_os("ESHM_EVERY_STEP") {
        Some(_) => (0, 1),
        None => (u64::from(std::process::id()) * 31 % usual, usual),
    }
}
