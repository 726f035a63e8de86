//! Sessions with a played helper and a played client.

#![allow(clippy::unwrap_used)]
use super::*;
use agent_helper::frame::Ending;
use agent_helper::link::{self, Assembly, Link};
use agent_helper::wire::Wire;
use rustix::fd::AsFd;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::ssh::Setup;
use crate::ssh::crypto::Random;
use crate::ssh::wire::Writer;

const CHANNEL: ChannelId = ChannelId(0);
const WINDOW: u32 = 2 << 20;

/// Sessions, the helper's end of their socket, and a core that takes what it is told.
struct Stage {
    sessions: Sessions,
    queue: HelperQueue,
    helper: Link,
    assembly: Assembly,
    core: Core,
}

impl Stage {
    fn new(policy: Policy) -> Self {
        let (ours, theirs) = link::pair().unwrap();
        let mut stage = Self {
            sessions: Sessions::new(policy, true),
            queue: HelperQueue::new(Link::new(ours)),
            helper: Link::new(theirs),
            assembly: Assembly::default(),
            core: Core::new(&Setup::default(), [0; 16], Random::system()),
        };
        stage.sessions.open(&mut stage.core, CHANNEL, WINDOW);
        stage
    }

    fn request(&mut self, kind: &str, extra: &[u8]) -> Verdict {
        self.sessions
            .request(&mut self.queue, CHANNEL, kind.as_bytes(), true, extra)
            .unwrap()
    }

    /// What the helper got since the last call.
    fn helper_got(&mut self) -> Vec<NetToSession> {
        std::iter::from_fn(|| self.helper.receive(&mut self.assembly, false).unwrap())
            .map(|received| NetToSession::from_wire(&received.content).unwrap())
            .collect()
    }

    fn helper_says(
        &mut self,
        frame: &SessionToNet,
        descriptors: &[OwnedFd],
    ) -> Result<(), ServiceError> {
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.helper.send(0, frame, &descriptors, true).unwrap();
        while let Some((frame, descriptors)) = self.queue.receive()? {
            let (core, queue) = (&mut self.core, &mut self.queue);
            self.sessions
                .helper_frame(core, queue, frame, descriptors)?;
        }
        Ok(())
    }
}

fn policy() -> Policy {
    Policy {
        max_sessions: 2,
        permit_pty: true,
        accept_env: vec!["LC_*".into()],
        subsystems: vec![("sftp".into(), "/usr/lib/sftp-server".into())],
        ..Policy::default()
    }
}

fn strings(values: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        bytes.put_string(value.as_bytes());
    }
    bytes
}

fn terminal_request() -> Vec<u8> {
    let mut bytes = strings(&["xterm"]);
    bytes.extend([0; 16]);
    bytes.put_string(b"\0");
    bytes
}

fn start(line: &str) -> NetToSession {
    NetToSession::Start {
        session: 1,
        program: Program::Command { line: line.into() },
        environment: Vec::new(),
    }
}

fn pipes() -> ([OwnedFd; 3], [OwnedFd; 3]) {
    let (stdin, input) = rustix::pipe::pipe().unwrap();
    let (output, stdout) = rustix::pipe::pipe().unwrap();
    let (error, stderr) = rustix::pipe::pipe().unwrap();
    ([input, output, error], [stdin, stdout, stderr])
}

#[test]
fn a_program_waits_for_its_terminal() {
    let mut stage = Stage::new(policy());
    assert_eq!(
        stage.request("pty-req", &terminal_request()),
        Verdict::Later
    );
    assert_eq!(stage.request("exec", &strings(&["top"])), Verdict::Later);
    assert!(matches!(
        stage.helper_got()[..],
        [NetToSession::OpenTerminal { session: 1, .. }]
    ));
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    stage
        .helper_says(&SessionToNet::TerminalOpened { session: 1 }, &[master])
        .unwrap();
    assert_eq!(stage.helper_got(), [start("top")]);
    stage
        .helper_says(&SessionToNet::Started { session: 1, pid: 5 }, &[])
        .unwrap();
    assert!(stage.sessions.has_terminal());
}

#[test]
fn a_terminal_gets_the_size_that_came_before_it() {
    let mut stage = Stage::new(policy());
    let size = |columns: u32, rows: u32| {
        let fields = [columns, rows, 0, 0];
        fields.map(u32::to_be_bytes).as_flattened().to_vec()
    };
    let answer = stage.request("window-change", &size(10, 10));
    assert_eq!(answer, Verdict::Known(false));
    stage.request("pty-req", &terminal_request());
    stage.request("shell", b"");
    for (columns, rows) in [(132, 50), (100, 40)] {
        let answer = stage.request("window-change", &size(columns, rows));
        assert_eq!(answer, Verdict::Known(true));
    }
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let master = openpt(flags).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
    stage
        .helper_says(&SessionToNet::TerminalOpened { session: 1 }, &[master])
        .unwrap();
    let found = rustix::termios::tcgetwinsize(&slave).unwrap();
    assert_eq!((found.ws_col, found.ws_row), (100, 40));
}

