//! Gives memory back to the system: an idle connection costs little only if what it needed for a
//! moment does not stay.
//!
//! Sources: madvise(2), pthread_getattr_np(3).
#![allow(unsafe_code)] // madvise on the own stack

use std::mem::MaybeUninit;

use rustix::mm::{Advice, madvise};
use rustix::param::page_size;

use crate::limits::STACK_KEPT_BYTES;

/// Gives back the part of the calling thread's stack that lies below what is in use: key exchanges
/// go deep, waiting does not.
pub(super) fn release_stack() {
    let Some(lowest) = lowest_address() else {
        return;
    };
    let here = MaybeUninit::<u8>::uninit();
    let page = page_size();
    // What this function and madvise itself still push stays well within what is kept.
    let end = (here.as_ptr().addr().saturating_sub(STACK_KEPT_BYTES)) & !(page - 1);
    let Some(len) = end.checked_sub(lowest.addr()).filter(|len| *len > 0) else {
        return;
    };
    // SAFETY: the range begins at the lowest usable address of this thread's own stack and ends
    // below the stack pointer by more than any red zone; stacks grow down, so nothing in it is
    // alive, and no reference into it exists. Its pages read as zeroes when it is used again.
    let _ = unsafe { madvise(lowest.cast(), len, Advice::LinuxDontNeed) };
}

/// The lowest usable address of the calling thread's stack, above its guard.
fn lowest_address() -> Option<*mut u8> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: fills in the attributes of a live thread, our own.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call above succeeded.
    let mut attributes = unsafe { attributes.assume_init() };
    let mut lowest = std::ptr::null_mut();
    let mut size = 0;
    // SAFETY: reads attributes that are filled in, into two places that live through the call.
    let known = unsafe {
        libc::pthread_attr_getstack(&raw const attributes, &raw mut lowest, &raw mut size)
    };
    // SAFETY: made by pthread_getattr_np and not used afterwards.
    unsafe { libc::pthread_attr_destroy(&raw mut attributes) };
    (known == 0 && !lowest.is_null()).then_some(lowest.cast())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Bytes of the calling thread's stack that are in memory (mincore(2)).
    fn resident_bytes(size: usize) -> usize {
        let lowest = lowest_address().unwrap();
        let page = page_size();
        let mut pages = vec![0_u8; size / page];
        // SAFETY: asks about `size` bytes of the own stack; the vector has a byte for each page.
        let result = unsafe { libc::mincore(lowest.cast(), size, pages.as_mut_ptr()) };
        assert_eq!(result, 0);
        pages.iter().filter(|page| **page & 1 != 0).count() * page
    }

    #[inline(never)]
    fn go_deep() -> u8 {
        let deep = std::hint::black_box([1_u8; 200 * 1024]);
        deep[deep.len() / 2]
    }

    #[test]
    fn a_stack_that_was_deep_once_shrinks() {
        // Larger than any other thread's here: the C library hands used stacks on, and then the
        // lowest address would be that of a larger one.
        let size = 16 * 1024 * 1024;
        let thread = std::thread::Builder::new().stack_size(size).spawn(move || {
            let size = size - 64 * 1024;
            assert_eq!(go_deep(), 1);
            let before = resident_bytes(size);
            release_stack();
            let after = resident_bytes(size);
            assert_eq!(go_deep(), 1);
            (before, after)
        });
        let (before, after) = thread.unwrap().join().unwrap();
        assert!(before >= 128 * 1024, "{before}");
        assert!(after <= 4 * page_size(), "{after} of {before}");
    }
}
