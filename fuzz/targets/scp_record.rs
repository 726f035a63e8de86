//! A record of the old scp protocol.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| agent_fuzz::sftp_bodies::record(input));
