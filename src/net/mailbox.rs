//! Where the main thread leaves the monitor's frames for a connection's thread.
//!
//! Bounded: the monitor owes a connection one answer at a time, so a full box means that something
//! is wrong with it. The eventfd is in the connection's poll set.

use std::collections::VecDeque;
use std::sync::Mutex;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use crate::frames::ToNet;
use crate::limits::MAILBOX_FRAMES_MAX;
use crate::profile::lock;

/// One connection's incoming frames.
#[derive(Debug)]
pub(super) struct Mailbox {
    mails: Mutex<VecDeque<ToNet>>,
    wake: OwnedFd,
}

impl AsFd for Mailbox {
    /// Readable while there is mail.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Mailbox {
    pub(super) fn new() -> Result<Self, Errno> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            mails: Mutex::default(),
            wake,
        })
    }

    /// Leaves `mail`; false when the box is full.
    pub(super) fn post(&self, mail: ToNet) -> bool {
        let mut mails = lock(&self.mails);
        if mails.len() >= MAILBOX_FRAMES_MAX {
            return false;
        }
        mails.push_back(mail);
        drop(mails);
        // Only an overflowing counter fails, and then the reader is awake anyway.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        true
    }

    /// Takes the oldest mail.
    pub(super) fn take(&self) -> Option<ToNet> {
        let mut mails = lock(&self.mails);
        let mail = mails.pop_front();
        if mails.is_empty() {
            // Under the lock, so that no wake-up for a later mail is swallowed.
            let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            *mails = VecDeque::new();
        }
        mail
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    fn readable(mailbox: &Mailbox) -> bool {
        let mut set = [PollFd::new(mailbox, PollFlags::IN)];
        poll(
            &mut set,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .unwrap()
            == 1
    }

    fn mail() -> ToNet {
        ToNet::StopAccepting
    }

    #[test]
    fn is_readable_exactly_while_it_holds_mail() {
        let mailbox = Mailbox::new().unwrap();
        assert!(!readable(&mailbox));
        assert!(mailbox.post(mail()) && mailbox.post(mail()));
        assert!(readable(&mailbox));
        assert!(mailbox.take().is_some());
        assert!(readable(&mailbox));
        assert!(mailbox.take().is_some());
        assert!(!readable(&mailbox));
        assert!(mailbox.take().is_none());
    }

    #[test]
    fn refuses_more_than_its_bound() {
        let mailbox = Mailbox::new().unwrap();
        for _ in 0..MAILBOX_FRAMES_MAX {
            assert!(mailbox.post(mail()));
        }
        assert!(!mailbox.post(mail()));
    }
}
