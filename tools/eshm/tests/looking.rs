//! `tap`, `ping`, `echo`, `bench`: looking on and measuring.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use eshm::Role;
use nix::sys::signal::Signal;
use support::{Place, Running};

#[test]
fn a_tap_shows_and_takes_nothing() {
    let place = Place::new();
    let mut master = place.bus("a").role(Role::Master).open().unwrap();
    let mut slave = place.bus("a").role(Role::Slave).open().unwrap();
    for message in [&b"alpha"[..], b"beta \x1b[31m", b"gamma", b"\xff\x00"] {
        master.write(message).unwrap();
    }
    slave.write(b"answer").unwrap();
    let before = eshm::inspect_in(place.dir(), "a").unwrap().stats;
    let tap = |more: &[&str]| {
        let args = [&["tap", "a", "--unread", "--timeout", "50ms"], more].concat();
        place.run(&args).text()
    };
    let all = tap(&[]);
    assert_eq!(all.lines().count(), 5, "{all}");
    assert!(all.contains("beta \\x1b[31m") && !all.contains('\x1b'), "{all:?}");
    assert!(all.contains("s>m") && all.contains("answer"), "{all}");
    let hex = tap(&["--from", "master", "--format", "hex", "-n", "1"]);
    assert!(hex.contains("00000000  61 6c 70 68 61 ") && hex.contains("|alpha|"), "{hex}");
    let json: Vec<serde_json::Value> = tap(&["--json", "--from", "master"])
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (json[0]["text"].as_str(), json[0]["number"].as_u64(), json[0]["direction"].as_str()),
        (Some("alpha"), Some(0), Some("master->slave"))
    );
    assert_eq!((json[3]["hex"].as_str(), json[3]["len"].as_u64()), (Some("ff00"), Some(2)));
    assert_eq!(tap(&["--match", "^(alpha|gamma)$"]).lines().count(), 2);
    assert_eq!(tap(&["--from", "master", "--min-len", "5", "--max-len", "5"]).lines().count(), 2);
    assert_eq!(tap(&["--from", "master", "--every", "2"]).lines().count(), 2);
    assert!(tap(&["--cut", "2", "-n", "1"]).contains("al…"));
    let after = eshm::inspect_in(place.dir(), "a").unwrap().stats;
    assert_eq!(before.master_to_slave, after.master_to_slave);
    assert_eq!(before.slave_to_master, after.slave_to_master);
    place.run(&["tap", "b"]).code(3);
    place.run(&["tap", "a", "--match", "("]).code(2);
    drop((master, slave));
    place.sweep();
}

#[test]
fn a_tap_that_waits_for_what_does_not_come_ends_in_time_on_a_busy_bus() {
    let place = Place::new();
    let mut master = place.bus("a").role(Role::Master).open().unwrap();
    let mut slave = place.bus("a").role(Role::Slave).open().unwrap();
    let tap =
        place.start(&["tap", "a", "--from", "master", "--match", "nothing", "--timeout", "50ms"]);
    let mut buffer = [0; 64];
    while !place.has_ended(&tap) {
        master.write(b"tick").unwrap();
        slave.read(&mut buffer).unwrap();
    }
    let ended = tap.end().code(4);
    assert!(ended.stderr.contains("no message came that is to be shown"), "{}", ended.stderr);
}

#[test]
fn a_tap_ends_when_both_sides_have_left_and_quietly_on_a_closed_pipe() {
    let place = Place::new();
    let mut master = place.bus("a").role(Role::Master).open().unwrap();
    let tap = place.start(&["tap", "a", "--from", "master"]);
    let mut closed = Running::bare(&mut place.command(&["tap", "a", "--from", "master"]));
    drop(closed.child.stdout.take());
    let mut slave = place.bus("a").role(Role::Slave).open().unwrap();
    let mut buffer = [0; 64];
    // Until the one has noticed its closed pipe, and the other has written something.
    let has_written = |pid| {
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
        !io.contains("wchar: 0\n")
    };
    while closed.child.try_wait().unwrap().is_none() || !has_written(tap.pid()) {
        master.write(b"tick").unwrap();
        slave.read(&mut buffer).unwrap();
    }
    let closed = closed.end().code(141);
    assert!(closed.stderr.lines().all(|line| line.contains("too fast")), "{}", closed.stderr);
    drop((master, slave));
    assert!(tap.end().ok().text().contains("tick"));
}

#[test]
fn a_tap_of_what_was_left_unread_shows_it_and_ends() {
    let place = Place::new();
    place.feed(&["send", "a", "--keep"], b"1\n2\n").ok();
    let text = place.run(&["tap", "a", "--unread"]).ok().text();
    assert_eq!(text.lines().count(), 2, "{text}");
    for (args, code) in [(&["tap", "a"][..], 0), (&["tap", "a", "--timeout", "1ms"], 4)] {
        let without = place.run(args).code(code);
        let hint = "to see what waits unread, 2 messages: --unread";
        assert!(without.stdout.is_empty() && without.stderr.contains(hint), "{}", without.stderr);
    }
    assert_eq!(eshm::inspect_in(place.dir(), "a").unwrap().unread, [2, 0]);
    place.sweep();
}

