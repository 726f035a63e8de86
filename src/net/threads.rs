//! The connections of this process: a thread and a mailbox for each.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

use super::facts::Facts;
use super::mailbox::Mailbox;
use super::memory;
use super::monitor_link::MonitorLink;
use crate::frames::{CloseReason, NetToMonitor, ToNet};
use crate::limits::{CONNECTION_STACK_BYTES, REPORTS_PER_FRAME};
use crate::profile::{self, lock};
use agent_helper::link::LinkError;

/// How a connection's thread leaves its connection.
#[derive(Debug)]
pub(super) enum Leave {
    /// It is over.
    Closed {
        /// For the log.
        reason: CloseReason,
        /// For the log; for [`CloseReason::ByPeer`] the peer's words.
        detail: Vec<u8>,
        /// Bytes received from and sent to the peer.
        bytes: (u64, u64),
    },
    /// Another process has it now; the monitor knows.
    HandedOver,
}

/// What a connection's thread is given.
#[derive(Debug)]
pub(super) struct Place {
    /// The connection's number in frames.
    pub number: u32,
    /// For questions.
    pub monitor: Arc<MonitorLink>,
    /// For answers.
    pub mailbox: Arc<Mailbox>,
    /// For whoever looks.
    pub facts: Arc<Facts>,
}

/// What the main thread knows of a connection.
type Known = (Arc<Mailbox>, Arc<Facts>);

/// All connections of this process.
#[derive(Debug)]
pub(super) struct Threads {
    monitor: Arc<MonitorLink>,
    mailboxes: Mutex<BTreeMap<u32, Known>>,
    /// Tells the main thread that a connection ended.
    ended: Option<OwnedFd>,
}

/// What a connection's thread does. Boxed: each of std's frames below it would hold a copy as long as
/// the connection lasts.
pub(super) type Body = Box<dyn FnOnce(&Place) -> Leave + Send>;

impl Threads {
    pub(super) fn new(monitor: Arc<MonitorLink>) -> Self {
        // Without it the main thread notices ends by its timer.
        let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok();
        Self {
            monitor,
            mailboxes: Mutex::default(),
            ended,
        }
    }

    pub(super) fn monitor(&self) -> &MonitorLink {
        &self.monitor
    }

    /// Readable after a connection ended.
    pub(super) fn ended(&self) -> Option<BorrowedFd<'_>> {
        self.ended.as_ref().map(AsFd::as_fd)
    }

    /// Forgets the ends so far.
    pub(super) fn clear_ended(&self) {
        if let Some(ended) = &self.ended {
            let _ = rustix::io::read(ended, &mut [0; 8]);
        }
    }

    /// True when no connection is left.
    pub(super) fn is_empty(&self) -> bool {
        self.mailboxes().is_empty()
    }

    /// Leaves `frame` for the connection `number`. One that is gone already needs none.
    pub(super) fn post(&self, number: u32, frame: ToNet) -> Result<(), &'static str> {
        let found = self.mailboxes().get(&number).cloned();
        let Some((mailbox, _)) = found else {
            return Ok(());
        };
        if mailbox.post(frame) {
            Ok(())
        } else {
            Err("the monitor sent more than it was asked for")
        }
    }

    /// Runs `body` for the connection `number` in a thread of its own.
    ///
    /// # Errors
    ///
    /// No descriptor, memory or thread for it; `body` is dropped unrun.
    pub(super) fn start(self: &Arc<Self>, number: u32, body: Body) -> io::Result<()> {
        let mailbox = Arc::new(Mailbox::new()?);
        let facts = Arc::new(Facts::default());
        let seen = (Arc::clone(&mailbox), Arc::clone(&facts));
        self.mailboxes().insert(number, seen);
        let place = Place {
            number,
            monitor: Arc::clone(&self.monitor),
            mailbox,
            facts,
        };
        let threads = Arc::clone(self);
        profile::spawns();
        let started = std::thread::Builder::new()
            .stack_size(CONNECTION_STACK_BYTES)
            .spawn(move || threads.run(&place, body));
        if started.is_err() {
            self.mailboxes().remove(&number);
        }
        started.map(drop)
    }

    fn run(&self, place: &Place, body: Body) {
        let _registered = profile::register();
        // What `body` owns is dropped by the unwinding; the rest is locks that tolerate poison.
        let leave = catch_unwind(AssertUnwindSafe(|| body(place))).unwrap_or(Leave::Closed {
            reason: CloseReason::Fault,
            detail: Vec::new(),
            bytes: (0, 0),
        });
        self.mailboxes().remove(&place.number);
        if let Leave::Closed {
            reason,
            detail,
            bytes,
        } = leave
        {
            let frame = NetToMonitor::Closed {
                reason,
                detail: detail.into(),
                bytes,
            };
            // A monitor that is gone needs no telling: the main thread ends the process.
            let _ = place.monitor.send(place.number, &frame, &[]);
        }
        // glibc keeps some stacks for the next threads, and what was touched of them.
        memory::release_stack();
        if let Some(ended) = &self.ended {
            let _ = rustix::io::write(ended, &1_u64.to_ne_bytes());
        }
    }

    /// Tells the monitor about all connections, a bounded number with each frame.
    pub(super) fn report(&self) -> Result<(), LinkError> {
        let reports: Vec<_> = self
            .mailboxes()
            .iter()
            .map(|(number, (_, facts))| facts.report(*number))
            .collect();
        let mut parts = reports.chunks(REPORTS_PER_FRAME).peekable();
        loop {
            let connections = parts.next().unwrap_or_default().to_vec();
            let last = parts.peek().is_none();
            let frame = NetToMonitor::Report { connections, last };
            self.monitor.send(0, &frame, &[])?;
            if last {
                return Ok(());
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "named nowhere else")]
    fn mailboxes(&self) -> MutexGuard<'_, BTreeMap<u32, (Arc<Mailbox>, Arc<Facts>)>> {
        lock(&self.mailboxes)
    }
}
