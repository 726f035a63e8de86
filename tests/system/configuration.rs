//! Keywords that a user of sshd_config sees work.

use std::fs;

use crate::clients;
use crate::harness::{Case, World};
use crate::server;

pub const CASES: &[Case] = &[
    Case::new("configuration::force_command", force_command),
    Case::new("configuration::match_blocks", match_blocks),
    Case::new("configuration::banner", banner),
    Case::new(
        "configuration::log_level_under_match",
        log_level_under_match,
    )
    .only_agent(),
    Case::new("configuration::style_in_the_name", style_in_the_name),
    Case::new("configuration::empty_style", empty_style).only_agent(),
    Case::new("configuration::names_of_clients", names_of_clients),
    Case::new("configuration::long_banner", long_banner).only_agent(),
    Case::new("configuration::include", include),
    Case::new("configuration::login_files", login_files),
    Case::new("configuration::chroot_directory", chroot_directory),
    Case::new("configuration::allow_and_deny", allow_and_deny),
    Case::new("configuration::bad_file_is_refused", bad_file_is_refused),
    Case::new("configuration::stock_files_pass", stock_files_pass).only_agent(),
    Case::new(
        "configuration::dump_is_readable_again",
        dump_is_readable_again,
    )
    .only_agent(),
];

fn force_command(world: &World) {
    let user = world.user();
    let server = world.server(&["ForceCommand echo forced; exit 12"]);
    let ran = clients::ssh_run(&server, &user, "echo other");
    assert_eq!((ran.out().as_str(), ran.code()), ("forced\n", Some(12)));
    let mut ssh = clients::ssh(&server, &user);
    let ran = clients::run(ssh.args(["-s", "sftp"]));
    assert!(!ran.out().contains("other"));
}

fn match_blocks(world: &World) {
    let (alice, bob) = (world.user(), world.user());
    let for_alice = format!("Match User {}", alice.name);
    let for_bob = format!("Match User {} Address 127.0.0.0/8", bob.name);
    let server = world.server(&[
        &for_alice,
        "  ForceCommand echo for-alice",
        &for_bob,
        "  ForceCommand echo for-bob",
        "Match Address 10.0.0.0/8",
        "  ForceCommand echo wrong",
    ]);
    assert_eq!(
        clients::ssh_run(&server, &alice, "echo own").success(),
        "for-alice\n"
    );
    assert_eq!(
        clients::ssh_run(&server, &bob, "echo own").success(),
        "for-bob\n"
    );
    let carol = world.user();
    assert_eq!(
        clients::ssh_run(&server, &carol, "echo own").success(),
        "own\n"
    );
}

fn banner(world: &World) {
    let user = world.user();
    let file = world.directory.join("banner");
    fs::write(&file, "Unauthorized use is \u{fc}berwacht\n").unwrap();
    let server = world.server(&[&format!("Banner {}", file.display())]);
    let mut ssh = clients::talkative(&clients::ssh(&server, &user));
    ssh.arg("echo in");
    let ran = clients::run(&mut ssh);
    assert_eq!(ran.out(), "in\n");
    assert_eq!(
        ran.err()
            .matches("Unauthorized use is \u{fc}berwacht")
            .count(),
        1,
        "{}",
        ran.err()
    );
}

/// Far beyond one message of the protocol, with lines and without.
fn long_banner(world: &World) {
    let user = world.user();
    let lines: String = (0..2_000)
        .map(|number| format!("line {number} {}\n", "x".repeat(90)))
        .collect();
    let no_lines = "\u{fc}".repeat(50_000);
    for text in [lines, no_lines, "y".repeat(1024 * 1024)] {
        let file = world.directory.join("long-banner");
        fs::write(&file, &text).unwrap();
        let server = world.server(&[&format!("Banner {}", file.display())]);
        let ssh = clients::talkative(&clients::ssh(&server, &user));
        for first in ["none", "publickey"] {
            // Straight to the key, or asking for the methods first.
            let mut command = std::process::Command::new("ssh");
            command.args(ssh.get_args());
            command.args([
                "-o",
                &format!("PreferredAuthentications={first},publickey"),
                "echo in",
            ]);
            let ran = clients::run(&mut command);
            assert_eq!(ran.out(), "in\n");
            assert!(
                ran.err().contains(&text),
                "{} of {}",
                ran.err().len(),
                text.len()
            );
        }
    }
}

