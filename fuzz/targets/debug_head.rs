//! A request of the debug service.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::config_bodies::debug_head(input));
