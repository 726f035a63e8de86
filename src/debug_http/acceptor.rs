//! The fence's gate: takes clients, has them judged, reads what they want in bounded space and time,
//! and passes on nothing but whole requests.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use agent_helper::link::{Assembly, LinkError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::head::{self, Head, Method, Refusal};
use super::questions::Monitor;
use super::relay::{Job, Queue, refuse};
use crate::limits::{
    DEBUG_ACCEPT_REST_MS, DEBUG_DRAIN_BYTES, DEBUG_DRAIN_TIME_MS, DEBUG_HEAD_MAX_BYTES,
    DEBUG_HEAD_TIME_MS, DEBUG_HTTP_CLIENTS_MAX, DEBUG_LIFETIME_MS, DEBUG_SLOW_REQUESTS_MAX,
    DEBUG_SYMBOLS_MAX_BYTES,
};

const FORBIDDEN: Refusal = (
    403,
    "you may not use this service: DebugAllowUsers and DebugAllowGroups name who may",
);
const BUSY: Refusal = (429, "other profiles are under way; try again later");
const TOO_LATE: Refusal = (408, "the request did not come in time");

/// Serves until nobody has asked for anything for a while, or the monitor is gone.
pub(super) fn run(listener: &OwnedFd, monitor: &Monitor, queue: &Queue) -> Result<(), String> {
    let mut gate = Gate {
        listener,
        monitor,
        queue,
        assembly: Assembly::default(),
        waiting: Vec::new(),
        last_number: 0,
        resting_until: None,
    };
    loop {
        match gate.turn() {
            Ok(true) => {}
            Ok(false) | Err(LinkError::Closed) => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
    }
}

struct Gate<'a> {
    listener: &'a OwnedFd,
    monitor: &'a Monitor,
    queue: &'a Queue,
    assembly: Assembly,
    /// In the order in which they came; none of them has said all yet.
    waiting: Vec<Waiting>,
    last_number: u32,
    /// No descriptors: accepting rests.
    resting_until: Option<Instant>,
}

struct Waiting {
    number: u32,
    socket: UnixStream,
    step: Step,
    until: Instant,
}

enum Step {
    /// The monitor looks at it.
    Judging,
    Reading(Vec<u8>),
    /// Was answered; what it still sends is thrown away, since closing would destroy the answer.
    Draining(usize),
    Done,
}

