//! The end of a connection as its peer sees it: what is left to say goes out, for a bounded time.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Connection;
use crate::limits::{LAST_WORDS_MS, LINGER_MS};
use crate::net::client::ClientSocket;

impl Connection<'_> {
    /// Sends what is left to say, for a bounded time.
    #[inline(never)]
    pub(super) fn last_words(&mut self) {
        let until = Instant::now() + Duration::from_millis(LAST_WORDS_MS.into());
        let had_words = !self.core.outbox().is_empty();
        while !self.core.outbox().is_empty() {
            match self.client.write(self.core.outbox()) {
                Ok(len) => self.core.sent(len),
                Err(Errno::AGAIN) => {
                    if !wait_for(&self.client, PollFlags::OUT, until) {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
        if had_words {
            linger(&self.client);
        }
    }
}

pub(super) fn refuse(client: &ClientSocket, text: &[u8]) {
    if !text.is_empty() && client.write(text).is_ok() {
        linger(client);
    }
}

/// Waits a moment for the peer to end its side: closing with unread bytes would reset the
/// connection and could destroy the last message on its way.
fn linger(client: &ClientSocket) {
    client.end_output();
    let until = Instant::now() + Duration::from_millis(LINGER_MS.into());
    let mut discarded = [0; 1024];
    while wait_for(client, PollFlags::IN, until) {
        match client.read(&mut discarded) {
            Ok(0) => return,
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(_) => return,
        }
    }
}

/// Waits for the peer's socket; false when `until` has come.
fn wait_for(client: &ClientSocket, what: PollFlags, until: Instant) -> bool {
    let Some(rest) = until.checked_duration_since(Instant::now()) else {
        return false;
    };
    let Ok(timeout) = Timespec::try_from(rest) else {
        return false;
    };
    let descriptor = if what == PollFlags::IN {
        client.input()
    } else {
        client.output()
    };
    let mut set = [PollFd::from_borrowed_fd(descriptor, what)];
    match poll(&mut set, Some(&timeout)) {
        Ok(ready) => ready > 0,
        Err(Errno::INTR) => true,
        Err(_) => false,
    }
}
