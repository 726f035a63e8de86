//! Other ways to run: for one connection on stdin, and as an ordinary user.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::clients;
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::{self, Kind, LIMIT};

pub const CASES: &[Case] = &[
    Case::new("modes::inetd", inetd),
    Case::new("modes::inetd_without_login", inetd_without_login),
    Case::new("modes::ordinary_user", ordinary_user),
    Case::new("modes::version", version).only_agent(),
    Case::new("modes::port_in_use", port_in_use),
];

/// The client starts the server itself, on a socket pair.
fn inetd(world: &World) {
    let user = world.user();
    let config = world.directory.join("inetd-config");
    fs::write(
        &config,
        server::configuration(world, server::free_port(), &[]),
    )
    .unwrap();
    let start = server::command(world.kind, &config, true);
    let mut proxy = start.get_program().to_str().unwrap().to_owned();
    for argument in start.get_args() {
        proxy.push_str(&format!(" '{}'", argument.to_str().unwrap()));
    }
    for number in 0..3 {
        let mut ssh = Command::new("ssh");
        ssh.args(clients::ssh_options(&user.key));
        ssh.args([
            "-o",
            &format!(
                "ProxyCommand={proxy} 2>>{}/inetd.log",
                world.directory.display()
            ),
        ]);
        ssh.args([
            "-l",
            &user.name,
            "by-inetd",
            &format!("echo {number}; exit {number}"),
        ]);
        let ran = clients::run(&mut ssh);
        let log = fs::read_to_string(world.directory.join("inetd.log")).unwrap_or_default();
        assert_eq!(
            (ran.out(), ran.code()),
            (format!("{number}\n"), Some(number)),
            "{}{log}",
            ran.err()
        );
    }
    let name = world.directory.display().to_string();
    wait_until("the servers to end", LIMIT, || {
        crate::processes::all()
            .iter()
            .all(|process| !process.command.contains(&name))
    });
}

/// A client that says something else, or nothing, leaves status 255 behind.
fn inetd_without_login(world: &World) {
    use std::io::Write;
    use std::process::Stdio;
    let config = world.directory.join("inetd-config");
    let text = server::configuration(world, server::free_port(), &[]);
    fs::write(&config, text).unwrap();
    for said in ["SSH-1.5-x\r\n", "GET / HTTP/1.0\r\n\r\n", ""] {
        let mut child = server::command(world.kind, &config, true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(said.as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        assert!(output.stdout.starts_with(b"SSH-2.0-"), "{said:?}");
        assert_eq!(output.status.code(), Some(255), "{said:?}");
    }
}

/// It serves the one who runs it, and nobody else.
fn ordinary_user(world: &World) {
    let (user, other) = (world.user(), world.user());
    let key = user.home.join("host-key");
    fs::copy(world.host_key("ed25519"), &key).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&key, Some(user.id), Some(user.group_id)).unwrap();
    let port = server::free_port();
    let mut text = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nLogLevel DEBUG\n",
        key.display()
    );
    if world.kind == Kind::Agent {
        text.push_str(&format!("DataDir {}/data\n", user.home.display()));
    }
    let config = user.write("config", &text);
    let log = world.directory.join("user-server.log");
    let start = server::command(world.kind, &config, false);
    let program = match world.kind {
        Kind::Agent => world.agent_for_all(),
        Kind::Sshd => start.get_program().into(),
    };
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={}", user.id))
        .arg(format!("--regid={}", user.group_id))
        .arg("--clear-groups")
        .arg(program)
        .args(start.get_args())
        .env_clear()
        .env("HOME", &user.home)
        .env("USER", &user.name)
        .env("PATH", "/usr/bin:/bin")
        .current_dir("/")
        .stdin(std::process::Stdio::null())
        .stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let shown = || fs::read_to_string(&log).unwrap_or_default();
    wait_until("the server", LIMIT, || {
        assert!(
            crate::processes::is_alive(child.id()),
            "it ended:\n{}",
            shown()
        );
        server::reads_version(port)
    });
    let log_in = |name: &str, key: &std::path::Path| {
        let mut ssh = Command::new("ssh");
        ssh.args(clients::ssh_options(key));
        ssh.args([
            "-p",
            &port.to_string(),
            "-l",
            name,
            "127.0.0.1",
            "id -un; exit 3",
        ]);
        clients::run(&mut ssh)
    };
    let ran = log_in(&user.name, &user.key);
    let refused = log_in(&other.name, &other.key);
    let process = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap();
    assert_eq!(
        (ran.out(), ran.code()),
        (format!("{}\n", user.name), Some(3)),
        "{}{}",
        ran.err(),
        shown()
    );
    assert_eq!(refused.code(), Some(255), "{}", shown());
}

fn version(_: &World) {
    let ran = clients::run(Command::new(server::agent_file()).arg("--version"));
    assert!(ran.success().contains(env!("CARGO_PKG_VERSION")));
}

/// The message says which port; nothing keeps running.
fn port_in_use(world: &World) {
    let server = world.server(&[]);
    let ran = clients::run(&mut server::command(world.kind, &server.config, false));
    assert!(!ran.status.success());
    assert!(
        ran.err().contains(&server.port.to_string()),
        "{}",
        ran.err()
    );
    assert!(server::reads_version(server.port));
}
