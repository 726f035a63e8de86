//! The sessions of one connection, and what the policy lets each of them do.
//!
//! Frames come from `net`, which a client may have taken over: any frame in any order with any
//! numbers is answered or refused, never trusted. To the monitor sessions have numbers of our own,
//! so that a number that `net` uses twice confuses nobody's records.
//!
//! Functions of some size are not inlined: into one of 20 KiB, each access to the stack has an
//! offset of four bytes.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::slice;

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitStatus};

use crate::auth_info::AuthInfo;
use crate::decision::{Decision, decide};
use crate::display::Display;
use crate::frame::{Ending, HelperToMonitor, NetToSession, Policy, Program, SessionToNet};
use crate::limits::TELL_AFTER_MS;
use crate::program::{self, Prepared, Standard, Task};
use crate::scp;
use crate::signal;
use crate::sys::{self, Forked};
use crate::terminal::{self, Terminal};
use crate::text::failure;
use crate::wire::Bytes;

/// TERM, in bytes: the longest names in the terminal database have a tenth of this.
const TERM_MAX_BYTES: usize = 256;
/// Sessions at once, whatever the configuration says: each may hold a request of half a megabyte
/// while it waits for its terminal.
const SESSIONS_MAX: usize = 1024;
/// DEBUG, as levels are numbered in frames.
const LOG_LEVEL_DEBUG: u8 = 4;
/// A core file was written: the bit in a wait status.
const CORE_DUMPED: i32 = 0x80;

/// The other ends, as the table needs them. An error ends the helper.
pub trait Peers {
    /// Why a frame cannot be sent.
    type Error;
    /// Sends to the user's `net`.
    fn to_net(&mut self, frame: &SessionToNet, descriptors: &[OwnedFd]) -> Result<(), Self::Error>;
    /// Sends to the monitor.
    fn to_monitor(&mut self, frame: &HelperToMonitor) -> Result<(), Self::Error>;
    /// Other descriptors of the links to the monitor and to `net`, for a child that is the SFTP
    /// server: it tells the one and hands files to the other.
    fn share(&self) -> Result<[OwnedFd; 2], Errno>;
    /// Whether lines of `level` (1 error to 5 trace) are wanted.
    fn logs(&self, level: u8) -> bool;
    /// A log line of `level`, of parts.
    fn log(&mut self, level: u8, parts: &[&[u8]]) -> Result<(), Self::Error>;
    /// A log line about what failed, of parts, and why.
    #[inline(never)]
    fn log_failure(&mut self, what: &[&[u8]], errno: Errno) -> Result<(), Self::Error> {
        self.log(1, &[&failure(what, errno)])
    }
}

/// All sessions of one connection.
#[derive(Debug)]
pub struct Sessions {
    policy: Policy,
    home_is_local: bool,
    list: Vec<Session>,
    last_id: u32,
    /// Displays of sessions that did not start yet, by `net`'s numbers.
    displays: Vec<(u32, Display)>,
}

#[derive(Debug)]
struct Session {
    /// `net`'s number; none once the channel is closed.
    number: Option<u32>,
    /// Our number towards the monitor.
    id: u32,
    terminal: TerminalState,
    /// A start that waits for the terminal.
    waiting: Option<Start>,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    /// It is a fork of ours, not another program.
    built_in: bool,
    /// The client may send signals: neither a forced command nor a subsystem, as sshd.
    takes_signals: bool,
    has_terminal: bool,
    /// When the monitor is to be told of it; `None`: it was.
    tell_at_ms: Option<u64>,
    /// Lies there as long as the process lives.
    _auth_info: Option<AuthInfo>,
}

#[derive(Debug)]
enum TerminalState {
    None,
    /// The monitor was asked.
    Asked(Wish),
    /// There it is, for the program to be started.
    Open {
        slave: OwnedFd,
        path: Vec<u8>,
        term: Bytes,
    },
}

/// What the client wants of its terminal.
#[derive(Debug)]
struct Wish {
    term: Bytes,
    size: [u8; 16],
    modes: Bytes,
}

