//! Gives back the pages of our own file that only the last piece of work touched.
//!
//! A server that waits needs few pages of its program: a loop and a system call. What start-up or a
//! login mapped in addition counts as its memory until somebody takes it away, and on a box without
//! swap nobody does. The pages are clean and stay in the page cache: the next login maps them again
//! at the cost of some faults.
//!
//! Source: madvise(2) MADV_DONTNEED, for private mappings of a file.
#![allow(unsafe_code)] // madvise on our own program, and the walk over its segments

use std::ffi::{c_int, c_void};
use std::time::Duration;

/// A process that had nothing to do for this long gives its pages back.
pub const QUIET: Duration = Duration::from_millis(300);

/// Unmaps what of the program's read-only segments is mapped; they fault in again when used.
pub fn give_back_program_pages() {
    // SAFETY: `segments` only reads what it is given, for as long as it is given.
    unsafe { libc::dl_iterate_phdr(Some(segments), std::ptr::null_mut()) };
}

/// Deals with the first object, which is the program itself, and ends the walk.
unsafe extern "C" fn segments(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: the loader hands out a valid description whose headers live as long as the program.
    let (base, headers) = unsafe {
        let info = &*info;
        (
            info.dlpi_addr,
            std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)),
        )
    };
    // Not rustix's: its first question reads the auxiliary vector by a system call, which a confined
    // process may not make.
    // SAFETY: sysconf takes a number and gives one; both C libraries know this one from their start.
    let page_bytes = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
    for header in headers {
        // Writable segments hold relocated data, which the file does not have.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let (Ok(start), Ok(len)) = (
            usize::try_from(base + header.p_vaddr),
            usize::try_from(header.p_memsz),
        ) else {
            continue;
        };
        // Whole pages only: a neighbour's share of a page must not be lost.
        let first = start.next_multiple_of(page_bytes);
        let end = (start + len) / page_bytes * page_bytes;
        if first < end {
            // SAFETY: the range lies inside a segment that is mapped privately from the program's
            // file and is never written, so that the next access reads the same bytes again. This
            // function's own page comes back the same way.
            unsafe {
                libc::madvise(
                    std::ptr::without_provenance_mut(first),
                    end - first,
                    libc::MADV_DONTNEED,
                )
            };
        }
    }
    1
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn resident_file_kib() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssFile:"));
        line.and_then(|line| line.split_whitespace().nth(1))
            .and_then(|number| number.parse().ok())
            .unwrap()
    }

    #[test]
    fn the_program_shrinks_and_goes_on() {
        let before = resident_file_kib();
        give_back_program_pages();
        let after = resident_file_kib();
        assert!(after < before, "{before} KiB before, {after} KiB after");
        assert_eq!(format!("{:>4}", 7), "   7", "code runs again");
    }
}
