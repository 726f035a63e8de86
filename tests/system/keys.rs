//! authorized_keys: options of a key line, and where the file may lie.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::accounts::User;
use crate::clients;
use crate::harness::{Case, World};
use crate::server::Server;

pub const CASES: &[Case] = &[
    Case::new("keys::command", command),
    Case::new("keys::restrict_and_pty", restrict_and_pty),
    Case::new("keys::from", from),
    Case::new("keys::expiry_time", expiry_time),
    Case::new("keys::environment", environment),
    Case::new("keys::odd_files", odd_files),
    Case::new("keys::strict_modes", strict_modes),
    Case::new("keys::file_patterns", file_patterns),
    Case::new("keys::special_files", special_files),
    Case::new("keys::endless_file", endless_file).alone(),
    Case::new("keys::ten_thousand", ten_thousand),
    Case::new(
        "keys::command_of_the_administrator",
        command_of_the_administrator,
    ),
    Case::new("keys::command_that_fails", command_that_fails),
    Case::new("keys::command_that_hangs", command_that_hangs)
        .only_agent()
        .long(),
    Case::new(
        "keys::command_beyond_the_grace_time",
        command_beyond_the_grace_time,
    ),
    Case::new("keys::exposed_to_the_session", exposed_to_the_session),
];

/// The command's output under a key line with `options`, or None where the key is refused.
fn with_options(server: &Server, user: &User, options: &str, remote: &str) -> Option<String> {
    user.authorize(&format!("{options} {}\n", user.public_key()));
    let ran = clients::ssh_run(server, user, remote);
    if ran.code() == Some(255) {
        ran.refused();
        return None;
    }
    Some(ran.out())
}

fn command(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let line = r#"command="echo \"by key: $SSH_ORIGINAL_COMMAND\"""#;
    assert_eq!(
        with_options(&server, &user, line, "mine").unwrap(),
        "by key: mine\n"
    );
    let server = world.server(&["ForceCommand echo by-server"]);
    assert_eq!(
        with_options(&server, &user, line, "mine").unwrap(),
        "by-server\n"
    );
}

fn restrict_and_pty(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    for (options, terminal) in [
        ("no-pty", false),
        ("restrict", false),
        ("restrict,pty", true),
        ("pty", true),
    ] {
        user.authorize(&format!("{options} {}\n", user.public_key()));
        let mut ssh = clients::talkative(&clients::ssh(&server, &user));
        let ran = clients::run(ssh.args(["-tt", "test -t 0 && echo tty"]));
        assert_eq!(
            ran.out().trim() == "tty",
            terminal,
            "{options}: {}",
            ran.err()
        );
        let refused = ran.err().contains("PTY allocation request failed");
        assert_eq!(refused, !terminal, "{options}: {}", ran.err());
    }
}

fn from(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    for (pattern, admitted) in [
        ("127.0.0.1", true),
        ("127.0.0.0/8", true),
        ("10.0.0.0/8", false),
        ("*,!127.0.0.1", false),
        ("192.168.1.1,127.*", true),
        ("elsewhere.invalid", false),
    ] {
        let line = format!("from=\"{pattern}\"");
        let out = with_options(&server, &user, &line, "echo in");
        assert_eq!(out.is_some(), admitted, "{pattern}");
    }
}

fn expiry_time(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    assert!(with_options(&server, &user, "expiry-time=\"20200101\"", "echo in").is_none());
    assert!(with_options(&server, &user, "expiry-time=\"20990101\"", "echo in").is_some());
    assert!(with_options(&server, &user, "expiry-time=\"209901011230\"", "echo in").is_some());
}

fn environment(world: &World) {
    let user = world.user();
    let line = r#"environment="FROM_KEY=some value",environment="OTHER=x""#;
    let remote = "echo \"$FROM_KEY|$OTHER\"";
    let server = world.server(&["PermitUserEnvironment yes"]);
    assert_eq!(
        with_options(&server, &user, line, remote).unwrap(),
        "some value|x\n"
    );
    let server = world.server(&["PermitUserEnvironment FROM_*"]);
    assert_eq!(
        with_options(&server, &user, line, remote).unwrap(),
        "some value|\n"
    );
    // A list with an exception.
    let server = world.server(&["PermitUserEnvironment FROM_*,!FROM_K*,OTHER"]);
    assert_eq!(with_options(&server, &user, line, remote).unwrap(), "|x\n");
    user.write(".ssh/environment", "FROM_KEY=file\nFROM_ELSEWHERE=file\n");
    let ran = clients::ssh_run(&server, &user, "echo \"$FROM_KEY|$FROM_ELSEWHERE\"");
    assert_eq!(ran.success(), "|file\n");
    let server = world.server(&[]);
    assert_eq!(with_options(&server, &user, line, remote).unwrap(), "|\n");
}

