//! Each step of create, publish, adopt, fence, move, leave and unlink: the process aborts, is killed,
//! is stopped and replaced, or is refused by the system there. Needs the feature `failpoints`.

mod proof;

use std::collections::BTreeMap;
use std::process::ExitCode;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use proof::Wish;
use proof::ledger::{Page, Told};
use proof::points::fresh_name;
use proof::scene::{LONG_PATHS, Op, Scene};
use proof::stage::{Cut, Stage};
use proof::trace::Stop;

const POINTS: [&str; 24] = [
    "attach.opened",
    "slot.locked",
    "slot.allocated",
    "begin.formatted",
    "begin.enrolled",
    "begin.swapped",
    "create.published",
    "adopt.locked",
    "adopt.enrolled",
    "seal.begun",
    "seal.rung",
    "cut.noted",
    "cut.chosen",
    "rebuild.copied",
    "rebuild.done",
    "replace.ready",
    "replace.swapped",
    "move.locked",
    "move.checked",
    "move.enrolled",
    "retire.marked",
    "unlink.found",
    "unlink.moved",
    "unlink.done",
];

const ERRNOS: [i32; 5] = [libc::ENOSPC, libc::ENOMEM, libc::EMFILE, libc::EINTR, libc::EACCES];

/// What was asked for and what came of it.
#[derive(Default)]
struct Count {
    met: usize,
    failed: usize,
}

fn main() -> ExitCode {
    let Some(wish) = Wish::read() else { return ExitCode::SUCCESS };
    let page = Page::new();
    let mut actions: Vec<String> = ["kill", "abort", "stop"].map(str::to_owned).to_vec();
    actions.extend(ERRNOS.iter().map(i32::to_string));
    let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
    for point in POINTS {
        let count = counts.entry(point).or_default();
        for op in LONG_PATHS {
            for &role in op.roles() {
                if !wish.wants(&format!("{point} {op:?} {role}")) {
                    continue;
                }
                let scene = |action: &str| Scene {
                    op,
                    role,
                    name: fresh_name(),
                    page,
                    failpoints: Some(format!("{point}={action}")),
                };
                if let Err(fault) = removal(scene("kill")) {
                    count.failed += 1;
                    println!("FAILED {point}=kill in {op:?} as {role}: {fault}");
                }
                for action in &actions {
                    match attempt(scene(action), action) {
                        Ok(true) => count.met += 1,
                        // This operation does not come by here.
                        Ok(false) => break,
                        Err(fault) => {
                            count.failed += 1;
                            println!("FAILED {point}={action} in {op:?} as {role}: {fault}");
                        }
                    }
                }
            }
        }
    }
    report(&counts, wish.only.is_empty())
}

/// Whatever was left half-done, the bus can be removed.
fn removal(scene: Scene) -> Result<(), String> {
    let mut stage = Stage::set_scene(scene);
    stage.direct(|child, _| child.resume());
    stage.remove()
}

/// One operation with one failpoint. False if it did not come by there.
fn attempt(scene: Scene, action: &str) -> Result<bool, String> {
    let op = scene.op;
    let mut stage = Stage::set_scene(scene);
    let stop = stage.direct(|child, _| child.resume());
    match (stop, action) {
        (Stop::Ended(WaitStatus::Signaled(_, Signal::SIGKILL, _)), "kill") => {
            stage.reckon(Cut::Killed).map(|_| true)
        }
        // The tracer sees the signal first; what it would do is the same.
        (Stop::Signal(Signal::SIGABRT), "abort") => stage.reckon(Cut::Killed).map(|_| true),
        (Stop::Signal(Signal::SIGSTOP), "stop") => stage.reckon(Cut::Frozen).map(|_| true),
        (Stop::Mark, _) => {
            let told = stage.reckon(Cut::Spared)?;
            let is_refused = matches!(&told, Told::Other(text) if text.contains("failpoint"));
            // Whoever meets an error on the way may go on without it, and may not hide it either.
            let may_go_on = matches!(op, Op::MoveWrite | Op::MoveRead | Op::Leave);
            Ok(is_refused || may_go_on && action.parse::<i32>().is_ok())
        }
        (stop, _) => Err(format!("the child stopped with {stop:?}")),
    }
}

fn report(counts: &BTreeMap<&str, Count>, is_all: bool) -> ExitCode {
    let mut failed = 0;
    for (point, count) in counts {
        println!("{point:20} {:4} met, {} failed", count.met, count.failed);
        failed += count.failed + usize::from(is_all && count.met == 0);
    }
    let met: usize = counts.values().map(|count| count.met).sum();
    println!("total: {met} met at {} points, {failed} failed", counts.len());
    ExitCode::from(u8::from(failed > 0))
}
