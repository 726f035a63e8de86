//! `zlib@openssh.com`: one zlib stream for each direction, delayed until the client has
//! authenticated (OpenSSH PROTOCOL 1.1, RFC 4253 section 6.2).
//!
//! A stream begins behind SSH_MSG_USERAUTH_SUCCESS, or behind the NEWKEYS that follows it, and ends at
//! the next NEWKEYS; each packet's part of it ends in a flush. A stream is memory: there is none where
//! none was agreed on.

use miniz_oxide::deflate::CompressionLevel;
use miniz_oxide::deflate::core::{CompressorOxide, TDEFLFlush, compress_to_output};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZError, MZFlush, MZStatus};

use super::error::ProtocolError;
use crate::limits;

/// The only method besides `none`: plain `zlib` would let strangers reach the decompressor.
pub(super) const DELAYED: &[u8] = b"zlib@openssh.com";

/// In which directions it was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Compressed {
    /// From the client.
    pub incoming: bool,
    /// To the client.
    pub outgoing: bool,
}

/// One direction: a stream, once it was agreed on and the client has authenticated.
#[derive(Debug, Default)]
pub(super) struct Delayed<Stream> {
    authenticated: bool,
    stream: Option<Stream>,
}

impl<Stream: Default> Delayed<Stream> {
    /// The client has authenticated under keys for which this was agreed on.
    pub(super) fn authenticated(&mut self, agreed: bool) {
        self.authenticated = true;
        self.new_keys(agreed);
    }

    /// New keys, for which this was agreed on: a stream starts anew or not at all.
    pub(super) fn new_keys(&mut self, agreed: bool) {
        // The old one first: never two at once.
        self.stream = None;
        self.stream = (agreed && self.authenticated).then(Self::begin);
    }

    /// A new stream is large on its way to the heap. Inlined, every login would touch that much stack.
    #[cold]
    #[inline(never)]
    fn begin() -> Stream {
        Stream::default()
    }

    pub(super) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    pub(super) fn stream_mut(&mut self) -> Option<&mut Stream> {
        self.stream.as_mut()
    }
}

/// Compresses payloads.
pub(super) struct Deflater {
    state: Box<CompressorOxide>,
    packed: Vec<u8>,
}

impl Default for Deflater {
    fn default() -> Self {
        // OpenSSH's level.
        let level = CompressionLevel::DefaultLevel;
        Self {
            state: Box::new(CompressorOxide::with_format_and_level(
                DataFormat::Zlib,
                level,
            )),
            packed: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Deflater {
    // What passed through here is never to be printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Deflater")
    }
}

impl Deflater {
    /// The next packet's part of the stream.
    pub(super) fn deflate(&mut self, payload: &[u8]) -> &[u8] {
        let Self { state, packed } = self;
        packed.clear();
        // It takes all of the payload, and fails only where the closure refuses.
        compress_to_output(state, payload, TDEFLFlush::Sync, |part| {
            packed.extend_from_slice(part);
            true
        });
        &self.packed
    }

    /// Gives back what is not the stream's own memory.
    pub(super) fn release(&mut self) {
        self.packed = Vec::new();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.packed.capacity()
    }
}

/// Decompresses payloads, to no more than a packet may have.
pub(super) struct Inflater {
    state: Box<InflateState>,
    payload: Vec<u8>,
}

impl Default for Inflater {
    fn default() -> Self {
        Self {
            state: InflateState::new_boxed(DataFormat::Zlib),
            payload: Vec::new(),
        }
    }
}

impl std::fmt::Debug for Inflater {
    // What passed through here is never to be printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inflater")
    }
}

impl Inflater {
    /// Takes the next packet's part of the stream; gives how many bytes of [`Self::bytes`] are its
    /// payload.
    pub(super) fn inflate(&mut self, mut packed: &[u8]) -> Result<usize, ProtocolError> {
        let mut len = 0;
        loop {
            self.make_room(len)?;
            let room = self.payload.get_mut(len..).unwrap_or(&mut []);
            let room_bytes = room.len();
            let step = inflate(&mut self.state, packed, room, MZFlush::None);
            packed = packed.get(step.bytes_consumed..).unwrap_or(&[]);
            len += step.bytes_written;
            let good = matches!(step.status, Ok(MZStatus::Ok) | Err(MZError::Buf));
            let waits = self.state.last_status() == TINFLStatus::NeedsMoreInput;
            if good && waits && packed.is_empty() && step.bytes_written < room_bytes {
                return Ok(len);
            }
            // The stream's end counts as damage too: nothing could follow it.
            if !good || step.bytes_consumed + step.bytes_written == 0 {
                return Err(ProtocolError::Compression {
                    what: "not a zlib stream",
                });
            }
        }
    }

