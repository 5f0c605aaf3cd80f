//! Promise 6: death is noticed at once, because the kernel says it; a hang after the threshold. The
//! dead, the hung and those who left are told apart. (How fast is measured by `benches/liveness.rs`;
//! clocks that jump and observers that are starved are tried in `src/peer.rs`.)
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use eshm::{Disconnect, Endpoint, Error, PeerState, Role};
use support::*;

children! {}

/// Waits for a state of the peer, and fails if it takes any other on the way but those allowed.
#[track_caller]
fn becomes(endpoint: &Endpoint, wanted: &str, on_the_way: &[&str]) {
    until(wanted, || {
        let state = endpoint.peer().state.name();
        assert!(state == wanted || on_the_way.contains(&state), "{state}, then not {wanted}");
        state == wanted
    });
}

#[test]
fn a_killed_peer_is_dead() {
    let bus = Bus::new("p06dead");
    let mut master = bus.servant("master", "");
    let slave = bus.slave();
    assert_eq!(slave.peer().state, PeerState::Alive);
    assert_eq!(slave.peer().pid, master.pid());
    master.kill();
    becomes(&slave, "dead", &["alive"]);
}

/// The process is killed and nobody has waited for it: it still has its number.
#[test]
fn an_unreaped_zombie_is_dead() {
    let bus = Bus::new("p06zombie");
    let master = bus.servant("master", "");
    let slave = bus.slave();
    master.signal(libc::SIGKILL);
    becomes(&slave, "dead", &["alive"]);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", master.pid())).unwrap();
    assert!(stat.contains(") Z "), "{stat}");
}

#[test]
fn a_peer_that_left_has_left() {
    let bus = Bus::new("p06left");
    let mut master = bus.servant("master", "");
    let slave = bus.slave();
    master.must("leave");
    becomes(&slave, "left", &["alive"]);
    let again = bus.servant("master", "");
    becomes(&slave, "alive", &["left"]);
    assert_eq!(slave.peer().pid, again.pid());
    assert_eq!(slave.peer().epoch, 2);
}

/// Whether this process has asked the kernel to tell it when that one dies. The descriptor is in a
/// table of the background thread's own.
fn is_watched(pid: u32) -> bool {
    let line = format!("\nPid:\t{pid}\n");
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    // A thread may end, and a descriptor be closed, while this looks.
    let tables = threads.filter_map(|thread| std::fs::read_dir(thread.path().join("fdinfo")).ok());
    let mut texts =
        tables.flatten().flatten().filter_map(|file| std::fs::read_to_string(file.path()).ok());
    texts.any(|text| text.contains(&line))
}

/// Between two looks, one master leaves and another comes: the slave never saw the role empty.
#[test]
fn whoever_comes_between_two_looks_is_watched_too() {
    let bus = Bus::new("p06between");
    let mut first = bus.servant("master", "");
    let slowly = Duration::from_millis(500);
    let mut options = bus.options(Role::Slave);
    let slave = options.beat_interval(slowly).stale_after(slowly * 100).open().unwrap();
    until("the first master is watched", || is_watched(first.pid()));
    first.must("leave");
    let second = bus.servant("master", "");
    until("the second master is watched", || is_watched(second.pid()));
    assert_eq!(slave.peer().pid, second.pid());
}

#[test]
fn nobody_yet_is_absent() {
    let bus = Bus::new("p06absent");
    let master = bus.master();
    assert_eq!((master.peer().state, master.peer().pid), (PeerState::Absent, 0));
    let slave = bus.slave();
    becomes(&master, "alive", &["absent"]);
    drop(slave);
}

#[test]
fn a_stopped_peer_is_hung_and_not_dead_and_lives_again() {
    let bus = Bus::new("p06hung");
    let mut master = bus.servant("master", "");
    let mut slave = bus.options(Role::Slave).stale_after(Duration::from_millis(50)).open().unwrap();
    for round in 0..3 {
        master.stop();
        becomes(&slave, "hung", &["alive"]);
        // However long it takes, it is not dead.
        until("it hangs for long", || match slave.peer().state {
            PeerState::Hung(silent) => silent > Duration::from_millis(200),
            state => panic!("{state}"),
        });
        master.go_on();
        becomes(&slave, "alive", &["hung"]);
        master.send(round, 1);
        assert_eq!(read_number(&mut slave), round);
    }
    master.must("leave");
}

