//! Many sessions on one connection, as people share it: `ControlMaster`, `ControlPersist`, `-O`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::accounts::User;
use crate::clients::{self, Ran, Running};
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("mux::hundred_sessions", hundred_sessions),
    Case::new("mux::kill_the_other_session", kill_the_other_session),
    Case::new("mux::as_it_comes", as_it_comes),
    Case::new("mux::no_more_sessions", no_more_sessions),
];

/// A connection that others share; it ends with this.
struct Shared {
    socket: PathBuf,
    _master: Running,
}

impl Shared {
    fn new(world: &World, server: &Server, user: &User) -> Self {
        let socket = world.directory.join(format!("m{}", world.number()));
        let mut ssh = clients::ssh(server, user);
        ssh.args(["-N", "-M", "-S"]).arg(&socket);
        let master = Running::start_open(&mut ssh);
        wait_until("the shared connection", LIMIT, || socket.exists());
        Self {
            socket,
            _master: master,
        }
    }

    fn session(&self, remote: &str) -> Command {
        on(&self.socket, &["shared", remote])
    }
}

/// `ssh` by way of `socket`.
fn on(socket: &Path, arguments: &[&str]) -> Command {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-S"]).arg(socket).args(arguments);
    ssh
}

fn control(socket: &Path, command: &str) -> Ran {
    clients::run(&mut on(socket, &["-O", command, "shared"]))
}

fn hundred_sessions(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxSessions 100"]);
    let shared = Shared::new(world, &server, &user);
    let sessions: Vec<Running> = (0..100)
        .map(|number| Running::start_open(&mut shared.session(&format!("echo {number}; exec cat"))))
        .collect();
    wait_until("a hundred sessions", LIMIT, || {
        user.processes("cat").len() == 100
    });
    let one_more = clients::run(&mut shared.session("echo one more"));
    assert_eq!(one_more.out(), "", "MaxSessions is a hundred");
    for (number, session) in sessions.into_iter().enumerate() {
        assert_eq!(session.wait().success(), format!("{number}\n"));
    }
    assert_eq!(
        clients::run(&mut shared.session("echo again")).success(),
        "again\n"
    );
}

/// The recipe by which a script ends what the one before it left on its connection.
fn kill_the_other_session(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let (one, other) = (
        Shared::new(world, &server, &user),
        Shared::new(world, &server, &user),
    );
    let doomed = Running::start_open(&mut one.session("exec sleep 9801"));
    let spared = Running::start_open(&mut other.session("cat; echo spared"));
    wait_until("both sessions", LIMIT, || {
        user.processes("sleep 9801").len() == 1 && !user.processes("cat").is_empty()
    });
    let recipe = "ps --no-headers -o pid --ppid=$PPID | grep -v $$ | xargs kill";
    clients::run(&mut one.session(recipe));
    assert_ne!(doomed.wait().code(), Some(0));
    assert!(user.processes("sleep 9801").is_empty());
    assert_eq!(spared.wait().success(), "spared\n");
    assert_eq!(clients::run(&mut one.session("echo on")).success(), "on\n");
}

/// `ControlMaster auto`: the first command makes the connection, `ControlPersist` keeps it.
fn as_it_comes(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let socket = world.directory.join("auto");
    let ssh = |remote: &str| {
        let mut ssh = clients::ssh(&server, &user);
        ssh.args(["-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-S"]);
        ssh.arg(&socket).arg(remote);
        ssh
    };
    let first = clients::run(&mut ssh("echo $SSH_CONNECTION")).success();
    let second = clients::run(&mut ssh("echo $SSH_CONNECTION")).success();
    assert_eq!(first, second, "one connection");
    control(&socket, "check").success();
    // No new sessions; those that are there stay.
    let staying = Running::start_open(&mut on(&socket, &["shared", "cat; echo stayed"]));
    wait_until("the session", LIMIT, || !user.processes("cat").is_empty());
    control(&socket, "stop").success();
    wait_until("the socket to go", LIMIT, || !socket.exists());
    assert_eq!(staying.wait().success(), "stayed\n");
    let third = clients::run(&mut ssh("echo $SSH_CONNECTION")).success();
    assert_ne!(first, third, "another connection");
    control(&socket, "exit").success();
    wait_until("the user's processes to end", LIMIT, || {
        user.processes("").is_empty()
    });
}

/// A client that has ruled out further sessions and opens one is not the client any more.
fn no_more_sessions(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let program = r#"
begin_echo()
say(80, "no-more-sessions@openssh.com", True)
print(hear()[0])
echo()
say(90, "session", 1, 1 << 20, 1 << 15)
client.join(30)
print("ended" if not client.is_active() else "goes on")
"#;
    let out = crate::overload::run_as(&server, &user.name, &user.key, program);
    assert_eq!(out, "81\nended\n");
}
