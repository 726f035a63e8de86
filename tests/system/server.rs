//! The server under test: `agent`, or Debian's sshd as the reference.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::accounts::make_key;
use crate::harness::World;
use crate::processes::{self, Process, wait_for, wait_until};

/// Generous: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(30);

const SSHD: &str = "/usr/sbin/sshd";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Agent,
    Sshd,
}

impl Kind {
    pub fn from_environment() -> Self {
        match std::env::var("SERVER_UNDER_TEST").as_deref() {
            Err(_) | Ok("agent") => Self::Agent,
            Ok("sshd") => Self::Sshd,
            Ok(other) => panic!("SERVER_UNDER_TEST={other}: agent or sshd"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Sshd => "sshd",
        }
    }
}

/// The agent's file.
pub fn agent_file() -> PathBuf {
    std::env::var_os("AGENT_UNDER_TEST")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_agent")), PathBuf::from)
}

/// A running server; ended when dropped.
pub struct Server {
    pub port: u16,
    pub config: PathBuf,
    pub log: PathBuf,
    child: Child,
    kind: Kind,
}

impl Server {
    pub fn start(world: &World, lines: &[&str], log: &Path) -> Self {
        let port = free_port();
        let config = world.directory.join(format!("config-{}", world.number()));
        fs::write(&config, configuration(world, port, lines)).unwrap();
        let server = Self::launch(
            world.kind,
            command(world.kind, &config, false),
            &config,
            port,
            log,
        );
        server.wait_until_ready();
        server
    }

    /// Starts one of ours by `command`, which has no arguments yet; not waited for.
    pub fn start_by(
        mut command: Command,
        world: &World,
        port: u16,
        lines: &[&str],
        log: &Path,
    ) -> Self {
        let config = world.directory.join(format!("config-{}", world.number()));
        fs::write(&config, configuration(world, port, lines)).unwrap();
        command.arg("-c").arg(&config).arg("serve");
        Self::launch(world.kind, command, &config, port, log)
    }

    fn launch(kind: Kind, mut command: Command, config: &Path, port: u16, log: &Path) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().create(true).append(true).open(log).unwrap())
            .spawn()
            .unwrap();
        Self {
            port,
            config: config.to_path_buf(),
            log: log.to_path_buf(),
            child,
            kind,
        }
    }

    /// Until it says its version: then it accepts logins.
    pub fn wait_until_ready(&self) {
        wait_until("the server to answer", LIMIT, || {
            assert!(
                processes::is_alive(self.id()),
                "the server ended; its log:\n{}",
                self.log_text()
            );
            reads_version(self.port)
        });
    }

    /// Process id of the listening process: sshd's, or our monitor's.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the log has a line with all `parts`.
    pub fn wait_for_log(&self, parts: &[&str]) -> String {
        wait_for(&format!("a log line with {parts:?}"), LIMIT, || {
            let text = self.log_text();
            let line = text
                .lines()
                .find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned)
        })
    }

    pub fn signal(&self, signal: Signal) {
        processes::kill(self.id(), signal);
    }

    /// Waits for the end of the process that was started.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        wait_for("the server to end", LIMIT, || {
            self.child.try_wait().unwrap()
        })
    }

    /// Rewrites the configuration with other `lines`, the port staying, and has it read.
    pub fn reload(&self, world: &World, lines: &[&str]) {
        fs::write(&self.config, configuration(world, self.port, lines)).unwrap();
        self.signal(Signal::HUP);
    }

    /// Our processes by the start of their command line, descendants of the monitor.
    pub fn processes(&self, title: &str) -> Vec<Process> {
        let family = processes::family(self.id());
        family
            .into_iter()
            .filter(|process| process.command.starts_with(title))
            .collect()
    }

    /// Memory of the server and all its processes.
    pub fn memory_kib(&self) -> u64 {
        processes::family_memory_kib(self.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        // What serves connections first: sshd leaves it alone, and so do we on SIGTERM.
        let family = processes::family(self.id());
        self.signal(Signal::TERM);
        let patience = match self.kind {
            Kind::Agent => Duration::from_secs(5),
            Kind::Sshd => Duration::from_secs(2),
        };
        let deadline = std::time::Instant::now() + patience;
        while self.child.try_wait().is_ok_and(|status| status.is_none()) {
            if std::time::Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for process in family {
            // The id may have been given anew only to a process of another command line.
            if processes::read(process.id).is_some_and(|now| now.command == process.command) {
                processes::kill(process.id, Signal::KILL);
            }
        }
    }
}

/// How to start the server on `config`; for one connection on its stdin and stdout with `inetd`.
pub fn command(kind: Kind, config: &Path, inetd: bool) -> Command {
    match kind {
        Kind::Agent => {
            let mut command = Command::new(agent_file());
            command
                .arg("-c")
                .arg(config)
                .arg("serve")
                .args(inetd.then_some("--inetd"));
            command
        }
        Kind::Sshd => {
            fs::create_dir_all("/run/sshd").unwrap();
            let mut command = Command::new(SSHD);
            command
                .arg("-e")
                .arg(if inetd { "-i" } else { "-D" })
                .arg("-f")
                .arg(config);
            command
        }
    }
}

/// A configuration: the case's lines first, because the first value of a keyword holds.
pub fn configuration(world: &World, port: u16, lines: &[&str]) -> String {
    // Match blocks reach to the end of the file.
    let split = lines
        .iter()
        .position(|line| line.starts_with("Match"))
        .unwrap_or(lines.len());
    let mut text = String::new();
    for line in &lines[..split] {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!(
        "Port {port}\nListenAddress 127.0.0.1\nLogLevel DEBUG\nPidFile none\n"
    ));
    text.push_str("UseDNS no\nPrintMotd no\nPrintLastLog no\n");
    for name in ["ed25519", "ecdsa256", "ecdsa384", "rsa"] {
        text.push_str(&format!("HostKey {}\n", world.host_key(name).display()));
    }
    match world.kind {
        Kind::Agent => {
            let data = world.directory.join(format!("data-{port}"));
            text.push_str(&format!("DataDir {}\n", data.display()));
        }
        Kind::Sshd => text.push_str("UsePAM no\n"),
    }
    for line in &lines[split..] {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// A port of 127.0.0.1 that was free just now.
pub fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

/// Connects, reads the start of the version line, and says ours, so that it looks like a client.
pub fn reads_version(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let _ = stream.write_all(b"SSH-2.0-ready\r\n");
    let mut start = [0; 8];
    stream.read_exact(&mut start).is_ok() && &start == b"SSH-2.0-"
}

pub fn make_host_keys(directory: &Path) {
    fs::create_dir_all(directory).unwrap();
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    for (name, kind) in [
        ("ed25519", &["-t", "ed25519"][..]),
        ("ecdsa256", &["-t", "ecdsa", "-b", "256"]),
        ("ecdsa384", &["-t", "ecdsa", "-b", "384"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
    ] {
        make_key(&directory.join(name), kind);
    }
}

/// Accounts and setuid need it; a run that cannot test is not a run that passed.
pub fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the system tests make users: run them as root: sudo -E cargo xtask test system"
    );
}