#[derive(Debug)]
struct Start {
    program: Program,
    environment: Vec<(Bytes, Bytes)>,
}

impl Sessions {
    /// No sessions yet.
    ///
    /// `home_is_local`: working in the home directory waits for nobody, so that programs may be
    /// started without a copy of this process.
    pub fn new(policy: Policy, home_is_local: bool) -> Self {
        Self {
            policy,
            home_is_local,
            list: Vec::new(),
            last_id: 0,
            displays: Vec::new(),
        }
    }

    /// What the login may do.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Programs that start from now on find the client's agent there.
    pub fn set_agent_path(&mut self, path: Option<&[u8]>) {
        const NAME: &[u8] = b"SSH_AUTH_SOCK";
        let variables = &mut self.policy.environment;
        if let Some(path) = path
            && !variables.iter().any(|(name, _)| **name == *NAME)
        {
            variables.push((NAME.into(), path.into()));
        }
    }

    /// Programs that start from now on find the names of tunnel interfaces.
    pub fn set_tunnels(&mut self, names: &[u8]) {
        const NAME: &[u8] = b"SSH_TUNNEL";
        let variables = &mut self.policy.environment;
        match variables.iter_mut().find(|(name, _)| **name == *NAME) {
            _ if names.is_empty() => {}
            Some((_, value)) => *value = names.into(),
            None => variables.push((NAME.into(), names.into())),
        }
    }

    /// The program of `number`, when it starts, finds this display.
    pub fn set_display(&mut self, number: u32, display: Display) {
        if self.displays.len() < SESSIONS_MAX {
            drop(self.take_display(number));
            self.displays.push((number, display));
        }
    }

    fn take_display(&mut self, number: u32) -> Option<Display> {
        let index = self.displays.iter().position(|(of, _)| *of == number)?;
        Some(self.displays.swap_remove(index).1)
    }

    /// Acts on a frame of `net`.
    #[inline(never)]
    pub fn on_frame<P: Peers>(
        &mut self,
        frame: NetToSession,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        match frame {
            NetToSession::OpenTerminal {
                session,
                term,
                size,
                modes,
            } => self.open_terminal(session, Wish { term, size, modes }, peers),
            NetToSession::Start {
                session,
                program,
                environment,
            } => self.start(
                session,
                Start {
                    program,
                    environment,
                },
                peers,
            ),
            NetToSession::Signal { session, name } => {
                self.signal(session, &name);
                Ok(())
            }
            // A pseudo-terminal has no line to hold low: as with sshd, nothing happens.
            NetToSession::Break { .. } => Ok(()),
            NetToSession::Close { session } => self.close(session, peers),
            // Not about sessions.
            NetToSession::Forward { .. } => Ok(()),
        }
    }

    /// The monitor's answer to [`HelperToMonitor::OpenTerminal`].
    pub fn on_terminal<P: Peers>(
        &mut self,
        id: u32,
        terminal: Option<Terminal>,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        let Some(index) = self.list.iter().position(|session| session.id == id) else {
            // Closed meanwhile: the monitor's record of it ends here.
            return peers.to_monitor(&HelperToMonitor::SessionEnded { session: id });
        };
        self.terminal_is_there(index, terminal, peers)
    }

    /// A child has ended; false if it is none of the sessions' processes.
    #[inline(never)]
    pub fn on_exit<P: Peers>(
        &mut self,
        pid: Pid,
        status: WaitStatus,
        peers: &mut P,
    ) -> Result<bool, P::Error> {
        let is_its = |session: &Session| {
            session
                .process
                .as_ref()
                .is_some_and(|process| process.pid == pid)
        };
        let Some(index) = self.list.iter().position(is_its) else {
            return Ok(false);
        };
        let session = self.list.swap_remove(index);
        if let Some(number) = session.number {
            let ending = ending_of(status);
            peers.to_net(
                &SessionToNet::Ended {
                    session: number,
                    ending,
                },
                &[],
            )?;
        }
        let told = session.process.is_none_or(|its| its.tell_at_ms.is_none());
        if told {
            peers.to_monitor(&HelperToMonitor::SessionEnded {
                session: session.id,
            })?;
        }
        Ok(true)
    }

