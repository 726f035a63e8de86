//! Certificates of users and of the host, trusted in every way there is; keys that are revoked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::accounts::{self, User};
use crate::clients;
use crate::harness::{Case, World};
use crate::server::Server;

pub const CASES: &[Case] = &[
    Case::new("certificates::every_type", every_type).long(),
    Case::new("certificates::names", names),
    Case::new("certificates::validity", validity),
    Case::new("certificates::critical_options", critical_options),
    Case::new("certificates::extensions", extensions),
    Case::new("certificates::authority_in_key_file", authority_in_key_file),
    Case::new("certificates::principals_file", principals_file),
    Case::new("certificates::principals_command", principals_command),
    Case::new("certificates::signature_algorithms", signature_algorithms),
    Case::new("certificates::revoked_by_list", revoked_by_list),
    Case::new(
        "certificates::revoked_in_every_section",
        revoked_in_every_section,
    ),
    Case::new(
        "certificates::unusable_list_of_revoked_keys",
        unusable_list_of_revoked_keys,
    ),
    Case::new("certificates::clock_floor", clock_floor).only_agent(),
    Case::new("certificates::reasons_in_the_log", reasons_in_the_log).only_agent(),
    Case::new("certificates::key_ids", key_ids).only_agent(),
    Case::new("certificates::of_the_host", of_the_host),
];

/// A key that signs certificates.
struct Authority {
    key: PathBuf,
}

impl Authority {
    fn new(world: &World, kind: &[&str]) -> Self {
        let key = world.directory.join(format!("ca-{}", world.number()));
        accounts::make_key(&key, kind);
        Self { key }
    }

    fn ed25519(world: &World) -> Self {
        Self::new(world, &["-t", "ed25519"])
    }

    fn public_file(&self) -> PathBuf {
        with_suffix(&self.key, ".pub")
    }

