//! Users without privileges: two of one group share a bus in a sticky directory, where neither may
//! take the other's file away; strangers plant files; an ordinary user has namespaces of its own.
#![allow(missing_docs)]

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use eshm::{EntryKind, Error, Options, Role, SegmentState};
use support::confined::{ALICE, BOB, GROUP, become_user, servant_of, sticky_room};
use support::*;

children! {
    "truncator" => truncator, "observer" => observer, "remover" => remover, "in_namespaces" => in_namespaces,
}

/// What two users do with a bus that they share.
struct Pair {
    bus: Bus,
}

impl Pair {
    fn try_open(&self, servant: &mut Servant, more: &str) -> String {
        let directory = self.bus.path().parent().unwrap().display().to_string();
        let trust = format!("trust={ALICE} trust={BOB} mode=660");
        servant.ask(&format!("open {} dir={directory} {trust} {more}", self.bus.name()))
    }

    #[track_caller]
    fn open(&self, servant: &mut Servant, more: &str) -> String {
        let answer = self.try_open(servant, more);
        assert!(answer.starts_with("ok"), "{more}: {answer}");
        answer
    }
}

/// Both directions work between the two.
#[track_caller]
fn exchange(master: &mut Servant, slave: &mut Servant, first: u64) {
    master.send(first, 3);
    slave.send(first, 3);
    slave.expect(first, 3);
    master.expect(first, 3);
}

#[test]
fn two_users_of_a_group_take_over_from_each_other_and_leave() {
    if !is_root() {
        return;
    }
    for (first, second) in [(ALICE, BOB), (BOB, ALICE)] {
        let room = sticky_room();
        let pair = Pair { bus: Bus::inside(room.path(), "uboth") };
        let [mut one, mut one_too] = [(); 2].map(|()| servant_of(first, GROUP));
        let [mut two, mut two_too] = [(); 2].map(|()| servant_of(second, GROUP));
        assert_eq!(pair.open(&mut one, "role=master"), "ok master 1");
        let made = std::fs::metadata(pair.bus.path()).unwrap();
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (first, GROUP, 0o660));
        pair.open(&mut two, "role=slave");
        exchange(&mut one, &mut two, 0);
        // Whoever does not own the file takes over from its owner, alive and hung; and back.
        assert_eq!(pair.open(&mut two_too, "role=master takeover=always"), "ok master 2");
        assert!(one.ask("send 0 1 8").starts_with("err 0 Fenced"));
        exchange(&mut two_too, &mut two, 3);
        two_too.stop();
        assert_eq!(pair.open(&mut one_too, "role=master takeover=hung"), "ok master 3");
        exchange(&mut one_too, &mut two, 6);
        two_too.go_on();
        assert!(two_too.ask("send 0 1 8").starts_with("err 0 Fenced"));
        two.stop();
        assert_eq!(pair.open(&mut one, "role=slave takeover=hung"), "ok slave 2");
        exchange(&mut one_too, &mut one, 9);
        two.go_on();
        assert!(two.ask("send 0 1 8").starts_with("err 0 Fenced"));
        // Each leaves, and comes back to the same file.
        one_too.send(12, 2);
        one_too.must("leave");
        assert_eq!(pair.open(&mut two, "role=master"), "ok master 4");
        one.expect(12, 2);
        one.must("leave");
        assert_eq!(pair.open(&mut two_too, "role=slave"), "ok slave 3");
        exchange(&mut two, &mut two_too, 14);
        let now = std::fs::metadata(pair.bus.path()).unwrap();
        assert_eq!((now.ino(), now.uid(), now.gid()), (made.ino(), first, GROUP));
        two_too.must("leave");
        two.must("leave");
        // Nobody was left but who may not remove the name.
        revive_and_remove(&pair, &mut two, &mut one);
    }
}

/// What is left by who may not take the name away is empty; either user goes on with it, and its
/// owner removes it.
fn revive_and_remove(pair: &Pair, stranger: &mut Servant, owner: &mut Servant) {
    let path = pair.bus.path();
    let is_empty = |path: &Path| {
        let kept = confined::allocated(path);
        assert!(kept <= 2 * 4096, "{kept} bytes are kept");
        let found = eshm::inspect_in(path.parent().unwrap(), pair.bus.name()).unwrap();
        assert_eq!(found.state, SegmentState::Retired);
    };
    is_empty(&path);
    assert!(pair.try_open(stranger, "role=slave").starts_with("err 0 NotFound"));
    assert_eq!(pair.open(stranger, "role=master"), "ok master 1");
    assert_eq!(pair.open(owner, "role=slave"), "ok slave 1");
    exchange(stranger, owner, 0);
    owner.must("leave");
    stranger.must("leave");
    is_empty(&path);
    assert_eq!(pair.open(owner, "role=master"), "ok master 1");
    owner.must("leave");
    assert_eq!(pair.bus.files(), [] as [&Path; 0], "its owner takes it away");
}

