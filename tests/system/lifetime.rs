//! Lives and deaths: of clients, sessions, helpers, net, and the server itself.

use std::io::Write;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::accounts::User;
use crate::clients::{self, Running};
use crate::harness::{Case, World};
use crate::processes::{self, wait_for, wait_until};
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("lifetime::client_killed", client_killed),
    Case::new("lifetime::session_killed", session_killed),
    Case::new(
        "lifetime::terminate_keeps_sessions",
        terminate_keeps_sessions,
    ),
    Case::new("lifetime::hangup_reloads", hangup_reloads),
    Case::new("lifetime::nothing_stays_behind", nothing_stays_behind),
    Case::new("lifetime::client_alive", client_alive),
    Case::new("lifetime::helper_killed", helper_killed).only_agent(),
    Case::new("lifetime::strangers_net_killed", strangers_net_killed).only_agent(),
    Case::new("lifetime::users_net_killed", users_net_killed).only_agent(),
    Case::new("lifetime::drain_ends_all", drain_ends_all).only_agent(),
    Case::new("lifetime::process_titles", process_titles).only_agent(),
    Case::new(
        "lifetime::users_net_ends_after_use",
        users_net_ends_after_use,
    )
    .only_agent()
    .long(),
];

/// A session that echoes lines, to see whether it is still there.
struct Echo {
    running: Running,
}

impl Echo {
    fn start(server: &Server, user: &User) -> Self {
        let before = user.processes("cat").len();
        let mut ssh = clients::ssh(server, user);
        let running = Running::start_open(ssh.arg("exec cat"));
        wait_until("the session", LIMIT, || {
            user.processes("cat").len() > before
        });
        Self { running }
    }

    /// Sends a line, closes the input, and expects the line back.
    fn works(mut self) {
        self.running
            .child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"still here\n")
            .unwrap();
        assert_eq!(self.running.wait().success(), "still here\n");
    }
}

fn client_killed(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let mut ssh = clients::ssh(&server, &user);
    let mut running = Running::start_open(ssh.arg("cat; sleep 631"));
    wait_until("the session", LIMIT, || user.processes("cat").len() == 2);
    running.child.kill().unwrap();
    // Its input ends; what does not care about that lives on, as under OpenSSH.
    wait_until("cat to end", LIMIT, || {
        user.processes("cat;").len() + user.processes("sleep 631").len() > 0
    });
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
}

fn session_killed(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let mut ssh = clients::ssh(&server, &user);
    let running = Running::start_open(ssh.arg("exec sleep 632"));
    let session = wait_for("the session", LIMIT, || user.processes("sleep 632").pop());
    processes::kill(session, Signal::KILL);
    assert_eq!(running.wait().code(), Some(255));
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
}

/// SIGTERM: no new connections, the port is free, and who is in stays in.
fn terminate_keeps_sessions(world: &World) {
    let user = world.user();
    let mut server = world.server(&[]);
    let echo = Echo::start(&server, &user);
    server.signal(Signal::TERM);
    let status = server.wait();
    if world.is_agent() {
        assert_eq!(status.code(), Some(0));
    }
    assert!(
        std::net::TcpStream::connect(server.address()).is_err(),
        "it still listens"
    );
    let again = std::net::TcpListener::bind(server.address());
    assert!(again.is_ok(), "the port is not free: {again:?}");
    drop(again);
    echo.works();
}

/// SIGHUP: new logins see the new configuration, who is in keeps the session.
fn hangup_reloads(world: &World) {
    let user = world.user();
    let server = world.server(&["ForceCommand cat; echo old"]);
    let before = user.processes("cat").len();
    let mut ssh = clients::ssh(&server, &user);
    let running = Running::start_open(ssh.arg("x"));
    wait_until("the session", LIMIT, || {
        user.processes("cat").len() > before
    });
    server.reload(world, &["ForceCommand echo new"]);
    wait_until("the new configuration", LIMIT, || {
        clients::ssh_run(&server, &user, "x").out() == "new\n"
    });
    assert_eq!(running.wait().success(), "old\n");
    if world.is_agent() {
        // A file with mistakes changes nothing.
        server.reload(world, &["ForceCommand echo newer", "Port nonsense"]);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(clients::ssh_run(&server, &user, "x").out(), "new\n");
    }
}

