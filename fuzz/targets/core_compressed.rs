//! What a logged-in client can put into a zlib stream, or call one.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::bodies::compressed(input));
