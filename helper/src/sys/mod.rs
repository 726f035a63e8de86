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
use core::marker::PhantomData;
use core::ptr;

use alloc::ffi::CString;
use alloc::vec::Vec;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::{Errno, FdFlags};
use rustix::mm::{Advice, madvise};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use arch::number;
pub use arch::syscall5;

/// For the start stub: the only kind of relocation in a static position-independent executable.
pub const RELOCATION_RELATIVE: usize = arch::RELOCATION_RELATIVE;

/// SIGCHLD, the same on all architectures here.
const SIGCHLD: usize = 17;
/// Bytes of the kernel's signal set.
const SIGSET_BYTES: usize = 8;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
const CLOCK_REALTIME: usize = 0;
const CLOCK_MONOTONIC: usize = 1;
const SIGPIPE: usize = 13;
const SIGXFSZ: usize = 25;
/// Up to here descriptors are closed one by one where the kernel cannot close them all at once.
const CLOSED_ONE_BY_ONE: usize = 4096;
/// The smallest page of any machine.
const PAGE_BYTES: usize = 4096;
/// Below the frame that gives stack back: what the call that does so pushes itself.
const STACK_KEPT_BYTES: usize = 512;
/// Deeper than the helper's calls go.
const STACK_RELEASED_BYTES: usize = 64 * 1024;
/// The first number behind standard input, output and error.
const FIRST_SESSION_NUMBER: RawFd = 3;

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
        pid => pid_of(pid).map(Forked::Parent),
    }
}

/// Starts a process that runs `child` with `argument`. It shares our memory, and we wait, until it
/// executes a program or exits: nothing is copied for it. What it still holds of the heap then is
/// lost, so `child` gets everything ready made.
pub fn spawn<T>(child: fn(&T) -> !, argument: &T) -> Result<Pid, Errno> {
    struct Start<'a, T> {
        child: fn(&T) -> !,
        argument: &'a T,
    }
    extern "C" fn enter<T>(start: *const ()) -> ! {
        // SAFETY: it is the `Start` below, alive and unchanged since its owner waits.
        let start = unsafe { &*start.cast::<Start<'_, T>>() };
        (start.child)(start.argument)
    }
    const CLONE_VM: usize = 0x100;
    const CLONE_VFORK: usize = 0x4000;
    let start = Start { child, argument };
    // SAFETY: `enter` gets the argument it is for. The child works on the part of our stack that is
    // free while we wait, has descriptors and signal dispositions of its own, and never returns. No
    // signal has a handler but, where the helper is the agent itself, those of faults, which end the
    // child. Of another thread it could find a lock taken, but the helper starts none.
    let result = unsafe {
        arch::clone_and_call(
            CLONE_VM | CLONE_VFORK | SIGCHLD,
            enter::<T>,
            (&raw const start).cast(),
        )
    };
    pid_of(checked(result)?)
}

fn pid_of(number: usize) -> Result<Pid, Errno> {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
    pid.ok_or(Errno::SRCH)
}

/// A program to execute, with the lists that the kernel wants.
#[derive(Debug)]
pub struct Execution<'a> {
    path: &'a CStr,
    arguments: Vec<*const c_char>,
    environment: Vec<*const c_char>,
    strings: PhantomData<&'a CString>,
}

impl<'a> Execution<'a> {
    /// `path` with its arguments, the name first, and its environment.
    pub fn new(path: &'a CStr, arguments: &'a [CString], environment: &'a [CString]) -> Self {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            let mut pointers = Vec::with_capacity(strings.len() + 1);
            for string in strings {
                pointers.push(string.as_ptr());
            }
            pointers.push(ptr::null());
            pointers
        };
        Self {
            path,
            arguments: pointers(arguments),
            environment: pointers(environment),
            strings: PhantomData,
        }
    }

    /// Replaces the process; returns only the reason why not.
    pub fn run(&self) -> Errno {
        // SAFETY: the three pointers are to NUL-ended strings and NULL-ended lists of such, all alive.
        let result = unsafe {
            syscall5(
                number::EXECVE,
                self.path.as_ptr() as usize,
                self.arguments.as_ptr() as usize,
                self.environment.as_ptr() as usize,
                0,
                0,
            )
        };
        checked(result).err().unwrap_or(Errno::INVAL)
    }
}

