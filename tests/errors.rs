//! Every error is reached, its text names the object and the number, and what was found is left as
//! it was.
#![allow(missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use eshm::{Direction, Disconnect, Error, Geometry, Options, Overflow, PeerState, Role, Takeover};
use support::*;

children! { "stranger" => stranger, "forker" => forker }

/// The name of a variant.
fn kind(error: &Error) -> String {
    format!("{error:?}").split([' ', '{', '(']).next().unwrap().to_owned()
}

/// Checks kind and text of an error.
#[track_caller]
fn is(error: Error, expected: &str, words: &[&str]) {
    let text = error.to_string();
    assert_eq!(kind(&error), expected, "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
    let first = text.chars().next().unwrap();
    assert!(!first.is_uppercase() && !text.ends_with('.'), "the house style: {text}");
}

fn slave_at(bus: &Bus) -> Error {
    error_of(bus.options(Role::Slave).open())
}

#[test]
fn full_empty_timeout() {
    let bus = Bus::new("ewait");
    let mut master = bus.options(Role::Master).frames(2).open().unwrap();
    let mut slave = bus.slave();
    is(error_of(slave.try_read(&mut [0; 8])), "Empty", &["no message"]);
    is(error_of(slave.read_timeout(&mut [0; 8], Duration::ZERO)), "Timeout", &["timed out"]);
    while master.try_write(b"x").is_ok() {}
    is(error_of(master.try_write(b"x")), "Full", &["full"]);
    is(error_of(master.write_timeout(b"x", Duration::from_millis(1))), "Timeout", &[]);
    assert!(Error::Full.is_wait() && Error::Empty.is_wait() && Error::Timeout.is_wait());
    assert!(!Error::Forked.is_wait());
}

#[test]
fn peer_dead_and_peer_hung() {
    let bus = Bus::new("epeer");
    let mut master = bus.servant("master", "");
    let mut options = bus.options(Role::Slave);
    let mut slave = options.on_disconnect(Disconnect::Immediately).open().unwrap();
    let pid = master.pid().to_string();
    master.stop();
    is(error_of(slave.read(&mut [0; 8])), "PeerHung", &["master", &pid, "ms"]);
    master.kill();
    until("its death is seen", || slave.peer().state.name() == "dead");
    is(error_of(slave.read(&mut [0; 8])), "PeerDead", &["master", &pid, "gone"]);
    is(error_of(slave.try_read(&mut [0; 8])), "PeerDead", &["master", &pid]);
    let silent = Duration::from_millis(7);
    let hung = Error::PeerHung { role: Role::Slave, pid: 3, is_foreign: true, silent };
    is(hung, "PeerHung", &["(pid 3 of another PID namespace) hangs: no beat for 7 ms"]);
    is(
        Error::PeerDead { role: Role::Slave, pid: 0, is_foreign: false },
        "PeerDead",
        &["no slave is there"],
    );
}

#[test]
fn fenced_and_role_taken() {
    let bus = Bus::new("efence");
    let mut master = bus.master();
    let mut successor = bus.options(Role::Master).takeover(Takeover::Always).open().unwrap();
    let pid = std::process::id().to_string();
    is(error_of(master.write(b"x")), "Fenced", &["master", &pid, "open the bus again"]);
    is(error_of(bus.options(Role::Master).open()), "RoleTaken", &["master", &pid, "alive"]);
    let slave = bus.slave();
    is(error_of(bus.options(Role::Auto).open()), "RoleTaken", &["both roles", &pid, "alive"]);
    is(
        Error::Fenced { role: Role::Slave, by_pid: 0, is_foreign: false },
        "Fenced",
        &["another process", "slave"],
    );
    let by = Error::Fenced { role: Role::Slave, by_pid: 3, is_foreign: true };
    is(by, "Fenced", &["pid 3 of another PID namespace took"]);
    successor.write(b"x").unwrap();
    drop(slave);
}

/// Calls with a handle that was inherited.
fn forker(talk: &mut Talk) {
    let mut bus = servant::options(talk.word(0), &["role=master"]).open().unwrap();
    // SAFETY: the child makes calls that are made for this, and leaves at once.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        talk.say(format!("{:?}", bus.write(b"x").unwrap_err()));
        child::leave_at_once(0);
    }
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    drop(bus);
}

