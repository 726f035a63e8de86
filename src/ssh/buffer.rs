//! A byte queue in one piece of memory, so that packets can be opened and sealed in place.
//!
//! Bytes enter at the end and leave at the front by moving an offset; the rest moves down only when
//! at least as many bytes left before it as it has itself, so each byte moves about once at most.
//! Memory below the highest mark stays initialised: a packet costs no zero-filling.

use zeroize::Zeroize;

#[derive(Default)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl std::fmt::Debug for Buffer {
    // What passes through here is never to be printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} bytes]", self.len())
    }
}

impl Buffer {
    /// What is queued.
    pub(super) fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or(&[])
    }

    /// What is queued, to be opened in place.
    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or(&mut [])
    }

    /// Bytes queued.
    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Drops `len` bytes at the front.
    pub(super) fn consume(&mut self, len: usize) {
        self.start = self.start.saturating_add(len).min(self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Overwrites `len` bytes at the front and drops them: they held a secret.
    pub(super) fn consume_and_wipe(&mut self, len: usize) {
        if let Some(secret) = self.filled_mut().get_mut(..len) {
            secret.zeroize();
        }
        self.consume(len);
    }

    /// The memory at hand behind the queue, at least `len` bytes of it.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < len {
            self.make_room(len);
        }
        self.bytes.get_mut(self.end..).unwrap_or(&mut [])
    }

    /// The first `len` bytes of [`Self::room`] belong to the queue now.
    pub(super) fn commit(&mut self, len: usize) {
        self.end = self.end.saturating_add(len).min(self.bytes.len());
    }

    /// Bytes of memory held.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Gives the memory back where nothing is queued.
    pub(super) fn release(&mut self) {
        if self.start == self.end {
            *self = Self::default();
        }
    }

    fn make_room(&mut self, len: usize) {
        let queued = self.len();
        let worth_moving = self.start >= queued;
        if worth_moving {
            self.bytes.copy_within(self.start..self.end, 0);
            self.start = 0;
            self.end = queued;
        }
        let needed = self.end + len;
        if self.bytes.len() < needed {
            // Exact, where a vector that grows would double; and zeroed by the allocator at once, where
            // it would write zero by zero.
            let mut larger = vec![0; needed];
            if let (Some(to), Some(from)) = (
                larger.get_mut(self.start..self.end),
                self.bytes.get(self.start..self.end),
            ) {
                to.copy_from_slice(from);
            }
            self.bytes = larger;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::Buffer;

    fn push(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        buffer.commit(bytes.len());
    }

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut buffer = Buffer::default();
        let mut expected = Vec::new();
        for round in 0..200_u8 {
            push(&mut buffer, &[round; 7]);
            expected.extend_from_slice(&[round; 7]);
            let out = usize::from(round % 13).min(buffer.len());
            assert_eq!(&buffer.filled()[..out], &expected[..out]);
            buffer.consume(out);
            expected.drain(..out);
        }
        assert_eq!(buffer.filled(), expected);
    }

    #[test]
    fn memory_does_not_grow_with_what_passed_through() {
        let mut buffer = Buffer::default();
        push(&mut buffer, &[0; 10]);
        for _ in 0..10_000 {
            push(&mut buffer, &[1; 100]);
            buffer.consume(100);
        }
        assert!(buffer.capacity() < 1000, "{}", buffer.capacity());
    }

    #[test]
    fn release_keeps_what_is_queued() {
        let mut buffer = Buffer::default();
        push(&mut buffer, b"queued");
        buffer.release();
        assert_eq!(buffer.filled(), b"queued");
        buffer.consume(6);
        buffer.release();
        assert_eq!(buffer.capacity(), 0);
    }

    #[test]
    fn wiping_overwrites_the_secret() {
        let mut buffer = Buffer::default();
        push(&mut buffer, b"secret, not secret");
        buffer.consume_and_wipe(6);
        assert_eq!(buffer.filled(), b", not secret");
        assert!(buffer.bytes.starts_with(&[0; 6]));
    }
}
