//! A server with a directory of its own, and requests to it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Generous: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(30);

/// What is tested: this build, or the file that AGENT_UNDER_TEST names.
pub fn agent() -> PathBuf {
    let named = std::env::var_os("AGENT_UNDER_TEST");
    named.map_or_else(|| env!("CARGO_BIN_EXE_agent").into(), PathBuf::from)
}

pub struct Server {
    pub directory: PathBuf,
    pub config: PathBuf,
    pub port: u16,
    child: Child,
}

impl Server {
    /// Starts one with these lines of configuration; waits until it serves.
    pub fn start(lines: &[&str]) -> Self {
        let server = Self::launch(&directory(), lines);
        wait("the debug socket", || server.socket().exists());
        server
    }

    /// Starts one in `directory`; waits until it accepts connections.
    pub fn launch(directory: &Path, lines: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = directory.join(format!("config-{number}"));
        fs::write(
            &config,
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nDataDir {0}/run\nHostKeyDir {0}/keys\n\
                 PidFile none\n{1}\n",
                directory.display(),
                lines.join("\n")
            ),
        )
        .unwrap();
        let child = Command::new(agent())
            .arg("-c")
            .arg(&config)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(directory.join("log"))
                    .unwrap(),
            )
            .spawn()
            .unwrap();
        let server = Self {
            directory: directory.to_owned(),
            config,
            port,
            child,
        };
        wait("the server to answer", || server.greets());
        server
    }

    /// It serves strangers.
    pub fn greets(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else {
            return false;
        };
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let mut version = [0; 8];
        stream.read_exact(&mut version).is_ok() && version == *b"SSH-2.0-"
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.join("run/debug.sock")
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    pub fn wait_for_log(&self, what: &str) {
        wait(what, || self.log().contains(what));
    }

    /// The processes that it started, by their titles.
    pub fn children(&self, title: &str) -> Vec<i32> {
        self.children_that(|found| found == title)
    }

    pub fn children_that(&self, is_it: impl Fn(&str) -> bool) -> Vec<i32> {
        let parent = self.pid().as_raw_nonzero().get().to_string();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| {
                let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                let fields = stat.rsplit(')').next().unwrap_or_default();
                is_it(line.trim_end_matches('\0'))
                    && fields.split_whitespace().nth(1) == Some(parent.as_str())
            })
            .collect()
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        stream
    }

    /// Sends bytes and gives the whole answer.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        self.raw_for(bytes, LIMIT)
    }

    /// The same, for an answer that takes its time.
    pub fn raw_for(&self, bytes: &[u8], patience: Duration) -> Answer {
        let mut stream = self.connect();
        stream.set_read_timeout(Some(patience)).unwrap();
        // Who refuses early does not read to the end.
        let _ = stream.write_all(bytes);
        answer(stream)
    }

    pub fn get(&self, target: &str) -> Answer {
        self.raw(format!("GET {target} HTTP/1.1\r\nHost: agent\r\n\r\n").as_bytes())
    }

    pub fn put(&self, target: &str, body: &str) -> Answer {
        self.with_body("PUT", target, body)
    }

    pub fn with_body(&self, method: &str, target: &str, body: &str) -> Answer {
        let len = body.len();
        self.raw(
            format!(
                "{method} {target} HTTP/1.1\r\nHost: agent\r\nContent-Length: {len}\r\n\r\n{body}"
            )
            .as_bytes(),
        )
    }

    /// `agent debug …` with this server's configuration.
    pub fn command(&self, words: &[&str]) -> Output {
        debug_command(&self.config, words)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
        let _ = kill_process(self.pid(), Signal::USR1);
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Ok(Some(_)) = self.child.try_wait() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

pub fn debug_command(config: &Path, words: &[&str]) -> Output {
    Command::new(agent())
        .arg("-c")
        .arg(config)
        .arg("debug")
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// Reads to the end.
pub fn answer(mut stream: UnixStream) -> Answer {
    let mut bytes = Vec::new();
    // A reset after the answer is the sender's own doing.
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        body: bytes[end + 4..].to_vec(),
        head,
    }
}

/// A new directory that others may enter.
pub fn directory() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("agent-debug-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