#[test]
fn forked() {
    let bus = Bus::new("efork");
    let mut child = Child::spawn("forker", bus.name());
    child.expect("Forked");
    child.finish();
    is(Error::Forked, "Forked", &["parent", "after the fork"]);
}

#[test]
fn lost() {
    let mut bus = Bus::new("elost");
    bus.may_leave();
    let mut options = bus.options(Role::Master);
    let mut master = options.guard_sigbus(true).open().unwrap();
    std::fs::File::options().write(true).open(bus.path()).unwrap().set_len(4096).unwrap();
    until("it is noticed", || matches!(master.try_write(b"x"), Err(Error::Lost { .. })));
    is(error_of(master.try_write(b"x")), "Lost", &["truncated", "open it again"]);
}

#[test]
fn names() {
    let long = "x".repeat(201);
    let cases = [
        ("", "empty"),
        (long.as_str(), "200"),
        ("a\0b", "NUL"),
        ("a b", "letters"),
        ("../x y", "letters"),
        ("ümlaut", "letters"),
        ("a~b", "letters"),
        ("a\nb", "letters"),
    ];
    for (name, why) in cases {
        for role in [Role::Master, Role::Slave, Role::Auto] {
            let error = error_of(Options::new(name).role(role).open());
            is(error, "Name", &[why, &name.escape_default().to_string()]);
        }
        is(error_of(eshm::inspect(name)), "Name", &[why]);
        is(error_of(eshm::Tap::open(name, Direction::MasterToSlave)), "Name", &[why]);
    }
    let longest = Bus::new(&"y".repeat(160));
    let name = format!("{}{}", longest.name(), "z".repeat(200 - longest.name().len()));
    drop(Options::new(name).role(Role::Master).open().unwrap());
}

#[test]
fn a_slash_and_an_underscore_share_a_file_and_do_not_meet() {
    let bus = Bus::new("a_b");
    let slashed = bus.name().replace("a_b", "a/b");
    let master = bus.master();
    for role in [Role::Slave, Role::Master, Role::Auto] {
        let error = error_of(Options::new(slashed.as_str()).role(role).open());
        is(error, "Name", &[&slashed, "another name"]);
    }
    drop(master);
    let first = Options::new(slashed.as_str()).role(Role::Master).open().unwrap();
    is(slave_at(&bus), "Name", &[bus.name()]);
    assert_eq!(first.name(), slashed);
}

#[test]
fn configurations() {
    let bus = Bus::new("econf");
    let too_large = 1u64 << 41;
    let cases: [(&str, u64, &dyn Fn(&mut Options)); 12] = [
        ("frame_size", 0, &|o| _ = o.frame_size(0)),
        ("frame_size", 7, &|o| _ = o.frame_size(7)),
        ("frame_size", 96, &|o| _ = o.frame_size(96)),
        ("frame_size", 2 << 20, &|o| _ = o.frame_size(2 << 20)),
        ("frames", 0, &|o| _ = o.frames(0)),
        ("frames", 1, &|o| _ = o.frames(1)),
        ("frames", 1000, &|o| _ = o.frames(1000)),
        ("frames", 1 << 63, &|o| _ = o.frames(1 << 63)),
        ("frames", too_large, &|o| _ = o.frames(too_large)),
        ("beat_interval", 1, &|o| _ = o.beat_interval(Duration::from_micros(1))),
        ("stale_after", 1500, &|o| _ = o.stale_after(Duration::from_micros(1500))),
        ("mode", 0o1777, &|o| _ = o.mode(0o1777)),
    ];
    for (what, value, change) in cases {
        let mut options = Options::new(bus.name());
        change(options.role(Role::Master));
        is(error_of(options.open()), "Config", &[what, &value.to_string()]);
    }
    let mut options = bus.options(Role::Master);
    is(error_of(options.mode(0o060).open()), "Config", &["mode"]);
    let geometry = Geometry { frame_size: 64, frames: 3, overflow: Overflow::Refuse };
    let mut options = bus.options(Role::Master);
    let error = error_of(options.direction(Direction::SlaveToMaster, geometry).open());
    is(error, "Config", &["frames", "3"]);
    assert!(bus.files().is_empty());
}