/// A process on its way out, that writes a long core dump say, beats no more but still has its
/// memory mapped: its lock is held, so it is hung. It is dead when the kernel says so.
#[test]
fn a_process_that_dies_slowly_is_hung_until_it_is_dead() {
    let bus = Bus::new("p06slow");
    let mut master = bus.servant("master", "");
    let slave = bus.slave();
    let pid = master.pid() as i32;
    // SAFETY: asks to trace a child of ours, and to stop it where its exit begins.
    let traced = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, libc::PTRACE_O_TRACEEXIT) };
    if traced != 0 {
        return skipped("ptrace is forbidden here");
    }
    master.tell("exit");
    let mut status = 0;
    // SAFETY: `status` lives across the call.
    unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert!(libc::WIFSTOPPED(status), "it stands at its exit: {status:x}");
    becomes(&slave, "hung", &["alive"]);
    let error = error_of(bus.options(Role::Master).open());
    assert!(matches!(error, Error::RoleTaken { state: "hung", .. }), "{error}");
    assert_eq!(slave.peer().state.name(), "hung");
    // SAFETY: lets it go on to its end.
    unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, 0) };
    becomes(&slave, "dead", &["hung"]);
    master.wait();
}

#[test]
fn progress_tells_a_stuck_application_from_a_living_one() {
    let bus = Bus::new("p06progress");
    let mut master = bus.servant("master", "timeout=1");
    let slave = bus.slave();
    let before = slave.peer();
    until("it beats", || slave.peer().beats > before.beats + 5);
    let beating = slave.peer();
    assert_eq!(
        (beating.state, beating.progress),
        (PeerState::Alive, before.progress),
        "it is stuck"
    );
    for work in ["send 0 1 8", "recv 1"] {
        let before = slave.peer().progress;
        master.ask(work);
        assert!(slave.peer().progress > before, "{work} is progress");
    }
    master.must("leave");
}

#[test]
fn a_waiting_reader_is_told_of_a_death_at_once() {
    let bus = Bus::new("p06reader");
    let mut master = bus.servant("master", "");
    let mut options = bus.options(Role::Slave);
    let mut slave = options.on_disconnect(Disconnect::Immediately).open().unwrap();
    let pid = master.pid();
    master.send(0, 2);
    std::thread::scope(|scope| {
        let watch = slave.watch();
        let reading = scope.spawn(|| {
            assert_eq!((read_number(&mut slave), read_number(&mut slave)), (0, 1));
            error_of(slave.read(&mut [0; 64]))
        });
        until("the reader sleeps", || watch.stats().master_to_slave.reader_parks > 0);
        master.kill();
        let error = reading.join().unwrap();
        assert_eq!(error, Error::PeerDead { role: Role::Master, pid, is_foreign: false });
    });
}

#[test]
fn what_the_dead_sent_is_read_first() {
    let bus = Bus::new("p06first");
    let mut master = bus.servant("master", "");
    let mut options = bus.options(Role::Slave);
    let mut slave = options.on_disconnect(Disconnect::Immediately).open().unwrap();
    master.send(0, 30);
    master.kill();
    becomes(&slave, "dead", &["alive"]);
    for number in 0..30 {
        assert_eq!(read_number(&mut slave), number);
    }
    assert!(matches!(slave.read(&mut [0; 64]), Err(Error::PeerDead { .. })));
    let mut master = bus.servant("master", "");
    master.send(30, 1);
    assert_eq!(read_number(&mut slave), 30, "reading goes on by itself");
}

#[test]
fn the_policy_says_when_reading_gives_up() {
    let bus = Bus::new("p06policy");
    let mut master = bus.servant("master", "");
    let short = Duration::from_millis(5);
    let mut options = bus.options(Role::Slave);
    options.reconnect_interval(short).reconnect_attempts(4).reconnect_wait(Duration::ZERO);
    let mut slave = options.open().unwrap();
    master.kill();
    becomes(&slave, "dead", &["alive"]);
    slave.set_on_disconnect(Disconnect::Never);
    for _ in 0..10 {
        assert_eq!(slave.read_timeout(&mut [0; 8], short), Err(Error::Timeout));
    }
    slave.set_on_disconnect(Disconnect::OnTimeout);
    assert!(matches!(slave.read(&mut [0; 8]), Err(Error::PeerDead { .. })), "20 ms are over");
    drop(slave);
    // From the start: a time-out each while the limits last.
    let mut master = bus.servant("master", "");
    options.reconnect_interval(Duration::from_secs(10));
    let mut slave = options.open().unwrap();
    master.kill();
    becomes(&slave, "dead", &["alive"]);
    assert_eq!(slave.read_timeout(&mut [0; 8], short), Err(Error::Timeout));
    assert_eq!(slave.try_read(&mut [0; 8]), Err(Error::Empty));
}

#[test]
fn waiting_for_a_peer_ends_when_it_comes() {
    let bus = Bus::new("p06wait");
    let master = bus.master();
    assert_eq!(master.wait_for_peer(Duration::from_millis(1)), Err(Error::Timeout));
    let waiting = std::thread::spawn(move || (master.wait_for_peer(PATIENCE).unwrap(), master));
    let mut slave = bus.servant("slave", "");
    let (peer, _master) = waiting.join().unwrap();
    assert_eq!((peer.state, peer.pid), (PeerState::Alive, slave.pid()));
    slave.must("leave");
}
