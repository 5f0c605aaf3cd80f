//! Every instruction, frozen: a child stopped there is fenced by a successor that goes on, and then
//! continues. It is told `Fenced`, or `Ok` for exactly what its successor found, and not one byte
//! of it reaches the stream.
//!
//! The points and the command lines are those of `proof_kill.rs`.

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
    let mut total = run_hearings(Cut::Frozen, most[0], |name| wish.wants(name));
    total.add(&run_all(&ops, Cut::Frozen, most, |name| wish.wants(name)));
    ExitCode::from(u8::from(total.failed > 0))
}
