//! Other places than the usual one: containers, other users' files, directories without room or
//! entry. What needs root is passed over without it.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use eshm::{PeerState, Role};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use support::{Place, Ran, Running, until};

/// The program in namespaces of its own, with a shell command before it; `None` where that is not
/// allowed.
fn apart(place: &Place, flags: &[&str], script: &str) -> Option<Command> {
    let is_allowed = Command::new("unshare")
        .args(flags)
        .arg("true")
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !is_allowed {
        eprintln!("unshare {flags:?} is not allowed here: nothing was looked at");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", script]);
    command.env("ESHM", env!("CARGO_BIN_EXE_eshm")).env("ESHM_DIR", place.dir());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

fn run(mut command: Command) -> Ran {
    Running::bare(&mut command).end()
}

/// The process that another one has started.
fn child_of(pid: Pid) -> Pid {
    let mut child = None;
    until("its child", || {
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        child = list.unwrap_or_default().split_whitespace().next().and_then(|pid| pid.parse().ok());
        child.is_some()
    });
    Pid::from_raw(child.unwrap())
}

const PIDS: [&str; 4] = ["--pid", "--fork", "--kill-child", "--mount-proc"];

#[test]
fn the_first_process_of_a_container_ends_by_its_signal() {
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130)] {
        let place = Place::new();
        let _master = place.bus("x").role(Role::Master).open().unwrap();
        let Some(mut command) = apart(&place, &PIDS, "exec $ESHM recv x") else { return };
        let recv = Running::bare(&mut command);
        place.until("x", |now| now.stats.slave.state == PeerState::Alive);
        assert_eq!(eshm::inspect_in(place.dir(), "x").unwrap().stats.slave.pid, 1);
        kill(child_of(recv.pid()), signal).unwrap();
        recv.end().code(code);
        place.until("x", |now| now.stats.slave.state == PeerState::Left);
    }
}

#[test]
fn pids_of_another_namespace_are_marked() {
    let place = Place::new();
    let _master = place.bus("x").role(Role::Master).open().unwrap();
    let Some(mut command) = apart(&place, &PIDS, "exec $ESHM recv x") else { return };
    let recv = Running::bare(&mut command);
    place.until("x", |now| now.stats.slave.state == PeerState::Alive);
    let ls = place.run(&["ls"]).ok().text();
    assert!(ls.contains("ns:1 alive") && ls.contains("another PID namespace"), "{ls}");
    let stat = place.run(&["stat", "x"]).ok().text();
    assert!(stat.contains("pid 1 of another PID namespace, alive"), "{stat}");
    let json = place.run(&["stat", "x", "--json"]).ok().json();
    assert_eq!(
        (&json["slave"]["foreign_pid"], &json["master"]["foreign_pid"]),
        (&true.into(), &false.into())
    );
    kill(child_of(recv.pid()), Signal::SIGTERM).unwrap();
    recv.end().code(143);
}

#[test]
fn doctor_knows_room_without_limit_and_no_room_for_a_second_slot() {
    let place = Place::new();
    let look = |size: &str, before: &str| {
        let script = format!(
            "mount -t tmpfs -o mode=1777,size={size} none $ESHM_DIR && {before} $ESHM doctor --json"
        );
        apart(&place, &["--mount"], &script).map(|command| {
            let findings = run(command).json();
            let of = |check: &str| {
                let all = findings.as_array().unwrap();
                all.iter().find(|finding| finding["check"] == check).unwrap().clone()
            };
            (of("shm space"), of("fence"))
        })
    };
    let Some((space, fence)) = look("0", "") else { return };
    assert_eq!((&space["level"], &fence["level"]), (&"good".into(), &"good".into()), "{space}");
    let full = "echo 1 | $ESHM send big --keep --frames 16384;";
    let Some((space, fence)) = look("4m", full) else { return };
    assert_eq!(
        (&space["level"], &fence["level"]),
        (&"bad".into(), &"warn".into()),
        "{space} {fence}"
    );
    assert!(fence["what"].as_str().unwrap().contains("second slot of big"), "{fence}");
    assert!(fence["remedy"].as_str().unwrap().contains("remount"), "{fence}");
}

