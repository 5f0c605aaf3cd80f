//! What others do while a process stands still, or after it was killed, between two steps of a
//! replacement. Needs the feature `failpoints`; the points are in `src/`.
#![allow(missing_docs)]

mod support;

use std::os::fd::AsRawFd;
use std::time::Duration;

use eshm::{Disconnect, Endpoint, Error, PeerState, Role, Takeover};
use support::*;

children! { "by_hand" => by_hand, "limited" => limited, "crowded" => crowded, "remover" => remover }

/// A servant that stops, or dies, at a point.
fn armed(point: &str) -> Servant {
    Servant(Child::spawn_with("servant", "", |command| {
        command.env("ESHM_FAILPOINTS", point);
    }))
}

/// Tells it to open; it may never answer.
fn send_to_open(servant: &mut Servant, bus: &Bus, words: &str) {
    servant.tell(&format!("open {} dir=/dev/shm {words}", bus.name()));
}

fn assert_killed(servant: &mut Servant) {
    let signal = std::os::unix::process::ExitStatusExt::signal(&servant.wait());
    assert_eq!(signal, Some(libc::SIGKILL), "it did not come by its point");
}

/// Waits until all of a process stands still, whoever stopped it.
fn await_still(pid: u32) {
    until("it stands still", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("stat"))).all(|stat| {
            let stat = stat.unwrap_or_default();
            let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
            matches!(state, None | Some('T' | 't'))
        })
    });
}

/// Lets it go on: not `Child::go_on`, which would wait for it to be seen going.
fn let_go(servant: &Servant) {
    servant.signal(libc::SIGCONT);
}

fn taken(bus: &Bus, role: Role, takeover: Takeover) -> Endpoint {
    bus.options(role).takeover(takeover).open().expect("the role")
}

/// A slave without a background thread that reads until it is told to end; what it meets is kept.
fn by_hand(talk: &mut Talk) {
    let mut options = servant::options(talk.word(0), &["role=slave", "background=0", "beat=20"]);
    let mut slave = options.on_disconnect(Disconnect::Immediately).open().unwrap();
    let mut buffer = [0; 100];
    let mut met = Vec::new();
    talk.say("open");
    loop {
        let line = talk.hear();
        let (verb, count) = line.split_once(' ').unwrap();
        for _ in 0..count.parse::<u64>().unwrap() {
            match slave.try_read(&mut buffer) {
                Ok(len) => met.push(format!("message {}", number_of(&buffer[..len]))),
                Err(Error::Empty) => {}
                Err(error) => met.push(format!("{error:?}")),
            }
            // The pause between two looks of a host that reads now and then.
            std::thread::sleep(Duration::from_millis(25));
        }
        talk.say(met.join(" "));
        if verb == "end" {
            return;
        }
    }
}

/// The owner that was replaced is killed as well, and its page is still mapped: whoever moves late
/// does not take that for the death of its peer.
#[test]
fn a_late_mover_does_not_believe_the_page_that_it_leaves() {
    let bus = Bus::new("sbdead");
    let old = bus.servant("master", "");
    let mut slave = Child::spawn("by_hand", bus.name());
    slave.expect("open");
    assert_eq!(slave.ask("read 4"), "");
    old.stop();
    assert_eq!(slave.ask("read 2"), "");
    let mut new = taken(&bus, Role::Master, Takeover::Hung);
    let mut old = old;
    old.kill();
    // Not one of these says that the peer is dead.
    assert_eq!(slave.ask("read 6"), "");
    send(&mut new, 0..1);
    assert_eq!(slave.ask("end 2"), "message 0");
    slave.finish();
}

/// A slave that may not make its file longer for a while, or may not open files.
fn limited(talk: &mut Talk) {
    let words = ["role=slave", "background=0", "timeout=5000"];
    let mut slave = servant::options(talk.word(0), &words).open().unwrap();
    talk.say("open");
    talk.hear();
    let (what, most) = match talk.word(1) {
        "length" => (libc::RLIMIT_FSIZE, std::fs::metadata(talk.word(2)).unwrap().len()),
        _ => (libc::RLIMIT_NOFILE, 3),
    };
    let before = confined::limit(what, most);
    // A message that is under way when the slot is sealed still counts; the next one has to move.
    let mut written = 0;
    let refused = loop {
        match slave.try_write(&message(written, 64)) {
            Ok(()) if written < 3 => written += 1,
            done => break done,
        }
    };
    confined::limit(what, before);
    talk.say(match refused {
        Err(Error::Os { errno, .. }) => format!("refused {errno}"),
        other => format!("{other:?}"),
    });
    talk.hear();
    talk.say(format!("{:?}", slave.write(&message(written, 64))));
    talk.hear();
    talk.say(format!("{:?}", slave.leave()));
}

