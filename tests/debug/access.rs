//! Who may use the service, and where its socket is.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use rustix::process::{Signal, geteuid};

use crate::server::{Server, directory, wait};

/// A user that every system has and that is none of ours.
const OTHER_USER: &str = "daemon";

/// The answer's status for a request made as `OTHER_USER`.
fn status_as_other(server: &Server) -> String {
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            OTHER_USER,
            "--regid",
            OTHER_USER,
            "--clear-groups",
        ])
        .args(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"])
        .arg("--unix-socket")
        .arg(server.socket())
        .arg("http://agent/healthz")
        .stdin(Stdio::null())
        .output()
        .expect("setpriv and curl are needed");
    String::from_utf8(output.stdout).unwrap()
}

fn mode(server: &Server) -> u32 {
    fs::metadata(server.socket()).unwrap().mode() & 0o777
}

#[test]
fn the_socket_is_its_owners_without_a_list() {
    let server = Server::start(&[]);
    assert_eq!(mode(&server), 0o600);
    if geteuid().is_root() {
        assert_eq!(status_as_other(&server), "000");
    }
}

#[test]
fn credentials_decide_where_there_is_a_list() {
    if !geteuid().is_root() {
        eprintln!("only root can ask as somebody else");
        return;
    }
    let server = Server::start(&["DebugAllowUsers nobody-else"]);
    assert_eq!(mode(&server), 0o666);
    assert_eq!(status_as_other(&server), "403");
    server.wait_for_log("reason=not-allowed");
    assert!(
        server.log().contains("debug service: daemon (uid "),
        "{}",
        server.log()
    );
    assert_eq!(server.get("/healthz").status, 200, "root always may");

    for lines in [["DebugAllowUsers dae*"], ["DebugAllowGroups daemon"]] {
        let server = Server::start(&lines);
        assert_eq!(status_as_other(&server), "200", "{lines:?}");
    }
}

#[test]
fn the_confined_processes_never_may() {
    if !geteuid().is_root() {
        return;
    }
    let server = Server::start(&["DebugAllowUsers *", "DebugAllowGroups *"]);
    let output = Command::new("setpriv")
        .args(["--reuid", "64310", "--regid", "64310", "--clear-groups"])
        .args(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"])
        .arg("--unix-socket")
        .arg(server.socket())
        .arg("http://agent/healthz")
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"403");
}

#[test]
fn a_socket_of_a_crash_is_replaced() {
    let directory = directory();
    fs::create_dir(directory.join("run")).unwrap();
    drop(UnixListener::bind(directory.join("run/debug.sock")).unwrap());
    let server = Server::launch(&directory, &[]);
    wait("an answer", || {
        std::os::unix::net::UnixStream::connect(server.socket()).is_ok()
    });
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_second_server_is_told_and_serves_without() {
    let first = Server::start(&[]);
    let second = Server::launch(&first.directory, &[]);
    second.wait_for_log("no debug service");
    assert!(second.log().contains("another running server has it"));
    assert!(second.greets());
    assert_eq!(first.get("/healthz").status, 200);
    let path = first.socket();
    let inode = fs::metadata(&path).unwrap().ino();
    second.signal(Signal::TERM);
    wait("the end of the second", || !second.greets());
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(first.get("/healthz").status, 200);
    std::mem::forget(second);
}

#[test]
fn a_directory_that_cannot_hold_it_is_a_warning() {
    let directory = directory();
    let run = directory.join("run");
    fs::create_dir(&run).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
    let server = Server::launch(&directory, &[]);
    server.wait_for_log("no debug service");
    assert!(server.greets());
    assert!(!server.socket().exists());
}

#[test]
fn the_configuration_turns_it_off_and_on() {
    let server = Server::start(&[]);
    let with = fs::read_to_string(&server.config).unwrap();
    fs::write(&server.config, format!("DebugService no\n{with}")).unwrap();
    server.signal(Signal::HUP);
    wait("no socket", || !server.socket().exists());
    fs::write(&server.config, with).unwrap();
    server.signal(Signal::HUP);
    wait("the socket", || server.socket().exists());
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.children("agent: debug").len(), 1);
}

#[test]
fn the_socket_goes_with_the_server() {
    let server = Server::start(&[]);
    server.signal(Signal::TERM);
    wait("no socket", || !server.socket().exists());
}
