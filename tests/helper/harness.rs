//! Plays the monitor and `net` to a real helper, as root.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::config::options::HelperMode;
use agent::memexec::{HelperImage, OwnImage, prepare};
use agent_helper::frame::{
    Ending, HelperToMonitor, Identity, KeyRecord, MonitorToHelper, NetToSession, Policy, Program,
    SessionToNet,
};
use agent_helper::link::{self, Assembly, Link, LinkError, Received};
use agent_helper::wire::{Bytes, Wire};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;
use rustix::process::{Pid, WaitOptions, WaitStatus};

/// Longer than anything here takes on a loaded machine; a test that reaches it has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// A user and a group that no account database here has.
pub const UID: u32 = 64_990;
pub const GID: u32 = 64_991;

/// These tests change users and mount file systems.
pub fn require_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test needs root: sudo env PATH=\"$PATH\" cargo test --test helper"
    );
}

/// The agent's executable, as the monitor would have opened it.
pub fn own_image() -> OwnImage {
    OwnImage::from_descriptor(
        File::open(env!("CARGO_BIN_EXE_agent"))
            .expect("the agent")
            .into(),
    )
}

pub fn pair() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = link::pair().expect("a socket pair");
    sockopt::set_socket_timeout(&ours, sockopt::Timeout::Recv, Some(PATIENCE)).expect("a timeout");
    (ours, theirs)
}

/// One end of a link with its receiving state.
pub struct End {
    pub link: Link,
    assembly: Assembly,
}

impl End {
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            link: Link::new(socket),
            assembly: Assembly::default(),
        }
    }

    pub fn send(&self, frame: &impl Wire, descriptors: &[&OwnedFd]) {
        let borrowed: Vec<_> = descriptors
            .iter()
            .map(|descriptor| descriptor.as_fd())
            .collect();
        self.link
            .send(0, frame, &borrowed, true)
            .expect("the helper takes frames");
    }

    pub fn receive_raw(&mut self) -> Result<Received, LinkError> {
        self.link
            .receive(&mut self.assembly, true)
            .map(|frame| frame.expect("a frame in time"))
    }

    pub fn receive<T: Wire>(&mut self) -> (T, Vec<OwnedFd>) {
        let received = self.receive_raw().expect("the helper lives");
        (
            T::from_wire(&received.content).expect("a frame"),
            received.descriptors,
        )
    }

    /// True when the other end is gone; a frame instead is a failure.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.receive_raw(), Err(LinkError::Closed))
    }
}

/// A helper under test, and the monitor's end of its link.
pub struct Helper {
    pub pid: Pid,
    pub monitor: End,
    reaped: bool,
}

impl Helper {
    pub fn start() -> Self {
        Self::start_from(&mut prepare(HelperMode::Memfd, &own_image()).expect("a memfd"))
    }

    pub fn start_from(image: &mut HelperImage) -> Self {
        let (ours, theirs) = pair();
        let launched = image
            .launch(c"agent-helper: [auth]", theirs.as_fd())
            .expect("a launch");
        drop(theirs);
        let mut helper = Self {
            pid: launched.pid,
            monitor: End::new(ours),
            reaped: false,
        };
        let (hello, _) = helper.monitor.receive::<HelperToMonitor>();
        assert_eq!(
            hello,
            HelperToMonitor::Hello {
                build_id: agent::BUILD_ID
            }
        );
        helper
    }

    /// Accepts the login; gives `net`'s end of the session socket.
    pub fn accept(&mut self, policy: &Policy) -> End {
        let net = self.accept_only(policy);
        let (ready, _) = self.monitor.receive::<HelperToMonitor>();
        assert_eq!(ready, HelperToMonitor::Ready);
        net
    }

    pub fn accept_only(&mut self, policy: &Policy) -> End {
        let (ours, theirs) = pair();
        self.monitor.send(
            &MonitorToHelper::Accepted {
                policy: policy.clone(),
            },
            &[&theirs],
        );
        End::new(ours)
    }

    /// A line of `/proc/PID/status`.
    pub fn status(&self, name: &str) -> String {
        status_of(self.pid, name)
    }

    /// Waits for the helper's end.
    pub fn wait(&mut self) -> WaitStatus {
        self.reaped = true;
        wait_for(self.pid)
    }

    pub fn lives(&self) -> bool {
        matches!(
            rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG),
            Ok(None)
        )
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = rustix::process::kill_process(self.pid, rustix::process::Signal::KILL);
            let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
        }
    }
}

pub fn wait_for(pid: Pid) -> WaitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some((_, status)) =
            rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).expect("a child")
        {
            return status;
        }
        assert!(Instant::now() < deadline, "process {pid:?} does not end");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn status_of(pid: Pid, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).expect("a status");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.expect(name)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// Waits until `condition` holds.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A directory for one test, owned by the test user; gone afterwards.
pub struct Home(pub PathBuf);

