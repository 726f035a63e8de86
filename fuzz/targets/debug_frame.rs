//! A frame of the debug service, or a record of its streams.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::config_bodies::debug_frame(input));