fn nothing_stays_behind(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    for _ in 0..10 {
        clients::ssh_run(&server, &user, "true").success();
    }
    wait_until("the user's processes to end", LIMIT, || {
        user.processes("").is_empty()
    });
    let helpers = || {
        processes::family(server.id())
            .into_iter()
            .filter(|process| {
                process.command.starts_with("agent-helper") || process.command.contains(&user.name)
            })
            .filter(|process| !process.command.starts_with("agent: net"))
            .count()
    };
    wait_until("helpers to end", LIMIT, || helpers() == 0);
}

/// A client that stops answering is given up.
fn client_alive(world: &World) {
    let user = world.user();
    let server = world.server(&["ClientAliveInterval 1", "ClientAliveCountMax 2"]);
    let echo = Echo::start(&server, &user);
    // One that answers stays.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(user.processes("cat").len(), 1);
    let client = echo.running.child.id();
    processes::kill(client, Signal::STOP);
    wait_until("the silent client's session to end", LIMIT, || {
        user.processes("cat").is_empty()
    });
    processes::kill(client, Signal::CONT);
}

fn helper_killed(world: &World) {
    let (alice, bob) = (world.user(), world.user());
    let server = world.server(&[]);
    let hers = Echo::start(&server, &alice);
    let his = Echo::start(&server, &bob);
    let title = format!("agent-helper: {}@127.0.0.1", alice.name);
    let helpers = server.processes(&title);
    assert_eq!(helpers.len(), 1, "{helpers:?}");
    processes::kill(helpers[0].id, Signal::KILL);
    assert_eq!(hers.running.wait().code(), Some(255));
    his.works();
    assert_eq!(
        clients::ssh_run(&server, &alice, "echo in").success(),
        "in\n"
    );
}

fn net_of_strangers(server: &Server) -> Option<u32> {
    server
        .processes("agent: net")
        .into_iter()
        .find(|process| !process.command.contains('['))
        .map(|process| process.id)
}

/// A new one takes over at once; users who are in notice nothing.
fn strangers_net_killed(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let echo = Echo::start(&server, &user);
    for _ in 0..3 {
        let old = net_of_strangers(&server).expect("a net process");
        let start = Instant::now();
        processes::kill(old, Signal::KILL);
        wait_until("a new net process", LIMIT, || {
            net_of_strangers(&server).is_some_and(|new| new != old)
        });
        // 100 ms by design; the bound is generous for a busy machine.
        assert!(
            start.elapsed() < Duration::from_secs(3),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(
            clients::ssh_run(&server, &user, "echo in").success(),
            "in\n"
        );
    }
    echo.works();
    server.wait_for_log(&["net", "signal 9"]);
}

/// It takes that user's connections with it, and nobody else's.
fn users_net_killed(world: &World) {
    let (alice, bob) = (world.user(), world.user());
    let server = world.server(&[]);
    let hers = Echo::start(&server, &alice);
    let his = Echo::start(&server, &bob);
    let title = format!("agent: net [{}]", alice.name);
    let nets = server.processes(&title);
    assert_eq!(nets.len(), 1, "{nets:?}");
    processes::kill(nets[0].id, Signal::KILL);
    assert_eq!(hers.running.wait().code(), Some(255));
    wait_until("her session to end", LIMIT, || {
        alice.processes("cat").is_empty()
    });
    his.works();
    assert_eq!(
        clients::ssh_run(&server, &alice, "echo in").success(),
        "in\n"
    );
}

fn drain_ends_all(world: &World) {
    let user = world.user();
    let mut server = world.server(&[]);
    let mut ssh = clients::ssh(&server, &user);
    let running = Running::start_open(ssh.arg("exec sleep 633"));
    wait_until("the session", LIMIT, || {
        user.processes("sleep 633").len() == 1
    });
    let mut drain = std::process::Command::new(crate::server::agent_file());
    drain.arg("-c").arg(&server.config).arg("drain");
    clients::run(&mut drain).success();
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(running.wait().code(), Some(255));
}

fn process_titles(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let echo = Echo::start(&server, &user);
    let titles: Vec<String> = processes::family(server.id())
        .into_iter()
        .map(|process| process.command)
        .collect();
    for wanted in [
        "agent: net".to_owned(),
        format!("agent: net [{}]", user.name),
        format!("agent-helper: {}@127.0.0.1", user.name),
    ] {
        assert!(
            titles.contains(&wanted),
            "{wanted:?} is not among {titles:?}"
        );
    }
    echo.works();
}

fn users_net_ends_after_use(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    clients::ssh_run(&server, &user, "true").success();
    let title = format!("agent: net [{}]", user.name);
    assert_eq!(server.processes(&title).len(), 1);
    wait_until("its end", Duration::from_secs(100), || {
        server.processes(&title).is_empty()
    });
}
