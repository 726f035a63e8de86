//! Commands without a terminal: streams, ends, environment, many on one connection.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::accounts::User;
use crate::clients::{self, Running};
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("session::exit_status", exit_status),
    Case::new("session::exit_signal", exit_signal),
    Case::new("session::streams_apart", streams_apart),
    Case::new("session::end_of_input", end_of_input),
    Case::new(
        "session::background_job_keeps_channel",
        background_job_keeps_channel,
    ),
    Case::new(
        "session::background_job_without_streams",
        background_job_without_streams,
    ),
    Case::new("session::environment", environment),
    Case::new("session::accept_env", accept_env),
    Case::new("session::original_command", original_command),
    Case::new("session::shell_reads_commands", shell_reads_commands),
    Case::new("session::user_rc", user_rc),
    Case::new("session::umask_and_limits", umask_and_limits),
    Case::new("session::no_stray_descriptors", no_stray_descriptors),
    Case::new("session::many_on_one_connection", many_on_one_connection),
    Case::new("session::max_sessions", max_sessions),
    Case::new("session::fifty_connections", fifty_connections),
    Case::new("session::signal_request", signal_request),
    Case::new("session::end_of_write", end_of_write),
    Case::new(
        "session::output_that_nobody_reads",
        output_that_nobody_reads,
    ),
    Case::new("session::refused_requests", refused_requests),
];

fn exit_status(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    for code in [0, 1, 2, 127, 254] {
        let ran = clients::ssh_run(&server, &user, &format!("exit {code}"));
        assert_eq!(ran.code(), Some(code));
    }
    let ran = clients::ssh_run(&server, &user, "no-such-command-here");
    assert_eq!(ran.code(), Some(127));
    assert!(ran.err().contains("not found"), "{}", ran.err());
}

/// A command killed by a signal: the client says 255, and asyncssh which signal it was.
fn exit_signal(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    assert_eq!(
        clients::ssh_run(&server, &user, "kill -TERM $$").code(),
        Some(255)
    );
    let program = r#"
import asyncio, sys, asyncssh
async def main():
    name, key, port = sys.argv[1:4]
    async with asyncssh.connect("127.0.0.1", int(port), username=name, client_keys=[key],
                                known_hosts=None, config=None, agent_path=None) as connection:
        for signal in "TERM KILL USR1 SEGV".split():
            result = await connection.run(f"kill -{signal} $$")
            print(signal, result.exit_signal[0], result.exit_status)
        print((await connection.run("exit 9")).exit_status)
asyncio.run(main())
"#;
    let out = run_python(&server, &user, program);
    let expected = "TERM TERM -1\nKILL KILL -1\nUSR1 USR1 -1\nSEGV SEGV -1\n9\n";
    assert_eq!(out, expected);
}

pub fn run_python(server: &Server, user: &User, program: &str) -> String {
    let mut python = std::process::Command::new(clients::python());
    python
        .args(["-c", program, &user.name])
        .arg(&user.key)
        .arg(server.port.to_string());
    clients::run(&mut python).success()
}

fn streams_apart(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let ran = clients::ssh_run(
        &server,
        &user,
        "for i in 1 2 3; do echo out$i; echo err$i >&2; done; exec 1>&-; sleep 0.2; echo late >&2",
    );
    assert_eq!(ran.out(), "out1\nout2\nout3\n");
    assert_eq!(ran.err(), "err1\nerr2\nerr3\nlate\n");
    assert_eq!(ran.code(), Some(0));
    // Megabytes on both at once.
    let remote = "head -c 3000000 /dev/zero >&2 & head -c 3000000 /dev/zero; wait";
    let ran = clients::ssh_run(&server, &user, remote);
    assert_eq!((ran.stdout.len(), ran.stderr.len()), (3_000_000, 3_000_000));
}

fn end_of_input(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let mut ssh = clients::ssh(&server, &user);
    let ran = Running::start(ssh.arg("cat; echo eof"), b"some input\n".to_vec()).wait();
    assert_eq!(ran.success(), "some input\neof\n");
    // A command that does not read its input ends all the same.
    let mut ssh = clients::ssh(&server, &user);
    let ran = Running::start(ssh.arg("echo done"), vec![b'x'; 5_000_000]).wait();
    assert_eq!(ran.success(), "done\n");
}