/// There is no room for a third slot while a stand-by takes its time: a refusal that passes, not the
/// end of the endpoint.
#[test]
fn no_room_for_a_slot_of_ones_own_is_no_end() {
    let bus = Bus::new("sbroom");
    let old = bus.servant("master", "");
    let mut slave =
        Child::spawn("limited", &format!("{} length {}", bus.name(), bus.path().display()));
    slave.expect("open");
    old.stop();
    let mut standby = armed("seal.rung=stop");
    send_to_open(&mut standby, &bus, "role=master takeover=hung");
    await_still(standby.pid());
    assert_eq!(slave.ask("write"), format!("refused {}", libc::EFBIG));
    let_go(&standby);
    assert_eq!(standby.hear(), "ok master 2");
    assert_eq!(slave.ask("write"), "Ok(())");
    // Those before the refusal and the one after it.
    standby.expect(0, 2);
    assert_eq!(slave.ask("leave"), "Ok(())");
    standby.must("leave");
    drop(old);
}

/// No descriptor to move with: the same.
#[test]
fn no_descriptor_to_move_with_is_no_end() {
    let bus = Bus::new("sbfiles");
    let mut old = bus.servant("master", "");
    let mut slave = Child::spawn("limited", &format!("{} files", bus.name()));
    slave.expect("open");
    old.send(0, 3);
    old.stop();
    let mut new = bus.servant("master", "takeover=hung");
    assert_eq!(slave.ask("write"), format!("refused {}", libc::EMFILE));
    assert_eq!(slave.ask("write"), "Ok(())");
    new.expect(0, 1);
    assert_eq!(slave.ask("leave"), "Ok(())");
    // Its three messages are unread, so they stay.
    new.must("leave");
    let mut slave = bus.slave();
    assert_eq!(drain(&mut slave), [0, 1, 2]);
}

/// Whoever moves is stopped when it was already let in, and the slot is replaced meanwhile: its place
/// is kept over two replacements.
#[test]
fn a_mover_that_is_overtaken_keeps_its_place() {
    for point in ["move.locked", "move.checked", "move.enrolled"] {
        let bus = Bus::new("sbmove");
        let old = bus.servant("master", "");
        let mut peer = armed(&format!("{point}=stop"));
        peer.must(&format!("open {} dir=/dev/shm role=slave", bus.name()));
        peer.send(0, 2);
        old.stop();
        let first = taken(&bus, Role::Master, Takeover::Hung);
        await_still(peer.pid());
        let mut second = taken(&bus, Role::Master, Takeover::Always);
        let_go(&peer);
        peer.send(2, 2);
        assert_eq!((0..4).map(|_| read_number(&mut second)).collect::<Vec<_>>(), [0, 1, 2, 3]);
        send(&mut second, 0..3);
        peer.expect(0, 3);
        assert_eq!(peer.must("epoch"), "1", "{point}: it is the owner it was");
        drop(first);
        peer.must("leave");
    }
}

/// Whoever was refused the lock of its place is stopped, and looks at the page of the slot only when
/// that slot is used for something else: it does not believe it.
#[test]
fn a_mover_that_was_refused_does_not_believe_a_page_used_again() {
    let bus = Bus::new("sbpage");
    let old = bus.servant("master", "");
    let mut peer = armed("move.refused=stop");
    peer.must(&format!("open {} dir=/dev/shm role=slave", bus.name()));
    old.stop();
    peer.stop();
    let first = taken(&bus, Role::Master, Takeover::Hung);
    let file = std::fs::File::options().read(true).write(true).open(bus.path()).unwrap();
    let lock = |kind: i32| {
        // The slave's byte of slot 1.
        let range = libc::flock {
            l_type: kind as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 5,
            l_len: 1,
            l_pid: 0,
        };
        // SAFETY: reads the range, which lives across the call.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const range) }
    };
    assert_eq!(lock(libc::F_WRLCK), 0, "nobody has come over yet");
    peer.go_on();
    await_still(peer.pid());
    lock(libc::F_UNLCK);
    let mut second = taken(&bus, Role::Master, Takeover::Always);
    let full = confined::allocated(&bus.path());
    drop(first);
    until("the slot that it looks at is empty", || confined::allocated(&bus.path()) < full);
    let_go(&peer);
    peer.send(0, 1);
    assert_eq!(read_number(&mut second), 0);
    assert_eq!(peer.must("epoch"), "1", "it is the owner it was");
    peer.must("leave");
}

/// A stand-by found that the owner hangs, and was then slow itself. Meanwhile the owner goes on, and
/// keeps its role.
#[test]
fn an_owner_that_lives_again_is_not_replaced_by_a_late_verdict() {
    for point in ["slot.locked", "slot.allocated"] {
        let bus = Bus::new("sbverdict");
        let mut owner = bus.servant("master", "");
        let mut slave = bus.slave();
        owner.stop();
        let mut standby = armed(&format!("{point}=stop"));
        send_to_open(&mut standby, &bus, "role=master takeover=hung");
        await_still(standby.pid());
        owner.go_on();
        let beats = slave.peer().beats;
        until("its heart beats", || slave.peer().beats > beats);
        owner.send(0, 3);
        let_go(&standby);
        let answer = standby.hear();
        assert!(answer.starts_with("err 0 RoleTaken"), "{point}: {answer}");
        owner.send(3, 1);
        assert_eq!(owner.must("epoch"), "1");
        assert_eq!((0..4).map(|_| read_number(&mut slave)).collect::<Vec<_>>(), [0, 1, 2, 3]);
        owner.must("leave");
    }
}

