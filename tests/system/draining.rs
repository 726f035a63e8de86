//! Servers that accept no more: what they leave to the next, and what `agent drain` ends.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::clients;
use crate::harness::{Case, World};
use crate::installed::{Echo, Installed};
use crate::processes::{wait_for, wait_until};
use crate::server::{self, LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("draining::gives_way", gives_way).only_agent(),
    Case::new("draining::ends_keepers", ends_keepers).only_agent(),
];

/// A server that drains leaves its places to the next: port, pid file and debug service.
fn gives_way(world: &World) {
    let user = world.user();
    let pid_file = world.directory.join("agent.pid");
    let lines = format!("PidFile {}", pid_file.display());
    let first = Installed::start(world, &[&lines]);
    let mut echo = Echo::start(&first.server, &user);
    first.debug(&["drain"]).success();
    // It can be looked at as long as there is no other.
    let ready = first.debug(&["readyz"]);
    assert!(
        ready.out().contains("draining"),
        "{} {}",
        ready.out(),
        ready.err()
    );
    assert_eq!(first.debug(&["upgrade"]).code(), Some(1));
    assert!(!pid_file.exists());

    let port = first.server.port;
    let command = Command::new(server::agent_file());
    let second = Server::start_by(command, world, port, &[&lines], &world.log());
    second.wait_until_ready();
    let own = format!("pid          {}\n", second.id());
    wait_until("its debug service", LIMIT, || {
        first.debug(&["readyz"]).out().contains(&own)
    });
    assert_eq!(
        fs::read_to_string(&pid_file).unwrap(),
        format!("{}\n", second.id())
    );
    echo.works("in the first");
    // A stop does not wait for the last session.
    let mut first = first.server;
    first.signal(Signal::TERM);
    assert_eq!(first.wait().code(), Some(0));
    echo.works("in its keeper");
    echo.end();
    // Its end takes nothing from the second.
    let mut debug = Command::new(server::agent_file());
    debug
        .arg("-c")
        .arg(&second.config)
        .args(["debug", "readyz"]);
    assert!(clients::run(&mut debug).success().contains(&own));
    assert!(pid_file.exists());
    assert_eq!(
        clients::ssh_run(&second, &user, "echo in").success(),
        "in\n"
    );
}

/// `agent drain` is for the server and for all that earlier programs keep.
fn ends_keepers(world: &World) {
    let user = world.user();
    let installed = Installed::start(world, &[]);
    let mut first = Echo::start(&installed.server, &user);
    installed.upgrade();
    let mut second = Echo::start(&installed.server, &user);
    first.works("in the keeper");
    second.works("in the new program");
    let mut drain = Command::new(server::agent_file());
    drain.arg("-c").arg(&installed.server.config).arg("drain");
    clients::run(&mut drain).success();
    let mut server = installed.server;
    assert_eq!(server.wait().code(), Some(0));
    for mut echo in [first, second] {
        let status = wait_for("the end of a session", LIMIT, || {
            echo.running.try_wait().unwrap()
        });
        assert_eq!(status.code(), Some(255));
    }
}
