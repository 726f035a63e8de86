//! From the socket to payloads: the inbox, packet boundaries, opening in place, decompression.
//!
//! Memory follows the bytes that came, never the length that a packet claims.

use std::ops::Range;

use super::buffer::Buffer;
use super::compression::{Delayed, Inflater};
use super::crypto::cipher::Opener;
use super::error::ProtocolError;
use super::ident;
use super::packet::{self, Alignment, LENGTH_BYTES};
use crate::limits;

/// An opened packet at the front of the inbox; it leaves with the next call.
#[derive(Debug, Clone)]
pub(super) struct Packet {
    /// Where the payload is in [`Incoming::bytes`].
    pub(super) payload: Range<usize>,
    /// Its sequence number.
    pub(super) sequence: u32,
}

#[derive(Debug)]
pub(super) struct Incoming {
    buffer: Buffer,
    opener: Opener,
    compression: Delayed<Inflater>,
    sequence: u32,
    /// The packet_length at the front, once known: the opener must see a head once only.
    length: Option<usize>,
    /// Bytes of the packet or line that was handed out last.
    current: usize,
    wipe_current: bool,
    /// Largest packet, without its tag.
    ceiling: usize,
    bytes_since_keys: u64,
    packets_since_keys: u64,
    /// What one read should have room for; grows while reads come back full.
    read_bytes: usize,
    offered: usize,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self::with(Opener::none(), 0, &[])
    }

    /// Goes on after a hand-over: `unread` are bytes not yet handled.
    pub(super) fn with(opener: Opener, sequence: u32, unread: &[u8]) -> Self {
        let mut incoming = Self {
            buffer: Buffer::default(),
            opener,
            compression: Delayed::default(),
            sequence,
            length: None,
            current: 0,
            wipe_current: false,
            ceiling: limits::PACKET_BYTES_BEFORE_AUTHENTICATION,
            bytes_since_keys: 0,
            packets_since_keys: 0,
            read_bytes: limits::INBOX_FIRST_BYTES,
            offered: 0,
        };
        if let Some(room) = incoming.buffer.room(unread.len()).get_mut(..unread.len()) {
            room.copy_from_slice(unread);
            incoming.buffer.commit(unread.len());
        }
        incoming
    }

    /// Whether less waits to be handled than may.
    pub(super) fn has_room(&self) -> bool {
        self.buffer.len() < self.wanted().max(self.queue_max())
    }

    /// Room for the next read; empty where enough waits to be handled.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if !self.has_room() {
            self.offered = 0;
            return &mut [];
        }
        let wanted = self.wanted();
        let queued = self.buffer.len();
        // A claimed length opens room only as fast as bytes come.
        let missing = wanted
            .saturating_sub(queued)
            .min(queued.max(limits::INBOX_FIRST_BYTES));
        let room = self.buffer.room(missing.max(self.read_bytes / 2));
        self.offered = room.len();
        room
    }

    /// `len` bytes were read into [`Self::room`].
    pub(super) fn received(&mut self, len: usize) {
        self.buffer.commit(len.min(self.offered));
        if len >= self.offered {
            self.read_bytes = (self.read_bytes * 2).min(self.queue_max());
        }
    }

    /// Where a packet's payload, or the line, is a range of.
    pub(super) fn bytes(&self) -> &[u8] {
        match self.compression.stream() {
            Some(inflater) => inflater.bytes(),
            None => self.buffer.filled(),
        }
    }

    /// Takes the client's identification line, before any packet.
    pub(super) fn next_line(&mut self) -> Result<Option<Range<usize>>, ProtocolError> {
        let Some((whole, line)) = ident::parse(self.buffer.filled())? else {
            return Ok(None);
        };
        self.current = whole;
        Ok(Some(0..line.len()))
    }

    /// Drops the packet handed out last and takes the next one.
    pub(super) fn next_packet(&mut self) -> Result<Option<Packet>, ProtocolError> {
        self.drop_current();
        let Some(length) = self.packet_length()? else {
            return Ok(None);
        };
        let whole = self.whole(length);
        if self.buffer.len() < whole {
            return Ok(None);
        }
        let (packet, rest) = self.buffer.filled_mut().split_at_mut(LENGTH_BYTES + length);
        let tag = rest.get(..self.opener.tag_bytes()).unwrap_or_default();
        self.opener
            .open(self.sequence, packet, tag)
            .map_err(|_| ProtocolError::BadTag)?;
        let mut payload = packet::payload(packet)?;
        if let Some(inflater) = self.compression.stream_mut() {
            payload = 0..inflater.inflate(packet.get(payload).unwrap_or_default())?;
        }
        let sequence = self.count(whole)?;
        self.current = whole;
        self.length = None;
        Ok(Some(Packet { payload, sequence }))
    }

    /// The packet handed out last held something secret: overwrite it when it leaves.
    pub(super) fn wipe_current(&mut self) {
        self.wipe_current = true;
    }

    /// New keys, from the packet after the current one on.
    pub(super) fn install(&mut self, opener: Opener, compressed: bool, reset_sequence: bool) {
        self.opener = opener;
        self.compression.new_keys(compressed);
        self.bytes_since_keys = 0;
        self.packets_since_keys = 0;
        if reset_sequence {
            self.sequence = 0;
        }
    }

    /// After authentication the larger ceiling holds, and compression begins where agreed on.
    pub(super) fn authenticated(&mut self, compressed: bool) {
        self.ceiling = limits::PACKET_BYTES;
        self.compression.authenticated(compressed);
    }

    pub(super) fn sequence(&self) -> u32 {
        self.sequence
    }

    pub(super) fn since_keys(&self) -> (u64, u64) {
        (self.bytes_since_keys, self.packets_since_keys)
    }

    pub(super) fn set_since_keys(&mut self, (bytes, packets): (u64, u64)) {
        self.bytes_since_keys = bytes;
        self.packets_since_keys = packets;
    }

    /// What a hand-over takes along: the cipher's state and the bytes not handled; `None` in the
    /// middle of a packet.
    pub(super) fn rest(&mut self) -> Option<(&Opener, &[u8])> {
        self.drop_current();
        if self.length.is_some() {
            return None;
        }
        Some((&self.opener, self.buffer.filled()))
    }

    /// Gives memory back where it holds nothing.
    pub(super) fn release(&mut self) {
        self.drop_current();
        self.buffer.release();
        if let Some(inflater) = self.compression.stream_mut() {
            inflater.release();
        }
        self.read_bytes = limits::INBOX_FIRST_BYTES;
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let inflated = self.compression.stream().map_or(0, Inflater::memory_bytes);
        self.buffer.capacity() + inflated
    }

    /// The whole packet at the front, as far as its length is known.
    fn wanted(&self) -> usize {
        self.length.map_or(0, |length| self.whole(length))
    }

    /// Bytes that may wait to be handled, and the largest read. Strangers get little.
    fn queue_max(&self) -> usize {
        self.ceiling.min(limits::INBOX_BYTES)
    }

    fn drop_current(&mut self) {
        let current = std::mem::take(&mut self.current);
        if std::mem::take(&mut self.wipe_current) {
            self.buffer.consume_and_wipe(current);
        } else {
            self.buffer.consume(current);
        }
        // One huge packet must not leave its memory behind.
        if self.buffer.capacity() > 2 * limits::INBOX_BYTES {
            self.buffer.release();
        }
    }

    fn whole(&self, length: usize) -> usize {
        LENGTH_BYTES + length + self.opener.tag_bytes()
    }

    fn packet_length(&mut self) -> Result<Option<usize>, ProtocolError> {
        if self.length.is_some() {
            return Ok(self.length);
        }
        let Some(head) = self.buffer.filled_mut().get_mut(..self.opener.head_bytes()) else {
            return Ok(None);
        };
        let claimed = self.opener.packet_length(self.sequence, head);
        let alignment = Alignment {
            block_bytes: self.opener.block_bytes(),
            length_is_padded: self.opener.length_is_padded(),
        };
        match packet::check_length(claimed, alignment, self.ceiling) {
            Ok(length) => {
                self.length = Some(length);
                Ok(self.length)
            }
            // With encrypt-and-MAC the length is decrypted before anything is authenticated: in
            // words and code a bad one is a bad tag. It ends the connection at once, since with a
            // counter cipher there is nothing to learn from when it does (unlike with CBC), and a
            // peer that waits for an answer would hold the connection.
            Err(_) if alignment.length_is_padded && self.opener.tag_bytes() > 0 => {
                Err(ProtocolError::BadTag)
            }
            Err(error) => Err(error),
        }
    }

    /// Counts a packet and gives its sequence number.
    fn count(&mut self, bytes: usize) -> Result<u32, ProtocolError> {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        self.bytes_since_keys = self.bytes_since_keys.saturating_add(bytes as u64);
        self.packets_since_keys = self.packets_since_keys.saturating_add(1);
        // No sequence number twice under one key; keys that old mean that the peer ignores our KEXINIT.
        if self.packets_since_keys > u64::from(u32::MAX) {
            return Err(ProtocolError::SequenceWrapped);
        }
        Ok(sequence)
    }
}
