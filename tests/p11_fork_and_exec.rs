//! Promise 11: the parent's handle is not the child's. After `fork` the child gets an error and
//! cleans nothing up, and the parent's death is still seen; `exec` is death.
#![allow(missing_docs)]

mod support;

use std::time::Duration;

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

/// Has all its descriptors closed behind the library's back, as daemons do.
fn closer(talk: &mut Talk) {
    let mut bus = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    bus.write(&message(0, 64)).unwrap();
    talk.say("ready");
    talk.hear();
    // SAFETY: closes what this process has open but its pipes.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    if talk.word(1) == "reuse" {
        // The numbers are used again, for something else.
        for _ in 0..20 {
            std::mem::forget(std::fs::File::open("/dev/null").unwrap());
        }
    }
    talk.say("closed");
    let mut written = 0;
    let error = loop {
        match bus.try_write(&message(666, 64)) {
            Ok(()) => written += 1,
            Err(Error::Full) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => break error,
        }
    };
    talk.say(format!("{error:?}"));
    let _ = written;
    talk.say(format!("{:?}", bus.read(&mut [0; 64]).unwrap_err()));
    drop(bus);
    talk.hear();
}

#[test]
fn descriptors_closed_behind_our_back_are_noticed() {
    for how in ["close", "reuse"] {
        let mut bus = Bus::new("p11close");
        bus.may_leave();
        let mut child = Child::spawn("closer", &format!("{} {how}", bus.name()));
        child.expect("ready");
        assert_eq!(child.ask("go"), "closed");
        for _ in 0..2 {
            let said = child.hear();
            let is_told = said.starts_with("Lost") || said.starts_with("Fenced");
            assert!(is_told, "{how}: {said}");
        }
        assert!(bus.path().exists(), "it removed nothing");
        child.tell("bye");
        child.finish();
    }
}

/// The mapping holds the lock on, so the owner must be replaced; its successor's stream is whole.
#[test]
fn the_successor_of_one_whose_descriptors_were_closed_has_a_whole_stream() {
    for _ in 0..3 {
        let bus = Bus::new("p11successor");
        let mut child = Child::spawn("closer", &format!("{} close", bus.name()));
        child.expect("ready");
        let mut slave = bus.slave();
        assert_eq!(child.ask("go"), "closed");
        let error = error_of(bus.options(Role::Master).open());
        assert!(matches!(error, Error::RoleTaken { .. }), "it still can write: {error}");
        let mut found = None;
        until("it beats no more", || {
            found = bus.options(Role::Master).takeover(eshm::Takeover::Hung).open().ok();
            found.is_some()
        });
        let mut master = found.unwrap();
        let next = master.last_committed().unwrap().number + 1;
        let mut read = Vec::new();
        while read.len() < next as usize + 100 {
            if read.len() >= next as usize {
                send(&mut master, [1000 + read.len() as u64 - next]);
            }
            read.push(read_number(&mut slave));
            assert_eq!(slave.last_id().unwrap().number, read.len() as u64 - 1);
        }
        assert_eq!(read[0], 0);
        assert!(read[1..next as usize].iter().all(|&number| number == 666));
        assert_eq!(read[next as usize..], (1000..1100).collect::<Vec<_>>());
        assert_eq!(slave.try_read(&mut [0; 64]), Err(Error::Empty));
    }
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
