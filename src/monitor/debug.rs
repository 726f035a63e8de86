//! The debug service as the monitor sees it: a process that is there while somebody asks, the
//! clients that it announces, and what each of them may do.
//!
//! Who a client is, the monitor reads from its socket, which comes with the announcement; nothing is
//! answered for a client that it has not let in.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use agent_helper::link::{self, Assembly, Link, LinkError, Received};
use agent_helper::wire::Wire;
use rustix::io::Errno;
use rustix::process::Pid;

use super::Monitor;
use super::debug_peers::Peers;
use super::debug_socket::DebugSocket;
use super::host::Ids;
use super::levels::LineRates;
use super::nets::restart_delay;
use super::outbox::Outbox;
use super::poller::Source;
use super::rate::Rate;
use super::timers::{Deadline, TimerId};
use crate::config::options::DebugOptions;
use crate::debug_frames::{DebugToMonitor, MonitorToDebug};
use crate::launch::{Launch, launch};
use crate::limits::{
    DEBUG_CLIENTS_MAX, DEBUG_REFUSAL_LINES_BURST, FRAMES_PER_TURN, HELLO_TIME_MS, RESTART_GOOD_MS,
};
use crate::logging::streams;
use crate::take_over::DebugSocketFile;

/// The service: its socket, and its process while there is one.
#[derive(Debug)]
pub(super) struct Debug {
    socket: Option<DebugSocket>,
    process: Option<Process>,
    /// Processes in a row that died young.
    young_deaths: u32,
    /// Its link ended and it did not yet: how it did, the log still has to say.
    dying: Option<Pid>,
    refusal_lines: Rate,
    /// Asked for over the service; until the configuration is read again.
    pub level: Option<log::LevelFilter>,
    /// Up to which level other processes were told that somebody follows.
    pub followed: log::LevelFilter,
    pub peers: Peers,
}

#[derive(Debug)]
struct Process {
    pid: Pid,
    link: Link,
    assembly: Assembly,
    outbox: Outbox,
    greeted: bool,
    hello: Option<TimerId>,
    started: Instant,
    logs: LineRates,
    /// Whom the process announced and has not given up; `None`: not let in.
    clients: BTreeMap<u32, Option<String>>,
    highest: u32,
}

impl Debug {
    pub(super) fn new() -> Self {
        Self {
            socket: None,
            process: None,
            young_deaths: 0,
            dying: None,
            refusal_lines: Rate::new(DEBUG_REFUSAL_LINES_BURST, 1, Instant::now()),
            level: None,
            followed: log::LevelFilter::Off,
            peers: Peers::new(Instant::now()),
        }
    }

    /// What the program before this one in the same process served on.
    pub(super) fn take_over(&mut self, file: Option<DebugSocketFile>) {
        self.socket = file.and_then(DebugSocket::taken_over);
    }

    pub(super) fn socket(&self) -> Option<&DebugSocket> {
        self.socket.as_ref()
    }

    /// The process that serves, while there is one.
    pub(super) fn process_id(&self) -> Option<Pid> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// Gives receive buffers back.
    pub(super) fn release_buffers(&mut self) {
        if let Some(process) = &mut self.process {
            Link::release_buffer(&mut process.assembly);
        }
    }
}

impl Monitor {
    /// Makes, keeps or removes the socket, as the configuration wants it. Nothing depends on it.
    pub(super) fn settle_debug(&mut self) {
        let generation = Rc::clone(&self.generation);
        let options = &generation.options;
        self.debug.peers.forget();
        streams::keep(options.debug.service);
        let open = is_open(&options.debug);
        if let Some(socket) = &self.debug.socket {
            if options.debug.service && socket.is_in(&options.data_dir) {
                socket.set_open(open);
                if self.debug.process.is_none() {
                    self.watch_debug();
                }
                return;
            }
            self.poller.remove(socket);
            self.debug.socket = None;
        }
        if !options.debug.service {
            return self.end_debug();
        }
        match DebugSocket::make(&options.data_dir, self.host.as_root, open) {
            Ok(socket) => {
                self.debug.socket = Some(socket);
                self.end_debug();
                self.watch_debug();
            }
            Err(error) => log::warn!("no debug service: {error}"),
        }
    }

    /// The service ends; `ours`: with its file.
    pub(super) fn close_debug(&mut self, ours: bool) {
        if let Some(socket) = self.debug.socket.take() {
            self.poller.remove(&socket);
            if !ours {
                socket.forget();
            }
        }
        self.end_debug();
    }