    /// Where the payload of the last packet is.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.payload
    }

    /// Gives back what is not the stream's own memory.
    pub(super) fn release(&mut self) {
        self.payload = Vec::new();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.payload.capacity()
    }

    /// Memory follows the bytes that come out. One byte more than allowed tells a payload of the
    /// largest size from a larger one.
    fn make_room(&mut self, len: usize) -> Result<(), ProtocolError> {
        if len < self.payload.len() {
            return Ok(());
        }
        if len > limits::PACKET_BYTES {
            return Err(ProtocolError::Compression {
                what: "the packet inflates to more than a packet may have",
            });
        }
        let wanted = (2 * len).clamp(limits::INBOX_FIRST_BYTES, limits::PACKET_BYTES + 1);
        self.payload.reserve_exact(wanted - len);
        self.payload.resize(wanted, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Bytes that do not compress.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .flatten()
        .take(len)
        .collect()
    }

    #[test]
    fn each_packet_comes_out_whole() {
        let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
        let noise = noise(limits::PACKET_BYTES);
        for round in 0..4 {
            for len in [1, 2, 100, 4095, 4096, 4097, 32_768, 32_769, 65_536, 200_000] {
                let even = vec![round; len];
                let odd = noise.get(..len).unwrap();
                for payload in [&even[..], odd] {
                    let packed = deflater.deflate(payload);
                    let inflated = inflater.inflate(packed).unwrap();
                    assert_eq!(inflated, len);
                    assert!(inflater.bytes().get(..inflated).unwrap() == payload);
                }
            }
        }
    }

    #[test]
    fn what_does_not_compress_grows_by_little() {
        let mut deflater = Deflater::default();
        for len in [1, 1000, limits::DATA_BYTES] {
            let packed = deflater.deflate(&noise(len)).len();
            assert!(packed <= len + 24, "{packed} for {len}");
        }
    }

    #[test]
    fn the_largest_payload_is_taken_and_no_larger_one() {
        for (len, good) in [
            (limits::PACKET_BYTES, true),
            (limits::PACKET_BYTES + 1, false),
        ] {
            for payload in [vec![0; len], noise(len)] {
                let mut deflater = Deflater::default();
                let outcome = Inflater::default().inflate(deflater.deflate(&payload));
                assert_eq!(outcome.is_ok(), good, "{len}");
            }
        }
    }

    #[test]
    fn a_bomb_costs_no_more_memory_than_a_packet() {
        let mut deflater = Deflater::default();
        let bomb = deflater.deflate(&vec![0; 100 << 20]).to_vec();
        assert!(bomb.len() < limits::PACKET_BYTES);
        let mut inflater = Inflater::default();
        assert!(matches!(
            inflater.inflate(&bomb),
            Err(ProtocolError::Compression { .. })
        ));
        assert!(inflater.memory_bytes() <= limits::PACKET_BYTES + 1);
    }

    #[test]
    fn damage_and_ends_are_refused() {
        let ended = miniz_oxide::deflate::compress_to_vec_zlib(b"all of it", 6);
        assert!(Inflater::default().inflate(&ended).is_err());
        assert!(Inflater::default().inflate(b"no stream").is_err());
        // A block of a type that does not exist, in a later packet.
        let mut inflater = Inflater::default();
        let first = Deflater::default().deflate(b"good").to_vec();
        assert_eq!(inflater.inflate(&first), Ok(4));
        assert!(inflater.inflate(&[0xff; 8]).is_err());
        assert!(inflater.inflate(&first).is_err(), "and it stays broken");
    }

    #[test]
    fn no_damaged_byte_makes_it_panic_or_hang() {
        let mut deflater = Deflater::default();
        let packed = deflater
            .deflate(&b"some text, some more text".repeat(20))
            .to_vec();
        for at in 0..packed.len() {
            for flip in 1..=255_u8 {
                let mut damaged = packed.clone();
                *damaged.get_mut(at).unwrap() ^= flip;
                let mut inflater = Inflater::default();
                let _ = inflater.inflate(&damaged);
                let _ = inflater.inflate(&damaged);
            }
        }
    }

    #[test]
    fn a_stream_is_there_only_where_it_was_agreed_on_after_authentication() {
        let mut direction = Delayed::<Inflater>::default();
        direction.new_keys(true);
        assert!(direction.stream().is_none(), "delayed");
        direction.authenticated(false);
        assert!(direction.stream().is_none(), "not agreed on");
        direction.new_keys(true);
        assert!(direction.stream().is_some());
        direction.new_keys(false);
        assert!(direction.stream().is_none(), "not any more");
    }
}
