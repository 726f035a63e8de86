//! Who is let in, how often one may try, and what the log says of it.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::accounts::make_key;
use crate::clients;
use crate::harness::{Case, World};
use crate::processes::{wait_for, wait_until};
use crate::server::LIMIT;

pub const CASES: &[Case] = &[
    Case::new("login::wrong_key", wrong_key),
    Case::new("login::unknown_user", unknown_user),
    Case::new("login::root_variants", root_variants),
    Case::new("login::max_auth_tries", max_auth_tries),
    Case::new("login::login_grace_time", login_grace_time),
    Case::new("login::max_startups", max_startups),
    Case::new("login::logins_per_user", logins_per_user).only_agent(),
    Case::new("login::log_lines", log_lines),
    Case::new("login::hostile_names", hostile_names),
    Case::new("login::shell_must_exist", shell_must_exist),
    Case::new("login::methods_are_named", methods_are_named),
];

fn wrong_key(world: &World) {
    let (user, other) = (world.user(), world.user());
    let server = world.server(&[]);
    clients::run(clients::ssh_as(&server, &user.name, &other.key).arg("echo in")).refused();
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
}

fn unknown_user(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let ran = clients::run(clients::ssh_as(&server, "no-such-user-here", &user.key).arg("echo in"));
    ran.refused();
    // The answer is the one that a wrong key gets.
    let other = world.user();
    let wrong = clients::run(clients::ssh_as(&server, &user.name, &other.key).arg("echo in"));
    assert_eq!(
        ran.err().replace("no-such-user-here", &user.name),
        wrong.err()
    );
}

/// Root's own files stay as they are: the key comes from a file of ours.
fn root_variants(world: &World) {
    let user = world.user();
    let keys = world.directory.join("roots-keys");
    let keys_line = format!("AuthorizedKeysFile {}", keys.display());
    let log_in = |setting: &str, line: &str, remote: &str| {
        std::fs::write(&keys, format!("{line}{}\n", user.public_key())).unwrap();
        let server = world.server(&[&format!("PermitRootLogin {setting}"), &keys_line]);
        clients::run(clients::ssh_as(&server, "root", &user.key).arg(remote))
    };
    for setting in ["yes", "prohibit-password", "without-password"] {
        assert_eq!(log_in(setting, "", "id -u").success(), "0\n", "{setting}");
    }
    // A command that is forced on everybody says nothing of what the key is for.
    let everybodys = "forced-commands-only\nForceCommand echo everybody";
    for setting in ["no", "forced-commands-only", everybodys] {
        let ran = log_in(setting, "", "id -u");
        assert_eq!(
            (ran.out().as_str(), ran.code()),
            ("", Some(255)),
            "{setting}"
        );
    }
    let forced = log_in("forced-commands-only", "command=\"echo forced\" ", "id -u");
    assert_eq!(forced.success(), "forced\n");
}

fn max_auth_tries(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxAuthTries 3"]);
    let mut ssh = clients::ssh(&server, &user);
    // Five keys that are not authorized come before the right one.
    let mut arguments: Vec<String> = Vec::new();
    for number in 0..5 {
        let key = world.directory.join(format!("wrong{number}"));
        make_key(&key, &["-t", "ed25519"]);
        arguments.extend(["-i".to_owned(), key.display().to_string()]);
    }
    let options: Vec<String> = ssh
        .get_args()
        .map(|argument| argument.to_str().unwrap().to_owned())
        .collect();
    ssh = std::process::Command::new("ssh");
    let ran = clients::run(ssh.args(arguments).args(options).arg("echo in"));
    assert_eq!(ran.code(), Some(255));
    assert!(
        ran.err().contains("Too many authentication failures"),
        "{}",
        ran.err()
    );
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
}

fn login_grace_time(world: &World) {
    let user = world.user();
    let server = world.server(&["LoginGraceTime 2"]);
    let mut silent = server.connect();
    let start = Instant::now();
    let mut bytes = Vec::new();
    silent.read_to_end(&mut bytes).unwrap();
    assert!(
        start.elapsed() >= Duration::from_millis(1500),
        "{:?}",
        start.elapsed()
    );
    // Who is in stays.
    let ran = clients::ssh_run(&server, &user, "sleep 4; echo still");
    assert_eq!(ran.success(), "still\n");
}

