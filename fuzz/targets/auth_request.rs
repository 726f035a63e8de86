//! An authentication request, or an answer to a question.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::config_bodies::auth_request(input));
