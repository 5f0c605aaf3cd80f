//! The one background thread of a process: it beats for every endpoint and watches every peer.
//!
//! It sleeps until the next beat is due or a watched process dies, whichever comes first, and never
//! longer than [`LONGEST_NAP`], so that nobody has to wake it: a bell to wake it by would be a
//! descriptor, which a host program may close and use again. Its own descriptors lie in a table
//! that no other thread has, and no forked child. It never touches a message. It starts with the
//! first endpoint that wants it and ends with the last. A forked child has none and starts its own
//! when it opens an endpoint.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::session::Member;
use crate::sync::Mutex;
use crate::sys::poll::Deaths;
use crate::sys::process::Local;
use crate::sys::{clock, process, thread};

/// No sleep of the thread is longer, so an endpoint that joins waits for at most this long for its
/// first beat, and the last one that leaves for the end of the thread.
const LONGEST_NAP: Duration = Duration::from_millis(10);

/// All that the thread and the endpoints share.
#[derive(Default)]
struct Pulse {
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    list: Vec<Arc<Member>>,
    /// Endpoints that are being opened; they must not find that the thread has just ended.
    coming: usize,
    is_running: bool,
    version: u64,
    /// The version that the thread goes by.
    heard: u64,
}

/// The pulse of this process. A child has one of its own: the parent's locks may be held for ever
/// there.
static PULSE: Local<Pulse> = Local::new(Pulse::default);

/// The promise that the background thread runs. Had before a bus is touched, so that nothing about
/// the thread can go wrong once the bus has changed.
pub(crate) struct Promise {
    pulse: &'static Pulse,
}

/// Makes sure that the background thread runs.
pub(crate) fn promise() -> Result<Promise> {
    let pulse = PULSE.get();
    let mut members = pulse.members.lock();
    if !members.is_running {
        thread::spawn("eshm-pulse", move || pulse.run())?;
        members.is_running = true;
    }
    members.coming += 1;
    drop(members);
    Ok(Promise { pulse })
}

impl Promise {
    /// Begins to beat for an endpoint. One that counts as hung in less time than the thread may sleep
    /// is beaten for here, until the thread has heard of it.
    pub(crate) fn keep(self, member: &Arc<Member>) {
        let mut members = self.pulse.members.lock();
        members.list.push(Arc::clone(member));
        members.version += 1;
        let version = members.version;
        drop(members);
        let is_hasty = member.options.stale_after < 2 * LONGEST_NAP;
        while is_hasty && self.pulse.members.lock().heard < version {
            member.beat();
            clock::sleep(member.options.beat_interval);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.pulse.members.lock().coming -= 1;
    }
}

/// Stops to beat for an endpoint.
pub(crate) fn leave(member: &Arc<Member>) {
    let mut members = PULSE.get().members.lock();
    members.list.retain(|listed| !Arc::ptr_eq(listed, member));
    members.version += 1;
}

/// What the thread alone knows.
#[derive(Default)]
struct Round {
    members: Vec<(Arc<Member>, u64)>,
    version: u64,
}

impl Pulse {
    fn run(&self) {
        let mut deaths = Deaths::new();
        let mut dead = Vec::new();
        let mut round = Round::default();
        while self.refresh(&mut round) {
            let next = beat_all(&mut round);
            watch_peers(&round, &mut deaths);
            let pause = Duration::from_nanos(next.saturating_sub(clock::monotonic_ns()));
            dead.clear();
            deaths.wait(pause.min(LONGEST_NAP), &mut dead);
            if !dead.is_empty() {
                look_at_peers(&round);
            }
        }
    }

    /// Takes over the list of endpoints if it changed. False when the thread is to end.
    fn refresh(&self, round: &mut Round) -> bool {
        let mut members = self.members.lock();
        if members.version != round.version {
            round.version = members.version;
            members.heard = members.version;
            let now = clock::monotonic_ns();
            let due: HashMap<*const Member, u64> =
                round.members.drain(..).map(|(member, due)| (Arc::as_ptr(&member), due)).collect();
            let list = members.list.iter().map(|member| {
                (Arc::clone(member), due.get(&Arc::as_ptr(member)).copied().unwrap_or(now))
            });
            round.members.extend(list);
        }
        members.is_running = members.coming > 0 || !members.list.is_empty();
        members.is_running
    }
}

/// Beats for every endpoint whose time has come; says when the next one is due.
fn beat_all(round: &mut Round) -> u64 {
    let now = clock::monotonic_ns();
    let mut next = u64::MAX;
    for (member, due) in &mut round.members {
        if now >= *due {
            member.tick(now);
            let interval = member.options.beat_interval.as_nanos() as u64;
            // Beats that were missed are not made up for. Endpoints with the same interval are due
            // together, so that they cost one wake-up; processes are not.
            let phase = u64::from(process::pid()).wrapping_mul(7_919_000);
            *due = now + interval - now.wrapping_add(phase) % interval;
        }
        next = next.min(*due);
    }
    next
}

/// Asks the kernel to tell of the deaths of living peers.
fn watch_peers(round: &Round, deaths: &mut Deaths) {
    for (member, _) in &round.members {
        if let Some(pid) = member.take_new_peer().filter(|&pid| pid != process::pid()) {
            deaths.watch(pid);
        }
    }
}

/// Looks at all peers again when a process died; its lock says whose peer it was.
fn look_at_peers(round: &Round) {
    for (member, _) in &round.members {
        member.note_death();
    }
}
