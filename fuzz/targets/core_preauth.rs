//! What strangers can say, from the first byte on.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::bodies::before_authentication(input));
