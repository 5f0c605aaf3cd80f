//! What the world does to a bus: names that vanish, files of strangers, other namespaces and users,
//! kernels that refuse, machines with one core.
#![allow(missing_docs)]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use eshm::{Direction, Disconnect, Error, Options, PeerState, Role, Tap, Wait};
use support::*;

children! {
    "echo_as" => echo_as, "refused" => refused, "one_core" => one_core, "namespace" => namespace,
    "wanderer" => wanderer, "mounted" => mounted,
}

/// A healthy pair whose name was taken away goes on without one.
#[test]
fn a_pair_without_a_name_goes_on() {
    let bus = Bus::new("wname");
    let (mut master, mut slave) = bus.pair();
    std::fs::remove_file(bus.path()).unwrap();
    let beats = master.peer().beats;
    until("both have looked at the name", || master.peer().beats > beats + 250);
    for round in 0..3u64 {
        send(&mut master, round * 10..round * 10 + 10);
        send(&mut slave, round * 10..round * 10 + 10);
        for number in round * 10..round * 10 + 10 {
            assert_eq!((read_number(&mut slave), read_number(&mut master)), (number, number));
        }
    }
    let third = error_of(bus.options(Role::Slave).open());
    assert!(matches!(third, Error::NotFound { .. }), "{third}");
    assert_eq!((master.epoch(), slave.epoch()), (1, 1));
}

