//! Every system call of open, adopt, fence, move and leave, refused with each of ENOSPC, ENOMEM,
//! EMFILE, EINTR and EACCES: an error or none, but no crash, no hang, nothing half-made, and whoever
//! comes next goes on.
//!
//! `--ignored` takes every call; without it a part of them.

mod proof;

use std::collections::BTreeMap;
use std::process::ExitCode;

use eshm::Role;
use proof::Wish;
use proof::ledger::{Page, Told};
use proof::points::fresh_name;
use proof::scene::{LONG_PATHS, Op};
use proof::stage::{Cut, Stage};
use proof::trace::Stop;

const ERRNOS: [i32; 5] = [libc::ENOSPC, libc::ENOMEM, libc::EMFILE, libc::EINTR, libc::EACCES];

#[derive(Default)]
struct Count {
    refused: usize,
    errors: usize,
    failed: usize,
}

fn main() -> ExitCode {
    let Some(wish) = Wish::read() else { return ExitCode::SUCCESS };
    let page = Page::new();
    let mut total = Count::default();
    for op in LONG_PATHS {
        for &role in op.roles() {
            if !wish.wants(&format!("{op:?} {role}")) {
                continue;
            }
            let count = every_call(op, role, page, if wish.is_full { 1 } else { 13 });
            println!(
                "{:24} {:4} calls refused: {} errors, {} failed",
                format!("{op:?} {role}"),
                count.refused,
                count.errors,
                count.failed
            );
            total.refused += count.refused;
            total.errors += count.errors;
            total.failed += count.failed;
        }
    }
    println!("total: {} calls refused, {} failed", total.refused, total.failed);
    ExitCode::from(u8::from(total.failed > 0))
}

/// Calls that a real system does not refuse in this way, or whose refusal is not ours to survive:
/// memory of the allocator, and what frees something, which is done even if it says no.
fn is_exempt(number: i64, args: [u64; 6]) -> bool {
    let anonymous = args[3] & libc::MAP_ANONYMOUS as u64 != 0;
    match number {
        libc::SYS_mmap => anonymous,
        libc::SYS_brk | libc::SYS_munmap | libc::SYS_close | libc::SYS_mprotect => true,
        libc::SYS_madvise | libc::SYS_getrandom | libc::SYS_exit_group | libc::SYS_kill => true,
        _ => false,
    }
}

fn every_call(op: Op, role: Role, page: &'static Page, stride: usize) -> Count {
    let mut count = Count::default();
    let mut names: BTreeMap<String, usize> = BTreeMap::new();
    for errno in ERRNOS {
        let mut call = 0;
        loop {
            let mut stage = Stage::set(op, role, page, fresh_name());
            if !stage.direct(|child, _| {
                (0..2 * call + 1).all(|_| child.run_to_syscall(None) == Stop::Syscall)
            }) {
                // Past the last call; what was opened is to be left all the same.
                if let Err(fault) = stage.reckon(Cut::Spared) {
                    count.failed += 1;
                    *names.entry(fault).or_default() += 1;
                }
                break;
            }
            let (number, args) = stage.direct(|child, _| child.call());
            if !is_exempt(number, args) {
                stage.direct(|child, _| child.refuse(errno));
                count.refused += 1;
                match stage.reckon(Cut::Spared) {
                    Ok(Told::Ok(_)) => {}
                    Ok(_) => count.errors += 1,
                    Err(fault) => {
                        count.failed += 1;
                        if count.failed <= 5 {
                            println!(
                                "FAILED {op:?} as {role}: call {call} ({number}): errno {errno}: {fault}"
                            );
                        }
                        *names.entry(fault).or_default() += 1;
                    }
                }
            } else if let Err(fault) = stage.remove() {
                // Cut off without an end, its bus would stay.
                count.failed += 1;
                *names.entry(fault).or_default() += 1;
            }
            call += stride;
        }
    }
    count
}
