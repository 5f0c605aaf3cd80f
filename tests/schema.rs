//! What is on the wire: a bus that says what its messages are refuses whoever says otherwise, and who
//! says something is refused where the bus says nothing.
#![allow(missing_docs)]

mod support;

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eshm::{Direction, Endpoint, Error, Options, Role, Schema, SegmentState, Takeover};
use support::confined::{ALICE, BOB, GROUP, servant_of, sticky_room};
use support::*;

children! {}

const DOWN: Direction = Direction::MasterToSlave;
const UP: Direction = Direction::SlaveToMaster;
/// Where slot 0 says what its messages are, and in how many bytes.
const SCHEMAS: u64 = 65536 + 3072;
const SCHEMAS_LEN: usize = 256;
/// Where the header says that it does.
const REGIONS: u64 = 640;

fn telemetry(version: u32) -> Schema {
    Schema::new("telemetry", version)
}

fn command(version: u32) -> Schema {
    Schema::new("command", version)
}

/// A master that writes telemetry 3 and reads command 1.
fn told_master(bus: &Bus) -> Endpoint {
    bus.options(Role::Master).writes(telemetry(3)).reads(command(1)).open().unwrap()
}

#[track_caller]
fn is_refused(opened: Result<Endpoint, Error>, direction: Direction, words: &[&str]) {
    let error = error_of(opened);
    let text = error.to_string();
    assert!(matches!(&error, Error::Schema { direction: d, .. } if *d == direction), "{text}");
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

#[track_caller]
fn carries(bus: &Bus, room: &std::path::Path, down: Option<Schema>, up: Option<Schema>) {
    assert_eq!(eshm::inspect_in(room, bus.name()).unwrap().schemas, [down, up]);
}

fn shm() -> &'static std::path::Path {
    std::path::Path::new("/dev/shm")
}

#[test]
fn both_sides_of_a_direction_agree_in_either_order() {
    let bus = Bus::new("wagree");
    let mut options = bus.options(Role::Slave);
    options.writes(command(1)).reads(telemetry(3)).open_timeout(PATIENCE);
    let early = std::thread::spawn(move || options.open().unwrap());
    let mut master = told_master(&bus);
    let mut slave = early.join().unwrap();
    send(&mut master, 0..3);
    send(&mut slave, 0..3);
    assert_eq!((drain(&mut slave), drain(&mut master)), (vec![0, 1, 2], vec![0, 1, 2]));
    for end in [&master, &slave] {
        assert_eq!(end.schema(DOWN), Ok(Some(telemetry(3))));
        assert_eq!(end.schema(UP), Ok(Some(command(1))));
    }
    drop(slave);
    // Each direction may be said alone.
    drop(bus.options(Role::Slave).writes(command(1)).open().unwrap());
    drop(bus.options(Role::Slave).reads(telemetry(3)).open().unwrap());
}

#[test]
fn another_schema_is_refused_and_both_are_named() {
    let bus = Bus::new("wother");
    let mut master = told_master(&bus);
    send(&mut master, 0..1);
    let slave = |act: &dyn Fn(&mut Options)| {
        let mut options = bus.options(Role::Slave);
        act(&mut options);
        options.open()
    };
    let names = ["telemetry:3", "from master to slave"];
    let version = slave(&|options| _ = options.reads(telemetry(4)).writes(command(1)));
    is_refused(version, DOWN, &[names[0], names[1], "telemetry:4"]);
    let name = slave(&|options| _ = options.reads(Schema::new("weather", 3)));
    is_refused(name, DOWN, &[names[0], names[1], "weather:3"]);
    let up = slave(&|options| _ = options.reads(telemetry(3)).writes(command(2)));
    is_refused(up, UP, &["command:1", "command:2", "from slave to master"]);
    // The same ones, but the wrong way round.
    let turned = slave(&|options| _ = options.reads(command(1)).writes(telemetry(3)));
    is_refused(turned, DOWN, &["telemetry:3", "command:1"]);
    // Nothing was changed by all that: nobody was a slave yet, and nothing was taken.
    assert_eq!(master.stats().slave.epoch, 0);
    let mut slave = bus.slave();
    assert_eq!((slave.epoch(), drain(&mut slave)), (1, vec![0]));
}

