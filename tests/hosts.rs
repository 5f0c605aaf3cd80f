//! Programs that the library lives in: with signals and children of their own, under a strict filter,
//! with other buses beside, with slow hearts.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use eshm::{Error, PeerState, Role, Takeover};
use support::*;

children! {
    "waits_for_signal" => waits_for_signal, "parent" => parent, "filtered" => filtered,
    "crowded" => crowded, "lowly" => lowly,
}

/// The background thread of a process.
fn background_thread(pid: u32) -> PathBuf {
    let name = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
    std::fs::read_dir(format!("/proc/{pid}/task"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|task| name(task).starts_with("eshm"))
        .expect("the background thread has a name")
}

// --- signals ----------------------------------------------------------------------------------

/// Blocks a signal after opening, in its own thread, and waits for it.
fn waits_for_signal(talk: &mut Talk) {
    let mut bus = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    // SAFETY: plain memory, in which the calls below put a set and what they found.
    let (mut set, mut info): (libc::sigset_t, libc::siginfo_t) = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    unsafe {
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGUSR1);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
    talk.say("ready");
    let limit = libc::timespec { tv_sec: PATIENCE.as_secs() as _, tv_nsec: 0 };
    for _ in 0..3 {
        // SAFETY: all three live across the call.
        let got = unsafe { libc::sigtimedwait(&raw const set, &raw mut info, &raw const limit) };
        talk.say(format!("{got}"));
    }
    send(&mut bus, 0..1);
    talk.hear();
}

#[test]
fn a_host_that_waits_for_a_signal_gets_it() {
    let bus = Bus::new("hsignal");
    let mut host = Child::spawn("waits_for_signal", bus.name());
    host.expect("ready");
    // The default action would kill, were any thread free to take it.
    for _ in 0..3 {
        host.signal(libc::SIGUSR1);
        host.expect(&libc::SIGUSR1.to_string());
    }
    let mut slave = bus.slave();
    assert_eq!(read_number(&mut slave), 0);
    let status = std::fs::read_to_string(background_thread(host.pid()).join("status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("SigBlk")).unwrap();
    let blocked = u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap();
    // What cannot be blocked, faults of its own, and the two that the C library keeps to itself.
    let free = [libc::SIGKILL, libc::SIGSTOP, libc::SIGBUS, libc::SIGSEGV, libc::SIGFPE];
    let free = [&free[..], &[libc::SIGILL, libc::SIGTRAP, 32, 33]].concat();
    for signal in (1..=64).filter(|signal| !free.contains(signal)) {
        assert!(blocked >> (signal - 1) & 1 == 1, "signal {signal} is not blocked: {line}");
    }
    host.tell("bye");
    host.finish();
}

// --- children ---------------------------------------------------------------------------------

/// What a process has open: the numbers, and where they lead.
fn open_files(pid: u32) -> BTreeMap<String, PathBuf> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let leads_to = std::fs::read_link(entry.path()).unwrap_or_default();
            (entry.file_name().into_string().unwrap(), leads_to)
        })
        .collect()
}

/// Opens, and forks a child that lives on; or the other way round.
fn parent(talk: &mut Talk) {
    talk.say("closed");
    talk.hear();
    let mut bus = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    bus.wait_for_peer(PATIENCE).unwrap();
    // SAFETY: the child only waits.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        loop {
            // SAFETY: asks for a signal when the parent dies, and waits for one.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
            }
        }
    }
    talk.say(format!("{pid}"));
    loop {
        match talk.hear().as_str() {
            "beats" => talk.say(own_beats(&bus).to_string()),
            "peer" => talk.say(bus.peer().state.name()),
            _ => break,
        }
    }
    send(&mut bus, 0..1);
}

fn own_beats(bus: &eshm::Endpoint) -> u64 {
    bus.stats().master.beats
}

/// The time that a thread ran.
fn ran(task: &std::path::Path) -> Duration {
    let stat = std::fs::read_to_string(task.join("schedstat")).unwrap();
    Duration::from_nanos(stat.split_whitespace().next().unwrap().parse().unwrap())
}

/// The child neither keeps anything of the parent's endpoint, nor anything alive that would make its
/// background thread spin when the peer dies.
#[test]
fn a_child_that_lives_on_has_nothing_and_costs_nothing() {
    let bus = Bus::new("hfork");
    let mut parent = Child::spawn("parent", bus.name());
    parent.expect("closed");
    let before = open_files(parent.pid());
    parent.tell("open");
    let mut peer = Servant::new();
    until("there is a bus", || {
        peer.ask(&format!("open {} role=slave dir=/dev/shm", bus.name())).starts_with("ok")
    });
    let child: u32 = parent.hear().parse().unwrap();
    // The thread is in its place, and watches the peer, before the child is looked at.
    until("it beats", || parent.ask("beats").parse::<u64>().unwrap() > 20);
    assert_eq!(open_files(child), before);
    assert_eq!(open_files(parent.pid()), before);
    let maps = std::fs::read_to_string(format!("/proc/{child}/maps")).unwrap();
    assert!(!maps.contains(bus.name()), "{maps}");
    peer.kill();
    until("its death", || parent.ask("peer") == "dead");
    let thread = background_thread(parent.pid());
    let (start, before) = (Instant::now(), ran(&thread));
    until("a second is over", || start.elapsed() > Duration::from_secs(1));
    let (passed, ran) = (start.elapsed(), ran(&thread) - before);
    assert!(ran < passed / 5, "it ran for {ran:?} of {passed:?}");
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
    assert!(state.contains(") S "), "the child lives: {state}");
    let mut slave = bus.slave();
    parent.tell("bye");
    assert_eq!(read_number(&mut slave), 0);
    parent.finish();
}