/// When one side of a pair without a name is gone, the other reads what is there, and is told how
/// many of its own messages nobody read.
#[test]
fn who_is_left_alone_without_a_name_is_told() {
    for is_killed in [true, false] {
        let bus = Bus::new("walone");
        let mut master = bus.servant("master", "");
        let mut slave = bus.slave();
        send(&mut slave, 0..3);
        std::fs::remove_file(bus.path()).unwrap();
        master.send(0, 5);
        if is_killed {
            master.kill();
        } else {
            master.must("leave");
        }
        until("it is told", || matches!(slave.try_write(&[0; 8]), Err(Error::Lost { .. })));
        assert_eq!((0..5).map(|_| read_number(&mut slave)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        let error = error_of(slave.read(&mut [0; 8]));
        let Error::Lost { unread, .. } = error else { panic!("{error}") };
        assert!(unread >= 3, "{error}");
        // A bus made anew under the name is another one; this handle does not go there.
        let mut other = bus.master();
        send(&mut other, 0..1);
        assert!(matches!(slave.read(&mut [0; 8]), Err(Error::Lost { .. })));
        drop(slave);
        assert_eq!(read_number(&mut bus.slave()), 0);
    }
}

#[test]
fn a_foreign_file_in_place_of_the_name_is_left_alone() {
    let mut bus = Bus::new("wforeign");
    bus.may_leave();
    let (mut master, mut slave) = bus.pair();
    send(&mut master, 0..3);
    std::fs::remove_file(bus.path()).unwrap();
    std::fs::write(bus.path(), "somebody else's").unwrap();
    // Long enough for both to have looked at the name.
    let beats = master.peer().beats;
    until("both have looked", || master.peer().beats > beats + 250);
    send(&mut master, 3..5);
    assert_eq!((0..5).map(|_| read_number(&mut slave)).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    drop((master, slave));
    assert_eq!(std::fs::read(bus.path()).unwrap(), b"somebody else's");
}

/// Opens one end as told, and sends back what comes.
fn echo(talk: &mut Talk, name: &str, words: &[&str], rounds: u64) {
    let mut bus = match servant::options(name, words).open() {
        Ok(bus) => bus,
        Err(error) => return talk.say(format!("{error}")),
    };
    talk.say("ready");
    for number in 0..rounds {
        assert_eq!(read_number(&mut bus), number);
        send(&mut bus, [number]);
    }
    talk.say(format!("{} {}", bus.peer().state, bus.peer().pid));
    talk.hear();
    bus.leave().unwrap();
}

/// Sends to an echo, and checks what comes back.
fn ask_echo(master: &mut eshm::Endpoint, child: &mut Child, rounds: u64) -> String {
    child.expect("ready");
    for number in 0..rounds {
        send(master, [number]);
        assert_eq!(read_number(master), number);
    }
    child.hear()
}

const NOBODY: u32 = 65534;

/// As another user.
fn echo_as(talk: &mut Talk) {
    // SAFETY: changes who this process is; no memory is touched.
    let done = unsafe { libc::setgroups(0, std::ptr::null()) | libc::setuid(NOBODY) };
    assert_eq!(done, 0);
    let name = talk.word(0).to_owned();
    echo(talk, &name, &["role=slave", "mode=660"], 100);
}

#[test]
fn two_users_of_one_group_share_a_bus_that_allows_it() {
    if !is_root() {
        return;
    }
    let bus = Bus::new("wusers");
    let mut master = bus.options(Role::Master).mode(0o660).open().unwrap();
    let mode = std::fs::metadata(bus.path()).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o660, "whatever the umask");
    let mut child = Child::spawn("echo_as", bus.name());
    let said = ask_echo(&mut master, &mut child, 100);
    assert_eq!(said, format!("alive {}", std::process::id()));
    child.tell("bye");
    child.finish();
}

/// In a PID namespace of its own, where its number is 1.
fn namespace(talk: &mut Talk) {
    let name = talk.word(0).to_owned();
    // SAFETY: only what children see changes.
    if unsafe { libc::unshare(libc::CLONE_NEWPID) } != 0 {
        return talk.say("forbidden");
    }
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: asks for a signal when the parent dies.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        assert_eq!(std::process::id(), 1);
        echo(talk, &name, &["role=slave"], 100);
        child::leave_at_once(0);
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(status, 0);
}

#[test]
fn another_pid_namespace_is_no_matter() {
    if !is_root() {
        return;
    }
    let bus = Bus::new("wpidns");
    let mut master = bus.master();
    let mut child = Child::spawn("namespace", bus.name());
    match child.hear().as_str() {
        "ready" => {}
        said => return skipped(&format!("no PID namespace is to be had here: {said}")),
    }
    for number in 0..100 {
        send(&mut master, [number]);
        assert_eq!(read_number(&mut master), number);
    }
    assert!(child.hear().starts_with("alive"));
    assert_eq!(master.peer().pid, 1, "as its own namespace numbers it");
    assert_eq!(master.peer().state.name(), "alive");
    // Errors say so too: here that number is another process.
    let text = error_of(bus.options(Role::Slave).open()).to_string();
    assert!(text.contains("by pid 1 of another PID namespace (alive)"), "{text}");
    let text = error_of(eshm::remove(bus.name(), false)).to_string();
    assert!(!text.contains("namespace"), "the master is of this one: {text}");
    // Killed with the namespace; seen by the lock, since no pidfd reaches there.
    child.kill();
    until("its death", || master.peer().state.name() == "dead");
    master.set_on_disconnect(Disconnect::Immediately);
    let text = error_of(master.read(&mut [0; 8])).to_string();
    assert_eq!(text, "the slave (pid 1 of another PID namespace) is gone");
}

/// Where the asymmetric barrier, or another call that is not needed, is refused.
fn refused(talk: &mut Talk) {
    let name = talk.word(0).to_owned();
    let call = talk.number(1) as libc::c_long;
    let open_first = talk.word(2) == "late";
    let words = ["role=slave", "park=1"];
    let early = open_first.then(|| servant::options(&name, &words).open().unwrap());
    if !confined::forbid(&[call]) {
        return talk.say("no filter is to be had here");
    }
    let mut bus = early.unwrap_or_else(|| servant::options(&name, &words).open().unwrap());
    talk.say("ready");
    for number in 0..2000 {
        assert_eq!(read_number(&mut bus), number);
        send(&mut bus, [number]);
    }
    talk.say("done");
    talk.hear();
    bus.leave().unwrap();
}

/// Sleeping and waking work without the barrier; no wake-up is missed.
#[test]
fn calls_that_a_filter_refuses_are_done_without() {
    let calls = [
        (libc::SYS_membarrier, "membarrier"),
        (libc::SYS_pidfd_open, "pidfd_open"),
        (libc::SYS_epoll_pwait2, "epoll_pwait2"),
    ];
    for (call, name) in calls {
        for when in ["early", "late"] {
            let bus = Bus::new("wrefused");
            let mut master = bus.options(Role::Master).wait(Wait::Park).open().unwrap();
            let mut child = Child::spawn("refused", &format!("{} {call} {when}", bus.name()));
            match child.hear().as_str() {
                "ready" => {}
                said => return skipped(said),
            }
            for number in 0..2000 {
                send(&mut master, [number]);
                assert_eq!(read_number(&mut master), number);
            }
            child.expect("done");
            let stats = master.stats();
            for ring in [stats.master_to_slave, stats.slave_to_master] {
                let by_itself = ring.reader_parks.saturating_sub(ring.reader_wakes);
                assert!(by_itself < 20, "{name} {when}: {by_itself} wake-ups missed: {ring:?}");
            }
            child.tell("bye");
            child.finish();
        }
    }
}

fn pin_to_one_core() -> bool {
    let mut set = nix::sched::CpuSet::new();
    let this = nix::unistd::Pid::from_raw(0);
    let usable = nix::sched::sched_getaffinity(this).unwrap();
    let first =
        (0..nix::sched::CpuSet::count()).find(|&core| usable.is_set(core).unwrap()).unwrap();
    set.set(first).unwrap();
    nix::sched::sched_setaffinity(this, &set).is_ok()
}

/// Both ends, in two threads on one core, in every way of waiting.
fn one_core(talk: &mut Talk) {
    if !pin_to_one_core() {
        return talk.say("a core cannot be chosen here");
    }
    for wait in [Wait::Adaptive, Wait::Park, Wait::Spin] {
        let open = |role| {
            let mut options = Options::new(talk.word(0));
            options.role(role).wait(wait).read_timeout(PATIENCE).open().unwrap()
        };
        let (mut master, mut slave) = (open(Role::Master), open(Role::Slave));
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..2000 {
                    assert_eq!(read_number(&mut slave), number);
                    send(&mut slave, [number]);
                }
            });
            for number in 0..2000 {
                send(&mut master, [number]);
                assert_eq!(read_number(&mut master), number);
            }
        });
    }
    talk.say("done");
}

