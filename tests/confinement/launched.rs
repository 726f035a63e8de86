//! A `net` process with the test as its monitor.

use std::ffi::CString;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use agent::frames::{NetToMonitor, ToNet};
use agent::launch::{Launch, Launched, launch};
use agent_helper::link::{self, Assembly, Link, Received};
use agent_helper::wire::Wire;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::process::{Signal, WaitOptions, WaitStatus, getuid, kill_process, waitpid};

/// Ids that nobody else has; not the server's own, so that one may run beside the tests.
pub const TEST_ID: u32 = 64_391;

pub struct Net {
    launched: Launched,
    link: Link,
    assembly: Assembly,
    pub address: SocketAddr,
    pub missing: Vec<String>,
    reaped: bool,
}

impl Net {
    /// Starts one that serves strangers on a port of its own, and waits until it is confined.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = link::pair().unwrap();
        let image = File::open(env!("CARGO_BIN_EXE_agent")).unwrap();
        let mut environment = vec![
            "AGENT_NET=strangers".to_owned(),
            "AGENT_LISTENERS=1".to_owned(),
        ];
        if is_root() {
            environment.push(format!("AGENT_UID={TEST_ID}"));
            environment.push(format!("AGENT_GID={TEST_ID}"));
        }
        let environment: Vec<CString> = environment
            .into_iter()
            .map(|entry| CString::new(entry).unwrap())
            .collect();
        let launched = launch(&Launch {
            environment: &environment,
            descriptors: &[theirs.as_fd(), listener.as_fd()],
            ..Launch::new(image.as_fd(), &[c"agent: net"])
        })
        .unwrap();
        drop(theirs);
        let mut net = Self {
            launched,
            link: Link::new(ours),
            assembly: Assembly::default(),
            address,
            missing: Vec::new(),
            reaped: false,
        };
        match net.receive().1 {
            NetToMonitor::Hello { build_id, missing } => {
                assert_eq!(build_id, agent::BUILD_ID);
                net.missing = missing
                    .iter()
                    .map(|part| String::from_utf8_lossy(part).into_owned())
                    .collect();
            }
            other => panic!("instead of Hello: {other:?}"),
        }
        net
    }

    pub fn pid(&self) -> u32 {
        self.launched.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// The next frame, with its connection and descriptors. Log lines end the test: nothing in it
    /// is worth one.
    pub fn receive(&mut self) -> (u32, NetToMonitor, Vec<OwnedFd>) {
        let received = self
            .link
            .receive(&mut self.assembly, true)
            .expect("a frame of net");
        let Received {
            connection,
            content,
            descriptors,
        } = received.expect("a whole frame");
        let frame = NetToMonitor::from_wire(&content).unwrap();
        if let NetToMonitor::Log { message, .. } = &frame {
            panic!("net says: {}", String::from_utf8_lossy(message));
        }
        (connection, frame, descriptors)
    }

    pub fn send(&self, connection: u32, frame: &ToNet, descriptors: &[BorrowedFd<'_>]) {
        self.link
            .send(connection, frame, descriptors, true)
            .unwrap();
    }

    /// Ends the link, as a monitor that died; gives how the process ended.
    pub fn hang_up(mut self) -> WaitStatus {
        let (unused, _) = link::pair().unwrap();
        self.link = Link::new(unused);
        self.wait()
    }

    /// Waits for the end of the process.
    pub fn wait(&mut self) -> WaitStatus {
        self.reaped = true;
        waitpid(Some(self.launched.pid), WaitOptions::empty())
            .unwrap()
            .unwrap()
            .1
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = kill_process(self.launched.pid, Signal::KILL);
            let _ = waitpid(Some(self.launched.pid), WaitOptions::empty());
        }
    }
}

pub fn is_root() -> bool {
    getuid().is_root()
}

/// The id that a process started by root ends up with.
pub fn confined_id() -> u32 {
    if is_root() {
        TEST_ID
    } else {
        getuid().as_raw()
    }
}
