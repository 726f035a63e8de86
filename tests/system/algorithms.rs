//! Each client logs in with each algorithm that it shares with us.
//!
//! The server offers exactly one algorithm of each kind, so that a login proves it. Where all
//! combinations would be too many, all pairs are tried.

use std::collections::BTreeSet;
use std::process::Command;

use crate::clients::{self, Dbclient, Plink, PythonClient};
use crate::harness::{Case, World};
use crate::server::{Kind, Server};

pub const CASES: &[Case] = &[
    Case::new("algorithms::openssh", openssh).long(),
    Case::new("algorithms::dbclient", dbclient).long(),
    Case::new("algorithms::plink", plink).long(),
    Case::new("algorithms::paramiko", paramiko).long(),
    Case::new("algorithms::asyncssh", asyncssh).long(),
    Case::new("algorithms::defaults", defaults),
    Case::new("algorithms::user_key_types", user_key_types),
    Case::new("algorithms::user_keys_under_match", user_keys_under_match),
    Case::new("algorithms::audited", audited).only_agent(),
    Case::new("algorithms::nothing_in_common", nothing_in_common),
];

/// What a client offers of ours.
struct Shared {
    kex: &'static [&'static str],
    ciphers: &'static [&'static str],
    macs: &'static [&'static str],
    host_keys: &'static [&'static str],
}

const CURVE25519: &str = "curve25519-sha256";
const CURVE25519_LIBSSH: &str = "curve25519-sha256@libssh.org";
const NISTP256: &str = "ecdh-sha2-nistp256";
const NISTP384: &str = "ecdh-sha2-nistp384";
const SNTRUP761: &str = "sntrup761x25519-sha512@openssh.com";
const MLKEM768: &str = "mlkem768x25519-sha256";

const CHACHA20: &str = "chacha20-poly1305@openssh.com";
const ALL_CIPHERS: &[&str] = &[
    CHACHA20,
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
];
const ALL_MACS: &[&str] = &[
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
];
const ALL_HOST_KEYS: &[&str] = &[
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "rsa-sha2-256",
    "rsa-sha2-512",
];

/// One of each kind.
#[derive(Debug, Clone, Copy)]
struct Combination {
    kex: &'static str,
    cipher: &'static str,
    mac: &'static str,
    host_key: &'static str,
}

impl Combination {
    fn lines(self) -> [String; 4] {
        [
            format!("KexAlgorithms {}", self.kex),
            format!("Ciphers {}", self.cipher),
            format!("MACs {}", self.mac),
            format!("HostKeyAlgorithms {}", self.host_key),
        ]
    }
}

/// The reference of this Debian is older than the exchange.
fn server_has(kind: Kind, kex: &str) -> bool {
    kind == Kind::Agent || kex != MLKEM768
}

/// Combinations in which every pair of algorithms of two kinds occurs.
fn pairwise(kind: Kind, shared: &Shared) -> Vec<Combination> {
    let mut all = Vec::new();
    for &kex in shared.kex.iter().filter(|kex| server_has(kind, kex)) {
        for &cipher in shared.ciphers {
            for &mac in shared.macs {
                for &host_key in shared.host_keys {
                    all.push(Combination {
                        kex,
                        cipher,
                        mac,
                        host_key,
                    });
                }
            }
        }
    }
    let pairs = |c: &Combination| {
        let Combination {
            kex,
            cipher,
            mac,
            host_key,
        } = *c;
        [
            (kex, cipher),
            (kex, mac),
            (kex, host_key),
            (cipher, mac),
            (cipher, host_key),
            (mac, host_key),
        ]
    };
    let mut missing: BTreeSet<_> = all.iter().flat_map(pairs).collect();
    let mut chosen = Vec::new();
    while !missing.is_empty() {
        let new = |c: &&Combination| {
            pairs(c)
                .iter()
                .filter(|pair| missing.contains(*pair))
                .count()
        };
        let best = *all.iter().max_by_key(new).unwrap();
        for pair in pairs(&best) {
            missing.remove(&pair);
        }
        chosen.push(best);
    }
    chosen
}

