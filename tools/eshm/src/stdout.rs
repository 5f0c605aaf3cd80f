//! Whether stdout was there at all when this program began.
//!
//! Before `main`, Rust's runtime opens `/dev/null` in the place of a closed stdout; from then on a
//! script's `>&-` looks like a wish to throw everything away. So this looks earlier, as the loader
//! starts the program.
#![allow(unsafe_code, reason = "a section of the file cannot be named without it")]

use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::{Failure, Outcome, SYSTEM};

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

// SAFETY: this section holds addresses of functions, which the loader calls once, before `main`, with
// the C calling convention; one that takes no arguments may ignore those it is given. It must not
// need Rust's runtime: it asks the kernel, and stores into a static.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    let is_closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_err();
    // Relaxed: there is one thread yet.
    WAS_CLOSED.store(is_closed, Ordering::Relaxed);
}

/// Fails if nobody can ever see what is written to stdout: for those who take what they write.
pub fn must_be_open() -> Outcome {
    // Relaxed: see above.
    if !WAS_CLOSED.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Failure::new(SYSTEM, "stdout is closed: nothing was taken")
        .remedy("-o FILE or a pipe; to throw the messages away: > /dev/null"))
}
