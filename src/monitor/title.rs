//! What `ps` shows of this process.
#![allow(unsafe_code)] // Reason: the title is the memory that the kernel put argv into.

use std::ffi::CString;

/// comm is 15 bytes (TASK_COMM_LEN less the NUL).
const COMM_MAX_BYTES: usize = 15;

/// Sets command line and comm. Where the kernel does not let us move the command line, it has the
/// room that the original one had, and what does not fit is cut off.
pub(super) fn set(title: &str) {
    let short = title
        .as_bytes()
        .get(..COMM_MAX_BYTES)
        .unwrap_or(title.as_bytes());
    let Ok(short) = CString::new(short.trim_ascii_end()) else {
        return;
    };
    let Ok(whole) = CString::new(title) else {
        return;
    };
    let _ = rustix::thread::set_name(&short);
    if !move_to(whole)
        && let Some((start, end)) = argument_area()
    {
        overwrite(start, end, title.as_bytes());
    }
}

/// Makes the kernel read the command line elsewhere (PR_SET_MM, CAP_SYS_RESOURCE).
fn move_to(title: CString) -> bool {
    let len = title.as_bytes_with_nul().len();
    // Never freed: the kernel reads it for as long as the process lives.
    let start = title.into_raw().expose_provenance();
    let point = |what: libc::c_int, address: usize| {
        // SAFETY: PR_SET_MM_ARG_* only tell the kernel which memory to show; it checks the address.
        unsafe { libc::prctl(libc::PR_SET_MM, what, address, 0, 0) == 0 }
    };
    let end = start + len;
    // The kernel wants start before end at every moment; which way round depends on the layout.
    let first_start =
        point(libc::PR_SET_MM_ARG_START, start) && point(libc::PR_SET_MM_ARG_END, end);
    first_start || (point(libc::PR_SET_MM_ARG_END, end) && point(libc::PR_SET_MM_ARG_START, start))
}

/// arg_start and arg_end of proc_pid_stat(5), the 48th and 49th field.
fn argument_area() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // comm may hold blanks and brackets: fields count from behind the last bracket.
    let behind = stat.rsplit_once(')')?.1;
    let mut fields = behind.split_ascii_whitespace().skip(45);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn overwrite(start: usize, end: usize, title: &[u8]) {
    let room = end.saturating_sub(start);
    if start == 0 || room < 2 {
        return;
    }
    let len = title.len().min(room - 1);
    // SAFETY: the kernel says that [start, end) holds this process's argument strings: mapped,
    // writable stack memory that lives as long as the process. std copies arguments when asked for
    // them, and the command line was parsed before; nobody holds a reference into this area.
    unsafe {
        let area = std::ptr::with_exposed_provenance_mut::<u8>(start);
        std::ptr::write_bytes(area, 0, room);
        std::ptr::copy_nonoverlapping(title.as_ptr(), area, len);
    }
}
