//! The hot path: no allocation, no system call. A counting allocator shows the first; a child that
//! the kernel kills at its first system call shows the second.
#![allow(missing_docs)]
// A simulated build has an allocator of its own, and no hot path.
#![cfg(not(eshm_sim))]

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use eshm::{Batch, Endpoint, Error, Role};
use support::*;

children! { "sealed_off" => sealed_off }

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is done by the system's allocator; only a counter is added.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.set(ALLOCATED.get() + 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MESSAGES: u64 = 1_000_000;

/// How many allocations something makes.
fn allocations(act: impl FnOnce()) -> u64 {
    let before = ALLOCATED.get();
    act();
    ALLOCATED.get() - before
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(vec![1u8])), 1);
    assert_eq!(allocations(|| ()), 0);
}

/// A write and a read, each with 48 bytes that say which message it is.
fn one_by_one(from: &mut Endpoint, to: &mut Endpoint, messages: u64) {
    let (mut out, mut back) = ([7; 48], [0; 48]);
    for number in 0..messages {
        out[..8].copy_from_slice(&number.to_le_bytes());
        from.try_write(&out).unwrap();
        assert!(to.try_read(&mut back) == Ok(48) && back == out);
    }
}

/// A full ring, and an empty one, again and again.
fn full_and_empty(from: &mut Endpoint, to: &mut Endpoint, messages: u64) {
    let (out, mut back) = ([7; 48], [0; 48]);
    let mut done = 0;
    while done < messages {
        let mut sent = 0;
        while from.try_write(&out).is_ok() {
            sent += 1;
        }
        assert_eq!(from.try_write(&out), Err(Error::Full));
        for _ in 0..sent {
            to.try_read(&mut back).unwrap();
        }
        assert_eq!(to.try_read(&mut back), Err(Error::Empty));
        done += sent;
    }
}

fn in_place(from: &mut Endpoint, to: &mut Endpoint, messages: u64) {
    for number in 0..messages {
        let mut claim = from.try_claim(40).unwrap();
        claim[..8].copy_from_slice(&number.to_le_bytes());
        claim.commit().unwrap();
        let peek = to.try_peek().unwrap();
        assert!(peek.len() == 40 && peek[..8] == number.to_le_bytes());
        peek.release().unwrap();
    }
}

fn in_batches(from: &mut Endpoint, to: &mut Endpoint, batch: &mut Batch, messages: u64) {
    let out = [[5u8; 48]; 100];
    for round in 0..messages / 200 {
        assert_eq!(from.try_write_many(&out), Ok(100));
        if round % 2 == 0 {
            assert_eq!(to.try_read_many(batch), Ok(100));
        } else {
            to.try_peek_many(batch).unwrap().release().unwrap();
        }
    }
}

fn values(from: &mut Endpoint, to: &mut Endpoint, messages: u64) {
    for number in 0..messages {
        from.try_write_value(&[number, 1, 2]).unwrap();
        assert!(to.try_read_value() == Ok([number, 1, 2]));
    }
}

#[test]
fn nothing_is_allocated() {
    let bus = Bus::new("alloc");
    let mut master = bus.options(Role::Master).frames(1024).open().unwrap();
    let mut slave = bus.slave();
    let mut batch = Batch::with_capacity(1 << 16, 100);
    let (from, to) = (&mut master, &mut slave);
    assert_eq!(allocations(|| one_by_one(from, to, MESSAGES)), 0, "write and read");
    assert_eq!(allocations(|| full_and_empty(from, to, MESSAGES / 2)), 0, "full and empty");
    assert_eq!(allocations(|| in_place(from, to, MESSAGES / 2)), 0, "claim and peek");
    assert_eq!(allocations(|| in_batches(from, to, &mut batch, MESSAGES)), 0, "batches");
    assert_eq!(allocations(|| values(from, to, MESSAGES / 4)), 0, "values");
    assert_eq!(allocations(|| one_by_one(to, from, 10_000)), 0, "the other direction");
}

/// Waiting allocates nothing either: the reader sleeps before each message.
#[test]
fn sleeping_and_waking_allocate_nothing() {
    let bus = Bus::new("sleep");
    let mut master = bus.options(Role::Master).wait(eshm::Wait::Park).open().unwrap();
    let mut slave = bus.options(Role::Slave).wait(eshm::Wait::Park).open().unwrap();
    let echo = |endpoint: &mut Endpoint| {
        let mut bytes = [0; 64];
        allocations(|| {
            for _ in 0..2000 {
                let len = endpoint.read(&mut bytes).unwrap();
                endpoint.write(&bytes[..len]).unwrap();
            }
        })
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(|| echo(&mut slave));
        master.write(b"ball").unwrap();
        assert_eq!(echo(&mut master), 0);
        assert_eq!(other.join().unwrap(), 0);
    });
    assert!(master.stats().slave_to_master.reader_parks > 0, "nobody ever slept");
    drain_raw(&mut slave);
}

fn drain_raw(endpoint: &mut Endpoint) {
    while endpoint.try_read(&mut [0; 64]).is_ok() {}
}

const SECCOMP_STRICT: libc::c_ulong = 1;

/// Writes and reads a million messages where any system call but `write` and `exit` is death.
fn sealed_off(talk: &mut Talk) {
    let is_to_break = talk.word(1) == "break";
    // The one that breaks the seal has no other thread, which would live on.
    let background = if is_to_break { "background=0" } else { "background=1" };
    let open = |role| servant::options(talk.word(0), &[role, background]).open().unwrap();
    let (mut master, mut slave) = (open("role=master"), open("role=slave"));
    let mut batch = Batch::with_capacity(1 << 16, 100);
    talk.say("ready");
    // SAFETY: asks the kernel to forbid system calls to this thread; no memory is touched.
    let sealed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, SECCOMP_STRICT) };
    if sealed != 0 {
        return talk.say("forbidden");
    }
    if is_to_break {
        // SAFETY: asks for a number; here it is death.
        unsafe { libc::syscall(libc::SYS_getppid) };
    }
    one_by_one(&mut master, &mut slave, MESSAGES);
    full_and_empty(&mut master, &mut slave, MESSAGES / 4);
    in_place(&mut master, &mut slave, MESSAGES / 4);
    in_batches(&mut master, &mut slave, &mut batch, MESSAGES / 4);
    values(&mut master, &mut slave, MESSAGES / 4);
    let text = b"done\n";
    // SAFETY: `write` reads the text, which is static; `exit` ends this thread, and the parent ends
    // the other, which only beats.
    unsafe {
        libc::syscall(libc::SYS_write, 1, text.as_ptr(), text.len());
        libc::syscall(libc::SYS_exit, 0);
    }
}

fn sealed_child(tag: &str, how: &str) -> Option<(Bus, Child)> {
    let mut bus = Bus::new(tag);
    bus.may_leave();
    let mut child = Child::spawn("sealed_off", &format!("{} {how}", bus.name()));
    child.expect("ready");
    if how == "break" {
        return Some((bus, child));
    }
    let said = child.hear_within(PATIENCE * 2).expect("a word");
    if said == "forbidden" {
        skipped("strict seccomp is not to be had here");
        return None;
    }
    assert_eq!(said, "done");
    Some((bus, child))
}

#[test]
fn a_million_messages_without_a_system_call() {
    if let Some((_, mut child)) = sealed_child("seal", "go") {
        child.kill();
    }
}

#[test]
fn any_system_call_would_have_shown() {
    if let Some((_, mut child)) = sealed_child("sealbreak", "break") {
        let status = child.wait();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
    }
}
