//! Help, completions, manual, usage errors: the words of the program.

mod support;

use support::Place;

const COMMANDS: [&str; 15] = [
    "demo",
    "ls",
    "stat",
    "top",
    "send",
    "recv",
    "tap",
    "ping",
    "echo",
    "bench",
    "rm",
    "gc",
    "doctor",
    "completions",
    "man",
];

#[test]
fn every_command_has_help_that_tells_what_it_does() {
    let place = Place::new();
    let all = place.run(&["--help"]).ok().text();
    assert!(all.contains("Exit codes: 0 done") && !all.contains("child"), "{all}");
    for command in COMMANDS {
        assert!(all.contains(&format!("\n  {command} ")), "{command} is not in\n{all}");
        let help = place.run(&[command, "--help"]).ok().text();
        assert!(help.lines().next().is_some_and(|line| line.len() > 10), "{help}");
    }
}

#[test]
fn completions_and_manual_pages_are_there() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run(&["completions", shell]).ok().text().contains("recv"), "{shell}");
    }
    assert!(place.run(&["man"]).ok().text().contains(".TH eshm 1"));
    let pages = place.file("pages");
    std::fs::create_dir(&pages).unwrap();
    place.run(&["man", pages.to_str().unwrap()]).ok();
    assert!(pages.join("eshm.1").exists() && pages.join("eshm-recv.1").exists());
}

#[test]
fn mistakes_are_usage_errors() {
    let place = Place::new();
    for args in [
        &["fly"][..],
        &[],
        &["send"],
        &["send", "a", "--rate", "fast"],
        &["send", "bad name"],
        &["recv", "a", "--mode", "999"],
    ] {
        let ran = place.run(args).code(2);
        assert!(!ran.stderr.is_empty(), "{args:?}");
    }
    assert!(place.run(&["send", "bad\x1b[2J"]).code(2).stderr.find('\x1b').is_none());
}

#[test]
fn a_remedy_names_the_directory_that_was_asked_for() {
    let place = Place::new();
    let (dir, missing) = (place.dir().display().to_string(), place.file("missing"));
    let missing = missing.to_str().unwrap();
    for (args, code) in [(&["send", "a", "--dir", missing][..], 9), (&["ls", "--dir", missing], 9)]
    {
        let told = place.run(args).code(code).stderr;
        assert!(told.contains(&format!("mkdir -p {missing}")), "{told}");
    }
    let told = place.run(&["doctor", "--dir", missing]).code(1).text();
    assert!(told.contains(&format!("mkdir -p {missing}")) && !told.contains("/dev/shm"), "{told}");
    let told = place.run(&["rm", "a"]).code(3).stderr;
    assert!(told.contains(&format!("a: there is no such bus in {dir}\n")), "{told}");
    assert!(told.contains(&format!("eshm --dir {dir} ls")), "{told}");
    let told = place.run(&["ls"]).ok().stderr;
    assert!(told.contains(&format!("eshm --dir {dir} send first")), "{told}");
}

#[test]
fn every_exit_code_is_documented() {
    let documented = include_str!("../../../docs/cli.md");
    for code in [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130, 141, 143] {
        assert!(documented.contains(&format!("| {code} |")), "{code}");
    }
}
