//! Bulk data both ways, with new keys all the time.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::accounts::User;
use crate::clients::{self, Running};
use crate::harness::{Case, World};
use crate::server::Server;

pub const CASES: &[Case] = &[
    Case::new("transfer::rekey_by_server", rekey_by_server).long(),
    Case::new("transfer::rekey_by_client", rekey_by_client).long(),
    Case::new("transfer::both_ways_at_once", both_ways_at_once).long(),
    Case::new("transfer::every_cipher", every_cipher),
    Case::new("transfer::slow_reader", slow_reader),
];

const MEGABYTE: usize = 1 << 20;
/// Generous, for debug builds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// Bytes that do not compress or repeat soon, the same every time.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn checksum(bytes: &[u8]) -> String {
    let sum = Running::start(&mut Command::new("sha256sum"), bytes.to_vec())
        .wait()
        .success();
    sum.split(' ').next().unwrap().to_owned()
}

/// With a cheap key exchange: there will be hundreds.
fn ssh(server: &Server, user: &User) -> Command {
    let mut ssh = clients::ssh(server, user);
    ssh.args(["-o", "KexAlgorithms=curve25519-sha256"]);
    ssh
}

fn upload(world: &World, server: &Server, bytes: &[u8], options: &[&str]) {
    let user = world.user();
    let mut ssh = ssh(server, &user);
    ssh.args(options).arg("sha256sum");
    let sum = Running::start(&mut ssh, bytes.to_vec())
        .wait_within(PATIENCE)
        .success();
    assert_eq!(
        sum.split(' ').next().unwrap(),
        checksum(bytes),
        "what arrived is not what was sent"
    );
}

fn download(world: &World, server: &Server, bytes: &[u8], options: &[&str]) {
    let user = world.user();
    let file = user.home.join("data");
    std::fs::write(&file, bytes).unwrap();
    let mut ssh = ssh(server, &user);
    ssh.args(options).arg("cat data");
    let ran = Running::start(&mut ssh, Vec::new()).wait_within(PATIENCE);
    assert!(ran.status.success(), "{}", ran.err());
    assert!(
        ran.stdout == bytes,
        "{} bytes instead of {}",
        ran.stdout.len(),
        bytes.len()
    );
}

fn rekey_by_server(world: &World) {
    let server = world.server(&["RekeyLimit 1M"]);
    let bytes = noise(100 * MEGABYTE);
    upload(world, &server, &bytes, &[]);
    download(world, &server, &bytes, &[]);
}

fn rekey_by_client(world: &World) {
    let server = world.server(&[]);
    let bytes = noise(100 * MEGABYTE);
    let options = ["-o", "RekeyLimit=1M"];
    upload(world, &server, &bytes, &options);
    download(world, &server, &bytes, &options);
}

/// `cat`: the same bytes go in and come out while both sides want new keys.
fn both_ways_at_once(world: &World) {
    let user = world.user();
    let server = world.server(&["RekeyLimit 1M"]);
    let bytes = noise(32 * MEGABYTE);
    let mut ssh = ssh(&server, &user);
    ssh.args(["-o", "RekeyLimit=1500K", "cat"]);
    let ran = Running::start(&mut ssh, bytes.clone()).wait_within(PATIENCE);
    assert!(ran.status.success(), "{}", ran.err());
    assert!(
        ran.stdout == bytes,
        "{} bytes instead of {}",
        ran.stdout.len(),
        bytes.len()
    );
}

fn every_cipher(world: &World) {
    let server = world.server(&["RekeyLimit 256K"]);
    let bytes = noise(2 * MEGABYTE);
    for cipher in [
        "chacha20-poly1305@openssh.com",
        "aes128-gcm@openssh.com",
        "aes256-gcm@openssh.com",
        "aes128-ctr",
        "aes192-ctr",
        "aes256-ctr",
    ] {
        upload(world, &server, &bytes, &["-c", cipher]);
        download(world, &server, &bytes, &["-c", cipher]);
    }
}

/// A client that does not read stops its command; the server does not gather what it writes.
fn slow_reader(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let before = server.memory_kib();
    let mut ssh = clients::ssh(&server, &user);
    ssh.arg("head -c 300000000 /dev/zero")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    let during = server.memory_kib();
    let mut first = [0_u8; 65536];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut first)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        during < before + 40_000,
        "memory went from {before} to {during} KiB"
    );
}
