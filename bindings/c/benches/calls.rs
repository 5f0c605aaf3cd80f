//! The C calls set against the Rust calls under them, in alternating rounds of one run.
//!
//! ```text
//! cargo bench -p eshm-c --bench calls [-- ROUNDS] [call] [stream] [trips]
//! ```
//!
//! - `call`: writing and reading a message in one thread; what a C call costs more
//! - `stream`: 5 million messages of 48 bytes between two processes, by `eshm_write` at full speed
//!   and `eshm_read_ex`
//! - `round trip`: blocking `eshm_read` on both sides against Rust endpoints that spin
//!
//! The two processes are pinned to two cores. The ratios are medians over the rounds.

use std::ffi::{CString, c_char, c_int, c_void};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use eshm::{Endpoint, Error, Options, Role, Wait};

#[path = "../tests/support/mod.rs"]
mod support;

const SIZE: usize = 48;
const STREAM: u64 = 5_000_000;
const TRIPS: usize = 200_000;
const CALLS: u32 = 50_000;
const STRETCHES: usize = 100;
const PATIENCE: Duration = Duration::from_secs(10);

/// One end of a bus, by way of one of the interfaces.
trait End: Sized {
    const NAME: &'static str;
    fn open(name: &str, role: Role, wait: Wait) -> Option<Self>;
    /// Tries to write; false if there is no room.
    fn write(&mut self, message: &[u8; SIZE]) -> bool;
    /// Tries to read; false if there is nothing.
    fn try_read(&mut self, message: &mut [u8; SIZE]) -> bool;
    /// Waits for a message.
    fn read(&mut self, message: &mut [u8; SIZE]);
    /// The same by `eshm_read_ex`.
    fn read_ex(&mut self, message: &mut [u8; SIZE]);
}

struct Rust(Endpoint);

impl End for Rust {
    const NAME: &'static str = "rust";

