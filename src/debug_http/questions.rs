//! The link to the monitor: threads ask on behalf of their clients, the main thread hands out what
//! comes back.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agent_helper::link::{Assembly, Link, LinkError};
use agent_helper::wire::Wire;

use super::streams::Stream;
use crate::debug_frames::{DebugToMonitor, MonitorToDebug};
use crate::limits::{DEBUG_ANSWER_TIME_MS, DEBUG_ANSWERS_MAX};

/// What the monitor says, with the descriptors that came along.
pub(super) type Answer = (MonitorToDebug, Vec<OwnedFd>);

pub(super) struct Monitor {
    link: Link,
    /// Held while a frame goes out.
    sending: Mutex<()>,
    clients: Mutex<BTreeMap<u32, Client>>,
    /// Something changed for one of the clients.
    changed: Condvar,
    /// The link ended: nothing more is answered.
    over: AtomicBool,
}

#[derive(Default)]
struct Client {
    answers: VecDeque<Answer>,
    /// What its response goes on with.
    stream: Option<Stream>,
    /// It left: nobody reads what is still written for it.
    gone: bool,
}

impl Monitor {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            sending: Mutex::default(),
            clients: Mutex::default(),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
        }
    }

    /// Sends a frame about a client; waits while the queue is full, since the monitor always reads.
    pub(super) fn tell(
        &self,
        number: u32,
        frame: &DebugToMonitor,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let _turn = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        self.link.send(number, frame, descriptors, true)
    }

    /// A line for the log.
    pub(super) fn log(&self, level: log::Level, message: &str) {
        let frame = DebugToMonitor::Log {
            level: level as u8,
            message: message.into(),
        };
        // A monitor that is gone writes no log.
        let _ = self.tell(0, &frame, &[]);
    }

    /// Asks for a client and waits for the answer. `None`: there is none in time, or nobody for it.
    pub(super) fn ask(&self, number: u32, frame: &DebugToMonitor) -> Option<MonitorToDebug> {
        self.tell(number, frame, &[]).ok()?;
        let time = Duration::from_millis(DEBUG_ANSWER_TIME_MS);
        self.next(number, time).map(|(answer, _)| answer)
    }

    /// The next answer for a client. `None`: there is none in time, or nobody for it.
    pub(super) fn next(&self, number: u32, time: Duration) -> Option<Answer> {
        let until = Instant::now() + time;
        let mut clients = self.clients();
        loop {
            let client = clients.get_mut(&number).filter(|client| !client.gone)?;
            if let Some(answer) = client.answers.pop_front() {
                return Some(answer);
            }
            if self.is_over() {
                return None;
            }
            let left = until.checked_duration_since(Instant::now())?;
            clients = self
                .changed
                .wait_timeout(clients, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Nobody reads what is written for this client.
    pub(super) fn abandon(&self, number: u32) {
        if let Some(client) = self.clients().get_mut(&number) {
            client.gone = true;
        }
        self.changed.notify_all();
    }

    /// The response for this client goes on with it.
    pub(super) fn hand_over(&self, number: u32, stream: Stream) {
        if let Some(client) = self.clients().get_mut(&number) {
            client.stream = Some(stream);
        }
    }

    /// What a response goes on with.
    pub(super) fn take_stream(&self, number: u32) -> Option<Stream> {
        self.clients().get_mut(&number)?.stream.take()
    }

    /// The link ended: nobody waits any longer.
    pub(super) fn end(&self) {
        // Under the lock, so that nobody is between his look and his wait.
        let clients = self.clients();
        self.over.store(true, Ordering::Release);
        drop(clients);
        self.changed.notify_all();
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Announces a client to the monitor, which will look at its socket.
    pub(super) fn announce(&self, number: u32, socket: BorrowedFd<'_>) -> Result<(), LinkError> {
        self.clients().insert(number, Client::default());
        self.tell(number, &DebugToMonitor::Client, &[socket])
    }

    /// The client is done with.
    pub(super) fn forget(&self, number: u32) {
        self.clients().remove(&number);
        let _ = self.tell(number, &DebugToMonitor::Left, &[]);
    }

    /// Takes a frame off the link, for the main thread: judgements are its own business, answers
    /// go to who asked. `None`: nothing more is there.
    pub(super) fn receive(&self, assembly: &mut Assembly) -> Result<Option<Judged>, LinkError> {
        while let Some(received) = self.link.receive(assembly, false)? {
            let number = received.connection;
            match MonitorToDebug::from_wire(&received.content)? {
                MonitorToDebug::Judged { permitted } => {
                    return Ok(Some(Judged { number, permitted }));
                }
                answer => self.deliver(number, (answer, received.descriptors)),
            }
        }
        Ok(None)
    }

    fn deliver(&self, number: u32, answer: Answer) {
        if let Some(client) = self.clients().get_mut(&number) {
            if client.answers.len() >= DEBUG_ANSWERS_MAX {
                client.answers.pop_front();
            }
            client.answers.push_back(answer);
        }
        self.changed.notify_all();
    }

    fn clients(&self) -> MutexGuard<'_, BTreeMap<u32, Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

/// What the monitor thinks of a client.
pub(super) struct Judged {
    pub number: u32,
    pub permitted: bool,
}
