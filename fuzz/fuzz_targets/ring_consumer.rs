//! A consumer against a lying producer: see `src/ring/fuzzing.rs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| eshm::fuzzing::consumer(data));