/// As with OpenSSH: a job that holds the output keeps the channel open until it ends.
fn background_job_keeps_channel(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let start = Instant::now();
    let ran = clients::ssh_run(&server, &user, "(sleep 3; echo later) & echo hi");
    assert_eq!(ran.success(), "hi\nlater\n");
    assert!(
        start.elapsed() >= Duration::from_millis(2900),
        "{:?}",
        start.elapsed()
    );
}

/// A job that holds none of the streams does not keep the client waiting, and lives on.
fn background_job_without_streams(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let start = Instant::now();
    let remote = "sleep 621 </dev/null >/dev/null 2>&1 & echo hi";
    assert_eq!(clients::ssh_run(&server, &user, remote).success(), "hi\n");
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(user.processes("sleep 621").len(), 1, "the job lives on");
}

fn variables(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once('='));
    lines
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Exactly what OpenSSH gives a command without a terminal.
fn environment(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    // From a file: what /bin/sh adds of its own is not in there.
    let out = clients::ssh_run(&server, &user, "tr '\\0' '\\n' </proc/$$/environ").success();
    let mut variables = variables(&out);
    let port = server.port.to_string();
    let connection = variables.remove("SSH_CONNECTION").expect("SSH_CONNECTION");
    let parts: Vec<&str> = connection.split(' ').collect();
    assert_eq!(
        (parts[0], parts[2], parts[3]),
        ("127.0.0.1", "127.0.0.1", port.as_str())
    );
    let client = variables.remove("SSH_CLIENT").expect("SSH_CLIENT");
    assert_eq!(client, format!("127.0.0.1 {} {port}", parts[1]));
    for (name, value) in [
        ("USER", user.name.as_str()),
        ("LOGNAME", &user.name),
        ("HOME", user.home.to_str().unwrap()),
        ("SHELL", "/bin/sh"),
    ] {
        assert_eq!(variables.remove(name).as_deref(), Some(value), "{name}");
    }
    let path = variables.remove("PATH").expect("PATH");
    assert!(
        path.split(':').any(|directory| directory == "/usr/bin"),
        "{path}"
    );
    if let Some(mail) = variables.remove("MAIL") {
        assert_eq!(mail, format!("/var/mail/{}", user.name));
    }
    // Debian's sshd passes its own LANG and time zone settings on.
    for optional in ["LANG", "TZ", "SHLVL", "PWD", "_", "OLDPWD"] {
        variables.remove(optional);
    }
    assert!(variables.is_empty(), "also: {variables:?}");
}

fn accept_env(world: &World) {
    let user = world.user();
    let server = world.server(&["AcceptEnv LANG LC_* WANTED", "SetEnv FIXED=by-server"]);
    let mut ssh = clients::ssh(&server, &user);
    for (name, value) in [
        ("LC_TIME", "de_AT"),
        ("WANTED", "with space"),
        ("UNWANTED", "x"),
        ("FIXED", "by-client"),
        ("PATH_LIKE", "y"),
    ] {
        ssh.args(["-o", &format!("SetEnv={name}=\"{value}\"")]);
        // OpenSSH's client takes all settings from one line only.
        ssh.env(name, value)
            .args(["-o", &format!("SendEnv={name}")]);
    }
    let remote = "echo \"$LC_TIME|$WANTED|$UNWANTED|$FIXED|$PATH_LIKE\"";
    let out = clients::run(ssh.arg(remote)).success();
    assert_eq!(out, "de_AT|with space||by-server|\n");
}

fn original_command(world: &World) {
    let user = world.user();
    let server = world.server(&["ForceCommand echo \"forced: $SSH_ORIGINAL_COMMAND\""]);
    assert_eq!(
        clients::ssh_run(&server, &user, "some 'thing'").success(),
        "forced: some 'thing'\n"
    );
    let mut ssh = clients::ssh(&server, &user);
    assert_eq!(clients::run(&mut ssh).success(), "forced: \n");
}

fn shell_reads_commands(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let script = b"echo $0; cd /; pwd; exit 6\n".to_vec();
    let ran = Running::start(&mut clients::ssh(&server, &user), script).wait();
    assert_eq!(
        (ran.out().as_str(), ran.code()),
        ("-sh\n/\n", Some(6)),
        "{}",
        ran.err()
    );
}

