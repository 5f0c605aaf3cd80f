//! What `tools/install-c` installs, used in each way it is meant for.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use support::{PACKAGE, compiler, expect_nothing_left, expect_success, libraries, own_folder};

const PROGRAM: &str = r#"
#include <eshm.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    ESHMConfig config = eshm_default_config(argc > 1 ? argv[1] : NULL);
    ESHMHandle *bus = eshm_init(&config);
    if (bus == NULL) {
        fprintf(stderr, "%s\n", eshm_last_error());
        return 1;
    }
    return eshm_destroy(bus);
}
"#;

const CMAKE: &str = r"
cmake_minimum_required(VERSION 3.10)
project(user C)
find_package(ESHM 1.0 REQUIRED)
add_executable(shared program.c)
target_link_libraries(shared PRIVATE ESHM::eshm)
add_executable(static program.c)
target_link_libraries(static PRIVATE ESHM::eshm_static)
find_package(ESHM 2.0 QUIET)
if(ESHM_FOUND)
  message(FATAL_ERROR 1.0 is no 2.0)
endif()
";

/// Installs below a folder, with the libraries that this test run built.
fn install(prefix: &Path, libdir: &str) {
    let libraries = libraries();
    let from = own_folder().join("built");
    std::fs::create_dir_all(&from).expect("a folder");
    std::fs::copy(&libraries.shared, from.join("libeshm.so")).expect("a copy");
    std::fs::copy(&libraries.archive, from.join("libeshm.a")).expect("a copy");
    let mut command = Command::new(Path::new(PACKAGE).join("../../tools/install-c"));
    command.arg("--prefix").arg(prefix).args(["--libdir", libdir, "--from"]).arg(&from);
    expect_success(&command.env_remove("DESTDIR").output().expect("bash runs"), "tools/install-c");
}

fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = own_folder().join("prefix");
        install(&prefix, "lib");
        prefix
    })
}

fn source(folder: &str) -> PathBuf {
    let folder = own_folder().join(folder);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("program.c"), PROGRAM).expect("a source file");
    folder
}

fn run(program: &Path, library_path: Option<&Path>) {
    let name = support::unique_name("installed");
    let mut command = Command::new(program);
    command.arg(&name).env_remove("LD_LIBRARY_PATH");
    if let Some(path) = library_path {
        command.env("LD_LIBRARY_PATH", path);
    }
    expect_success(&command.output().expect("the program runs"), "the program");
    expect_nothing_left(&name);
}

#[test]
fn everything_is_in_its_place() {
    let prefix = installed();
    for file in [
        "lib/libeshm.so",
        "lib/libeshm.so.1",
        concat!("lib/libeshm.so.", env!("CARGO_PKG_VERSION")),
        "lib/libeshm.a",
        "lib/pkgconfig/eshm.pc",
        "lib/cmake/ESHM/ESHMConfig.cmake",
        "lib/cmake/ESHM/ESHMConfigVersion.cmake",
        "include/eshm.h",
        "include/eshm_data.h",
        "include/eshm_config.h",
        "include/eshm.hpp",
    ] {
        assert!(prefix.join(file).is_file(), "{file}");
    }
}

#[test]
fn with_the_compiler_alone() {
    let Some(compiler) = compiler(false) else { return };
    let (folder, prefix) = (source("alone"), installed());
    let program = folder.join("program");
    let mut command = Command::new(compiler);
    command.arg(folder.join("program.c")).arg("-o").arg(&program);
    command.arg("-I").arg(prefix.join("include")).arg("-L").arg(prefix.join("lib")).arg("-leshm");
    expect_success(&command.output().expect("the compiler runs"), "the compiler");
    run(&program, Some(&prefix.join("lib")));
}

/// Builds with what `pkg-config` says.
fn with_pkg_config(folder: &str, prefix: &Path, libdir: &str, is_static: bool) {
    let (Some(compiler), folder) = (compiler(false), source(folder)) else { return };
    if !support::is_there("pkg-config") {
        return support::say_missing("there is no pkg-config");
    }
    let libraries = prefix.join(libdir);
    let mut asked = Command::new("pkg-config");
    asked.env("PKG_CONFIG_PATH", libraries.join("pkgconfig")).args(["--cflags", "--libs"]);
    asked.args(is_static.then_some("--static")).arg("eshm >= 1.0");
    let output = asked.output().expect("pkg-config runs");
    expect_success(&output, "pkg-config");
    let flags = String::from_utf8(output.stdout).expect("flags");
    let mut command = Command::new(compiler);
    let program = folder.join("program");
    command.arg(folder.join("program.c")).arg("-o").arg(&program);
    command.args(is_static.then_some("-Wl,-Bstatic"));
    for flag in flags.split_whitespace() {
        command.arg(flag).args((is_static && flag == "-leshm").then_some("-Wl,-Bdynamic"));
    }
    expect_success(&command.output().expect("the compiler runs"), "the compiler");
    run(&program, (!is_static).then_some(libraries.as_path()));
}

#[test]
fn with_pkg_config_shared() {
    with_pkg_config("pkg-shared", installed(), "lib", false);
}

#[test]
fn with_pkg_config_static() {
    with_pkg_config("pkg-static", installed(), "lib", true);
}

#[test]
fn moved_and_with_another_folder_for_libraries() {
    let (first, then) = (own_folder().join("first"), own_folder().join("then"));
    install(&first, "lib/some-machine");
    std::fs::rename(&first, &then).expect("the tree moves");
    with_pkg_config("moved", &then, "lib/some-machine", false);
    let package = then.join("lib/some-machine/cmake/ESHM");
    with_cmake("moved-cmake", &format!("-DESHM_DIR={}", package.display()));
}

fn with_cmake(folder: &str, where_it_is: &str) {
    if compiler(false).is_none() {
        return;
    }
    if !support::is_there("cmake") {
        return support::say_missing("there is no cmake");
    }
    let folder = source(folder);
    std::fs::write(folder.join("CMakeLists.txt"), CMAKE).expect("a file");
    let mut command = Command::new("cmake");
    command.arg("-S").arg(&folder).arg("-B").arg(folder.join("out"));
    command.arg(where_it_is);
    expect_success(&command.output().expect("cmake runs"), "cmake");
    let output = Command::new("cmake").arg("--build").arg(folder.join("out")).output();
    expect_success(&output.expect("cmake runs"), "cmake --build");
    run(&folder.join("out/shared"), None);
    run(&folder.join("out/static"), None);
}

#[test]
fn with_cmake_both_libraries() {
    with_cmake("cmake", &format!("-DCMAKE_PREFIX_PATH={}", installed().display()));
}

#[test]
fn wrong_arguments_are_explained() {
    for arguments in [&[][..], &["--prefix"], &["--what"], &["--prefix", "/x", "--libdir", "/y"]] {
        let script = Path::new(PACKAGE).join("../../tools/install-c");
        let output = Command::new(script).args(arguments).output().expect("bash runs");
        assert!(!output.status.success() && !output.stderr.is_empty(), "{arguments:?}");
    }
}