/// The right key is found among comments, broken, overlong and foreign lines.
fn odd_files(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let key = user.public_key();
    let overlong = format!("{} {key}", "x".repeat(20_000));
    for text in [
        format!("\n\n# comment\n   # indented\n{key}\n"),
        format!("{overlong}\n{key}\n"),
        format!("ssh-ed25519 AAAAbroken\nssh-rsa\n\u{0}\u{1}\n{key}\n"),
        key.clone(),
        format!("{key}\r\n"),
        format!("  \t{key} a comment with \"quotes\n"),
        format!("unknown-option {key}\n{key}\n"),
    ] {
        user.authorize(&text);
        let ran = clients::ssh_run(&server, &user, "echo in");
        assert_eq!(ran.out(), "in\n", "{text:.100}: {}", ran.err());
    }
    for text in [
        format!("# {key}\n"),
        format!("unknown-option {key}\n"),
        format!("command=\"unterminated {key}\n"),
        String::new(),
    ] {
        user.authorize(&text);
        clients::ssh_run(&server, &user, "echo in").refused();
    }
}

fn strict_modes(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let mode = |path: &std::path::Path, bits: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
    };
    let ssh = user.home.join(".ssh");
    let file = ssh.join("authorized_keys");
    for (path, good, bad) in [
        (&file, 0o600, 0o602),
        (&ssh, 0o700, 0o702),
        (&user.home, 0o755, 0o777),
    ] {
        mode(path, bad);
        clients::ssh_run(&server, &user, "echo in").refused();
        mode(path, good);
        assert_eq!(
            clients::ssh_run(&server, &user, "echo in").success(),
            "in\n"
        );
    }
    mode(&file, 0o666);
    let server = world.server(&["StrictModes no"]);
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
}

fn file_patterns(world: &World) {
    let user = world.user();
    user.authorize("");
    let directory = world.directory.join("authorized");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join(&user.name), user.public_key() + "\n").unwrap();
    let pattern = format!("AuthorizedKeysFile none-such {}/%u", directory.display());
    let server = world.server(&[&pattern]);
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
    user.write("my-keys", &(user.public_key() + "\n"));
    let server = world.server(&["AuthorizedKeysFile %h/my-keys"]);
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
    let server = world.server(&["AuthorizedKeysFile none"]);
    clients::ssh_run(&server, &user, "echo in").refused();
}

