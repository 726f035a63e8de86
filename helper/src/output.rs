//! Writing all of something, however little of it the kernel takes at once.
#![forbid(unsafe_code)]

use rustix::fd::BorrowedFd;
use rustix::io::{Errno, retry_on_intr, write};

/// Writes all of `bytes`.
///
/// # Errors
///
/// Those of write(2), but for interruptions; how much was written before is not told.
#[inline(never)]
pub fn write_all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        let written = retry_on_intr(|| write(to, bytes))?;
        bytes = bytes.get(written..).unwrap_or_default();
    }
    Ok(())
}