#[test]
fn who_says_something_is_refused_where_the_bus_says_nothing() {
    let bus = Bus::new("wnone");
    let _master = bus.options(Role::Master).writes(telemetry(3)).open().unwrap();
    let opened = bus.options(Role::Slave).reads(telemetry(3)).writes(command(1)).open();
    is_refused(opened, UP, &["carries no schema from slave to master", "command:1"]);
    drop(bus.options(Role::Slave).reads(telemetry(3)).open().unwrap());
    let plain = Bus::new("wplain");
    let _plain = plain.master();
    let opened = plain.options(Role::Slave).reads(telemetry(3)).open();
    is_refused(opened, DOWN, &["carries no schema from master to slave", "telemetry:3"]);
}

#[test]
fn who_says_nothing_passes_and_changes_nothing() {
    let bus = Bus::new("wsilent");
    let mut master = told_master(&bus);
    let mut slave = bus.slave();
    send(&mut master, 0..1);
    assert_eq!(drain(&mut slave), [0]);
    // Nor does it as the successor of one that said something.
    drop(master);
    let master = bus.master();
    assert_eq!(master.epoch(), 2);
    carries(&bus, shm(), Some(telemetry(3)), Some(command(1)));
    assert_eq!(slave.schema(DOWN), Ok(Some(telemetry(3))));
}

#[test]
fn size_and_layout_count_where_both_sides_say_them() {
    let bus = Bus::new("wsize");
    let whole = telemetry(3).with_size(48).with_layout(0xABCD);
    let _master = bus.options(Role::Master).writes(whole.clone()).open().unwrap();
    let slave = |schema: &Schema| bus.options(Role::Slave).reads(schema.clone()).open();
    for agreed in [&telemetry(3), &telemetry(3).with_size(48), &whole] {
        drop(slave(agreed).unwrap());
    }
    is_refused(slave(&telemetry(3).with_size(40)), DOWN, &["48 bytes", "40 bytes"]);
    let other = slave(&whole.with_layout(0xABCE));
    is_refused(other, DOWN, &["layout 000000000000abcd", "layout 000000000000abce"]);
}

#[test]
fn a_name_that_cannot_be_used_makes_no_bus() {
    let bus = Bus::new("wname");
    for name in ["", "a\nb", &"x".repeat(65)] {
        let opened = bus.options(Role::Master).reads(Schema::new(name, 1)).open();
        let text = error_of(opened).to_string();
        assert!(text.contains("the name of a schema") && !text.contains('\n'), "{text}");
        assert!(!bus.path().exists());
    }
    let longest = Schema::new("é".repeat(32), u32::MAX);
    let _master = bus.options(Role::Master).reads(longest.clone()).open().unwrap();
    carries(&bus, shm(), None, Some(longest));
}

/// A role decides which direction is written, also one that was not asked for.
#[test]
fn auto_says_it_in_the_role_that_it_gets() {
    let bus = Bus::new("wauto");
    let auto = |writes, reads| bus.options(Role::Auto).writes(writes).reads(reads).open();
    let first = auto(telemetry(3), command(1)).unwrap();
    let second = auto(command(1), telemetry(3)).unwrap();
    assert_eq!((first.role(), second.role()), (Role::Master, Role::Slave));
    drop(second);
    is_refused(auto(telemetry(3), command(1)), DOWN, &["telemetry:3", "command:1"]);
}

#[test]
fn a_successor_says_the_same_or_is_refused() {
    let bus = Bus::new("wsucceed");
    let mut master = bus.servant("master", "writes=telemetry:3 reads=command:1");
    master.send(0, 4);
    master.kill();
    let opened = bus.options(Role::Master).writes(telemetry(4)).open();
    is_refused(opened, DOWN, &["telemetry:3", "telemetry:4"]);
    // What is unread is there, and the refused one was no owner.
    let master = told_master(&bus);
    assert_eq!(master.epoch(), 2);
    let mut slave = bus.options(Role::Slave).reads(telemetry(3)).open().unwrap();
    assert_eq!(drain(&mut slave), [0, 1, 2, 3]);
}

#[test]
fn who_would_replace_an_owner_says_the_same_or_leaves_it_alone() {
    let bus = Bus::new("wtake");
    let mut master = bus.servant("master", "writes=telemetry:3 reads=command:1");
    let mut slave = bus.options(Role::Slave).reads(telemetry(3)).open().unwrap();
    let take = |schema: Schema, takeover| {
        bus.options(Role::Master).writes(schema).takeover(takeover).open()
    };
    is_refused(take(telemetry(4), Takeover::Always), DOWN, &["telemetry:3", "telemetry:4"]);
    master.stop();
    is_refused(take(telemetry(4), Takeover::Hung), DOWN, &["telemetry:3", "telemetry:4"]);
    master.go_on();
    // It was not even sealed.
    let found = eshm::inspect_in(shm(), bus.name()).unwrap();
    assert_eq!((found.generation, found.state), (0, SegmentState::Live));
    master.send(0, 3);
    assert_eq!(drain(&mut slave), [0, 1, 2]);
}