impl Home {
    pub fn new() -> Self {
        // Process ids repeat across PID namespaces.
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
            .expect("a name");
        let name = format!("agent-helper-{:016x}", u64::from_ne_bytes(random));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a home directory");
        std::os::unix::fs::chown(&path, Some(UID), Some(GID)).expect("an owner");
        Self(path.canonicalize().expect("its path"))
    }

    pub fn bytes(&self) -> Bytes {
        Bytes::from(self.0.to_str().expect("text"))
    }

    /// Writes `content` to `name` as the user would.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).expect("directories");
            own(parent);
        }
        fs::write(&path, content).expect("a file");
        own(&path);
        path
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn own(path: &Path) {
    std::os::unix::fs::chown(path, Some(UID), Some(GID)).expect("an owner");
}

pub fn identity(home: &Home) -> Identity {
    Identity {
        uid: UID,
        gid: GID,
        groups: vec![GID, 64_992, 64_993],
        name: "tester".into(),
        home: home.bytes(),
        shell: "/bin/sh".into(),
    }
}

pub fn policy(home: &Home) -> Policy {
    Policy {
        identity: identity(home),
        change_identity: true,
        title: "tester@192.0.2.7".into(),
        environment: vec![
            ("USER".into(), "tester".into()),
            ("LOGNAME".into(), "tester".into()),
            ("HOME".into(), home.bytes()),
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("SHELL".into(), "/bin/sh".into()),
            ("SSH_CLIENT".into(), "192.0.2.7 40000 22".into()),
            (
                "SSH_CONNECTION".into(),
                "192.0.2.7 40000 192.0.2.1 22".into(),
            ),
        ],
        permit_pty: true,
        permit_user_rc: true,
        max_sessions: 10,
        ..Policy::default()
    }
}

/// A logged-in connection: `net`'s end, and the helper behind it.
pub struct Login {
    pub helper: Helper,
    pub net: End,
    pub home: Home,
}

impl Login {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// Logs in with a policy that `change` made from the usual one.
    pub fn with(change: impl FnOnce(&mut Policy)) -> Self {
        require_root();
        let home = Home::new();
        let mut helper = Helper::start();
        let keys = home.write(".ssh/authorized_keys", "a key\n");
        let read = read_keys(&mut helper, &identity(&home), &[&keys], true, 1000);
        assert_eq!(read, Some(vec![KeyFile::Content("a key\n".into())]));
        Self::behind(helper, home, change)
    }

    /// Logs in where nobody looked into the home directory before.
    pub fn unseen() -> Self {
        require_root();
        Self::behind(Helper::start(), Home::new(), |_| {})
    }

    fn behind(mut helper: Helper, home: Home, change: impl FnOnce(&mut Policy)) -> Self {
        let mut policy = policy(&home);
        change(&mut policy);
        let net = helper.accept(&policy);
        Self { helper, net, home }
    }

    pub fn start(
        &mut self,
        session: u32,
        program: Program,
        environment: &[(&str, &str)],
    ) -> Running {
        self.send_start(session, program, environment);
        self.started(session)
    }

    pub fn send_start(&self, session: u32, program: Program, environment: &[(&str, &str)]) {
        let environment = environment
            .iter()
            .map(|&(name, value)| (name.into(), value.into()))
            .collect();
        self.net.send(
            &NetToSession::Start {
                session,
                program,
                environment,
            },
            &[],
        );
    }

    pub fn started(&mut self, session: u32) -> Running {
        let (frame, descriptors) = self.net.receive::<SessionToNet>();
        let SessionToNet::Started {
            session: answered,
            pid,
        } = frame
        else {
            panic!("not started: {frame:?}")
        };
        assert_eq!(answered, session);
        let mut files = descriptors.into_iter().map(File::from);
        let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("a pid");
        Running {
            pid,
            input: files.next(),
            output: files.next(),
            errors: files.next(),
        }
    }

    /// Runs a command line without a terminal to its end.
    pub fn run(&mut self, line: &str) -> (String, String, Ending) {
        self.run_program(command(line), &[])
    }

    pub fn run_program(
        &mut self,
        program: Program,
        environment: &[(&str, &str)],
    ) -> (String, String, Ending) {
        let mut running = self.start(1, program, environment);
        drop(running.input.take());
        let output = read_all(running.output.as_ref().expect("stdout"));
        let errors = read_all(running.errors.as_ref().expect("stderr"));
        (output, errors, self.ended(1))
    }

    pub fn ended(&mut self, session: u32) -> Ending {
        let (frame, _) = self.net.receive::<SessionToNet>();
        match frame {
            SessionToNet::Ended {
                session: answered,
                ending,
            } if answered == session => ending,
            // Of a file server, whose frames need not come after the helper's own.
            SessionToNet::Tally { .. } => self.ended(session),
            other => panic!("not an end: {other:?}"),
        }
    }