#[test]
fn one_core_is_enough() {
    let bus = Bus::new("wcore");
    let mut child = Child::spawn("one_core", bus.name());
    match child.hear().as_str() {
        "done" => child.finish(),
        said => skipped(said),
    }
}

#[test]
fn wishes_that_are_refused_are_reported_and_not_fatal() {
    let bus = Bus::new("wwishes");
    let mut options = bus.options(Role::Master);
    let mut master = options.prefault(true).lock_memory(true).huge_pages(true).open().unwrap();
    for refusal in master.refused() {
        assert!(["prefault", "lock_memory", "huge_pages"].contains(&refusal.what), "{refusal:?}");
        assert!(!refusal.why.is_empty());
    }
    let mut slave = bus.slave();
    send(&mut master, 0..3);
    assert_eq!(drain(&mut slave), [0, 1, 2]);
}

#[test]
fn what_is_there_can_be_seen_and_taken_away() {
    let room = Room::new();
    let bus = Bus::inside(room.path(), "wlist");
    let mut master = bus.master();
    send(&mut master, 0..4);
    std::fs::write(room.at("eshm_stranger"), "not a bus").unwrap();
    let entries = eshm::list_in(room.path()).unwrap();
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["stranger", bus.name()]);
    assert!(matches!(entries[0].kind, eshm::EntryKind::Foreign(_)));
    let snapshot = eshm::inspect_in(room.path(), bus.name()).unwrap();
    assert_eq!((snapshot.stats.master_to_slave.backlog, snapshot.mode), (4, 0o600));
    assert_eq!(snapshot.stats.master.pid, std::process::id());
    let error = error_of(eshm::remove_in(room.path(), bus.name(), false));
    assert!(matches!(error, Error::RoleTaken { role: Role::Master, .. }), "{error}");
    eshm::remove_in(room.path(), bus.name(), true).unwrap();
    assert!(bus.files().is_empty());
    assert!(matches!(master.write(b"x"), Err(Error::Lost { .. })));
    let error = error_of(eshm::remove_in(room.path(), "stranger", true));
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert!(room.at("eshm_stranger").exists());
    let error = error_of(Tap::open(bus.name(), Direction::MasterToSlave));
    assert!(matches!(error, Error::NotFound { .. }), "{error}");
}

