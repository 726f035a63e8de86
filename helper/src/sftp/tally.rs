//! What `net` read and wrote by itself of each file that it was handed: notes in a file that only
//! memory holds and that both have.
//!
//! The pipe between the two may be full, or have nobody at its end, when a connection breaks. A note
//! is taken at any time, and always before the server can see why it is wanted: a CLOSE, or the end.
//! `net` may write anything here; it could as well read and write anything in the user's name.
#![forbid(unsafe_code)]

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{Errno, pread, pwrite};

/// Bytes of a note: handle, bytes read and bytes written, big-endian.
const NOTE_BYTES: usize = 4 + 8 + 8;
/// Of a handle these bits name a place, and what is above them how often it was used.
const PLACE_MASK: u32 = 0xffff;

/// The file, on the server's side.
#[derive(Debug)]
pub struct Tally(OwnedFd);

impl Tally {
    /// An empty one.
    pub fn new() -> Result<Self, Errno> {
        let flags = MemfdFlags::CLOEXEC;
        // Machines that forbid memory files which can be executed want to be told (Linux 6.3).
        memfd_create(c"tally", flags | MemfdFlags::NOEXEC_SEAL)
            .or_else(|_| memfd_create(c"tally", flags))
            .map(Self)
    }

    /// Takes what is noted about `handle`: bytes read, and bytes written.
    pub fn take(&self, handle: u32) -> (u64, u64) {
        let mut note = [0; NOTE_BYTES];
        let whole = pread(&self.0, &mut note, position(handle)) == Ok(NOTE_BYTES);
        let (name, totals) = note.split_at(4);
        if !whole || name != handle.to_be_bytes() {
            return (0, 0);
        }
        // The place may become another file's, and after many of them one's with the same handle.
        let _ = pwrite(&self.0, &[0; NOTE_BYTES], position(handle));
        let (read, written) = totals.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_be_bytes);
        (number(read), number(written))
    }
}

impl AsFd for Tally {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Notes on `net`'s side how much of `handle` was read and written in all.
pub fn note(tally: &OwnedFd, handle: u32, (read, written): (u64, u64)) {
    let mut note = [0; NOTE_BYTES];
    let fields = [
        &handle.to_be_bytes()[..],
        &read.to_be_bytes(),
        &written.to_be_bytes(),
    ];
    let bytes = fields.iter().flat_map(|field| field.iter());
    for (place, byte) in note.iter_mut().zip(bytes) {
        *place = *byte;
    }
    // A user who has no memory left for this has none for the log either.
    let _ = pwrite(tally, &note, position(handle));
}

fn position(handle: u32) -> u64 {
    u64::from(handle & PLACE_MASK) * NOTE_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_taken_once_and_by_its_handle() {
        let tally = Tally::new().expect("a file in memory");
        let theirs = tally.0.try_clone().expect("a descriptor");
        assert_eq!(tally.take(7), (0, 0));
        for (handle, totals) in [(7, (1, 2)), (0xffff, (3, u64::MAX)), (0x0005_0009, (4, 5))] {
            note(&theirs, handle, (9, 9));
            note(&theirs, handle, totals);
            assert_eq!(tally.take(handle ^ 0x0001_0000), (0, 0), "an earlier use");
            assert_eq!(tally.take(handle), totals);
            assert_eq!(tally.take(handle), (0, 0));
        }
    }
}
