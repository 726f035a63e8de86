//! The main thread: accepts, starts a thread for each connection, and passes the monitor's frames
//! on to them. It never reads from a peer and never waits for a connection.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_helper::link::{Assembly, Link, LinkError, Received};
use agent_helper::wire::Wire;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::client::ClientSocket;
use super::connection::{self, Adoption};
use super::logger;
use super::threads::{Body, Threads};
use crate::allocator;
use crate::footprint;
use crate::frames::{CloseReason, NetToMonitor, ToNet};
use crate::limits::ACCEPT_RETRY_MS;
use crate::profile;

/// Serves until the link closes, or until the last connection ended after `StopAccepting`.
pub(super) fn serve(listeners: Vec<OwnedFd>, threads: &Arc<Threads>) -> Result<(), LinkError> {
    let mut acceptor = Acceptor {
        listeners,
        threads,
        assembly: Assembly::default(),
        next_number: 1,
        paused_until: None,
        stopping: false,
        quiet: true,
    };
    loop {
        if acceptor.stopping && threads.is_empty() {
            return Ok(());
        }
        match acceptor.turn() {
            Ok(()) => {}
            Err(LinkError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

struct Acceptor<'a> {
    listeners: Vec<OwnedFd>,
    threads: &'a Arc<Threads>,
    assembly: Assembly,
    next_number: u32,
    /// Accepting rests: out of descriptors, memory or threads.
    paused_until: Option<Instant>,
    stopping: bool,
    /// Nothing happened for a while, and what is unused was given back.
    quiet: bool,
}

impl Acceptor<'_> {
    fn turn(&mut self) -> Result<(), LinkError> {
        let ready = self.wait()?;
        if ready.ended {
            self.threads.clear_ended();
            self.paused_until = None;
        }
        for index in ready.listeners {
            self.accept(index);
        }
        if ready.link {
            self.frames()?;
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<Ready, LinkError> {
        let now = Instant::now();
        let rest = self
            .paused_until
            .and_then(|until| until.checked_duration_since(now));
        if rest.is_none() {
            self.paused_until = None;
        }
        let mut set = vec![PollFd::from_borrowed_fd(
            self.threads.monitor().as_fd(),
            PollFlags::IN,
        )];
        // An end matters only to a process that waits for one, be it to give memory back.
        let waits_for_end = self.stopping || rest.is_some();
        let watch_ends = waits_for_end || (self.quiet && !self.threads.is_empty());
        let ended = self.threads.ended().filter(|_| watch_ends);
        set.extend(ended.map(|ended| PollFd::from_borrowed_fd(ended, PollFlags::IN)));
        let first_listener = set.len();
        if rest.is_none() {
            set.extend(
                self.listeners
                    .iter()
                    .map(|listener| PollFd::new(listener, PollFlags::IN)),
            );
        }
        let fallback = (waits_for_end && ended.is_none()).then_some(Duration::from_secs(1));
        let timeout = match (rest, fallback) {
            (Some(rest), Some(fallback)) => Some(rest.min(fallback)),
            (rest, fallback) => rest.or(fallback),
        };
        let resting = timeout.is_none() && self.quiet;
        let until_quiet = timeout.is_none() && !self.quiet;
        let timeout = timeout
            .or(until_quiet.then_some(footprint::QUIET))
            .and_then(|timeout| Timespec::try_from(timeout).ok());
        let polled = if resting {
            allocator::give_back();
            footprint::rest(&mut set, None)
        } else {
            poll(&mut set, timeout.as_ref())
        };
        self.quiet = until_quiet && polled == Ok(0);
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(LinkError::System(errno)),
        }
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        Ok(Ready {
            link: set.first().is_some_and(is_ready),
            ended: ended.is_some() && set.get(1).is_some_and(is_ready),
            listeners: (first_listener..set.len())
                .filter(|index| set.get(*index).is_some_and(is_ready))
                .map(|index| index - first_listener)
                .collect(),
        })
    }

    fn accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get(index) else {
            return;
        };
        match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(socket) => {
                if let Err(error) = self.start_stranger(socket) {
                    self.pause(error.raw_os_error().unwrap_or(0));
                }
            }
            // The peer left, or another process of a restart was faster.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => {}
            Err(errno) => self.pause(errno.raw_os_error()),
        }
    }

    fn start_stranger(&mut self, socket: OwnedFd) -> io::Result<()> {
        let client = ClientSocket::new(socket)?;
        let number = self.next_number;
        // Wraps after 2^32 connections; 0 is the process itself.
        self.next_number = self.next_number.checked_add(1).unwrap_or(1);
        // Announced here and not by the thread: the monitor expects the numbers in order.
        let announced =
            self.threads
                .monitor()
                .send(number, &NetToMonitor::Accept, &[client.input()]);
        if announced.is_err() {
            // The link's end shows in the poll set.
            return Ok(());
        }
        let body = Box::new(|place: &_| connection::serve_stranger(place, client));
        self.start(number, body)
    }

    fn pause(&mut self, errno: i32) {
        self.paused_until = Some(Instant::now() + Duration::from_millis(ACCEPT_RETRY_MS.into()));
        let _ = self
            .threads
            .monitor()
            .send(0, &NetToMonitor::AcceptPaused { errno }, &[]);
    }

    fn frames(&mut self) -> Result<(), LinkError> {
        while let Some(received) = self
            .threads
            .monitor()
            .link()
            .receive(&mut self.assembly, false)?
        {
            self.frame(received)?;
        }
        // Frames are rare between bursts, and the buffer is larger than all else here together.
        Link::release_buffer(&mut self.assembly);
        Ok(())
    }

    fn frame(&mut self, received: Received) -> Result<(), LinkError> {
        let Received {
            connection: number,
            content,
            descriptors,
        } = received;
        match ToNet::from_wire(&content)? {
            ToNet::SetLogLevel {
                level,
                forced,
                followed,
            } if number == 0 => logger::set_process(level, forced, followed),
            ToNet::Profile { kind, seconds, hz } if number == 0 => {
                take_profile(kind, seconds, hz, descriptors)?;
            }
            ToNet::Report if number == 0 => self.threads.report()?,
            ToNet::StopAccepting if number == 0 => {
                self.listeners.clear();
                self.stopping = true;
            }
            ToNet::ResumeAccepting => self.paused_until = None,
            ToNet::Adopt {
                state,
                options,
                policy,
            } => {
                self.adopt(
                    number,
                    Adoption {
                        state,
                        options,
                        policy,
                    },
                    descriptors,
                )?;
            }
            ToNet::Serve => self.serve_inetd(number, descriptors)?,
            frame if descriptors.is_empty() => {
                self.threads
                    .post(number, frame)
                    .map_err(LinkError::Protocol)?;
            }
            _ => return Err(LinkError::Protocol("descriptors where none belong")),
        }
        Ok(())
    }

    fn adopt(
        &mut self,
        number: u32,
        adoption: Adoption,
        mut descriptors: Vec<OwnedFd>,
    ) -> Result<(), LinkError> {
        let (Some(session), true) = (descriptors.pop(), !descriptors.is_empty()) else {
            // This process has as many as it may: the others that it serves go on.
            self.report_unstarted(
                number,
                &Errno::MFILE.into(),
                "no descriptors for the connection",
            );
            return Ok(());
        };
        let client = pair(descriptors)?;
        // Taken apart at the start of the thread, which then holds its box no longer.
        let adoption = Box::new(adoption);
        let body = Box::new(|place: &_| {
            connection::serve_user(place, client, Link::new(session), adoption)
        });
        // The monitor knows already where it could not be.
        let _ = self.start(number, body);
        Ok(())
    }

    fn serve_inetd(&mut self, number: u32, descriptors: Vec<OwnedFd>) -> Result<(), LinkError> {
        let client = pair(descriptors)?;
        let body = Box::new(|place: &_| connection::serve_stranger(place, client));
        // The monitor knows already where it could not be.
        let _ = self.start(number, body);
        Ok(())
    }

    /// Serves a connection in a thread of its own; the monitor is told where there is none for it.
    fn start(&self, number: u32, body: Body) -> io::Result<()> {
        let started = self.threads.start(number, body);
        if let Err(error) = &started {
            self.report_unstarted(number, error, "no thread for the connection");
        }
        started
    }

    /// A connection that the monitor counts on and that is not served.
    fn report_unstarted(&self, number: u32, error: &io::Error, detail: &str) {
        let frame = NetToMonitor::Closed {
            reason: CloseReason::Io {
                errno: error.raw_os_error().unwrap_or(0),
            },
            detail: detail.into(),
            bytes: (0, 0),
        };
        let _ = self.threads.monitor().send(number, &frame, &[]);
    }
}

/// What became ready.
struct Ready {
    link: bool,
    ended: bool,
    listeners: Vec<usize>,
}

fn pair(descriptors: Vec<OwnedFd>) -> Result<ClientSocket, LinkError> {
    let mut descriptors = descriptors.into_iter();
    let (Some(input), output, None) = (descriptors.next(), descriptors.next(), descriptors.next())
    else {
        return Err(LinkError::Protocol("a connection without its descriptors"));
    };
    ClientSocket::pair(input, output).map_err(LinkError::System)
}

/// Takes a profile in a thread of its own.
fn take_profile(kind: u8, seconds: u32, hz: u32, mut pipe: Vec<OwnedFd>) -> Result<(), LinkError> {
    let Some(kind) = profile::Kind::from_number(kind) else {
        return Err(LinkError::Protocol("a profile of nothing"));
    };
    let Some(output) = pipe.pop() else {
        // No descriptor was free for it, and its reader sees that there is nothing.
        return Ok(());
    };
    let time = Duration::from_secs(seconds.into());
    // Without a thread the pipe closes, and its reader sees that there is nothing.
    profile::spawns();
    let _ = std::thread::Builder::new().spawn(move || profile::take(kind, hz, time, &output));
    Ok(())
}