/// Waits for the end of a child; `None`: there is no such child.
#[inline(never)]
pub fn await_child(child: Pid) -> Option<WaitStatus> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(ended) => return ended.map(|(_, status)| status),
            Err(Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}

/// Replaces the process by `path`; returns only the reason why not.
pub fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> Errno {
    Execution::new(path, arguments, environment).run()
}

/// Gives back what deeper calls left behind of the stack below the caller's: a helper that waits for
/// hours needs two pages of it.
#[inline(never)]
pub fn release_stack() {
    let here = 0_u8;
    let end = (ptr::from_ref(&here).addr() - STACK_KEPT_BYTES) / PAGE_BYTES * PAGE_BYTES;
    let start = ptr::without_provenance_mut(end - STACK_RELEASED_BYTES);
    // SAFETY: stacks grow down, so nothing in the range is alive; what this call itself pushes lies
    // above it. The kernel leaves a mebibyte below its stack for a process free of other mappings, and
    // threads (of tests) have two, so no other mapping begins in the range. Where a page is larger
    // than supposed here, the address is none and nothing happens.
    let _ = unsafe { madvise(start, STACK_RELEASED_BYTES, Advice::LinuxDontNeed) };
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

/// Default dispositions and an empty mask: what a session starts with. The launcher gave us the
/// former; where the helper is the agent itself, its runtime ignores SIGPIPE.
pub fn reset_signals() {
    // The kernel's sigaction is 20 to 32 bytes; all zero is SIG_DFL on every architecture.
    let default = [0_u64; 4];
    let none = 0_u64;
    // SAFETY: the pointers are to a local large enough, and to 8 bytes, the size passed.
    unsafe {
        syscall5(
            number::RT_SIGACTION,
            SIGPIPE,
            (&raw const default) as usize,
            0,
            SIGSET_BYTES,
            0,
        );
        syscall5(
            number::RT_SIGPROCMASK,
            SIG_SETMASK,
            (&raw const none) as usize,
            0,
            SIGSET_BYTES,
            0,
        );
    }
}

/// Blocks the signals by which a write says what its result says too: nobody reads, file too large.
pub fn block_write_signals() {
    let set: u64 = 1 << (SIGPIPE - 1) | 1 << (SIGXFSZ - 1);
    // SAFETY: the pointer is to 8 bytes, the size passed.
    unsafe {
        syscall5(
            number::RT_SIGPROCMASK,
            SIG_BLOCK,
            (&raw const set) as usize,
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

/// Takes a descriptor that the launcher placed at `number`, and makes it close-on-exec.
pub fn inherited(number: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: only borrowed, to ask whether it is there.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_setfd(borrowed, FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and nothing else in this process knows of it: callers ask once.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes a file, and says what became of what was written to it: network file systems store it now
/// at the latest, and a disk that is full shows only then (close(2)).
pub fn close(descriptor: OwnedFd) -> Result<(), Errno> {
    let number = usize::try_from(descriptor.into_raw_fd()).unwrap_or(usize::MAX);
    // SAFETY: the number was ours alone, and is closed whatever the result says.
    match checked(unsafe { syscall5(number::CLOSE, number, 0, 0, 0, 0) }) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Closes every descriptor but `kept` and 0 to 2; for a forked child, whose other values of
/// descriptors must not be used or dropped any more: it ends in [`execute`] or [`exit`].
pub fn keep_only<const N: usize>(kept: [OwnedFd; N]) -> Result<[OwnedFd; N], Errno> {
    let mut numbers = kept.map(IntoRawFd::into_raw_fd);
    move_to_front(&mut numbers)?;
    // SAFETY: they are open and stand for what was `kept`, which no other value does any more.
    Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }))
}

/// Gives the descriptors behind `numbers` the first numbers of a session, and closes all others.
fn move_to_front(numbers: &mut [RawFd]) -> Result<(), Errno> {
    let behind = FIRST_SESSION_NUMBER + RawFd::try_from(numbers.len()).unwrap_or(0);
    // Out of the way of all targets first, then onto them. Their old numbers are closed below, or
    // stand for a target by now.
    for number in numbers.iter_mut() {
        // SAFETY: the caller passes open descriptors.
        let old = unsafe { BorrowedFd::borrow_raw(*number) };
        *number = rustix::io::fcntl_dupfd_cloexec(old, behind)?.into_raw_fd();
    }
    for (number, target) in numbers.iter_mut().zip(FIRST_SESSION_NUMBER..) {
        // SAFETY: it was made above; dup3 onto a number that no value we still use stands for.
        let (moved, mut target) = unsafe {
            (
                BorrowedFd::borrow_raw(*number),
                OwnedFd::from_raw_fd(target),
            )
        };
        rustix::io::dup3(moved, &mut target, rustix::io::DupFlags::CLOEXEC)?;
        *number = target.into_raw_fd();
    }
    close_from(behind);
    Ok(())
}

/// Closes every descriptor from `first` on; for a forked child, as [`keep_only`].
pub fn close_from(first: RawFd) {
    let first = usize::try_from(first).unwrap_or(usize::MAX);
    // SAFETY: takes numbers only; the caller keeps the rule above.
    let closed = unsafe { syscall5(number::CLOSE_RANGE, first, u32::MAX as usize, 0, 0, 0) };
    if checked(closed) == Err(Errno::NOSYS) {
        // Linux before 5.9. A helper has few descriptors, and the kernel gives the lowest numbers.
        for descriptor in first..CLOSED_ONE_BY_ONE {
            // SAFETY: as above.
            unsafe { syscall5(number::CLOSE, descriptor, 0, 0, 0, 0) };
        }
    }
}

/// Makes `device` the tunnel device that `request` names, and has its name written there: TUNSETIFF
/// with the kernel's `struct ifreq`, which has 40 bytes at most.
pub fn set_tunnel_interface(device: &OwnedFd, request: &mut [u8; 40]) -> Result<(), Errno> {
    const TUNSETIFF: usize = 0x4004_54ca;
    // SAFETY: the kernel reads and writes a `struct ifreq` at the pointer, 32 or 40 bytes by
    // architecture, and what it points to has 40. A descriptor of another kind refuses.
    unsafe { ioctl(device, TUNSETIFF, request.as_mut_ptr() as usize) }
}

/// The number of the terminal behind `master`: TIOCGPTN.
pub fn terminal_number(master: &OwnedFd) -> Result<u32, Errno> {
    const TIOCGPTN: usize = 0x8004_5430;
    let mut number = 0_u32;
    // SAFETY: the kernel writes an `unsigned int`. A descriptor of another kind refuses.
    unsafe { ioctl(master, TIOCGPTN, (&raw mut number) as usize)? };
    Ok(number)
}

/// # Safety
///
/// `argument` is what `request` demands of it.
unsafe fn ioctl(device: &OwnedFd, request: usize, argument: usize) -> Result<(), Errno> {
    let number = usize::try_from(device.as_raw_fd()).map_err(|_| Errno::BADF)?;
    // SAFETY: as the caller says.
    checked(unsafe { syscall5(number::IOCTL, number, request, argument, 0, 0) }).map(drop)
}

/// The session's stdin, in the session's process.
pub fn standard_input() -> BorrowedFd<'static> {
    // SAFETY: the launcher put something at 0, 1 and 2, and nothing ever closes these numbers.
    unsafe { BorrowedFd::borrow_raw(0) }
}

/// Milliseconds of a clock that nobody sets. rustix would look for it in the vDSO, with code that
/// is larger than what uses it.
pub fn now_ms() -> u64 {
    let [seconds, nanoseconds] = clock(CLOCK_MONOTONIC);
    seconds
        .saturating_mul(1000)
        .saturating_add(nanoseconds / 1_000_000)
}

/// Seconds since 1970.
pub fn realtime_s() -> u64 {
    let [seconds, _] = clock(CLOCK_REALTIME);
    seconds
}

fn clock(which: usize) -> [u64; 2] {
    // The kernel's timespec: two words, on every architecture here.
    let mut now = [0_usize; 2];
    // SAFETY: the pointer is to a local of the size that the call writes.
    unsafe {
        syscall5(
            number::CLOCK_GETTIME,
            which,
            (&raw mut now) as usize,
            0,
            0,
            0,
        )
    };
    now.map(|word| u64::try_from(word).unwrap_or(0))
}

/// The session's stdout, in the session's process.
pub fn standard_output() -> BorrowedFd<'static> {
    // SAFETY: as above.
    unsafe { BorrowedFd::borrow_raw(1) }
}

/// The session's stderr, in the session's process.
pub fn standard_error() -> BorrowedFd<'static> {
    // SAFETY: as above.
    unsafe { BorrowedFd::borrow_raw(2) }
}
