//! A tap on a ring in which both sides lie: see `src/ring/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| eshm::fuzzing::tap(data));