    fn open(name: &str, role: Role, wait: Wait) -> Option<Self> {
        match Options::new(name).role(role).wait(wait).open() {
            Ok(bus) => Some(Rust(bus)),
            Err(Error::NotFound { .. }) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[inline]
    fn write(&mut self, message: &[u8; SIZE]) -> bool {
        match self.0.try_write(message) {
            Ok(()) => true,
            Err(Error::Full) => false,
            Err(error) => panic!("{error}"),
        }
    }

    #[inline]
    fn try_read(&mut self, message: &mut [u8; SIZE]) -> bool {
        self.0.try_read(message).is_ok()
    }

    #[inline]
    fn read(&mut self, message: &mut [u8; SIZE]) {
        let len = self.0.read_timeout(message, PATIENCE).expect("a message");
        assert_eq!(len, SIZE);
    }

    #[inline]
    fn read_ex(&mut self, message: &mut [u8; SIZE]) {
        self.read(message);
    }
}

type Init = unsafe extern "C" fn(*const Config) -> *mut c_void;
type Destroy = unsafe extern "C" fn(*mut c_void) -> c_int;
type Write = unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> c_int;
type Read = unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> c_int;
type ReadEx = unsafe extern "C" fn(*mut c_void, *mut c_void, usize, *mut usize, u32) -> c_int;

/// The calls of the shared library, as a C program has them.
#[derive(Clone, Copy)]
struct Calls {
    init: Init,
    destroy: Destroy,
    write: Write,
    read: Read,
    read_ex: ReadEx,
}

/// `ESHMConfig`
#[repr(C)]
struct Config {
    name: *const c_char,
    role: c_int,
    disconnect: c_int,
    times: [u32; 4],
    flags: [u8; 2],
}

fn library() -> Calls {
    let path = std::env::var(LIBRARY).expect("set by main");
    let path = CString::new(path).expect("a path");
    // SAFETY: loads the library built from this package, whose start has no conditions.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
    assert!(!library.is_null(), "the library can be loaded");
    let symbol = |name: &std::ffi::CStr| {
        // SAFETY: the library is loaded, the name is a text of C.
        let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
        assert!(!symbol.is_null(), "{name:?}");
        symbol
    };
    // SAFETY: the types are those of the header.
    unsafe {
        Calls {
            init: std::mem::transmute::<*mut c_void, Init>(symbol(c"eshm_init")),
            destroy: std::mem::transmute::<*mut c_void, Destroy>(symbol(c"eshm_destroy")),
            write: std::mem::transmute::<*mut c_void, Write>(symbol(c"eshm_write")),
            read: std::mem::transmute::<*mut c_void, Read>(symbol(c"eshm_read")),
            read_ex: std::mem::transmute::<*mut c_void, ReadEx>(symbol(c"eshm_read_ex")),
        }
    }
}

struct C {
    bus: *mut c_void,
    calls: Calls,
}

impl End for C {
    const NAME: &'static str = "c";

    fn open(name: &str, role: Role, _: Wait) -> Option<Self> {
        let (name, calls) = (CString::new(name).expect("a name"), library());
        let role = c_int::from(role == Role::Slave);
        let times = [100, 5000, 100, 50];
        let config = Config { name: name.as_ptr(), role, disconnect: 1, times, flags: [1, 1] };
        // SAFETY: a whole configuration, whose name lives as long as the call.
        let bus = unsafe { (calls.init)(&raw const config) };
        (!bus.is_null()).then_some(C { bus, calls })
    }

    #[inline]
    fn write(&mut self, message: &[u8; SIZE]) -> bool {
        // SAFETY: the bytes are there.
        match unsafe { (self.calls.write)(self.bus, message.as_ptr().cast(), SIZE) } {
            0 => true,
            -12 => false,
            code => panic!("{code}"),
        }
    }

    #[inline]
    fn try_read(&mut self, message: &mut [u8; SIZE]) -> bool {
        let mut len = 0;
        let to = message.as_mut_ptr().cast();
        // SAFETY: the bytes are there.
        unsafe { (self.calls.read_ex)(self.bus, to, SIZE, &raw mut len, 0) == 0 }
    }

    #[inline]
    fn read(&mut self, message: &mut [u8; SIZE]) {
        // SAFETY: the bytes are there.
        let len = unsafe { (self.calls.read)(self.bus, message.as_mut_ptr().cast(), SIZE) };
        assert_eq!(len, SIZE as c_int);
    }

    #[inline]
    fn read_ex(&mut self, message: &mut [u8; SIZE]) {
        let (mut len, patience) = (0, PATIENCE.as_millis() as u32);
        let to = message.as_mut_ptr().cast();
        // SAFETY: the bytes are there.
        let code = unsafe { (self.calls.read_ex)(self.bus, to, SIZE, &raw mut len, patience) };
        assert_eq!((code, len), (0, SIZE));
    }
}

impl Drop for C {
    fn drop(&mut self) {
        // SAFETY: the library stays loaded.
        unsafe { (self.calls.destroy)(self.bus) };
    }
}

fn open<E: End>(name: &str, role: Role, wait: Wait) -> E {
    loop {
        match E::open(name, role, wait) {
            Some(end) => return end,
            None => std::thread::yield_now(),
        }
    }
}

fn pin(core: usize) {
    // SAFETY: all bits zero is an empty set.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours; with fewer cores the call fails and changes nothing.
    unsafe {
        libc::CPU_SET(core, &mut cores);
        libc::sched_setaffinity(0, size_of_val(&cores), &raw const cores);
    }
}

const LIBRARY: &str = "ESHM_BENCH_LIBRARY";
const PEER: &str = "ESHM_BENCH_PEER";

/// The other process: this program again.
fn start_peer<E: End>(what: &str, name: &str) -> Child {
    let program = std::env::current_exe().expect("this program has a path");
    let peer = format!("{} {what} {name}", E::NAME);
    Command::new(program).env(PEER, peer).spawn().expect("this program runs")
}

fn be_peer(description: &str) {
    let words: Vec<&str> = description.split(' ').collect();
    pin(1);
    match words[..] {
        ["rust", what, name] => answer(open::<Rust>(name, Role::Slave, wait_for(what)), what),
        ["c", what, name] => answer(open::<C>(name, Role::Slave, wait_for(what)), what),
        _ => panic!("{description}"),
    }
}

/// Rust spins in round trips, which is the best there is; a stream waits as is usual.
fn wait_for(what: &str) -> Wait {
    if what == "trips" { Wait::Spin } else { Wait::Adaptive }
}

fn answer<E: End>(mut end: E, what: &str) {
    let mut message = [0; SIZE];
    match what {
        "stream" => {
            for number in 0..STREAM {
                end.read_ex(&mut message);
                assert_eq!(message[..8], number.to_ne_bytes());
            }
            assert!(end.write(&message));
        }
        _ => (0..TRIPS).for_each(|_| {
            end.read(&mut message);
            assert!(end.write(&message));
        }),
    }
}

/// Millions of messages per second.
fn stream<E: End>(name: &str) -> f64 {
    let mut end = open::<E>(name, Role::Master, Wait::Adaptive);
    let mut peer = start_peer::<E>("stream", name);
    let mut message = [0; SIZE];
    // The first message waits for the peer; the clock does not.
    let mut begun = Instant::now();
    for number in 0..STREAM {
        message[..8].copy_from_slice(&number.to_ne_bytes());
        while !end.write(&message) {
            std::hint::spin_loop();
        }
        if number == 10_000 {
            begun = Instant::now();
        }
    }
    end.read(&mut message);
    let took = begun.elapsed();
    assert!(peer.wait().expect("it is our child").success());
    (STREAM - 10_000) as f64 / took.as_secs_f64() / 1e6
}

/// The median round trip in nanoseconds.
fn round_trip<E: End>(name: &str) -> f64 {
    let mut end = open::<E>(name, Role::Master, Wait::Spin);
    let mut peer = start_peer::<E>("trips", name);
    let mut message = [0; SIZE];
    let mut took: Vec<u64> = (0..TRIPS)
        .map(|_| {
            let begun = Instant::now();
            assert!(end.write(&message));
            end.read(&mut message);
            begun.elapsed().as_nanos() as u64
        })
        .collect();
    assert!(peer.wait().expect("it is our child").success());
    took.sort_unstable();
    took[TRIPS / 2] as f64
}

/// Nanoseconds for a write and a read in one thread: those of the best of many short stretches,
/// which is the one that nothing else on the machine disturbed.
fn call<E: End>(name: &str) -> f64 {
    let mut master = open::<E>(name, Role::Master, Wait::Adaptive);
    let mut slave = open::<E>(name, Role::Slave, Wait::Adaptive);
    let mut message = [0; SIZE];
    let stretch = || {
        let begun = Instant::now();
        for _ in 0..CALLS {
            assert!(master.write(&message));
            assert!(slave.try_read(&mut message));
        }
        begun.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    std::iter::repeat_with(stretch).take(STRETCHES).fold(f64::INFINITY, f64::min)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Runs both in turn, and gives the median of each and of what `compare` makes of the pairs.
fn rounds(
    count: usize,
    rust: fn(&str) -> f64,
    c: fn(&str) -> f64,
    compare: fn(f64, f64) -> f64,
) -> (f64, f64, f64) {
    let pairs: Vec<(f64, f64)> = (0..count)
        .map(|_| (rust(&support::unique_name("rust")), c(&support::unique_name("c"))))
        .collect();
    (
        median(pairs.iter().map(|pair| pair.0).collect()),
        median(pairs.iter().map(|pair| pair.1).collect()),
        median(pairs.iter().map(|pair| compare(pair.0, pair.1)).collect()),
    )
}

fn is_in(words: &[String], name: &str) -> bool {
    words.iter().any(|word| word == name)
}

fn main() {
    if let Ok(description) = std::env::var(PEER) {
        return be_peer(&description);
    }
    let library = support::libraries().folder.join("libeshm.so.1");
    // SAFETY: no other thread runs yet.
    unsafe { std::env::set_var(LIBRARY, library) };
    pin(0);
    let words: Vec<String> = std::env::args().skip(1).collect();
    let count = words.iter().find_map(|word| word.parse().ok()).unwrap_or(5);
    let all = ["call", "stream", "trips"];
    let chosen = |name| !all.iter().any(|name| is_in(&words, name)) || is_in(&words, name);
    if chosen("call") {
        let (rust, c, more) = rounds(count, call::<Rust>, call::<C>, |rust, c| (c - rust) / 2.0);
        println!(
            "call        rust {:.1} ns, c {:.1} ns: {more:+.1} ns a call",
            rust / 2.0,
            c / 2.0
        );
    }
    if chosen("stream") {
        let (rust, c, ratio) = rounds(count, stream::<Rust>, stream::<C>, |rust, c| c / rust);
        println!("stream      rust {rust:.1} M/s, c {c:.1} M/s: {ratio:.2} x");
    }
    if chosen("trips") {
        let compare = |rust, c| c / rust;
        let (rust, c, ratio) = rounds(count, round_trip::<Rust>, round_trip::<C>, compare);
        println!("round trip  rust {rust:.0} ns, c {c:.0} ns: {ratio:.2} x");
    }
}
