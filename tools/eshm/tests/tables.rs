//! `ls`, `stat`, `rm`, `gc`, `doctor`: what they print, and what they leave alone.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;

use eshm::{Geometry, Overflow, PeerState, Role};
use nix::sys::signal::Signal;
use serde_json::json;
use support::{Place, Running, same};

#[test]
fn a_watch_counts_on_for_how_long_a_process_hangs() {
    let place = Place::new();
    let (send, _stdin) = place.start_fed(&["send", "a"]);
    place.until("a", |now| now.stats.master.state == PeerState::Alive);
    send.signal(Signal::SIGSTOP);
    let mut watch = Running::bare(&mut place.command(&["stat", "a", "master.silent_ms", "-w10ms"]));
    let said = BufReader::new(watch.child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let silent = said.filter_map(|line| line.parse::<u64>().ok());
    let silent: Vec<u64> = silent.take(8).collect();
    // One look sees no more than the threshold, and takes as long.
    assert!(silent.is_sorted() && silent[7] >= 500, "{silent:?}");
    watch.kill();
    send.kill();
    place.run(&["gc"]).ok();
}

#[test]
fn ls_shows_what_is_there_in_columns() {
    let place = Place::new();
    assert_eq!(place.run(&["ls"]).ok().text(), "");
    let mut telemetry = place.bus("telemetry");
    let wide = Geometry { frame_size: 128, frames: 1024, overflow: Overflow::Overwrite };
    telemetry.role(Role::Master).direction(eshm::Direction::SlaveToMaster, wide);
    let mut master = telemetry.open().unwrap();
    let _slave = place.bus("telemetry").role(Role::Slave).open().unwrap();
    let _other = place.bus("a/b").role(Role::Master).frames(64).open().unwrap();
    for number in 0..1200u32 {
        master.write(&number.to_le_bytes()).unwrap();
    }
    same(
        &place.run(&["ls"]).ok().text(),
        "\
NAME           SIZE  FRAMES                        MASTER       SLAVE           UNREAD  AGE
a/b        24.0 KiB  64 x 64 B                     PPPPP alive  -                    0  0 s
telemetry   656 KiB  8,192 x 64 B / 1,024 x 128 B  PPPPP alive  PPPPP alive  1,200 m>s  0 s  overwrites",
    );
    drop((master, _slave));
    place.sweep();
}

#[test]
fn ls_tells_dead_and_hung_owners() {
    let place = Place::new();
    let pid = place.orphan("gone");
    let (send, _stdin) = place.start_fed(&["send", "stopped"]);
    place.until("stopped", |now| now.stats.master.state == PeerState::Alive);
    send.signal(Signal::SIGSTOP);
    place.until("stopped", |now| matches!(now.stats.master.state, PeerState::Hung(_)));
    let text = place.run(&["ls"]).ok().text();
    assert!(text.contains(&format!("{pid} dead")), "{text}");
    assert!(text.contains(&format!("{} hung", send.child.id())), "{text}");
    let all = place.run(&["ls", "--json"]).ok().json();
    assert_eq!(all[0]["name"], "gone");
    assert_eq!(all[0]["master"]["state"], "dead");
    assert_eq!(all[0]["master_to_slave"]["backlog"], 3);
    assert_eq!(all[1]["master"]["state"], "hung");
    assert!(all[1]["master"]["silent_ms"].as_u64().unwrap() >= 100);
    let hung = place.run(&["stat", "stopped"]).ok().text();
    assert!(hung.contains("hung for at least"), "{hung}");
    send.kill();
    place.sweep();
}

#[test]
fn what_is_foreign_is_named_and_left_alone() {
    let place = Place::new();
    let at = |name: &str| place.dir().join(name);
    fs::write(at("eshm_text"), "not a segment, but a longer text than nothing").unwrap();
    fs::write(at("eshm_empty"), "").unwrap();
    fs::write(at("eshm_\u{1b}[2Jnasty"), vec![0x7f; 8192]).unwrap();
    fs::create_dir(at("eshm_folder")).unwrap();
    symlink("/etc/passwd", at("eshm_link")).unwrap();
    // The header of the older library: its magic, then zeros.
    let mut old = vec![0; 16384];
    old[..4].copy_from_slice(&0x4553_484Du32.to_le_bytes());
    fs::write(at("eshm_old"), &old).unwrap();
    // One of ours with a byte turned in its header.
    drop(place.bus("broken").role(Role::Master).cleanup(eshm::Cleanup::Never).open().unwrap());
    let mut broken = fs::read(at("eshm_broken")).unwrap();
    broken[8] ^= 0xff;
    fs::write(at("eshm_broken"), &broken).unwrap();
    let before = place.left();
    let text = place.run(&["ls"]).ok().text();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    for name in ["text", "empty", "folder", "link", "old", "broken", "\\x1b[2Jnasty"] {
        let line = text
            .lines()
            .find(|line| line.contains(&format!("eshm_{name}")))
            .unwrap_or_else(|| panic!("{name}:\n{text}"));
        assert!(line.starts_with("foreign") || line.starts_with("unusable"), "{line}");
        assert!(line.len() > line.find(": ").unwrap() + 10, "it says why: {line}");
    }
    for entry in place.run(&["ls", "--json"]).ok().json().as_array().unwrap() {
        assert!(matches!(entry["kind"].as_str(), Some("foreign" | "unreadable")), "{entry}");
    }
    let kept = place.run(&["gc", "--older", "0s"]).ok().text();
    assert!(kept.lines().all(|line| line.starts_with("keep ")), "{kept}");
    for name in ["text", "empty", "folder", "link", "old", "broken"] {
        for command in [
            &["rm", name][..],
            &["stat", name],
            &["recv", name, "--timeout", "10ms"],
            &["tap", name],
            &["rm", "--force", name],
        ] {
            let ran = place.run(command);
            assert!(matches!(ran.code, 8 | 9), "{command:?} gives {} {}", ran.code, ran.stderr);
        }
    }
    assert_eq!(place.left(), before);
    for name in before {
        let _ = fs::remove_file(at(&name)).or_else(|_| fs::remove_dir(at(&name)));
    }
}

#[test]
fn stat_tells_all_and_single_fields() {
    let place = Place::new();
    let mut master = place.bus("a").role(Role::Master).open().unwrap();
    let mut slave = place.bus("a").role(Role::Slave).open().unwrap();
    (0..10).for_each(|_| master.write(&[7; 100]).unwrap());
    let mut buffer = [0; 128];
    (0..4).for_each(|_| assert_eq!(slave.read(&mut buffer), Ok(100)));
    let text = place.run(&["stat", "a"]).ok().text();
    for part in [
        "master > slave",
        "10 messages, 1000 B",
        "4 messages",
        "6 messages, 0.1 % of the ring",
        "alive, epoch 1",
        "every 1.0 ms, hung after 100 ms",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    for (field, value) in [
        ("master_to_slave.backlog", "6"),
        ("master_to_slave.frames", "8192"),
        ("slave.state", "alive"),
        ("state", "live"),
        ("mode", "0600"),
        ("master.silent_ms", ""),
    ] {
        assert_eq!(place.run(&["stat", "a", field]).ok().text(), format!("{value}\n"), "{field}");
    }
    let wrong = place.run(&["stat", "a", "colour"]).code(2);
    assert!(wrong.stderr.contains("slave_to_master.written"), "{}", wrong.stderr);
    assert_eq!(place.run(&["stat", "b"]).code(3).text(), "");
    drop((master, slave));
    place.sweep();
}

#[test]
fn the_json_of_a_segment_has_exactly_the_documented_fields() {
    let place = Place::new();
    let _master = place.bus("a").role(Role::Master).open().unwrap();
    let segment = place.run(&["stat", "a", "--json"]).ok().json();
    let documented = include_str!("../../../docs/cli.md");
    let check = |value: &serde_json::Value| {
        for name in value.as_object().unwrap().keys() {
            assert!(documented.contains(&format!("`{name}`")), "{name} is not documented");
        }
    };
    check(&segment);
    check(&segment["master"]);
    check(&segment["master_to_slave"]);
    assert_eq!(
        segment["slave"],
        json!({ "state": "absent", "pid": 0, "foreign_pid": false, "epoch": 0, "beats": 0, "progress": 0, "silent_ms": null })
    );
}

#[test]
fn rm_takes_nothing_away_from_a_living_process_unless_forced() {
    let place = Place::new();
    let master = place.bus("a").role(Role::Master).open().unwrap();
    let held = place.run(&["rm", "a", "nothing"]).code(5);
    assert!(held.stderr.contains("--force") && held.stderr.contains("a:"), "{}", held.stderr);
    assert!(place.left().contains(&"eshm_a".to_string()));
    assert_eq!(place.run(&["rm", "a", "--json"]).code(5).json()["removed"], false);
    place.run(&["rm", "a", "--force"]).ok();
    drop(master);
    place.orphan("b");
    assert_eq!(place.run(&["rm", "b", "--json"]).ok().json()["removed"], true);
    place.run(&["rm", "b"]).code(3);
}

#[test]
fn doctor_gives_findings_with_remedies() {
    let place = Place::new();
    let ran = place.run(&["doctor", "--json"]);
    assert!(matches!(ran.code, 0 | 1), "{}", ran.stderr);
    let findings = ran.json();
    let checks: Vec<&str> = findings
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["check"].as_str().unwrap())
        .collect();
    for check in [
        "shm kind",
        "shm mode",
        "shm space",
        "fence",
        "RemoveIPC",
        "membarrier",
        "clock",
        "cores",
        "memlock",
        "leftovers",
    ] {
        assert!(checks.contains(&check), "{check} is not in {checks:?}");
    }
    place.orphan("a");
    let text = place.run(&["doctor"]).text();
    assert!(text.contains("1 of them held by nobody, with unread"), "{text}");
    assert!(text.contains("second slot of a, the largest bus"), "{text}");
    place.sweep();
}
