//! Our log under fail2ban's own eyes: its stock filter for sshd finds who failed, and nobody else.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::accounts::{User, make_key, set_hash, set_shell};
use crate::clients;
use crate::harness::{Case, World};
use crate::server::Server;

pub const CASES: &[Case] = &[
    Case::new("fail2ban::failures_are_found", failures_are_found).only_agent(),
    Case::new("fail2ban::successes_are_not", successes_are_not).only_agent(),
    Case::new("fail2ban::who_speaks_no_ssh", who_speaks_no_ssh).only_agent(),
    Case::new(
        "fail2ban::names_cannot_blame_others",
        names_cannot_blame_others,
    ),
];

/// Addresses that the filter would count against, one for each failure it finds.
fn blamed(log: &Path, mode: &str) -> Vec<String> {
    let output = Command::new("fail2ban-regex")
        .args(["--out", "id"])
        .arg(log)
        .arg(format!("sshd[mode={mode}]"))
        .output()
        .expect("fail2ban-regex, of the package fail2ban");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(str::to_owned)
        .filter(|line| !line.is_empty())
        .collect()
}

fn log_in_from(server: &Server, address: &str, name: &str, user: &User, options: &[&str]) {
    let mut ssh = Command::new("ssh");
    ssh.args(["-b", address]).args(options);
    ssh.args(clients::ssh_options(&user.key));
    ssh.args(["-l", name]);
    ssh.args(["-p", &server.port.to_string(), "127.0.0.1", "true"]);
    let _ = clients::run(&mut ssh);
}

fn failures_are_found(world: &World) {
    let (user, denied, other) = (world.user(), world.user(), world.user());
    let shell_less = world.user();
    set_shell(&shell_less, "/no/such/shell");
    set_hash(&other, "*");
    let server = world.server(&[
        "LogLevel VERBOSE",
        "MaxAuthTries 2",
        &format!("DenyUsers {}", denied.name),
    ]);
    // Who knows no key of the account.
    log_in_from(&server, "127.0.0.101", &user.name, &other, &[]);
    log_in_from(&server, "127.0.0.102", "no-such-user-here", &user, &[]);
    log_in_from(&server, "127.0.0.103", &denied.name, &denied, &[]);
    log_in_from(&server, "127.0.0.104", &shell_less.name, &shell_less, &[]);
    let wrong: Vec<String> = (0..4)
        .flat_map(|number| {
            let key = world.directory.join(format!("wrong{number}"));
            make_key(&key, &["-t", "ed25519"]);
            ["-i".to_owned(), key.display().to_string()]
        })
        .collect();
    let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
    log_in_from(&server, "127.0.0.105", &user.name, &user, &wrong);
    server.wait_for_log(&["maximum authentication attempts exceeded", "127.0.0.105"]);
    log_in_from(
        &server,
        "127.0.0.106",
        &user.name,
        &user,
        &["-c", "3des-cbc"],
    );
    server.wait_for_log(&[
        "Unable to negotiate with 127.0.0.106 port",
        "no matching cipher found. Their offer: 3des-cbc",
    ]);
    server.wait_for_log(&["127.0.0.104"]);
    std::thread::sleep(std::time::Duration::from_millis(500));

    let found = blamed(&server.log, "normal");
    for last in [102, 103, 104, 105] {
        let address = format!("127.0.0.{last}");
        assert!(found.contains(&address), "{address} is not in {found:?}");
    }
    let aggressive = blamed(&server.log, "aggressive");
    for last in 101..=106 {
        let address = format!("127.0.0.{last}");
        assert!(
            aggressive.contains(&address),
            "{address} is not in {aggressive:?}"
        );
    }
    for address in found.iter().chain(&aggressive) {
        let last: u32 = address.rsplit('.').next().unwrap().parse().unwrap();
        assert!(
            (101..=106).contains(&last) || address == "127.0.0.1",
            "{address}"
        );
    }
}

fn successes_are_not(world: &World) {
    let user = world.user();
    let server = world.server(&["LogLevel VERBOSE"]);
    for _ in 0..3 {
        log_in_from(&server, "127.0.0.111", &user.name, &user, &[]);
    }
    server.wait_for_log(&["Accepted publickey for", "127.0.0.111"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let found = blamed(&server.log, "normal");
    assert!(!found.contains(&"127.0.0.111".to_owned()), "{found:?}");
}

/// Who tries ports for other services is found in aggressive mode.
fn who_speaks_no_ssh(world: &World) {
    let server = world.server(&["LogLevel VERBOSE"]);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--max-time", "5", "--interface", "127.0.0.131"]);
    curl.arg(format!("http://127.0.0.1:{}/", server.port));
    let _ = clients::run(&mut curl);
    server.wait_for_log(&["banner exchange: Connection from 127.0.0.131 port"]);
    let line = std::fs::read_to_string(&server.log).unwrap();
    let line = line.lines().find(|line| line.contains("banner exchange:"));
    // Alone, so that nothing else that the connection left in the log is what is found.
    let alone = world.directory.join("banner-line");
    std::fs::write(&alone, format!("{}\n", line.unwrap())).unwrap();
    assert_eq!(blamed(&alone, "aggressive"), ["127.0.0.131"]);
}

/// Whoever puts log lines into names, versions and messages blames nobody but themselves.
fn names_cannot_blame_others(world: &World) {
    let user = world.user();
    let server = world.server(&["LogLevel VERBOSE"]);
    for name in [
        "root from 192.0.2.66 port 22 ssh2",
        "x from 192.0.2.66",
        "root from 192.0.2.66 port 22 ssh2: RSA SHA256:x from 192.0.2.66",
        "x user=y address=192.0.2.66",
    ] {
        log_in_from(&server, "127.0.0.121", name, &user, &[]);
    }
    for version in [
        "SSH-2.0-x from 192.0.2.66 port 22\r\n",
        "Invalid user root from 192.0.2.66 port 22\r\n",
        "SSH-2.0-x\nFailed password for root from 192.0.2.66 port 22 ssh2\r\n",
    ] {
        let mut stream = server.connect();
        let _ = stream.write_all(version.as_bytes());
    }
    server.wait_for_log(&["127.0.0.121"]);
    std::thread::sleep(std::time::Duration::from_millis(500));
    for mode in ["normal", "aggressive"] {
        let found = blamed(&server.log, mode);
        assert!(!found.contains(&"192.0.2.66".to_owned()), "{found:?}");
    }
}
