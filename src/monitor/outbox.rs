//! Sending without waiting: frames that a link's queue has no room for wait here, bounded.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use agent_helper::link::{Link, LinkError};
use rustix::io::Errno;
use zeroize::Zeroizing;

use crate::limits::{OUTBOX_FRAMES_MAX, OUTBOX_MAX_BYTES};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Frame>,
    bytes: usize,
}

#[derive(Debug)]
struct Frame {
    number: u32,
    content: Zeroizing<Vec<u8>>,
    offset: usize,
    descriptors: Vec<OwnedFd>,
}

impl Outbox {
    /// Sends a frame, or keeps what the queue has no room for.
    ///
    /// # Errors
    ///
    /// The link is gone, or more waits than ever should: the process behind it is to be ended.
    pub(super) fn send(
        &mut self,
        link: &Link,
        number: u32,
        content: Vec<u8>,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), LinkError> {
        // The keys of a connection that is handed over pass through here.
        let content = Zeroizing::new(content);
        let mut offset = 0;
        if self.waiting.is_empty() {
            offset = push(link, number, &content, 0, descriptors)?;
            if offset >= content.len().max(1) {
                return Ok(());
            }
        }
        if self.waiting.len() >= OUTBOX_FRAMES_MAX || self.bytes + content.len() > OUTBOX_MAX_BYTES
        {
            return Err(LinkError::Protocol("it does not take its frames"));
        }
        let descriptors = match offset {
            0 => descriptors
                .iter()
                .map(|descriptor| descriptor.try_clone_to_owned())
                .collect::<Result<_, _>>()
                .map_err(|_| LinkError::System(Errno::MFILE))?,
            _ => Vec::new(),
        };
        self.bytes += content.len();
        self.waiting.push_back(Frame {
            number,
            content,
            offset,
            descriptors,
        });
        Ok(())
    }

    /// How much waits.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Goes on after the link had room again.
    pub(super) fn flush(&mut self, link: &Link) -> Result<(), LinkError> {
        while let Some(frame) = self.waiting.front_mut() {
            let descriptors: Vec<_> = frame.descriptors.iter().map(AsFd::as_fd).collect();
            frame.offset = push(
                link,
                frame.number,
                &frame.content,
                frame.offset,
                &descriptors,
            )?;
            if frame.offset < frame.content.len().max(1) {
                return Ok(());
            }
            self.bytes -= frame.content.len();
            self.waiting.pop_front();
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// Sends pieces from `offset` on; gives where it stopped.
fn push(
    link: &Link,
    number: u32,
    content: &[u8],
    mut offset: usize,
    descriptors: &[BorrowedFd<'_>],
) -> Result<usize, LinkError> {
    loop {
        match link.send_piece(number, content, offset, descriptors, false) {
            Ok(end) if end >= content.len() => return Ok(end.max(1)),
            Ok(end) => offset = end,
            Err(LinkError::System(Errno::AGAIN)) => return Ok(offset),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use agent_helper::link::{self, Assembly};

    fn links() -> (Link, Link) {
        let (a, b) = link::pair().unwrap();
        (Link::new(a), Link::new(b))
    }

    #[test]
    fn frames_wait_in_order_and_arrive_whole() {
        let (ours, theirs) = links();
        let mut outbox = Outbox::default();
        let (pipe, _writer) = rustix::pipe::pipe().unwrap();
        let mut sent = 0_u32;
        while outbox.is_empty() || !sent.is_multiple_of(7) {
            let content = vec![u8::try_from(sent % 256).unwrap(); 100_000];
            outbox.send(&ours, sent, content, &[pipe.as_fd()]).unwrap();
            sent += 1;
        }
        let mut assembly = Assembly::default();
        let mut next = 0;
        while next < sent {
            match theirs.receive(&mut assembly, false).unwrap() {
                Some(received) => {
                    assert_eq!(received.connection, next);
                    assert_eq!(received.content.len(), 100_000);
                    assert!(
                        received
                            .content
                            .iter()
                            .all(|byte| u32::from(*byte) == next % 256)
                    );
                    assert_eq!(received.descriptors.len(), 1);
                    next += 1;
                }
                None => outbox.flush(&ours).unwrap(),
            }
        }
        assert!(outbox.is_empty());
        assert_eq!(outbox.bytes, 0);
    }

    #[test]
    fn a_reader_that_never_reads_is_found_out() {
        let (ours, _theirs) = links();
        let mut outbox = Outbox::default();
        let error = (0..100_000)
            .find_map(|_| outbox.send(&ours, 1, vec![0; 1000], &[]).err())
            .unwrap();
        assert!(matches!(error, LinkError::Protocol(_)));
        assert!(outbox.bytes <= OUTBOX_MAX_BYTES);
    }
}