#[test]
fn a_geometry_that_differs_is_named_with_both_values() {
    let bus = Bus::new("egeo");
    let _master = bus.options(Role::Master).frames(128).frame_size(128).open().unwrap();
    let ask = |change: &dyn Fn(&mut Options)| {
        let mut options = Options::new(bus.name());
        change(options.role(Role::Slave));
        error_of(options.open())
    };
    is(ask(&|o| _ = o.frames(256)), "Geometry", &["frames", "128", "256"]);
    is(ask(&|o| _ = o.frame_size(64)), "Geometry", &["frame_size", "128", "64"]);
    is(ask(&|o| _ = o.overflow(Overflow::Overwrite)), "Geometry", &["overflow", "0", "1"]);
    drop(Options::new(bus.name()).role(Role::Slave).frames(128).frame_size(128).open().unwrap());
}

/// All that goes with it is in `schema.rs`.
#[test]
fn a_schema_that_differs_is_named_with_what_is_there() {
    let bus = Bus::new("eschema");
    let _master = bus.options(Role::Master).writes(eshm::Schema::new("a", 1)).open().unwrap();
    let ask = |schema| error_of(bus.options(Role::Slave).reads(schema).open());
    is(ask(eshm::Schema::new("a", 2)), "Schema", &["a:1", "a:2", "from master to slave"]);
    let up = bus.options(Role::Slave).writes(eshm::Schema::new("b", 3)).open();
    is(error_of(up), "Schema", &["no schema", "b:3", "from slave to master"]);
}

#[test]
fn too_long_too_small_wrong_size() {
    let bus = Bus::new("elen");
    let (mut master, mut slave) = bus.pair();
    let max = master.max_message();
    let long = vec![0; max + 1];
    let (len, most) = ((max + 1).to_string(), max.to_string());
    is(error_of(master.write(&long)), "TooLong", &[&len, &most]);
    is(error_of(master.claim(max + 1)), "TooLong", &[&len, &most]);
    is(error_of(master.try_write_many(&[&long])), "TooLong", &[&len, &most]);
    is(error_of(master.claim(usize::MAX)), "TooLong", &[]);
    is(error_of(master.claim(8).unwrap().commit_len(9)), "TooLong", &["9", "8"]);
    master.write(&long[1..]).unwrap();
    slave.read(&mut vec![0; max]).unwrap();
    master.write(b"twelve bytes").unwrap();
    for _ in 0..2 {
        is(error_of(slave.read(&mut [0; 11])), "BufferTooSmall", &["12", "11", "kept"]);
        is(error_of(slave.read_value::<u64>()), "WrongSize", &["12", "8", "kept"]);
        let mut batch = eshm::Batch::with_capacity(11, 5);
        is(error_of(slave.try_read_many(&mut batch)), "BufferTooSmall", &["12", "11"]);
    }
    assert_eq!(slave.next_len(), Ok(12));
    assert_eq!(slave.read(&mut [0; 12]), Ok(12));
}

#[test]
fn not_found_and_nothing_made() {
    let bus = Bus::new("enone");
    let path = bus.path().display().to_string();
    is(slave_at(&bus), "NotFound", &[&path, "master"]);
    is(error_of(eshm::inspect(bus.name())), "NotFound", &[&path]);
    is(error_of(eshm::remove(bus.name(), true)), "NotFound", &[&path]);
    is(error_of(eshm::Tap::open(bus.name(), Direction::MasterToSlave)), "NotFound", &[&path]);
    assert!(bus.files().is_empty());
    let mut options = bus.options(Role::Master);
    let error = error_of(options.directory("/nowhere/at/all").open());
    is(error, "Os", &["/nowhere/at/all", "No such file"]);
}

/// Tries everything that opens a name, and looks whether the file is still what it was.
#[track_caller]
fn refused_everywhere(bus: &Bus, expected: &str, words: &[&str]) {
    let before = std::fs::symlink_metadata(bus.path()).unwrap();
    let content = |path: &Path| before.is_file().then(|| std::fs::read(path).unwrap());
    let bytes = content(&bus.path());
    for role in [Role::Master, Role::Slave, Role::Auto] {
        for takeover in [Takeover::Never, Takeover::Always] {
            let error = error_of(bus.options(role).takeover(takeover).open());
            is(error, expected, words);
        }
    }
    let _ = error_of(eshm::remove(bus.name(), true));
    let after = std::fs::symlink_metadata(bus.path()).expect("still there");
    assert_eq!(content(&bus.path()), bytes, "left byte for byte");
    assert_eq!(
        (before.permissions(), before.file_type(), before.len()),
        (after.permissions(), after.file_type(), after.len())
    );
    assert_eq!(bus.files().len(), 1);
}