    /// Tells the monitor of programs without a terminal that have run for a while: most end before,
    /// and waking it twice for each would be a twentieth of their cost. Gives how long the next one
    /// has to go.
    pub fn tell_of_programs<P: Peers>(&mut self, peers: &mut P) -> Result<Option<u64>, P::Error> {
        let (mut next, mut now_ms) = (None, None);
        for session in &mut self.list {
            let Some(process) = &mut session.process else {
                continue;
            };
            let Some(at_ms) = process.tell_at_ms else {
                continue;
            };
            let rest_ms = at_ms.saturating_sub(*now_ms.get_or_insert_with(sys::now_ms));
            if rest_ms > 0 {
                next = Some(next.unwrap_or(rest_ms).min(rest_ms));
                continue;
            }
            process.tell_at_ms = None;
            peers.to_monitor(&news_of(session.id, process.pid))?;
        }
        Ok(next)
    }

    /// The SFTP servers that run.
    pub fn built_in(&self) -> Vec<Pid> {
        self.processes(&|process| process.built_in)
    }

    /// The programs that run, each the leader of a group.
    pub fn leaders(&self) -> Vec<Pid> {
        self.processes(&|_| true)
    }

    #[inline(never)]
    fn processes(&self, are_wanted: &dyn Fn(&Process) -> bool) -> Vec<Pid> {
        let mut pids = Vec::new();
        for session in &self.list {
            if let Some(process) = &session.process
                && are_wanted(process)
            {
                pids.push(process.pid);
            }
        }
        pids
    }

    fn find(&self, number: u32) -> Option<usize> {
        self.list
            .iter()
            .position(|session| session.number == Some(number))
    }

