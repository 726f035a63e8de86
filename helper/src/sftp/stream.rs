//! Packets out of a stream of bytes, and replies into one: the loop of the server.
//!
//! Everything that arrived is answered before the replies are written, so a burst of small requests
//! costs one read and one write.
#![forbid(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;

use rustix::fd::BorrowedFd;
use rustix::io::{read, retry_on_intr};

use super::server::{Broken, PACKET_MAX_BYTES, Server};
use crate::output::write_all;

const LENGTH_BYTES: usize = 4;
/// Replies are written when this much waits, whatever else has arrived.
const REPLIES_FLUSH_BYTES: usize = 64 * 1024;
/// As sftp-server's, for a stream that carries no SFTP.
const STATUS_BROKEN: i32 = 11;
const STATUS_FAILED: i32 = 1;

/// Serves until `input` ends; gives the exit status.
pub fn run(server: &mut Server, input: BorrowedFd<'_>, output: BorrowedFd<'_>) -> i32 {
    let mut arrived = Arrived::default();
    loop {
        loop {
            match arrived.packet() {
                Ok(None) => break,
                Ok(Some(packet)) => {
                    let served = server.serve(packet, input);
                    arrived.step();
                    if let Err(broken) = served {
                        return stop(server, output, broken);
                    }
                }
                Err(broken) => return stop(server, output, broken),
            }
            if server.replies().bytes().len() >= REPLIES_FLUSH_BYTES && !flush(server, output) {
                return STATUS_FAILED;
            }
        }
        if !flush(server, output) {
            return STATUS_FAILED;
        }
        match retry_on_intr(|| read(input, arrived.room())) {
            Ok(0) => return 0,
            Ok(len) => arrived.take(len),
            Err(_) => return STATUS_FAILED,
        }
    }
}

fn stop(server: &mut Server, output: BorrowedFd<'_>, Broken(why): Broken) -> i32 {
    server
        .log()
        .line(1, &[b"bad message from the client: ", why.as_bytes()]);
    // What was done before is still told.
    flush(server, output);
    STATUS_BROKEN
}

/// Writes all replies; false when nobody takes them any more.
fn flush(server: &mut Server, output: BorrowedFd<'_>) -> bool {
    let replies = server.replies();
    if write_all(output, replies.bytes()).is_err() {
        return false;
    }
    replies.clear();
    true
}

/// What was read and not yet handled: one packet of the largest size at most.
#[derive(Debug, Default)]
struct Arrived {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Arrived {
    /// Bytes of the first packet with its length, if that much is there.
    fn whole(&self) -> Result<Option<usize>, Broken> {
        let bytes = self.buffer.get(self.start..self.end).unwrap_or_default();
        let Some(length) = bytes.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > PACKET_MAX_BYTES {
            return Err(Broken("a packet is too long"));
        }
        if length == 0 {
            return Err(Broken("an empty packet"));
        }
        Ok(Some(LENGTH_BYTES + length).filter(|&whole| whole <= bytes.len()))
    }

    /// The first packet, without its length.
    fn packet(&self) -> Result<Option<&[u8]>, Broken> {
        let whole = self.whole()?;
        Ok(whole.and_then(|whole| {
            self.buffer
                .get(self.start + LENGTH_BYTES..self.start + whole)
        }))
    }

    /// Drops the first packet.
    fn step(&mut self) {
        if let Ok(Some(whole)) = self.whole() {
            self.start += whole;
        }
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Where the next bytes go.
    fn room(&mut self) -> &mut [u8] {
        if self.buffer.is_empty() {
            // Pages that are not touched cost nothing.
            self.buffer = vec![0; LENGTH_BYTES + PACKET_MAX_BYTES];
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        self.buffer.get_mut(self.end..).unwrap_or_default()
    }

    fn take(&mut self, len: usize) {
        self.end = (self.end + len).min(self.buffer.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(arrived: &mut Arrived, bytes: &[u8]) {
        arrived.room()[..bytes.len()].copy_from_slice(bytes);
        arrived.take(bytes.len());
    }

    #[test]
    fn packets_come_out_whole_however_they_arrive() {
        let stream = [
            &[0, 0, 0, 3][..],
            b"abc",
            &[0, 0, 0, 1],
            b"d",
            &[0, 0, 0, 2],
            b"ef",
        ]
        .concat();
        for piece in 1..stream.len() {
            let mut arrived = Arrived::default();
            let mut found = Vec::new();
            for bytes in stream.chunks(piece) {
                feed(&mut arrived, bytes);
                while let Some(packet) = arrived.packet().expect("packets") {
                    found.push(packet.to_vec());
                    arrived.step();
                }
            }
            assert_eq!(found, [b"abc".as_slice(), b"d", b"ef"], "by {piece}");
        }
    }

    #[test]
    fn the_largest_packet_fits_and_the_next_size_breaks() {
        let mut arrived = Arrived::default();
        feed(
            &mut arrived,
            &u32::try_from(PACKET_MAX_BYTES)
                .expect("a size")
                .to_be_bytes(),
        );
        assert_eq!(arrived.packet(), Ok(None));
        assert_eq!(arrived.room().len(), PACKET_MAX_BYTES);
        let mut arrived = Arrived::default();
        feed(&mut arrived, &[0, 4, 0, 1]);
        assert!(arrived.packet().is_err());
        let mut arrived = Arrived::default();
        feed(&mut arrived, &[0; 4]);
        assert!(arrived.packet().is_err());
    }
}
