//! From payloads to the socket: building packets in the outbox, compressing and sealing them in place,
//! and holding messages back while keys change (RFC 4253 section 7.1).

use super::buffer::Buffer;
use super::compression::{Deflater, Delayed};
use super::crypto::Random;
use super::crypto::cipher::Sealer;
use super::error::ProtocolError;
use super::packet::{self, Alignment, HEADER_BYTES, LENGTH_BYTES, PADDING_MAX_BYTES};
use crate::limits;

/// Highest message number that may be sent while keys change.
const LAST_TRANSPORT_NUMBER: u8 = 49;
/// No MAC here has a longer tag.
const TAG_MAX_BYTES: usize = 64;

pub(super) struct Outgoing {
    buffer: Buffer,
    sealer: Sealer,
    compression: Delayed<Deflater>,
    sequence: u32,
    bytes_since_keys: u64,
    packets_since_keys: u64,
    padding: Padding,
    /// Where messages are put together, to be copied behind their header.
    scratch: Vec<u8>,
    /// Between our KEXINIT and our NEWKEYS.
    holding: bool,
    /// Messages held back: `u32` length, payload.
    held: Vec<u8>,
    overflowed: bool,
}

impl std::fmt::Debug for Outgoing {
    // Without the messages themselves.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outgoing")
            .field("buffer", &self.buffer)
            .field("sequence", &self.sequence)
            .field("holding", &self.holding)
            .field("held_bytes", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Outgoing {
    pub(super) fn new(random: Random) -> Self {
        Self::with(Sealer::none(), 0, &[], random)
    }

    /// Goes on after a hand-over: `unsent` are sealed bytes.
    pub(super) fn with(sealer: Sealer, sequence: u32, unsent: &[u8], random: Random) -> Self {
        let mut outgoing = Self {
            buffer: Buffer::default(),
            sealer,
            compression: Delayed::default(),
            sequence,
            bytes_since_keys: 0,
            packets_since_keys: 0,
            padding: Padding::new(random),
            scratch: Vec::new(),
            holding: false,
            held: Vec::new(),
            overflowed: false,
        };
        outgoing.put_plain(unsent);
        outgoing
    }

    /// Bytes for the socket.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.filled()
    }

    /// `len` bytes went out.
    pub(super) fn sent(&mut self, len: usize) {
        self.buffer.consume(len);
    }

    /// Bytes that wait for the socket.
    pub(super) fn waiting(&self) -> usize {
        self.buffer.len()
    }

    /// Puts bytes into the outbox that are no packet.
    pub(super) fn put_plain(&mut self, bytes: &[u8]) {
        if let Some(room) = self.buffer.room(bytes.len()).get_mut(..bytes.len()) {
            room.copy_from_slice(bytes);
            self.buffer.commit(bytes.len());
        }
    }

    /// Sends message `number` with the fields that `fields` appends, or holds it while keys change.
    pub(super) fn message(&mut self, number: u8, fields: impl FnOnce(&mut Vec<u8>)) {
        let mut payload = std::mem::take(&mut self.scratch);
        payload.clear();
        payload.push(number);
        fields(&mut payload);
        self.send(&payload);
        self.scratch = payload;
    }

    /// Sends a payload, or holds it while keys change.
    pub(super) fn send(&mut self, payload: &[u8]) {
        let may_go = payload
            .first()
            .is_some_and(|number| *number <= LAST_TRANSPORT_NUMBER);
        if self.holding && !may_go {
            self.hold(payload);
            return;
        }
        self.send_now(payload);
    }

    /// Whether more was to be held back than [`limits::HELD_BYTES`]: the connection must end.
    pub(super) fn check_held(&self) -> Result<(), ProtocolError> {
        if self.overflowed {
            return Err(ProtocolError::TooMuchPending {
                what: "messages during a key exchange",
            });
        }
        Ok(())
    }

    /// Our KEXINIT goes out: hold everything else back.
    pub(super) fn start_holding(&mut self) {
        self.holding = true;
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding
    }

    /// Our NEWKEYS went out: everything behind it is under the new keys. [`Self::stop_holding`]
    /// follows, once what must come first was sent.
    pub(super) fn install(&mut self, sealer: Sealer, compressed: bool, reset_sequence: bool) {
        self.sealer = sealer;
        self.compression.new_keys(compressed);
        self.bytes_since_keys = 0;
        self.packets_since_keys = 0;
        if reset_sequence {
            self.sequence = 0;
        }
    }

    /// SSH_MSG_USERAUTH_SUCCESS went out: everything behind it is compressed where agreed on.
    pub(super) fn authenticated(&mut self, compressed: bool) {
        self.compression.authenticated(compressed);
    }

    /// Sends what was held back, in order.
    pub(super) fn stop_holding(&mut self) {
        self.holding = false;
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        while let Some((len, behind)) = rest.split_first_chunk::<4>() {
            let len = usize::try_from(u32::from_be_bytes(*len)).unwrap_or(usize::MAX);
            let Some((payload, next)) = behind.split_at_checked(len) else {
                return;
            };
            self.send_now(payload);
            rest = next;
        }
    }

    /// Drops what was held back: the connection ends.
    pub(super) fn drop_held(&mut self) {
        self.held = Vec::new();
    }

    /// Room for `len` bytes of data behind `head_bytes` of a message's fixed fields.
    pub(super) fn slot(&mut self, head_bytes: usize, len: usize) -> Option<&mut [u8]> {
        let start = HEADER_BYTES + head_bytes;
        let room = self
            .buffer
            .room(start + len + PADDING_MAX_BYTES + TAG_MAX_BYTES);
        room.get_mut(start..start + len)
    }

    /// Sends the message whose fixed fields are `head` and whose data is in [`Self::slot`].
    pub(super) fn commit_slot(&mut self, head: &[u8], len: usize) {
        let payload_bytes = head.len() + len;
        let room = self.buffer.room(HEADER_BYTES + payload_bytes);
        if let Some(place) = room.get_mut(HEADER_BYTES..HEADER_BYTES + head.len()) {
            place.copy_from_slice(head);
        }
        self.seal(payload_bytes);
    }

    pub(super) fn sealer(&self) -> &Sealer {
        &self.sealer
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

    /// Gives memory back where it holds nothing.
    pub(super) fn release(&mut self) {
        self.buffer.release();
        self.scratch = Vec::new();
        self.held.shrink_to_fit();
        if let Some(deflater) = self.compression.stream_mut() {
            deflater.release();
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let packed = self.compression.stream().map_or(0, Deflater::memory_bytes);
        self.buffer.capacity() + self.scratch.capacity() + self.held.capacity() + packed
    }

    fn hold(&mut self, payload: &[u8]) {
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        if self.held.len() + LENGTH_BYTES + payload.len() > limits::HELD_BYTES {
            self.overflowed = true;
            return;
        }
        self.held.extend_from_slice(&len.to_be_bytes());
        self.held.extend_from_slice(payload);
    }

    fn send_now(&mut self, payload: &[u8]) {
        if let Some(slot) = self.slot(0, payload.len()) {
            slot.copy_from_slice(payload);
        }
        self.seal(payload.len());
    }

    /// Puts the compressed form of the payload into its place; gives its length.
    fn compress(&mut self, payload_bytes: usize) -> usize {
        let Some(deflater) = self.compression.stream_mut() else {
            return payload_bytes;
        };
        let end = HEADER_BYTES + payload_bytes;
        let room = self.buffer.room(end);
        let packed = deflater.deflate(room.get(HEADER_BYTES..end).unwrap_or_default());
        // It may have grown, and takes room for all of the packet at once: more room later would not
        // bring along what is not queued yet.
        let end = HEADER_BYTES + packed.len();
        let room = self.buffer.room(end + PADDING_MAX_BYTES + TAG_MAX_BYTES);
        if let Some(place) = room.get_mut(HEADER_BYTES..end) {
            place.copy_from_slice(packed);
        }
        packed.len()
    }

    /// Makes a packet of the payload that is in its place behind the header.
    fn seal(&mut self, payload_bytes: usize) {
        let payload_bytes = self.compress(payload_bytes);
        let alignment = Alignment {
            block_bytes: self.sealer.block_bytes(),
            length_is_padded: self.sealer.length_is_padded(),
        };
        let padding = packet::padding(payload_bytes, alignment);
        let length = HEADER_BYTES - LENGTH_BYTES + payload_bytes + padding;
        let tag_bytes = self.sealer.tag_bytes();
        let whole = LENGTH_BYTES + length + tag_bytes;
        let room = self.buffer.room(whole);
        let Some((packet, rest)) = room.split_at_mut_checked(LENGTH_BYTES + length) else {
            return;
        };
        let Some(tag) = rest.get_mut(..tag_bytes) else {
            return;
        };
        if let Some(header) = packet.first_chunk_mut::<HEADER_BYTES>() {
            let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
            *header = [a, b, c, d, u8::try_from(padding).unwrap_or(u8::MAX)];
        }
        if let Some(place) = packet.get_mut(HEADER_BYTES + payload_bytes..) {
            self.padding.fill(place);
        }
        self.sealer.seal(self.sequence, packet, tag);
        self.buffer.commit(whole);
        self.sequence = self.sequence.wrapping_add(1);
        self.bytes_since_keys = self.bytes_since_keys.saturating_add(whole as u64);
        self.packets_since_keys = self.packets_since_keys.saturating_add(1);
    }
}

/// Random padding, fetched for many packets at once: a packet must not cost a system call.
struct Padding {
    random: Random,
    pool: [u8; 256],
    used: usize,
}

impl std::fmt::Debug for Padding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Padding")
    }
}

impl Padding {
    fn new(random: Random) -> Self {
        Self {
            random,
            pool: [0; 256],
            used: 256,
        }
    }

    fn fill(&mut self, place: &mut [u8]) {
        if self.used + place.len() > self.pool.len() {
            // RFC 4253 section 6 wants it random, nothing rests on it: under a broken random source
            // the old bytes will do, and the next key exchange fails.
            let _ = self.random.fill(&mut self.pool);
            self.used = 0;
        }
        if let Some(bytes) = self.pool.get(self.used..self.used + place.len()) {
            place.copy_from_slice(bytes);
            self.used += place.len();
        }
    }
}