/// Whatever mode is asked for: a file of somebody who is not trusted is not used, even by root, and
/// not changed.
#[test]
fn root_does_not_use_what_a_user_planted() {
    if !is_root() {
        return;
    }
    for mode in [0o600, 0o640, 0o644, 0o660, 0o666] {
        let room = sticky_room();
        let mut bus = Bus::inside(room.path(), "uplant");
        bus.may_leave();
        let mut alice = servant_of(ALICE, GROUP);
        let directory = room.path().display();
        let words = format!("dir={directory} role=master cleanup=0 mode={mode:o}");
        alice.must(&format!("open {} {words}", bus.name()));
        alice.send(0, 3);
        alice.must("leave");
        let before = std::fs::read(bus.path()).unwrap();
        for role in [Role::Master, Role::Slave, Role::Auto] {
            for asked in [None, Some(mode), Some(0o640), Some(0o644), Some(0o660)] {
                let mut options = Options::new(bus.name());
                options.directory(room.path()).role(role);
                asked.map(|asked| options.mode(asked));
                let error = error_of(options.open());
                let Error::Access { why, .. } = &error else { panic!("{asked:?}: {error}") };
                assert!(why.contains(&ALICE.to_string()), "{error}");
            }
        }
        assert!(std::fs::read(bus.path()).unwrap() == before, "it was touched");
        let mut options = Options::new(bus.name());
        options.directory(room.path()).role(Role::Slave).mode(mode).trust_user(ALICE);
        assert_eq!(drain(&mut options.open().unwrap()), [0, 1, 2], "who is trusted is");
    }
}

/// Plants a file that looks like a bus, cuts it short, and makes it whole again, for ever.
fn truncator(talk: &mut Talk) {
    become_user(ALICE, GROUP);
    let path = Path::new(talk.word(0)).to_owned();
    let directory = path.parent().unwrap().display().to_string();
    let words = ["role=master", &format!("dir={directory}"), "cleanup=0", "mode=666"];
    let mut bus = servant::options(talk.word(1), &words).open().unwrap();
    send(&mut bus, 0..3);
    bus.leave().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    talk.say("planted");
    loop {
        for len in [0, 4096, 65_536, 65_536 + 4096] {
            file.set_len(len).unwrap();
            std::thread::yield_now();
            file.set_len(bytes.len() as u64).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
            // Whole for long enough to be seen so now and then.
            (0..100).for_each(|_| std::thread::yield_now());
        }
    }
}

/// Looks at all that there is to see, until it has seen it whole and broken many times.
fn observer(talk: &mut Talk) {
    let directory = Path::new(talk.word(0)).to_owned();
    let (mut whole, mut broken) = (0, 0);
    let mut rounds = 0;
    while rounds < 2000 || whole.min(broken) < 50 {
        rounds += 1;
        for entry in eshm::list_in(&directory).unwrap() {
            match entry.kind {
                EntryKind::Bus(_) => whole += 1,
                _ => broken += 1,
            }
        }
        match eshm::inspect_in(&directory, talk.word(1)) {
            Ok(_) => whole += 1,
            Err(_) => broken += 1,
        }
        let _ = eshm::remove_in(&directory, talk.word(1), false);
    }
    talk.say("seen");
    talk.hear();
}

/// Who only looks is not killed by a file that is cut short under his eyes.
#[test]
fn observers_survive_a_file_that_is_cut_short() {
    if !is_root() {
        return;
    }
    let room = sticky_room();
    let mut bus = Bus::inside(room.path(), "ucut");
    bus.may_leave();
    let words = format!("{} {}", bus.path().display(), bus.name());
    let mut truncator = Child::spawn("truncator", &words);
    truncator.expect("planted");
    let mut observer =
        Child::spawn("observer", &format!("{} {}", room.path().display(), bus.name()));
    observer.expect("seen");
    observer.tell("bye");
    observer.finish();
    assert!(truncator.is_running());
}

/// Removes what somebody trusted keeps cutting short, and is not allowed to take the name away: until it
/// has found it whole and broken many times.
fn remover(talk: &mut Talk) {
    become_user(BOB, GROUP);
    let mut options = Options::new(talk.word(1));
    options.directory(talk.word(0)).trust_user(ALICE).guard_sigbus(true);
    let (mut emptied, mut broken) = (0, 0);
    let mut rounds = 0;
    while rounds < 4000 || emptied.min(broken) < 50 {
        rounds += 1;
        match options.remove(rounds % 2 == 0) {
            Err(Error::Access { .. }) => emptied += 1,
            Err(_) => broken += 1,
            Ok(()) => {}
        }
    }
    talk.say("removed");
    talk.hear();
}

