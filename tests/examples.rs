//! The examples are short, and do what they say.
#![allow(missing_docs)]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Where cargo put an example: beside the tests.
fn example(name: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    let path = path.join("examples").join(name);
    assert!(path.exists(), "{} is not built", path.display());
    path
}

fn output(name: &str) -> String {
    said(name, Command::new(example(name)).output().unwrap())
}

fn said(name: &str, output: Output) -> String {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {out}{err}");
    out.into_owned()
}

#[test]
fn the_first_pair_talks() {
    let name = format!("example-{}", std::process::id());
    let slave = Command::new(example("first_slave"))
        .arg(&name)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let master = Command::new(example("first_master")).arg(&name).output().unwrap();
    assert!(said("first_master", master).contains("the slave says: 5 readings arrived"));
    let slave = said("first_slave", slave.wait_with_output().unwrap());
    assert_eq!(slave, "reading 1\nreading 2\nreading 3\nreading 4\nreading 5\n");
}

#[test]
fn telemetry_arrives_whole() {
    assert!(output("telemetry").starts_with("1000000 samples"));
}

#[test]
fn an_image_is_seen_where_it_lies() {
    assert_eq!(output("zero_copy"), "image 1:0 of 65536 bytes, brightest pixel 250\n");
}

#[test]
fn a_restarted_sender_goes_on() {
    let text = output("restart");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 12, "{text}");
    for (number, line) in lines.iter().enumerate() {
        let epoch = number / 3 + 1;
        assert_eq!(*line, format!("message {epoch}:{number}: step {number}"));
    }
}

#[test]
fn latency_is_told_by_percentiles() {
    assert_eq!(output("latency").lines().count(), 5);
}

#[test]
fn none_is_longer_than_forty_lines() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 40, "{}: {lines} lines", path.display());
    }
}
