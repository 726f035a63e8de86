//! System calls that rustix does not offer: fork, execve, signal state, signalfd, exit.
//!
//! A new architecture is one file beside this one. Sources: the kernel's
//! `arch/*/entry/syscalls` tables, signal(7), signalfd(2).
#![allow(unsafe_code)] // raw system calls

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "arm")]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as arch;
#[cfg(target_arch = "arm")]
use arm as arch;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

use core::ffi::{CStr, c_char};
use core::ptr;

use alloc::ffi::CString;
use alloc::vec::Vec;
use rustix::fd::{FromRawFd, OwnedFd, RawFd};
use rustix::io::Errno;
use rustix::process::Pid;

use arch::{number, syscall5};

/// For the start stub: the only kind of relocation in a static position-independent executable.
pub const RELOCATION_RELATIVE: usize = arch::RELOCATION_RELATIVE;

/// SIGCHLD, the same on all architectures here.
const SIGCHLD: usize = 17;
/// The highest signal number.
const SIGNALS: usize = 64;
/// Bytes of the kernel's signal set.
const SIGSET_BYTES: usize = 8;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;

fn checked(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| {
        // The kernel returns -4095 to -1.
        Errno::from_raw_os_error(i32::try_from(-result).unwrap_or(0))
    })
}

/// Who one is after [`fork`].
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The old one.
    Parent(Pid),
}

/// Forks the helper. In the child, callers end in [`execute`] or [`exit`] and never return.
pub fn fork() -> Result<Forked, Errno> {
    // SAFETY: a forked child may run arbitrary code only if no other thread existed that could have
    // held a lock. The helper starts no thread. No pointer is passed.
    match checked(unsafe { syscall5(number::CLONE, SIGCHLD, 0, 0, 0, 0) })? {
        0 => Ok(Forked::Child),
        pid => i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .map(Forked::Parent)
            .ok_or(Errno::SRCH),
    }
}

/// Replaces the process by `path`; returns only the reason why not.
pub fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    let pointers = |strings: &[CString]| -> Vec<*const c_char> {
        strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect()
    };
    let (arguments, environment) = (pointers(arguments), pointers(environment));
    // SAFETY: the three pointers are to NUL-ended strings and NULL-ended lists of such, all alive.
    let result = unsafe {
        syscall5(
            number::EXECVE,
            path.as_ptr() as usize,
            arguments.as_ptr() as usize,
            environment.as_ptr() as usize,
            0,
            0,
        )
    };
    checked(result).err().unwrap_or(Errno::INVAL)
}

/// Ends the process at once.
pub fn exit(status: i32) -> ! {
    loop {
        // SAFETY: takes a number, does not return.
        unsafe {
            syscall5(
                number::EXIT_GROUP,
                status.cast_unsigned() as usize,
                0,
                0,
                0,
                0,
            )
        };
    }
}

/// Default dispositions for all signals and an empty mask: what a session starts with.
pub fn reset_signals() {
    // The kernel's sigaction is 20 to 32 bytes; all zero is SIG_DFL on every architecture.
    let default = [0_u64; 4];
    let none = 0_u64;
    for signal in 1..=SIGNALS {
        // SAFETY: the pointer is to a local large enough. SIGKILL and SIGSTOP refuse; no harm.
        unsafe {
            syscall5(
                number::RT_SIGACTION,
                signal,
                (&raw const default) as usize,
                0,
                SIGSET_BYTES,
                0,
            )
        };
    }
    // SAFETY: the pointer is to 8 bytes, the size passed.
    unsafe {
        syscall5(
            number::RT_SIGPROCMASK,
            SIG_SETMASK,
            (&raw const none) as usize,
            0,
            SIGSET_BYTES,
            0,
        )
    };
}

/// Blocks SIGCHLD and returns a descriptor that becomes readable with it (nonblocking).
pub fn child_signals() -> Result<OwnedFd, Errno> {
    const NONBLOCK_CLOEXEC: usize = 0o2_004_000;
    let set: u64 = 1 << (SIGCHLD - 1);
    let address = (&raw const set) as usize;
    // SAFETY: the pointer is to 8 bytes, the size passed; -1 asks for a new descriptor.
    let descriptor = unsafe {
        checked(syscall5(
            number::RT_SIGPROCMASK,
            SIG_BLOCK,
            address,
            0,
            SIGSET_BYTES,
            0,
        ))?;
        checked(syscall5(
            number::SIGNALFD4,
            usize::MAX,
            address,
            SIGSET_BYTES,
            NONBLOCK_CLOEXEC,
            0,
        ))?
    };
    let descriptor = RawFd::try_from(descriptor).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
