//! What `ps` shows: the command line, rewritten in place, and the name of the process.
//!
//! The area is the memory of the arguments that the kernel laid out; a longer title is cut.
//! Source: prctl(2), proc_pid_cmdline(5).
#![allow(unsafe_code)] // writes to memory that the kernel laid out

use core::ptr;

use rustix::fs::{Mode, OFlags};

use crate::text::parse_decimal;

/// The memory behind `/proc/PID/cmdline`.
#[derive(Debug)]
pub struct Title {
    start: *mut u8,
    len: usize,
}

impl Title {
    /// No such memory: [`Title::set`] does nothing.
    pub const fn none() -> Self {
        Self {
            start: ptr::null_mut(),
            len: 0,
        }
    }

    /// # Safety
    ///
    /// The area is the process's argument strings; nothing else refers to it any more.
    pub const unsafe fn of_area(start: *mut u8, len: usize) -> Self {
        Self { start, len }
    }

    /// Finds the area by asking the kernel: for a process whose runtime keeps the pointers.
    ///
    /// # Safety
    ///
    /// Nothing reads the original argument strings any more, copies aside.
    pub unsafe fn of_this_process() -> Self {
        Self::find().map_or(Self::none(), |(start, len)| Self { start, len })
    }

    fn find() -> Option<(*mut u8, usize)> {
        let stat = rustix::fs::open(
            c"/proc/self/stat",
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let mut buffer = [0; 1024];
        let filled = rustix::io::read(&stat, &mut buffer).ok()?;
        let text = buffer.get(..filled)?;
        // The name in parentheses may hold anything; fields count from behind it.
        let name_end = text.iter().rposition(|&byte| byte == b')')?;
        const ARG_START: usize = 48 - 3; // fields are numbered from 1, the first behind is 3
        let mut fields = text
            .get(name_end + 2..)?
            .split(|&byte| byte == b' ')
            .skip(ARG_START);
        let (start, end) = (
            parse_decimal(fields.next()?)?,
            parse_decimal(fields.next()?)?,
        );
        (start != 0 && end > start).then(|| (ptr::with_exposed_provenance_mut(start), end - start))
    }

    /// Shows `text` as the command line.
    pub fn set(&mut self, text: &[u8]) {
        // The last byte stays for the mark below, and one for the NUL in front of it.
        let Some(room) = self.len.checked_sub(2) else {
            return;
        };
        let text = text.get(..room).unwrap_or(text);
        // SAFETY: `start` and `len` are an area of ours, as the constructors demand; text fits.
        unsafe {
            ptr::copy_nonoverlapping(text.as_ptr(), self.start, text.len());
            ptr::write_bytes(self.start.add(text.len()), 0, self.len - text.len());
            // An area that does not end in NUL is one title to the kernel, up to its first NUL.
            self.start.add(self.len - 1).write(b'.');
        }
    }
}
