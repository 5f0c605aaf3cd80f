//! `--schema`: what the messages of a bus are, set, checked, shown and ignored.

mod support;

use eshm::{Role, Schema};
use serde_json::json;
use support::{Place, same};

#[test]
fn a_bus_carries_what_its_sender_said() {
    let place = Place::new();
    place.feed(&["send", "a", "--keep", "--schema", "telemetry:3"], b"1\n2\n").ok();
    let found = place.run(&["stat", "a", "--json"]).ok().json();
    assert_eq!(found["master_to_slave"]["schema_name"], "telemetry");
    assert_eq!(found["master_to_slave"]["schema_version"], 3);
    assert_eq!(found["slave_to_master"]["schema_name"], json!(null));
    // Another version is refused, takes nothing, and says what is there and what to do.
    let refused = place.run(&["recv", "a", "--schema", "telemetry:2"]).code(2);
    for part in ["telemetry:3", "telemetry:2", "master to slave", "leave --schema away"] {
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
    }
    let json = place.run(&["recv", "a", "--json", "--schema", "weather:3"]).code(2);
    let told: serde_json::Value = serde_json::from_str(json.stderr.trim()).unwrap();
    assert_eq!(told["exit"], 2);
    place.feed(&["send", "a", "--schema", "telemetry:4"], b"3\n").code(2);
    place.run(&["tap", "a", "--from", "master", "--schema", "telemetry:2"]).code(2);
    let tap = ["tap", "a", "--from", "master", "--unread", "-n", "1", "--schema", "telemetry:3"];
    assert!(place.run(&tap).ok().text().contains('1'));
    assert_eq!(place.run(&["recv", "a", "-n", "1", "--schema", "telemetry:3"]).ok().text(), "1\n");
    // Who says nothing takes it as it is.
    assert_eq!(place.run(&["recv", "a"]).ok().text(), "2\n");
    place.sweep();
}

#[test]
fn a_bus_that_says_nothing_is_refused_by_who_does() {
    let place = Place::new();
    place.feed(&["send", "a", "--keep"], b"1\n").ok();
    let refused = place.run(&["recv", "a", "--schema", "telemetry:3"]).code(2);
    assert!(refused.stderr.contains("carries no schema"), "{}", refused.stderr);
    assert_eq!(place.run(&["recv", "a"]).ok().text(), "1\n");
    place.sweep();
}

#[test]
fn a_schema_that_is_none_is_a_wrong_command_line() {
    let place = Place::new();
    for wrong in ["telemetry", "telemetry:", ":3", "telemetry:x", "telemetry:-1", "a\nb:1"] {
        let told = place.run(&["recv", "a", "--schema", wrong]).code(2);
        assert!(told.stderr.contains("NAME:VERSION"), "{wrong:?}: {}", told.stderr);
    }
}

#[test]
fn ls_and_stat_show_it() {
    let place = Place::new();
    let mut options = place.bus("a");
    options.role(Role::Master).frames(64).writes(Schema::new("weather::Sample", 3));
    let reads = Schema::new("b\u{202e}d", 1).with_size(48).with_layout(0xabc);
    let master = options.reads(reads).open().unwrap();
    let silent = place.bus("b").role(Role::Master).frames(64).open().unwrap();
    same(
        &place.run(&["ls"]).ok().text(),
        "\
NAME     SIZE  FRAMES     MASTER       SLAVE  UNREAD  AGE
a    24.0 KiB  64 x 64 B  PPPPP alive  -           0  0 s  weather::Sample:3 m>s, b\\u{202e}d:1 s>m
b    24.0 KiB  64 x 64 B  PPPPP alive  -           0  0 s",
    );
    let text = place.run(&["stat", "a"]).ok().text();
    for part in [
        "master > slave\n  schema      weather::Sample:3\n",
        "slave > master\n  schema      b\\u{202e}d:1 (48 bytes, layout 0000000000000abc)\n",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let text = place.run(&["stat", "b"]).ok().text();
    assert_eq!(text.matches("  schema      not said\n").count(), 2, "{text}");
    for (field, value) in [
        ("master_to_slave.schema_name", "weather::Sample"),
        ("master_to_slave.schema_version", "3"),
        ("master_to_slave.schema_size_bytes", ""),
        ("slave_to_master.schema_size_bytes", "48"),
        ("slave_to_master.schema_layout", "0000000000000abc"),
    ] {
        assert_eq!(place.run(&["stat", "a", field]).ok().text(), format!("{value}\n"), "{field}");
    }
    drop((master, silent));
}
