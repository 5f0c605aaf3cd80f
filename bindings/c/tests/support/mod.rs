//! Builds the libraries once, compiles C and C++ programs against them, and runs these.
//!
//! The libraries come from `cargo build` in the profile and target folder of this test, so a plain
//! `cargo test` on a fresh clone has them. What cannot be tested for want of a compiler is said on
//! the standard error output itself, which the test harness does not swallow.

#![allow(dead_code, reason = "each test file uses a part")]

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The folder of this package.
pub const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// Warnings are errors, in every program and standard.
const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-g"];

/// Where the libraries are.
pub struct Libraries {
    /// `libeshm.so`, as cargo made it.
    pub shared: PathBuf,
    /// `libeshm.a`, as cargo made it.
    pub archive: PathBuf,
    /// A folder with `libeshm.so.1` and the link to it, as they are when installed.
    pub folder: PathBuf,
}

/// The libraries, built when first asked for.
pub fn libraries() -> &'static Libraries {
    static BUILT: OnceLock<Libraries> = OnceLock::new();
    BUILT.get_or_init(|| {
        let files = build();
        let ending = |name: &str| {
            let found = files.iter().find(|file| file.ends_with(name));
            found.unwrap_or_else(|| panic!("cargo made no {name}: {files:?}")).clone()
        };
        let folder = own_folder().join("lib");
        std::fs::create_dir_all(&folder).expect("a folder in the target folder");
        let (shared, archive) = (ending("libeshm.so"), ending("libeshm.a"));
        std::fs::copy(&shared, folder.join("libeshm.so.1")).expect("a copy of the library");
        let _ = std::fs::remove_file(folder.join("libeshm.so"));
        std::os::unix::fs::symlink("libeshm.so.1", folder.join("libeshm.so")).expect("a link");
        Libraries { shared, archive, folder }
    })
}

fn build() -> Vec<PathBuf> {
    let profile = if cfg!(debug_assertions) { "test" } else { "release" };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()))
        .args(["build", "--package", "eshm-c", "--lib", "--profile", profile])
        .args(["--message-format", "json-render-diagnostics", "--target-dir"])
        .arg(target)
        .current_dir(PACKAGE)
        .output()
        .expect("cargo runs");
    expect_success(&output, "cargo build");
    // The messages are JSON, one to a line; a path holds no quote.
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let made = messages.lines().filter(|line| line.contains("\"compiler-artifact\""));
    made.flat_map(|line| line.split('"').filter(|text| text.starts_with('/')).map(PathBuf::from))
        .collect()
}

/// A folder that no other run of any test uses. Those of runs that are over are removed.
pub fn own_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("eshm-c");
        let folder = all.join(std::process::id().to_string());
        for old in std::fs::read_dir(&all).into_iter().flatten().flatten() {
            if !Path::new("/proc").join(old.file_name()).exists() {
                let _ = std::fs::remove_dir_all(old.path());
            }
        }
        std::fs::create_dir_all(&folder).expect("a folder in the target folder");
        folder
    })
}

/// A number that this process has not used yet.
pub fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A name for the buses of one test.
pub fn unique_name(what: &str) -> String {
    format!("ctest-{}-{}-{what}", std::process::id(), unique())
}

/// How a program is compiled and linked.
#[derive(Clone, Copy)]
pub struct Build {
    /// `c99`, `c++17` and so on.
    pub standard: &'static str,
    /// Against which library.
    pub link: Link,
    /// With the address and undefined-behaviour sanitizers.
    pub sanitized: bool,
}

/// How a program comes to the library.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// By `libeshm.so`.
    Shared,
    /// By `libeshm.a`, with a shared library of C.
    Archive,
    /// By `libeshm.a`, with `-static`.
    Static,
    /// It loads it itself, from where `ESHM_LIBRARY` says.
    Itself,
}

impl Build {
    /// Against the shared library.
    pub const fn shared(standard: &'static str) -> Build {
        Build { standard, link: Link::Shared, sanitized: false }
    }

    /// Against the archive.
    pub const fn archive(standard: &'static str) -> Build {
        Build { standard, link: Link::Archive, sanitized: false }
    }

    /// Against the archive, and nothing shared.
    pub const fn fully_static(standard: &'static str) -> Build {
        Build { standard, link: Link::Static, sanitized: false }
    }

    /// Against nothing.
    pub const fn itself(standard: &'static str) -> Build {
        Build { standard, link: Link::Itself, sanitized: false }
    }

    /// Against the shared library, with sanitizers.
    pub const fn sanitized(standard: &'static str) -> Build {
        Build { standard, link: Link::Shared, sanitized: true }
    }

    fn is_cpp(self) -> bool {
        self.standard.contains("++")
    }
}

/// The compiler for a language, if there is one: `CC` and `CXX` choose another.
pub fn compiler(cpp: bool) -> Option<String> {
    let (variable, usual) = if cpp { ("CXX", "c++") } else { ("CC", "cc") };
    let name = std::env::var(variable).unwrap_or(usual.into());
    if is_there(&name) {
        return Some(name);
    }
    say_missing(&format!("there is no compiler {name} ({variable} names another)"));
    None
}