#[test]
fn a_replacement_carries_it_along() {
    let bus = Bus::new("wfence");
    let mut master = bus.servant("master", "writes=telemetry:3 reads=command:1");
    let mut slave = bus.options(Role::Slave).reads(telemetry(3)).open().unwrap();
    master.send(0, 2);
    let mut owners = Vec::new();
    // By one that says it, and by one that says nothing.
    for (round, says) in [true, false].into_iter().enumerate() {
        let mut options = bus.options(Role::Master);
        if says {
            options.writes(telemetry(3));
        }
        let mut new = options.takeover(Takeover::Always).open().unwrap();
        let first = 2 + 2 * round as u64;
        send(&mut new, first..first + 2);
        let read: Vec<u64> = (0..2).map(|_| read_number(&mut slave)).collect();
        assert_eq!(read, [first - 2, first - 1]);
        let found = eshm::inspect_in(shm(), bus.name()).unwrap();
        assert_eq!(found.generation, round as u64 + 1);
        carries(&bus, shm(), Some(telemetry(3)), Some(command(1)));
        assert_eq!(new.schema(UP), Ok(Some(command(1))));
        owners.push(new);
    }
    assert_eq!(slave.schema(DOWN), Ok(Some(telemetry(3))), "it has moved over");
    is_refused(
        bus.options(Role::Slave).reads(telemetry(2)).takeover(Takeover::Always).open(),
        DOWN,
        &["telemetry:3", "telemetry:2"],
    );
    assert_eq!(drain(&mut slave), [4, 5]);
}

#[test]
fn a_bus_made_anew_carries_what_its_maker_says() {
    let bus = Bus::new("wanew");
    for version in 1..3 {
        let master = bus.options(Role::Master).writes(telemetry(version)).open().unwrap();
        carries(&bus, shm(), Some(telemetry(version)), None);
        drop(master);
        assert!(!bus.path().exists());
    }
}

/// A file that neither user may take away is used again: with what the next one says, or nothing.
#[test]
fn a_retired_file_begun_anew_carries_what_is_said_then() {
    if !is_root() {
        return;
    }
    let room = sticky_room();
    let bus = Bus::inside(room.path(), "wretired");
    let [mut owner, mut other] = [servant_of(ALICE, GROUP), servant_of(BOB, GROUP)];
    let open = |servant: &mut Servant, more: &str| {
        let directory = room.path().display();
        let trust = format!("trust={ALICE} trust={BOB} mode=660");
        servant.ask(&format!("open {} dir={directory} {trust} {more}", bus.name()))
    };
    assert_eq!(open(&mut owner, "role=master writes=telemetry:3 reads=command:1"), "ok master 1");
    assert_eq!(open(&mut other, "role=slave"), "ok slave 1");
    owner.must("leave");
    other.must("leave");
    for (says, down, up) in [
        ("writes=telemetry:4", Some(telemetry(4)), None),
        ("", None, None),
        (
            "reads=a.much.longer.name.of.a.schema:9",
            None,
            Some(("a.much.longer.name.of.a.schema", 9)),
        ),
    ] {
        let found = eshm::inspect_in(room.path(), bus.name()).unwrap();
        assert_eq!((found.state, found.schemas), (SegmentState::Retired, [None, None]));
        assert_eq!(open(&mut other, &format!("role=master {says}")), "ok master 1");
        carries(&bus, room.path(), down, up.map(|(name, version)| Schema::new(name, version)));
        assert!(open(&mut owner, "role=slave reads=telemetry:3").starts_with("err 0 Schema"));
        other.must("leave");
    }
    std::fs::remove_file(bus.path()).unwrap();
}

