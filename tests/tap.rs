//! A tap reads a direction without being its consumer: no store into the segment, no effect on
//! either side.
#![allow(missing_docs)]

mod support;

use std::time::Duration;

use eshm::{Direction, Error, MessageId, Role, Takeover, Tap};
use support::*;

children! { "tapper" => tapper }

const DOWN: Direction = Direction::MasterToSlave;

#[test]
fn a_tap_hears_what_comes_and_what_is_still_there() {
    let bus = Bus::new("tap");
    let (mut master, mut slave) = bus.pair();
    send(&mut master, 0..5);
    assert_eq!(read_number(&mut slave), 0);
    let mut tap = Tap::open(bus.name(), DOWN).unwrap();
    assert_eq!((tap.name(), tap.direction(), tap.lost()), (bus.name(), DOWN, 0));
    let mut buffer = [0; 256];
    assert_eq!(tap.try_read(&mut buffer), Err(Error::Empty), "from the next one on");
    send(&mut master, 5..7);
    for number in 5..7 {
        let heard = tap.try_read(&mut buffer).unwrap();
        assert_eq!((heard.id, heard.lost), (MessageId { epoch: 1, number }, 0));
        assert_eq!(number_of(&buffer[..heard.len]), number);
    }
    tap.from_oldest();
    for number in 0..7 {
        let heard = tap.try_read(&mut buffer).unwrap();
        assert_eq!(number_of(&buffer[..heard.len]), number, "read or not");
    }
    assert_eq!(tap.read_timeout(&mut buffer, Duration::from_millis(2)), Err(Error::Timeout));
    send(&mut master, 7..8);
    assert_eq!(
        tap.try_read(&mut [0; 4]),
        Err(Error::BufferTooSmall { len: message(7, 100).len(), buffer: 4 })
    );
    assert_eq!(tap.try_read(&mut buffer).unwrap().id.number, 7, "it stayed");
    assert_eq!(drain(&mut slave), (1..8).collect::<Vec<_>>(), "the reader has lost nothing");
    let mut other = Tap::open(bus.name(), Direction::SlaveToMaster).unwrap();
    send(&mut slave, 0..1);
    assert_eq!(other.try_read(&mut buffer).unwrap().id.number, 0);
}

/// Without anybody at work on it, a segment that is tapped stays the same to the byte.
#[test]
fn a_tap_stores_nothing() {
    let bus = Bus::new("tapstore");
    let mut options = bus.options(Role::Master);
    let mut master = options.background(false).cleanup(eshm::Cleanup::Never).open().unwrap();
    send(&mut master, 0..20);
    drop(master);
    let before = std::fs::read(bus.path()).unwrap();
    let mut tap = Tap::open(bus.name(), DOWN).unwrap();
    tap.from_oldest();
    let mut buffer = [0; 256];
    for number in 0..20 {
        assert_eq!(tap.try_read(&mut buffer).unwrap().id.number, number);
    }
    assert_eq!(tap.try_read(&mut buffer), Err(Error::Empty));
    drop(tap);
    assert!(std::fs::read(bus.path()).unwrap() == before, "a tap left its mark");
    std::fs::remove_file(bus.path()).unwrap();
}

/// A tap may be slow or fast: each message that it hears is whole and in its place, and it counts
/// those that it missed; the reader gets every one.
#[test]
fn a_tap_of_a_fast_stream_hears_whole_messages_and_counts_the_rest() {
    let bus = Bus::new("tapfast");
    let mut master = bus.options(Role::Master).frames(64).open().unwrap();
    let mut slave = bus.slave();
    let mut tap = Tap::open(bus.name(), DOWN).unwrap();
    const COUNT: u64 = 100_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..COUNT {
                master.write(&message(number, 300)).unwrap();
            }
        });
        scope.spawn(|| {
            for number in 0..COUNT {
                assert_eq!(read_number(&mut slave), number);
            }
        });
        let (mut next, mut lost, mut heard) = (0, 0, 0);
        let mut buffer = [0; 512];
        while next < COUNT {
            let message = match tap.read_timeout(&mut buffer, PATIENCE) {
                Ok(message) => message,
                Err(error) => panic!("after {next}: {error}"),
            };
            let number = number_of(&buffer[..message.len]);
            assert_eq!(number, message.id.number);
            assert_eq!(number, next + message.lost, "the count of the missed is exact");
            lost += message.lost;
            heard += 1;
            next = number + 1;
        }
        assert_eq!((lost, heard + lost), (tap.lost(), COUNT));
    });
}

#[test]
fn a_tap_follows_the_bus_when_its_segment_is_replaced() {
    let bus = Bus::new("tapfollow");
    let mut old = bus.master();
    let mut slave = bus.slave();
    let mut tap = Tap::open(bus.name(), DOWN).unwrap();
    let mut buffer = [0; 256];
    send(&mut old, 0..3);
    let mut new = bus.options(Role::Master).takeover(Takeover::Always).open().unwrap();
    send(&mut new, 3..6);
    let heard: Vec<MessageId> =
        (0..6).map(|_| tap.read_timeout(&mut buffer, PATIENCE).unwrap().id).collect();
    let expected: Vec<MessageId> =
        (0..6).map(|number| MessageId { epoch: 1 + number / 3, number }).collect();
    assert_eq!((heard, tap.lost()), (expected, 0));
    assert_eq!(drain(&mut slave), (0..6).collect::<Vec<_>>());
}

/// Taps what its parent sends, and forks.
fn tapper(talk: &mut Talk) {
    let mut tap = Tap::open(talk.word(0), DOWN).unwrap();
    let mut buffer = [0; 256];
    talk.say("ready");
    let heard = tap.read_timeout(&mut buffer, PATIENCE).unwrap();
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        assert_eq!(tap.try_read(&mut buffer), Err(Error::Forked));
        tap.from_oldest();
        child::leave_at_once(0);
    }
    let mut status = 0;
    // SAFETY: waits for the child just made.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    talk.say(format!("{} {status}", heard.id));
    talk.hear();
}

#[test]
fn a_tap_in_another_process_and_its_death_are_no_matter() {
    let bus = Bus::new("tapother");
    let (mut master, mut slave) = bus.pair();
    let mut child = Child::spawn("tapper", bus.name());
    child.expect("ready");
    send(&mut master, 0..1);
    child.expect("1:0 0");
    child.stop();
    for number in 1..3000 {
        send(&mut master, [number]);
        assert_eq!(drain(&mut slave), if number == 1 { vec![0, 1] } else { vec![number] });
    }
    child.kill();
    assert_eq!(slave.peer().state.name(), "alive");
}