/// A pair without a name, of which one is stopped for a while: it is not gone.
#[test]
fn a_stopped_peer_without_a_name_is_not_gone() {
    let bus = Bus::new("srhung");
    let mut master = bus.servant("master", "");
    let mut slave = bus.slave();
    std::fs::remove_file(bus.path()).unwrap();
    let beats = slave.peer().beats;
    until("it has looked at the name", || slave.peer().beats > beats + 250);
    send(&mut slave, 0..1);
    master.stop();
    until("it hangs", || matches!(slave.peer().state, PeerState::Hung(_)));
    let written = slave.try_write(&message(1, 100));
    let read = slave.try_read(&mut [0; 8]);
    master.go_on();
    assert_eq!((written, read), (Ok(()), Err(Error::Empty)));
    master.expect(0, 2);
    master.must("leave");
}

/// A host that opens a bus in a directory named relative to where it is, and goes elsewhere: a daemon.
fn wanderer(talk: &mut Talk) {
    std::env::set_current_dir(talk.word(0)).unwrap();
    let master = servant::options(talk.word(1), &["role=master", "dir=."]).open().unwrap();
    std::env::set_current_dir("/").unwrap();
    talk.say("open");
    talk.hear();
    talk.say(format!("{:?}", master.leave()));
}

#[test]
fn a_host_may_change_its_directory() {
    let room = Room::new();
    let bus = Bus::inside(room.path(), "chdir");
    let mut child = Child::spawn("wanderer", &format!("{} {}", room.path().display(), bus.name()));
    child.expect("open");
    assert_eq!(child.ask("leave"), "Ok(())");
    child.finish();
    assert_eq!(room.names(), [""; 0]);
}

/// The file of a bus is itself a mount, as a container may have it: its name cannot be moved.
fn mounted(talk: &mut Talk) {
    let place = talk.word(0).to_owned();
    if !confined::mount_small(&place, "3m") {
        return talk.say("forbidden");
    }
    let dir = format!("dir={place}");
    let options = |role: &str| servant::options("mount", &[role, &dir, "cleanup=1"]);
    let master = options("role=master").open().unwrap();
    let path = std::ffi::CString::new(format!("{place}/eshm_mount")).unwrap();
    // SAFETY: strings that end in NUL; seen by this process alone.
    let bound = unsafe {
        let (path, none) = (path.as_ptr(), std::ptr::null());
        libc::mount(path, path, none, libc::MS_BIND, std::ptr::null())
    };
    assert_eq!(bound, 0);
    talk.say(format!("{:?}", master.leave()));
    match options("role=master").open() {
        Ok(mut master) => {
            send(&mut master, 0..2);
            assert_eq!(drain(&mut options("role=slave").open().unwrap()), [0, 1]);
            talk.say("done");
        }
        Err(error) => talk.say(format!("{error:?}")),
    }
}

#[test]
fn a_file_that_is_a_mount_is_used_again() {
    if !is_root() {
        return;
    }
    let room = Room::new();
    let mut child = Child::spawn("mounted", &room.path().display().to_string());
    match child.hear().as_str() {
        "Ok(())" => {}
        "forbidden" => return skipped("no mount namespace is to be had here"),
        said => panic!("leaving: {said}"),
    }
    child.expect("done");
    child.finish();
}

/// Slots that do not count are emptied by the members of a bus; those of another file, which has the
/// name by now, are not theirs.
#[test]
fn a_member_gives_back_no_pages_of_a_file_that_took_the_name() {
    let (room, aside) = (Room::new(), Room::new());
    let bus = Bus::inside(room.path(), "wtidy");
    let open = |directory: &Path| {
        let mut options = Options::new(bus.name());
        // Without a background thread the calls tidy.
        options.directory(directory).role(Role::Master).background(false);
        options.open().unwrap()
    };
    let (member, stranger) = (open(room.path()), open(aside.path()));
    let other = aside.path().join(bus.path().file_name().unwrap());
    let file = std::fs::OpenOptions::new().write(true).open(&other).unwrap();
    // Pages in a second slot, as a replacement that was cut off leaves them.
    let len = file.metadata().unwrap().len();
    let grown =
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), len as i64, len as i64);
    grown.unwrap();
    std::fs::rename(&other, bus.path()).unwrap();
    let before = file.metadata().unwrap().blocks();
    for _ in 0..40 {
        member.beat();
        std::thread::sleep(Duration::from_millis(10));
    }
    let after = file.metadata().unwrap().blocks();
    std::fs::remove_file(bus.path()).unwrap();
    assert_eq!(after, before);
    drop((member, stranger));
}