#[test]
fn ping_measures_round_trips_to_echo() {
    let place = Place::new();
    let mut echo = Running::bare(&mut place.command(&["echo", "a", "--once", "--json"]));
    let mut said = BufReader::new(echo.child.stderr.take().unwrap()).lines();
    assert!(said.next().unwrap().unwrap().contains("eshm ping a"));
    let file = place.file("hist");
    let ping = place
        .run(&[
            "ping",
            "a",
            "-n",
            "2000",
            "--size",
            "100",
            "--json",
            "--hgrm",
            file.to_str().unwrap(),
        ])
        .ok();
    let trip = &ping.json()["round_trip"];
    assert_eq!(trip["count"], 2000);
    assert!(
        trip["min_ns"].as_u64() <= trip["p50_ns"].as_u64()
            && trip["p50_ns"].as_u64() <= trip["max_ns"].as_u64()
    );
    assert!(fs::read_to_string(file).unwrap().contains("#[Max"));
    echo.end().ok();
    let echo = place.start(&["echo", "b"]);
    let text = place.run(&["ping", "b", "-n", "100"]).ok().text();
    assert!(text.contains("100 round trips") && text.contains("p99.9"), "{text}");
    echo.signal(Signal::SIGINT);
    echo.end().code(130);
}

#[test]
fn ping_without_echo_says_how_to_start_one() {
    let place = Place::new();
    let alone = place.run(&["ping", "a", "--timeout", "10ms"]);
    assert_eq!(alone.code, 3, "{}", alone.stderr);
    let _silent = place.bus("a").role(Role::Master).open().unwrap();
    let silent = place.run(&["ping", "a", "--timeout", "50ms"]).code(4);
    assert!(silent.stderr.contains("eshm echo a"), "{}", silent.stderr);
    drop(_silent);
    place.sweep();
}

#[test]
fn bench_measures_all_ways_and_reports() {
    let place = Place::new();
    let (page, prefix) = (place.file("page.html"), place.file("hist"));
    let ran = place.run(&[
        "bench",
        "--time",
        "30ms",
        "--sizes",
        "48,64K",
        "--json",
        "--report",
        page.to_str().unwrap(),
        "--hgrm",
        prefix.to_str().unwrap(),
    ]);
    let results = ran.ok().json();
    let names = |list: &serde_json::Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|one| one["transport"].as_str().unwrap().to_string())
            .collect()
    };
    assert_eq!(
        names(&results["latency"]),
        ["eshm", "eshm adaptive", "eshm asleep", "Unix socket", "pipe", "bare cache line"]
    );
    assert_eq!(
        names(&results["throughput"])[..5],
        ["eshm", "eshm batch", "Unix socket", "pipe", "two bare copies"]
    );
    for one in results["throughput"].as_array().unwrap() {
        assert!(one["messages_per_s"].as_f64().unwrap() > 0.0, "{one}");
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(
        page.contains("</html>") && page.matches("class=\"curve ").count() == 12,
        "six curves, twice"
    );
    assert_eq!(page.matches("class=\"bar ").count(), 20);
    assert!(place.file("hist-Unix-socket.hgrm").exists() && place.file("hist-eshm.hgrm").exists());
    place.run(&["bench", "--sizes", "1"]).code(2);
    place.run(&["bench", "--cpus", "0,99999"]).code(2);
}

#[test]
fn an_interrupted_bench_leaves_nothing() {
    let place = Place::new();
    let bench = place.start(&["bench", "--time", "60s"]);
    let name = format!("bench-{}", bench.child.id());
    place.until(&name, |now| now.stats.master_to_slave.read > 100);
    bench.signal(Signal::SIGINT);
    bench.end().code(130);
    assert!(place.left().is_empty(), "{:?}", place.left());
}

/// Where a browser is installed, the report is opened in it: it must lay out and paint the page.
#[test]
fn the_report_opens_in_a_browser() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| is_installed(name))
    else {
        eprintln!("no Chromium here: the report was not opened");
        return;
    };
    let place = Place::new();
    let (page, picture, profile) =
        (place.file("page.html"), place.file("page.png"), place.file("profile"));
    place
        .run(&["bench", "--time", "10ms", "--sizes", "48", "--report", page.to_str().unwrap()])
        .ok();
    let flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--window-size=1120,2260",
    ];
    let ran = Command::new(browser)
        .args(flags)
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--screenshot={}", picture.display()))
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let picture =
        fs::read(&picture).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&ran.stderr)));
    assert!(picture.starts_with(b"\x89PNG"));
    // An empty page of this size is a tenth of that.
    assert!(picture.len() > 60_000, "{} bytes", picture.len());
}

fn is_installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
