//! Promise 11: the parent's handle is not the child's. After `fork` the child gets an error and
//! cleans nothing up, and the parent's death is still seen; `exec` is death.
#![allow(missing_docs)]

mod support;

use std::os::fd::AsRawFd;

use eshm::{Batch, Endpoint, Error, PeerState, Role};
use support::*;

children! { "forker" => forker, "opener" => opener, "execer" => execer, "closer" => closer }

fn fork() -> i32 {
    // SAFETY: the children here do only what these tests are about, and leave at once.
    unsafe { libc::fork() }
}

fn await_child(pid: i32) {
    // SAFETY: waits for a child of ours.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

/// All calls with a handle that was inherited.
fn all_forked(bus: &mut Endpoint) {
    let mut buffer = [0; 64];
    let mut batch = Batch::with_capacity(64, 4);
    assert_eq!(bus.write(b"x"), Err(Error::Forked));
    assert_eq!(bus.try_write(b"x"), Err(Error::Forked));
    assert_eq!(bus.try_write_many(&[b"x"]), Err(Error::Forked));
    assert_eq!(bus.write_value(&1u64), Err(Error::Forked));
    assert_eq!(bus.claim(8).err(), Some(Error::Forked));
    assert_eq!(bus.read(&mut buffer), Err(Error::Forked));
    assert_eq!(bus.try_read(&mut buffer), Err(Error::Forked));
    assert_eq!(bus.try_read_many(&mut batch), Err(Error::Forked));
    assert_eq!(bus.try_peek_many(&mut batch).err(), Some(Error::Forked));
    assert_eq!(bus.try_read_value::<u64>(), Err(Error::Forked));
    assert_eq!(bus.peek().err(), Some(Error::Forked));
    assert_eq!(bus.next_len(), Err(Error::Forked));
    assert_eq!(bus.skip_to_latest(), Err(Error::Forked));
    assert_eq!(bus.wait_for_peer(PATIENCE).err(), Some(Error::Forked));
    assert_eq!(bus.messages().next(), Some(Err(Error::Forked)));
    assert_eq!((bus.peer().pid, bus.stats(), bus.epoch()), (0, eshm::Stats::default(), 0));
    bus.beat();
}

/// A master that forks. The child tries everything, drops the handle, and stays.
fn forker(talk: &mut Talk) {
    let mut bus = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    bus.write(&message(0, 64)).unwrap();
    let pid = fork();
    if pid == 0 {
        all_forked(&mut bus);
        match talk.word(1) {
            "leave" => bus.leave().unwrap(),
            _ => drop(bus),
        }
        talk.say("forked");
        // Still here when its parent is not, but not for ever.
        // SAFETY: asks for a signal.
        unsafe { libc::alarm(60) };
        loop {
            // SAFETY: waits for a signal.
            unsafe { libc::pause() };
        }
    }
    // The word for the test to end the grandchild with.
    talk.say(format!("{pid}"));
    loop {
        match talk.hear().as_str() {
            "write" => talk.say(format!("{:?}", bus.write(&message(1, 64)))),
            _ => return,
        }
    }
}

#[test]
fn the_child_gets_an_error_and_cleans_nothing_up() {
    for how in ["drop", "leave"] {
        let bus = Bus::new("p11fork");
        let mut parent = Child::spawn("forker", &format!("{} {how}", bus.name()));
        let (first, second) = (parent.hear(), parent.hear());
        let pid = if first == "forked" { second } else { first };
        let pid: i32 = pid.parse().unwrap();
        let mut slave = bus.slave();
        assert_eq!(slave.peer().state, PeerState::Alive);
        assert_eq!(parent.ask("write"), "Ok(())", "the parent's handle is what it was");
        assert_eq!(drain(&mut slave), [0, 1]);
        // The child lives on; the parent's death is seen all the same.
        parent.kill();
        until("the parent's death", || slave.peer().state == PeerState::Dead);
        // SAFETY: ends the grandchild, which waits for nothing else.
        assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0, "it lived until now");
    }
}

