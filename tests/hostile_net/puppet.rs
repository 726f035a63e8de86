//! What the monitor executes: gives its link to the test that listens for it, or is the real thing.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::process::ExitCode;

use agent_helper::link::Link;
use agent_helper::wire::Bytes;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Variables of the server's environment: where a test waits for the link of which role.
pub const STRANGERS: &str = "HOSTILE_STRANGERS";
pub const USERS: &str = "HOSTILE_USERS";
pub const HELPER: &str = "HOSTILE_HELPER";
pub const PASSWORDS: &str = "HOSTILE_PASSWORDS";
pub const NAMES: &str = "HOSTILE_NAMES";

/// As `agent: net`.
pub fn net() -> ExitCode {
    let users = std::env::var("AGENT_NET").is_ok_and(|role| role == "users");
    let listeners: i32 = std::env::var("AGENT_LISTENERS").unwrap().parse().unwrap();
    match parents_variable(if users { USERS } else { STRANGERS }) {
        Some(path) => play(&path, 1 + listeners),
        None => agent::net::main(),
    }
}

/// As `agent-helper: …`.
pub fn helper() -> ExitCode {
    let serving = std::env::args()
        .next()
        .is_some_and(|title| title.contains("[auth]"));
    match parents_variable(HELPER) {
        Some(path) if serving => play(&path, 1),
        _ => agent::memexec::run_as_helper(std::env::args_os()).unwrap(),
    }
}

/// As a process that is asked one thing.
pub fn one_shot(variable: &str, real: fn() -> ExitCode) -> ExitCode {
    match parents_variable(variable) {
        Some(path) => play(&path, 1),
        None => real(),
    }
}

/// Hands descriptors 3 and up to the test, and lives until the test lets go.
fn play(path: &str, count: i32) -> ExitCode {
    let kind = SocketType::SEQPACKET;
    let control = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    connect(&control, &SocketAddrUnix::new(path).unwrap()).unwrap();
    let control = Link::new(control);
    #[allow(unsafe_code)] // Reason: inherited descriptors have numbers only.
    let take = |number| {
        // SAFETY: the launcher put it there, and nothing else in this process knows of it.
        unsafe { OwnedFd::from_raw_fd(number) }
    };
    let descriptors: Vec<OwnedFd> = (3..3 + count).map(take).collect();
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    control
        .send(std::process::id(), &Bytes::default(), &borrowed, true)
        .unwrap();
    // The test keeps its copies; ours would hide their end.
    drop(descriptors);
    let _ = control.receive(&mut agent_helper::link::Assembly::default(), true);
    ExitCode::SUCCESS
}

/// The launcher gives its children an environment of their own; the server's says what is wanted.
fn parents_variable(name: &str) -> Option<String> {
    let parent = rustix::process::getppid()?.as_raw_nonzero();
    let environment = std::fs::read(format!("/proc/{parent}/environ")).ok()?;
    let prefix = format!("{name}=");
    environment
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok())
        .find_map(|entry| entry.strip_prefix(&prefix).map(str::to_owned))
}
