//! Having key files read: the helper's child opens them as the user, the monitor gets bytes.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use agent_helper::frame::MonitorToHelper;
use agent_helper::wire::Bytes;
use rustix::fs::OFlags;
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Monitor;
use super::connection::{Attempt, Connection, Phase, Step};
use super::ids::ConnectionKey;
use super::keys::{KeySearch, Progress};
use super::poller::Source;
use super::timers::Deadline;
use crate::account::Account;
use crate::limits::{KEY_CHUNK_BYTES, KEY_FILE_MAX_BYTES, KEY_READ_TIME_MS, KEY_READERS_MAX};

/// Who reads, and who waits for it.
#[derive(Debug, Default)]
pub(super) struct Readers {
    active: usize,
    waiting: VecDeque<(ConnectionKey, Box<KeySearch>)>,
}

/// Turns of one pipe before others are looked at.
const CHUNKS_PER_TURN: usize = 16;

impl Monitor {
    /// Starts to read, or queues: each connection has one request at a time, so the queue is bounded.
    pub(super) fn read_keys(&mut self, key: ConnectionKey, search: KeySearch) {
        if self.readers.active >= KEY_READERS_MAX {
            self.readers.waiting.push_back((key, Box::new(search)));
            return;
        }
        if let Err(error) = self.start_reading(key, search) {
            log::error!("key files could not be read: {error}");
            self.refuse_request(key, true);
        }
    }