    fn public_line(&self) -> String {
        fs::read_to_string(self.public_file())
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Signs the user's key; the client finds the certificate beside it.
    fn sign(&self, user: &User, arguments: &[&str]) {
        self.sign_key(&user.key, arguments);
    }

    fn sign_key(&self, key: &Path, arguments: &[&str]) {
        accounts::run(
            Command::new("ssh-keygen")
                .arg("-q")
                .arg("-s")
                .arg(&self.key)
                .args(["-I", "test id"])
                .args(arguments)
                .arg(with_suffix(key, ".pub")),
        );
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn trusting(world: &World, authority: &Authority, lines: &[&str]) -> Server {
    let trust = format!("TrustedUserCAKeys {}", authority.public_file().display());
    let mut all = vec![trust.as_str()];
    all.extend(lines);
    world.server(&all)
}

/// A user whose key alone lets nobody in.
fn stranger(world: &World) -> User {
    let user = world.user();
    user.authorize("");
    user
}

#[track_caller]
fn let_in(server: &Server, user: &User) {
    let ran = clients::ssh_run(server, user, "echo in");
    assert_eq!(ran.out(), "in\n", "{}", ran.err());
}

#[track_caller]
fn refused(server: &Server, user: &User) {
    clients::ssh_run(server, user, "echo in").refused();
}

fn every_type(world: &World) {
    let kinds: [&[&str]; 5] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "2048"],
    ];
    let user = stranger(world);
    for authority_kind in kinds {
        let authority = Authority::new(world, authority_kind);
        let server = trusting(world, &authority, &[]);
        for kind in kinds {
            let key = world.directory.join(format!("key-{}", world.number()));
            accounts::make_key(&key, kind);
            authority.sign_key(&key, &["-n", &user.name]);
            let mut ssh = clients::ssh_as(&server, &user.name, &key);
            let ran = clients::run(ssh.arg("echo in"));
            assert_eq!(
                ran.out(),
                "in\n",
                "{kind:?} by {authority_kind:?}: {}",
                ran.err()
            );
        }
    }
}

fn names(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let server = trusting(world, &authority, &[]);
    refused(&server, &user);
    for (arguments, admitted) in [
        (vec!["-n", user.name.as_str()], true),
        (vec!["-n", "someone,root"], false),
        (vec!["-n", &format!("someone,{}", user.name)], true),
        (vec!["-n", &user.name.to_uppercase()], false),
        (vec!["-n", "*"], false),
        // For hosts.
        (vec!["-h", "-n", &user.name], false),
    ] {
        authority.sign(&user, &arguments);
        let ran = clients::ssh_run(&server, &user, "echo in");
        assert_eq!(
            ran.out() == "in\n",
            admitted,
            "{arguments:?}: {}",
            ran.err()
        );
    }
    // For nobody; sshd before 10.3 takes it for everybody in key files.
    authority.sign(&user, &[]);
    refused(&server, &user);
    // By another authority.
    Authority::ed25519(world).sign(&user, &["-n", &user.name]);
    refused(&server, &user);
    // The authority's own key.
    let mut ssh = clients::ssh_as(&server, &user.name, &authority.key);
    clients::run(ssh.arg("echo in")).refused();
}

fn validity(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let server = trusting(world, &authority, &[]);
    for (times, admitted) in [
        ("-1d:+1d", true),
        ("always:forever", true),
        ("-2d:-1d", false),
        ("+1d:+2d", false),
        ("-1m:+1m", true),
    ] {
        authority.sign(&user, &["-n", &user.name, "-V", times]);
        let ran = clients::ssh_run(&server, &user, "echo in");
        assert_eq!(ran.out() == "in\n", admitted, "{times}: {}", ran.err());
    }
}

fn critical_options(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let server = trusting(world, &authority, &[]);
    let sign = |option: &str| authority.sign(&user, &["-n", &user.name, "-O", option]);
    sign("force-command=echo \"by certificate: $SSH_ORIGINAL_COMMAND\"");
    let ran = clients::ssh_run(&server, &user, "mine");
    assert_eq!(ran.success(), "by certificate: mine\n");
    for (list, admitted) in [
        ("127.0.0.0/8", true),
        ("10.0.0.0/8,127.0.0.1/32", true),
        ("10.0.0.0/8", false),
        ("::1/128", false),
    ] {
        sign(&format!("source-address={list}"));
        let ran = clients::ssh_run(&server, &user, "echo in");
        assert_eq!(ran.out() == "in\n", admitted, "{list}: {}", ran.err());
    }
    sign("critical:unheard-of@example.org=1");
    refused(&server, &user);
    sign("extension:unheard-of@example.org=1");
    let_in(&server, &user);
    // What it asks for is no security key's, and this is none.
    sign("verify-required");
    let_in(&server, &user);
}

fn extensions(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let server = trusting(world, &authority, &["PermitUserRC yes"]);
    user.write(".ssh/rc", "echo rc >&2\n");
    let terminal = || {
        let ran = clients::run(clients::ssh(&server, &user).args(["-tt", "test -t 0 && echo tty"]));
        ran.out().contains("tty")
    };
    let startup_file = || {
        clients::ssh_run(&server, &user, "true")
            .err()
            .contains("rc")
    };
    authority.sign(&user, &["-n", &user.name]);
    assert!(terminal() && startup_file());
    authority.sign(&user, &["-n", &user.name, "-O", "clear"]);
    assert!(!terminal() && !startup_file());
    authority.sign(
        &user,
        &["-n", &user.name, "-O", "clear", "-O", "permit-pty"],
    );
    assert!(terminal() && !startup_file());
}

fn authority_in_key_file(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let server = world.server(&[]);
    let key = authority.public_line();
    authority.sign(&user, &["-n", &format!("ops,{}", user.name)]);
    for (line, admitted) in [
        (format!("cert-authority {key}"), true),
        (key.clone(), false),
        (format!("cert-authority,principals=\"ops\" {key}"), true),
        (format!("cert-authority,principals=\"dev,ops\" {key}"), true),
        (format!("cert-authority,principals=\"dev\" {key}"), false),
        (format!("cert-authority,from=\"10.0.0.0/8\" {key}"), false),
        (
            format!("cert-authority,expiry-time=\"20200101\" {key}"),
            false,
        ),
    ] {
        user.authorize(&format!("{line}\n"));
        let ran = clients::ssh_run(&server, &user, "echo in");
        assert_eq!(ran.out() == "in\n", admitted, "{line}: {}", ran.err());
    }
    authority.sign(&user, &["-n", "ops"]);
    user.authorize(&format!("cert-authority {key}\n"));
    refused(&server, &user);
    // Both narrow what may be done; different commands permit nothing.
    authority.sign(&user, &["-n", &user.name, "-O", "force-command=echo one"]);
    user.authorize(&format!("cert-authority,command=\"echo one\" {key}\n"));
    assert_eq!(clients::ssh_run(&server, &user, "x").success(), "one\n");
    user.authorize(&format!("cert-authority,command=\"echo two\" {key}\n"));
    refused(&server, &user);
    // An authority's line is no key to log in with.
    user.authorize(&format!("cert-authority {}\n", user.public_key()));
    fs::remove_file(with_suffix(&user.key, "-cert.pub")).unwrap();
    refused(&server, &user);
}

fn principals_file(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let server = trusting(world, &authority, &["AuthorizedPrincipalsFile .ssh/names"]);
    authority.sign(&user, &["-n", "ops,oncall"]);
    for (text, output) in [
        ("ops\n", Some("in\n")),
        ("# nobody\n\ndev\n", None),
        ("dev\noncall # night\n", Some("in\n")),
        ("command=\"echo forced\" ops\n", Some("forced\n")),
        ("from=\"10.0.0.0/8\" ops\n", None),
        ("no-such-option ops\n", None),
        ("OPS\n", None),
        ("op*\n", None),
    ] {
        user.write(".ssh/names", text);
        let ran = clients::ssh_run(&server, &user, "echo in");
        match output {
            Some(output) => assert_eq!(ran.out(), output, "{text}: {}", ran.err()),
            None => ran.refused(),
        }
    }
    // With principals configured the account's own name counts no more.
    authority.sign(&user, &["-n", &user.name]);
    user.write(".ssh/names", "ops\n");
    refused(&server, &user);
    fs::remove_file(user.home.join(".ssh/names")).unwrap();
    refused(&server, &user);
    user.write(".ssh/names", &user.name);
    let_in(&server, &user);
    let file = user.home.join(".ssh/names");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    refused(&server, &user);
}

fn principals_command(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let command = world.directory.join("principals");
    let log = world.directory.join("asked");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
    let script = |body: &str| {
        let text = format!(
            "#!/bin/sh\necho \"$(id -un):$*\" >> {}\n{body}\n",
            log.display()
        );
        fs::write(&command, text).unwrap();
        fs::set_permissions(&command, fs::Permissions::from_mode(0o755)).unwrap();
    };
    script("echo ops");
    let line = format!(
        "AuthorizedPrincipalsCommand {} %u %i %s %T %t %F",
        command.display()
    );
    let server = trusting(
        world,
        &authority,
        &[&line, "AuthorizedPrincipalsCommandUser nobody"],
    );
    authority.sign(&user, &["-n", "ops", "-z", "4711"]);
    let_in(&server, &user);
    let asked = fs::read_to_string(&log).unwrap();
    let wanted = format!(
        "nobody:{} test id 4711 ssh-ed25519 ssh-ed25519-cert-v01@openssh.com SHA256:",
        user.name
    );
    assert!(asked.starts_with(&wanted), "{asked}");
    for body in ["echo dev", "echo ops; exit 1", "exit 0", "kill -9 $$"] {
        script(body);
        refused(&server, &user);
    }
}

fn signature_algorithms(world: &World) {
    let user = stranger(world);
    let authority = Authority::new(world, &["-t", "rsa", "-b", "2048"]);
    let server = trusting(world, &authority, &["CASignatureAlgorithms rsa-sha2-512"]);
    for (algorithm, admitted) in [
        ("rsa-sha2-512", true),
        ("rsa-sha2-256", false),
        ("ssh-rsa", false),
    ] {
        authority.sign(&user, &["-n", &user.name, "-t", algorithm]);
        let ran = clients::ssh_run(&server, &user, "echo in");
        assert_eq!(ran.out() == "in\n", admitted, "{algorithm}: {}", ran.err());
    }
    let server = trusting(world, &authority, &["PubkeyAcceptedAlgorithms -*cert*"]);
    authority.sign(&user, &["-n", &user.name]);
    refused(&server, &user);
}

fn revoked_by_list(world: &World) {
    let user = world.user();
    let other = world.user();
    let authority = Authority::ed25519(world);
    let list = world.directory.join("revoked");
    fs::write(&list, "").unwrap();
    let line = format!("RevokedKeys {}", list.display());
    let server = trusting(world, &authority, &[&line]);
    let_in(&server, &user);
    // At once, without a reload.
    fs::write(&list, format!("# lost\n{}\n", user.public_key())).unwrap();
    refused(&server, &user);
    let_in(&server, &other);
    // A certificate of it is no way around, nor is one by a revoked authority.
    authority.sign(&user, &["-n", &user.name]);
    refused(&server, &user);
    fs::write(&list, format!("{}\n", other.public_key())).unwrap();
    let_in(&server, &user);
    user.authorize("");
    let_in(&server, &user);
    fs::write(&list, authority.public_line()).unwrap();
    refused(&server, &user);
}

/// Each form that ssh-keygen -k writes, and what it does not revoke.
fn revoked_in_every_section(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let list = world.directory.join("krl");
    let specification = world.directory.join("specification");
    let make = |text: &str| {
        fs::write(&specification, text).unwrap();
        accounts::run(
            Command::new("ssh-keygen")
                .args(["-q", "-k", "-f"])
                .arg(&list)
                .arg("-s")
                .arg(authority.public_file())
                .arg(&specification),
        );
    };
    make("");
    let line = format!("RevokedKeys {}", list.display());
    let server = trusting(world, &authority, &[&line]);
    let fingerprint = {
        let mut keygen = Command::new("ssh-keygen");
        let ran = clients::run(keygen.arg("-lf").arg(with_suffix(&user.key, ".pub")));
        ran.success().split_whitespace().nth(1).unwrap().to_owned()
    };
    let key = user.public_key();
    for (text, serial, revoked) in [
        ("serial: 77".to_owned(), "77", true),
        ("serial: 77".to_owned(), "78", false),
        ("serial: 70-79".to_owned(), "70", true),
        ("serial: 70-79".to_owned(), "79", true),
        ("serial: 70-79".to_owned(), "80", false),
        // Few apart: a bitmap.
        (
            "serial: 70\nserial: 72\nserial: 75\nserial: 77\nserial: 83".to_owned(),
            "83",
            true,
        ),
        (
            "serial: 70\nserial: 72\nserial: 75\nserial: 77\nserial: 83".to_owned(),
            "71",
            false,
        ),
        (
            "serial: 1\nserial: 18446744073709551615".to_owned(),
            "18446744073709551615",
            true,
        ),
        ("id: test id".to_owned(), "1", true),
        ("id: test".to_owned(), "1", false),
        (format!("key: {key}"), "1", true),
        (format!("sha1: {key}"), "1", true),
        (format!("sha256: {key}"), "1", true),
        (format!("hash: {fingerprint}"), "1", true),
        (format!("key: {}", authority.public_line()), "1", true),
        (format!("sha256: {}", authority.public_line()), "1", true),
    ] {
        make(&text);
        authority.sign(&user, &["-n", &user.name, "-z", serial]);
        let ran = clients::ssh_run(&server, &user, "echo in");
        assert_eq!(
            ran.out() != "in\n",
            revoked,
            "{text}, {serial}: {}",
            ran.err()
        );
    }
    // Of this authority only.
    make("serial: 5");
    let another = Authority::ed25519(world);
    let server = trusting(world, &another, &[&line]);
    another.sign(&user, &["-n", &user.name, "-z", "5"]);
    let_in(&server, &user);
}

/// What would have been revoked is not known: nobody gets in.
fn unusable_list_of_revoked_keys(world: &World) {
    let user = world.user();
    let list = world.directory.join("revoked");
    fs::write(&list, "").unwrap();
    let line = format!("RevokedKeys {}", list.display());
    let server = world.server(&[&line]);
    let_in(&server, &user);
    accounts::run(
        Command::new("ssh-keygen")
            .args(["-q", "-k", "-f"])
            .arg(&list)
            .arg(with_suffix(&user.key, ".pub")),
    );
    let good = fs::read(&list).unwrap();
    for content in [&good[..good.len() - 1], &good[..20], b"nonsense\n"] {
        fs::write(&list, content).unwrap();
        refused(&server, &user);
    }
    fs::remove_file(&list).unwrap();
    refused(&server, &user);
    fs::create_dir(&list).unwrap();
    refused(&server, &user);
    fs::remove_dir(&list).unwrap();
    fs::write(&list, "# nobody\n").unwrap();
    let_in(&server, &user);
}

/// A clock before the floor is taken to stand at it.
fn clock_floor(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    authority.sign(&user, &["-n", &user.name, "-V", "20450101:20460101"]);
    let server = trusting(world, &authority, &[]);
    refused(&server, &user);
    let server = trusting(world, &authority, &["CertificateClockFloor 20450601"]);
    let_in(&server, &user);
    server.wait_for_log(&["CertificateClockFloor", "set the clock"]);
    // It makes nothing valid that has expired.
    let server = trusting(world, &authority, &["CertificateClockFloor 20460601"]);
    refused(&server, &user);
    server.wait_for_log(&["event=refused", "reason=cert-expired"]);
}

fn reasons_in_the_log(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let server = trusting(world, &authority, &[]);
    let name = user.name.as_str();
    for (arguments, reason) in [
        (vec!["-n", "someone"], "cert-principal"),
        (vec!["-n", name, "-V", "-2d:-1d"], "cert-expired"),
        (vec!["-n", name, "-V", "+1d:+2d"], "cert-not-yet-valid"),
        (
            vec!["-n", name, "-O", "source-address=10.0.0.0/8"],
            "cert-source-address",
        ),
        (
            vec!["-n", name, "-O", "critical:x@y=1"],
            "cert-critical-option",
        ),
    ] {
        authority.sign(&user, &arguments);
        refused(&server, &user);
        let wanted = format!("reason={reason}");
        server.wait_for_log(&["event=refused", &format!("user=\"{name}\""), &wanted]);
    }
    authority.sign(&user, &["-n", name, "-z", "9"]);
    let_in(&server, &user);
    server.wait_for_log(&[
        "Accepted publickey for",
        "ED25519-CERT SHA256:",
        "ID test\\040id (serial 9) CA ED25519 SHA256:",
    ]);
}

/// AllowCertificateIds and DenyCertificateIds.
fn key_ids(world: &World) {
    let user = stranger(world);
    let authority = Authority::ed25519(world);
    let sign_as = |id: &str| authority.sign(&user, &["-n", &user.name, "-I", id]);
    let only_ci = trusting(
        world,
        &authority,
        &["AllowCertificateIds \"alice b\" ci-?*"],
    );
    let not_ci = trusting(
        world,
        &authority,
        &["AllowCertificateIds *", "DenyCertificateIds ci-*"],
    );
    for (id, by_first, by_second) in [
        ("ci-7", true, false),
        ("alice b", true, true),
        ("ci-", false, false),
        ("CI-7", false, true),
        ("alice", false, true),
    ] {
        sign_as(id);
        for (server, admitted) in [(&only_ci, by_first), (&not_ci, by_second)] {
            let ran = clients::ssh_run(server, &user, "echo in");
            assert_eq!(ran.out() == "in\n", admitted, "{id}: {}", ran.err());
        }
    }
    only_ci.wait_for_log(&["event=refused", "reason=not-in-allow-certificate-ids"]);
    not_ci.wait_for_log(&["event=refused", "reason=deny-certificate-ids"]);
    // For some users only; and keys that are no certificates have no id.
    let other = world.user();
    let block = format!("Match User {}", user.name);
    let server = trusting(world, &authority, &[&block, "AllowCertificateIds ci-*"]);
    refused(&server, &user);
    let_in(&server, &other);
    let server = trusting(world, &authority, &["AllowCertificateIds ci-*"]);
    let_in(&server, &other);
}

fn of_the_host(world: &World) {
    let user = world.user();
    let authority = Authority::ed25519(world);
    let known = world.directory.join("known_hosts");
    fs::write(
        &known,
        format!("@cert-authority * {}\n", authority.public_line()),
    )
    .unwrap();
    for name in ["ed25519", "ecdsa256", "rsa"] {
        // A copy: other cases use the keys at the same time.
        let key = world.directory.join(name);
        for suffix in ["", ".pub"] {
            fs::copy(
                with_suffix(&world.host_key(name), suffix),
                with_suffix(&key, suffix),
            )
            .unwrap();
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        authority.sign_key(&key, &["-h", "-n", "127.0.0.1"]);
        let host_key = format!("HostKey {}", key.display());
        let certificate = format!("HostCertificate {}-cert.pub", key.display());
        // Behind another key of its type it is offered by its certificate all the same.
        let first = world.directory.join(format!("first-{name}"));
        let kind: &[&str] = match name {
            "ed25519" => &["-t", "ed25519"],
            "ecdsa256" => &["-t", "ecdsa", "-b", "256"],
            _ => &["-t", "rsa", "-b", "2048"],
        };
        accounts::make_key(&first, kind);
        let first = format!("HostKey {}", first.display());
        let server = world.server(&[&first, &host_key, &certificate]);
        let connect = || {
            let mut ssh = Command::new("ssh");
            for argument in clients::ssh(&server, &user).get_args() {
                let argument = argument.to_str().unwrap();
                ssh.arg(match argument {
                    "StrictHostKeyChecking=no" => "StrictHostKeyChecking=yes".to_owned(),
                    "UserKnownHostsFile=/dev/null" => {
                        format!("UserKnownHostsFile={}", known.display())
                    }
                    other => other.to_owned(),
                });
            }
            clients::run(ssh.env_remove("SSH_AUTH_SOCK").arg("echo in"))
        };
        assert_eq!(connect().success(), "in\n", "{name}");
        // Without it the same client finds nothing that it trusts.
        server.reload(world, &[&host_key]);
        crate::processes::wait_until("the certificate to go", crate::server::LIMIT, || {
            connect().err().contains("verification failed")
        });
    }
}