fn max_startups(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxStartups 3:100:5", "LoginGraceTime 60"]);
    let hold = || {
        // The connection that proved readiness may still count.
        wait_for("a connection that is taken", LIMIT, || {
            let mut stream = server.connect();
            stream.write_all(b"SSH-2.0-held\r\n").unwrap();
            let mut start = [0; 8];
            let taken = stream.read_exact(&mut start).is_ok() && &start == b"SSH-2.0-";
            taken.then_some(stream)
        })
    };
    let mut held: Vec<_> = (0..3).map(|_| hold()).collect();
    let ran = clients::ssh_run(&server, &user, "echo in");
    assert_eq!(ran.code(), Some(255), "{}", ran.out());
    held.clear();
    wait_until("a login again", LIMIT, || {
        clients::ssh_run(&server, &user, "echo in").out() == "in\n"
    });
}

fn logins_per_user(world: &World) {
    let (user, other) = (world.user(), world.user());
    let server = world.server(&["MaxLoginsPerUser 2"]);
    let stay = || {
        let mut ssh = clients::ssh(&server, &user);
        let running = clients::Running::start_open(ssh.arg("cat"));
        server.wait_for_log(&["event=login", &user.name]);
        running
    };
    let mut first = stay();
    let _second = stay();
    wait_until("two logins", LIMIT, || {
        server.log_text().matches("event=login").count() == 2
    });
    let mut third = clients::talkative(&clients::ssh(&server, &user));
    let refused = clients::run(third.arg("echo in"));
    assert_eq!(refused.code(), Some(255), "{}", refused.out());
    assert!(refused.err().contains("as often as"), "{}", refused.err());
    server.wait_for_log(&["event=refused", &user.name, "reason=max-logins-per-user"]);
    // Each account counts for itself.
    let ran = clients::ssh_run(&server, &other, "echo in");
    assert_eq!(ran.success(), "in\n");
    drop(first.child.stdin.take());
    wait_until("a login again", LIMIT, || {
        clients::ssh_run(&server, &user, "echo in").out() == "in\n"
    });
}

/// What fail2ban's stock filter for sshd looks for.
fn log_lines(world: &World) {
    let user = world.user();
    let server = world.server(&["LogLevel VERBOSE"]);
    clients::ssh_run(&server, &user, "true").success();
    let line = server.wait_for_log(&["Accepted publickey for", &user.name]);
    assert!(line.contains("from 127.0.0.1 port "), "{line}");
    assert!(line.contains("ssh2: ED25519 SHA256:"), "{line}");
    clients::run(clients::ssh_as(&server, "no-such-user", &user.key).arg("true")).refused();
    server.wait_for_log(&["Invalid user no-such-user from 127.0.0.1 port "]);
    server.wait_for_log(&["Connection closed by invalid user no-such-user 127.0.0.1 port "]);
    let other = world.user();
    clients::run(clients::ssh_as(&server, &user.name, &other.key).arg("true")).refused();
    server.wait_for_log(&[
        "Connection closed by authenticating user",
        &user.name,
        "[preauth]",
    ]);
}

/// A name can break no log line and no process title.
fn hostile_names(world: &World) {
    let user = world.user();
    let server = world.server(&["LogLevel VERBOSE"]);
    for name in [
        "a\nAccepted publickey for root from 1.2.3.4 port 1 ssh2",
        "%s%n\u{1b}[2J",
        "-oX",
    ] {
        let ran = clients::run(
            std::process::Command::new("ssh")
                .args(clients::ssh_options(&user.key))
                .args(["-o", &format!("User={name}")])
                .args(["-p", &server.port.to_string(), "127.0.0.1", "true"]),
        );
        assert_eq!(ran.code(), Some(255), "{name:?}");
    }
    std::thread::sleep(Duration::from_millis(300));
    let log = server.log_text();
    assert!(
        !log.lines()
            .any(|line| line.starts_with("Accepted publickey for root")),
        "{log}"
    );
    assert!(!log.contains('\u{1b}'), "{log}");
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
}

fn shell_must_exist(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    crate::accounts::set_shell(&user, "/no/such/shell");
    clients::ssh_run(&server, &user, "echo in").refused();
    crate::accounts::set_shell(&user, "/bin/false");
    let ran = clients::ssh_run(&server, &user, "echo in");
    assert_eq!((ran.out().as_str(), ran.code()), ("", Some(1)));
}

fn methods_are_named(world: &World) {
    let user = world.user();
    let server = world.server(&[
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
    ]);
    let mut ssh = clients::ssh(&server, &user);
    ssh.args(["-o", "PubkeyAuthentication=no", "true"]);
    let ran = clients::run(&mut ssh);
    assert!(
        ran.err().contains("Permission denied (publickey)."),
        "{}",
        ran.err()
    );
}
