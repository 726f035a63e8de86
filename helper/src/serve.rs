//! The role `serve`: one helper for one connection, from its launch to its end.
//!
//! One poll loop over the link to the monitor, the user's `net` once the login is accepted, and the
//! ends of children. As root it reads nothing but the monitor's frames; as the user it enforces the
//! policy it was given before the first frame of `net`. The end of either link ends it: terminals
//! hang up as `net` closes them, jobs without one live on, as with sshd, unless OnDisconnect says
//! otherwise.
//!
//! Functions of some size are not inlined: into one of 20 KiB, each access to the stack has an
//! offset of four bytes.

use alloc::vec::Vec;
use core::cell::RefCell;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, chdir, getpid, kill_process, kill_process_group, wait,
};

use crate::descendants::{self, Family};
use crate::forward::Forwards;
use crate::frame::{
    HelperToMonitor, MonitorToHelper, NetToSession, OnDisconnect, Policy, SessionToNet,
};
use crate::key_command;
use crate::keys;
use crate::limits::{DESCENDANTS_END_MS, DESCENDANTS_GRACE_MS, REST_AFTER_MS};
use crate::link::{Assembly, Link, LinkError, Violation};
use crate::login;
use crate::session::{Peers, Sessions};
use crate::sys::{self, Forked};
use crate::terminal::Terminal;
use crate::title::Title;
use crate::wire::{Bytes, Wire};

/// The monitor's socket, as the launcher places it.
const MONITOR_DESCRIPTOR: i32 = 3;
/// How long a full queue of `net` may stay full: it serves its connection in one loop that never
/// blocks, so this is a process that no longer lives.
const NET_STALL_LIMIT_S: i64 = 10;
/// How long an SFTP server may take to end after its client left.
const SERVER_END_LIMIT_MS: u64 = 5000;
/// Log level before the monitor says otherwise: info.
const LOG_LEVEL_DEFAULT: u8 = 3;

/// Why the helper ends. No more than a byte: most functions here give one.
#[derive(Debug, Clone, Copy)]
enum End {
    /// A link ended: the normal way.
    Closed,
    Violation(Violation),
    FrameGarbled,
    MonitorGarbled,
    NetGarbled,
    NetSentDescriptor,
    OutOfTurn,
    NetStalled,
    LinkFailed,
    PollFailed,
    SystemFailed,
}

impl End {
    /// For the log; `None` where it is no fault.
    fn fault(self) -> Option<&'static str> {
        Some(match self {
            Self::Closed => return None,
            Self::Violation(violation) => violation.text(),
            Self::FrameGarbled => "a frame could not be decoded",
            Self::MonitorGarbled => "a frame of the monitor could not be decoded",
            Self::NetGarbled => "a frame of net could not be decoded",
            Self::NetSentDescriptor => "net sent a descriptor",
            Self::OutOfTurn => "the monitor sent a frame out of turn",
            Self::NetStalled => "net takes no frames",
            Self::LinkFailed => "a link failed",
            Self::PollFailed => "poll failed",
            Self::SystemFailed => "a system call failed",
        })
    }
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Closed => Self::Closed,
            LinkError::Violation(violation) => Self::Violation(violation),
            LinkError::Frame(_) => Self::FrameGarbled,
            LinkError::Protocol(_) | LinkError::System(_) => Self::LinkFailed,
        }
    }
}

impl From<Errno> for End {
    fn from(_: Errno) -> Self {
        Self::SystemFailed
    }
}

