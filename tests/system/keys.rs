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
