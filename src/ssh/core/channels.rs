//! Channels as the driver answers and fills them (RFC 4254 sections 5 and 6).

use core::time::Duration;

use super::Core;
use crate::limits;
use crate::ssh::channel::Ends;
use crate::ssh::connection::{Connection, Service};
use crate::ssh::event::{ChannelId, Stream};
use crate::ssh::message;
use crate::ssh::wire::Writer;

/// The packet being built between [`Core::send_slot`] and [`Core::send_commit`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    channel: u32,
    stream: Stream,
    room: usize,
}

impl Core {
    /// Confirms a channel with our initial window and maximum packet, in bytes.
    pub fn open_confirm(&mut self, channel: ChannelId, window: u32, max_packet: u32) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if !found.is_asked() {
            return;
        }
        found.confirm(window, max_packet);
        let peer = found.peer;
        self.message(message::CHANNEL_OPEN_CONFIRMATION, |fields| {
            fields.put_u32(peer);
            fields.put_u32(channel.0);
            fields.put_u32(window);
            fields.put_u32(max_packet);
        });
    }

    /// Refuses a channel (RFC 4254 section 5.1 codes).
    pub fn open_fail(&mut self, channel: ChannelId, code: u32, message: &str) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if !found.is_asked() {
            return;
        }
        let peer = found.peer;
        self.connection.channels.remove(channel.0);
        if self.begin_sending() {
            self.connection.open_failure(peer, code, message);
            self.end_sending();
        }
    }

    /// Whether [`Core::offer`] would find a number.
    pub fn can_offer(&self) -> bool {
        self.is_live()
            && self.connection.service == Service::Open
            && self.connection.channels.has_room()
    }

    /// Opens a channel of type `kind` to the client, with our initial window and maximum packet in
    /// bytes; `extra` are the fields behind those. [`Event::ChannelOpened`] or
    /// [`Event::ChannelRefused`] follows, if the client answers. `None`: there are too many.
    pub fn offer(
        &mut self,
        kind: &[u8],
        window: u32,
        max_packet: u32,
        extra: &[u8],
    ) -> Option<ChannelId> {
        if self.connection.service != Service::Open || !self.begin_sending() {
            return None;
        }
        let number = self.connection.channels.offer(window, max_packet)?;
        self.message(message::CHANNEL_OPEN, |fields| {
            fields.put_string(kind);
            fields.put_u32(number);
            fields.put_u32(window);
            fields.put_u32(max_packet);
            fields.put_bytes(extra);
        });
        Some(ChannelId(number))
    }

    /// Answers the oldest unanswered request of the channel that wants a reply.
    pub fn reply(&mut self, channel: ChannelId, success: bool) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if !found.take_reply() {
            return;
        }
        let peer = found.peer;
        let number = if success {
            message::CHANNEL_SUCCESS
        } else {
            message::CHANNEL_FAILURE
        };
        self.message(number, |fields| fields.put_u32(peer));
    }

    /// `len` bytes of the channel's data went to the program: the window may open again.
    pub fn consumed(&mut self, channel: ChannelId, len: u32) {
        if let Some(found) = self.connection.channels.find(channel.0) {
            found.consumed(len);
        }
        if self.begin_sending() {
            self.connection.adjust(channel.0);
        }
    }

    /// Whether data passed through the channel, either way, since the last call.
    pub fn take_moved(&mut self, channel: ChannelId) -> bool {
        let channels = &mut self.connection.channels;
        channels.find(channel.0).is_some_and(|it| it.take_moved())
    }

    /// Keeps the way to the client free for who types, whatever other channels have to send. `now`
    /// is the time since any fixed moment; gives when to call this again, on the same clock, if it
    /// holds data back that the windows would let through.
    pub fn share(&mut self, now: Duration) -> Option<Duration> {
        self.connection.channels.share(now)
    }

    /// How many packets of the channel's data to send at most before looking at what else there is.
    pub fn packets_per_turn(&self, channel: ChannelId) -> usize {
        match self.connection.channels.live(channel.0) {
            Some(channel) if channel.shares() => 1,
            _ => limits::PACKETS_PER_TURN,
        }
    }

    /// How many bytes [`Core::send_slot`] would take now: limited by the peer's window and packet
    /// size, by the outbox, and 0 while keys change.
    pub fn send_room(&self, channel: ChannelId) -> usize {
        let Connection {
            outgoing,
            channels,
            service,
            ..
        } = &self.connection;
        if !self.is_live()
            || *service != Service::Open
            || outgoing.is_holding()
            || self.connection.exchanges.blocks_input()
            || outgoing.waiting() >= limits::OUTBOX_DATA_BYTES
        {
            return 0;
        }
        channels
            .live(channel.0)
            .map_or(0, |channel| channel.send_bytes())
    }

    /// Room for data inside the packet being built, to be filled by read(2) and closed by
    /// [`Core::send_commit`], with no other call in between; `None` where [`Core::send_room`] is 0.
    pub fn send_slot(&mut self, channel: ChannelId, stream: Stream) -> Option<&mut [u8]> {
        let room = self.send_room(channel);
        if room == 0 {
            return None;
        }
        self.slot = Some(Slot {
            channel: channel.0,
            stream,
            room,
        });
        self.connection.outgoing.slot(stream.head_bytes(), room)
    }

    /// Sends the first `len` bytes of the slot as one message; 0 takes the slot back.
    pub fn send_commit(&mut self, len: usize) {
        let Some(slot) = self.slot.take() else { return };
        let len = len.min(slot.room);
        let Some(channel) = self.connection.channels.find(slot.channel) else {
            return;
        };
        if len == 0 {
            return;
        }
        channel.take_send_window(len);
        let (head, head_bytes) = slot.stream.head(channel.peer, len);
        if let Some(head) = head.get(..head_bytes) {
            self.connection.outgoing.commit_slot(head, len);
        }
    }

    /// Sends SSH_MSG_CHANNEL_EOF, once.
    pub fn send_eof(&mut self, channel: ChannelId) {
        self.send_end(channel, Ends::Eof, message::CHANNEL_EOF);
    }

    /// Sends SSH_MSG_CHANNEL_CLOSE, once. The number is free once the client's came too.
    pub fn send_close(&mut self, channel: ChannelId) {
        self.send_end(channel, Ends::Close, message::CHANNEL_CLOSE);
        let channels = &mut self.connection.channels;
        if channels
            .find(channel.0)
            .is_some_and(|found| found.is_over())
        {
            channels.remove(channel.0);
        }
    }

    /// Sends a channel request of ours, without wish for a reply unless said. None goes out behind
    /// SSH_MSG_CHANNEL_CLOSE.
    pub fn send_request(
        &mut self,
        channel: ChannelId,
        kind: &[u8],
        want_reply: bool,
        extra: &[u8],
    ) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if !found.is_confirmed() || found.sent == Ends::Close {
            return;
        }
        let peer = found.peer;
        self.message(message::CHANNEL_REQUEST, |fields| {
            fields.put_u32(peer);
            fields.put_string(kind);
            fields.put_boolean(want_reply);
            fields.put_bytes(extra);
        });
    }

    fn send_end(&mut self, channel: ChannelId, end: Ends, number: u8) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if found.send_end(end) {
            let peer = found.peer;
            self.message(number, |fields| fields.put_u32(peer));
        }
    }
}

impl Stream {
    /// Bytes of the fixed fields of a data message.
    fn head_bytes(self) -> usize {
        match self {
            Self::Data => 9,
            Self::Stderr => 13,
        }
    }

    /// The fixed fields of a data message, and how many bytes of them count.
    fn head(self, peer: u32, len: usize) -> ([u8; 13], usize) {
        const SSH_EXTENDED_DATA_STDERR: u32 = 1;
        let mut head = [0; 13];
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let (number, fields) = match self {
            Self::Data => (message::CHANNEL_DATA, [peer, len, 0]),
            Self::Stderr => (
                message::CHANNEL_EXTENDED_DATA,
                [peer, SSH_EXTENDED_DATA_STDERR, len],
            ),
        };
        if let Some((first, rest)) = head.split_first_mut() {
            *first = number;
            for (place, field) in rest.chunks_exact_mut(4).zip(fields) {
                place.copy_from_slice(&field.to_be_bytes());
            }
        }
        (head, self.head_bytes())
    }
}