#[test]
fn files_of_somebody_else() {
    let old = {
        let mut bytes = vec![0u8; 8192];
        bytes[..4].copy_from_slice(&0x4553_484Du32.to_le_bytes());
        bytes
    };
    let cases: [(&[u8], &str); 5] = [
        (b"", "too short"),
        (b"hello, world", "too short"),
        (&[0xA5; 5000], "other bytes"),
        (&old, "older C++ ESHM"),
        (&old[..100], "older C++ ESHM"),
    ];
    for (bytes, why) in cases {
        let bus = Bus::new("eforeign");
        std::fs::write(bus.path(), bytes).unwrap();
        std::fs::set_permissions(bus.path(), PermissionsExt::from_mode(0o600)).unwrap();
        let path = bus.path().display().to_string();
        refused_everywhere(&bus, "Foreign", &[&path, why, "left as it is"]);
        std::fs::remove_file(bus.path()).unwrap();
    }
}

/// A segment that nobody is in, to be tampered with.
fn deserted(bus: &Bus) {
    let mut options = bus.options(Role::Master);
    drop(options.frames(16).cleanup(eshm::Cleanup::Never).open().unwrap());
}

#[test]
fn segments_of_other_builds() {
    // Version and id of the layout, and the length of the header.
    for (at, len, what) in
        [(8, 4, "layout version"), (16, 8, "layout id"), (12, 4, "header length")]
    {
        for change in [-1i64, 1] {
            let bus = Bus::new("elayout");
            deserted(&bus);
            let file = std::fs::File::options().read(true).write(true).open(bus.path()).unwrap();
            let mut word = [0; 8];
            file.read_exact_at(&mut word[..len], at).unwrap();
            let ours = u64::from_le_bytes(word);
            let theirs = ours.wrapping_add_signed(change);
            file.write_all_at(&theirs.to_le_bytes()[..len], at).unwrap();
            let (ours, theirs) = (format!("{ours:#x}"), format!("{theirs:#x}"));
            refused_everywhere(&bus, "Layout", &[what, &ours, &theirs]);
            std::fs::remove_file(bus.path()).unwrap();
        }
    }
}

#[test]
fn segments_of_a_wrong_length() {
    let bus = Bus::new("elength");
    deserted(&bus);
    let whole = std::fs::metadata(bus.path()).unwrap().len();
    for len in [whole - 1, whole - 4096, 4096] {
        std::fs::File::options().write(true).open(bus.path()).unwrap().set_len(len).unwrap();
        refused_everywhere(&bus, "Corrupt", &["shorter"]);
    }
    for len in [0, 1, 4095] {
        std::fs::File::options().write(true).open(bus.path()).unwrap().set_len(len).unwrap();
        refused_everywhere(&bus, "Foreign", &["too short"]);
    }
    std::fs::remove_file(bus.path()).unwrap();
}