/// LogLevel of a Match block counts for who it is about, and for nobody else.
fn log_level_under_match(world: &World) {
    let (loud, quiet) = (world.user(), world.user());
    let server = world.server(&[
        "LogLevel INFO",
        &format!("Match User {}", loud.name),
        "LogLevel DEBUG",
    ]);
    for user in [&quiet, &loud, &quiet] {
        assert_eq!(clients::ssh_run(&server, user, "true").code(), Some(0));
    }
    let port = |user: &crate::accounts::User| {
        let line = server.wait_for_log(&["Accepted publickey for", &user.name]);
        let rest = line.split(" port ").nth(1).unwrap().to_owned();
        format!("port {}", rest.split(' ').next().unwrap())
    };
    let (loud_port, quiet_port) = (port(&loud), port(&quiet));
    let debug = |place: &str| {
        let text = server.log_text();
        let is_one = |line: &&str| line.contains("debug") && line.contains(place);
        text.lines().filter(is_one).count()
    };
    crate::processes::wait_until("debug lines", server::LIMIT, || debug(&loud_port) > 0);
    assert_eq!(debug(&quiet_port), 0, "{}", server.log_text());
}

/// 127.0.0.1 is localhost here, and its names are no other's.
fn names_of_clients(world: &World) {
    let user = world.user();
    let name = &user.name;
    let logs_in = |lines: &[&str]| {
        let server = world.server(lines);
        clients::ssh_run(&server, &user, "echo in").out() == "in\n"
    };
    let allowed = format!("AllowUsers {name}@local*");
    let denied = format!("DenyUsers {name}@localhost");
    assert!(logs_in(&["UseDNS yes", &allowed]));
    assert!(!logs_in(&["UseDNS no", &allowed]));
    assert!(!logs_in(&["UseDNS yes", &denied]));
    assert!(logs_in(&["UseDNS no", &denied]));
    assert!(logs_in(&[
        "UseDNS yes",
        &format!("AllowUsers {name}@127.0.0.1")
    ]));
    let matched = [
        "UseDNS yes",
        "Match Host localhost",
        "ForceCommand echo by name",
    ];
    let server = world.server(&matched);
    let ran = clients::ssh_run(&server, &user, "echo own");
    assert_eq!(ran.success(), "by name\n");
    // Several at once wait each for its own.
    let logins: Vec<_> = (0..6)
        .map(|_| {
            let mut ssh = clients::ssh(&server, &user);
            clients::Running::start(ssh.arg("echo own"), Vec::new())
        })
        .collect();
    for login in logins {
        assert_eq!(login.wait().success(), "by name\n");
    }
    user.authorize(&format!("from=\"localhost\" {}\n", user.public_key()));
    assert!(logs_in(&["UseDNS yes"]));
    assert!(!logs_in(&["UseDNS no"]));
}

/// A style behind the account's name is nobody's business.
fn style_in_the_name(world: &World) {
    logs_in_as(world, ":style");
}

/// sshd 9.2 forgets the colon between the name and the signature, and refuses.
fn empty_style(world: &World) {
    logs_in_as(world, ":");
}

fn logs_in_as(world: &World, style: &str) {
    let user = world.user();
    let server = world.server(&[]);
    let name = format!("{}{style}", user.name);
    let ran = clients::run(clients::ssh_as(&server, &name, &user.key).arg("id -un"));
    assert_eq!(ran.success().trim(), user.name);
}

fn include(world: &World) {
    let user = world.user();
    let directory = world.directory.join("conf.d");
    fs::create_dir(&directory).unwrap();
    fs::write(directory.join("10-first.conf"), "ForceCommand echo first\n").unwrap();
    fs::write(
        directory.join("20-second.conf"),
        "ForceCommand echo second\n",
    )
    .unwrap();
    let server = world.server(&[&format!("Include {}/*.conf", directory.display())]);
    assert_eq!(
        clients::ssh_run(&server, &user, "echo own").success(),
        "first\n"
    );
}

