//! Bytes without a valid tag on a protected connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::bodies::packet(input));