/// Serves one connection; returns the exit status.
#[inline(never)]
pub fn serve(build_id: [u8; 16], title: Title) -> i32 {
    let _ = rustix::thread::set_name(c"agent-helper");
    let _ = chdir(c"/");
    let Ok(monitor) = sys::inherited(MONITOR_DESCRIPTOR) else {
        return 1;
    };
    let Ok(children) = sys::child_signals() else {
        return 1;
    };
    let mut helper = Helper {
        links: Links {
            monitor: Link::new(monitor),
            net: None,
            log_level: LOG_LEVEL_DEFAULT,
        },
        children,
        reader: None,
        home_is_local: false,
        sessions: None,
        forwards: None,
        title,
    };
    let end = helper.run(build_id);
    // Sockets in the file system go with their listeners.
    helper.forwards = None;
    if let Some(reader) = helper.reader {
        // Nobody waits for its answer, and it may hang on a dead network file system.
        kill_reader(reader);
    }
    let status = match end.fault() {
        None => 0,
        Some(why) => {
            let _ = helper.links.log(1, &[why.as_bytes()]);
            1
        }
    };
    let Links { monitor, net, .. } = helper.links;
    drop(net);
    if let Some(sessions) = helper.sessions {
        let remains = Remains::new(&sessions, helper.children);
        remains.await_servers(&monitor);
        // The monitor hears that there is nothing more to be told.
        drop(monitor);
        remains.end(sessions.policy());
    }
    status
}

/// What is left of sessions when their connection is over.
struct Remains {
    children: OwnedFd,
    servers: RefCell<Vec<Pid>>,
    leaders: RefCell<Vec<Pid>>,
}

impl Remains {
    fn new(sessions: &Sessions, children: OwnedFd) -> Self {
        Self {
            children,
            servers: RefCell::new(sessions.built_in()),
            leaders: RefCell::new(sessions.leaders()),
        }
    }

    /// Waits for the end of a child, for `limit_ms` at most; true: there is none any more.
    fn rest(&self, limit_ms: u64) -> bool {
        let limit = timespec(limit_ms);
        let _ = poll(
            &mut [PollFd::new(&self.children, PollFlags::IN)],
            Some(&limit),
        );
        let mut siginfo = [0; 128];
        while let Ok(1..) = rustix::io::read(&self.children, siginfo.as_mut_slice()) {}
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((ended, _))) => {
                    for list in [&self.servers, &self.leaders] {
                        let mut list = list.borrow_mut();
                        if let Some(index) = list.iter().position(|pid| *pid == ended) {
                            list.swap_remove(index);
                        }
                    }
                }
                Ok(None) => return false,
                Err(Errno::INTR) => {}
                Err(_) => return true,
            }
        }
    }

    /// Gives SFTP servers the time to do what their client had asked for before it left. They see
    /// the end of their input; one that waits for a device instead ends with this process. While the
    /// monitor has not read what they tell, it is they who wait, and the monitor says how long.
    fn await_servers(&self, monitor: &Link) {
        let mut until = sys::now_ms() + SERVER_END_LIMIT_MS;
        // One may have ended before anybody waited for it.
        let mut limit_ms = 0;
        while !self.servers.borrow().is_empty() && sys::now_ms() < until {
            if self.rest(limit_ms) {
                return;
            }
            limit_ms = 1000;
            if !has_room(monitor) {
                until = sys::now_ms() + SERVER_END_LIMIT_MS;
            }
        }
    }

    /// OnDisconnect.
    fn end(&self, policy: &Policy) {
        if policy.on_disconnect == OnDisconnect::Leave || self.rest(0) {
            return;
        }
        if policy.chroot.is_some() {
            // What `/proc` there is belongs to the chroot: somebody outside does it, and finds the
            // tree as long as this process holds it together.
            let until = sys::now_ms() + DESCENDANTS_GRACE_MS + DESCENDANTS_END_MS;
            while sys::now_ms() < until && !self.rest(1000) {}
            return;
        }
        let family = Family {
            top: getpid(),
            lives: &|| true,
            concerns: &|_| true,
            leaders: &self.leaders,
        };
        descendants::end(&family, policy.on_disconnect, &mut |limit_ms| {
            self.rest(limit_ms)
        });
    }
}

/// Whether what was sent on a link has been read, by and large.
fn has_room(link: &Link) -> bool {
    let mut polled = [PollFd::new(link, PollFlags::OUT)];
    !matches!(poll(&mut polled, Some(&timespec(0))), Ok(0))
}