#[test]
fn a_tap_that_says_what_it_hears_hears_nothing_else() {
    let bus = Bus::new("wtap");
    let mut master = told_master(&bus);
    let tap = |schema: Option<Schema>, direction| {
        let mut options = Options::new(bus.name());
        if let Some(schema) = schema {
            options.reads(schema);
        }
        options.tap(direction)
    };
    let error = tap(Some(telemetry(2)), DOWN).unwrap_err().to_string();
    assert!(error.contains("telemetry:3") && error.contains("telemetry:2"), "{error}");
    assert!(tap(Some(telemetry(3)), UP).is_err() && tap(Some(command(1)), UP).is_ok());
    let (mut told, mut silent) = (tap(Some(telemetry(3)), DOWN).unwrap(), tap(None, DOWN).unwrap());
    send(&mut master, 0..1);
    for tap in [&mut told, &mut silent] {
        assert_eq!(tap.try_read(&mut [0; 512]).unwrap().id.number, 0);
    }
    drain(&mut bus.slave());
    drop(master);
    assert!(!bus.path().exists());
    // The bus is made anew, with other messages.
    let mut master = bus.options(Role::Master).writes(telemetry(4)).open().unwrap();
    send(&mut master, 0..1);
    until("the silent one hears the new bus", || {
        silent.try_read(&mut [0; 512]).is_ok_and(|heard| heard.id.number == 0)
    });
    let error = told.try_read(&mut [0; 512]).unwrap_err();
    assert!(matches!(error, Error::Schema { direction: DOWN, .. }), "{error}");
    drain(&mut bus.slave());
}

/// The file of a bus that says what its messages are, with nobody in it.
fn left_alone(bus: &Bus) {
    let keep = eshm::Cleanup::Never;
    let mut options = bus.options(Role::Master);
    options.frames(4).writes(telemetry(3)).reads(command(1)).cleanup(keep).open().unwrap();
}

fn file_of(bus: &Bus) -> std::fs::File {
    std::fs::File::options().read(true).write(true).open(bus.path()).unwrap()
}

/// Opens it with and without a schema, and looks at it; what is said can be printed.
#[track_caller]
fn any_answer(bus: &Bus, what: &str) {
    let quick = |role| {
        let mut options = bus.options(role);
        options.background(false).cleanup(eshm::Cleanup::Never);
        options
    };
    let silent = quick(Role::Slave).open();
    let silent = silent.unwrap_or_else(|error| panic!("{what}: who says nothing: {error}"));
    let carried = [silent.schema(DOWN), silent.schema(UP)];
    drop(silent);
    let told = quick(Role::Slave).reads(telemetry(3)).writes(command(1)).open().map(drop);
    let seen = eshm::inspect(bus.name()).map(|found| found.schemas);
    assert_eq!(seen.is_ok(), carried.iter().all(Result::is_ok), "{what}: {seen:?} {carried:?}");
    for error in [told.err(), seen.err()].into_iter().flatten() {
        let text = error.to_string();
        assert!(text.chars().all(|c| !c.is_control()), "{what}: {text:?}");
        let is_fine = matches!(error, Error::Schema { .. } | Error::Corrupt { .. });
        assert!(is_fine, "{what}: {error}");
    }
}

#[test]
fn every_byte_of_it_may_lie() {
    let bus = Bus::new("wlies");
    left_alone(&bus);
    let file = file_of(&bus);
    let mut honest = [0; SCHEMAS_LEN];
    file.read_exact_at(&mut honest, SCHEMAS).unwrap();
    assert_eq!(&honest[..9], b"telemetry", "this is the place");
    for at in 0..SCHEMAS_LEN {
        for mask in [0x01, 0x80, 0xFF] {
            let lie = [honest[at] ^ mask];
            file.write_all_at(&lie, SCHEMAS + at as u64).unwrap();
            any_answer(&bus, &format!("byte {at}, mask {mask:#x}"));
        }
        file.write_all_at(&honest[at..=at], SCHEMAS + at as u64).unwrap();
    }
    let mut options = bus.options(Role::Slave);
    options.cleanup(eshm::Cleanup::Never).reads(telemetry(3)).writes(command(1));
    drop(options.open().unwrap());
    std::fs::remove_file(bus.path()).unwrap();
}

/// A liar that changes it all the time: whatever is answered was true of one copy.
#[test]
fn it_may_change_while_it_is_read() {
    let bus = Bus::new("wflip");
    left_alone(&bus);
    let file = file_of(&bus);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice(u64::from(std::process::id()) | 1);
            while !done.load(Ordering::Relaxed) {
                let bytes: Vec<u8> = (0..SCHEMAS_LEN).map(|_| dice.roll() as u8).collect();
                let from = dice.below(SCHEMAS_LEN as u64) as usize;
                file.write_all_at(&bytes[from..], SCHEMAS + from as u64).unwrap();
                // Lengths that are possible, now and then.
                let len = (dice.below(80) as u32).to_le_bytes();
                file.write_all_at(&len, SCHEMAS + 84).unwrap();
            }
        });
        for _ in 0..200 {
            let mut options = bus.options(Role::Slave);
            options.background(false).cleanup(eshm::Cleanup::Never).reads(telemetry(3));
            match options.open().map(drop) {
                Ok(()) | Err(Error::Schema { .. } | Error::Corrupt { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            let _ = eshm::inspect(bus.name());
        }
        done.store(true, Ordering::Relaxed);
    });
    std::fs::remove_file(bus.path()).unwrap();
}

