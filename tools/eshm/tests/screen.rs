//! What a terminal shows: `top`, progress, colours, and no payload that drives it.

mod support;

use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::sync::{Arc, Mutex};

use eshm::Role;
use portable_pty::{Child, CommandBuilder, MasterPty, NativePtySystem, PtySize, PtySystem};
use support::{Place, until};

/// The program on a terminal, and what that shows.
struct Terminal {
    pty: Box<dyn MasterPty + Send>,
    keys: Box<dyn Write + Send>,
    child: Box<dyn Child + Send + Sync>,
    screen: Arc<Mutex<vt100::Parser>>,
    raw: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn start(place: &Place, args: &[&str], env: &[(&str, &str)]) -> Terminal {
        Terminal::sized((80, 24), place, args, env)
    }

    fn sized(
        (cols, rows): (u16, u16),
        place: &Place,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Terminal {
        let shape = PtySize { rows, cols, ..PtySize::default() };
        let pair = NativePtySystem::default().openpty(shape).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_eshm"));
        command.args(args);
        command.env("ESHM_DIR", place.dir());
        command.env("TERM", "xterm-256color");
        command.env_remove("NO_COLOR");
        env.iter().for_each(|(name, value)| command.env(name, value));
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(size(rows), size(cols), 200)));
        let raw = Arc::new(Mutex::new(Vec::new()));
        let mut output = pair.master.try_clone_reader().unwrap();
        let (to_screen, to_raw) = (screen.clone(), raw.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(got @ 1..) = output.read(&mut bytes) {
                to_screen.lock().unwrap().process(&bytes[..got]);
                to_raw.lock().unwrap().extend_from_slice(&bytes[..got]);
            }
        });
        let keys = pair.master.take_writer().unwrap();
        Terminal { pty: pair.master, keys, child, screen, raw }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    fn raw(&self) -> String {
        String::from_utf8_lossy(&self.raw.lock().unwrap()).into_owned()
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    fn until(&self, part: &str) {
        let started = std::time::Instant::now();
        while !self.text().contains(part) {
            assert!(started.elapsed().as_secs() < 20, "{part:?} does not come:\n{}", self.text());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn end(mut self) -> u32 {
        let mut code = None;
        until("the end of the program", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        code.unwrap().exit_code()
    }
}

fn size(cells: u16) -> NonZeroU16 {
    NonZeroU16::new(cells).unwrap()
}

#[test]
fn top_shows_buses_takes_keys_and_gives_the_terminal_back() {
    let place = Place::new();
    let mut master = place.bus("telemetry").role(Role::Master).open().unwrap();
    let _other = place.bus("other").role(Role::Master).open().unwrap();
    (0..5000).for_each(|_| master.write(b"tick").unwrap());
    let mut top = Terminal::start(&place, &["top", "--every", "20ms"], &[]);
    top.until("telemetry");
    top.until("2 buses");
    let text = top.text();
    assert!(text.contains("5000") && text.contains("q quit"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    top.press("j\r");
    top.until("5,000 unread in 5,000 of 8,192 frames");
    top.until("slave > master");
    top.pty.resize(PtySize { rows: 40, cols: 120, ..PtySize::default() }).unwrap();
    top.screen.lock().unwrap().screen_mut().set_size(size(40), size(120));
    until("the new width to be used", || {
        top.text().lines().any(|line| line.trim_end().chars().count() == 120)
    });
    top.press("\x1b");
    top.until("other");
    top.press("q");
    let screen = top.screen.clone();
    assert_eq!(top.end(), 0);
    until("the normal screen", || !screen.lock().unwrap().screen().alternate_screen());
    assert!(!screen.lock().unwrap().screen().hide_cursor());
    drop((master, _other));
    place.sweep();
}

#[test]
fn top_is_of_use_on_twenty_columns() {
    let place = Place::new();
    let mut master = place.bus("telemetry").role(Role::Master).open().unwrap();
    (0..5000).for_each(|_| master.write(b"tick").unwrap());
    let args = ["top", "--every", "20ms"];
    let mut top = Terminal::sized((20, 14), &place, &args, &[]);
    top.until("5000");
    let list = top.text();
    assert!(list.lines().any(|line| line.starts_with("telem") && line.contains("● -")), "{list}");
    top.press("\r");
    top.until("5000 unread, 61 %");
    top.until("slave absent");
    assert!(top.text().lines().all(|line| line.chars().count() <= 20), "{}", top.text());
    top.press("q");
    assert_eq!(top.end(), 0);
    drop(master);
    place.sweep();
}

#[test]
fn top_says_when_a_bus_is_not_here_and_when_it_is_gone() {
    let place = Place::new();
    let other = place.bus("other").role(Role::Master).open().unwrap();
    let mut top = Terminal::start(&place, &["top", "first", "--every", "20ms"], &[]);
    top.until("No bus first is here");
    assert!(!top.text().contains("other"), "{}", top.text());
    let first = place.bus("first").role(Role::Master).open().unwrap();
    top.until("master > slave");
    drop(first);
    top.until("first is gone");
    assert!(!top.text().contains("other"), "{}", top.text());
    top.press("\r");
    top.until("other");
    top.press("q");
    assert_eq!(top.end(), 0);
    drop(other);
}

#[test]
fn top_gives_the_terminal_back_when_it_is_told_to_end() {
    let place = Place::new();
    let mut top = Terminal::start(&place, &["top"], &[]);
    top.until("No bus is here");
    let pid = nix::unistd::Pid::from_raw(i32::try_from(top.child.process_id().unwrap()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let screen = top.screen.clone();
    until("the end", || top.child.try_wait().unwrap().is_some());
    until("the normal screen", || !screen.lock().unwrap().screen().alternate_screen());
}

#[test]
fn top_needs_a_terminal() {
    let place = Place::new();
    let refused = place.run(&["top"]).code(2);
    assert!(refused.stderr.contains("eshm ls --json"), "{}", refused.stderr);
}

#[test]
fn payload_does_not_drive_a_terminal() {
    let place = Place::new();
    let (send, mut stdin) = place.start_fed(&["send", "a"]);
    stdin.write_all(b"\x1b]0;owned\x07\x1b[2Jplain\n").unwrap();
    drop(stdin);
    let recv = Terminal::start(&place, &["recv", "a"], &[]);
    recv.until("\\x1b]0;owned\\x07\\x1b[2Jplain");
    send.end().ok();
    assert_eq!(recv.end(), 0);
    let place = Place::new();
    let _kept = place.feed(&["send", "a", "--keep"], b"x\n").ok();
    let refused = Terminal::start(&place, &["recv", "a", "--format", "records"], &[]);
    refused.until("not for a terminal");
    assert_eq!(refused.end(), 2);
    place.run(&["rm", "a"]).ok();
}

#[test]
fn colours_only_on_a_terminal_and_never_with_no_color() {
    let place = Place::new();
    let _master = place.bus("a").role(Role::Master).open().unwrap();
    let painted = |env: &[(&str, &str)]| {
        let terminal = Terminal::start(&place, &["ls"], env);
        terminal.until("alive");
        terminal.raw().contains("\x1b[32m")
    };
    assert!(painted(&[]));
    assert!(!painted(&[("NO_COLOR", "1")]));
    assert!(!painted(&[("TERM", "dumb")]));
    assert!(painted(&[("NO_COLOR", "")]), "an empty value means nothing");
    assert!(!place.run(&["ls"]).ok().text().contains('\x1b'));
    let top = Terminal::start(&place, &["top"], &[("NO_COLOR", "1")]);
    top.until("1 bus");
    for colour in ["\x1b[31m", "\x1b[32m", "\x1b[36m", "\x1b[38;5;2m"] {
        assert!(!top.raw().contains(colour), "{colour:?}");
    }
}

#[test]
fn progress_goes_to_a_terminal_and_away_again() {
    let place = Place::new();
    std::fs::write(place.file("from"), vec![7u8; 8 << 20]).unwrap();
    let from = place.file("from");
    let send = Terminal::start(&place, &["send", "a", "--file", from.to_str().unwrap()], &[]);
    send.until("MiB");
    let to = place.file("to");
    place.run(&["recv", "a", "--file", to.to_str().unwrap()]).ok();
    let screen = send.screen.clone();
    assert_eq!(send.end(), 0);
    until("the bar to go", || screen.lock().unwrap().screen().contents().trim().is_empty());
}

#[test]
fn the_demo_draws_a_panel_that_fits_and_ends_with_the_ledger() {
    let place = Place::new();
    let demo = Terminal::start(&place, &["demo", "--time", "2s", "--rate", "20k"], &[]);
    demo.until("p99.9");
    demo.until("The ledger");
    demo.until("Nothing lost");
    let text = demo.text();
    assert!(!text.contains("look on with"), "the panel is gone in the end:\n{text}");
    assert_eq!(demo.end(), 0);
}
