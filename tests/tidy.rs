//! The house rules, read from the source: who may import whom, who talks to the system, whether
//! every edge has both ends, and whether files and functions stay readable.
#![allow(missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Longest file and function that are still read with pleasure.
const FILE_LINES: usize = 700;
const FUNCTION_LINES: usize = 60;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "nothing under {folder}");
    found
}

/// The code of a file without its test module.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    match text.find("\n#[cfg(test)]\nmod tests {") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn is_test(path: &Path) -> bool {
    let name = short(path);
    name.contains("/tests") || name.ends_with("arena.rs") || name.ends_with("model.rs")
}

/// The room of a file: its first module below `src`.
fn room(path: &Path) -> String {
    let name = short(path);
    let rest = name.strip_prefix("src/").unwrap();
    rest.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
}

#[test]
fn imports_follow_the_layers() {
    let plain = ["config", "error", "schema", "stats"];
    let may: BTreeMap<&str, Vec<&str>> = BTreeMap::from([
        // The simulation stands in for both, in a build of its own.
        ("sync", vec!["sim"]),
        ("schema", vec!["error"]),
        ("config", vec!["error", "schema", "stats"]),
        ("error", vec!["config", "schema"]),
        ("stats", vec!["config", "error", "schema"]),
        ("layout", vec!["config", "error", "schema", "sync", "ring"]),
        ("ring", vec!["config", "error", "layout", "sync"]),
        ("peer", vec!["layout", "stats"]),
        ("sys", vec!["error", "sync", "sim"]),
        ("segment", [&plain[..], &["layout", "ring", "sync", "sys"]].concat()),
        ("session", [&plain[..], &["layout", "ring", "peer", "segment", "sync", "sys"]].concat()),
        ("pulse", [&plain[..], &["session", "sync", "sys"]].concat()),
        (
            "census",
            [&plain[..], &["layout", "peer", "ring", "segment", "session", "sync", "sys"]].concat(),
        ),
        ("tap", [&plain[..], &["ring", "segment", "session", "sync", "sys"]].concat()),
        (
            "bus",
            [
                &plain[..],
                &["layout", "ring", "segment", "session", "pulse", "census", "sync", "sys"],
            ]
            .concat(),
        ),
    ]);
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let room = room(&path);
        // The simulation is the world above the library, and the one beneath it.
        if ["lib", "sim"].contains(&room.as_str()) || is_test(&path) {
            continue;
        }
        let allowed = may.get(room.as_str()).unwrap_or_else(|| panic!("{room} has no layer"));
        for (number, line) in code(&path).lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with("//") {
                continue;
            }
            for import in line.split("crate::").skip(1) {
                let to: String =
                    import.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                // `crate::{a, b}` and the root's own names are spelled out where they are used.
                if !to.is_empty() && to != room && !allowed.contains(&to.as_str()) {
                    wrong.push(format!("{}:{}: imports {to}", short(&path), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_sys_talks_to_linux_and_only_sync_names_loom() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        if is_test(&path) {
            continue;
        }
        let room = room(&path);
        for (number, line) in code(&path).lines().enumerate() {
            let line = line.trim_start();
            if line.starts_with("//") {
                continue;
            }
            let calls = line.contains("libc::") && !line.contains("libc::E")
                || line.contains("nix::") && !line.contains("nix::sys::uio");
            // The simulation's `linux` is the rooms of `sys` once more, to be compared with.
            let is_sys = room == "sys" || short(&path) == "src/sim/linux.rs";
            if calls && !is_sys {
                wrong.push(format!("{}:{}: talks to the system", short(&path), number + 1));
            }
            if line.contains("loom") && room != "sync" && !line.contains("cfg") {
                wrong.push(format!("{}:{}: names loom", short(&path), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_edge_has_both_ends() {
    let ring = fs::read_to_string(root().join("src/ring.rs")).unwrap();
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for edge in ["TURN", "BEAT"] {
        edges.insert(edge.into(), BTreeSet::new());
    }
    for line in ring.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let edge = line.split(' ').next().unwrap();
        if edge.chars().all(|c| c.is_ascii_uppercase()) {
            edges.insert(edge.into(), BTreeSet::new());
        }
    }
    assert!(edges.len() >= 7, "the table of edges was not found");
    let releases = ["Release", "AcqRel", "fence", "light_barrier", "fetch_or", "publish"];
    let mut sites: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for path in rust_files("src").into_iter().filter(|path| !is_test(path)) {
        let text = code(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some(tags) = line.split("pairs ").nth(1) else { continue };
            let code = lines[number..(number + 8).min(lines.len())].join("\n");
            for edge in tags.split(':').next().unwrap().split(", ") {
                assert!(edges.contains_key(edge), "{}: unknown edge {edge}", short(&path));
                let [from, to] = sites.entry(edge.into()).or_default();
                *from += usize::from(releases.iter().any(|word| code.contains(word)));
                *to += usize::from(code.contains("load(") || code.contains("Acquire"));
            }
        }
    }
    for edge in edges.keys() {
        let [from, to] = sites.get(edge).copied().unwrap_or_default();
        assert!(from > 0 && to > 0, "edge {edge} has {from} releasing and {to} acquiring sites");
    }
}

#[test]
fn files_and_functions_are_readable() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let text = code(&path);
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES {
            wrong.push(format!("{}: {} lines", short(&path), lines.len()));
        }
        if !text.starts_with("//!") {
            wrong.push(format!("{}: no word on what it is", short(&path)));
        }
        let mut start = None;
        for (number, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let is_function = !line.trim_start().starts_with("//")
                && (line.contains(" fn ") || line.trim_start().starts_with("fn "))
                && line.ends_with('{');
            if is_function {
                start = Some((number, indent));
            }
            if let Some((from, at)) = start
                && indent == at
                && line.trim_start() == "}"
            {
                if number - from > FUNCTION_LINES && !is_test(&path) {
                    let length = number - from;
                    wrong.push(format!("{}:{}: {length} lines", short(&path), from + 1));
                }
                start = None;
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_over() {
    let mut wrong = Vec::new();
    let marks = ["dbg!", "todo!", "unimplemented!"].map(|mark| format!("{mark}("));
    let words =
        ["FIX", "XX"].map(|word| format!("{word}{}", if word == "FIX" { "ME" } else { "X" }));
    for folder in ["src", "tests", "benches", "examples"] {
        for path in rust_files(folder) {
            let text = fs::read_to_string(&path).unwrap();
            for mark in marks.iter().chain(&words) {
                if text.contains(mark.as_str()) {
                    wrong.push(format!("{}: {mark}", short(&path)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What cannot be made any more proves nothing: each place that a mistake is to be made in is there,
/// and so is each test that must find it.
#[test]
fn every_mistake_of_the_proofs_can_be_made() {
    for (tool, wish) in [("prove-harness", "--check"), ("mutate-orderings", "--list")] {
        let tool = root().join("tools").join(tool);
        if !tool.exists() {
            continue; // a package without its tools
        }
        let Ok(ran) = Command::new("python3").arg(&tool).arg(wish).output() else {
            return eprintln!("skipped: there is no python3");
        };
        let told = [ran.stdout, ran.stderr].concat();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&told));
    }
}

#[test]
fn no_file_is_an_orphan() {
    let files = rust_files("src");
    let all: String = files.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    for path in &files {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let is_known = stem == "lib" || all.contains(&format!("mod {stem};"));
        assert!(is_known, "{} is in no module", short(path));
    }
}