#[test]
fn a_full_directory_says_how_much_is_needed_and_how_much_is_there() {
    let place = Place::new();
    let script = "mount -t tmpfs -o size=1m none $ESHM_DIR && $ESHM send x </dev/null";
    let Some(command) = apart(&place, &["--mount"], script) else { return };
    let said = run(command).code(9).stderr;
    for part in [" bytes needed, ", " free)", "No space left", "--frames"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
}

/// A file on a disk with room for eight lines of this length and half a ninth; `recv` with these
/// options fails there, and with more room is started again.
fn filled_up(options: &str) -> Option<(Place, Ran)> {
    let place = Place::new();
    let lines: String = (10..30).map(|number| format!("{number}{}\n", "x".repeat(998))).collect();
    place.feed(&["send", "a", "--keep"], lines.as_bytes()).ok();
    let small = place.file("small");
    fs::create_dir(&small).unwrap();
    let script = format!(
        "cd {} && mount -t tmpfs -o size=8k none . && cd $PWD
        $ESHM recv a {options}; echo ended $? >&2; $SHOW out >&2; echo . >&2
        mount -o remount,size=1m . && $ESHM recv a {options} && $SHOW out",
        small.display()
    );
    // Each line by its number and its length.
    let script = script.replace("$SHOW", "awk '{print substr($0, 1, 2), length($0)}'");
    let ran = run(apart(&place, &["--mount"], &script)?);
    Some((place, ran))
}

#[test]
fn half_a_message_does_not_stay_on_a_full_disk() {
    let numbers =
        |from: u32, to: u32| -> String { (from..to).map(|n| format!("{n} 1000\n")).collect() };
    for options in ["--ack -o out --append", "--ack >> out", "-o out --append"] {
        let Some((place, ran)) = filled_up(options) else { return };
        let whole = format!("ended 9\n{}.\n", numbers(10, 18));
        assert!(ran.stderr.contains(&whole), "{options}: {}", ran.stderr);
        let name =
            if options.contains("-o") { "eshm: out: No space" } else { "eshm: stdout: No space" };
        assert!(ran.stderr.contains(name), "{options}: {}", ran.stderr);
        if options.contains("--ack") {
            assert_eq!(ran.ok().text(), numbers(10, 30), "{options}");
        } else {
            assert!(ran.stderr.contains("12 messages taken and not written;"), "{}", ran.stderr);
        }
        place.sweep();
    }
}

#[test]
fn who_waits_long_is_told_where_it_looks() {
    let place = Place::new();
    let mut recv = Running::bare(&mut place.command(&["recv", "a"]));
    let said = BufReader::new(recv.child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = said.take(2).collect();
    assert!(said[0].contains("waiting for a master of a"), "{said:?}");
    let hint = format!("still no eshm_a in {}", place.dir().display());
    assert!(said[1].contains(&hint) && said[1].contains("the same directory"), "{said:?}");
    recv.signal(Signal::SIGINT);
    recv.end().code(130);
}

#[test]
fn a_file_of_another_user_names_the_way_to_trust_it() {
    if !geteuid().is_root() {
        eprintln!("only root can give a file away: nothing was looked at");
        return;
    }
    let place = Place::new();
    place.feed(&["send", "a", "--keep"], b"1\n").ok();
    chown(place.dir().join("eshm_a"), Some(65_534), None).unwrap();
    let name = nix::unistd::User::from_uid(65_534.into())
        .unwrap()
        .map_or("65534".into(), |user| user.name);
    let refused = place.run(&["recv", "a"]).code(8);
    assert!(refused.stderr.contains(&format!("--trust {name}")), "{}", refused.stderr);
    assert_eq!(place.run(&["recv", "a", "--trust", &name]).ok().text(), "1\n");
    place.run(&["recv", "a", "--trust", "no such user"]).code(2);
    chown(place.dir().join("eshm_a"), Some(0), None).unwrap();
    place.sweep();
}

#[test]
fn whoever_removes_a_bus_of_another_user_trusts_that_user_or_is_root() {
    let place = Place::new();
    fs::set_permissions(place.dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let make = |name: &str| {
        place.feed(&["send", name, "--keep", "--mode", "666"], b"").ok();
        // Somebody who is neither root nor the nobody below.
        chown(place.dir().join(format!("eshm_{name}")), Some(1), None)
    };
    for name in ["a", "b", "c", "d"] {
        if make(name).is_err() {
            eprintln!("only root can give a file away: nothing was looked at");
            return place.sweep();
        }
    }
    let Some(refused) = as_nobody(&place, &["rm", "a"]) else { return place.sweep() };
    let said = refused.code(8).stderr;
    assert!(said.contains("who is not trusted here") && said.contains("--trust "), "{said}");
    let kept = as_nobody(&place, &["gc", "--older", "0s"]).unwrap().ok().text();
    assert!(kept.contains("keep a: it belongs to user 1 (--trust 1 removes it)"), "{kept}");
    assert_eq!(place.left(), ["eshm_a", "eshm_b", "eshm_c", "eshm_d"]);
    as_nobody(&place, &["rm", "a", "--trust", "1"]).unwrap().ok();
    place.run(&["rm", "b"]).ok();
    assert_eq!(place.left(), ["eshm_c", "eshm_d"]);
    fs::rename(place.dir().join("eshm_d"), place.dir().join("eshm_d~0123456789abcdef")).unwrap();
    let gone = as_nobody(&place, &["gc", "--trust", "1"]).unwrap().ok().text();
    assert_eq!(gone.lines().filter(|line| line.starts_with("removed ")).count(), 2, "{gone}");
    assert!(make("e").is_ok());
    let gone = place.run(&["gc"]).ok().text();
    assert!(gone.contains("removed e: "), "{gone}");
}

#[test]
fn a_file_is_sent_through_an_empty_file_that_this_user_cannot_remove() {
    let place = Place::new();
    place.feed(&["send", "a", "--keep"], b"1\n").ok();
    let bus = place.dir().join("eshm_a");
    if chown(&bus, Some(65_534), None).is_err() {
        eprintln!("only root can give a file away: nothing was looked at");
        return place.sweep();
    }
    fs::set_permissions(place.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let Some(emptied) = as_nobody(&place, &["rm", "a"]) else { return place.sweep() };
    emptied.code(8);
    let (from, to) = (place.file("from"), place.file("to"));
    fs::write(&from, vec![7; 300_000]).unwrap();
    // The ring that is there, and no journal beside it: this user may make no files here.
    let recv = ["recv", "a", "--trust", "65534", "--file", to.to_str().unwrap()];
    let recv = place.start(&recv);
    let mut send = place.command(&["send", "a", "--file", "-"]);
    send.uid(65_534).gid(65_534).stdin(fs::File::open(&from).unwrap());
    let said = Ran::of(send.output().unwrap()).ok().stderr;
    recv.end().ok();
    assert_eq!(fs::read(&to).unwrap(), vec![7; 300_000]);
    assert!(said.contains("if this sender is killed, the next cannot go on"), "{said}");
    assert_eq!(eshm::inspect_in(place.dir(), "a").unwrap().master_to_slave.frames, 8192);
    // Whoever may remove it makes a new one, with a long ring.
    chown(&bus, Some(0), None).unwrap();
    let send = place.start(&["send", "a", "--file", from.to_str().unwrap()]);
    place.until("a", |now| now.stats.master.state == PeerState::Alive);
    assert_eq!(eshm::inspect_in(place.dir(), "a").unwrap().master_to_slave.frames, 1 << 16);
    place.run(&["recv", "a", "--file", to.to_str().unwrap()]).ok();
    send.end().ok();
}

#[test]
fn a_file_is_sent_as_the_slave_of_a_master_that_comes_later() {
    let place = Place::new();
    let (from, to) = (place.file("from"), place.file("to"));
    fs::write(&from, vec![7; 300_000]).unwrap();
    let send = ["send", "a", "--role", "slave", "--file", from.to_str().unwrap()];
    let mut send = Running::bare(&mut place.command(&send));
    let mut said = BufReader::new(send.child.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("waiting for a master"));
    place.run(&["recv", "a", "--role", "master", "--file", to.to_str().unwrap()]).ok();
    send.end().ok();
    assert_eq!(fs::read(&to).unwrap(), vec![7; 300_000]);
}

/// The program as a user who is nobody here, if this process may become one.
fn as_nobody(place: &Place, args: &[&str]) -> Option<Ran> {
    let mut command = place.command(args);
    command.uid(65_534).gid(65_534);
    match command.output() {
        Ok(output) => Some(Ran::of(output)),
        Err(error) => {
            eprintln!("this program cannot be run as another user: {error}");
            None
        }
    }
}

#[test]
fn a_directory_without_entry_is_told_as_such() {
    let place = Place::new();
    let closed = place.dir().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    fs::set_permissions(place.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    let ran = as_nobody(&place, &["send", "y", "--dir", closed.to_str().unwrap()]);
    fs::remove_dir(closed).unwrap();
    let Some(ran) = ran else { return };
    let said = ran.code(8).stderr;
    assert!(said.contains("permission denied in its directory"), "{said}");
    assert!(said.contains("--dir") && !said.contains("somebody else"), "{said}");
}

#[test]
fn an_empty_file_that_stays_is_told_as_such() {
    let place = Place::new();
    place.feed(&["send", "a", "--keep"], b"1\n").ok();
    place.feed(&["send", "b", "--keep"], b"").ok();
    for name in ["eshm_a", "eshm_b"] {
        let file = place.dir().join(name);
        if chown(&file, Some(65_534), None).is_err() {
            return place.sweep();
        }
    }
    fs::set_permissions(place.dir(), fs::Permissions::from_mode(0o755)).unwrap();
    if let Some(ran) = as_nobody(&place, &["rm", "a", "--json"]) {
        let ran = ran.code(8);
        assert_eq!((&ran.json()["removed"], &ran.json()["emptied"]), (&false.into(), &true.into()));
        assert!(ran.stderr.contains("the empty file stays"), "{}", ran.stderr);
        assert!(place.run(&["ls"]).ok().text().contains("retired"));
        let gc = as_nobody(&place, &["gc"]).unwrap().code(1).text();
        assert!(
            gc.contains("emptied a: retired and empty") && gc.contains("emptied b: master left"),
            "{gc}"
        );
    }
    for name in ["eshm_a", "eshm_b"] {
        fs::remove_file(place.dir().join(name)).unwrap();
    }
}
