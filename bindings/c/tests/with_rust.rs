//! C on one side, Rust on the other; and a program that was compiled for ESHM 1.0.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use eshm::{Endpoint, Error, Options, Role, Takeover};
use support::{
    Build, PACKAGE, compile, compiler, expect_nothing_left, expect_success, libraries, own_folder,
    unique_name,
};

const COUNT: u32 = 20_000;
const LONGEST: u32 = 600;

/// The message with this number, as `peer.c` makes it.
fn message(number: u32) -> Vec<u8> {
    let mut bytes = vec![(number % 251) as u8; (number % LONGEST) as usize];
    if let Some(head) = bytes.get_mut(..4) {
        head.copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

fn open(name: &str, role: Role) -> Endpoint {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Options::new(name).role(role).open() {
            Ok(bus) => return bus,
            Err(Error::NotFound { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A program that is killed if the test fails.
struct Peer(Child);

impl Peer {
    fn start(program: &Path, name: &str, role: &str, what: &str) -> Peer {
        let count = COUNT.to_string();
        let child = Command::new(program).args([name, role, what, &count]).spawn();
        Peer(child.expect("the program runs"))
    }

    fn join(mut self) {
        assert!(self.0.wait().expect("it is our child").success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn peer() -> Option<PathBuf> {
    compile("peer.c", Build::shared("c99"))
}

#[test]
fn a_c_slave_reads_what_a_rust_master_writes() {
    let Some(program) = peer() else { return };
    let name = unique_name("rust-to-c");
    let mut bus = open(&name, Role::Master);
    let peer = Peer::start(&program, &name, "slave", "receive");
    for number in 0..COUNT {
        bus.write_timeout(&message(number), Duration::from_secs(20)).expect("the reader reads");
    }
    peer.join();
    drop(bus);
    expect_nothing_left(&name);
}

#[test]
fn a_rust_slave_reads_what_a_c_master_writes() {
    let Some(program) = peer() else { return };
    let name = unique_name("c-to-rust");
    let peer = Peer::start(&program, &name, "master", "send");
    let mut bus = open(&name, Role::Slave);
    let mut buffer = [0; LONGEST as usize];
    for number in 0..COUNT {
        let len = bus.read_timeout(&mut buffer, Duration::from_secs(20)).expect("a message");
        assert_eq!(&buffer[..len], message(number));
    }
    drop(bus);
    peer.join();
    expect_nothing_left(&name);
}

#[test]
fn a_c_master_answers_a_rust_slave() {
    let Some(program) = peer() else { return };
    let name = unique_name("echo");
    let peer = Peer::start(&program, &name, "master", "echo");
    let mut bus = open(&name, Role::Slave);
    let mut buffer = [0; LONGEST as usize];
    for number in 0..COUNT {
        bus.write(&message(number)).expect("room");
        let len = bus.read_timeout(&mut buffer, Duration::from_secs(20)).expect("an answer");
        assert_eq!(&buffer[..len], message(number));
    }
    drop(bus);
    peer.join();
    expect_nothing_left(&name);
}

#[test]
fn rust_takes_over_from_a_c_master_that_was_killed() {
    let Some(program) = peer() else { return };
    let name = unique_name("killed");
    let mut peer = Peer::start(&program, &name, "master", "send");
    let mut slave = open(&name, Role::Slave);
    let mut buffer = [0; LONGEST as usize];
    let mut read = |slave: &mut Endpoint, number: u32| {
        let len = slave.read_timeout(&mut buffer, Duration::from_secs(20)).expect("a message");
        assert_eq!(&buffer[..len], message(number));
    };
    (0..1000).for_each(|number| read(&mut slave, number));
    peer.0.kill().expect("it is our child");
    peer.0.wait().expect("it is our child");
    let mut options = Options::new(&*name);
    options.role(Role::Master).takeover(Takeover::Never).write_timeout(Duration::ZERO);
    let mut master = options.open().expect("the dead are no obstacle");
    // Goes on behind what the C program had committed when it died.
    let last = master.last_committed().expect("it wrote something").number as u32;
    assert!(last >= 999);
    (1000..=last).for_each(|number| read(&mut slave, number));
    master.write(&message(last + 1)).expect("all was read");
    read(&mut slave, last + 1);
    drop((master, slave));
    expect_nothing_left(&name);
}

#[test]
fn a_program_compiled_for_eshm_1_0_runs_without_being_compiled_again() {
    let Some(compiler) = compiler(false) else { return };
    let (folder, old) = (own_folder().join("old"), Path::new(PACKAGE).join("tests/c/old"));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (library, program) = (folder.join("libeshm.so.1"), folder.join("program"));
    let compile = |arguments: &[&std::ffi::OsStr], what: &str| {
        let mut command = Command::new(&compiler);
        command.args(["-std=c99", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-I"]).arg(&old);
        expect_success(&command.args(arguments).output().expect("the compiler runs"), what);
    };
    let (stub, source) = (old.join("library.c"), old.join("program.c"));
    let soname = "-Wl,-soname,libeshm.so.1";
    compile(
        &[
            "-shared".as_ref(),
            "-fPIC".as_ref(),
            soname.as_ref(),
            stub.as_ref(),
            "-o".as_ref(),
            library.as_ref(),
        ],
        "the library of the time",
    );
    compile(
        &[source.as_ref(), library.as_ref(), "-o".as_ref(), program.as_ref()],
        "the program of the time",
    );
    let name = unique_name("old");
    let start = |libraries: &Path| {
        let mut command = Command::new(&program);
        command.arg(&name).env("LD_LIBRARY_PATH", libraries).output().expect("the program runs")
    };
    assert!(!start(&folder).status.success(), "there is nothing behind the stub");
    expect_success(&start(&libraries().folder), "the program of the time");
    expect_nothing_left(&name);
}
