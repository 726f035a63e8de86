//! Having key files read and commands run: the helper's child does it with the rights of the user
//! or of the command's, the monitor gets bytes.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::Duration;

use agent_helper::frame::MonitorToHelper;
use rustix::fs::OFlags;
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};

use super::Monitor;
use super::connection::{Connection, Phase, Step};
use super::ids::ConnectionKey;
use super::key_lines::Findings;
use super::keys::{KeySearch, Progress};
use super::poller::Source;
use super::timers::Deadline;
use crate::account::Account;
use crate::limits::{
    KEY_CHUNK_BYTES, KEY_COMMAND_TIME_MS, KEY_COMMANDS_MAX, KEY_READ_TIME_MS, KEY_READERS_MAX,
};

/// What the helper is asked for, and who looks at what comes.
#[derive(Debug)]
pub(super) struct Reading {
    pub request: MonitorToHelper,
    pub search: Box<KeySearch>,
}

impl Reading {
    fn is_command(&self) -> bool {
        matches!(self.request, MonitorToHelper::RunCommand { .. })
    }
}

/// Who reads, and who waits for it. Commands may be slow, and hold up no files.
#[derive(Debug, Default)]
pub(super) struct Readers {
    files: Queue,
    commands: Queue,
}

#[derive(Debug, Default)]
struct Queue {
    active: usize,
    waiting: VecDeque<(ConnectionKey, Reading)>,
}

impl Readers {
    fn queue(&mut self, is_command: bool) -> &mut Queue {
        if is_command {
            &mut self.commands
        } else {
            &mut self.files
        }
    }
}

fn active_max(is_command: bool) -> usize {
    if is_command {
        KEY_COMMANDS_MAX
    } else {
        KEY_READERS_MAX
    }
}

/// Turns of one pipe before others are looked at: what a user's lines can cost at once stays below
/// some milliseconds.
const CHUNKS_PER_TURN: usize = 4;

/// What traces call it.
const TRACED: &str = "keys are read";

impl Monitor {
    /// Starts to read, or queues: each connection has one request at a time, so the queue is bounded.
    pub(super) fn read_keys(&mut self, key: ConnectionKey, reading: Reading) {
        let is_command = reading.is_command();
        let queue = self.readers.queue(is_command);
        if queue.active >= active_max(is_command) {
            queue.waiting.push_back((key, reading));
            return;
        }
        if let Err(error) = self.start_reading(key, reading) {
            log::error!("key files could not be read: {error}");
            self.refuse_request(key, Some("keys-unreadable"));
        }
    }

    fn start_reading(&mut self, key: ConnectionKey, reading: Reading) -> std::io::Result<()> {
        let Some(connection) = self.connections.get_mut(&key) else {
            return Ok(());
        };
        let Phase::Authenticating(attempt) = &mut connection.phase else {
            return Ok(());
        };
        let Some(helper) = connection.helper.as_mut() else {
            return Err(std::io::Error::other("the helper is gone"));
        };
        let is_command = reading.is_command();
        let (pipe, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        // Ours only: the reader at the other end should wait for room, not fail.
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
        helper
            .send(&self.poller, key, &reading.request, &[writer.as_fd()])
            .map_err(|error| std::io::Error::other(error.to_string()))?;
        drop(writer);
        self.poller.add(&pipe, Source::Keys(key))?;
        let time = Duration::from_millis(if is_command {
            KEY_COMMAND_TIME_MS
        } else {
            KEY_READ_TIME_MS
        });
        let timer = self.timers.after(time, Deadline::KeyReading(key));
        if let Some(pending) = attempt.pending.as_mut() {
            pending.step = Step::Reading {
                search: reading.search,
                pipe,
                timer,
                is_command,
            };
            self.readers.queue(is_command).active += 1;
            super::trace::part(key, TRACED, if is_command { "command" } else { "file" });
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
            self.looked(key, Findings::unreadable());
        }
        self.start_waiting();
    }

    fn reading_done(&mut self, key: ConnectionKey) {
        if let Some(search) = self.take_search(key) {
            self.looked(key, search.finish());
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
                is_command,
            } => {
                super::trace::part_over(key, TRACED);
                self.timers.cancel(Some(timer));
                self.poller.remove(&pipe);
                let queue = self.readers.queue(is_command);
                queue.active = queue.active.saturating_sub(1);
                Some(*search)
            }
            other => {
                pending.step = other;
                None
            }
        }
    }

    fn forget_waiting(&mut self, key: ConnectionKey) -> bool {
        [true, false].into_iter().any(|is_command| {
            let waiting = &mut self.readers.queue(is_command).waiting;
            let before = waiting.len();
            waiting.retain(|(other, _)| *other != key);
            before != waiting.len()
        })
    }

    fn start_waiting(&mut self) {
        for is_command in [false, true] {
            while self.readers.queue(is_command).active < active_max(is_command) {
                let Some((key, reading)) = self.readers.queue(is_command).waiting.pop_front()
                else {
                    break;
                };
                self.read_keys(key, reading);
            }
        }
    }
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