fn user_rc(world: &World) {
    let user = world.user();
    user.write(".ssh/rc", "echo rc-ran >&2\n");
    let server = world.server(&[]);
    let ran = clients::ssh_run(&server, &user, "echo command");
    assert_eq!(
        (ran.out().as_str(), ran.err().as_str()),
        ("command\n", "rc-ran\n")
    );
    // With ForceCommand nothing of the user's runs before the command, which may be there to keep
    // the user from running anything.
    for line in ["PermitUserRC no", "ForceCommand echo command"] {
        let server = world.server(&[line]);
        let ran = clients::ssh_run(&server, &user, "echo command");
        let said = (ran.out(), ran.err());
        assert_eq!(
            (said.0.as_str(), said.1.as_str()),
            ("command\n", ""),
            "{line}"
        );
    }
}

/// The server's own raised limits and its session are not the session's.
fn umask_and_limits(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let ours = std::process::Command::new("sh")
        .args(["-c", "umask; ulimit -n; ulimit -c"])
        .output();
    let ours = String::from_utf8(ours.unwrap().stdout).unwrap();
    let theirs = clients::ssh_run(&server, &user, "umask; ulimit -n; ulimit -c").success();
    assert_eq!(theirs, ours);
    let remote = "grep -E '^(SigBlk|SigIgn|NoNewPrivs|CapEff)' /proc/self/status | tr -d '\\t'";
    let status = clients::ssh_run(&server, &user, remote).success();
    assert!(status.contains("SigBlk:0000000000000000"), "{status}");
    if world.is_agent() {
        assert!(status.contains("SigIgn:0000000000000000"), "{status}");
    }
    assert!(
        status.contains("NoNewPrivs:0"),
        "it would break the user's sudo: {status}"
    );
    assert!(status.contains("CapEff:0000000000000000"), "{status}");
}

fn no_stray_descriptors(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let out = clients::ssh_run(&server, &user, "ls /proc/$$/fd").success();
    let mut descriptors: Vec<&str> = out.split_whitespace().collect();
    // dash opens 10 for its own use in scripts, never here.
    descriptors.sort_unstable();
    assert_eq!(descriptors, ["0", "1", "2"]);
}

/// A master connection of OpenSSH's client, for several sessions on one connection.
struct Master {
    socket: String,
    _running: Running,
}

impl Master {
    fn start(world: &World, server: &Server, user: &User) -> Self {
        let socket = world
            .directory
            .join(format!("m{}", world.number()))
            .display()
            .to_string();
        let mut ssh = clients::ssh(server, user);
        ssh.args(["-N", "-M", "-S", &socket]);
        let running = Running::start_open(&mut ssh);
        wait_until("the master connection", LIMIT, || {
            std::fs::exists(&socket).unwrap_or(false)
        });
        Self {
            socket,
            _running: running,
        }
    }

    fn session(&self, remote: &str) -> std::process::Command {
        let mut ssh = std::process::Command::new("ssh");
        ssh.args(["-F", "none", "-S", &self.socket, "any-host", remote]);
        ssh
    }
}

/// All are children of one process, and nothing else is.
fn many_on_one_connection(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let master = Master::start(world, &server, &user);
    let mut sleeping: Vec<Running> = (0..5)
        .map(|_| Running::start_open(&mut master.session("echo up; exec cat")))
        .collect();
    wait_until("five sessions", LIMIT, || user.processes("cat").len() == 5);
    let listing = clients::run(&mut master.session("ps -o args= --ppid=$PPID")).success();
    if world.is_agent() {
        let mut lines: Vec<&str> = listing.lines().collect();
        lines.sort_unstable();
        let expected = ["cat"; 5];
        assert_eq!(
            lines.iter().filter(|line| **line == "cat").count(),
            5,
            "{listing}"
        );
        assert_eq!(lines.len(), expected.len() + 1, "only sessions: {listing}");
    } else {
        assert_eq!(
            listing.lines().filter(|line| line.contains("cat")).count(),
            5,
            "{listing}"
        );
    }
    for session in &mut sleeping {
        session
            .child
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"through\n")
            .unwrap();
    }
    for session in sleeping {
        assert_eq!(session.wait().success(), "up\nthrough\n");
    }
    // One after the other on the same connection.
    for number in 0..20 {
        let ran = clients::run(&mut master.session(&format!("echo {number}; exit {number}")));
        assert_eq!(
            (ran.out(), ran.code()),
            (format!("{number}\n"), Some(number))
        );
    }
}

