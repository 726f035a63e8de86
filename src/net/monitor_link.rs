//! The sending half of the link to the monitor, shared by all threads of the process.

use std::sync::Mutex;

use agent_helper::link::{Link, LinkError};
use agent_helper::wire::Wire;
use rustix::fd::{AsFd, BorrowedFd};
use zeroize::{Zeroize, Zeroizing};

use crate::frames::NetToMonitor;
use crate::profile::lock;

/// The link; the main thread alone receives from it.
#[derive(Debug)]
pub(super) struct MonitorLink {
    link: Link,
    /// Held while a frame goes out: one of several datagrams must not be cut by another.
    sending: Mutex<()>,
}

impl AsFd for MonitorLink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }
}

impl MonitorLink {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            sending: Mutex::new(()),
        }
    }

    /// For the main thread's `receive`.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Sends a frame about `connection`. Waits while the queue is full: the monitor reads always
    /// and never waits for us.
    pub(super) fn send(
        &self,
        connection: u32,
        frame: &NetToMonitor,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        let _turn = lock(&self.sending);
        self.link.send(connection, frame, descriptors, true)
    }

    /// As `send`, for a frame with a secret, of which no copy stays here.
    pub(super) fn send_secret(
        &self,
        connection: u32,
        mut frame: NetToMonitor,
    ) -> Result<(), LinkError> {
        let content = Zeroizing::new(frame.to_wire());
        if let Some(secret) = frame.secret() {
            secret.0.zeroize();
        }
        let _turn = lock(&self.sending);
        self.link.send_content(connection, &content, &[], true)
    }

    /// Sends a frame that may get lost: drops it where the queue is full. For one datagram only.
    pub(super) fn try_send(&self, connection: u32, frame: &NetToMonitor) -> Result<(), LinkError> {
        let _turn = lock(&self.sending);
        self.link.send(connection, frame, &[], false)
    }
}