// --- filters ----------------------------------------------------------------------------------

/// Where none of the newer calls is to be had: a servant there.
fn filtered(talk: &mut Talk) {
    let calls = [
        libc::SYS_membarrier,
        libc::SYS_pidfd_open,
        libc::SYS_close_range,
        libc::SYS_unshare,
        libc::SYS_epoll_pwait2,
    ];
    if !confined::forbid(&calls) {
        return talk.say("no filter is to be had here");
    }
    // SAFETY: harmless calls, that are refused.
    let are_refused =
        calls.iter().all(|&call| unsafe { libc::syscall(call, 9999, 0, 0, 0, 0, 0) } == -1);
    assert!(are_refused);
    talk.say("filtered");
    servant::serve(talk);
}

/// Both sides under a filter that knows none of it, and one of each: opening, exchanging, fencing,
/// noticing a death.
#[test]
fn a_strict_filter_takes_away_speed_and_nothing_else() {
    for (is_master, is_slave) in [(true, true), (true, false), (false, true)] {
        let bus = Bus::new("hfilter");
        let servant = |is_filtered: bool| {
            let part = if is_filtered { "filtered" } else { "servant" };
            let mut servant = Servant(Child::spawn(part, ""));
            let said = is_filtered.then(|| servant.hear());
            (servant, said.is_none_or(|said| said == "filtered"))
        };
        let (mut master, is_possible) = servant(is_master);
        let (mut slave, _) = servant(is_slave);
        let (mut standby, _) = servant(is_master);
        if !is_possible {
            return skipped("no filter is to be had here");
        }
        let open = |servant: &mut Servant, words: &str| {
            servant.must(&format!("open {} dir=/dev/shm {words}", bus.name()))
        };
        open(&mut master, "role=master");
        open(&mut slave, "role=slave");
        let exchange = |master: &mut Servant, slave: &mut Servant, first: u64| {
            for number in first..first + 300 {
                master.send(number, 1);
                slave.expect(number, 1);
                slave.send(number, 1);
                master.expect(number, 1);
            }
        };
        exchange(&mut master, &mut slave, 0);
        master.send(300, 3);
        slave.send(300, 3);
        master.stop();
        assert_eq!(open(&mut standby, "role=master takeover=hung"), "master 2");
        standby.expect(300, 3);
        slave.expect(300, 3);
        exchange(&mut standby, &mut slave, 303);
        master.go_on();
        assert!(master.ask("send 0 1 8").starts_with("err 0 Fenced"));
        slave.kill();
        until("its death", || standby.must("peer").starts_with("dead"));
        let (mut heir, _) = servant(is_slave);
        assert_eq!(open(&mut heir, "role=slave"), "slave 2");
        exchange(&mut standby, &mut heir, 603);
        heir.must("leave");
        standby.must("leave");
    }
}

// --- other buses beside -----------------------------------------------------------------------

const FRAMES: u64 = 1 << 20;

/// Has a heart that is watched, and replaces the owner of a big bus again and again.
fn crowded(talk: &mut Talk) {
    let _heart = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    let frames = format!("frames={FRAMES}");
    let words = ["role=slave", &frames, "frame_size=128", "takeover=always", "prefault=1"];
    let big = servant::options(talk.word(1), &words);
    let mut held = vec![big.open().unwrap()];
    talk.say("open");
    loop {
        talk.hear();
        let started = Instant::now();
        held.push(big.open().unwrap());
        let took = started.elapsed();
        held.remove(0);
        talk.say(took.as_micros().to_string());
    }
}

/// Rebuilding a quarter of a gigabyte takes a thread of the process a while; its other hearts beat
/// on.
#[test]
fn rebuilding_a_big_bus_stops_no_heart() {
    let small = Bus::new("hheart");
    let mut big = Bus::new("hbig");
    big.may_leave();
    let mut master = big.servant("master", &format!("frames={FRAMES} frame_size=128"));
    let mut child = Child::spawn("crowded", &format!("{} {}", small.name(), big.name()));
    child.expect("open");
    let watcher = small.slave();
    watcher.wait_for_peer(PATIENCE).unwrap();
    let mut shares = Vec::new();
    for _ in 0..4 {
        child.tell("rebuild");
        let (gap, answer) = longest_gap(&watcher, &mut child);
        let took = Duration::from_micros(answer.parse().unwrap());
        shares.push((gap.as_secs_f64() / took.as_secs_f64(), gap, took));
    }
    // A thread that is busy with the bus does not beat for all that time; on a busy machine one that
    // is not may come late, but not every time.
    let best = shares.iter().map(|share| share.0).fold(f64::MAX, f64::min);
    assert!(best < 0.3, "{shares:?}");
    assert_eq!(watcher.peer().state, PeerState::Alive);
    master.kill();
    drop(child);
}

