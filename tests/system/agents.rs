//! What a client lets a session use of its own: its agent and its display.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::accounts::User;
use crate::clients;
use crate::forwarding::{Tunnel, connect};
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("agents::through_two_hops", agent_through_two_hops),
    Case::new("agents::fixed_path", agent_fixed_path).only_agent(),
    Case::new("agents::x11", x11),
];

/// An ssh-agent with the user's key; ended when dropped.
struct KeyAgent {
    _process: Tunnel,
    socket: PathBuf,
}

fn key_agent(world: &World, user: &User) -> KeyAgent {
    let socket = world.directory.join(format!("agent-{}", world.number()));
    let mut agent = Command::new("ssh-agent");
    agent.args(["-D", "-a", socket.to_str().unwrap()]);
    let process = Tunnel(agent.stdout(Stdio::null()).spawn().unwrap());
    wait_until("the agent", LIMIT, || socket.exists());
    let mut add = Command::new("ssh-add");
    add.env("SSH_AUTH_SOCK", &socket)
        .args(["-q"])
        .arg(&user.key);
    assert!(add.status().unwrap().success());
    KeyAgent {
        _process: process,
        socket,
    }
}

fn with_agent(server: &Server, user: &User, agent: &KeyAgent) -> Command {
    let mut ssh = Command::new("ssh");
    for word in clients::ssh(server, user).get_args() {
        let word = word.to_str().unwrap();
        let agent = format!("IdentityAgent={}", agent.socket.display());
        ssh.arg(word.replace("IdentityAgent=none", &agent));
    }
    ssh.env("SSH_AUTH_SOCK", &agent.socket).arg("-A");
    ssh
}

fn agent_through_two_hops(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let agent = key_agent(world, &user);
    let hop = format!(
        "ssh -F /dev/null -A -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
         -o LogLevel=ERROR -o BatchMode=yes -p {} {}@127.0.0.1",
        server.port, user.name
    );
    let mut ssh = with_agent(&server, &user, &agent);
    let output = ssh
        .arg(format!("{hop} {hop} 'ssh-add -l'"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("SHA256:"),
        "{text} {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let server = world.server(&["AllowAgentForwarding no"]);
    let mut ssh = with_agent(&server, &user, &agent);
    let output = ssh.arg("echo [$SSH_AUTH_SOCK]").output().unwrap();
    assert_eq!(output.stdout, b"[]\n");
}

/// What runs without a terminal finds the agent that a login brought.
fn agent_fixed_path(world: &World) {
    let user = world.user();
    let server = world.server(&["AgentSocketPath %h/agent.sock"]);
    let agent = key_agent(world, &user);
    let link = user.home.join("agent.sock");
    let list = || {
        let mut add = Command::new("ssh-add");
        add.env("SSH_AUTH_SOCK", &link).arg("-l");
        add.output().unwrap().status.success()
    };
    let begin = || {
        let mut ssh = with_agent(&server, &user, &agent);
        let mut child = ssh
            .arg("echo ready; exec cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 6];
        child
            .stdout
            .as_mut()
            .unwrap()
            .read_exact(&mut line)
            .unwrap();
        Tunnel(child)
    };
    let first = begin();
    let target = fs::read_link(&link).unwrap();
    assert!(list());
    let second = begin();
    assert_ne!(fs::read_link(&link).unwrap(), target, "the newest");
    drop(second);
    wait_until("the link to go back", LIMIT, || {
        fs::read_link(&link).is_ok_and(|now| now == target)
    });
    assert!(list());
    drop(first);
    wait_until("the link to go", LIMIT, || fs::read_link(&link).is_err());
}

/// A client of the forwarded display reaches the real one, with the real cookie.
fn x11(world: &World) {
    let user = world.user();
    let server = world.server(&["X11Forwarding yes", "X11DisplayOffset 70"]);
    let (display, screen) = (700..5000)
        .find_map(|number| {
            let listener = TcpListener::bind(("127.0.0.1", 6000 + number)).ok()?;
            Some((format!("127.0.0.1:{number}"), listener))
        })
        .unwrap();
    let authority = world.directory.join("xauthority");
    let cookie = "00112233445566778899aabbccddeeff";
    let mut add = Command::new("xauth");
    add.arg("-f").arg(&authority);
    let added = add.args(["add", &display, ".", cookie]).status().unwrap();
    assert!(added.success());
    let mut ssh = clients::ssh(&server, &user);
    ssh.env("DISPLAY", &display).env("XAUTHORITY", &authority);
    ssh.args(["-Y", "echo $DISPLAY; xauth list; cat"]);
    ssh.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let name = lines.next().unwrap().unwrap();
    let number: u16 = name
        .strip_prefix("localhost:")
        .and_then(|rest| rest.split('.').next()?.parse().ok())
        .unwrap_or_else(|| panic!("DISPLAY {name}"));
    assert!(number >= 70);
    let listed = lines.next().unwrap().unwrap();
    let fake = listed.split_whitespace().last().unwrap().to_owned();
    assert!(
        listed.contains(&format!("unix:{number}")) && fake != cookie,
        "{listed}"
    );
    // A client of the X protocol, as far as its first packet goes.
    let mut stream = connect(6000 + number);
    let mut hello = b"l\0\x0b\0\0\0\x12\0\x10\0\0\0MIT-MAGIC-COOKIE-1\0\0".to_vec();
    hello.extend(bytes_of(&fake));
    stream.write_all(&hello).unwrap();
    let (mut seen, _) = screen.accept().unwrap();
    let mut packet = vec![0; hello.len()];
    seen.read_exact(&mut packet).unwrap();
    assert!(
        packet.ends_with(&bytes_of(cookie)),
        "the cookie of the real display"
    );
    drop((seen, stream, child.stdin.take()));
    child.wait().unwrap();
    wait_until("the display to go with its session", LIMIT, || {
        TcpStream::connect(("127.0.0.1", 6000 + number)).is_err()
    });
}

fn bytes_of(digits: &str) -> Vec<u8> {
    (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
        .collect()
}
