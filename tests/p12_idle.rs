//! Promise 12: idle is nearly free. One background thread per process, however many endpoints it
//! holds; it ends with the last.
#![allow(missing_docs)]

mod support;

use eshm::Endpoint;
use support::*;

children! { "counter" => counter, "idler" => idler }

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Opens and closes endpoints, and counts its own threads.
fn counter(talk: &mut Talk) {
    assert_eq!(threads(), 1);
    let open = |number: usize, role| {
        let name = format!("{}.{number}", talk.words[0]);
        servant::options(&name, &[role]).open().unwrap()
    };
    let by_hand = servant::options(talk.word(0), &["role=master", "background=0"]).open().unwrap();
    assert_eq!(threads(), 1, "without the background thread there is none");
    for _ in 0..3 {
        let mut all: Vec<Endpoint> = Vec::new();
        for number in 0..20 {
            all.push(open(number, "role=master"));
            all.push(open(number, "role=slave"));
            assert_eq!(threads(), 2, "{number}");
        }
        for bus in &all {
            assert!(bus.wait_for_peer(PATIENCE).is_ok());
        }
        all.truncate(1);
        assert_eq!(threads(), 2);
        drop(all);
        until("the thread ends", || threads() == 1);
    }
    drop(by_hand);
    talk.say("done");
}

#[test]
fn one_thread_for_all_endpoints_and_none_without() {
    let bus = Bus::new("p12count");
    let mut child = Child::spawn("counter", bus.name());
    child.expect("done");
    child.finish();
    assert_eq!(
        std::fs::read_dir("/dev/shm")
            .unwrap()
            .filter(|entry| {
                entry.as_ref().unwrap().file_name().to_string_lossy().contains(bus.name())
            })
            .count(),
        0
    );
}

/// Holds endpoints, and does nothing with them.
fn idler(talk: &mut Talk) {
    let all: Vec<Endpoint> = (0..10)
        .flat_map(|number| {
            let name = format!("{}.{number}", talk.words[0]);
            ["role=master", "role=slave"]
                .map(|role| servant::options(&name, &[role]).open().unwrap())
        })
        .collect();
    for bus in &all {
        bus.wait_for_peer(PATIENCE).unwrap();
    }
    talk.say("ready");
    talk.hear();
    let beats: Vec<u64> = all.iter().map(|bus| bus.peer().beats).collect();
    talk.say(servant::joined(beats));
    for bus in all {
        bus.leave().unwrap();
    }
}

/// Twenty endpoints share one beat: the thread wakes up about as often as a single one would make
/// it, and its time is a fraction of what passes.
#[test]
fn the_thread_wakes_once_per_beat_for_all() {
    let bus = Bus::new("p12idle");
    let mut child = Child::spawn("idler", bus.name());
    child.expect("ready");
    let thread = std::fs::read_dir(format!("/proc/{}/task", child.pid()))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).unwrap().starts_with("eshm"))
        .expect("the background thread has a name");
    let sleeps = || -> u64 {
        let status = std::fs::read_to_string(thread.join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("voluntary")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let started = std::time::Instant::now();
    let before = sleeps();
    until("it has slept two hundred times", || sleeps() > before + 200);
    let (slept, passed) = (sleeps() - before, started.elapsed().as_millis() as u64);
    assert!(slept < 2 * passed + 20, "{slept} times in {passed} ms");
    let beats = child.ask("beats");
    assert!(beats.split(' ').all(|beats| beats.parse::<u64>().unwrap() > 20), "{beats}");
    child.finish();
    drop(bus);
}