#[test]
fn files_of_another_kind() {
    let room = Room::new();
    let target = room.at("target");
    std::fs::write(&target, "not yours").unwrap();
    let bus = Bus::inside(room.path(), "ekind");
    symlink(&target, bus.path()).unwrap();
    let refused = |words: &[&str]| {
        for role in [Role::Master, Role::Slave, Role::Auto] {
            let error = error_of(bus.options(role).open());
            is(error, "Access", words);
        }
    };
    refused(&["symbolic link", "left as it is"]);
    assert_eq!(std::fs::read(&target).unwrap(), b"not yours");
    std::fs::remove_file(bus.path()).unwrap();
    symlink("nowhere", bus.path()).unwrap();
    refused(&["symbolic link"]);
    std::fs::remove_file(bus.path()).unwrap();
    nix::unistd::mkfifo(&bus.path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(&["not a regular file"]);
    std::fs::remove_file(bus.path()).unwrap();
    std::fs::create_dir(bus.path()).unwrap();
    refused(&["not a regular file"]);
    std::fs::remove_dir(bus.path()).unwrap();
    deserted(&bus);
    std::fs::hard_link(bus.path(), room.at("second")).unwrap();
    refused(&["2 hard links"]);
    std::fs::remove_file(room.at("second")).unwrap();
    drop(bus.options(Role::Master).frames(16).open().unwrap());
}

#[test]
fn files_that_others_may_write() {
    let bus = Bus::new("emode");
    deserted(&bus);
    for mode in [0o620, 0o602, 0o666, 0o660, 0o640] {
        std::fs::set_permissions(bus.path(), PermissionsExt::from_mode(mode)).unwrap();
        let text = format!("{mode:04o}");
        let error = error_of(bus.options(Role::Slave).mode(0o600).open());
        is(error, "Access", &["others may use it", &text, "0600"]);
        // Who asks for nothing takes the file as it is, since its owner is trusted.
        drop(bus.options(Role::Slave).open().unwrap());
    }
    std::fs::set_permissions(bus.path(), PermissionsExt::from_mode(0o660)).unwrap();
    drop(bus.options(Role::Slave).mode(0o660).open().unwrap());
    std::fs::remove_file(bus.path()).unwrap();
}

/// Opens as another user.
fn stranger(talk: &mut Talk) {
    let uid = talk.number(0) as u32;
    // SAFETY: changes who this process is; no memory is touched.
    let done = unsafe { libc::setgid(uid) | libc::setuid(uid) };
    assert_eq!(done, 0);
    let words: Vec<&str> = talk.words[2..].iter().map(String::as_str).collect();
    let answer = match servant::options(talk.word(1), &words).open() {
        Ok(bus) => format!("ok {}", bus.role()),
        Err(error) => format!("{} {error}", kind(&error)),
    };
    talk.say(answer);
}

const NOBODY: u32 = 65534;

#[test]
fn files_of_another_user() {
    if !is_root() {
        return;
    }
    let bus = Bus::new("euser");
    let mut master = bus.master();
    let path = bus.path().display().to_string();
    for role in ["master", "slave", "auto"] {
        let words = format!("{NOBODY} {} role={role}", bus.name());
        let said = Child::spawn("stranger", &words).hear();
        assert!(said.starts_with("Access") && said.contains(&path), "{said}");
        assert!(said.contains("permission denied"), "{said}");
    }
    drop(master);
    // The other way round: even root takes no segment of another user for its own.
    master = bus.options(Role::Master).cleanup(eshm::Cleanup::Never).open().unwrap();
    drop(master);
    std::os::unix::fs::chown(bus.path(), Some(NOBODY), None).unwrap();
    for role in [Role::Master, Role::Slave, Role::Auto] {
        let error = error_of(bus.options(role).takeover(Takeover::Always).open());
        is(error, "Access", &["belongs to user", "65534", "not trusted", "left as it is"]);
        let error = error_of(bus.options(role).mode(0o666).open());
        is(error, "Access", &["belongs to user", "65534"]);
    }
    drop(bus.options(Role::Master).trust_user(NOBODY).open().unwrap());
    assert!(bus.files().is_empty(), "it was opened, and left cleanly");
}

#[test]
fn corrupt_is_told_once_found_and_ever_after() {
    let bus = Bus::new("ecorrupt");
    let mut master = bus.options(Role::Master).frames(16).open().unwrap();
    let mut slave = bus.slave();
    master.write(b"x").unwrap();
    // The length in the first commit word: the slot begins at 64 KiB; its page, a cursor page, the frame.
    let file = std::fs::File::options().write(true).open(bus.path()).unwrap();
    file.write_all_at(&0x00FF_FFFFu32.to_le_bytes(), 65536 + 2 * 4096).unwrap();
    for _ in 0..3 {
        is(error_of(slave.try_read(&mut [0; 8])), "Corrupt", &["length"]);
    }
    master.write(b"the other side goes on").unwrap();
    drop(slave);
    drop(master);
    let seen = eshm::inspect(bus.name()).unwrap();
    assert_eq!(
        seen.stats.slave.state,
        PeerState::Dead,
        "its role was given back, not left cleanly"
    );
}

/// All variants there are; each is reached somewhere above or, `Os` for a full file system, with
/// promise 10.
#[test]
fn every_variant_has_a_test() {
    let source = include_str!("../src/error.rs");
    let body = source.split_once("pub enum Error {").unwrap().1.split_once("\n}").unwrap().0;
    let variants: BTreeSet<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        .map(|line| line.trim_end_matches([',', ' ', '{']))
        .collect();
    assert!(variants.len() >= 20, "{variants:?}");
    let tests = include_str!("errors.rs");
    for variant in variants {
        assert!(tests.contains(&format!("\"{variant}\"")), "{variant} is not reached");
    }
}
