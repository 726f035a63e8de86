//! Whole logins under the filter: any system call that it does not allow would end a process, and
//! the kernel would say so.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server of our own, for the user that runs the tests.
struct Server {
    process: Child,
    directory: PathBuf,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let directory =
            std::env::temp_dir().join(format!("agent-confinement-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        for key in ["host", "user"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(directory.join(key))
                .status()
                .unwrap();
            assert!(made.success());
        }
        let place = directory.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host\nDataDir {place}/data\n\
             PidFile none\nAuthorizedKeysFile {place}/user.pub\nStrictModes no\n\
             AcceptEnv LC_*\nLogLevel DEBUG\n"
        );
        fs::write(directory.join("config"), config).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_agent"))
            .arg("-c")
            .arg(directory.join("config"))
            .arg("serve")
            .stdin(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        let server = Self {
            process,
            directory,
            port,
        };
        server.wait_for_net();
        server
    }

    fn wait_for_net(&self) {
        let patience = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < patience, "no server: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn ssh(&self) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
        ])
        .args([
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .args(["-o", "LogLevel=ERROR", "-o", "SendEnv=LC_CONFINEMENT"])
        .arg("-i")
        .arg(self.directory.join("user"))
        .args(["-p", &self.port.to_string(), "127.0.0.1"]);
        ssh
    }

    /// Runs `command` with `input`; gives what it printed.
    fn run(&self, options: &[&str], command: &str, input: &[u8]) -> Vec<u8> {
        let mut child = self
            .ssh()
            .args(options)
            .arg(command)
            .env("LC_CONFINEMENT", "accepted")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut output = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _ = stdin.write_all(input);
                drop(stdin);
            });
            stdout.read_to_end(&mut output).unwrap();
        });
        assert!(child.wait().unwrap().success(), "{command}: {}", self.log());
        output
    }

    /// The server's confined processes: pid and title.
    fn nets(&self) -> Vec<(u32, String)> {
        let monitor = self.process.id();
        let children = fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children"));
        let children = children.expect("CONFIG_PROC_CHILDREN");
        children
            .split_whitespace()
            .filter_map(|pid| {
                let title = fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
                let title = title.trim_end_matches('\0').to_owned();
                title
                    .starts_with("agent: net")
                    .then(|| (pid.parse().unwrap(), title))
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// What the kernel said about filters since it was asked for the first time.
struct KernelLog(Option<BufReader<fs::File>>);

impl KernelLog {
    fn open() -> Self {
        let log = fs::OpenOptions::new()
            .read(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open("/dev/kmsg");
        let mut log = Self(log.ok().map(BufReader::new));
        log.violations(&[]);
        log
    }

    fn violations(&mut self, pids: &[u32]) -> Vec<String> {
        let mut found = Vec::new();
        let mut line = String::new();
        while let Some(log) = &mut self.0 {
            line.clear();
            match log.read_line(&mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let about = |pid: &u32| line.contains(&format!(" pid={pid} "));
            if line.contains("type=1326") && pids.iter().any(about) {
                found.push(line.clone());
            }
        }
        found
    }
}

#[test]
fn logins_and_sessions_of_every_kind_pass_the_filter() {
    assert!(
        Path::new("/usr/bin/ssh").exists(),
        "the stock client is needed"
    );
    let mut kernel = KernelLog::open();
    let server = Server::start();
    assert_eq!(server.run(&[], "echo $LC_CONFINEMENT", b""), b"accepted\n");
    let nets = server.nets();
    assert_eq!(nets.len(), 2, "{nets:?}");

    let data: Vec<u8> = (0..3_000_000_u32)
        .flat_map(|n| n.to_le_bytes())
        .take(3_000_000)
        .collect();
    assert!(server.run(&["-o", "RekeyLimit=500K"], "cat", &data) == data);
    let tty = server.run(
        &["-tt"],
        "tty; stty size; stty -a >/dev/null; sleep 0.1",
        b"",
    );
    assert!(
        tty.starts_with(b"/dev/pts/"),
        "{}",
        String::from_utf8_lossy(&tty)
    );
    assert_eq!(server.run(&[], "echo out; echo err >&2", b""), b"out\n");
    for cipher in [
        "aes128-ctr",
        "aes256-gcm@openssh.com",
        "chacha20-poly1305@openssh.com",
    ] {
        assert_eq!(server.run(&["-c", cipher], "echo x", b""), b"x\n");
    }
    for kex in [
        "sntrup761x25519-sha512@openssh.com",
        "ecdh-sha2-nistp256",
        "curve25519-sha256",
    ] {
        let option = format!("KexAlgorithms={kex}");
        assert_eq!(server.run(&["-o", &option], "echo x", b""), b"x\n");
    }

    assert_eq!(
        server.nets(),
        nets,
        "a process was replaced: {}",
        server.log()
    );
    let pids: Vec<u32> = nets.iter().map(|(pid, _)| *pid).collect();
    assert_eq!(kernel.violations(&pids), Vec::<String>::new());
    for (pid, title) in nets {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
            assert!(status.contains(line), "{title}: {status}");
        }
    }
}
