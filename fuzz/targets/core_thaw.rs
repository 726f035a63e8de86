//! A connection's state from a hostile process.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::bodies::hand_over(input));