/// More sealers die than there are slots, records, or anything else of which there is a number.
#[test]
fn killed_sealers_use_nothing_up() {
    for point in ["slot.allocated", "seal.begun", "cut.noted", "rebuild.done", "replace.ready"] {
        let bus = Bus::new("sbkilled");
        let mut old = bus.servant("master", "");
        let mut peer = bus.servant("slave", "");
        old.send(0, 3);
        peer.send(0, 3);
        old.stop();
        for _ in 0..20 {
            let mut sealer = armed(&format!("{point}=kill"));
            send_to_open(&mut sealer, &bus, "role=master takeover=always");
            assert_killed(&mut sealer);
        }
        let mut new = taken(&bus, Role::Master, Takeover::Always);
        assert_eq!(drain(&mut new), [0, 1, 2], "{point}");
        send(&mut new, 3..5);
        peer.send(3, 2);
        peer.expect(0, 5);
        assert_eq!(drain(&mut new), [3, 4], "{point}");
        let slots = std::fs::metadata(bus.path()).unwrap().len() / (2 * 1024 * 64);
        assert!(slots <= 4, "{point}: {slots} slots");
        peer.must("leave");
        drop(old);
        new.leave().unwrap();
    }
}

const FRAMES: u64 = 1 << 20;

/// Two endpoints: a heart that is watched, and one that has to rebuild a big bus by itself.
fn crowded(talk: &mut Talk) {
    let mut heart = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    let mut big = servant::options(talk.word(1), &["role=slave"]).open().unwrap();
    talk.say("open");
    loop {
        talk.hear();
        // Whoever sealed it is dead: this call makes the slot anew.
        let started = std::time::Instant::now();
        big.write(&message(0, 64)).unwrap();
        talk.say(started.elapsed().as_micros().to_string());
        heart.try_write(b"x").unwrap();
    }
}

/// An endpoint that finishes what a killed stand-by began is busy for a while; the hearts of its
/// process are not.
#[test]
fn finishing_a_big_replacement_stops_no_heart() {
    let small = Bus::new("sbheart");
    let mut big = Bus::new("sbbig");
    big.may_leave();
    let mut old = big.servant("master", &format!("frames={FRAMES} frame_size=128"));
    let mut child = Child::spawn("crowded", &format!("{} {}", small.name(), big.name()));
    child.expect("open");
    let watcher = small.slave();
    watcher.wait_for_peer(PATIENCE).unwrap();
    old.must("wait");
    let mut shares = Vec::new();
    for _ in 0..3 {
        let mut sealer = armed("seal.rung=kill");
        let words = format!("role=master takeover=always frames={FRAMES} frame_size=128");
        send_to_open(&mut sealer, &big, &words);
        assert_killed(&mut sealer);
        child.tell("write");
        let (gap, answer) = longest_gap(&watcher, &mut child);
        let took = Duration::from_micros(answer.parse().unwrap());
        shares.push((gap.as_secs_f64() / took.as_secs_f64(), gap, took));
    }
    let best = shares.iter().map(|share| share.0).fold(f64::MAX, f64::min);
    assert!(best < 0.3, "{shares:?}");
    assert_eq!(watcher.peer().state, PeerState::Alive);
    old.kill();
    drop(child);
}

/// Removes a bus by force.
fn remover(talk: &mut Talk) {
    let directory = std::path::PathBuf::from(talk.word(0));
    match eshm::remove_in(&directory, talk.word(1), true) {
        Ok(()) => talk.say("removed"),
        Err(error) => talk.say(format!("{error:?}")),
    }
}

/// A bus is removed by force, and its remover is slow between moving the name aside and unlinking it.
/// Its members do not bring the name of a removed bus back.
#[test]
fn members_do_not_bring_the_name_of_a_removed_bus_back() {
    let room = Room::new();
    let bus = Bus::inside(room.path(), "back");
    let slow = Duration::from_millis(250);
    let open = |role| {
        let mut options = bus.options(role);
        options.beat_interval(slow).stale_after(10 * slow).open().unwrap()
    };
    let pair = (open(Role::Master), open(Role::Slave));
    let words = format!("{} {}", room.path().display(), bus.name());
    let mut remover = Child::spawn_with("remover", &words, |command| {
        command.env("ESHM_FAILPOINTS", "unlink.moved=stop");
    });
    until("it is moved aside", || room.names().iter().any(|name| name.contains('~')));
    let came_back = comes_true(Duration::from_secs(1), || bus.path().exists());
    remover.signal(libc::SIGCONT);
    remover.expect("removed");
    remover.finish();
    assert!(!bus.path().exists(), "said to be removed, and is there; back meanwhile: {came_back}");
    assert!(!came_back);
    drop(pair);
}