impl Gate<'_> {
    /// False: nothing was to do for so long that the process may end.
    fn turn(&mut self) -> Result<bool, LinkError> {
        let now = Instant::now();
        if self.resting_until.is_some_and(|until| until <= now) {
            self.resting_until = None;
        }
        let accepts = self.resting_until.is_none() && self.has_room();
        self.queue.clear_ended();
        let mut set = vec![
            PollFd::new(self.monitor, PollFlags::IN),
            PollFd::new(self.queue, PollFlags::IN),
        ];
        for waiting in &self.waiting {
            let flags = match waiting.step {
                Step::Judging | Step::Done => PollFlags::empty(),
                Step::Reading(_) | Step::Draining(_) => PollFlags::IN,
            };
            set.push(PollFd::new(&waiting.socket, flags));
        }
        if accepts {
            set.push(PollFd::new(self.listener, PollFlags::IN));
        }
        let idle_until = self
            .queue
            .idle_since()
            .map(|since| since + Duration::from_millis(DEBUG_LIFETIME_MS));
        let next = self
            .waiting
            .iter()
            .map(|waiting| waiting.until)
            .chain(self.resting_until)
            .chain(idle_until)
            .min();
        let timeout = next
            .map(|next| next.saturating_duration_since(now))
            .and_then(|rest| Timespec::try_from(rest).ok());
        match poll(&mut set, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(LinkError::System(errno)),
        }
        let ready: Vec<bool> = set
            .iter()
            .map(|entry| !entry.revents().is_empty())
            .collect();
        drop(set);
        let is_ready = |index: usize| ready.get(index).copied().unwrap_or(false);
        if is_ready(0) {
            self.judgements()?;
        }
        let count = self.waiting.len();
        for index in 0..count {
            if is_ready(index + 2) {
                self.input(index);
            }
        }
        if accepts && is_ready(count + 2) {
            self.accept()?;
        }
        self.expire();
        self.sweep();
        Ok(!self.waiting.is_empty() || !self.queue.is_idle_for(DEBUG_LIFETIME_MS))
    }

    /// Room for one more: those that have not said what they want give way to those that come.
    fn has_room(&self) -> bool {
        let busy = self.queue.len();
        busy + self.waiting.len() < DEBUG_HTTP_CLIENTS_MAX || !self.waiting.is_empty()
    }

    fn accept(&mut self) -> Result<(), LinkError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = match accept_with(self.listener, flags) {
            Ok(socket) => UnixStream::from(socket),
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(()),
            // Out of descriptors: those under way end and give some back.
            Err(_) => {
                self.resting_until =
                    Some(Instant::now() + Duration::from_millis(DEBUG_ACCEPT_REST_MS));
                return Ok(());
            }
        };
        self.queue.touch();
        if self.queue.len() + self.waiting.len() >= DEBUG_HTTP_CLIENTS_MAX {
            let oldest = self.waiting.remove(0);
            refuse(&oldest.socket, TOO_LATE);
            self.monitor.forget(oldest.number);
        }
        let Some(number) = self.last_number.checked_add(1) else {
            // After 2^32 clients: the next process counts from 1.
            return Err(LinkError::Closed);
        };
        self.last_number = number;
        self.monitor.announce(number, socket.as_fd())?;
        self.waiting.push(Waiting {
            number,
            socket,
            step: Step::Judging,
            until: Instant::now() + Duration::from_millis(DEBUG_HEAD_TIME_MS),
        });
        Ok(())
    }

    fn judgements(&mut self) -> Result<(), LinkError> {
        while let Some(judged) = self.monitor.receive(&mut self.assembly)? {
            let found = self
                .waiting
                .iter()
                .position(|waiting| waiting.number == judged.number);
            let Some(index) = found else { continue };
            if judged.permitted {
                self.waiting[index].step = Step::Reading(Vec::new());
                // Most have sent it already.
                self.input(index);
            } else {
                self.waiting[index].answer(FORBIDDEN);
            }
        }
        Ok(())
    }

    fn input(&mut self, index: usize) {
        let waiting = &mut self.waiting[index];
        match waiting.read() {
            Ok(None) => {}
            Ok(Some((head, body))) => {
                if head.is_slow() && self.queue.slow() >= DEBUG_SLOW_REQUESTS_MAX {
                    return waiting.answer(BUSY);
                }
                let Ok(client) = waiting.socket.try_clone() else {
                    return waiting.answer(BUSY);
                };
                self.queue.add(Job {
                    number: waiting.number,
                    client,
                    request: head.rewritten(waiting.number, &body),
                    has_body: head.method != Method::Head,
                    slow: head.is_slow(),
                });
                // The number goes on with the job.
                waiting.number = 0;
                waiting.step = Step::Done;
            }
            Err(refusal) => waiting.answer(refusal),
        }
    }

    fn expire(&mut self) {
        let now = Instant::now();
        for waiting in &mut self.waiting {
            if waiting.until <= now {
                match waiting.step {
                    Step::Reading(_) | Step::Judging => waiting.answer(TOO_LATE),
                    Step::Draining(_) | Step::Done => waiting.step = Step::Done,
                }
            }
        }
    }

    fn sweep(&mut self) {
        let monitor = self.monitor;
        self.waiting.retain(|waiting| {
            let done = matches!(waiting.step, Step::Done);
            if done && waiting.number != 0 {
                monitor.forget(waiting.number);
            }
            !done
        });
    }
}

impl Waiting {
    /// Reads on. A whole request is given once.
    fn read(&mut self) -> Result<Option<(Head, Vec<u8>)>, Refusal> {
        let mut piece = [0; 4096];
        loop {
            let len = match self.socket.read(&mut piece) {
                Ok(0) => {
                    self.step = Step::Done;
                    return Ok(None);
                }
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => {
                    self.step = Step::Done;
                    return Ok(None);
                }
            };
            match &mut self.step {
                Step::Reading(bytes) => {
                    bytes.extend_from_slice(piece.get(..len).unwrap_or_default());
                    if let Some(head) = head::read(bytes)? {
                        let end = head.len + head.body_len;
                        if let Some(body) = bytes.get(head.len..end) {
                            let body = body.to_vec();
                            return Ok(Some((head, body)));
                        }
                    }
                    debug_assert!(
                        bytes.len()
                            <= DEBUG_HEAD_MAX_BYTES + DEBUG_SYMBOLS_MAX_BYTES + 2 * piece.len()
                    );
                }
                Step::Draining(drained) => {
                    *drained += len;
                    if *drained > DEBUG_DRAIN_BYTES {
                        self.step = Step::Done;
                        return Ok(None);
                    }
                }
                Step::Judging | Step::Done => return Ok(None),
            }
        }
    }

    /// Answers and ends the conversation.
    fn answer(&mut self, refusal: Refusal) {
        refuse(&self.socket, refusal);
        self.step = Step::Draining(0);
        self.until = Instant::now() + Duration::from_millis(DEBUG_DRAIN_TIME_MS);
    }
}