    fn start_reading(&mut self, key: ConnectionKey, search: KeySearch) -> std::io::Result<()> {
        let Some(connection) = self.connections.get_mut(&key) else {
            return Ok(());
        };
        let Phase::Authenticating(attempt) = &mut connection.phase else {
            return Ok(());
        };
        let Some(helper) = connection.helper.as_mut() else {
            return Err(std::io::Error::other("the helper is gone"));
        };
        let (pipe, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // Ours only: the reader at the other end should wait for room, not fail.
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        let frame = MonitorToHelper::ReadKeys {
            identity: attempt.account.identity(attempt.groups.clone()),
            change_identity: self.host.as_root,
            files: key_files(attempt),
            strict_modes: attempt.options.strict_modes,
            limit_bytes: KEY_FILE_MAX_BYTES,
        };
        helper
            .send(&self.poller, key, &frame, &[writer.as_fd()])
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        drop(writer);
        self.poller.add(&pipe, Source::Keys(key))?;
        let time = Duration::from_millis(KEY_READ_TIME_MS);
        let timer = self.timers.after(time, Deadline::KeyReading(key));
        if let Some(pending) = attempt.pending.as_mut() {
            pending.step = Step::Reading {
                search: Box::new(search),
                pipe,
                timer,
            };
            self.readers.active += 1;
        }
        Ok(())
    }

    /// Bytes of a key reader, or its end.
    pub(super) fn keys_ready(&mut self, key: ConnectionKey) {
        let mut buffer = std::mem::take(&mut self.key_buffer);
        buffer.resize(KEY_CHUNK_BYTES, 0);
        let ended = self.pull_keys(key, &mut buffer);
        self.key_buffer = buffer;
        match ended {
            None => {}
            Some(Ok(())) => self.reading_done(key),
            Some(Err(why)) => self.keys_unreadable(key, why),
        }
    }

    /// The reader's time is over. On a busy machine it may have been done in time and this process
    /// late: what is there counts.
    pub(super) fn keys_late(&mut self, key: ConnectionKey) {
        self.keys_ready(key);
        let attempt = self.connections.get_mut(&key).and_then(Connection::attempt);
        let pending = attempt.and_then(|attempt| attempt.pending.as_ref());
        if pending.is_some_and(|pending| matches!(pending.step, Step::Reading { .. })) {
            self.keys_unreadable(key, "it took too long");
        }
    }

    fn pull_keys(
        &mut self,
        key: ConnectionKey,
        buffer: &mut [u8],
    ) -> Option<Result<(), &'static str>> {
        let attempt = self.connections.get_mut(&key)?.attempt()?;
        let Step::Reading { search, pipe, .. } = &mut attempt.pending.as_mut()?.step else {
            return None;
        };
        for _ in 0..CHUNKS_PER_TURN {
            match read(&*pipe, &mut *buffer) {
                Ok(0) => return Some(Err("the key reader stopped early")),
                Ok(len) => match search.push(buffer.get(..len).unwrap_or(&[])) {
                    Progress::More => {}
                    Progress::Done => return Some(Ok(())),
                    Progress::Broken(why) => return Some(Err(why)),
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => return Some(Err("the key reader's pipe failed")),
            }
        }
        None
    }

    /// Nothing was read, or not to its end: no key was found.
    pub(super) fn keys_unreadable(&mut self, key: ConnectionKey, why: &str) {
        if let Some(connection) = self.connections.get(&key) {
            log::warn!(
                "the key files for {} were not read: {why}",
                connection.place()
            );
        }
        if self.take_search(key).is_some() || self.forget_waiting(key) {
            self.keys_read(key, None, &[]);
        }
        self.start_waiting();
    }

    fn reading_done(&mut self, key: ConnectionKey) {
        if let Some(search) = self.take_search(key) {
            let (found, reports) = search.finish();
            self.keys_read(key, found, &reports);
        }
        self.start_waiting();
    }

    /// Ends the reading of a connection that ends.
    pub(super) fn stop_reading(&mut self, key: ConnectionKey) {
        if self.take_search(key).is_none() {
            self.forget_waiting(key);
        }
        self.start_waiting();
    }

    fn take_search(&mut self, key: ConnectionKey) -> Option<KeySearch> {
        let attempt = self.connections.get_mut(&key)?.attempt()?;
        let pending = attempt.pending.as_mut()?;
        match std::mem::replace(&mut pending.step, Step::Queued) {
            Step::Reading {
                search,
                pipe,
                timer,
            } => {
                self.timers.cancel(Some(timer));
                self.poller.remove(&pipe);
                self.readers.active = self.readers.active.saturating_sub(1);
                Some(*search)
            }
            other => {
                pending.step = other;
                None
            }
        }
    }

    fn forget_waiting(&mut self, key: ConnectionKey) -> bool {
        let before = self.readers.waiting.len();
        self.readers.waiting.retain(|(waiting, _)| *waiting != key);
        before != self.readers.waiting.len()
    }

    fn start_waiting(&mut self) {
        while self.readers.active < KEY_READERS_MAX {
            let Some((key, search)) = self.readers.waiting.pop_front() else {
                return;
            };
            self.read_keys(key, *search);
        }
    }
}

/// AuthorizedKeysFile with its tokens, below the home directory where relative.
fn key_files(attempt: &Attempt) -> Vec<Bytes> {
    attempt
        .options
        .authorized_keys_files
        .iter()
        .filter(|pattern| *pattern != "none")
        .map(|pattern| {
            let path = expand(pattern, &attempt.account);
            if path.starts_with(b"/") {
                path.into()
            } else {
                [attempt.account.home.as_slice(), b"/", &path]
                    .concat()
                    .into()
            }
        })
        .collect()
}

/// The tokens that OpenSSH knows for paths: %% %h %u %U.
pub(super) fn expand(pattern: &str, account: &Account) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = pattern.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'h') => out.extend_from_slice(&account.home),
            Some(b'u') => out.extend_from_slice(&account.name),
            Some(b'U') => out.extend_from_slice(account.uid.to_string().as_bytes()),
            Some(other) => out.push(other),
            None => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_become_the_accounts_values() {
        let mut account = Account::decoy(7);
        account.home = b"/home/a".to_vec();
        assert_eq!(expand("%h/.ssh/keys", &account), b"/home/a/.ssh/keys");
        assert_eq!(
            expand("/etc/keys/%u-%U", &account),
            b"/etc/keys/nobody-here-7"
        );
        assert_eq!(expand("100%%", &account), b"100%");
    }
}