    fn watch_debug(&self) {
        if let Some(socket) = &self.debug.socket {
            match self.poller.add(socket, Source::DebugListener) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => log::warn!("no debug service: {error}"),
            }
        }
    }

    /// Somebody connects, and no process is there to answer.
    pub(super) fn debug_wanted(&mut self) {
        let Some(socket) = &self.debug.socket else {
            return;
        };
        // From here on the process accepts.
        self.poller.remove(socket);
        if self.debug.process.is_some() {
            return;
        }
        match self.start_debug() {
            Ok(process) => self.debug.process = Some(process),
            Err(error) => {
                log::error!("the debug service could not be started: {error}");
                self.retry_debug();
            }
        }
    }

    fn start_debug(&mut self) -> std::io::Result<Process> {
        let Some(socket) = &self.debug.socket else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let (ours, theirs) = link::pair()?;
        let mut environment = Ids::environment(self.host.debug_ids());
        environment.push(CString::new(format!(
            "AGENT_DATA_DIR={}",
            self.generation.options.data_dir.display()
        ))?);
        let launched = launch(&Launch {
            environment: &environment,
            descriptors: &[theirs.as_fd(), socket.as_fd()],
            new_session: true,
            oom_score_adj: self.host.oom_score_adj,
            ..Launch::new(self.host.own.as_fd(), &[c"agent: debug"])
        })?;
        self.poller.add(&ours, Source::Debug)?;
        let now = Instant::now();
        let time = Duration::from_millis(HELLO_TIME_MS);
        Ok(Process {
            pid: launched.pid,
            link: Link::new(ours),
            assembly: Assembly::default(),
            outbox: Outbox::default(),
            greeted: false,
            hello: Some(self.timers.after(time, Deadline::DebugHello)),
            started: now,
            logs: LineRates::new(now),
            clients: BTreeMap::new(),
            highest: 0,
        })
    }

    /// Ends the process, if there is one: without a link it ends by itself.
    fn end_debug(&mut self) {
        if let Some(process) = self.debug.process.take() {
            self.timers.cancel(process.hello);
            self.poller.remove(&process.link);
            self.end_following(None);
            self.end_trace(None);
        }
    }

    /// The process is gone, or is to go: whoever waits gets a new one, at once unless they keep
    /// dying. `why`: `None` where its end will say.
    pub(super) fn debug_gone(&mut self, why: Option<&str>) {
        let Some(process) = &self.debug.process else {
            return;
        };
        let pid = process.pid;
        // One that ends because nobody asks has lived for a minute.
        let young = process.started.elapsed() < Duration::from_millis(RESTART_GOOD_MS);
        match why {
            Some(why) => {
                log::error!("debug[{}] is gone: {why}", pid.as_raw_nonzero());
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
            None => self.debug.dying = Some(pid),
        }
        self.end_debug();
        if young {
            self.retry_debug();
        } else {
            self.debug.young_deaths = 0;
            self.watch_debug();
        }
    }

    fn retry_debug(&mut self) {
        self.debug.young_deaths = self.debug.young_deaths.saturating_add(1);
        let delay = restart_delay(self.debug.young_deaths);
        self.timers.after(delay, Deadline::DebugRestart);
    }

    /// The listener is looked at again.
    pub(super) fn debug_again(&mut self) {
        if self.debug.process.is_none() {
            self.watch_debug();
        }
    }

    /// Room or input on the link.
    pub(super) fn debug_ready(&mut self, readable: bool, writable: bool) {
        if writable && let Some(process) = &mut self.debug.process {
            let flushed = process.outbox.flush(&process.link);
            if process.outbox.is_empty() {
                let _ = self.poller.want_room(&process.link, Source::Debug, false);
            }
            if let Err(error) = flushed {
                return self.debug_gone(Some(&error.to_string()));
            }
        }
        if !readable {
            return;
        }
        for _ in 0..FRAMES_PER_TURN {
            let Some(process) = &mut self.debug.process else {
                return;
            };
            match process.link.receive(&mut process.assembly, false) {
                Ok(None) => return,
                Ok(Some(received)) => {
                    if let Err(why) = self.debug_frame(received) {
                        return self.debug_gone(Some(&why));
                    }
                }
                // How it ended, the collection of the child says.
                Err(LinkError::Closed) => return self.debug_gone(None),
                Err(error) => return self.debug_gone(Some(&error.to_string())),
            }
        }
    }

    /// A child was collected; true where it was the debug service's. `failure`: how it ended, where
    /// it did not end as it should.
    pub(super) fn debug_collected(&mut self, pid: Pid, failure: Option<&str>) -> bool {
        if self.debug.dying == Some(pid) {
            self.debug.dying = None;
            if let Some(how) = failure {
                log::error!("debug[{}]: {how}", pid.as_raw_nonzero());
            }
            return true;
        }
        let ours = self.debug.process.as_ref().is_some_and(|it| it.pid == pid);
        if ours {
            if let Some(how) = failure {
                log::error!("debug[{}] is gone: {how}", pid.as_raw_nonzero());
            }
            self.debug_gone(None);
            self.debug.dying = None;
        }
        ours
    }

    fn debug_frame(&mut self, received: Received) -> Result<(), String> {
        let Received {
            connection: number,
            content,
            descriptors,
        } = received;
        let frame = DebugToMonitor::from_wire(&content).map_err(|error| error.to_string())?;
        let Some(process) = &mut self.debug.process else {
            return Ok(());
        };
        match frame {
            DebugToMonitor::Hello { build_id } if number == 0 && !process.greeted => {
                if build_id != crate::BUILD_ID {
                    return Err("it is of another build".into());
                }
                process.greeted = true;
                self.timers.cancel(process.hello.take());
                Ok(())
            }
            DebugToMonitor::Log { level, message } if number == 0 => {
                if process.logs.take(level) {
                    let pid = process.pid.as_raw_nonzero();
                    super::log::log_of_debug(pid.get(), level, &message);
                }
                Ok(())
            }
            _ if !process.greeted => Err("it did not say hello first".into()),
            DebugToMonitor::Client => self.debug_client(number, descriptors),
            frame if !descriptors.is_empty() => {
                Err(format!("it sent descriptors with {}", frame.kind().1))
            }
            DebugToMonitor::Left => {
                process.clients.remove(&number);
                self.end_following(Some(number));
                self.end_trace(Some(number));
                Ok(())
            }
            frame => match process.clients.get(&number) {
                Some(Some(who)) => {
                    let who = who.clone();
                    self.debug_request(number, &who, frame);
                    Ok(())
                }
                _ => Err(format!("it sent {} for nobody", frame.kind().1)),
            },
        }
    }

    /// A client, to be judged by its socket.
    fn debug_client(&mut self, number: u32, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        let Some(process) = &mut self.debug.process else {
            return Ok(());
        };
        let new = number > process.highest && process.clients.len() < DEBUG_CLIENTS_MAX;
        let ([socket], true) = (descriptors.as_slice(), new) else {
            return Err("it announced a client that cannot be".into());
        };
        let is_client = |listener: &DebugSocket| listener.accepted(socket);
        let accepted = self.debug.socket.as_ref().is_some_and(is_client);
        let peer = accepted.then(|| self.peer_of(socket)).flatten();
        let peer = peer.ok_or("it announced a descriptor that is no client")?;
        let permitted = peer.permitted;
        if !permitted && self.debug.refusal_lines.take(Instant::now()) {
            log::warn!(
                "debug service: {} is refused; event=debug-refused uid={} reason=not-allowed",
                peer.text,
                peer.uid
            );
        }
        if let Some(process) = &mut self.debug.process {
            process.highest = number;
            process
                .clients
                .insert(number, permitted.then_some(peer.text));
        }
        self.tell_debug(number, &MonitorToDebug::Judged { permitted }, &[]);
        Ok(())
    }

    /// Answers; to nobody where the client, or the process, is gone.
    pub(super) fn tell_debug(
        &mut self,
        number: u32,
        frame: &MonitorToDebug,
        descriptors: &[BorrowedFd<'_>],
    ) {
        let Some(process) = &mut self.debug.process else {
            return;
        };
        let was_empty = process.outbox.is_empty();
        let sent = process
            .outbox
            .send(&process.link, number, frame.to_wire(), descriptors);
        match sent {
            Ok(()) if was_empty && !process.outbox.is_empty() => {
                let _ = self.poller.want_room(&process.link, Source::Debug, true);
            }
            Ok(()) => {}
            Err(error) => self.debug_gone(Some(&error.to_string())),
        }
    }
}

/// Whether others than the owner may connect.
fn is_open(options: &DebugOptions) -> bool {
    !options.allow_users.is_empty() || !options.allow_groups.is_empty()
}
