//! One stream socket and one channel: what the client sends goes out, what comes in goes to it.
//!
//! Each direction ends by itself, as far as both sides can say so: EOF of the client shuts the
//! socket's writing side down once all before is written, the end of what the socket gives is EOF
//! to the client, and CLOSE follows both. Data that came before a CLOSE of the client is delivered.

use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{Shutdown, shutdown};

use super::streams::{Pending, pump, write};
use crate::ssh::{ChannelId, Core, Stream};

/// A socket on its channel.
#[derive(Debug)]
pub(super) struct Relay {
    /// As ChannelTimeout names it.
    kind: &'static [u8],
    /// Gone when both directions are over.
    socket: Option<OwnedFd>,
    /// What the socket did not take yet; the channel's window bounds it.
    pending: Pending,
    /// The socket still takes bytes.
    writing: bool,
    /// The socket may still give bytes, and the client wants them.
    reading: bool,
    /// There is something to read.
    ready: bool,
    /// The client sends no more.
    client_ended: bool,
    eof_sent: bool,
    close_sent: bool,
    close_received: bool,
}

impl Relay {
    pub(super) fn new(socket: OwnedFd, kind: &'static [u8]) -> Self {
        Self {
            kind,
            socket: Some(socket),
            pending: Pending::default(),
            writing: true,
            reading: true,
            ready: false,
            client_ended: false,
            eof_sent: false,
            close_sent: false,
            close_received: false,
        }
    }

    /// Data of the client. Gives how many bytes are done with; the others wait.
    pub(super) fn client_data(&mut self, data: &[u8]) -> usize {
        let Some(socket) = self.socket.as_ref().filter(|_| self.writing) else {
            // Nobody takes it any more; the client learns so by CLOSE.
            return data.len();
        };
        let written = if self.pending.is_empty() {
            write(socket, data)
        } else {
            Ok(0)
        };
        match written {
            Ok(written) => {
                self.pending.push(data.get(written..).unwrap_or_default());
                written
            }
            Err(_) => self.stop_writing() + data.len(),
        }
    }

    /// SSH_MSG_CHANNEL_EOF.
    pub(super) fn client_eof(&mut self) {
        self.client_ended = true;
    }

    /// SSH_MSG_CHANNEL_CLOSE: the client takes nothing more either.
    pub(super) fn client_close(&mut self) {
        self.client_ended = true;
        self.close_received = true;
        self.reading = false;
    }

    /// Writes what waits; gives how many bytes are done with.
    pub(super) fn flush(&mut self) -> usize {
        let Some(socket) = self.socket.as_ref().filter(|_| self.writing) else {
            return 0;
        };
        let mut total = 0;
        while !self.pending.is_empty() {
            match write(socket, self.pending.bytes()) {
                Ok(0) => break,
                Ok(written) => {
                    self.pending.take(written);
                    total += written;
                }
                Err(_) => return total + self.stop_writing(),
            }
        }
        total
    }

    /// The poll set said that there is something to read, or the end.
    pub(super) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Reads into packets of `channel`, as far as there is room.
    pub(super) fn pump(&mut self, core: &mut Core, channel: ChannelId) {
        if self.reading && self.ready {
            let ended = pump(
                core,
                channel,
                Stream::Data,
                &self.socket,
                &mut self.ready,
                (false, &mut |_| {}),
            );
            if ended {
                self.reading = false;
            }
        }
    }

    /// Ends what is over, after anything changed.
    pub(super) fn settle(&mut self, core: &mut Core, channel: ChannelId) {
        if self.writing && self.client_ended && self.pending.is_empty() {
            self.writing = false;
            if let Some(socket) = &self.socket {
                // It may be gone already.
                let _ = shutdown(socket, Shutdown::Write);
            }
        }
        if !self.reading && !self.eof_sent && !self.close_received {
            self.eof_sent = true;
            core.send_eof(channel);
        }
        if !self.reading && !self.writing && !self.close_sent {
            self.close_sent = true;
            self.socket = None;
            core.send_close(channel);
        }
    }

    /// As ChannelTimeout names it.
    pub(super) fn kind(&self) -> &'static [u8] {
        self.kind
    }

    /// Ends both directions at once.
    pub(super) fn abandon(&mut self, core: &mut Core, channel: ChannelId) {
        self.stop_writing();
        self.reading = false;
        self.settle(core, channel);
    }

    /// The channel is closed on both sides.
    pub(super) fn is_gone(&self) -> bool {
        self.close_sent && self.close_received
    }

    /// The socket, with what to wait for; `room`: the client takes more.
    pub(super) fn poll(&self, room: bool) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.reading && room);
        flags.set(PollFlags::OUT, self.writing && !self.pending.is_empty());
        // Without interest not even a hang-up may wake us: it would again and again.
        let socket = self.socket.as_ref().filter(|_| !flags.is_empty())?;
        Some((socket.as_fd(), flags))
    }

    /// Gives how many bytes waited.
    fn stop_writing(&mut self) -> usize {
        let waiting = self.pending.bytes().len();
        self.pending = Pending::default();
        self.writing = false;
        waiting
    }
}
