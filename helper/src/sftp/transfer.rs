//! Bytes in and out of open files: SSH_FXP_OPEN's flags, reading, writing, copy-data.
//!
//! Sources: draft-ietf-secsh-filexfer-02 sections 6.3 and 6.4, OpenSSH PROTOCOL 4.10,
//! copy_file_range(2).
#![forbid(unsafe_code)]

use alloc::vec;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, pread, pwrite, retry_on_intr};

use super::attributes::Attributes;
use super::status::Status;
use crate::text::c_string;

const READ: u32 = 1;
const WRITE: u32 = 2;
const APPEND: u32 = 4;
const CREATE: u32 = 8;
const TRUNCATE: u32 = 16;
const EXCLUSIVE: u32 = 32;

/// Bytes copied before looking whether the client is still there.
const COPY_PIECE_BYTES: usize = 8 * 1024 * 1024;
/// Bytes copied through memory where the kernel cannot copy by itself.
const COPY_BUFFER_BYTES: usize = 128 * 1024;

/// open(2)'s flags for SSH_FXF_ ones.
fn flags(wanted: u32) -> OFlags {
    let mut flags = match (wanted & READ != 0, wanted & WRITE != 0) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    for (bit, flag) in [
        (APPEND, OFlags::APPEND),
        (CREATE, OFlags::CREATE),
        (TRUNCATE, OFlags::TRUNC),
        (EXCLUSIVE, OFlags::EXCL),
    ] {
        if wanted & bit != 0 {
            flags |= flag;
        }
    }
    flags
}

/// Whether writes go to the end, whatever their offset.
pub fn appends(wanted: u32) -> bool {
    wanted & APPEND != 0
}

/// Opens what SSH_FXP_OPEN names. `read_only`: refuses whatever could change something.
pub fn open(
    path: &[u8],
    wanted: u32,
    attributes: &Attributes,
    read_only: bool,
) -> Result<OwnedFd, Errno> {
    if read_only && wanted & (WRITE | CREATE | TRUNCATE) != 0 {
        return Err(Errno::PERM);
    }
    let mode = Mode::from_raw_mode(attributes.permissions.unwrap_or(0o666) & 0o7777);
    let flags = flags(wanted) | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::LARGEFILE;
    let path = c_string(path)?;
    retry_on_intr(|| rustix::fs::open(&*path, flags, mode))
}

/// Reads at `offset` until `place` is full or the file ends. An error behind the first bytes shows
/// at the next read.
pub fn read(file: &OwnedFd, place: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut filled = 0;
    while let Some(rest) = place.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match retry_on_intr(|| pread(file, &mut *rest, offset.wrapping_add(filled as u64))) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(_) if filled > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

/// Writes all of `data` at `offset`, or says why not. The count is what was written before that.
pub fn write(file: &OwnedFd, data: &[u8], offset: u64) -> (usize, Result<(), Errno>) {
    let mut written = 0;
    while let Some(rest) = data.get(written..).filter(|rest| !rest.is_empty()) {
        match retry_on_intr(|| pwrite(file, rest, offset.wrapping_add(written as u64))) {
            Ok(0) => return (written, Err(Errno::IO)),
            Ok(more) => written += more,
            Err(errno) => return (written, Err(errno)),
        }
    }
    (written, Ok(()))
}

/// A copy between two open files.
#[derive(Debug)]
pub struct Copy<'a> {
    /// Read from here.
    pub from: &'a OwnedFd,
    /// Where reading begins.
    pub from_offset: u64,
    /// Bytes to copy; 0: up to the end.
    pub length: u64,
    /// Written to here.
    pub to: &'a OwnedFd,
    /// Where writing begins.
    pub to_offset: u64,
    /// The client's side: a copy without an end stops when nobody waits for it.
    pub client: BorrowedFd<'a>,
}

impl Copy<'_> {
    /// Copies; gives how it went and how many bytes.
    pub fn run(&self) -> (Status, u64) {
        // Two names of one file would be read where they are written.
        let same = |a: &OwnedFd, b: &OwnedFd| {
            let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
            Ok::<bool, Errno>((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
        };
        match same(self.from, self.to) {
            Ok(false) => {}
            Ok(true) => return (Status::Failure, 0),
            Err(errno) => return (errno.into(), 0),
        }
        let mut done = 0;
        let mut by_kernel = true;
        while self.length == 0 || done < self.length {
            let left = if self.length == 0 {
                u64::MAX
            } else {
                self.length - done
            };
            let piece =
                usize::try_from(left).map_or(COPY_PIECE_BYTES, |left| left.min(COPY_PIECE_BYTES));
            match self.piece(done, piece, &mut by_kernel) {
                // Less than was asked for is no error, as with OpenSSH; nothing at all is.
                Ok(0) if self.length == 0 || done > 0 => break,
                Ok(0) => return (Status::EndOfFile, done),
                Ok(copied) => done += copied as u64,
                Err(errno) => return (errno.into(), done),
            }
            if is_gone(self.client) {
                return (Status::Failure, done);
            }
        }
        (Status::Ok, done)
    }

    fn piece(&self, done: u64, len: usize, by_kernel: &mut bool) -> Result<usize, Errno> {
        let (mut from, mut to) = (
            self.from_offset.wrapping_add(done),
            self.to_offset.wrapping_add(done),
        );
        if *by_kernel {
            let copy = || {
                rustix::fs::copy_file_range(self.from, Some(&mut from), self.to, Some(&mut to), len)
            };
            match retry_on_intr(copy) {
                // Files of /proc and /sys say nothing this way, and have something to read.
                Ok(0) if done == 0 => {}
                // Another file system, a device, an old kernel: see below.
                Err(
                    Errno::XDEV
                    | Errno::INVAL
                    | Errno::NOSYS
                    | Errno::OPNOTSUPP
                    | Errno::BADF
                    | Errno::PERM
                    | Errno::TXTBSY,
                ) => {}
                result => return result,
            }
            *by_kernel = false;
        }
        let mut buffer = vec![0; len.min(COPY_BUFFER_BYTES)];
        let filled = retry_on_intr(|| pread(self.from, buffer.as_mut_slice(), from))?;
        let data = buffer.get(..filled).unwrap_or_default();
        write(self.to, data, to).1.map(|()| filled)
    }
}

/// Whether the other end of the client's stream is closed.
fn is_gone(client: BorrowedFd<'_>) -> bool {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut polled = [PollFd::from_borrowed_fd(client, PollFlags::empty())];
    matches!(poll(&mut polled, Some(&now)), Ok(1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_those_of_open() {
        assert_eq!(flags(0), OFlags::RDONLY);
        assert_eq!(flags(READ | WRITE | CREATE), OFlags::RDWR | OFlags::CREATE);
        assert_eq!(
            flags(WRITE | APPEND | CREATE | TRUNCATE | EXCLUSIVE),
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::TRUNC | OFlags::EXCL
        );
    }
}
