//! What a connection does besides sessions and forwards: host keys, ends of what is idle.

use std::fs;
use std::process::Command;

use crate::accounts::{self, User};
use crate::clients;
use crate::harness::{Case, World};
use crate::server::Server;

/// Those about times are for `agent` only: sshd 9.2 does not have the keywords yet.
pub const CASES: &[Case] = &[
    Case::new("housekeeping::host_keys_are_learned", host_keys_are_learned),
    Case::new(
        "housekeeping::the_next_key_is_learned",
        the_next_key_is_learned,
    ),
    Case::new("housekeeping::idle_channels_end", idle_channels_end).only_agent(),
    Case::new(
        "housekeeping::unused_connections_end",
        unused_connections_end,
    )
    .only_agent(),
];

/// A client that knows one key, `known`, and updates its file.
fn updating(server: &Server, user: &User, known: &str, algorithms: &str) -> Command {
    let mut ssh = Command::new("ssh");
    for word in clients::ssh(server, user).get_args() {
        let word = word.to_str().unwrap();
        ssh.arg(word.replace("UserKnownHostsFile=/dev/null", known));
    }
    let algorithms = format!("HostKeyAlgorithms={algorithms}");
    ssh.args(["-o", &algorithms, "-o", "UpdateHostKeys=yes", "sleep 1"]);
    ssh
}

/// Every key is announced and proven, whichever signed the exchange, RSA with both hashes.
fn host_keys_are_learned(world: &World) {
    let user = world.user();
    let lines: Vec<String> = ["ecdsa256", "rsa"]
        .map(|name| format!("HostKey {}", world.host_key(name).display()))
        .into();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let server = world.server(&lines);
    for first in [
        "ssh-ed25519",
        "ecdsa-sha2-nistp256",
        "rsa-sha2-256",
        "rsa-sha2-512",
    ] {
        let file = world.directory.join(format!("known-{first}"));
        let known = format!("UserKnownHostsFile={}", file.display());
        // At the first connection a client trusts the one key that it sees.
        let all = format!("{first},ssh-ed25519,ecdsa-sha2-nistp256,rsa-sha2-256,rsa-sha2-512");
        for _ in 0..2 {
            clients::run(&mut updating(&server, &user, &known, &all)).success();
        }
        let text = fs::read_to_string(&file).unwrap();
        let mut types: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .collect();
        types.sort_unstable();
        assert_eq!(
            types,
            ["ecdsa-sha2-nistp256", "ssh-ed25519", "ssh-rsa"],
            "{first}"
        );
    }
}

/// A second key of a type is for the day when the first one goes: no exchange uses it.
fn the_next_key_is_learned(world: &World) {
    let user = world.user();
    let first = world.directory.join("first");
    accounts::make_key(&first, &["-t", "ed25519"]);
    // Before the key that all servers here have.
    let server = world.server(&[&format!("HostKey {}", first.display())]);
    let file = world.directory.join("known-next");
    let known = format!("UserKnownHostsFile={}", file.display());
    let public = fs::read_to_string(world.host_key("ed25519").with_extension("pub")).unwrap();
    let blob = public.split(' ').nth(1).unwrap();
    for _ in 0..2 {
        clients::run(&mut updating(&server, &user, &known, "ssh-ed25519")).success();
    }
    let both = fs::read_to_string(&file).unwrap();
    assert!(both.contains(blob) && both.lines().count() == 2, "{both}");
    let mut scan = Command::new("ssh-keyscan");
    scan.args(["-t", "ed25519", "-p", &server.port.to_string(), "127.0.0.1"]);
    let scanned = clients::run(&mut scan).success();
    assert!(!scanned.contains(blob), "{scanned}");
}

/// What rests is ended, what moves is not.
fn idle_channels_end(world: &World) {
    let user = world.user();
    let server = world.server(&["ChannelTimeout session:command=2"]);
    let resting = clients::ssh_run(&server, &user, "sleep 60");
    assert_eq!(resting.code(), Some(255));
    let moving = "for n in 1 2 3 4 5 6 7; do echo $n; sleep 0.5; done; exit 7";
    assert_eq!(clients::ssh_run(&server, &user, moving).code(), Some(7));
}

fn unused_connections_end(world: &World) {
    let user = world.user();
    let server = world.server(&["UnusedConnectionTimeout 2"]);
    let mut ssh = clients::ssh(&server, &user);
    let unused = clients::run(ssh.arg("-N"));
    assert_eq!(unused.code(), Some(255));
    let used = clients::ssh_run(&server, &user, "sleep 4; exit 7");
    assert_eq!(used.code(), Some(7));
}
