//! Promise 10: nothing is half-made. A name appears only when its segment is whole, whenever its
//! creator is killed; and a full file system is an error at creation, never a signal later.
#![allow(missing_docs)]

mod support;

use eshm::{Cleanup, Error, Role};
use support::*;

children! { "creator" => creator, "cramped" => cramped }

/// Creates a segment, and is killed meanwhile.
fn creator(talk: &mut Talk) {
    let words = ["role=master", "background=0", talk.word(1)];
    let options = servant::options(talk.word(0), &words);
    let board = Board::open(talk.word(2));
    match talk.number(3) {
        0 => step::await_start(&board),
        k => step::begin(k, None),
    }
    let mut bus = options.open().unwrap();
    bus.write(&message(0, 100)).unwrap();
    board.set(0, 1);
    step::end();
    child::leave_at_once(0);
}

/// Kills a creator with `kill`; whatever has a name then must be whole.
fn killed_creator(k: u64, kill: impl FnOnce(&mut Child, &Board) -> bool) -> bool {
    let room = Room::new();
    let bus = Bus::inside(room.path(), "p10");
    let board = Board::new();
    let place = format!("dir={}", room.path().display());
    let words = format!("{} {place} {} {k}", bus.name(), board.path());
    let was_killed = kill(&mut Child::spawn("creator", &words), &board);
    let names = room.names();
    let expected = bus.path();
    for name in &names {
        assert_eq!(room.at(name), expected, "a name that is not the bus's own");
    }
    assert!(board.get(0) == 0 || names.len() == 1);
    let options = bus.options(Role::Slave);
    match options.open() {
        Ok(mut slave) => {
            assert_eq!(names.len(), 1);
            let mut master = bus.master();
            let next = master.last_committed().map_or(0, |id| id.number + 1);
            send(&mut master, next..3);
            assert_eq!(drain(&mut slave), [0, 1, 2]);
        }
        Err(Error::NotFound { .. }) => {
            assert!(names.is_empty(), "{names:?}");
            drop(bus.master());
        }
        Err(error) => panic!("half-made: {error}"),
    }
    assert!(room.names().is_empty(), "nothing is left of it");
    was_killed
}

#[test]
fn a_creator_killed_at_any_time_leaves_all_or_nothing() {
    let mut dice = Dice(u64::from(std::process::id()) | 1);
    let mut killed = 0;
    for _ in 0..200 {
        let after = dice.below(600_000);
        killed += u64::from(killed_creator(0, |child, board| step::kill_soon(child, board, after)));
    }
    assert!(killed > 50, "only {killed} were killed on the way");
}

#[test]
fn a_creator_killed_at_some_instruction_leaves_all_or_nothing() {
    if !step::is_possible() {
        return;
    }
    let (mut k, stride) = step::places(80_021);
    while killed_creator(k, |child, _| step::was_killed(child)) {
        k += stride;
    }
    assert!(k > 1000, "only {k} instructions");
}

/// Tells the other thread that this one is done, also when it panics.
struct Over<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

/// A slave that opens again and again while a master comes and goes finds nothing, or a whole
/// segment.
#[test]
fn whoever_looks_sees_nothing_or_all() {
    let bus = Bus::new("p10look");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let (mut none, mut whole) = (0, 0);
            while !is_over.load(order) {
                match bus.options(Role::Slave).background(false).cleanup(Cleanup::Always).open() {
                    Ok(_) => whole += 1,
                    Err(Error::NotFound { .. }) => none += 1,
                    Err(error) => panic!("half-made: {error}"),
                }
            }
            (none, whole)
        });
        let _over = Over(&is_over);
        for round in 0..2000 {
            let mut options = bus.options(Role::Master);
            let opened = options.background(false).cleanup(Cleanup::Always).open();
            let mut master = opened.unwrap_or_else(|error| panic!("{round}: {error}"));
            // As long as one of the two is always there the bus is never removed, and fills.
            if let Err(error) = master.try_write(b"x") {
                assert_eq!(error, Error::Full, "{round}");
            }
        }
        is_over.store(true, order);
        let (none, whole) = looking.join().unwrap();
        assert!(none > 0 && whole > 0, "{none} {whole}");
    });
}

/// In a mount namespace of its own, on a file system of one megabyte.
fn cramped(talk: &mut Talk) {
    let place = talk.word(0).to_owned();
    let target = std::ffi::CString::new(place.as_str()).unwrap();
    // SAFETY: strings that end in NUL, alive across the calls; what is mounted is seen by this
    // process alone.
    let mounted = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
            && libc::mount(
                c"none".as_ptr(),
                target.as_ptr(),
                c"tmpfs".as_ptr(),
                0,
                c"size=1m".as_ptr().cast(),
            ) == 0
    };
    if !mounted {
        return talk.say("forbidden");
    }
    let dir = format!("dir={place}");
    let open = |frames: u64| {
        let frames = format!("frames={frames}");
        servant::options("cramped", &["role=master", &dir, &frames]).open()
    };
    let names = || std::fs::read_dir(&place).unwrap().count();
    // Once more than there is, and once just above half: the file system is filled by the first.
    for frames in [1 << 13, 1 << 20, 1 << 40] {
        let error = error_of(open(frames));
        let Error::Os { operation, object, errno } = &error else { panic!("{error}") };
        assert_eq!((*errno, *operation), (libc::ENOSPC, "fallocate"), "{error}");
        assert!(object.contains(&place), "{error}");
        assert_eq!(names(), 0, "nothing is left");
    }
    let mut master = open(1 << 12).expect("what fits works");
    let mut slave = servant::options("cramped", &["role=slave", &dir]).open().unwrap();
    // All the rest of the room goes to somebody else, and still every page can be written.
    let filler = std::fs::File::create(format!("{place}/filler")).unwrap();
    while std::io::Write::write(&mut &filler, &[0; 4096]).is_ok() {}
    for number in 0..20_000 {
        send(&mut master, [number]);
        send(&mut slave, [number]);
        assert_eq!((read_number(&mut slave), read_number(&mut master)), (number, number));
    }
    let second = servant::options("second", &["role=master", &dir]).open();
    assert!(matches!(second, Err(Error::Os { errno: libc::ENOSPC, .. })));
    let fencing =
        servant::options("cramped", &["role=master", &dir, "frames=4096", "takeover=always"]);
    let error = error_of(fencing.open());
    assert!(matches!(error, Error::Os { errno: libc::ENOSPC, .. }), "{error}");
    talk.say("done");
}

#[test]
fn a_full_file_system_is_an_error_at_creation() {
    if !is_root() {
        return;
    }
    let room = Room::new();
    let mut child = Child::spawn("cramped", &room.path().display().to_string());
    match child.hear().as_str() {
        "done" => child.finish(),
        "forbidden" => skipped("no mount namespace is to be had here"),
        said => panic!("{said}"),
    }
}
