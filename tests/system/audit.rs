//! The log of what is done to files, when clients want it to have holes.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clients::{self, Running};
use crate::files::INTERNAL;
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::LIMIT;

pub const CASES: &[Case] = &[
    Case::new("audit::a_flood_that_hangs_up", a_flood_that_hangs_up).only_agent(),
    Case::new("audit::full_pipes_hide_nothing", full_pipes_hide_nothing).only_agent(),
];

const INIT: u8 = 1;
const OPEN: u8 = 3;
const WRITE: u8 = 6;
const LSTAT: u8 = 7;
const MAKE_DIRECTORY: u8 = 14;

/// A packet of SFTP.
fn packet(kind: u8, fields: &[&[u8]]) -> Vec<u8> {
    let body = fields.concat();
    let length = u32::try_from(body.len() + 1).unwrap();
    [&length.to_be_bytes(), &[kind][..], &body].concat()
}

fn string(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes(), bytes].concat()
}

/// A client that asks for as much as it can and is killed in the middle: what was done is told, and
/// what is not told was not done.
fn a_flood_that_hangs_up(world: &World) {
    let user = world.user();
    let server = world.server(&[INTERNAL, "SftpAudit yes"]);
    // Each byte of the name takes four in the log.
    let name = |number: usize| [format!("{number:05}").as_bytes(), &[b'\n'; 190]].concat();
    let mut input = packet(INIT, &[&3_u32.to_be_bytes()]);
    let count = 14_000;
    for number in 0..count {
        let id = u32::try_from(number).unwrap().to_be_bytes();
        let fields: [&[u8]; 3] = [&id, &string(&name(number)), &0_u32.to_be_bytes()];
        input.extend(packet(MAKE_DIRECTORY, &fields));
    }
    let mut ssh = clients::ssh(&server, &user);
    let mut running = Running::start(ssh.args(["-s", "sftp"]), input);
    let made = || -> BTreeSet<String> {
        let entries = fs::read_dir(&user.home).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| name.as_bytes().ends_with(b"\n"))
            .map(|name| String::from_utf8_lossy(&name.as_bytes()[..5]).into_owned())
            .collect()
    };
    wait_until("a flood", LIMIT, || made().len() > 3_000);
    running.child.kill().unwrap();
    drop(running);
    wait_until("the helper to end", LIMIT, || {
        server.processes("agent-helper: ").is_empty()
    });
    let told = || -> BTreeSet<String> {
        let log = server.log_text();
        let lines = log
            .lines()
            .filter(|line| line.contains("op=mkdir result=ok"));
        lines
            .filter_map(|line| Some(line.split_once("path=\"")?.1.get(..5)?.to_owned()))
            .collect()
    };
    wait_until("all of it in the log", LIMIT, || told() == made());
}

/// A client that writes to a file, then asks and asks and reads no answer, and is killed when nothing
/// fits in any more: what it wrote is told.
fn full_pipes_hide_nothing(world: &World) {
    const PIECE_BYTES: usize = 30_000;
    let user = world.user();
    let server = world.server(&[INTERNAL, "SftpAudit yes"]);
    let mut ssh = clients::ssh(&server, &user);
    ssh.args(["-s", "sftp"]);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let number = |number: u32| number.to_be_bytes();
    to.write_all(&packet(INIT, &[&number(3)])).unwrap();
    // Write, create.
    let fields: [&[u8]; 4] = [&number(1), &string(b"file"), &number(2 | 8), &number(0)];
    to.write_all(&packet(OPEN, &fields)).unwrap();
    let mut answer = || {
        let mut length = [0; 4];
        from.read_exact(&mut length).unwrap();
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        from.read_exact(&mut body).unwrap();
        body
    };
    assert_eq!(answer()[0], 2, "the version");
    let handle = answer()[5..].to_vec();
    let data = string(&[b'x'; PIECE_BYTES]);
    let count = 20;
    for piece in 0..count {
        let offset = u64::try_from(piece * PIECE_BYTES).unwrap().to_be_bytes();
        let fields: [&[u8]; 4] = [&number(1), &handle, &offset, &data];
        to.write_all(&packet(WRITE, &fields)).unwrap();
    }
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    let writer = std::thread::spawn(move || {
        let fields: [&[u8]; 2] = [&2_u32.to_be_bytes(), &string(b".")];
        let many = packet(LSTAT, &fields).repeat(1000);
        while to.write_all(&many).is_ok() {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    wait_until("nothing to fit in any more", LIMIT, || {
        let before = sent.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs(1));
        before > 0 && sent.load(Ordering::Relaxed) == before
    });
    child.kill().unwrap();
    child.wait().unwrap();
    writer.join().unwrap();
    let line = server.wait_for_log(&["op=close", "path=\"file\""]);
    let wanted = format!(" written={}", count * PIECE_BYTES);
    assert!(line.ends_with(&wanted), "{line}");
}