    /// Opens a terminal; gives its master.
    pub fn terminal(&mut self, session: u32, modes: &[u8]) -> Option<File> {
        self.net.send(
            &NetToSession::OpenTerminal {
                session,
                term: "vt100".into(),
                size: *b"\0\0\0\x50\0\0\0\x18\0\0\0\0\0\0\0\0",
                modes: modes.into(),
            },
            &[],
        );
        match self.net.receive::<SessionToNet>() {
            (SessionToNet::TerminalOpened { session: answered }, descriptors) => {
                assert_eq!(answered, session);
                descriptors.into_iter().next().map(File::from)
            }
            (SessionToNet::NoTerminal { .. }, _) => None,
            other => panic!("not an answer: {other:?}"),
        }
    }
}

pub struct Running {
    pub pid: Pid,
    pub input: Option<File>,
    pub output: Option<File>,
    pub errors: Option<File>,
}

pub fn command(line: &str) -> Program {
    Program::Command { line: line.into() }
}

pub const EXIT_0: Ending = Ending::Exit { status: 0 };

/// Everything until the end of a pipe or terminal.
pub fn read_all(file: &File) -> String {
    read_until(file, |_| false)
}

/// Reads until `enough`, or to the end.
pub fn read_until(mut file: &File, enough: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + PATIENCE;
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let left = deadline.saturating_duration_since(Instant::now());
        if enough(&text) {
            return text;
        }
        assert!(!left.is_zero(), "no end in time; so far: {text:?}");
        let timeout = Timespec::try_from(left).expect("a time");
        let _ = poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&timeout));
        let mut buffer = [0; 4096];
        match file.read(&mut buffer) {
            // A terminal whose last user is gone ends with EIO.
            Ok(0) | Err(_) => return text,
            Ok(filled) => bytes.extend_from_slice(&buffer[..filled]),
        }
    }
}

/// What the key reader said about one file.
#[derive(Debug, PartialEq, Eq)]
pub enum KeyFile {
    Content(String),
    Truncated(String),
    Missing,
    Refused(String),
    Failed(i32),
}

/// Has a helper read `files`; `None` where it could not become the user.
pub fn read_keys(
    helper: &mut Helper,
    identity: &Identity,
    files: &[&Path],
    strict_modes: bool,
    limit_bytes: u32,
) -> Option<Vec<KeyFile>> {
    let files: Vec<Bytes> = files
        .iter()
        .map(|path| Bytes::from(path.to_str().expect("text")))
        .collect();
    let request = MonitorToHelper::ReadKeys {
        identity: identity.clone(),
        change_identity: true,
        files,
        strict_modes,
        limit_bytes,
    };
    ask_reader(helper, &request)
}

/// Runs a command as `identity`; its output is the one file.
pub fn run_command(
    helper: &mut Helper,
    identity: &Identity,
    arguments: &[&str],
    limit_bytes: u32,
) -> Option<Vec<KeyFile>> {
    let request = MonitorToHelper::RunCommand {
        identity: identity.clone(),
        change_identity: true,
        arguments: arguments.iter().map(|&word| Bytes::from(word)).collect(),
        limit_bytes,
    };
    ask_reader(helper, &request)
}

fn ask_reader(helper: &mut Helper, request: &MonitorToHelper) -> Option<Vec<KeyFile>> {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    helper.monitor.send(request, &[&writer.into()]);
    let mut bytes = Vec::new();
    let file = File::from(OwnedFd::from(reader));
    (&file).read_to_end(&mut bytes).expect("records");
    let (answer, _) = helper.monitor.receive::<HelperToMonitor>();
    match answer {
        HelperToMonitor::KeysRead { ok: true } => Some(parse_records(&bytes)),
        HelperToMonitor::KeysRead { ok: false } => None,
        other => panic!("not an answer: {other:?}"),
    }
}

fn parse_records(mut bytes: &[u8]) -> Vec<KeyFile> {
    let mut files = Vec::new();
    let mut content = Vec::new();
    loop {
        let (header, rest) = bytes.split_at(KeyRecord::HEADER_BYTES);
        let word = |index: usize| {
            u32::from_le_bytes(
                header[index * 4..index * 4 + 4]
                    .try_into()
                    .expect("4 bytes"),
            )
        };
        let (file, status, len) = (word(0), word(1), word(2) as usize);
        let (detail, rest) = rest.split_at(len);
        bytes = rest;
        if status == KeyRecord::END {
            assert!(bytes.is_empty(), "nothing behind the end");
            return files;
        }
        assert_eq!(file as usize, files.len(), "files in order");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match status {
            KeyRecord::CHUNK => content.extend_from_slice(detail),
            KeyRecord::COMPLETE => {
                files.push(KeyFile::Content(text(&std::mem::take(&mut content))))
            }
            KeyRecord::TRUNCATED => {
                files.push(KeyFile::Truncated(text(&std::mem::take(&mut content))));
            }
            KeyRecord::MISSING => files.push(KeyFile::Missing),
            KeyRecord::REFUSED => files.push(KeyFile::Refused(text(detail))),
            KeyRecord::FAILED => {
                let errno = i32::from_le_bytes(detail.try_into().expect("4 bytes"));
                files.push(KeyFile::Failed(errno));
            }
            other => panic!("unknown status {other}"),
        }
    }
}
