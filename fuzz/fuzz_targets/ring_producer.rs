//! A producer against a lying consumer: see `src/ring/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| eshm::fuzzing::producer(data));
