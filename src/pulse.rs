//! The one background thread of a process: it beats for every endpoint and watches every peer.
//!
//! It sleeps until the next beat is due or a watched process dies, whichever comes first. It never
//! touches a message. It starts with the first endpoint that wants it and ends with the last. A
//! forked child has none and starts its own when it opens an endpoint.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::Result;
use crate::session::Member;
use crate::stats::PeerState;
use crate::sys::poll::{Poller, Waker};
use crate::sys::{clock, fork, process};

/// The token of the waker; the others are process ids.
const WAKE: u64 = u64::MAX;

/// All that the thread and the endpoints share.
struct Pulse {
    members: Mutex<Members>,
    waker: Waker,
    poller: Poller,
}

#[derive(Default)]
struct Members {
    list: Vec<Arc<Member>>,
    is_running: bool,
    version: u64,
}

/// The pulse of this process. A child forgets it: the parent's locks may be held for ever there.
static PULSE: AtomicPtr<Pulse> = AtomicPtr::new(ptr::null_mut());

fn forget() {
    PULSE.store(ptr::null_mut(), Ordering::Relaxed);
}

fn pulse() -> Result<&'static Pulse> {
    // Acquire: the pulse behind the pointer is whole.
    let mut current = PULSE.load(Ordering::Acquire);
    if current.is_null() {
        fork::on_child(forget);
        let (waker, poller) = (Waker::new()?, Poller::new()?);
        poller.add(waker.as_fd(), WAKE)?;
        let fresh = Box::into_raw(Box::new(Pulse { members: Mutex::default(), waker, poller }));
        // Release: see above.
        match PULSE.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => current = fresh,
            Err(other) => {
                // SAFETY: made by `Box::into_raw` a moment ago and shown to nobody.
                drop(unsafe { Box::from_raw(fresh) });
                current = other;
            }
        }
    }
    // SAFETY: it was made by `Box::into_raw` and is never freed.
    Ok(unsafe { &*current })
}

/// Begins to beat for an endpoint.
pub(crate) fn join(member: &Arc<Member>) -> Result<()> {
    let pulse = pulse()?;
    let mut members = pulse.members.lock().unwrap_or_else(PoisonError::into_inner);
    members.list.push(Arc::clone(member));
    members.version += 1;
    if !members.is_running {
        let thread = std::thread::Builder::new().name("eshm-pulse".into()).stack_size(128 << 10);
        let spawned = thread.spawn(move || pulse.run());
        if let Err(error) = spawned {
            members.list.pop();
            let errno = error.raw_os_error().unwrap_or(libc::EAGAIN);
            return Err(crate::sys::os_error("start", "the background thread", errno));
        }
        members.is_running = true;
    }
    drop(members);
    pulse.waker.wake();
    Ok(())
}

/// Stops to beat for an endpoint.
pub(crate) fn leave(member: &Arc<Member>) {
    let Ok(pulse) = pulse() else { return };
    let mut members = pulse.members.lock().unwrap_or_else(PoisonError::into_inner);
    members.list.retain(|listed| !Arc::ptr_eq(listed, member));
    members.version += 1;
    if members.list.is_empty() {
        pulse.waker.wake();
    }
}

/// What the thread alone knows.
#[derive(Default)]
struct Round {
    members: Vec<(Arc<Member>, u64)>,
    version: u64,
    watched: HashMap<u32, process::PidFd>,
}

impl Pulse {
    fn run(&self) {
        let mut round = Round::default();
        let mut events = Vec::new();
        while self.refresh(&mut round) {
            let now = clock::monotonic_ns();
            let mut next = u64::MAX;
            for (member, due) in &mut round.members {
                if now >= *due {
                    member.tick(now);
                    let interval = member.options.beat_interval.as_nanos() as u64;
                    // Beats that were missed are not made up for. Endpoints with the same interval
                    // are due together, so that they cost one wake-up; processes are not.
                    let phase = u64::from(process::pid()).wrapping_mul(7_919_000);
                    *due = now + interval - now.wrapping_add(phase) % interval;
                }
                next = next.min(*due);
            }
            self.watch_deaths(&mut round);
            let pause = Duration::from_nanos(next.saturating_sub(clock::monotonic_ns()));
            events.clear();
            // A failed wait would spin; the pause then comes from the clock alone.
            if self.poller.wait(Some(pause), &mut events).is_err() {
                std::thread::sleep(pause);
            }
            self.take_in(&mut round, &events);
        }
    }

    /// Takes over the list of endpoints if it changed. False when the thread is to end.
    fn refresh(&self, round: &mut Round) -> bool {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if members.version != round.version {
            round.version = members.version;
            let now = clock::monotonic_ns();
            let due: HashMap<*const Member, u64> =
                round.members.drain(..).map(|(member, due)| (Arc::as_ptr(&member), due)).collect();
            let list = members.list.iter().map(|member| {
                (Arc::clone(member), due.get(&Arc::as_ptr(member)).copied().unwrap_or(now))
            });
            round.members.extend(list);
        }
        members.is_running = !members.list.is_empty();
        members.is_running
    }

    /// Asks the kernel to tell of the deaths of living peers.
    fn watch_deaths(&self, round: &mut Round) {
        let Round { members, watched, .. } = round;
        for (member, _) in members.iter() {
            let Some(pid) = member.take_new_peer() else { continue };
            if pid == process::pid() || watched.contains_key(&pid) {
                continue;
            }
            if let Some(pidfd) = process::open_pidfd(pid)
                && self.poller.add(pidfd.as_fd(), pid.into()).is_ok()
            {
                watched.insert(pid, pidfd);
            }
        }
    }

    /// Looks at all peers again when a process died; its lock says whose peer it was.
    fn take_in(&self, round: &mut Round, events: &[u64]) {
        for &event in events {
            if event == WAKE {
                self.waker.drain();
            } else if let Some(pidfd) = round.watched.remove(&(event as u32)) {
                let _ = self.poller.remove(pidfd.as_fd());
                for (member, _) in &round.members {
                    if member.peer_state() == PeerState::Alive {
                        member.observe(true);
                    }
                }
            }
        }
    }
}