/// A file of a build that knows nothing of schemas has no place for them, whatever lies there.
#[test]
fn a_file_without_the_region_carries_none() {
    let bus = Bus::new("wold");
    left_alone(&bus);
    let file = file_of(&bus);
    let mut region = [0; 24];
    file.read_exact_at(&mut region, REGIONS).unwrap();
    file.write_all_at(&[0; 24], REGIONS).unwrap();
    carries(&bus, shm(), None, None);
    let opened = bus.options(Role::Slave).reads(telemetry(3)).open();
    is_refused(opened, DOWN, &["carries no schema", "telemetry:3"]);
    drop(bus.options(Role::Slave).cleanup(eshm::Cleanup::Never).open().unwrap());
    // Somewhere else than here it is not looked for.
    let mut moved = region;
    moved[8] ^= 0x80;
    file.write_all_at(&moved, REGIONS).unwrap();
    let error = error_of(bus.options(Role::Slave).open());
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    // Required is no more than known.
    region[4] |= 1;
    file.write_all_at(&region, REGIONS).unwrap();
    drop(bus.options(Role::Slave).reads(telemetry(3)).open().unwrap());
    // A kind that nobody knows is ignored, unless it must not be.
    let strange = |flags: u8| [9, 0, 0, 0, flags, 0, 0, 0];
    file.write_all_at(&strange(0), REGIONS + 24).unwrap();
    drop(bus.options(Role::Slave).reads(telemetry(3)).open().unwrap());
    file.write_all_at(&strange(1), REGIONS + 24).unwrap();
    assert!(matches!(error_of(bus.options(Role::Slave).open()), Error::Layout { .. }));
    let _ = std::fs::remove_file(bus.path());
}

