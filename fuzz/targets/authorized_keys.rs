//! A key file, in two chunks.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::config_bodies::authorized_keys(input));