#[test]
fn a_signal_reaches_a_program_that_is_being_started() {
    let mut stage = Stage::new(policy());
    let term = strings(&["TERM"]);
    assert_eq!(stage.request("signal", &term), Verdict::Known(false));
    stage.request("exec", &strings(&["top"]));
    let unknown = strings(&["NONE"]);
    assert_eq!(stage.request("signal", &unknown), Verdict::Known(false));
    assert_eq!(stage.request("signal", &term), Verdict::Known(true));
    let signal = NetToSession::Signal {
        session: 1,
        name: "TERM".into(),
    };
    assert_eq!(stage.helper_got(), [start("top"), signal]);
}

#[test]
fn a_program_runs_without_the_terminal_that_it_did_not_get() {
    let mut stage = Stage::new(policy());
    stage.request("pty-req", &terminal_request());
    stage.request("exec", &strings(&["top"]));
    stage
        .helper_says(&SessionToNet::NoTerminal { session: 1 }, &[])
        .unwrap();
    assert!(matches!(
        stage.helper_got()[..],
        [_, NetToSession::Start { .. }]
    ));
    let (ours, _theirs) = pipes();
    stage
        .helper_says(&SessionToNet::Started { session: 1, pid: 5 }, &ours)
        .unwrap();
    assert!(!stage.sessions.has_terminal());
}

#[test]
fn a_channel_runs_one_program() {
    let mut stage = Stage::new(policy());
    assert_eq!(stage.request("exec", &strings(&["one"])), Verdict::Later);
    assert_eq!(
        stage.request("exec", &strings(&["two"])),
        Verdict::Known(false)
    );
    assert_eq!(stage.request("shell", b""), Verdict::Known(false));
    assert_eq!(
        stage.request("pty-req", &terminal_request()),
        Verdict::Known(false)
    );
    assert_eq!(
        stage.request("env", &strings(&["LC_ALL", "C"])),
        Verdict::Known(false)
    );
    assert_eq!(stage.helper_got(), [start("one")]);
}

#[test]
fn the_policy_is_answered_early() {
    let mut stage = Stage::new(Policy {
        permit_pty: false,
        ..policy()
    });
    assert_eq!(
        stage.request("pty-req", &terminal_request()),
        Verdict::Known(false)
    );
    assert_eq!(
        stage.request("env", &strings(&["LC_ALL", "C"])),
        Verdict::Known(true)
    );
    assert_eq!(
        stage.request("env", &strings(&["LD_PRELOAD", "x"])),
        Verdict::Known(false)
    );
    assert_eq!(
        stage.request("subsystem", &strings(&["other"])),
        Verdict::Known(false)
    );
    assert_eq!(stage.request("x11-request", b""), Verdict::Known(false));
    assert_eq!(
        stage.request("signal", &strings(&["TERM"])),
        Verdict::Known(false)
    );
    assert_eq!(stage.helper_got(), []);
    assert_eq!(
        stage.request("subsystem", &strings(&["sftp"])),
        Verdict::Later
    );
    let frames = stage.helper_got();
    let [
        NetToSession::Start {
            program,
            environment,
            ..
        },
    ] = &frames[..]
    else {
        panic!("{frames:?}");
    };
    assert_eq!(
        *program,
        Program::Subsystem {
            name: "sftp".into()
        }
    );
    assert_eq!(*environment, [("LC_ALL".into(), "C".into())]);
}

#[test]
fn signals_reach_commands_but_no_subsystem_and_no_forced_command() {
    for (forced, kind, reached) in [
        (None, "exec", true),
        (None, "subsystem", false),
        (Some("id".into()), "exec", false),
    ] {
        let mut stage = Stage::new(Policy {
            forced_command: forced,
            ..policy()
        });
        stage.request(kind, &strings(&["sftp"]));
        let (ours, _theirs) = pipes();
        stage
            .helper_says(&SessionToNet::Started { session: 1, pid: 5 }, &ours)
            .unwrap();
        let verdict = stage.request("signal", &strings(&["TERM"]));
        assert_eq!(verdict, Verdict::Known(reached));
        let told = stage
            .helper_got()
            .iter()
            .any(|f| matches!(f, NetToSession::Signal { .. }));
        assert_eq!(told, reached);
    }
}

#[test]
fn sessions_are_counted_until_they_are_closed() {
    let mut stage = Stage::new(policy());
    assert_eq!(stage.sessions.may_open().unwrap(), Opening::Session);
    stage.sessions.open(&mut stage.core, ChannelId(1), WINDOW);
    let full = Opening::Refuse(CONNECT_FAILED, "open failed");
    assert_eq!(stage.sessions.may_open().unwrap(), full);
    stage
        .sessions
        .client_close(&mut stage.queue, CHANNEL)
        .unwrap();
    stage.sessions.pump(&mut stage.core);
    assert_eq!(stage.sessions.may_open().unwrap(), Opening::Session);
    stage.sessions.forbid_more();
    assert!(matches!(
        stage.sessions.may_open(),
        Err(ServiceError::NoMoreSessions)
    ));
}