/// Whether a program can be run.
pub fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// Says what is not tested, past the test harness, which shows only what failed.
pub fn say_missing(what: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_string();
    let line = format!("\n*** NOT TESTED *** {test}: {what}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Compiles `tests/c/<source>`; `None` if there is no compiler for it.
pub fn compile(source: &str, build: Build) -> Option<PathBuf> {
    let mut command = Command::new(compiler(build.is_cpp())?);
    let libraries = libraries();
    let program = own_folder().join(format!("program-{}", unique()));
    command.args(WARNINGS).arg(format!("-std={}", build.standard));
    if build.is_cpp() {
        command.args(["-x", "c++"]);
    }
    command.arg("-I").arg(Path::new(PACKAGE).join("include"));
    command.arg(Path::new(PACKAGE).join("tests/c").join(source)).args(["-x", "none"]);
    if build.sanitized {
        if !has_sanitizers(build.is_cpp()) {
            return None;
        }
        command.args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]);
    }
    match build.link {
        Link::Static if !has_static_libc() => return None,
        Link::Static => drop(command.arg("-static").arg(&libraries.archive)),
        Link::Archive => drop(command.arg(&libraries.archive)),
        Link::Itself => drop(command.arg("-ldl")),
        Link::Shared => {
            command.arg("-L").arg(&libraries.folder).arg("-leshm");
            command.arg(format!("-Wl,-rpath,{}", libraries.folder.display()));
        }
    }
    if matches!(build.link, Link::Archive | Link::Static) {
        // As `eshm.pc` says for `--static`. What unwinds comes with the compiler, shared or not.
        command.args(["-lutil", "-lrt", "-lm", "-ldl"]);
    }
    command.arg("-lpthread").arg("-o").arg(&program);
    expect_success(&command.output().expect("the compiler runs"), source);
    Some(program)
}

/// Whether programs can be linked with `-static` here.
pub fn has_static_libc() -> bool {
    let works = can_link(false, &["-static"]);
    if !works {
        say_missing("there is no static library of C");
    }
    works
}

fn has_sanitizers(cpp: bool) -> bool {
    let works = can_link(cpp, &["-fsanitize=address,undefined"]);
    if !works {
        say_missing("the compiler has no sanitizers");
    }
    works
}

fn can_link(cpp: bool, flags: &[&str]) -> bool {
    let Some(compiler) = compiler(cpp) else { return false };
    let (source, program) = (own_folder().join(format!("empty-{}.c", unique())), "/dev/null");
    std::fs::write(&source, "int main(void) { return 0; }\n").expect("a source file");
    let mut command = Command::new(compiler);
    command.args(flags).arg(&source).args(["-o", program]);
    command.output().is_ok_and(|output| output.status.success())
}

/// Runs a program and expects that it ends well; its output is shown if it does not.
pub fn run<S: AsRef<OsStr>>(program: &Path, arguments: &[S]) -> String {
    let output = Command::new(program).args(arguments).output().expect("the program runs");
    expect_success(&output, &program.display().to_string());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Shows what a program said, and panics, unless it ended well.
pub fn expect_success(output: &Output, what: &str) {
    assert!(
        output.status.success(),
        "{what}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Compiles and runs one of the test programs, and sees that it leaves nothing in `/dev/shm`.
pub fn check(source: &str, build: Build) {
    let Some(program) = compile(source, build) else { return };
    let name = unique_name(source.split('.').next().unwrap_or("program"));
    let mut command = Command::new(&program);
    command.arg(&name).env("ESHM_LIBRARY", libraries().folder.join("libeshm.so.1"));
    let output = command.output().expect("the program runs");
    let left = remove_left(&name);
    expect_success(&output, source);
    assert!(left.is_empty(), "left in /dev/shm: {left:?}");
}

/// Removes what a test left in `/dev/shm`; says what of it should not be there. What the rule of
/// removal keeps should: somebody was killed, or something is unread.
pub fn remove_left(name: &str) -> Vec<PathBuf> {
    let files = std::fs::read_dir("/dev/shm").expect("shared memory is a folder").flatten();
    let mut left: Vec<_> = files.map(|file| file.path()).collect();
    left.retain(|path| {
        let file = path.to_string_lossy().into_owned();
        let Some(bus) = file.strip_prefix("/dev/shm/eshm_").filter(|bus| bus.contains(name)) else {
            return false;
        };
        let is_kept = eshm::inspect(bus).is_ok_and(|found| {
            let is_dead = |peer: eshm::Peer| peer.state == eshm::PeerState::Dead;
            is_dead(found.stats.master) || is_dead(found.stats.slave) || found.unread != [0, 0]
        });
        std::fs::remove_file(path).is_ok() && !is_kept
    });
    left
}

/// Sees that no bus of a test is left.
pub fn expect_nothing_left(name: &str) {
    let left = remove_left(name);
    assert!(left.is_empty(), "left in /dev/shm: {left:?}");
}