/// A child opens an endpoint of its own while its parent has one.
fn opener(talk: &mut Talk) {
    let name = talk.word(0).to_owned();
    let mut master = servant::options(&name, &["role=master"]).open().unwrap();
    let pid = fork();
    if pid == 0 {
        let mut slave = servant::options(&name, &["role=slave"]).open().unwrap();
        assert_eq!(master.write(b"x"), Err(Error::Forked));
        for number in 0..1000 {
            assert_eq!(read_number(&mut slave), number);
            send(&mut slave, [number]);
        }
        slave.leave().unwrap();
        child::leave_at_once(0);
    }
    for number in 0..1000 {
        send(&mut master, [number]);
        assert_eq!(read_number(&mut master), number);
    }
    until("it left", || master.peer().state == PeerState::Left);
    await_child(pid);
    master.leave().unwrap();
    talk.say("done");
}

#[test]
fn a_child_can_open_the_other_end() {
    let bus = Bus::new("p11open");
    let mut child = Child::spawn("opener", bus.name());
    child.expect("done");
    child.finish();
}

/// Becomes another program with the endpoint open.
fn execer(talk: &mut Talk) {
    let mut bus = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    bus.write(&message(0, 64)).unwrap();
    talk.say("ready");
    talk.hear();
    use std::os::unix::process::CommandExt;
    let error = std::process::Command::new("sleep").arg("60").exec();
    panic!("{error}");
}

#[test]
fn exec_is_death() {
    let bus = Bus::new("p11exec");
    let mut child = Child::spawn("execer", bus.name());
    child.expect("ready");
    let mut slave = bus.slave();
    assert_eq!(slave.peer().state, PeerState::Alive);
    child.tell("go");
    until("its death", || slave.peer().state == PeerState::Dead);
    assert!(child.is_running(), "the process lives on as another program");
    let mut master = bus.master();
    send(&mut master, 1..3);
    assert_eq!(drain(&mut slave), [0, 1, 2]);
}

/// Has all its descriptors closed behind the library's back, as daemons do, and opens files of its
/// own, which get the same numbers.
fn closer(talk: &mut Talk) {
    let mut bus = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    send(&mut bus, 0..1);
    talk.say("ready");
    talk.hear();
    // SAFETY: closes what this process has open but its pipes.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    let path = talk.word(1).to_owned();
    let files: Vec<_> = (0..20)
        .map(|_| {
            std::fs::File::create_new(&path)
                .or_else(|_| std::fs::File::options().read(true).write(true).open(&path))
                .unwrap()
        })
        .collect();
    send(&mut bus, 1..10);
    assert_eq!(read_number(&mut bus), 100);
    // The slave comes anew, and is seen: what that needs is opened for it.
    talk.say("restart");
    talk.hear();
    until("the new slave is seen", || bus.peer().epoch == 2);
    // SAFETY: this process has a second thread, and the child only makes system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let are_open = files.iter().all(|file| {
            // SAFETY: asks only whether the number is in use.
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) != -1 }
        });
        child::leave_at_once(i32::from(!are_open));
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0, "a child had the host's files closed");
    bus.leave().unwrap();
    talk.say("left");
    talk.hear();
}

#[test]
fn descriptors_closed_behind_our_back_are_no_matter() {
    let bus = Bus::new("p11close");
    let file = std::env::temp_dir().join(bus.name());
    let mut child = Child::spawn("closer", &format!("{} {}", bus.name(), file.display()));
    child.expect("ready");
    let mut slave = bus.slave();
    child.tell("go");
    send(&mut slave, [100]);
    assert_eq!(
        (0..10).map(|_| read_number(&mut slave)).collect::<Vec<_>>(),
        (0..10).collect::<Vec<_>>()
    );
    child.expect("restart");
    slave.leave().unwrap();
    let slave = bus.slave();
    child.tell("go");
    child.expect("left");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 0, "written into a file of the host");
    std::fs::remove_file(&file).unwrap();
    until("it is seen to have left", || slave.peer().state == PeerState::Left);
    drop(slave);
    assert!(bus.files().is_empty());
    child.tell("bye");
    child.finish();
}

#[test]
fn a_child_of_a_process_with_an_endpoint_inherits_no_descriptor() {
    let bus = Bus::new("p11inherit");
    let master = bus.master();
    let listing = std::process::Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    assert!(!listing.contains(bus.name()), "{listing}");
    assert_eq!(master.role(), Role::Master);
}
