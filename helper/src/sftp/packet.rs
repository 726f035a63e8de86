//! Fields of SFTP packets, in and out: big-endian integers and counted strings (RFC 4251 section 5).
//!
//! What comes in is a client's: every read is bounded by the packet at hand. What goes out gathers in
//! one buffer, so that a burst of requests costs one write.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

/// A packet ends before its fields do, or a field has an impossible value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Takes fields off the front of a packet. What is left behind the last one is ignored, as OpenSSH
/// does: clients have sent padding.
#[derive(Debug, Clone)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads from `bytes`, front to back.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[inline(never)]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed)
    }

    /// A 32-bit number.
    #[inline(never)]
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        let bytes = self.take(4)?.try_into().map_err(|_| Malformed)?;
        Ok(u32::from_be_bytes(bytes))
    }

    /// A 64-bit number.
    #[inline(never)]
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let bytes = self.take(8)?.try_into().map_err(|_| Malformed)?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// A counted string.
    #[inline(never)]
    pub fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.u32()?).map_err(|_| Malformed)?;
        self.take(len)
    }

    /// True when nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Replies that wait to be written.
#[derive(Debug, Default)]
pub struct Replies {
    buffer: Vec<u8>,
    /// Where the length of the packet under construction stands.
    start: usize,
}

impl Replies {
    /// Begins a packet.
    pub fn begin(&mut self, kind: u8, id: u32) {
        self.begin_without_id(kind);
        self.u32(id);
    }

    /// Begins VERSION, the only packet without a number.
    pub fn begin_without_id(&mut self, kind: u8) {
        self.start = self.buffer.len();
        self.u32(0);
        self.buffer.push(kind);
    }

    /// Ends the packet: its length is known.
    pub fn end(&mut self) {
        let length = self.buffer.len().saturating_sub(self.start + 4);
        self.patch(self.start, length);
    }

    /// Drops the packet under construction.
    pub fn abandon(&mut self) {
        self.buffer.truncate(self.start);
    }

    /// Bytes of the packet under construction.
    pub fn packet_bytes(&self) -> usize {
        self.buffer.len().saturating_sub(self.start)
    }

    /// Where the next field will stand, for [`Self::patch`].
    pub fn position(&self) -> usize {
        self.buffer.len()
    }

    /// Overwrites the number at `position`.
    #[inline(never)]
    pub fn patch(&mut self, position: usize, number: usize) {
        let number = u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes();
        if let Some(place) = self.buffer.get_mut(position..position + 4) {
            place.copy_from_slice(&number);
        }
    }

    /// A 32-bit number.
    #[inline(never)]
    pub fn u32(&mut self, number: u32) {
        self.buffer.extend_from_slice(&number.to_be_bytes());
    }

    /// A 64-bit number.
    #[inline(never)]
    pub fn u64(&mut self, number: u64) {
        self.buffer.extend_from_slice(&number.to_be_bytes());
    }

    /// A counted string.
    #[inline(never)]
    pub fn string(&mut self, bytes: &[u8]) {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.buffer.extend_from_slice(bytes);
    }

    /// A counted string that `fill` writes into a place of at most `limit` bytes; gives what `fill`
    /// says. Where that is an error, the packet is to be abandoned.
    pub fn string_from<E>(
        &mut self,
        limit: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<usize, E> {
        let position = self.position();
        self.u32(0);
        let start = self.buffer.len();
        self.buffer.resize(start + limit, 0);
        let len = fill(self.buffer.get_mut(start..).unwrap_or_default())?;
        self.buffer.truncate(start + len);
        self.patch(position, len);
        Ok(len)
    }

    /// What waits.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// All of it was written.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Gives the memory of large replies back.
    pub fn release(&mut self) {
        self.buffer = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_in_order_and_never_from_behind_the_end() {
        let bytes = [0, 0, 0, 7, 0, 0, 0, 2, b'a', b'b', 9];
        let mut fields = Fields::new(&bytes);
        assert_eq!(fields.u32(), Ok(7));
        assert_eq!(fields.string(), Ok(b"ab".as_slice()));
        assert_eq!(fields.u32(), Err(Malformed));
        assert_eq!(fields.byte(), Ok(9));
        assert!(fields.is_empty());
        assert_eq!(
            Fields::new(&[255, 255, 255, 255, 1]).string(),
            Err(Malformed)
        );
        assert_eq!(Fields::new(&[0; 7]).u64(), Err(Malformed));
    }

    #[test]
    fn replies_know_their_length() {
        let mut replies = Replies::default();
        replies.begin(101, 5);
        replies.string(b"xy");
        replies.end();
        replies.begin(103, 6);
        let read: Result<usize, ()> = replies.string_from(10, |place| {
            place[..3].copy_from_slice(b"abc");
            Ok(3)
        });
        assert_eq!(read, Ok(3));
        replies.end();
        replies.begin(104, 7);
        replies.abandon();
        let wanted = [
            [0, 0, 0, 11, 101, 0, 0, 0, 5].as_slice(),
            &[0, 0, 0, 2, b'x', b'y', 0, 0, 0, 12, 103, 0, 0, 0, 6],
            &[0, 0, 0, 3, b'a', b'b', b'c'],
        ]
        .concat();
        assert_eq!(replies.bytes(), wanted);
    }
}
