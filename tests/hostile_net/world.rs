//! A real server with puppets in it.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use agent::frames::{NetToMonitor, ToNet};
use agent::ssh::crypto::Random;
use agent::ssh::crypto::private_key::PrivateKey;
use agent::ssh::crypto::public_key::KeyType;
use agent_helper::link::{Assembly, Link, LinkError, Received};
use agent_helper::wire::Wire;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::puppet;

/// Tells this file that it is the server.
pub const SERVER: &str = "HOSTILE_SERVER";

/// How long anything may take before it counts as not happening.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct World {
    pub directory: PathBuf,
    server: Child,
    pub address: SocketAddr,
    strangers: Option<OwnedFd>,
    users: Option<OwnedFd>,
    helper: Option<OwnedFd>,
    passwords: Option<OwnedFd>,
    names: Option<OwnedFd>,
    pub host_key: PrivateKey,
}

/// A process whose every word is the test's.
pub struct Puppet {
    pub link: Link,
    assembly: Assembly,
    /// Keeps the process alive.
    _control: Link,
    pub pid: u32,
    pub listeners: Vec<OwnedFd>,
}

#[derive(Default)]
pub struct Setting {
    pub config: String,
    /// Lines of authorized_keys, by user.
    pub keys: Vec<(String, String)>,
    pub play_users: bool,
    pub play_helper: bool,
    pub play_passwords: bool,
    pub play_names: bool,
}

