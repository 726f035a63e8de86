//! A client's identification line.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::bodies::identification(input));