#[test]
fn a_closed_channel_ends_its_session_and_late_frames_find_nobody() {
    let mut stage = Stage::new(policy());
    stage.request("pty-req", &terminal_request());
    stage
        .sessions
        .client_close(&mut stage.queue, CHANNEL)
        .unwrap();
    stage.sessions.pump(&mut stage.core);
    assert!(matches!(
        stage.helper_got()[..],
        [
            NetToSession::OpenTerminal { .. },
            NetToSession::Close { session: 1 }
        ]
    ));
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    stage
        .helper_says(&SessionToNet::TerminalOpened { session: 1 }, &[master])
        .unwrap();
    assert!(!stage.sessions.has_terminal());
}

#[test]
fn a_closed_channel_waits_for_the_exit_status_of_its_program() {
    let mut stage = Stage::new(policy());
    stage.request("exec", &strings(&["true"]));
    let (ours, _theirs) = pipes();
    stage
        .helper_says(&SessionToNet::Started { session: 1, pid: 5 }, &ours)
        .unwrap();
    stage
        .sessions
        .client_close(&mut stage.queue, CHANNEL)
        .unwrap();
    stage.sessions.pump(&mut stage.core);
    assert_eq!(stage.helper_got(), [start("true")]);
    assert!(stage.sessions.sessions.iter().all(Session::is_open));
    let ended = SessionToNet::Ended {
        session: 1,
        ending: Ending::Exit { status: 0 },
    };
    stage.helper_says(&ended, &[]).unwrap();
    stage.sessions.pump(&mut stage.core);
    assert!(!stage.sessions.sessions.iter().any(Session::is_open));
}

#[test]
fn a_closed_terminal_hangs_up_and_waits_for_its_exit_status_too() {
    let mut stage = Stage::new(policy());
    stage.request("pty-req", &terminal_request());
    stage.request("shell", b"");
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    stage
        .helper_says(&SessionToNet::TerminalOpened { session: 1 }, &[master])
        .unwrap();
    stage
        .helper_says(&SessionToNet::Started { session: 1, pid: 5 }, &[])
        .unwrap();
    stage
        .sessions
        .client_close(&mut stage.queue, CHANNEL)
        .unwrap();
    stage.sessions.pump(&mut stage.core);
    assert!(stage.sessions.sessions.iter().all(Session::is_open));
    // A terminal without its master ends for those who read it.
    assert!(matches!(
        rustix::io::read(&slave, &mut [0; 1]),
        Ok(0) | Err(rustix::io::Errno::IO)
    ));
}

#[test]
fn where_there_is_no_place_for_descriptors_only_what_they_are_for_is_refused() {
    let close = NetToSession::Close { session: 1 };
    let mut stage = Stage::new(policy());
    stage.request("pty-req", &terminal_request());
    stage.request("exec", &strings(&["top"]));
    stage.helper_got();
    stage
        .helper_says(&SessionToNet::TerminalOpened { session: 1 }, &[])
        .unwrap();
    assert_eq!(stage.helper_got(), [close.clone(), start("top")]);
    assert!(!stage.sessions.has_terminal());
    stage
        .helper_says(&SessionToNet::Started { session: 1, pid: 5 }, &[])
        .unwrap();
    assert_eq!(stage.helper_got(), [close]);
    assert!(!stage.sessions.started_any());
    let ended = SessionToNet::Ended {
        session: 1,
        ending: Ending::Exit { status: 0 },
    };
    stage.helper_says(&ended, &[]).unwrap();
}

#[test]
fn a_hostile_helper_ends_its_own_connection_only() {
    let (ours, _theirs) = pipes();
    let [input, output, error] = ours;
    let ended = SessionToNet::Ended {
        session: 1,
        ending: Ending::Exit { status: 0 },
    };
    let cases: Vec<(SessionToNet, Vec<OwnedFd>)> = vec![
        (SessionToNet::TerminalOpened { session: 1 }, vec![]),
        (
            SessionToNet::Started { session: 1, pid: 1 },
            vec![output, input, error],
        ),
        (SessionToNet::NotStarted { session: 1 }, vec![]),
        (ended, vec![]),
    ];
    for (frame, descriptors) in cases {
        let mut stage = Stage::new(policy());
        if !matches!(frame, SessionToNet::Started { .. }) {
            assert!(matches!(
                stage.helper_says(&frame, &descriptors),
                Err(ServiceError::Helper(LinkError::Protocol(_)))
            ));
            continue;
        }
        // Asked for, but with the pipes' ends in the wrong places.
        stage.request("shell", b"");
        assert!(stage.helper_says(&frame, &descriptors).is_err());
    }
}

#[test]
fn a_helper_that_does_not_read_stops_the_client() {
    let mut stage = Stage::new(policy());
    stage.request("shell", b"");
    let (ours, _theirs) = pipes();
    stage
        .helper_says(&SessionToNet::Started { session: 1, pid: 5 }, &ours)
        .unwrap();
    for _ in 0..200_000 {
        if stage.queue.is_full() {
            break;
        }
        stage.request("signal", &strings(&["USR1"]));
    }
    assert!(stage.queue.is_full());
    stage.helper_got();
    stage.queue.flush().unwrap();
    assert!(!stage.queue.is_full());
}
