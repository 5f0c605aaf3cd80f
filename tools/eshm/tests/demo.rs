//! `demo`: the ledger is clean, and nothing stays behind.

mod support;

use std::io::{BufRead, BufReader};

use nix::sys::signal::Signal;
use support::{Place, Running, until};

#[test]
fn the_ledger_is_clean_in_json() {
    let place = Place::new();
    let ledger = place.run(&["demo", "--time", "2s", "--rate", "20k", "--json"]).ok().json();
    assert_eq!(ledger["clean"], true, "{ledger}");
    assert!(ledger["sent"].as_u64().unwrap() > 0);
    assert_eq!(ledger["sent"], ledger["received"]);
    for fault in ["lost", "doubled", "torn"] {
        assert_eq!(ledger[fault], 0, "{ledger}");
    }
    for fault in ["killed", "frozen"] {
        assert!(ledger[fault]["notice_ns"].as_u64().unwrap() > 0, "{ledger}");
        assert!(
            ledger[fault]["resume_ns"].as_u64() > ledger[fault]["notice_ns"].as_u64(),
            "{ledger}"
        );
    }
    assert_eq!(ledger["fenced"], true);
    let documented = include_str!("../../../docs/cli.md");
    for name in ledger.as_object().unwrap().keys() {
        assert!(documented.contains(&format!("`{name}`")), "{name} is not documented");
    }
}

#[test]
fn without_a_terminal_it_prints_plain_lines() {
    let place = Place::new();
    let text = place.run(&["demo", "--time", "2s", "--rate", "20k"]).ok().text();
    assert!(!text.contains('\x1b') && !text.contains('\r'), "{text:?}");
    for part in [
        "SIGKILL",
        "SIGSTOP",
        "SIGCONT",
        "The ledger",
        "lost                 0",
        "Nothing lost, nothing doubled, nothing torn",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn ctrl_c_in_the_middle_leaves_nothing() {
    for (part, signal) in [("a master and a slave", Signal::SIGINT), ("SIGSTOP", Signal::SIGTERM)] {
        let place = Place::new();
        let mut demo = Running::bare(&mut place.command(&["demo", "--time", "4s", "--name", "d"]));
        let lines = BufReader::new(demo.child.stdout.take().unwrap()).lines();
        let mut lines = lines.map_while(Result::ok);
        assert!(lines.any(|line| line.contains(part)), "{part}");
        let children = children_of(demo.child.id());
        assert!(!children.is_empty());
        demo.signal(signal);
        lines.for_each(drop);
        demo.end().code(128 + signal as i32);
        assert!(place.left().is_empty());
        until("the children to end", || children.iter().all(|&pid| !alive(pid)));
    }
}

#[test]
fn its_processes_end_with_it_even_when_it_is_killed() {
    let place = Place::new();
    let mut demo = Running::bare(&mut place.command(&["demo", "--time", "60s"]));
    let lines = BufReader::new(demo.child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("a master and a slave")));
    let children = children_of(demo.child.id());
    assert_eq!(children.len(), 2);
    demo.kill();
    until("the children to end", || children.iter().all(|&pid| !alive(pid)));
    until("the segment to go", || place.left().is_empty());
}

fn children_of(pid: u32) -> Vec<u32> {
    let list =
        std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Whether the process still runs; one that nobody has waited for yet does not.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