/// Tries all combinations; `log_in` says `ok` or what went wrong.
fn try_all(world: &World, shared: &Shared, mut log_in: impl FnMut(&Server) -> String) {
    let combinations = pairwise(world.kind, shared);
    let mut failures = Vec::new();
    for combination in &combinations {
        let lines = combination.lines();
        let server = world.server(&lines.each_ref().map(String::as_str));
        let answer = log_in(&server);
        if answer.trim() != "ok" {
            failures.push(format!("{combination:?}: {answer}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} combinations failed:\n{}",
        failures.len(),
        combinations.len(),
        failures.join("\n")
    );
}

fn answer(ran: clients::Ran) -> String {
    if ran.status.success() {
        ran.out()
    } else {
        format!("{}: {}", ran.status, ran.err())
    }
}

fn openssh(world: &World) {
    let user = world.user();
    let shared = Shared {
        kex: &[SNTRUP761, CURVE25519, CURVE25519_LIBSSH, NISTP256, NISTP384],
        ciphers: ALL_CIPHERS,
        macs: ALL_MACS,
        host_keys: ALL_HOST_KEYS,
    };
    try_all(world, &shared, |server| {
        answer(clients::ssh_run(server, &user, "echo ok"))
    });
}

fn dbclient(world: &World) {
    let user = world.user();
    let client = Dbclient::new(world, &user);
    let shared = Shared {
        kex: &[CURVE25519, CURVE25519_LIBSSH, NISTP256, NISTP384],
        ciphers: &[CHACHA20, "aes128-ctr", "aes256-ctr"],
        macs: &["hmac-sha2-256"],
        host_keys: &[
            "ssh-ed25519",
            "ecdsa-sha2-nistp256",
            "ecdsa-sha2-nistp384",
            "rsa-sha2-256",
        ],
    };
    try_all(world, &shared, |server| {
        answer(clients::run(&mut client.command(server, &user, "echo ok")))
    });
}

fn plink(world: &World) {
    let user = world.user();
    let client = Plink::new(world, &user);
    let shared = Shared {
        kex: &[SNTRUP761, CURVE25519, CURVE25519_LIBSSH, NISTP256, NISTP384],
        ciphers: ALL_CIPHERS,
        macs: &["hmac-sha2-256", "hmac-sha2-256-etm@openssh.com"],
        host_keys: ALL_HOST_KEYS,
    };
    try_all(world, &shared, |server| {
        answer(clients::run(&mut client.command(server, &user, "echo ok")))
    });
}

const PARAMIKO: &str = r#"
import sys, paramiko
name, key = sys.argv[1:3]
for line in sys.stdin:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    try:
        client.connect("127.0.0.1", int(line), name, key_filename=key,
                       look_for_keys=False, allow_agent=False, timeout=30)
        _, out, _ = client.exec_command("echo ok", timeout=30)
        print(out.read().decode().strip() or "no output", flush=True)
    except Exception as error:
        print(repr(error), flush=True)
    finally:
        client.close()
"#;

fn paramiko(world: &World) {
    let user = world.user();
    let mut client = PythonClient::start(world, &user, PARAMIKO);
    let shared = Shared {
        kex: &[MLKEM768, CURVE25519_LIBSSH, NISTP256, NISTP384],
        ciphers: &ALL_CIPHERS[1..],
        macs: ALL_MACS,
        host_keys: ALL_HOST_KEYS,
    };
    try_all(world, &shared, |server| client.log_in(server));
}

const ASYNCSSH: &str = r#"
import asyncio, sys, asyncssh
name, key = sys.argv[1:3]
async def log_in(port):
    async with asyncssh.connect("127.0.0.1", port, username=name, client_keys=[key],
                                known_hosts=None, config=None, agent_path=None,
                                kex_algs="*", encryption_algs="*", mac_algs="*",
                                connect_timeout=30) as connection:
        return (await connection.run("echo ok", check=True)).stdout.strip()
for line in sys.stdin:
    try:
        print(asyncio.run(log_in(int(line))) or "no output", flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"#;

fn asyncssh(world: &World) {
    let user = world.user();
    let mut client = PythonClient::start(world, &user, ASYNCSSH);
    let shared = Shared {
        kex: &[MLKEM768, CURVE25519, CURVE25519_LIBSSH, NISTP256, NISTP384],
        ciphers: ALL_CIPHERS,
        macs: ALL_MACS,
        host_keys: ALL_HOST_KEYS,
    };
    try_all(world, &shared, |server| client.log_in(server));
}

/// With everything offered, every client finds something.
fn defaults(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let dbclient = Dbclient::new(world, &user);
    let plink = Plink::new(world, &user);
    assert_eq!(
        clients::ssh_run(&server, &user, "echo ok").success(),
        "ok\n"
    );
    assert_eq!(
        clients::run(&mut dbclient.command(&server, &user, "echo ok")).success(),
        "ok\n"
    );
    assert_eq!(
        clients::run(&mut plink.command(&server, &user, "echo ok")).success(),
        "ok\n"
    );
    for program in [PARAMIKO, ASYNCSSH] {
        assert_eq!(
            PythonClient::start(world, &user, program).log_in(&server),
            "ok"
        );
    }
}

/// Keys of users, of each type; RSA with both hashes.
fn user_key_types(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    for (kind, algorithms) in [
        (&["-t", "ed25519"][..], &["ssh-ed25519"][..]),
        (&["-t", "ecdsa", "-b", "256"], &["ecdsa-sha2-nistp256"]),
        (&["-t", "ecdsa", "-b", "384"], &["ecdsa-sha2-nistp384"]),
        (&["-t", "ecdsa", "-b", "521"], &["ecdsa-sha2-nistp521"]),
        (
            &["-t", "rsa", "-b", "2048"],
            &["rsa-sha2-256", "rsa-sha2-512"],
        ),
    ] {
        let key = world.directory.join(format!("key-{}", kind.join("")));
        crate::accounts::make_key(&key, kind);
        user.authorize(&std::fs::read_to_string(key.with_extension("pub")).unwrap());
        for algorithm in algorithms {
            let mut ssh = clients::ssh_as(&server, &user.name, &key);
            ssh.arg("-o")
                .arg(format!("PubkeyAcceptedAlgorithms={algorithm}"))
                .arg("echo ok");
            assert_eq!(clients::run(&mut ssh).success(), "ok\n", "{algorithm}");
        }
    }
}

/// Whom a client is before it says so is not known: server-sig-algs names what any user may sign with.
fn user_keys_under_match(world: &World) {
    let (alice, bob) = (world.user(), world.user());
    let key = world.directory.join("rsa-key");
    crate::accounts::make_key(&key, &["-t", "rsa", "-b", "2048"]);
    let line = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let server = world.server(&[
        "PubkeyAcceptedAlgorithms ssh-ed25519",
        &format!("Match User {}", alice.name),
        "PubkeyAcceptedAlgorithms rsa-sha2-512",
    ]);
    for (user, by_rsa) in [(&alice, true), (&bob, false)] {
        user.authorize(&(user.public_key() + "\n" + &line));
        let mut ssh = clients::ssh_as(&server, &user.name, &key);
        let ran = clients::run(ssh.arg("echo ok"));
        assert_eq!(ran.out() == "ok\n", by_rsa, "{}", ran.err());
        let ran = clients::ssh_run(&server, user, "echo ok");
        assert_eq!(ran.out() == "ok\n", !by_rsa, "{}", ran.err());
    }
}

/// What ssh-audit has to say: nothing of the lists that docs/config.md gives for it, and of the
/// default offer only that it holds NIST's curves, for clients that have no others.
fn audited(world: &World) {
    let audit = |server: &Server, level: &str| {
        let program = clients::python().with_file_name("ssh-audit");
        assert!(
            program.exists(),
            "{} is not there: `cargo xtask setup` installs it",
            program.display()
        );
        let mut command = Command::new(program);
        command.args([
            "--batch",
            "--skip-rate-test",
            "--no-colors",
            "--level",
            level,
        ]);
        clients::run(command.args(["--port", &server.port.to_string(), "127.0.0.1"]))
    };
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md"));
    let page = page.unwrap();
    let strict: Vec<&str> = page
        .split_once("ssh-audit")
        .and_then(|(_, behind)| behind.split("```").nth(1))
        .expect("docs/config.md shows lists for ssh-audit")
        .trim()
        .lines()
        .collect();
    assert_eq!(strict.len(), 3, "{strict:?}");
    let ran = audit(&world.server(&strict), "warn");
    assert_eq!(ran.code(), Some(0), "{}{}", ran.out(), ran.err());
    let ran = audit(&world.server(&[]), "fail");
    for line in ran.out().lines().filter(|line| line.contains("[fail]")) {
        assert!(line.contains("elliptic curves"), "{line}");
    }
    assert!(!ran.out().contains("CVE"), "{}", ran.out());
}

/// The client says what was offered, and the server goes on.
fn nothing_in_common(world: &World) {
    let user = world.user();
    let server = world.server(&["Ciphers aes128-ctr"]);
    let mut ssh = clients::talkative(&clients::ssh(&server, &user));
    let ran = clients::run(ssh.args(["-c", "aes256-ctr", "true"]));
    assert_eq!(ran.code(), Some(255));
    assert!(
        ran.err().contains("no matching cipher found"),
        "{}",
        ran.err()
    );
    assert!(ran.err().contains("aes128-ctr"), "{}", ran.err());
    assert_eq!(
        clients::ssh_run(&server, &user, "echo ok").success(),
        "ok\n"
    );
}