impl World {
    /// Starts a server whose strangers' `net` is a puppet.
    pub fn start(setting: &Setting) -> (Self, Puppet) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory =
            std::env::temp_dir().join(format!("agent-hostile-{}-{number}", std::process::id()));
        std::fs::create_dir_all(directory.join("keys")).unwrap();
        let random = Random::system();
        let host_key = PrivateKey::generate(KeyType::Ed25519, &random).unwrap();
        write_private(&directory.join("hk"), &host_key.to_file("test", &random));
        for (user, lines) in &setting.keys {
            std::fs::write(directory.join("keys").join(user), lines).unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let root = directory.display();
        let config = format!(
            "{}\nListenAddress 127.0.0.1\nPort {port}\nHostKey {root}/hk\n\
             AuthorizedKeysFile {root}/keys/%u\nStrictModes no\nDataDir {root}/run\n\
             PermitRootLogin yes\nMaxStartups 1000:30:1000\nLogLevel DEBUG\nAccounting no\n",
            setting.config
        );
        std::fs::write(directory.join("config"), config).unwrap();
        let listen = |name: &str| listening(&directory.join(name));
        let strangers = Some(listen("strangers"));
        let users = setting.play_users.then(|| listen("users"));
        let helper = setting.play_helper.then(|| listen("helper"));
        let passwords = setting.play_passwords.then(|| listen("passwords"));
        let names = setting.play_names.then(|| listen("names"));
        let log = File::create(directory.join("log")).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .arg0("agent")
            .args(["-c", directory.join("config").to_str().unwrap(), "serve"])
            .env(SERVER, "1")
            .env(puppet::STRANGERS, directory.join("strangers"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        if users.is_some() {
            command.env(puppet::USERS, directory.join("users"));
        }
        if helper.is_some() {
            command.env(puppet::HELPER, directory.join("helper"));
        }
        if passwords.is_some() {
            command.env(puppet::PASSWORDS, directory.join("passwords"));
        }
        if names.is_some() {
            command.env(puppet::NAMES, directory.join("names"));
        }
        let server = command.spawn().unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let world = Self {
            directory,
            server,
            address,
            strangers,
            users,
            helper,
            passwords,
            names,
            host_key,
        };
        let puppet = world.next_strangers();
        puppet.hello();
        (world, puppet)
    }

    /// The strangers' `net` that the monitor starts next.
    pub fn next_strangers(&self) -> Puppet {
        Puppet::take(self.strangers.as_ref().unwrap())
    }

    /// The user's `net` that the monitor starts next.
    pub fn next_users(&self) -> Puppet {
        Puppet::take(self.users.as_ref().unwrap())
    }

    /// The helper that the monitor starts next.
    pub fn next_helper(&self) -> Puppet {
        Puppet::take(self.helper.as_ref().unwrap())
    }

    /// The process that looks at a password that the monitor starts next.
    pub fn next_password(&self) -> Puppet {
        Puppet::take(self.passwords.as_ref().unwrap())
    }

    /// The process that looks a name up that the monitor starts next.
    pub fn next_name(&self) -> Puppet {
        Puppet::take(self.names.as_ref().unwrap())
    }

    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.join("log")).unwrap()).into_owned()
    }

    /// Waits until the log holds `text`.
    pub fn wait_log(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(
                Instant::now() < end,
                "no {text:?} in the log:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The monitor's process id.
    pub fn id(&self) -> u32 {
        self.server.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.server.try_wait().unwrap().is_none()
    }

    /// A client and the server's end of its connection, as `net` would accept it.
    pub fn connect(&self, puppet: &Puppet) -> (TcpStream, OwnedFd) {
        let client = TcpStream::connect(self.address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let listener = &puppet.listeners[0];
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        poll(&mut polled, Some(&timespec(PATIENCE))).unwrap();
        let accepted = rustix::net::accept_with(listener, SocketFlags::CLOEXEC).unwrap();
        (client, accepted)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        if std::thread::panicking() {
            eprintln!("--- the server's log:\n{}", self.log());
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Puppet {
    fn take(listener: &OwnedFd) -> Self {
        let mut polled = [PollFd::new(listener, PollFlags::IN)];
        let count = poll(&mut polled, Some(&timespec(PATIENCE))).unwrap();
        assert_eq!(count, 1, "nobody was executed in the role");
        let control = rustix::net::accept_with(listener, SocketFlags::CLOEXEC).unwrap();
        let control = Link::new(control);
        let received = control
            .receive(&mut Assembly::default(), true)
            .unwrap()
            .unwrap();
        let mut descriptors = received.descriptors.into_iter();
        let link = Link::new(descriptors.next().unwrap());
        Self {
            link,
            assembly: Assembly::default(),
            _control: control,
            pid: received.connection,
            listeners: descriptors.collect(),
        }
    }

    /// Says hello as a `net` does.
    pub fn hello(&self) {
        self.say(
            0,
            &NetToMonitor::Hello {
                build_id: agent::BUILD_ID,
                missing: Vec::new(),
            },
        );
    }

    pub fn say(&self, number: u32, frame: &impl Wire) {
        self.say_with(number, frame, &[]);
    }

    pub fn say_with(&self, number: u32, frame: &impl Wire, descriptors: &[&OwnedFd]) {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        // A monitor that cut us off is what the tests look for elsewhere.
        let _ = self.link.send(number, frame, &descriptors, true);
    }

    /// The next frame; `None`: the monitor let go of us.
    pub fn hear_raw(&mut self) -> Option<Received> {
        self.hear_within(PATIENCE)
            .expect("the monitor says nothing")
    }

    /// As [`Puppet::hear_raw`], `None` where nothing comes in time.
    #[expect(
        clippy::option_option,
        reason = "silence and the end are different things"
    )]
    pub fn hear_within(&mut self, time: Duration) -> Option<Option<Received>> {
        let end = Instant::now() + time;
        loop {
            match self.link.receive(&mut self.assembly, false) {
                Ok(Some(received)) => return Some(Some(received)),
                Ok(None) => {}
                Err(LinkError::Closed) => return Some(None),
                Err(error) => panic!("the monitor breaks the protocol: {error}"),
            }
            let left = end.checked_duration_since(Instant::now())?;
            let mut polled = [PollFd::new(&self.link, PollFlags::IN)];
            poll(&mut polled, Some(&timespec(left))).unwrap();
        }
    }

    /// The next frame for `number`, past those about the process.
    pub fn hear(&mut self, number: u32) -> Option<(ToNet, Vec<OwnedFd>)> {
        loop {
            let received = self.hear_raw()?;
            if received.connection == number {
                let frame = ToNet::from_wire(&received.content).unwrap();
                return Some((frame, received.descriptors));
            }
        }
    }

    /// Whether the monitor lets go of this process in time.
    pub fn is_let_go(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(None) = self.hear_within(Duration::from_millis(200)) {
                return true;
            }
        }
        false
    }
}

/// The kernel's clock type.
pub fn timespec(time: Duration) -> rustix::event::Timespec {
    rustix::event::Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap(),
        tv_nsec: i64::from(time.subsec_nanos()),
    }
}

fn listening(path: &std::path::Path) -> OwnedFd {
    let kind = SocketType::SEQPACKET;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 16).unwrap();
    socket
}

fn write_private(path: &std::path::Path, content: &[u8]) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(content).unwrap();
}