/// Home missing, and /etc/nologin; the latter for our own users only by its text.
fn login_files(world: &World) {
    let user = world.user();
    let elsewhere = world.directory.join("keys");
    fs::write(&elsewhere, user.public_key() + "\n").unwrap();
    let server = world.server(&[&format!("AuthorizedKeysFile {}", elsewhere.display())]);
    assert_eq!(
        clients::ssh_run(&server, &user, "pwd").success(),
        format!("{}\n", user.home.display())
    );
    fs::remove_dir_all(&user.home).unwrap();
    let ran = clients::ssh_run(&server, &user, "pwd");
    assert_eq!(ran.out(), "/\n");
    assert!(
        ran.err().contains(&format!(
            "Could not chdir to home directory {}",
            user.home.display()
        )),
        "{}",
        ran.err()
    );
}

fn chroot_directory(world: &World) {
    let user = world.user();
    let directory = world.directory.join("chroot");
    fs::create_dir_all(directory.join("bin")).unwrap();
    fs::copy("/bin/busybox", directory.join("bin/sh")).unwrap();
    let server = world.server(&[&format!("ChrootDirectory {}", directory.display())]);
    let ran = clients::ssh_run(&server, &user, "echo /*; pwd");
    assert_eq!(ran.out(), "/bin\n/\n", "{}", ran.err());
    // A directory that others may write is refused.
    let server = world.server(&["ChrootDirectory /tmp"]);
    assert_ne!(clients::ssh_run(&server, &user, "echo in").out(), "in\n");
}

fn allow_and_deny(world: &World) {
    let (alice, bob) = (world.user(), world.user());
    let server = world.server(&[&format!("DenyUsers {}", bob.name)]);
    assert_eq!(
        clients::ssh_run(&server, &alice, "echo in").success(),
        "in\n"
    );
    clients::ssh_run(&server, &bob, "echo in").refused();
    let server = world.server(&[&format!("AllowUsers {}@127.0.0.0/8", bob.name)]);
    assert_eq!(clients::ssh_run(&server, &bob, "echo in").success(), "in\n");
    clients::ssh_run(&server, &alice, "echo in").refused();
    let server = world.server(&[&format!("AllowGroups {}", alice.name)]);
    assert_eq!(
        clients::ssh_run(&server, &alice, "echo in").success(),
        "in\n"
    );
    clients::ssh_run(&server, &bob, "echo in").refused();
}

/// All mistakes are named at once, with file and line.
fn bad_file_is_refused(world: &World) {
    let config = world.directory.join("bad");
    let text = server::configuration(world, server::free_port(), &["PermitRootLogin perhaps"])
        + "NoSuchKeyword yes\n";
    fs::write(&config, text).unwrap();
    let ran = clients::run(&mut server::command(world.kind, &config, false));
    assert!(!ran.status.success());
    assert!(ran.err().contains("line 1"), "{}", ran.err());
    if world.is_agent() {
        assert!(ran.err().contains("NoSuchKeyword"), "{}", ran.err());
        assert!(ran.err().contains("PermitRootLogin"), "{}", ran.err());
    }
}

/// The files that distributions ship.
fn stock_files_pass(world: &World) {
    for (name, text) in [
        ("debian", include_str!("stock/debian")),
        ("fedora", include_str!("stock/fedora")),
        ("alpine", include_str!("stock/alpine")),
    ] {
        let config = world.directory.join(name);
        let key = format!("HostKey {}\n", world.host_key("ed25519").display());
        fs::write(&config, format!("{text}\n{key}")).unwrap();
        let mut check = std::process::Command::new(server::agent_file());
        let ran = clients::run(check.arg("-c").arg(&config).arg("check"));
        assert!(ran.status.success(), "{name}: {}{}", ran.out(), ran.err());
    }
}

fn dump_is_readable_again(world: &World) {
    let server = world.server(&[
        "MaxAuthTries 4",
        "Match User nobody-here",
        "  X11Forwarding no",
    ]);
    let dump = |config: &std::path::Path| {
        let mut check = std::process::Command::new(server::agent_file());
        clients::run(check.arg("-c").arg(config).args(["check", "--dump"])).success()
    };
    let first = dump(&server.config);
    assert!(first.to_lowercase().contains("maxauthtries 4"), "{first}");
    let again = world.directory.join("dumped");
    fs::write(&again, &first).unwrap();
    assert_eq!(dump(&again), first);
}
