//! The session socket to the connection's helper: frames go out without waiting, in order.
//!
//! The helper is one thread and may be busy; a connection that waited for it could not serve its
//! other channels, and two that wait for each other would never end.

use std::collections::VecDeque;

use agent_helper::frame::{NetToSession, SessionToNet};
use agent_helper::link::{Assembly, Link, LinkError};
use agent_helper::wire::Wire;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;

use crate::limits::HELPER_QUEUE_FRAMES_MAX;

/// The link and what waits for it.
#[derive(Debug)]
pub(super) struct HelperQueue {
    link: Link,
    assembly: Assembly,
    waiting: VecDeque<Vec<u8>>,
    /// How much of the first waiting frame went out.
    offset: usize,
}

impl HelperQueue {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            assembly: Assembly::default(),
            waiting: VecDeque::new(),
            offset: 0,
        }
    }

    /// Frames wait for the socket to take them.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// For the poll set: the socket, and whether frames wait for it.
    pub(super) fn poll(&self) -> (BorrowedFd<'_>, bool) {
        (self.link.as_fd(), self.is_waiting())
    }

    /// No more requests of the client may be served: each could add a frame.
    pub(super) fn is_full(&self) -> bool {
        self.waiting.len() >= HELPER_QUEUE_FRAMES_MAX
    }

    /// Sends `frame`, now or later.
    pub(super) fn send(&mut self, frame: &NetToSession) -> Result<(), LinkError> {
        self.waiting.push_back(frame.to_wire());
        self.flush()
    }

    /// Sends what waits, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Result<(), LinkError> {
        while let Some(frame) = self.waiting.front() {
            match self.link.send_piece(0, frame, self.offset, &[], false) {
                Ok(end) if end < frame.len() => self.offset = end,
                Ok(_) => {
                    self.offset = 0;
                    self.waiting.pop_front();
                }
                Err(LinkError::System(Errno::AGAIN)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.waiting = VecDeque::new();
        Ok(())
    }

    /// Gives memory back that the next frame takes anew.
    pub(super) fn release_buffer(&mut self) {
        Link::release_buffer(&mut self.assembly);
    }

    /// The next frame of the helper, if a whole one is there.
    pub(super) fn receive(&mut self) -> Result<Option<(SessionToNet, Vec<OwnedFd>)>, LinkError> {
        let Some(received) = self.link.receive(&mut self.assembly, false)? else {
            return Ok(None);
        };
        Ok(Some((
            SessionToNet::from_wire(&received.content)?,
            received.descriptors,
        )))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use agent_helper::frame::Program;
    use agent_helper::link;

    fn links() -> (HelperQueue, Link) {
        let (ours, theirs) = link::pair().unwrap();
        (HelperQueue::new(Link::new(ours)), Link::new(theirs))
    }

    fn long_command(session: u32) -> NetToSession {
        NetToSession::Start {
            session,
            program: Program::Command {
                line: vec![b'x'; 200_000].into(),
            },
            environment: Vec::new(),
        }
    }

    #[test]
    fn frames_of_many_datagrams_survive_a_full_socket() {
        let (mut queue, helper) = links();
        for session in 0..10 {
            queue.send(&long_command(session)).unwrap();
        }
        assert!(queue.is_waiting());
        let mut assembly = Assembly::default();
        for session in 0..10 {
            let received = loop {
                if let Some(received) = helper.receive(&mut assembly, false).unwrap() {
                    break received;
                }
                queue.flush().unwrap();
            };
            assert_eq!(
                NetToSession::from_wire(&received.content).unwrap(),
                long_command(session)
            );
        }
        queue.flush().unwrap();
        assert!(!queue.is_waiting());
    }

    #[test]
    fn a_helper_that_is_gone_shows() {
        let (mut queue, helper) = links();
        drop(helper);
        assert_eq!(queue.receive().unwrap_err(), LinkError::Closed);
        assert_eq!(
            queue.send(&NetToSession::Close { session: 1 }).unwrap_err(),
            LinkError::Closed
        );
    }
}