    /// A new entry in the table, if there is room. Sessions whose channel is closed count until
    /// their process has ended, as in sshd.
    #[inline(never)]
    fn add(&mut self, number: u32) -> Option<usize> {
        let most = usize::try_from(self.policy.max_sessions).unwrap_or(SESSIONS_MAX);
        if self.list.len() >= most.min(SESSIONS_MAX) {
            return None;
        }
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.list.iter().any(|session| session.id == self.last_id) {
                break;
            }
        }
        self.list.push(Session {
            number: Some(number),
            id: self.last_id,
            terminal: TerminalState::None,
            waiting: None,
            process: None,
        });
        Some(self.list.len() - 1)
    }

    #[inline(never)]
    fn open_terminal<P: Peers>(
        &mut self,
        number: u32,
        wish: Wish,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        let refused = SessionToNet::NoTerminal { session: number };
        // One terminal for a session, and before its program.
        if !self.policy.permit_pty
            || wish.term.len() > TERM_MAX_BYTES
            || wish.term.contains(&0)
            || self.find(number).is_some()
        {
            return peers.to_net(&refused, &[]);
        }
        let Some(index) = self.add(number) else {
            peers.log(3, &[b"no more sessions"])?;
            return peers.to_net(&refused, &[]);
        };
        let Some(session) = self.list.get_mut(index) else {
            return Ok(());
        };
        session.terminal = TerminalState::Asked(wish);
        if self.policy.monitor_opens_terminals {
            return peers.to_monitor(&HelperToMonitor::OpenTerminal {
                session: session.id,
            });
        }
        let terminal = terminal::open();
        if let Err(errno) = &terminal {
            peers.log_failure(&[b"opening a terminal"], *errno)?;
        }
        self.terminal_is_there(index, terminal.ok(), peers)
    }

    #[inline(never)]
    fn terminal_is_there<P: Peers>(
        &mut self,
        index: usize,
        terminal: Option<Terminal>,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        let Some(session) = self.list.get_mut(index) else {
            return Ok(());
        };
        let before = core::mem::replace(&mut session.terminal, TerminalState::None);
        let (TerminalState::Asked(wish), Some(number)) = (before, session.number) else {
            // An answer to no question.
            return Ok(());
        };
        match terminal {
            None => peers.to_net(&SessionToNet::NoTerminal { session: number }, &[])?,
            Some(Terminal {
                master,
                slave,
                path,
            }) => {
                // A terminal with other modes or no size is better than none.
                let _ = terminal::set_modes(&slave, &wish.modes);
                let _ = terminal::set_size(&slave, &wish.size);
                peers.to_net(
                    &SessionToNet::TerminalOpened { session: number },
                    slice::from_ref(&master),
                )?;
                session.terminal = TerminalState::Open {
                    slave,
                    path,
                    term: wish.term,
                };
            }
        }
        match session.waiting.take() {
            Some(start) => self.run(index, &start, peers),
            None => Ok(()),
        }
    }

    #[inline(never)]
    fn start<P: Peers>(
        &mut self,
        number: u32,
        start: Start,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        let refused = SessionToNet::NotStarted { session: number };
        let index = match self.find(number) {
            Some(index) => index,
            None => match self.add(number) {
                Some(index) => index,
                None => {
                    peers.log(3, &[b"no more sessions"])?;
                    return peers.to_net(&refused, &[]);
                }
            },
        };
        let Some(session) = self.list.get_mut(index) else {
            return Ok(());
        };
        // One program for a session.
        if session.process.is_some() || session.waiting.is_some() {
            return peers.to_net(&refused, &[]);
        }
        if matches!(session.terminal, TerminalState::Asked(_)) {
            session.waiting = Some(start);
            return Ok(());
        }
        self.run(index, &start, peers)
    }

    /// Starts the program of a session whose terminal, if any, is there.
    #[inline(never)]
    fn run<P: Peers>(
        &mut self,
        index: usize,
        start: &Start,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        let number = self.list.get(index).and_then(|session| session.number);
        let display = number.and_then(|number| self.take_display(number));
        let Some(session) = self.list.get_mut(index) else {
            return Ok(());
        };
        let Some(number) = number else {
            return Ok(());
        };
        // Starting takes it, also where that fails then.
        let had_terminal = !matches!(session.terminal, TerminalState::None);
        let started = match decide(&self.policy, &start.program) {
            Some(decision) => {
                let links = match decision.task {
                    Task::Sftp(_) => {
                        // A terminal would change what passes through it.
                        if matches!(session.terminal, TerminalState::None) {
                            peers.to_net(&SessionToNet::ServesFiles { session: number }, &[])?;
                        }
                        peers.share().map(Some)
                    }
                    // It may be served without a program, and what it does is to be told.
                    Task::Command(line) if self.policy.sftp_audit && scp::is_asked_for(line) => {
                        peers.share().map(Some)
                    }
                    _ => Ok(None),
                };
                let environment = &start.environment;
                let display = display.as_ref();
                links.and_then(|links| {
                    launch(
                        (&self.policy, self.home_is_local),
                        session,
                        &decision,
                        environment,
                        display,
                        links,
                    )
                })
            }
            None => Err(Errno::PERM),
        };
        match started {
            Ok((process, ours)) => {
                let frame = news_of(session.id, process.pid);
                // A terminal is entered in the records; and who logs everything wants to see this too.
                let tell_now = process.has_terminal || peers.logs(LOG_LEVEL_DEBUG);
                let process = session.process.insert(process);
                process.tell_at_ms = (!tell_now).then(|| sys::now_ms() + TELL_AFTER_MS);
                let pid = process.pid.as_raw_pid().cast_unsigned();
                peers.to_net(
                    &SessionToNet::Started {
                        session: number,
                        pid,
                    },
                    &ours,
                )?;
                if tell_now {
                    peers.to_monitor(&frame)?;
                }
                Ok(())
            }
            Err(errno) => {
                let id = session.id;
                self.list.swap_remove(index);
                if errno != Errno::PERM {
                    peers.log_failure(&[b"starting a program"], errno)?;
                }
                if had_terminal {
                    peers.to_monitor(&HelperToMonitor::SessionEnded { session: id })?;
                }
                peers.to_net(&SessionToNet::NotStarted { session: number }, &[])
            }
        }
    }

    fn signal(&self, number: u32, name: &[u8]) {
        let process = self
            .find(number)
            .and_then(|index| self.list.get(index)?.process.as_ref())
            .filter(|process| process.takes_signals);
        if let (Some(process), Some(signal)) = (process, signal::by_name(name)) {
            signal::send(process.pid, process.has_terminal, signal);
        }
    }

    #[inline(never)]
    fn close<P: Peers>(&mut self, number: u32, peers: &mut P) -> Result<(), P::Error> {
        drop(self.take_display(number));
        let Some(index) = self.find(number) else {
            return Ok(());
        };
        let Some(session) = self.list.get_mut(index) else {
            return Ok(());
        };
        if session.process.is_some() {
            session.number = None;
            return Ok(());
        }
        let session = self.list.swap_remove(index);
        match session.terminal {
            // The monitor answers yet, see `on_terminal`.
            TerminalState::None | TerminalState::Asked(_) => Ok(()),
            TerminalState::Open { .. } => peers.to_monitor(&HelperToMonitor::SessionEnded {
                session: session.id,
            }),
        }
    }
}

