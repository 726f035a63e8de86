//! Records and data of the old scp protocol on standard input and output.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::io::{Errno, read, retry_on_intr};

use super::NAME_MAX_BYTES;
use crate::frame::FileOperation;
use crate::output::write_all;
use crate::program::reason;
use crate::sftp::log::Log;
use crate::sftp::status::Status;
use crate::sys;

/// Bytes moved at once.
pub const PIECE_BYTES: usize = 64 * 1024;

/// The conversation is over: the other side left, or said so.
#[derive(Debug)]
pub struct Ended;

/// Both directions.
#[derive(Debug)]
pub struct Stream {
    buffer: Vec<u8>,
    start: usize,
    complained: bool,
    log: Log,
}

impl Stream {
    /// Nothing was said yet. What is done to files is told to `log`.
    pub fn new(log: Log) -> Self {
        Self {
            buffer: Vec::new(),
            start: 0,
            complained: false,
            log,
        }
    }

    /// Tells what was done to a file, as the SFTP server does.
    #[inline(never)]
    pub fn tell(
        &mut self,
        operation: FileOperation,
        path: &[u8],
        result: Result<(), Errno>,
        bytes: (u64, u64),
    ) {
        self.log
            .event(operation, (path, b""), Status::from(result), bytes);
    }

    fn fill(&mut self) -> Result<(), Ended> {
        if self.start < self.buffer.len() {
            return Ok(());
        }
        self.start = 0;
        self.buffer.resize(PIECE_BYTES, 0);
        let filled = retry_on_intr(|| read(sys::standard_input(), self.buffer.as_mut_slice()));
        let filled = filled.unwrap_or(0);
        self.buffer.truncate(filled);
        if filled == 0 { Err(Ended) } else { Ok(()) }
    }

    /// The next bytes, up to `limit` of them.
    pub fn take(&mut self, limit: usize) -> Result<&[u8], Ended> {
        self.fill()?;
        let start = self.start;
        let end = self.buffer.len().min(start.saturating_add(limit));
        self.start = end;
        self.buffer.get(start..end).ok_or(Ended)
    }

    /// The next byte.
    pub fn byte(&mut self) -> Result<u8, Ended> {
        self.take(1)?.first().copied().ok_or(Ended)
    }

    /// The rest of a record, without its line end.
    pub fn line(&mut self) -> Result<Vec<u8>, Ended> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                _ if line.len() >= NAME_MAX_BYTES + 64 => return Err(Ended),
                byte => line.push(byte),
            }
        }
    }

    /// Writes all of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Ended> {
        write_all(sys::standard_output(), bytes).map_err(|_| Ended)
    }

    /// Says yes.
    pub fn agree(&mut self) -> Result<(), Ended> {
        self.put(&[0])
    }

    /// Tells the other side what went wrong; it shows it to a person and goes on.
    pub fn complain(&mut self, parts: &[&[u8]]) {
        self.complained = true;
        let text = [b"\x01scp: ", parts.concat().as_slice(), b"\n"].concat();
        let _ = self.put(&text);
    }

    /// [`Self::complain`] of an error of the system about `path`.
    #[inline(never)]
    pub fn complain_of(&mut self, path: &[u8], errno: Errno) {
        self.complain(&[path, b": ", &reason(errno)]);
    }

    /// Something went wrong, here or there.
    pub fn has_complained(&self) -> bool {
        self.complained
    }

    /// The other side's word on what it was told: true for yes.
    pub fn response(&mut self) -> Result<bool, Ended> {
        match self.byte()? {
            0 => Ok(true),
            1 => {
                self.line()?;
                self.complained = true;
                Ok(false)
            }
            _ => {
                self.complained = true;
                Err(Ended)
            }
        }
    }

    /// The other side complained in place of a record.
    pub fn note_complaint(&mut self) {
        self.complained = true;
    }
}
