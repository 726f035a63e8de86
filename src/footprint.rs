//! Gives back the pages of our own file that only the last piece of work touched, and rests.
//!
//! A server that waits needs few pages of its program: a loop and a system call. What start-up or a
//! login mapped in addition counts as its memory until somebody takes it away, and on a box without
//! swap nobody does. The pages are clean and stay in the page cache: the next login maps them again
//! at the cost of some faults.
//!
//! A fault maps what lies around it too: 64 KiB, or as much as the page cache holds in one piece, but
//! never across the end of a mapping. So the function that waits is a mapping of its own, of a page or
//! two, and makes its system calls itself.
//!
//! Sources: madvise(2) MADV_DONTNEED, for private mappings of a file; MADV_RANDOM, which makes the
//! kernel keep a range as a mapping of its own; poll(2).
#![allow(unsafe_code)] // madvise on our own program, the walk over its segments, ppoll by hand

use std::ffi::{c_int, c_void};
use std::sync::Once;
use std::time::Duration;

use agent_helper::sys::syscall5;
use rustix::event::{PollFd, Timespec, poll};
use rustix::io::Errno;

/// A process that had nothing to do for this long gives its pages back.
pub const QUIET: Duration = Duration::from_millis(300);

/// ppoll(2) with 64 bits of seconds on every architecture (arch/arm/tools/syscall.tbl).
#[cfg(target_arch = "arm")]
const PPOLL: usize = 414;
#[cfg(not(target_arch = "arm"))]
const PPOLL: usize = number(libc::SYS_ppoll);
const MADVISE: usize = number(libc::SYS_madvise);
const DONT_NEED: usize = number_of_advice(libc::MADV_DONTNEED);

/// More than the code of [`drop_and_wait`] takes on any architecture.
const WAITING_CODE_BYTES: usize = 512;

/// Read-only segments of a program: headers, code, constants, and one to spare.
const SEGMENTS: usize = 4;

/// Where the read-only segments of the program are: first byte and length, whole pages.
#[derive(Default)]
struct Segments {
    ranges: [(usize, usize); SEGMENTS],
    count: usize,
}

/// Unmaps what of the program's read-only segments is mapped (it faults in again when used) and
/// waits as [`poll`] does.
///
/// # Errors
///
/// Those of poll(2).
pub fn rest(set: &mut [PollFd<'_>], timeout: Option<&Timespec>) -> Result<usize, Errno> {
    static APART: Once = Once::new();
    APART.call_once(keep_waiting_code_apart);
    let mut segments = Segments::default();
    // SAFETY: `note_segments` is given what it expects, for as long as it is given.
    unsafe { libc::dl_iterate_phdr(Some(note_segments), (&raw mut segments).cast()) };
    let ranges = segments.ranges.get(..segments.count).unwrap_or_default();
    // SAFETY: the ranges lie inside segments that are mapped privately from the program's file and
    // are never written, so that the next access reads the same bytes again.
    let waited = unsafe { drop_and_wait(ranges, set, timeout) };
    // A kernel without this call, or a signal: the usual way knows what to make of it.
    usize::try_from(waited).or_else(|_| poll(set, timeout))
}

/// # Safety
///
/// The ranges are whole pages of private, unwritten mappings of a file.
#[inline(never)]
#[unsafe(link_section = ".text.rest")]
unsafe fn drop_and_wait(
    ranges: &[(usize, usize)],
    set: &mut [PollFd<'_>],
    timeout: Option<&Timespec>,
) -> isize {
    for (start, len) in ranges {
        // SAFETY: the caller vouches for the range; this code's own page comes back the same way.
        unsafe { syscall5(MADVISE, *start, *len, DONT_NEED, 0, 0) };
    }
    let timeout = timeout.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: PollFd is the kernel's pollfd, and there are as many as is said; Timespec is the
    // kernel's, or none; without a signal mask its size is not looked at.
    unsafe {
        syscall5(
            PPOLL,
            set.as_mut_ptr().addr(),
            set.len(),
            timeout.addr(),
            0,
            0,
        )
    }
}

/// Makes the pages of [`drop_and_wait`] a mapping of their own.
fn keep_waiting_code_apart() {
    let page_bytes = page_bytes();
    let code = drop_and_wait as *const () as usize;
    let first = code / page_bytes * page_bytes;
    let end = (code + WAITING_CODE_BYTES).next_multiple_of(page_bytes);
    // SAFETY: advice about read-ahead changes no byte; the pages are the program's own code.
    unsafe {
        libc::madvise(
            std::ptr::without_provenance_mut(first),
            end - first,
            libc::MADV_RANDOM,
        )
    };
}

fn page_bytes() -> usize {
    // Not rustix's: its first question reads the auxiliary vector by a system call, which a confined
    // process may not make.
    // SAFETY: sysconf takes a number and gives one; both C libraries know this one from their start.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small and positive
const fn number(call: libc::c_long) -> usize {
    call as usize
}

#[allow(clippy::cast_sign_loss)] // small and positive
const fn number_of_advice(advice: c_int) -> usize {
    advice as usize
}

/// Notes the segments of the first object, which is the program itself, and ends the walk.
unsafe extern "C" fn note_segments(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    data: *mut c_void,
) -> c_int {
    // SAFETY: `rest` passes its `Segments`, which nobody else refers to meanwhile.
    let segments = unsafe { &mut *data.cast::<Segments>() };
    // SAFETY: the loader hands out a valid description whose headers live as long as the program.
    let (base, headers) = unsafe {
        let info = &*info;
        (
            info.dlpi_addr,
            std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)),
        )
    };
    let page_bytes = page_bytes();
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
        if let Some(place) = segments.ranges.get_mut(segments.count)
            && first < end
        {
            *place = (first, end - first);
            segments.count += 1;
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
        let no_time = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        assert_eq!(rest(&mut [], Some(&no_time)), Ok(0));
        let after = resident_file_kib();
        assert!(after < before, "{before} KiB before, {after} KiB after");
        assert_eq!(format!("{:>4}", 7), "   7", "code runs again");
    }

    #[test]
    fn it_waits_for_what_comes() {
        let (reader, writer) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut &writer, b"x").unwrap();
        let mut set = [PollFd::new(&reader, rustix::event::PollFlags::IN)];
        assert_eq!(rest(&mut set, None), Ok(1));
        assert!(set[0].revents().contains(rustix::event::PollFlags::IN));
    }
}
