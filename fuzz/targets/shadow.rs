//! A shadow file.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::config_bodies::shadow(input));
