//! A packet of an SFTP client.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::sftp_bodies::request(input));
