//! The log of what is done to files, when clients want it to have holes.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::clients::{self, Running};
use crate::files::INTERNAL;
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::LIMIT;

pub const CASES: &[Case] =
    &[Case::new("audit::a_flood_that_hangs_up", a_flood_that_hangs_up).only_agent()];

const INIT: u8 = 1;
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

/// More than the log takes at once, and a client that is killed in the middle: what was done is told,
/// and what is not told was not done.
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
    // What the log takes at once are some 10,000 lines.
    wait_until("the flood to be slowed down", LIMIT, || {
        made().len() > 10_200
    });
    assert!(made().len() < count - 500, "nothing slows it down");
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
