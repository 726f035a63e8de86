//! Stock clients: how each is told to log in, and what came of it.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::accounts::{self, User};
use crate::harness::World;
use crate::processes::wait_for;
use crate::server::{LIMIT, Server};

/// What a command came to.
#[derive(Debug)]
pub struct Ran {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Ran {
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The output of a command that had to succeed.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(
            self.status.success(),
            "{}: {}{}",
            self.status,
            self.out(),
            self.err()
        );
        self.out()
    }

    /// The client was not let in.
    #[track_caller]
    pub fn refused(&self) {
        assert_eq!(self.code(), Some(255), "{}{}", self.out(), self.err());
        assert!(
            self.err().contains("Permission denied") || self.err().contains("Too many auth"),
            "{}",
            self.err()
        );
    }
}

/// A command in the background whose output is gathered.
pub struct Running {
    pub child: Child,
    readers: Option<[JoinHandle<Vec<u8>>; 2]>,
    shown: String,
}

impl Running {
    pub fn start(command: &mut Command, input: Vec<u8>) -> Self {
        let mut running = Self::start_open(command);
        let mut stdin = running.child.stdin.take().unwrap();
        thread::spawn(move || {
            // The other side may end before it has read everything.
            let _ = stdin.write_all(&input);
        });
        running
    }

    /// Leaves standard input open, for the caller to write to or to close.
    pub fn start_open(command: &mut Command) -> Self {
        let shown = format!("{command:?}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        let stdout = read_all(child.stdout.take().unwrap());
        let stderr = read_all(child.stderr.take().unwrap());
        Self {
            child,
            readers: Some([stdout, stderr]),
            shown,
        }
    }

    pub fn wait(self) -> Ran {
        self.wait_within(LIMIT * 2)
    }

    pub fn wait_within(mut self, limit: Duration) -> Ran {
        drop(self.child.stdin.take());
        let shown = std::mem::take(&mut self.shown);
        let child = &mut self.child;
        let status = wait_for(&shown, limit, || child.try_wait().unwrap());
        let [stdout, stderr] = self.readers.take().unwrap();
        Ran {
            status,
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

/// Runs a command to its end with nothing on its standard input.
pub fn run(command: &mut Command) -> Ran {
    Running::start(command, Vec::new()).wait()
}

/// OpenSSH's client without any configuration of the machine. The remote command still to come.
pub fn ssh(server: &Server, user: &User) -> Command {
    ssh_as(server, &user.name, &user.key)
}

pub fn ssh_as(server: &Server, name: &str, key: &Path) -> Command {
    let mut command = Command::new("ssh");
    command
        .args(ssh_options(key))
        .args(["-p", &server.port.to_string()]);
    command.args(["-l", name, "127.0.0.1"]);
    // Nothing of the terminal or the locale of whoever runs the tests.
    command
        .env_remove("SSH_AUTH_SOCK")
        .env("LC_ALL", "C")
        .env("TERM", "dumb");
    command
}

/// Options that keep ssh from asking, guessing and remembering.
pub fn ssh_options(key: &Path) -> Vec<String> {
    let mut options: Vec<String> = ["-F", "none"].map(str::to_owned).into();
    for option in [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "IdentityAgent=none",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=/dev/null",
        "PreferredAuthentications=publickey",
        "LogLevel=ERROR",
        "ConnectTimeout=30",
    ] {
        options.extend(["-o".to_owned(), option.to_owned()]);
    }
    options.extend(["-i".to_owned(), key.display().to_string()]);
    options
}

/// Logs in with OpenSSH's client and runs a command there.
pub fn ssh_run(server: &Server, user: &User, remote: &str) -> Ran {
    run(ssh(server, user).arg(remote))
}

/// The same client, showing what it shows a person: banners, and why there is no connection.
pub fn talkative(ssh: &Command) -> Command {
    let mut command = Command::new(ssh.get_program());
    for argument in ssh.get_args() {
        command.arg(
            argument
                .to_str()
                .unwrap()
                .replace("LogLevel=ERROR", "LogLevel=INFO"),
        );
    }
    command.env_remove("SSH_AUTH_SOCK").env("LC_ALL", "C.UTF-8");
    command
}

/// A Python with paramiko and asyncssh; ssh-audit stands beside it.
pub fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let installed = std::env::var_os("HOME")
            .map(|home| Path::new(&home).join(".cache/agent-xtask/python-clients/bin/python3"));
        std::env::var_os("TEST_PYTHON")
            .map(PathBuf::from)
            .or(installed.filter(|python| python.exists()))
            .expect(
                "TEST_PYTHON must name a Python with paramiko and asyncssh: `cargo xtask setup` \
                 installs one",
            )
    })
}

/// Where npm put ssh2.
pub fn node_modules() -> &'static Path {
    static MODULES: OnceLock<PathBuf> = OnceLock::new();
    MODULES.get_or_init(|| {
        let installed = std::env::var_os("HOME")
            .map(|home| Path::new(&home).join(".cache/agent-xtask/node-clients/node_modules"));
        std::env::var_os("TEST_NODE_MODULES")
            .map(PathBuf::from)
            .or(installed.filter(|modules| modules.join("ssh2").exists()))
            .expect(
                "TEST_NODE_MODULES must name a directory with ssh2: `cargo xtask setup` makes one",
            )
    })
}

