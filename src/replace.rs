//! Puts another program in the place of this one: the same process, so that its parent, its children
//! and its process id stay.
//!
//! Nothing happens that a failure would not undo: execve(2) itself closes what is close-on-exec, so
//! until it succeeds every descriptor stays where it is, and afterwards exactly the named ones are
//! left, under the numbers that they have. Signals can be held meanwhile: they wait through the exec
//! for a program that has its handlers.
//!
//! Sources: execveat(2), close_range(2), signal(7) on what an exec keeps.
#![allow(unsafe_code)] // execveat, and flags of descriptors by their numbers

use std::ffi::{CString, c_char, c_int};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use rustix::io::{FdFlags, fcntl_setfd};

use crate::launch::{self, FIRST_DESCRIPTOR};

/// A program to become.
#[derive(Debug, Clone, Copy)]
pub struct Replacement<'a> {
    /// The executable.
    pub image: BorrowedFd<'a>,
    /// Arguments, argv\[0\] included.
    pub argv: &'a [CString],
    /// The whole environment, `NAME=value`.
    pub environment: &'a [CString],
    /// These stay open, and of all from 3 on no others.
    pub descriptors: &'a [BorrowedFd<'a>],
}

/// Becomes another program. Returns only where that failed, with everything as it was.
pub fn replace(replacement: &Replacement<'_>) -> io::Error {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        let all = strings.iter().map(|string| string.as_ptr());
        all.chain([ptr::null()]).collect()
    };
    let (argv, environment) = (
        pointers(replacement.argv),
        pointers(replacement.environment),
    );
    let image = replacement.image.as_raw_fd();
    let Ok(path) = CString::new(format!("/proc/self/fd/{image}")) else {
        return io::ErrorKind::InvalidInput.into();
    };
    close_all_on_exec();
    let flag = |flags| {
        for descriptor in replacement.descriptors {
            // Of a descriptor that is open, as a borrowed one is, this cannot fail.
            let _ = fcntl_setfd(descriptor, flags);
        }
    };
    flag(FdFlags::empty());
    // SAFETY: both lists end in a null pointer and point to strings that outlive the call.
    let error = unsafe {
        libc::syscall(
            libc::SYS_execveat,
            image,
            c"".as_ptr(),
            argv.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        );
        let error = io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ENOSYS) {
            // Kernels before 3.19 and some emulators.
            libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr());
            io::Error::last_os_error()
        } else {
            error
        }
    };
    flag(FdFlags::CLOEXEC);
    error
}

/// Whatever a program of others, or a service manager, left open in here ends with this program.
fn close_all_on_exec() {
    const CLOSE_ON_EXEC: c_int = 1 << 2; // CLOSE_RANGE_CLOEXEC of linux/close_range.h
    // SAFETY: the call takes numbers; it changes a flag of descriptors, and none is closed.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_DESCRIPTOR,
            u32::MAX,
            CLOSE_ON_EXEC,
        )
    };
    if done == 0 {
        return;
    }
    // Before 5.11. Our own are close-on-exec from the start: this is about those of others.
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten();
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let numbers: Vec<c_int> = names.filter_map(|name| name.parse().ok()).collect();
    for number in numbers
        .into_iter()
        .filter(|number| *number >= FIRST_DESCRIPTOR)
    {
        // SAFETY: borrowed for one call, which sets a flag or says that the number is not open.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
}

/// Signals wait as long as this lives.
#[derive(Debug)]
pub struct HeldSignals(u64);

/// Holds all signals back.
pub fn hold_signals() -> HeldSignals {
    HeldSignals(launch::block_all_signals())
}

impl Drop for HeldSignals {
    fn drop(&mut self) {
        launch::restore_signals(self.0);
    }
}

/// Lets the signals come that were held when this program took the place of another.
pub fn release_signals() {
    const NONE: u64 = 0;
    launch::restore_signals(NONE);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs::File;
    use std::io::Read;
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::process::{Pid, WaitOptions, waitpid};

    use super::*;

    /// Forks, becomes `image` in the child and gives its exit status; 99 where it did not become it.
    fn become_in_a_child(image: BorrowedFd<'_>, argv: &[CString], kept: &[BorrowedFd<'_>]) -> i32 {
        // SAFETY: the child does nothing but become another program, or end.
        let child = unsafe {
            let child = libc::fork();
            if child == 0 {
                let held = hold_signals();
                let _ = replace(&Replacement {
                    image,
                    argv,
                    environment: &[c"PATH=/usr/bin:/bin".to_owned()],
                    descriptors: kept,
                });
                drop(held);
                libc::_exit(99);
            }
            Pid::from_raw(child).unwrap()
        };
        let (_, status) = waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
        status.exit_status().unwrap_or(-1)
    }

    fn shell(script: &str) -> (File, Vec<CString>) {
        let argv = ["sh", "-c", script].map(|word| CString::new(word).unwrap());
        (File::open("/bin/sh").unwrap(), argv.to_vec())
    }

    #[test]
    fn the_new_program_has_the_named_descriptors_and_held_signals() {
        let (mut reader, writer) = io::pipe().unwrap();
        // Not close-on-exec: left open by somebody else.
        let stray: OwnedFd = File::open("/dev/null").unwrap().into();
        fcntl_setfd(&stray, FdFlags::empty()).unwrap();
        let out = writer.as_raw_fd();
        let script = format!(
            "for n in /proc/$$/fd/*; do [ -e $n ] && printf '%s ' ${{n##*/}}; done >>/proc/$$/fd/{out};
             while read line; do case $line in SigBlk*) echo $line;; esac; done </proc/$$/status >>/proc/$$/fd/{out}"
        );
        let (image, argv) = shell(&script);
        assert_eq!(
            become_in_a_child(image.as_fd(), &argv, &[writer.as_fd()]),
            0
        );
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let (numbers, blocked) = text.split_once("SigBlk: ").unwrap();
        let numbers: Vec<&str> = numbers.split_whitespace().collect();
        assert!(numbers.contains(&out.to_string().as_str()), "{numbers:?}");
        assert!(
            !numbers.contains(&stray.as_raw_fd().to_string().as_str()),
            "{numbers:?}"
        );
        assert!(numbers.len() <= 5, "{numbers:?}");
        // All but SIGKILL and SIGSTOP.
        assert_eq!(blocked.trim(), "fffffffffffbfeff", "{blocked}");
    }

    #[test]
    fn a_failure_changes_nothing() {
        let (reader, _writer) = io::pipe().unwrap();
        let text = File::open("/etc/passwd").unwrap();
        let error = replace(&Replacement {
            image: text.as_fd(),
            argv: &[c"x".to_owned()],
            environment: &[],
            descriptors: &[reader.as_fd()],
        });
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        let flags = rustix::io::fcntl_getfd(&reader).unwrap();
        assert!(flags.contains(FdFlags::CLOEXEC));
    }
}