fn max_sessions(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxSessions 2"]);
    let master = Master::start(world, &server, &user);
    let held: Vec<Running> = (0..2)
        .map(|_| Running::start_open(&mut master.session("exec cat")))
        .collect();
    wait_until("two sessions", LIMIT, || user.processes("cat").len() == 2);
    let ran = clients::run(&mut master.session("echo third"));
    assert_ne!(ran.code(), Some(0));
    assert!(
        ran.err().contains("open failed") || ran.err().contains("refused"),
        "{}",
        ran.err()
    );
    drop(held);
    wait_until("their end", LIMIT, || user.processes("cat").is_empty());
    wait_until("a session again", LIMIT, || {
        clients::run(&mut master.session("echo fourth")).out() == "fourth\n"
    });
}

fn fifty_connections(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxStartups 100:30:200"]);
    let running: Vec<(usize, Running)> = (0..50)
        .map(|number| {
            let mut ssh = clients::ssh(&server, &user);
            // The client's own share of the default exchange would take the machine for seconds.
            ssh.args(["-o", "KexAlgorithms=curve25519-sha256"]);
            let ssh = ssh.arg(format!("cat; echo {number}"));
            (number, Running::start(ssh, vec![b'y'; 100_000]))
        })
        .collect();
    for (number, running) in running {
        let ran = running.wait_within(LIMIT * 4);
        assert!(ran.status.success(), "{number}: {}", ran.err());
        assert_eq!(
            ran.stdout.len(),
            100_000 + number.to_string().len() + 1,
            "{number}"
        );
    }
}

/// The request "signal" reaches the command.
fn signal_request(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let program = r#"
import asyncio, sys, asyncssh
async def main():
    name, key, port = sys.argv[1:4]
    async with asyncssh.connect("127.0.0.1", int(port), username=name, client_keys=[key],
                                known_hosts=None, config=None, agent_path=None) as connection:
        process = await connection.create_process(
            "trap 'echo got-usr1; exit 3' USR1; echo ready; while :; do sleep 0.1; done")
        print(await process.stdout.readline(), end="")
        process.send_signal("USR1")
        print(await process.stdout.read(), end="")
        await process.wait()
        print(process.exit_status)
asyncio.run(main())
"#;
    assert_eq!(run_python(&server, &user, program), "ready\ngot-usr1\n3\n");
}

/// `eow@openssh.com`: nobody reads any more, so the writer ends by SIGPIPE.
fn end_of_write(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let program = r#"
import sys, paramiko
from paramiko.common import cMSG_CHANNEL_REQUEST
name, key, port = sys.argv[1:4]
client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect("127.0.0.1", int(port), name, key_filename=key,
               look_for_keys=False, allow_agent=False, timeout=30)
channel = client.get_transport().open_session()
channel.exec_command("yes; echo $? >&2")
print(channel.recv(2).decode(), end="")
message = paramiko.Message()
message.add_byte(cMSG_CHANNEL_REQUEST)
message.add_int(channel.remote_chanid)
message.add_string("eow@openssh.com")
message.add_boolean(False)
client.get_transport()._send_user_message(message)
while channel.recv(65536):
    pass
client.close()
"#;
    assert_eq!(run_python(&server, &user, program), "y\n");
    wait_until("yes to end", LIMIT, || user.processes("yes").is_empty());
}

/// `ssh box yes | head -1` ends: the stock client says that nobody reads any more.
fn output_that_nobody_reads(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let mut ssh = clients::ssh(&server, &user)
        .arg("yes")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = ssh.stdout.take().unwrap();
    output.read_exact(&mut [0; 2]).unwrap();
    drop(output);
    wait_until("the client to end", LIMIT, || {
        ssh.try_wait().unwrap().is_some()
    });
    wait_until("yes to end", LIMIT, || user.processes("yes").is_empty());
}

/// What is not there is refused, and the session goes on.
fn refused_requests(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let mut ssh = clients::ssh(&server, &user);
    let ran = clients::run(ssh.args(["-s", "no-such-subsystem"]));
    assert_ne!(ran.code(), Some(0));
    assert!(
        ran.err().contains("subsystem request failed"),
        "{}",
        ran.err()
    );
    let mut ssh = clients::ssh(&server, &user);
    assert_eq!(
        clients::run(ssh.args(["-A", "-X", "echo fine"])).out(),
        "fine\n"
    );
}