/// Who removes a file of somebody trusted, guarded, is not killed when that is cut short meanwhile.
#[test]
fn a_guarded_remover_survives_a_file_that_is_cut_short() {
    if !is_root() {
        return;
    }
    let room = sticky_room();
    let mut bus = Bus::inside(room.path(), "urm");
    bus.may_leave();
    let words = format!("{} {}", bus.path().display(), bus.name());
    let mut truncator = Child::spawn("truncator", &words);
    truncator.expect("planted");
    let words = format!("{} {}", room.path().display(), bus.name());
    let mut remover = Child::spawn("remover", &words);
    remover.expect("removed");
    remover.tell("bye");
    remover.finish();
    assert!(truncator.is_running());
}

/// A bus of another user is removed by whoever trusts that user, and by nobody else.
#[test]
fn a_remover_names_whom_it_trusts() {
    if !is_root() {
        return;
    }
    let room = Room::new();
    let mut bus = Bus::inside(room.path(), "urmtrust");
    bus.may_leave();
    let mut alice = servant_of(ALICE, GROUP);
    let directory = room.path().display();
    std::os::unix::fs::chown(room.path(), Some(ALICE), None).unwrap();
    for aside in [false, true] {
        alice.must(&format!("open {} dir={directory} role=master cleanup=0", bus.name()));
        alice.must("leave");
        let mut name = bus.name().to_owned();
        if aside {
            name += "~0123456789abcdef";
            std::fs::rename(bus.path(), room.path().join(format!("eshm_{name}"))).unwrap();
        }
        let mut options = Options::new(&name);
        options.directory(room.path());
        for force in [false, true] {
            let error = error_of(options.remove(force));
            assert!(matches!(&error, Error::Access { why, .. } if why.contains("not trusted")));
        }
        assert_eq!(bus.files().len(), 1, "it is still there");
        options.trust_user(ALICE).remove(false).unwrap();
        assert!(bus.files().is_empty());
    }
}

/// An ordinary user in a user namespace of its own, and a PID namespace where that is wished; as it
/// is, or as root there.
fn in_namespaces(talk: &mut Talk) {
    become_user(ALICE, GROUP);
    let kinds = match talk.word(0) {
        "pid" => libc::CLONE_NEWUSER | libc::CLONE_NEWPID,
        _ => libc::CLONE_NEWUSER,
    };
    // SAFETY: this process has one thread.
    if unsafe { libc::unshare(kinds) } != 0 {
        return talk.say("forbidden");
    }
    if talk.word(1) == "mapped" {
        std::fs::write("/proc/self/setgroups", "deny").unwrap();
        std::fs::write("/proc/self/uid_map", format!("0 {ALICE} 1")).unwrap();
        std::fs::write("/proc/self/gid_map", format!("0 {GROUP} 1")).unwrap();
        assert!(nix::unistd::geteuid().is_root());
    }
    talk.say("inside");
    if kinds & libc::CLONE_NEWPID == 0 {
        return servant::serve(talk);
    }
    // SAFETY: as above.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: asks for a signal when the parent dies.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        assert_eq!(std::process::id(), 1);
        servant::serve(talk);
    }
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
}

/// Namespaces of a user and of processes are no matter, on either side and with nobody's rights.
#[test]
fn user_and_process_namespaces_are_no_matter() {
    if !is_root() {
        return;
    }
    for (kind, map) in [("user", "plain"), ("user", "mapped"), ("pid", "plain"), ("pid", "mapped")]
    {
        let room = sticky_room();
        let bus = Bus::inside(room.path(), "uspace");
        let mut outside = servant_of(ALICE, GROUP);
        let mut inside = Servant(Child::spawn("in_namespaces", &format!("{kind} {map}")));
        match inside.hear().as_str() {
            "inside" => {}
            said => return skipped(&format!("no user namespace is to be had here: {said}")),
        }
        let directory = room.path().display();
        let open = |servant: &mut Servant, words: &str| {
            servant.must(&format!("open {} dir={directory} {words}", bus.name()))
        };
        open(&mut inside, "role=master");
        open(&mut outside, "role=slave");
        exchange(&mut inside, &mut outside, 0);
        assert!(outside.must("peer").starts_with("alive"));
        assert!(inside.must("peer").starts_with("alive"));
        // Fenced from without, and from within.
        let mut other = servant_of(ALICE, GROUP);
        assert_eq!(open(&mut other, "role=master takeover=always"), "master 2", "{kind} {map}");
        assert!(inside.ask("send 0 1 8").starts_with("err 0 Fenced"));
        exchange(&mut other, &mut outside, 3);
        outside.stop();
        assert_eq!(open(&mut inside, "role=slave takeover=hung"), "slave 2", "{kind} {map}");
        exchange(&mut other, &mut inside, 6);
        inside.kill();
        until("its death", || other.must("peer").starts_with("dead"));
        let mut heir = servant_of(ALICE, GROUP);
        assert_eq!(open(&mut heir, "role=slave"), "slave 3");
        exchange(&mut other, &mut heir, 9);
        heir.must("leave");
        other.must("leave");
        outside.kill();
        assert!(room.names().is_empty());
    }
}
