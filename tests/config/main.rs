//! The real binary's command line, `check` and `keygen`, against the stock configurations of distributions and
//! beside OpenSSH's own tools (`cargo xtask test` installs them).

#![allow(clippy::unwrap_used)]

mod bodies;
mod command_line;
mod corpora;
mod shipped;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SSHD: &str = "/usr/sbin/sshd";

/// A directory with a host key and whatever the test writes, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("agent-check-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        let place = Self(path);
        let made = place.agent(&["keygen", "-f", place.path("key").to_str().unwrap()]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// A configuration of its own host key and `lines`.
    fn config(&self, lines: &str) -> PathBuf {
        let key = self.path("key");
        self.write(
            "sshd_config",
            &format!("{lines}\nHostKey {}\n", key.display()),
        )
    }

    fn agent(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_agent"))
            .args(arguments)
            // Nothing of the account that runs the tests.
            .env("HOME", &self.0)
            .env_remove("XDG_CONFIG_HOME")
            .output()
            .unwrap()
    }

    fn check(&self, config: &Path, arguments: &[&str]) -> Output {
        let mut all = vec!["-c", config.to_str().unwrap(), "check"];
        all.extend(arguments);
        self.agent(&all)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/config/fixtures")
        .join(name);
    fs::read_to_string(path).unwrap()
}

/// Runs a tool of OpenSSH's; its absence is a failure, not a pass.
fn openssh(tool: &str, arguments: &[&str]) -> Output {
    match Command::new(tool).args(arguments).output() {
        Ok(output) => output,
        Err(error) => panic!("{tool}: {error}; cargo xtask test installs openssh-server"),
    }
}

fn sshd_dump(config: &Path, arguments: &[&str]) -> String {
    // sshd asks for it before it prints anything, as root.
    let _ = fs::create_dir_all("/run/sshd");
    let mut all = vec!["-T", "-f", config.to_str().unwrap()];
    all.extend(arguments);
    let output = openssh(SSHD, &all);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The lines of a dump that begin with one of `keywords`.
fn lines_of(dump: &str, keywords: &[&str]) -> BTreeSet<String> {
    dump.lines()
        .filter(|line| keywords.contains(&line.split(' ').next().unwrap_or("")))
        .map(str::to_owned)
        .collect()
}

/// Keywords whose dump must be what sshd prints; the others differ by what is served or by default.
const SHARED: &[&str] = &[
    "port",
    "addressfamily",
    "listenaddress",
    "hostkey",
    "logingracetime",
    "maxstartups",
    "persourcemaxstartups",
    "persourcenetblocksize",
    "tcpkeepalive",
    "usedns",
    "versionaddendum",
    "clientaliveinterval",
    "clientalivecountmax",
    "rekeylimit",
    "permitrootlogin",
    "pubkeyauthentication",
    "authenticationmethods",
    "authorizedkeysfile",
    "strictmodes",
    "maxauthtries",
    "allowusers",
    "denyusers",
    "allowgroups",
    "denygroups",
    "banner",
    "maxsessions",
    "forcecommand",
    "chrootdirectory",
    "permittty",
    "permituserrc",
    "permituserenvironment",
    "allowagentforwarding",
    "x11forwarding",
    "x11displayoffset",
    "x11uselocalhost",
    "xauthlocation",
    "allowtcpforwarding",
    "allowstreamlocalforwarding",
    "disableforwarding",
    "gatewayports",
    "permitopen",
    "permitlisten",
    "streamlocalbindmask",
    "streamlocalbindunlink",
    "acceptenv",
    "setenv",
    "subsystem",
    "printmotd",
    "printlastlog",
    "loglevel",
    "syslogfacility",
];

fn assert_same_dump(place: &Place, config: &Path, subject: &[&str], keywords: &[&str]) {
    let mut arguments = vec!["--dump"];
    arguments.extend(subject);
    let ours = place.check(config, &arguments);
    assert!(ours.status.success(), "{}", text(&ours.stderr));
    let mut ours = lines_of(&text(&ours.stdout), keywords);
    let theirs = lines_of(&sshd_dump(config, subject), keywords);
    if !theirs
        .iter()
        .any(|line| line.starts_with("subsystem sftp "))
    {
        // Ours serves files unless it is told otherwise.
        ours.retain(|line| line != "subsystem sftp internal-sftp");
    }
    let content = fs::read_to_string(config).unwrap();
    assert_eq!(ours, theirs, "for {content}");
}

#[test]
fn stock_configurations_pass_with_warnings_only() {
    let place = Place::new("stock");
    let fedora = fixture("fedora-50-redhat.conf").replace(
        "opensshserver.config",
        place.path("opensshserver.config").to_str().unwrap(),
    );
    for (name, content, warned) in [
        ("debian-12", fixture("debian-12"), &["UsePAM"][..]),
        ("alpine", fixture("alpine"), &[]),
        (
            "fedora",
            fixture("fedora"),
            &["GSSAPIAuthentication", "UsePAM", "MACs", "KexAlgorithms"],
        ),
    ] {
        place.write("sshd_config.d/50-redhat.conf", &fedora);
        place.write(
            "opensshserver.config",
            &fixture("fedora-opensshserver.config"),
        );
        let config = place.config(&content);
        let output = place.check(&config, &[]);
        let errors = text(&output.stderr);
        assert!(output.status.success(), "{name}: {errors}");
        assert!(
            errors.lines().all(|line| line.starts_with("warning: ")),
            "{name}: {errors}"
        );
        for keyword in warned {
            assert!(errors.contains(keyword), "{name}: {keyword} in {errors}");
        }
    }
}

#[test]
fn fedoras_crypto_policy_decides_what_is_offered() {
    let place = Place::new("policy");
    let config = place.config(&fixture("fedora-opensshserver.config"));
    let dump = text(&place.check(&config, &["--dump"]).stdout);
    assert!(dump.contains(
        "ciphers aes256-gcm@openssh.com,chacha20-poly1305@openssh.com,aes256-ctr,\
         aes128-gcm@openssh.com,aes128-ctr\n"
    ));
    assert!(dump.contains(
        "macs hmac-sha2-256-etm@openssh.com,hmac-sha2-512-etm@openssh.com,hmac-sha2-256,hmac-sha2-512\n"
    ));
    assert!(dump.contains(
        "hostkeyalgorithms ecdsa-sha2-nistp256,ecdsa-sha2-nistp256-cert-v01@openssh.com,\
         ecdsa-sha2-nistp384,ecdsa-sha2-nistp384-cert-v01@openssh.com,ssh-ed25519,\
         ssh-ed25519-cert-v01@openssh.com,rsa-sha2-256,rsa-sha2-256-cert-v01@openssh.com,\
         rsa-sha2-512,rsa-sha2-512-cert-v01@openssh.com\n"
    ));
}

#[test]
fn the_dump_is_that_of_sshd() {
    let place = Place::new("dump");
    let included = place.write(
        "d/10.conf",
        "PrintMotd no\nSetEnv FROM=include\nMatch all\nMaxSessions 3\n",
    );
    for lines in [
        "PidFile none",
        "Port 2022\nPort 2023\nListenAddress 127.0.0.1\nListenAddress [::1]:2024",
        "AddressFamily inet\nPort 2022",
        "PermitRootLogin forced-commands-only\nPermitTTY no\nLogLevel DEBUG\nSyslogFacility LOCAL3",
        "AllowUsers a b@127.0.0.0/8\nAllowUsers c\nDenyGroups x\nAllowGroups y z\nDenyUsers q",
        "AcceptEnv LANG LC_*\nAcceptEnv X\nSetEnv A=1 B=\"two words\"\nSetEnv C=3",
        "ForceCommand echo \"a  b\" # not a comment\nBanner /etc/issue\nChrootDirectory /jail/%u",
        "Subsystem sftp /usr/lib/openssh/sftp-server -l INFO # comment\nSubsystem x y",
        "MaxStartups 5\nLoginGraceTime 1m30\nClientAliveInterval 2m\nRekeyLimit 1G 1h",
        "MaxStartups 3:40:20\nPerSourceMaxStartups 7\nPerSourceNetBlockSize 24:64\nMaxAuthTries 3",
        "AuthorizedKeysFile /keys/%u .ssh/authorized_keys\nAuthenticationMethods publickey,publickey",
        "VersionAddendum hello world\nUseDNS yes\nTCPKeepAlive no\nStrictModes no",
        "PermitUserEnvironment LC_*,LANG\nPermitUserRC no\nPubkeyAuthentication yes",
        "permitTTY=no\n  printmotd\t=  no  # x\nMaxSessions \"4\"\nBanner '/a b'",
        "PrintMotd yes\nPrintMotd no\nMaxSessions 5\nMaxSessions 6",
        "Banner none\nForceCommand none\nChrootDirectory none\nVersionAddendum none",
        &format!(
            "Include {}\nPrintMotd yes\nSetEnv FROM=main",
            included.display()
        ),
    ] {
        // Without root our default is another port.
        let port = if lines.contains("Port ") {
            ""
        } else {
            "Port 22\n"
        };
        assert_same_dump(
            &place,
            &place.config(&format!("{port}{lines}")),
            &[],
            SHARED,
        );
    }
}

#[test]
fn match_blocks_hold_for_whom_they_hold_in_sshd() {
    let place = Place::new("match");
    let lines = "ForceCommand global\nBanner /global\nMaxSessions 9\nAllowUsers everybody\n\
        Match User root,b*\n ForceCommand user\n AllowUsers root\n\
        Match Group root Address 192.0.2.0/24,!192.0.2.9\n Banner /group\n AllowUsers more\n\
        Match Host *.example,192.0.2.1?\n MaxSessions 7\n\
        Match LocalPort 2022 LocalAddress 127.0.0.1\n PermitTTY no\n\
        Match all\n ForceCommand all\n X11Forwarding no\n MaxAuthTries 2\n";
    // HostKey must stand before the first Match.
    let config = place.write(
        "sshd_config",
        &format!(
            "Port 22\nHostKey {}\nPidFile none\n{lines}",
            place.path("key").display()
        ),
    );
    for subject in [
        "user=root,host=192.0.2.1,addr=192.0.2.1,laddr=127.0.0.1,lport=2022",
        "user=root,host=192.0.2.9,addr=192.0.2.9,laddr=127.0.0.1,lport=22",
        "user=bin,host=box.example,addr=198.51.100.1,laddr=127.0.0.1,lport=2022",
        "user=daemon,host=192.0.2.15,addr=192.0.2.15,laddr=::1,lport=2022",
        "user=nosuchuser,host=BOX.EXAMPLE,addr=2001:db8::1,laddr=::1,lport=1",
    ] {
        assert_same_dump(&place, &config, &["-C", subject], SHARED);
    }
}

#[test]
fn what_sshd_refuses_is_refused() {
    let place = Place::new("refuse");
    for lines in [
        "NoSuchKeyword yes",
        "PermitRootLogin maybe",
        "MaxAuthTries many",
        "Ciphers rot13",
        "ClientAliveInterval -5x",
        "Port 0",
        "Port 65536",
        "Port 22 23",
        "Port",
        "MaxStartups 10:0:5",
        "Match User",
        "Match Colour blue",
        "Match all User x",
        "Match User x\nPort 22",
        "Match Address 10.0.0.1/8",
        "ListenAddress 127.0.0.1:99999",
        "Banner \"open",
        "SetEnv NOVALUE",
        "AcceptEnv A=B",
        "Subsystem sftp",
        "LogLevel LOUD",
        "SyslogFacility NOWHERE",
        "RekeyLimit 3",
        "AuthenticationMethods publickey,",
        "AddressFamily ipx",
        "PermitTTY",
        "KexAlgorithms none",
        "MACs hmac-none",
        "HostKeyAlgorithms ssh-none",
        "PubkeyAcceptedAlgorithms +ssh-none",
        "IPQoS fast",
        "PerSourceNetBlockSize 33:1",
        "AllowUsers a@10.0.0.1/8",
        "Banner a b",
    ] {
        let config = place.config(lines);
        let ours = place.check(&config, &[]);
        assert!(!ours.status.success(), "{lines}: passed");
        let said = text(&ours.stderr);
        assert!(
            said.contains(&format!("{} line ", config.display())) || said.contains("ListenAddress"),
            "{lines}: {said}"
        );
        let theirs = openssh(SSHD, &["-t", "-f", config.to_str().unwrap()]);
        assert!(!theirs.status.success(), "{lines}: sshd takes it");
    }
}

#[test]
fn all_mistakes_come_at_once_with_their_places() {
    let place = Place::new("mistakes");
    let included = place.write("more.conf", "\nRDomain vrf0\n");
    let config = place.config(&format!(
        "Port x\nInclude {}\n\nPermitTTY perhaps",
        included.display()
    ));
    let output = place.check(&config, &["-o", "MaxSessions=-1"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for place in [
        "command line: MaxSessions".to_owned(),
        format!("{} line 1: Port", config.display()),
        format!("{} line 2: RDomain", included.display()),
        format!("{} line 4: PermitTTY", config.display()),
        "4 mistakes".to_owned(),
    ] {
        assert!(said.contains(&place), "{place} in {said}");
    }
}

#[test]
fn a_host_key_that_cannot_serve_fails_the_check() {
    let place = Place::new("hostkey");
    let config = place.config("");
    fs::write(place.path("key"), "").unwrap();
    let output = place.check(&config, &[]);
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("empty"),
        "{}",
        text(&output.stderr)
    );
    let absent = place.write("absent", "HostKey /nonexistent/key\n");
    let said = text(&place.check(&absent, &[]).stderr);
    assert!(
        said.contains("/nonexistent/key") && said.contains("agent keygen"),
        "{said}"
    );
}

#[test]
fn a_missing_file_or_command_says_what_to_do() {
    let place = Place::new("usage");
    let missing = place.agent(&["check", "-c", "/nonexistent/sshd_config"]);
    assert!(text(&missing.stderr).contains("/nonexistent/sshd_config: cannot be read"));
    assert_eq!(missing.status.code(), Some(1));
    let none = place.agent(&[]);
    assert!(text(&none.stderr).contains("agent serve"));
    assert!(!none.status.success());
    let wrong = place.agent(&["serve", "--nonsense"]);
    assert!(text(&wrong.stderr).contains("--nonsense"));
    assert!(!wrong.status.success());
    let help = place.agent(&["serve", "--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("--inetd"));
    let version = text(&place.agent(&["--version"]).stdout);
    assert!(
        version.starts_with(concat!("agent ", env!("CARGO_PKG_VERSION"))),
        "{version}"
    );
}

#[test]
fn keys_made_here_are_keys_to_openssh() {
    let place = Place::new("keygen");
    for (kind, comment) in [("ed25519", "a comment"), ("ecdsa", "x"), ("ecdsa-384", "y")] {
        let path = place.path(kind);
        let file = path.to_str().unwrap();
        let made = place.agent(&["keygen", "-t", kind, "-f", file, "-C", comment]);
        assert!(made.status.success(), "{}", text(&made.stderr));
        let public = fs::read_to_string(format!("{file}.pub")).unwrap();
        assert!(public.trim_end().ends_with(comment));
        let theirs = openssh("ssh-keygen", &["-y", "-f", file]);
        assert_eq!(
            text(&theirs.stdout),
            public,
            "{kind}: {}",
            text(&theirs.stderr)
        );
        let public_file = format!("{file}.pub");
        let ours = place.agent(&["keygen", "-l", "-f", &public_file]);
        let theirs = openssh("ssh-keygen", &["-l", "-f", &public_file]);
        assert_eq!(text(&ours.stdout), text(&theirs.stdout), "{kind}");
        let again = place.agent(&["keygen", "-f", file]);
        assert!(!again.status.success() && text(&again.stderr).contains("not replaced"));
    }
}

#[test]
fn openssh_keys_are_read_with_their_fingerprints() {
    let place = Place::new("openssh");
    for arguments in [
        &["-t", "ed25519"][..],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "rsa", "-b", "2048"],
        &["-t", "rsa", "-b", "2048", "-m", "PEM"],
    ] {
        let path = place.path(&arguments.join(""));
        let file = path.to_str().unwrap();
        let mut all = vec!["-q", "-N", "", "-C", "c", "-f", file];
        all.extend(arguments);
        assert!(openssh("ssh-keygen", &all).status.success());
        let public = fs::read_to_string(format!("{file}.pub")).unwrap();
        let ours = place.agent(&["keygen", "-y", "-f", file]);
        assert_eq!(
            format!("{} c", text(&ours.stdout).trim_end()),
            public.trim_end(),
            "{}",
            text(&ours.stderr)
        );
        let config = place.write("sshd_config", &format!("HostKey {file}\n"));
        assert!(place.check(&config, &[]).status.success(), "{arguments:?}");
    }
}
