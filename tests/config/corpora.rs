//! The fuzz targets on stable Rust: over their corpora, and over seeded mixtures of fragments.

use std::fs;
use std::path::Path;

use crate::bodies;

/// Inputs made of fragments in one run of the tests.
const MIXTURES: u32 = 4000;

const CONFIG_FRAGMENTS: &[&str] = &[
    "Match ",
    "User ",
    "all",
    "\n",
    " ",
    "=",
    "\"",
    "'",
    "\\",
    "#",
    ",",
    "!",
    "*",
    "?",
    "%h",
    "AllowUsers ",
    "@",
    "10.0.0.0/8",
    "::1/",
    "Ciphers ",
    "+",
    "-",
    "^",
    "aes128-ctr",
    "Address ",
    "Listen",
    "Address [",
    "]",
    ":22",
    "Port ",
    "99999999999",
    "RekeyLimit ",
    "1G",
    "IPQoS ",
    "MaxStartups ",
    "10:30:100",
    "SetEnv A=",
    "Subsystem x ",
    "\0",
    "\u{e9}",
    "1h",
    "none",
    "cs7",
    "AuthenticationMethods publickey",
    "PermitUserEnvironment ",
    "HostKey ~/",
    "UsePAM yes",
];

const KEY_FRAGMENTS: &[&str] = &[
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqvg7yqKq1cL0bCw5T7yJ5zXyH0GZQyYw0n1xkYb0sM c",
    "command=\"",
    "\"",
    "\\\"",
    ",",
    " ",
    "\n",
    "\r",
    "\t",
    "#",
    "restrict",
    "no-pty",
    "environment=\"A=",
    "from=\"",
    "10.0.0.0/8",
    "!",
    "expiry-time=\"2026",
    "11220000Z\"",
    "permitopen=\"",
    ":65536",
    "ssh-rsa ",
    "ssh-ed25519 ",
    "AAAA",
    "=",
    "\0",
    "\u{e9}",
];

#[test]
fn every_seed_of_the_configuration_holds() {
    replay("config", bodies::config);
}

#[test]
fn every_seed_of_the_key_files_holds() {
    replay("authorized_keys", bodies::authorized_keys);
}

#[test]
fn mixtures_of_configuration_hold() {
    mix(CONFIG_FRAGMENTS, bodies::config);
}

#[test]
fn mixtures_of_key_files_hold() {
    mix(KEY_FRAGMENTS, bodies::authorized_keys);
}

const SHADOW_FRAGMENTS: &[&str] = &[
    "root",
    "al",
    ":",
    "::",
    "\n",
    "*",
    "!",
    "$6$salt$",
    "$y$j9T$",
    "0",
    "-1",
    "99999",
    "20000",
    "9223372036854775807",
    "x",
    "\0",
    "+",
];

#[test]
fn every_seed_of_the_shadow_files_holds() {
    replay("shadow", bodies::shadow);
}

#[test]
fn mixtures_of_shadow_files_hold() {
    mix(SHADOW_FRAGMENTS, bodies::shadow);
}

const HEAD_FRAGMENTS: &[&str] = &[
    "GET ",
    "PUT ",
    "POST ",
    "HEAD ",
    "/",
    "/log-level",
    "/debug/pprof/symbol",
    "/debug/pprof/profile?seconds=1",
    " HTTP/1.1",
    " HTTP/1.0",
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "Host: x",
    "Accept: */*",
    "Content-Length: ",
    "0",
    "4",
    "1024",
    "99999999999999",
    "-1",
    "+1",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "Agent-Client: 9",
    ":",
    " ",
    "\t",
    "\0",
    "\u{e9}",
    "x",
];

#[test]
fn every_seed_of_the_debug_services_requests_holds() {
    replay("debug_head", bodies::debug_head);
}

#[test]
fn mixtures_of_the_debug_services_requests_hold() {
    mix(HEAD_FRAGMENTS, bodies::debug_head);
}

const FRAME_FRAGMENTS: &[&str] = &[
    "\0",
    "\x01",
    "\x02",
    "\x03",
    "\x04",
    "\x05",
    "\x06",
    "\x07",
    "\x08",
    "\x0a",
    "\x0c",
    "\x0d",
    "\x0f",
    "\x10",
    "\x11",
    "\x12",
    "\x13",
    "\0\0\0\x03net",
    "\x03\0\0\0net",
    "\0\0\0\0\0\0\0\x07",
    "\x7f\x7f\x7f\x7f",
    "192.0.2.1",
    "abcdefghijklmnop",
];

#[test]
fn every_seed_of_the_debug_services_frames_holds() {
    replay("debug_frame", bodies::debug_frame);
}

#[test]
fn mixtures_of_the_debug_services_frames_hold() {
    mix(FRAME_FRAGMENTS, bodies::debug_frame);
}

const REQUEST_FRAGMENTS: &[&str] = &[
    "\0\0\0\x02al",
    "\0\0\0\x0essh-connection",
    "\0\0\0\x04none",
    "\0\0\0\x08password",
    "\0\0\0\x09publickey",
    "\0\0\0\x14keyboard-interactive",
    "\0",
    "\x01",
    "\0\0\0\0",
    "\0\0\0\x01",
    "\0\0\0\x06secret",
];

#[test]
fn every_seed_of_the_requests_holds() {
    replay("auth_request", bodies::auth_request);
}

#[test]
fn mixtures_of_requests_hold() {
    mix(REQUEST_FRAGMENTS, bodies::auth_request);
}

fn replay(target: &str, body: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut seeds = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        body(&fs::read(entry.unwrap().path()).unwrap());
        seeds += 1;
    }
    assert!(seeds > 0, "{} holds no seed", directory.display());
}

fn mix(fragments: &[&str], body: fn(&[u8])) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % limit as u64).unwrap()
    };
    for _ in 0..MIXTURES {
        let mut input = Vec::new();
        for _ in 0..below(40) {
            match fragments.get(below(fragments.len() + 4)) {
                Some(fragment) => input.extend_from_slice(fragment.as_bytes()),
                None => input.extend((0..below(9)).map(|_| u8::try_from(below(256)).unwrap())),
            }
        }
        body(&input);
    }
}