mod typed {
    use eshm_derive::Message;

    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable, Message)]
    #[message(name = "sample", version = 2)]
    pub struct Sample {
        pub time_ns: u64,
        pub value: f64,
        pub channels: [u16; 4],
    }

    /// The same fields, one of another type: bytes that fit, and mean something else.
    pub mod changed {
        use super::Message;

        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable, Message)]
        #[message(name = "sample", version = 2)]
        pub struct Sample {
            pub time_ns: u64,
            pub value: u64,
            pub channels: [u16; 4],
        }
    }

    /// Spelt otherwise, and the same.
    pub mod alias {
        use super::Message;

        type Nanoseconds = u64;

        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable, Message)]
        #[message(name = "sample", version = 2)]
        pub struct Reading {
            pub time_ns: Nanoseconds,
            pub value: f64,
            pub channels: [u16; 2 + 2],
        }
    }

    #[test]
    fn a_type_is_known_by_what_it_is() {
        let sample = Schema::of::<Sample>();
        assert_eq!((sample.name(), sample.version(), sample.size()), ("sample", 2, Some(24)));
        assert_eq!(Schema::of::<alias::Reading>(), sample);
        assert_ne!(Schema::of::<changed::Sample>().layout(), sample.layout());
        // What is on disk: builds must agree on it for ever.
        assert_eq!(sample.layout(), Some(PINNED));
    }

    const PINNED: u64 = 9_729_564_667_657_467_166;

    /// Everything that a type may be: unnamed fields, none, parameters, a name that is a keyword, a
    /// type within a type.
    #[test]
    fn all_structs_can_be_messages() {
        #[derive(Message)]
        struct Plain;
        #[derive(Message)]
        struct Pair(#[allow(dead_code)] u32, #[allow(dead_code)] u32);
        #[derive(Message)]
        #[allow(dead_code)]
        struct Keyword {
            r#type: u32,
            of: u32,
        }
        #[derive(Message)]
        #[allow(dead_code)]
        struct Plainword {
            kind: u32,
            of: u32,
        }
        #[derive(Message)]
        #[allow(dead_code)]
        struct Around<T, const N: usize> {
            inside: [T; N],
        }
        assert_eq!(Schema::of::<Plain>().to_string().split(' ').next(), Some("Plain:1"));
        assert_eq!(Schema::of::<Plain>().size(), Some(0));
        assert_eq!(Schema::of::<Pair>().size(), Some(8));
        let layouts = [
            Schema::of::<Plain>(),
            Schema::of::<Pair>(),
            Schema::of::<Keyword>(),
            Schema::of::<Plainword>(),
            Schema::of::<Around<Sample, 2>>(),
            // The same size, and another type within.
            Schema::of::<Around<changed::Sample, 2>>(),
            Schema::of::<Around<u64, 6>>(),
        ];
        for (index, one) in layouts.iter().enumerate() {
            let others = layouts[index + 1..].iter();
            assert!(others.map(Schema::layout).all(|other| other != one.layout()), "{one}");
        }
    }

    #[test]
    fn typed_halves_carry_values_of_one_type() {
        let bus = Bus::new("wtyped");
        let sample = Schema::of::<Sample>();
        let master = bus.options(Role::Master).writes(sample.clone()).open().unwrap();
        let (mut writer, _up) = {
            let (writer, reader) = master.split();
            (writer.typed::<Sample>().unwrap(), reader)
        };
        let (_down, reader) = bus.slave().split();
        let mut reader = reader.typed::<Sample>().unwrap();
        for number in 0..100u16 {
            let value = Sample { time_ns: 1 << 50, value: 0.5, channels: [number; 4] };
            writer.write(&value).unwrap();
            assert_eq!(reader.read(), Ok(value));
            writer.try_write(&value).unwrap();
            assert_eq!(reader.try_read(), Ok(value));
        }
        assert_eq!(reader.try_read(), Err(Error::Empty));
        // A peer that says nothing can send what it likes.
        let mut plain = writer.untyped();
        plain.write(b"short").unwrap();
        assert_eq!(reader.try_read(), Err(Error::WrongSize { len: 5, expected: 24 }));
        assert_eq!(reader.backlog(), 1);
        reader.untyped().skip_to_latest().unwrap();
    }

    #[test]
    fn a_typed_half_of_another_type_is_refused() {
        let bus = Bus::new("wmistyped");
        let _master = bus.options(Role::Master).writes(Schema::of::<Sample>()).open().unwrap();
        let reader = || bus.slave().split().1;
        let error = reader().typed::<changed::Sample>().unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Schema { direction: DOWN, .. }), "{text}");
        let layouts = [Schema::of::<Sample>(), Schema::of::<changed::Sample>()]
            .map(|schema| format!("{:016x}", schema.layout().unwrap()));
        assert!(layouts.iter().all(|layout| text.contains(layout)), "{text}");
        assert!(reader().typed::<alias::Reading>().is_ok());
        // In the other direction the bus says nothing.
        let error = bus.slave().split().0.typed::<Sample>().unwrap_err();
        assert!(matches!(error, Error::Schema { direction: UP, found: None, .. }), "{error}");
        let other = bus.options(Role::Slave).reads(Schema::of::<changed::Sample>()).open();
        is_refused(other, DOWN, &["sample:2"]);
    }

    #[test]
    fn both_halves_at_once() {
        let bus = Bus::new("wwhole");
        let mut options = bus.options(Role::Master);
        let (sample, other) = (Schema::of::<Sample>(), Schema::of::<changed::Sample>());
        let master = options.writes(sample).reads(other).open().unwrap();
        let (mut out, _) = master.typed::<Sample, changed::Sample>().unwrap();
        let (_, mut back) = bus.slave().typed::<changed::Sample, Sample>().unwrap();
        let value = Sample { time_ns: 1, value: 2.0, channels: [3; 4] };
        out.write(&value).unwrap();
        assert_eq!(back.read(), Ok(value));
        assert!(bus.options(Role::Master).open().is_err());
        assert!(out.peer().pid > 0, "what a half tells, a typed one tells");
    }
}

/// The time that a slave waits for its master is not spent on a bus that says something else.
#[test]
fn a_wait_for_a_master_ends_at_another_schema() {
    let bus = Bus::new("wwait");
    let mut options = bus.options(Role::Slave);
    options.reads(telemetry(2)).open_timeout(Duration::MAX);
    let waiting = std::thread::spawn(move || options.open());
    let _master = told_master(&bus);
    is_refused(waiting.join().unwrap(), DOWN, &["telemetry:3", "telemetry:2"]);
}
