//! The headers as a specification: every size, offset and number, every symbol, every name.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use support::{Build, PACKAGE, compile, compiler, expect_success, libraries, own_folder, run};

fn header(name: &str) -> String {
    let path = Path::new(PACKAGE).join("include").join(name);
    let text = std::fs::read_to_string(path).expect("the header is there");
    // Without comments.
    let mut bare = String::new();
    for part in text.split("/*") {
        bare.push_str(part.split_once("*/").map_or(part, |(_, behind)| behind));
    }
    bare
}

/// The words of a text that begin like this.
fn words<'a>(text: &'a str, beginning: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
        .filter(move |word| word.starts_with(beginning))
}

/// The functions that the header declares and does not define.
fn declared() -> BTreeSet<String> {
    let text = header("eshm.h");
    let calls = text.match_indices("eshm_").filter_map(|(at, _)| {
        let (name, behind) = text[at..].split_once('(')?;
        let is_declared = behind[behind.find(')')?..].starts_with(");");
        (is_declared && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'))
            .then(|| name.to_string())
    });
    calls.collect()
}

/// Those that the library has: what the header defines for its readers is there for others too.
fn functions() -> BTreeSet<String> {
    let mut all = declared();
    assert!(all.insert("eshm_default_config".into()), "the header defines it");
    all
}

#[test]
fn exported_symbols_are_those_of_the_header() {
    let mut nm = Command::new("nm");
    nm.args(["--dynamic", "--defined-only", "--format=posix"]).arg(&libraries().shared);
    let Ok(output) = nm.output() else {
        return support::say_missing("there is no nm");
    };
    expect_success(&output, "nm");
    let symbols = String::from_utf8(output.stdout).expect("names of symbols");
    let exported: BTreeSet<String> =
        symbols.lines().filter_map(|line| Some(line.split(' ').next()?.to_string())).collect();
    assert_eq!(exported, functions());
    assert!(exported.contains("eshm_init"));
}

/// What is left of it after the last `dlclose` would be called into: a thread, a handler.
#[test]
fn the_library_stays_loaded() {
    let Ok(output) = Command::new("readelf").arg("-d").arg(&libraries().shared).output() else {
        return support::say_missing("there is no readelf");
    };
    expect_success(&output, "readelf");
    assert!(String::from_utf8_lossy(&output.stdout).contains("NODELETE"));
}

#[test]
fn the_name_of_the_library_is_that_of_eshm() {
    let Ok(output) = Command::new("readelf").arg("-d").arg(&libraries().shared).output() else {
        return support::say_missing("there is no readelf");
    };
    expect_success(&output, "readelf");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let name = text.lines().find(|line| line.contains("SONAME")).expect("it has a name");
    assert!(name.ends_with("[libeshm.so.1]"), "{name}");
}

#[test]
fn every_size_offset_and_number() {
    let expected = include_str!("layout.txt");
    for standard in ["c99", "c11", "c++11", "c++17"] {
        let Some(program) = compile("table.c", Build::shared(standard)) else { continue };
        assert_eq!(run::<&str>(&program, &[]), expected, "{standard}");
    }
}

#[test]
fn nothing_of_the_headers_is_missing_in_the_table() {
    let (data, config) = (header("eshm_data.h"), header("eshm_config.h"));
    let listed: BTreeSet<&str> = include_str!("layout.txt")
        .lines()
        .filter_map(|line| line.split([' ', '.']).next())
        .collect();
    let guards = ["ESHM_DATA_H", "ESHM_CONFIG_H", "ESHM_ONLY_1_0"];
    for word in words(&data, "ESHM").chain(words(&config, "ESHM")) {
        assert!(listed.contains(word) || guards.contains(&word), "{word} is not in the table");
    }
    let fields = include_str!("layout.txt").lines().filter(|line| line.contains('.')).count();
    let declared: usize = data
        .split("typedef struct")
        .skip(1)
        .map(|text| text.split('}').next().unwrap_or_default().matches(';').count())
        .sum();
    assert_eq!(fields, declared);
}

#[test]
fn what_programs_of_the_time_were_compiled_with() {
    // Written down apart from the table, from what is known of ESHM 1.0.
    let table = include_str!("layout.txt");
    for line in [
        "ESHMConfig 40",
        "ESHMConfig.shm_name 0 8",
        "ESHMConfig.role 8 4",
        "ESHMConfig.disconnect_behavior 12 4",
        "ESHMConfig.max_reconnect_attempts 28 4",
        "ESHMConfig.auto_cleanup 32 1",
        "ESHMConfig.use_threads 33 1",
        "ESHMStats 80",
        "ESHMStats.master_pid 16 4",
        "ESHMStats.slave_alive 25 1",
        "ESHMStats.stale_threshold 28 4",
        "ESHMStats.s2m_read_count 72 8",
        "ESHM_ROLE_AUTO 2",
        "ESHM_DISCONNECT_NEVER 2",
        "ESHM_SUCCESS 0",
        "ESHM_ERROR_NO_DATA -9",
        "ESHM_ERROR_TIMEOUT -10",
        "ESHM_ERROR_MASTER_STALE -11",
        "ESHM_ERROR_BUFFER_FULL -12",
        "ESHM_ERROR_BUFFER_TOO_SMALL -13",
        "ESHM_ERROR_ROLE_MISMATCH -15",
        "ESHM_MAX_DATA_SIZE 4096",
        "ESHM_HEARTBEAT_INTERVAL_MS 1",
    ] {
        assert!(table.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn each_header_stands_alone() {
    let names = ["eshm.h", "eshm_data.h", "eshm_config.h", "eshm.hpp"];
    for (name, standard) in names
        .iter()
        .flat_map(|name| ["c99", "c11", "c++11", "c++17", "c++20"].map(|standard| (name, standard)))
    {
        let is_cpp = standard.contains("++");
        let too_old = name.ends_with("hpp") && !["c++17", "c++20"].contains(&standard);
        let Some(compiler) = compiler(is_cpp).filter(|_| !too_old) else { continue };
        let source = own_folder().join(format!("alone-{}.c", support::unique()));
        // Twice, and with nothing before it.
        let text = format!("#include \"{name}\"\n#include \"{name}\"\nint main(void);\n");
        std::fs::write(&source, text).expect("a source file");
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-pedantic"]);
        command.arg(format!("-std={standard}")).args(["-fsyntax-only", "-x"]);
        command.arg(if is_cpp { "c++" } else { "c" }).arg(&source);
        command.arg("-I").arg(Path::new(PACKAGE).join("include"));
        expect_success(&command.output().expect("the compiler runs"), name);
    }
}

#[test]
fn an_old_program_sees_nothing_new() {
    let Some(compiler) = compiler(false) else { return };
    let source = own_folder().join("old-view.c");
    std::fs::write(&source, "#define ESHM_ONLY_1_0\n#include \"eshm.h\"\n").expect("a source file");
    let mut command = Command::new(compiler);
    command.args(["-E", "-P"]).arg(&source).arg("-I").arg(Path::new(PACKAGE).join("include"));
    let output = command.output().expect("the compiler runs");
    expect_success(&output, "the preprocessor");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let seen: BTreeSet<&str> = words(&text, "eshm_").chain(words(&text, "ESHM")).collect();
    for word in seen {
        let is_old = word.starts_with("ESHM_")
            || ["ESHMConfig", "ESHMStats", "ESHMHandle", "ESHMRole", "ESHMError"].contains(&word)
            || word == "ESHMDisconnectBehavior"
            || include_str!("c/old/eshm.h").contains(&format!("{word}("));
        assert!(is_old, "{word}");
    }
}

#[test]
fn every_call_passes_the_guard() {
    let folder = Path::new(PACKAGE).join("src");
    let mut calls = 0;
    for file in std::fs::read_dir(folder).expect("the source is there").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("a source file");
        for (_, function) in text.split("#[unsafe(no_mangle)]").enumerate().skip(1) {
            let body = function.split_once(" {\n").expect("a body").1.trim_start();
            let name = function.split_once('(').map_or(function, |(name, _)| name);
            assert!(body.starts_with("status(||") || body.starts_with("call(||"), "{name}");
            let end = body.split("\n}").next().expect("an end");
            assert!(end.trim_end().ends_with("})") || !end.contains('\n'), "{name} does more");
            calls += 1;
        }
    }
    assert_eq!(calls, functions().len());
}

#[test]
fn versions_agree() {
    let config = header("eshm_config.h");
    let number = |name: &str| {
        let line = config.lines().find(|line| line.contains(name)).expect("the version is there");
        line.rsplit(' ').next().expect("a number").to_string()
    };
    let version = ["MAJOR", "MINOR", "PATCH"].map(|part| number(&format!("VERSION_{part}")));
    assert_eq!(version.join("."), env!("CARGO_PKG_VERSION"));
}