/// What is not a regular file neither hangs nor ends the server.
fn special_files(world: &World) {
    let user = world.user();
    let server = world.server(&["AuthorizedKeysFile .ssh/first .ssh/authorized_keys"]);
    let first = user.home.join(".ssh/first");
    for make in ["mkfifo", "mkdir"] {
        crate::accounts::run(std::process::Command::new(make).arg(&first));
        let ran = clients::ssh_run(&server, &user, "echo in");
        assert!(
            ran.out() == "in\n" || ran.code() == Some(255),
            "{make}: {}",
            ran.err()
        );
        crate::accounts::run(std::process::Command::new("rm").arg("-r").arg(&first));
    }
    symlink("/dev/zero", &first).unwrap();
    let ran = clients::ssh_run(&server, &user, "echo in");
    assert!(
        ran.out() == "in\n" || ran.code() == Some(255),
        "{}",
        ran.err()
    );
    fs::remove_file(&first).unwrap();
    // Another's file, to which a link of the user's leads, is not read with root's rights.
    let secret = world.directory.join("roots-keys");
    fs::write(&secret, user.public_key() + "\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    user.authorize("");
    symlink(&secret, &first).unwrap();
    clients::ssh_run(&server, &user, "echo in").refused();
}

/// A line of a gigabyte costs no memory and no time to speak of.
fn endless_file(world: &World) {
    let user = world.user();
    let server = world.server(&["AuthorizedKeysFile .ssh/endless .ssh/authorized_keys"]);
    let path = user.write(".ssh/endless", "");
    // Holes read as zeroes, and never end a line.
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(1 << 30).unwrap();
    let before = server.memory_kib();
    let started = std::time::Instant::now();
    let ran = clients::ssh_run(&server, &user, "echo in");
    assert_eq!(ran.out(), "in\n", "{}", ran.err());
    assert!(started.elapsed() < crate::server::LIMIT);
    if world.is_agent() {
        let grown = server.memory_kib().saturating_sub(before);
        assert!(grown < 64 * 1024, "{grown} KiB more");
    }
}

fn ten_thousand(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let key = user.public_key();
    let (name, blob) = key.split_once(' ').unwrap();
    let blob = blob.split(' ').next().unwrap();
    let mut lines = String::new();
    for number in 0..10_000 {
        // Other keys: the last characters of base64 are the last bytes of the key.
        let other = format!("{}{number:05}", &blob[..blob.len() - 5]);
        lines.push_str(&format!("{name} {other} user{number}@example\n"));
    }
    user.authorize(&lines);
    clients::ssh_run(&server, &user, "echo in").refused();
    user.authorize(&(lines + &key + "\n"));
    let ran = clients::ssh_run(&server, &user, "echo in");
    assert_eq!(ran.out(), "in\n", "{}", ran.err());
}

/// A script at a place that only root can change.
fn script(world: &World, body: &str) -> std::path::PathBuf {
    let path = world.directory.join(format!("command-{}", world.number()));
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn command_of_the_administrator(world: &World) {
    let user = world.user();
    let key = user.public_key();
    user.authorize("");
    let log = world.directory.join("asked");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
    let command = script(
        world,
        &format!(
            "echo \"$(id -un):$*:$(ls /proc/$$/fd | tr '\\n' ' '):$USER:$HOME\" >> {}\n\
             echo 'command=\"echo forced\" {key}'",
            log.display()
        ),
    );
    let line = format!(
        "AuthorizedKeysCommand {} %u %U %t %f %h %%",
        command.display()
    );
    let server = world.server(&[&line, "AuthorizedKeysCommandUser daemon"]);
    let ran = clients::ssh_run(&server, &user, "echo in");
    assert_eq!(ran.success(), "forced\n");
    let asked = fs::read_to_string(&log).unwrap();
    let wanted = format!("daemon:{} {} ssh-ed25519 SHA256:", user.name, user.id);
    assert!(asked.starts_with(&wanted), "{asked}");
    assert!(
        asked.contains(&format!("{} %:", user.home.display())),
        "{asked}"
    );
    if world.is_agent() {
        // 10 is the shell's own, of its script, and 3 of what it reads here.
        assert!(asked.contains(":0 1 10 2 3 :daemon:"), "{asked}");
    }
    // Asked last, and with the name alone where it takes no arguments.
    user.authorize(&(key.clone() + "\n"));
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
    user.authorize("");
    let line = format!("AuthorizedKeysCommand {}", command.display());
    let server = world.server(&[&line, "AuthorizedKeysCommandUser daemon"]);
    assert_eq!(clients::ssh_run(&server, &user, "x").success(), "forced\n");
    let asked = fs::read_to_string(&log).unwrap();
    assert!(asked.contains(&format!("daemon:{}:", user.name)), "{asked}");
    // Nobody is asked about whom there is not.
    if world.is_agent() {
        fs::write(&log, "").unwrap();
        let mut ssh = clients::ssh_as(&server, "nobody-of-that-name", &user.key);
        clients::run(ssh.arg("true")).refused();
        assert_eq!(fs::read_to_string(&log).unwrap(), "");
    }
}

fn command_that_fails(world: &World) {
    let user = world.user();
    let key = user.public_key();
    user.authorize("");
    let try_command = |command: &std::path::Path| {
        let line = format!("AuthorizedKeysCommand {}", command.display());
        let server = world.server(&[&line, "AuthorizedKeysCommandUser daemon"]);
        let ran = clients::ssh_run(&server, &user, "echo in");
        if world.is_agent() && ran.out() != "in\n" {
            server.wait_for_log(&["event=refused", "reason=key"]);
        }
        ran.out() == "in\n"
    };
    assert!(try_command(&script(world, &format!("echo '{key}'"))));
    assert!(!try_command(&script(
        world,
        &format!("echo '{key}'; exit 1")
    )));
    assert!(!try_command(&script(
        world,
        &format!("echo '{key}'; kill -9 $$")
    )));
    assert!(!try_command(std::path::Path::new("/nonexistent/command")));
    // What others could replace is not run.
    let writable = script(world, &format!("echo '{key}'"));
    fs::set_permissions(&writable, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(!try_command(&writable));
    let theirs = user.write("command", &format!("#!/bin/sh\necho '{key}'\n"));
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(!try_command(&theirs));
}

/// It holds up nobody else, and is ended when its time is over.
fn command_that_hangs(world: &World) {
    let user = world.user();
    user.authorize("");
    let other = world.user();
    let command = script(world, "exec sleep 987654");
    let line = format!("AuthorizedKeysCommand {} %u", command.display());
    let server = world.server(&[&line, "AuthorizedKeysCommandUser daemon"]);
    let waiting = clients::Running::start(clients::ssh(&server, &user).arg("true"), Vec::new());
    let sleeps = || {
        crate::processes::all()
            .into_iter()
            .any(|process| process.command.starts_with("sleep 987654"))
    };
    crate::processes::wait_until("the command to run", crate::server::LIMIT, sleeps);
    assert_eq!(
        clients::ssh_run(&server, &other, "echo in").success(),
        "in\n"
    );
    waiting.wait().refused();
    crate::processes::wait_until("the command to end", crate::server::LIMIT, || !sleeps());
    server.wait_for_log(&["event=refused", "reason=keys-unreadable"]);
}

/// LoginGraceTime ends the login, and the command with all that it started.
fn command_beyond_the_grace_time(world: &World) {
    let user = world.user();
    user.authorize("");
    let other = world.user();
    let command = script(world, "sleep 987651 & exec sleep 987651");
    let line = format!("AuthorizedKeysCommand {} %u", command.display());
    let server = world.server(&[
        &line,
        "AuthorizedKeysCommandUser daemon",
        "LoginGraceTime 10",
        "MaxStartups 100",
    ]);
    // More than run at once; a login with a key in a file waits for none of them.
    let waiting: Vec<_> = (0..20)
        .map(|_| clients::Running::start(clients::ssh(&server, &user).arg("true"), Vec::new()))
        .collect();
    let sleeps = || {
        crate::processes::all()
            .into_iter()
            .filter(|process| process.command.starts_with("sleep 987651"))
            .count()
    };
    crate::processes::wait_until("commands to run", crate::server::LIMIT, || sleeps() >= 20);
    assert_eq!(
        clients::ssh_run(&server, &other, "echo in").success(),
        "in\n"
    );
    for client in waiting {
        assert_eq!(client.wait().code(), Some(255));
    }
    crate::processes::wait_until("the commands to end", crate::server::LIMIT, || {
        sleeps() == 0
    });
    if world.is_agent() {
        server.wait_for_log(&["event=refused", "reason=login-grace-time"]);
    }
}

fn exposed_to_the_session(world: &World) {
    let user = world.user();
    let server = world.server(&["ExposeAuthInfo yes"]);
    let remote = "stat -c %a $SSH_USER_AUTH; cat $SSH_USER_AUTH; echo $SSH_USER_AUTH";
    let said = clients::ssh_run(&server, &user, remote).success();
    let lines: Vec<&str> = said.lines().collect();
    let key: Vec<String> = user.public_key().split(' ').map(str::to_owned).collect();
    assert_eq!(lines[0], "600");
    assert_eq!(lines[1], format!("publickey {} {}", key[0], key[1]));
    let path = std::path::PathBuf::from(lines[2]);
    crate::processes::wait_until("the file to go", crate::server::LIMIT, || !path.exists());
    let server = world.server(&[]);
    let ran = clients::ssh_run(&server, &user, "echo [$SSH_USER_AUTH]");
    assert_eq!(ran.success(), "[]\n");
}
