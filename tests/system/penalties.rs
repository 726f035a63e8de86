//! Addresses that behave badly are refused for a while, and others are not.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

use crate::accounts::User;
use crate::clients::{self, Ran};
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::{LIMIT, Server};

// Debian 12's sshd does not know the keyword yet.
pub const CASES: &[Case] = &[
    Case::new("penalties::failed_logins", failed_logins).only_agent(),
    Case::new("penalties::they_end", they_end).only_agent(),
    Case::new("penalties::small_ones_add_up", small_ones_add_up).only_agent(),
    Case::new("penalties::grace_and_silence", grace_and_silence).only_agent(),
    Case::new("penalties::exemptions", exemptions).only_agent(),
    Case::new("penalties::refuse_connection", refuse_connection).only_agent(),
    Case::new("penalties::reload_keeps_them", reload_keeps_them).only_agent(),
];

/// A login from another address of this machine.
fn log_in_from(server: &Server, address: &str, user: &User) -> Ran {
    let mut ssh = Command::new("ssh");
    ssh.args(["-b", address])
        .args(clients::ssh_options(&user.key))
        .args(["-p", &server.port.to_string()])
        .arg(format!("{}@127.0.0.1", user.name))
        .arg("echo in");
    clients::run(&mut ssh)
}

/// What the server says first to a connection from `address`.
fn greeting(server: &Server, address: Ipv4Addr) -> String {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((address, 0))).unwrap();
    connect(&socket, &server.address()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let _ = stream.write_all(b"SSH-2.0-probe\r\n");
    let mut start = [0; 8];
    let got = stream.read(&mut start).unwrap_or(0);
    String::from_utf8_lossy(&start[..got]).into_owned()
}

fn is_refused(server: &Server, address: &str) -> bool {
    !greeting(server, address.parse().unwrap()).starts_with("SSH-2.0-")
}

fn failed_logins(world: &World) {
    let (user, stranger) = (world.user(), world.user());
    let server = world.server(&["PerSourcePenalties authfail:300s min:0"]);
    let wrong = User {
        key: stranger.key.clone(),
        name: user.name.clone(),
        home: std::path::PathBuf::new(),
        id: u32::MAX,
        group_id: u32::MAX,
    };
    log_in_from(&server, "127.0.0.77", &wrong).refused();
    std::mem::forget(wrong);
    server.wait_for_log(&["activating a penalty of 300 seconds for 127.0.0.77: authfail"]);
    assert_eq!(log_in_from(&server, "127.0.0.77", &user).code(), Some(255));
    assert_eq!(greeting(&server, Ipv4Addr::new(127, 0, 0, 77)), "Not allo");
    server.wait_for_log(&[
        "drop connection from 127.0.0.77",
        "penalty: failed authentication",
        "reason=penalty",
    ]);
    // Nobody else is meant.
    let ran = log_in_from(&server, "127.0.0.78", &user);
    assert_eq!(ran.success(), "in\n");
}

fn they_end(world: &World) {
    let user = world.user();
    let server = world.server(&["PerSourcePenalties invaliduser:2s authfail:0 noauth:0 min:0"]);
    let nobody = clients::run(
        Command::new("ssh")
            .args(["-b", "127.0.0.79"])
            .args(clients::ssh_options(&user.key))
            .args(["-p", &server.port.to_string()])
            .args(["no-such-user-here@127.0.0.1", "true"]),
    );
    nobody.refused();
    server.wait_for_log(&["penalty of 2 seconds for 127.0.0.79: invaliduser"]);
    assert!(is_refused(&server, "127.0.0.79"));
    wait_until("the penalty's end", LIMIT, || {
        !is_refused(&server, "127.0.0.79")
    });
    let ran = log_in_from(&server, "127.0.0.79", &user);
    assert_eq!(ran.success(), "in\n");
}

fn small_ones_add_up(world: &World) {
    let user = world.user();
    let server = world.server(&["PerSourcePenalties noauth:100 min:250 max:1000"]);
    // A login costs nothing.
    let ran = log_in_from(&server, "127.0.0.80", &user);
    assert_eq!(ran.success(), "in\n");
    for round in 1..=3 {
        assert!(!is_refused(&server, "127.0.0.80"), "round {round}");
        let sum = format!("penalty of {}", round * 100 - 1);
        let exact = format!("penalty of {}", round * 100);
        wait_until("the penalty", LIMIT, || {
            let log = server.log_text();
            log.contains(&sum) || log.contains(&exact)
        });
    }
    assert!(is_refused(&server, "127.0.0.80"));
}

fn grace_and_silence(world: &World) {
    let server = world.server(&[
        "PerSourcePenalties noauth:0 grace-exceeded:300 min:0",
        "LoginGraceTime 1",
    ]);
    let address: Ipv4Addr = "127.0.0.81".parse().unwrap();
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((address, 0))).unwrap();
    connect(&socket, &server.address()).unwrap();
    server.wait_for_log(&["penalty of 300 seconds for 127.0.0.81: grace-exceeded"]);
    assert!(is_refused(&server, "127.0.0.81"));
    drop(socket);
}

fn exemptions(world: &World) {
    let listed = world.server(&[
        "PerSourcePenalties noauth:300 min:0",
        "PerSourcePenaltyExemptList 10.0.0.0/8,127.0.0.82",
    ]);
    let by_default = world.server(&[]);
    for _ in 0..20 {
        assert!(!is_refused(&listed, "127.0.0.82"));
        assert!(!is_refused(&by_default, "127.0.0.83"));
    }
    assert!(!is_refused(&listed, "127.0.0.84"));
    wait_until("a penalty", LIMIT, || is_refused(&listed, "127.0.0.84"));
    std::thread::sleep(Duration::from_millis(300));
    assert!(!by_default.log_text().contains("penalty"));
}

fn refuse_connection(world: &World) {
    let (welcome, unwelcome) = (world.user(), world.user());
    let server = world.server(&[
        "PerSourcePenalties refuseconnection:300 noauth:0 min:0",
        &format!("Match User {}", unwelcome.name),
        "RefuseConnection yes",
        "Match Address 127.0.0.86",
        "RefuseConnection yes",
    ]);
    assert_eq!(
        log_in_from(&server, "127.0.0.85", &unwelcome).code(),
        Some(255)
    );
    server.wait_for_log(&["event=refused", &unwelcome.name, "reason=refuse-connection"]);
    server.wait_for_log(&["for 127.0.0.85: refuseconnection"]);
    assert!(is_refused(&server, "127.0.0.85"));
    assert!(is_refused(&server, "127.0.0.86"));
    let ran = log_in_from(&server, "127.0.0.87", &welcome);
    assert_eq!(ran.success(), "in\n");
}

fn reload_keeps_them(world: &World) {
    let lines = ["PerSourcePenalties noauth:300 min:0"];
    let server = world.server(&lines);
    assert!(!is_refused(&server, "127.0.0.88"));
    wait_until("a penalty", LIMIT, || is_refused(&server, "127.0.0.88"));
    server.reload(world, &lines);
    server.wait_for_log(&["Received SIGHUP"]);
    std::thread::sleep(Duration::from_millis(300));
    assert!(is_refused(&server, "127.0.0.88"));
    // Without the keyword nobody is refused, whatever is remembered.
    server.reload(world, &["PerSourcePenalties no"]);
    wait_until("forgiveness", LIMIT, || !is_refused(&server, "127.0.0.88"));
}