/// dropbear's client; it reads keys in a format of its own.
pub struct Dbclient {
    key: PathBuf,
    home: PathBuf,
}

impl Dbclient {
    pub fn new(world: &World, user: &User) -> Self {
        let key = world.directory.join(format!("{}.dropbear", user.name));
        accounts::run(
            Command::new("dropbearconvert")
                .args(["openssh", "dropbear"])
                .arg(&user.key)
                .arg(&key),
        );
        Self {
            key,
            home: world.directory.clone(),
        }
    }

    pub fn command(&self, server: &Server, user: &User, remote: &str) -> Command {
        let mut command = Command::new("dbclient");
        command
            .env("HOME", &self.home)
            .arg("-y")
            .arg("-y")
            .arg("-i")
            .arg(&self.key);
        command.args([
            "-p",
            &server.port.to_string(),
            "-l",
            &user.name,
            "127.0.0.1",
            remote,
        ]);
        command
    }
}

/// PuTTY's client; it reads keys in a format of its own and knows hosts by fingerprint.
pub struct Plink {
    key: PathBuf,
    home: PathBuf,
    fingerprints: Vec<String>,
}

impl Plink {
    pub fn new(world: &World, user: &User) -> Self {
        let key = world.directory.join(format!("{}.ppk", user.name));
        accounts::run(
            Command::new("puttygen")
                .arg(&user.key)
                .args(["-O", "private", "-o"])
                .arg(&key),
        );
        let fingerprints = ["ed25519", "ecdsa256", "ecdsa384", "rsa"]
            .map(|name| {
                let public = world.host_key(name).with_extension("pub");
                let shown = run(Command::new("ssh-keygen").arg("-lf").arg(public)).success();
                shown.split(' ').nth(1).unwrap().to_owned()
            })
            .into();
        Self {
            key,
            home: world.directory.clone(),
            fingerprints,
        }
    }

    /// Options that all of PuTTY's clients take.
    pub fn options(&self, server: &Server) -> Vec<String> {
        let mut options: Vec<String> = ["-batch", "-noagent", "-i"].map(str::to_owned).into();
        options.push(self.key.display().to_string());
        for fingerprint in &self.fingerprints {
            options.extend(["-hostkey".to_owned(), fingerprint.clone()]);
        }
        options.extend(["-P".to_owned(), server.port.to_string()]);
        options
    }

    pub fn command(&self, server: &Server, user: &User, remote: &str) -> Command {
        let mut command = Command::new("plink");
        command
            .env("HOME", &self.home)
            .arg("-ssh")
            .args(self.options(server))
            .args(["-l", &user.name, "127.0.0.1", remote]);
        command
    }
}

/// A Python program that logs in once for each port it is told, and says how that went.
pub struct PythonClient {
    child: Child,
    answers: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
    errors: PathBuf,
}

impl PythonClient {
    pub fn start(world: &World, user: &User, program: &str) -> Self {
        use std::io::BufRead;

        let errors = world.directory.join("python-errors");
        let mut child = Command::new(python())
            .args(["-c", program, &user.name])
            .arg(&user.key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let answers = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self {
            child,
            answers,
            errors,
        }
    }

    /// `ok`, or what went wrong.
    pub fn log_in(&mut self, server: &Server) -> String {
        let stdin = self.child.stdin.as_mut().unwrap();
        writeln!(stdin, "{}", server.port).unwrap();
        stdin.flush().unwrap();
        self.answers.next().map_or_else(
            || {
                format!(
                    "ended: {}",
                    fs::read_to_string(&self.errors).unwrap_or_default()
                )
            },
            |line| line.unwrap(),
        )
    }
}

impl Drop for PythonClient {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
