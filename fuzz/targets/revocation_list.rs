//! A key revocation list.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::credential_bodies::revocation_list(input));
