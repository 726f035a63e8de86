//! A certificate's blob.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::credential_bodies::certificate(input));