/// Forks the program; gives the ends that go to `net`.
#[inline(never)]
fn launch(
    (policy, home_is_local): (&Policy, bool),
    session: &mut Session,
    decision: &Decision<'_>,
    environment: &[(Bytes, Bytes)],
    display: Option<&Display>,
    links: Option<[OwnedFd; 2]>,
) -> Result<(Process, Vec<OwnedFd>), Errno> {
    let terminal = core::mem::replace(&mut session.terminal, TerminalState::None);
    let (standard, terminal, ours) = match terminal {
        TerminalState::Open { slave, path, term } => {
            (Standard::Terminal(slave), Some((term, path)), Vec::new())
        }
        TerminalState::None | TerminalState::Asked(_) => {
            let (input, our_input) = pipe_with(PipeFlags::CLOEXEC)?;
            let (our_output, output) = pipe_with(PipeFlags::CLOEXEC)?;
            let (our_errors, errors) = pipe_with(PipeFlags::CLOEXEC)?;
            let ours = Vec::from([our_input, our_output, our_errors]);
            (Standard::Pipes(input, output, errors), None, ours)
        }
    };
    let info = &*policy.auth_info;
    // A full disk or the like is no reason to keep the user out.
    let auth_info = (!info.is_empty())
        .then(|| AuthInfo::write(info).ok())
        .flatten();
    let program = program::Program {
        policy,
        session: session.number.unwrap_or_default(),
        auth_info: auth_info.as_ref().map(AuthInfo::path),
        task: decision.task,
        original_command: decision.original_command,
        is_subsystem: decision.is_subsystem,
        environment,
        terminal: terminal
            .as_ref()
            .map(|(term, path)| (&**term, path.as_slice())),
        display,
    };
    let built_in = links.is_some();
    let prepared = if home_is_local && !built_in {
        Prepared::new(&program)
    } else {
        None
    };
    let pid = match prepared {
        Some(prepared) => prepared.spawn(&standard)?,
        None => match sys::fork()? {
            Forked::Child => program::run(&program, &standard, links),
            Forked::Parent(pid) => pid,
        },
    };
    let process = Process {
        pid,
        built_in,
        takes_signals: decision.takes_signals,
        has_terminal: terminal.is_some(),
        tell_at_ms: None,
        _auth_info: auth_info,
    };
    Ok((process, ours))
}

fn news_of(session: u32, pid: Pid) -> HelperToMonitor {
    HelperToMonitor::SessionStarted {
        session,
        pid: pid.as_raw_pid().cast_unsigned(),
    }
}

fn ending_of(status: WaitStatus) -> Ending {
    match status.terminating_signal() {
        Some(signal) => Ending::Signal {
            number: u8::try_from(signal).unwrap_or(0),
            core_dumped: status.as_raw() & CORE_DUMPED != 0,
        },
        None => {
            let code = status
                .exit_status()
                .and_then(|code| u32::try_from(code).ok());
            Ending::Exit {
                status: code.unwrap_or(u32::MAX),
            }
        }
    }
}
