//! What a logged-in client can say, and what a driver can answer, in any order.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::bodies::after_authentication(input));