/// The longest time that another thread of this process needs to map something, until `work` is done.
fn longest_mapping(work: impl FnOnce()) -> Duration {
    let (has_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let started = Instant::now();
                drop(Board::new());
                longest = longest.max(started.elapsed());
                has_begun.store(true, Ordering::Relaxed);
            }
            longest
        });
        until("it maps", || has_begun.load(Ordering::Relaxed));
        work();
        is_over.store(true, Ordering::Relaxed);
        other.join().unwrap()
    })
}

/// Keeping a big bus in memory takes a while. Meanwhile other threads can map, as a heart must that
/// follows its bus.
#[test]
fn locking_a_big_bus_lets_others_map() {
    let bus = Bus::new("hlock");
    let mut master = bus.servant("master", &format!("frames={FRAMES} frame_size=128"));
    let mut shares = Vec::new();
    for _ in 0..5 {
        let mut options = bus.options(Role::Slave);
        options.lock_memory(true);
        let (mut opened, mut took) = (None, Duration::ZERO);
        let longest = longest_mapping(|| {
            let started = Instant::now();
            opened = Some(options.open().unwrap());
            took = started.elapsed();
        });
        if !opened.unwrap().refused().is_empty() {
            return skipped("so much may not be locked here");
        }
        shares.push((longest.as_secs_f64() / took.as_secs_f64(), longest, took));
    }
    // As above.
    let best = shares.iter().map(|share| share.0).fold(f64::MAX, f64::min);
    assert!(best < 0.3, "{shares:?}");
    master.kill();
}

/// A thread that seldom runs asks again and again for a peer that is gone; the machine is busy.
fn lowly(talk: &mut Talk) {
    let master = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    let watch = master.watch();
    talk.say("open");
    talk.hear();
    let limit = Instant::now() + Duration::from_secs(8);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let nothing = libc::sched_param { sched_priority: 0 };
            // SAFETY: the record lives across the call, for this thread alone.
            let done = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const nothing) };
            assert_eq!(done, 0);
            while Instant::now() < limit {
                std::hint::black_box(watch.peer());
            }
        });
        for _ in 0..2 {
            scope.spawn(|| while Instant::now() < limit {});
        }
    });
    talk.say("done");
}

#[test]

fn a_thread_that_seldom_runs_stops_no_heart() {
    let bus = Bus::new("srlow");
    let mut child = Child::spawn("lowly", bus.name());
    child.expect("open");
    let mut slave = bus.servant("slave", "");
    slave.kill();
    child.tell("go");
    let path = bus.path();
    let beat = || {
        let file = std::fs::File::open(&path).unwrap();
        let mut word = [0; 8];
        // Slot 0 begins at 64 KiB; the master's heartbeat lies there.
        file.read_exact_at(&mut word, 65536 + 256 + 128).unwrap();
        u64::from_le_bytes(word)
    };
    let (mut last, mut since, mut longest) = (beat(), Instant::now(), Duration::ZERO);
    loop {
        let now = beat();
        longest = longest.max(since.elapsed());
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if child.hear_within(Duration::from_micros(200)).is_some() {
            break;
        }
    }
    assert!(longest < Duration::from_millis(100), "{longest:?}");
}

// --- slow hearts ------------------------------------------------------------------------------

/// A heart that beats once a second is no hang, however impatient the one who looks.
#[test]
fn a_slow_heart_is_no_hang() {
    let bus = Bus::new("hslow");
    let mut master = bus.master();
    let mut slave = bus.servant("slave", "beat=1000 stale=5000");
    for _ in 0..4 {
        // The threshold that all see is that of the master, a tenth of a second.
        let found = eshm::inspect(bus.name()).unwrap();
        assert_eq!(found.stats.slave.state, PeerState::Alive);
    }
    for _ in 0..2 {
        let error = error_of(bus.options(Role::Slave).takeover(Takeover::Hung).open());
        assert!(matches!(error, Error::RoleTaken { state: "alive", .. }), "{error}");
    }
    assert_eq!(master.peer().state, PeerState::Alive);
    send(&mut master, 0..3);
    slave.expect(0, 3);
    slave.must("leave");
}

/// One that stands still for ten of its own beats is.
#[test]
fn a_slow_heart_that_stops_is_found_in_the_end() {
    let bus = Bus::new("hstops");
    let mut master = bus.master();
    let mut slave = bus.servant("slave", "beat=300 stale=5000");
    send(&mut master, 0..3);
    slave.stop();
    let mut new = bus.servant("slave", "takeover=hung");
    new.expect(0, 3);
    slave.go_on();
    assert!(slave.ask("recv 1").starts_with("err 0 Fenced"));
}
