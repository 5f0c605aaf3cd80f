//! Every instruction, killed: nothing is lost, doubled, torn or reordered, the next owner goes on,
//! and nothing is left over.
//!
//! `cargo test --test proof_kill` samples; `cargo test --release --test proof_kill -- --ignored`
//! takes every instruction of the ring's operations, and of the long paths every system call,
//! before and after, and every instruction that changes a segment. A name, or a part of one, chooses
//! operations. It has a `main` of its own because its children are forked from a single thread.

mod proof;

use std::process::ExitCode;

use proof::Wish;
use proof::listener::run_hearings;
use proof::points::run_all;
use proof::scene::{LONG_PATHS, RACES, RING};
use proof::stage::Cut;

fn main() -> ExitCode {
    let Some(wish) = Wish::read() else { return ExitCode::SUCCESS };
    let most = if wish.is_full { [usize::MAX; 2] } else { [12, 16] };
    let ops = [&RING[..], &RACES[..], &LONG_PATHS[..]].concat();
    let mut total = run_hearings(Cut::Killed, most[0], |name| wish.wants(name));
    total.add(&run_all(&ops, Cut::Killed, most, |name| wish.wants(name)));
    if wish.is_full && wish.only.is_empty() && !cfg!(debug_assertions) {
        assert!(total.points() >= 10_000, "only {} points", total.points());
    }
    ExitCode::from(u8::from(total.failed > 0))
}