/// What a reader is started for.
enum Errand<'a> {
    Read(keys::Request<'a>),
    Run(key_command::Request<'a>),
}

/// The group first: a command's, where the reader leads one by now.
fn kill_reader(reader: Pid) {
    let _ = kill_process_group(reader, Signal::KILL);
    let _ = kill_process(reader, Signal::KILL);
}

struct Helper {
    links: Links,
    children: OwnedFd,
    /// The process that reads key files, one at a time.
    reader: Option<Pid>,
    /// As it found.
    home_is_local: bool,
    /// After "accepted".
    sessions: Option<Sessions>,
    /// As above.
    forwards: Option<Forwards>,
    title: Title,
}

impl Helper {
    fn run(&mut self, build_id: [u8; 16]) -> End {
        if let Err(end) = self.links.to_monitor(&HelperToMonitor::Hello { build_id }) {
            return end;
        }
        let (mut from_monitor, mut from_net) = (Assembly::default(), Assembly::default());
        loop {
            if let Err(end) = self.turn(&mut from_monitor, &mut from_net) {
                return end;
            }
        }
    }

    /// Waits for something and acts on it.
    #[inline(never)]
    fn turn(&mut self, from_monitor: &mut Assembly, from_net: &mut Assembly) -> Result<(), End> {
        let mut tell_in_ms = None;
        if let Some(sessions) = &mut self.sessions {
            tell_in_ms = sessions.tell_of_programs(&mut self.links)?;
        }
        let [monitor, children, net] = self.wait(tell_in_ms, [from_monitor, from_net])?;
        if children {
            let mut siginfo = [0; 128];
            while let Ok(1..) = rustix::io::read(&self.children, siginfo.as_mut_slice()) {}
            self.reap()?;
        }
        if monitor {
            while let Some(received) = self.links.monitor.receive(from_monitor, false)? {
                let frame = MonitorToHelper::from_wire(&received.content)
                    .map_err(|_| End::MonitorGarbled)?;
                self.on_monitor(frame, received.descriptors)?;
            }
        }
        if net {
            self.receive_from_net(from_net)?;
        }
        match &mut self.forwards {
            Some(forwards) => forwards.advance(&mut self.links),
            None => Ok(()),
        }
    }

    /// Waits, for `limit_ms` at most; says which of monitor, children and `net` have something to
    /// say, or have ended. Memory goes back where nothing happens for a while.
    #[inline(never)]
    fn wait(&self, limit_ms: Option<u64>, buffers: [&mut Assembly; 2]) -> Result<[bool; 3], End> {
        let watch = |link| PollFd::new(link, PollFlags::IN);
        let mut polled = alloc::vec![watch(&self.links.monitor)];
        polled.push(PollFd::new(&self.children, PollFlags::IN));
        polled.extend(self.links.net.as_ref().map(watch));
        let mut patience = limit_ms;
        if let Some(forwards) = &self.forwards {
            forwards.poll_set(&mut polled);
            patience = patience.into_iter().chain(forwards.patience_ms()).min();
        }
        let patience = patience.map(timespec);
        let quiet = timespec(REST_AFTER_MS);
        let mut waited = poll(&mut polled, Some(patience.as_ref().unwrap_or(&quiet)));
        if waited == Ok(0) && patience.is_none() {
            buffers.into_iter().for_each(Link::release_buffer);
            sys::release_stack();
            waited = poll(&mut polled, None);
        }
        match waited {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(End::PollFailed),
        }
        let mut ready = [false; 3];
        for (slot, entry) in ready.iter_mut().zip(&polled) {
            *slot = !entry.revents().is_empty();
        }
        Ok(ready)
    }

    #[inline(never)]
    fn receive_from_net(&mut self, assembly: &mut Assembly) -> Result<(), End> {
        while let Some(net) = &self.links.net {
            let Some(received) = net.receive(assembly, false)? else {
                break;
            };
            let frame = NetToSession::from_wire(&received.content).map_err(|_| End::NetGarbled)?;
            if !received.descriptors.is_empty() {
                return Err(End::NetSentDescriptor);
            }
            match (frame, &mut self.sessions, &mut self.forwards) {
                (NetToSession::Forward { request }, Some(sessions), Some(forwards)) => {
                    forwards.on_request(request, &mut self.links)?;
                    sessions.set_agent_path(forwards.agent_path());
                    sessions.set_tunnels(forwards.tunnels());
                    if let Some((session, display)) = forwards.take_display() {
                        sessions.set_display(session, display);
                    }
                }
                (frame, Some(sessions), _) => sessions.on_frame(frame, &mut self.links)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn reap(&mut self) -> Result<(), End> {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if self.reader == Some(pid) {
                self.reader = None;
                let status = status.exit_status();
                let local = status == Some(keys::STATUS_HOME_IS_LOCAL);
                self.home_is_local |= local;
                let ok = local || status == Some(0);
                self.links.to_monitor(&HelperToMonitor::KeysRead { ok })?;
            } else if let Some(sessions) = &mut self.sessions {
                sessions.on_exit(pid, status, &mut self.links)?;
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn on_monitor(&mut self, frame: MonitorToHelper, descriptors: Vec<OwnedFd>) -> Result<(), End> {
        let mut descriptors = descriptors.into_iter();
        let taken = (descriptors.next(), descriptors.next(), descriptors.next());
        match (frame, taken, &mut self.sessions) {
            (
                MonitorToHelper::ReadKeys {
                    identity,
                    change_identity,
                    files,
                    strict_modes,
                    limit_bytes,
                },
                (Some(pipe), None, None),
                None,
            ) => {
                let request = keys::Request {
                    identity: &identity,
                    change_identity,
                    files: &files,
                    strict_modes,
                    limit_bytes,
                };
                self.start_reader(&Errand::Read(request), pipe)
            }
            (
                MonitorToHelper::RunCommand {
                    identity,
                    change_identity,
                    arguments,
                    limit_bytes,
                },
                (Some(pipe), None, None),
                None,
            ) => {
                let request = key_command::Request {
                    identity: &identity,
                    change_identity,
                    arguments: &arguments,
                    limit_bytes,
                };
                self.start_reader(&Errand::Run(request), pipe)
            }
            (MonitorToHelper::Accepted { policy }, (Some(socket), None, None), None) => {
                self.accept(policy, socket)
            }
            (
                MonitorToHelper::Terminal { session, path },
                (Some(master), Some(slave), None),
                Some(sessions),
            ) => {
                let terminal = Terminal {
                    master,
                    slave,
                    path: path.0,
                };
                sessions.on_terminal(session, Some(terminal), &mut self.links)
            }
            (MonitorToHelper::NoTerminal { session }, (None, None, None), Some(sessions)) => {
                sessions.on_terminal(session, None, &mut self.links)
            }
            (MonitorToHelper::Resolver, (Some(socket), None, None), Some(_)) => {
                self.resolver(Some(socket))
            }
            (MonitorToHelper::NoResolver, (None, None, None), Some(_)) => self.resolver(None),
            (MonitorToHelper::SetLogLevel { level }, (None, None, None), _) => {
                self.links.log_level = level;
                Ok(())
            }
            _ => Err(End::OutOfTurn),
        }
    }

    fn resolver(&mut self, socket: Option<OwnedFd>) -> Result<(), End> {
        match &mut self.forwards {
            Some(forwards) => forwards.on_resolver(socket, &mut self.links),
            None => Ok(()),
        }
    }

    #[inline(never)]
    fn start_reader(&mut self, errand: &Errand<'_>, pipe: OwnedFd) -> Result<(), End> {
        // The monitor asks for one thing at a time: it waits no longer for the one before.
        if self.end_reader() {
            self.links
                .to_monitor(&HelperToMonitor::KeysRead { ok: false })?;
        }
        match sys::fork() {
            Ok(Forked::Child) => match errand {
                Errand::Read(request) => keys::read_as_user(request, pipe),
                Errand::Run(request) => key_command::run_as_user(request, pipe),
            },
            Ok(Forked::Parent(reader)) => {
                self.reader = Some(reader);
                Ok(())
            }
            Err(_) => self
                .links
                .to_monitor(&HelperToMonitor::KeysRead { ok: false }),
        }
    }

    /// Ends the reader, with the command that it may be running; says whether there was one.
    fn end_reader(&mut self) -> bool {
        let Some(reader) = self.reader.take() else {
            return false;
        };
        kill_reader(reader);
        sys::await_child(reader);
        true
    }

    #[inline(never)]
    fn accept(&mut self, mut policy: Policy, socket: OwnedFd) -> Result<(), End> {
        // It runs with another's rights or nobody's: not past this point.
        self.end_reader();
        if let Err(error) = login::become_ready(&policy) {
            self.links.to_monitor(&HelperToMonitor::Failed {
                step: Bytes::from(error.step),
                errno: error.errno.raw_os_error(),
            })?;
            return Err(End::Closed);
        }
        self.title
            .set(&[b"agent-helper: ".as_slice(), &policy.title].concat());
        self.links.net = Some(Link::new(socket));
        self.forwards = Some(Forwards::new(
            core::mem::take(&mut policy.forwarding),
            policy.identity.home.clone(),
        ));
        self.sessions = Some(Sessions::new(policy, self.home_is_local));
        self.links.to_monitor(&HelperToMonitor::Ready)
    }
}

fn timespec(ms: u64) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(ms / 1000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(ms % 1000 * 1_000_000).unwrap_or(0),
    }
}

/// The helper's two links and what it may log.
struct Links {
    monitor: Link,
    net: Option<Link>,
    log_level: u8,
}

impl Peers for Links {
    type Error = End;

    fn to_net(&mut self, frame: &SessionToNet, descriptors: &[OwnedFd]) -> Result<(), End> {
        let Some(net) = &self.net else { return Ok(()) };
        let mut borrowed = Vec::with_capacity(descriptors.len());
        borrowed.extend(descriptors.iter().map(|descriptor| descriptor.as_fd()));
        send_to_net(net, &self.monitor, frame, &borrowed)
    }

    fn to_monitor(&mut self, frame: &HelperToMonitor) -> Result<(), End> {
        // The monitor never waits for a helper, so this wait ends.
        Ok(self.monitor.send(0, frame, &[], true)?)
    }

    fn share(&self) -> Result<[OwnedFd; 2], Errno> {
        let net = self.net.as_ref().ok_or(Errno::BADF)?;
        Ok([
            rustix::io::fcntl_dupfd_cloexec(&self.monitor, 0)?,
            rustix::io::fcntl_dupfd_cloexec(net, 0)?,
        ])
    }

    fn logs(&self, level: u8) -> bool {
        level <= self.log_level
    }

    fn log(&mut self, level: u8, parts: &[&[u8]]) -> Result<(), End> {
        if !self.logs(level) {
            return Ok(());
        }
        self.to_monitor(&HelperToMonitor::Log {
            level,
            message: parts.concat().into(),
        })
    }
}

/// Waits for room in `net`'s queue, but not for ever and not past the monitor's end.
#[inline(never)]
fn send_to_net(
    net: &Link,
    monitor: &Link,
    frame: &SessionToNet,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), End> {
    loop {
        match net.send(0, frame, descriptors, false) {
            Err(LinkError::System(Errno::AGAIN)) => {}
            other => return Ok(other?),
        }
        let limit = Timespec {
            tv_sec: NET_STALL_LIMIT_S,
            tv_nsec: 0,
        };
        // Nothing asked of the monitor: only its end shows.
        let mut polled = [
            PollFd::new(net, PollFlags::OUT),
            PollFd::new(monitor, PollFlags::empty()),
        ];
        match poll(&mut polled, Some(&limit)) {
            Ok(0) => return Err(End::NetStalled),
            Ok(_)
                if polled
                    .iter()
                    .any(|entry| entry.revents().contains(PollFlags::HUP)) =>
            {
                return Err(End::Closed);
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Err(End::PollFailed),
        }
    }
}
