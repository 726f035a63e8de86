//! Descriptors that a program of ours finds open because [`crate::launch`] passed them.
#![allow(unsafe_code)] // takes ownership of descriptors that exist from the start

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

/// Takes the descriptor `number` that was passed to it. `None`
/// where it is not open. To be asked once for each number, before anything else is opened.
pub fn take_descriptor(number: i32) -> Option<OwnedFd> {
    // SAFETY: borrowed only for the call that asks whether the number is open at all; a closed one
    // is answered with EBADF.
    let probe = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_getfd(probe).ok()?;
    // SAFETY: the number is open (just asked), was opened by nobody in this process (the role's
    // entry asks before anything else opens a descriptor, and the launcher passes exactly these),
    // and each number is asked for once.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}
