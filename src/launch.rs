//! Starts a program from a descriptor, with vfork semantics: every role of `agent` and the helper.
//!
//! Owns what happens between the clone and the exec. `fork` would copy the page tables of a big
//! process (milliseconds, measured) and run `atfork` handlers of a process with threads; a path
//! would need `/proc` and could name another file by now. So: `clone(CLONE_VM | CLONE_VFORK)` on a
//! stack of its own with every signal blocked, then nothing but raw system calls in the child, then
//! `execveat` of the descriptor. The caller's thread sleeps until the exec, its other threads run.
//!
//! The child gets exactly the descriptors it was given, default signal dispositions and an empty
//! signal mask; never `no_new_privs` (it would break the user's sudo) and no parent-death signal
//! (it follows the thread that launched, not the process).
//!
//! Sources: clone(2), vfork(2), execveat(2), close_range(2), proc_pid_oom_score_adj(5).
#![allow(unsafe_code)] // clone with shared memory, and raw system calls in the child

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::process::{Pid, WaitOptions};

/// Number of the first descriptor that is passed on.
pub const FIRST_DESCRIPTOR: i32 = 3;

/// Where descriptors 0, 1 and 2 of the new process lead.
#[derive(Debug, Clone, Copy, Default)]
pub enum Stdio<'a> {
    /// `/dev/null`; where there is none, a descriptor that reads as ended and refuses writes.
    #[default]
    Null,
    /// The caller's own.
    Inherit,
    /// Input as with [`Stdio::Null`]; output and errors lead here.
    Output(BorrowedFd<'a>),
}

/// A program to start.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The executable; an ELF file (a script could not be read through a close-on-exec descriptor).
    pub image: BorrowedFd<'a>,
    /// Arguments, argv\[0\] included.
    pub argv: &'a [&'a CStr],
    /// The whole environment, `NAME=value`.
    pub environment: &'a [CString],
    /// These become 3, 4, 5 … in the new process; nothing else stays open there.
    pub descriptors: &'a [BorrowedFd<'a>],
    /// Descriptors 0 to 2.
    pub stdio: Stdio<'a>,
    /// Start a session of its own, away from the caller's terminal and process group.
    pub new_session: bool,
    /// oom_score_adj of the new process; `None` inherits the caller's.
    pub oom_score_adj: Option<i32>,
}

impl<'a> Launch<'a> {
    /// `image` with `argv`: no environment, no descriptors, `/dev/null` as 0 to 2.
    pub fn new(image: BorrowedFd<'a>, argv: &'a [&'a CStr]) -> Self {
        Self {
            image,
            argv,
            environment: &[],
            descriptors: &[],
            stdio: Stdio::Null,
            new_session: false,
            oom_score_adj: None,
        }
    }
}

/// A process that was started.
#[derive(Debug)]
pub struct Launched {
    /// Its process id. It is a child of the caller, who must reap it.
    pub pid: Pid,
    /// A descriptor for it, where the kernel has such (5.2).
    pub pidfd: Option<OwnedFd>,
}

/// Starts `launch`; returns when the new program runs.
///
/// # Errors
///
/// The errno of whatever failed, the exec itself included; nothing is left behind then.
pub fn launch(launch: &Launch<'_>) -> io::Result<Launched> {
    let null = match launch.stdio {
        Stdio::Null | Stdio::Output(_) => Some(null_descriptor()?),
        Stdio::Inherit => None,
    };
    let output = match launch.stdio {
        Stdio::Output(output) => output.as_raw_fd(),
        Stdio::Null | Stdio::Inherit => -1,
    };
    let argv: Vec<*const c_char> = launch
        .argv
        .iter()
        .map(|arg| arg.as_ptr())
        .chain([ptr::null()])
        .collect();
    let environment: Vec<*const c_char> = launch
        .environment
        .iter()
        .map(|entry| entry.as_ptr())
        .chain([ptr::null()])
        .collect();
    // One scratch slot for each passed descriptor: the child may not allocate.
    let mut sources: Vec<c_int> = launch.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let image_number = FIRST_DESCRIPTOR
        .checked_add(c_int::try_from(sources.len()).map_err(|_| io::ErrorKind::InvalidInput)?)
        .ok_or(io::ErrorKind::InvalidInput)?;
    let image_path = CString::new(format!("/proc/self/fd/{image_number}"))?;
    let oom_score_adj = launch.oom_score_adj.map(|score| score.to_string());
    let mut plan = Plan {
        image: launch.image.as_raw_fd(),
        image_number,
        image_path: image_path.as_ptr(),
        argv: argv.as_ptr(),
        environment: environment.as_ptr(),
        sources: sources.as_mut_ptr(),
        sources_len: sources.len(),
        null: null.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        output,
        new_session: launch.new_session,
        oom_score_adj: oom_score_adj
            .as_ref()
            .map_or(ptr::null(), |text| text.as_ptr()),
        oom_score_adj_len: oom_score_adj.as_ref().map_or(0, String::len),
        errno: AtomicI32::new(0),
    };
    let stack = Stack::new()?;
    let (pid, pidfd) = clone_and_wait(&stack, &mut plan)?;
    let errno = plan.errno.load(Ordering::Acquire);
    if errno != 0 {
        // It exits at once. Somebody else may have reaped it already: nothing to do then.
        while matches!(
            rustix::process::waitpid(Some(pid), WaitOptions::empty()),
            Err(rustix::io::Errno::INTR)
        ) {}
        return Err(io::Error::from_raw_os_error(errno));
    }
    Ok(Launched { pid, pidfd })
}

/// Something harmless for 0 to 2.
fn null_descriptor() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    if let Ok(null) = rustix::fs::open(c"/dev/null", flags, Mode::empty()) {
        return Ok(null);
    }
    // No /dev here. The reading end of a closed pipe ends at once for a reader; a writer gets EBADF,
    // which std takes for "no such stream" and which, unlike EPIPE, comes with no signal.
    let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok(reader)
}

/// All that the child reads, made before the clone: it may neither allocate nor take a lock.
struct Plan {
    image: c_int,
    image_number: c_int,
    image_path: *const c_char,
    argv: *const *const c_char,
    environment: *const *const c_char,
    sources: *mut c_int,
    sources_len: usize,
    null: c_int,
    /// For 1 and 2 in place of `null`.
    output: c_int,
    new_session: bool,
    oom_score_adj: *const u8,
    oom_score_adj_len: usize,
    /// Written by the child, read by the caller when the child is gone or has become the program.
    errno: AtomicI32,
}

/// The child's stack with a guard page below: a frame too many faults instead of writing over the
/// caller's memory.
struct Stack {
    base: *mut c_void,
}

impl Stack {
    const BYTES: usize = 64 * 1024;
    const GUARD_BYTES: usize = 64 * 1024; // the largest page size we may meet

    fn new() -> io::Result<Self> {
        let len = Self::BYTES + Self::GUARD_BYTES;
        // SAFETY: a fresh private mapping at an address of the kernel's choice aliases nothing.
        let base = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::STACK,
            )
        }?;
        let stack = Self { base };
        // SAFETY: the range is the lower part of the mapping above, which nothing uses yet.
        unsafe { rustix::mm::mprotect(base, Self::GUARD_BYTES, MprotectFlags::empty()) }?;
        Ok(stack)
    }

    fn top(&self) -> *mut c_void {
        // One past the end and page aligned, hence aligned for every ABI.
        self.base.wrapping_byte_add(Self::BYTES + Self::GUARD_BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the child that ran on it is gone or has its own memory:
        // CLONE_VFORK returned.
        let _ = unsafe { rustix::mm::munmap(self.base, Self::BYTES + Self::GUARD_BYTES) };
    }
}

/// Bytes of the kernel's signal set (not libc's): 64 signals.
const KERNEL_SIGSET_BYTES: usize = 8;

/// Clones, and returns when the child has executed the program or failed.
fn clone_and_wait(stack: &Stack, plan: &mut Plan) -> io::Result<(Pid, Option<OwnedFd>)> {
    const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    let argument = ptr::from_mut(plan).cast::<c_void>();
    let mut pidfd: c_int = -1;
    // The libc's own two or three internal signals included, which its wrapper would leave open: a
    // handler that ran in the child would write to memory of ours under the child's identity.
    let blocked = block_all_signals();
    // SAFETY: `child` runs on `stack`, which outlives it; it touches only `plan` and raw system
    // calls, and this thread sleeps until it is done (CLONE_VFORK). The pidfd pointer is valid.
    let mut pid = unsafe {
        libc::clone(
            child,
            stack.top(),
            FLAGS | libc::CLONE_PIDFD,
            argument,
            &raw mut pidfd,
        )
    };
    if pid < 0 && last_errno() == libc::EINVAL {
        // Emulators and old sandboxes refuse the flag; kernels before 5.2 just ignore it.
        // SAFETY: as above.
        pid = unsafe { libc::clone(child, stack.top(), FLAGS, argument) };
    }
    let errno = last_errno();
    restore_signals(blocked);
    // Before any other exit: the number is ours to close.
    // SAFETY: the kernel wrote it for us, and nobody else knows it.
    let pidfd = (pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(pidfd) });
    match Pid::from_raw(pid) {
        Some(pid) if pid.as_raw_nonzero().get() > 0 => Ok((pid, pidfd)),
        _ => Err(io::Error::from_raw_os_error(errno)),
    }
}

pub(crate) fn block_all_signals() -> u64 {
    let all = u64::MAX;
    let mut before = 0_u64;
    // SAFETY: both sets are 8 bytes, the size passed; the kernel cannot fail with valid pointers.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const all,
            &raw mut before,
            KERNEL_SIGSET_BYTES,
        );
    }
    before
}

pub(crate) fn restore_signals(mask: u64) {
    // SAFETY: as in `block_all_signals`; a null pointer asks for no old set.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask,
            ptr::null_mut::<u64>(),
            KERNEL_SIGSET_BYTES,
        );
    }
}

fn last_errno() -> c_int {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// Runs in the child, in the caller's memory: raw system calls only, and never returns.
extern "C" fn child(argument: *mut c_void) -> c_int {
    // SAFETY: `argument` is the `Plan` of the sleeping caller; its pointers stay valid until exec.
    unsafe {
        let plan = &*argument.cast::<Plan>();
        let errno = prepare_and_exec(plan);
        plan.errno.store(errno, Ordering::Release);
        loop {
            libc::syscall(libc::SYS_exit_group, 127);
        }
    }
}

/// Returns the errno of what failed; does not return otherwise.
///
/// SAFETY: for `child` only.
unsafe fn prepare_and_exec(plan: &Plan) -> c_int {
    // SAFETY: system calls on the child's own copy of descriptors, signal state and ids, with
    // pointers out of `plan` or to locals.
    unsafe {
        if plan.new_session {
            libc::syscall(libc::SYS_setsid);
        }
        if let Err(errno) = place_descriptors(plan) {
            return errno;
        }
        close_from(plan.image_number + 1);
        if !plan.oom_score_adj.is_null() {
            // In a vfork child the kernel changes the child's value only. Without /proc there is
            // nobody who could have changed the caller's either.
            let file = libc::syscall(
                libc::SYS_openat,
                libc::AT_FDCWD,
                c"/proc/self/oom_score_adj".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
                0,
            );
            if file >= 0 {
                libc::syscall(
                    libc::SYS_write,
                    file,
                    plan.oom_score_adj,
                    plan.oom_score_adj_len,
                );
                libc::syscall(libc::SYS_close, file);
            }
        }
        reset_signals();
        libc::syscall(
            libc::SYS_execveat,
            plan.image_number,
            c"".as_ptr(),
            plan.argv,
            plan.environment,
            libc::AT_EMPTY_PATH,
        );
        let errno = last_errno();
        if errno == libc::ENOSYS {
            // Kernels before 3.19 and some emulators.
            libc::syscall(
                libc::SYS_execve,
                plan.image_path,
                plan.argv,
                plan.environment,
            );
            return last_errno();
        }
        errno
    }
}

/// Puts the plan's descriptors where they belong and the image behind them.
///
/// SAFETY: for `prepare_and_exec` only.
unsafe fn place_descriptors(plan: &Plan) -> Result<(), c_int> {
    // SAFETY: as in `prepare_and_exec`; `sources` has `sources_len` elements that only we use.
    unsafe {
        // Sources below the first free number could be overwritten before their turn: away first.
        let clear = plan.image_number + 1;
        let image = duplicate_above(plan.image, clear)?;
        let null = if plan.null >= 0 {
            duplicate_above(plan.null, clear)?
        } else {
            -1
        };
        let output = if plan.output >= 0 {
            duplicate_above(plan.output, clear)?
        } else {
            null
        };
        for index in 0..plan.sources_len {
            let slot = plan.sources.add(index);
            *slot = duplicate_above(*slot, clear)?;
        }
        for (index, number) in (0..plan.sources_len).zip(FIRST_DESCRIPTOR..) {
            check(libc::syscall(
                libc::SYS_dup3,
                *plan.sources.add(index),
                number,
                0,
            ))?;
        }
        if null >= 0 {
            for (number, source) in [(0, null), (1, output), (2, output)] {
                check(libc::syscall(libc::SYS_dup3, source, number, 0))?;
            }
        }
        check(libc::syscall(
            libc::SYS_dup3,
            image,
            plan.image_number,
            libc::O_CLOEXEC,
        ))?;
    }
    Ok(())
}

/// SAFETY: for `place_descriptors` only.
unsafe fn duplicate_above(descriptor: c_int, lowest: c_int) -> Result<c_int, c_int> {
    // SAFETY: F_DUPFD takes numbers only.
    let number = unsafe {
        #[cfg(not(target_arch = "arm"))]
        const FCNTL: c_long = libc::SYS_fcntl;
        #[cfg(target_arch = "arm")]
        const FCNTL: c_long = libc::SYS_fcntl64;
        check(libc::syscall(
            FCNTL,
            descriptor,
            libc::F_DUPFD_CLOEXEC,
            lowest,
        ))?
    };
    c_int::try_from(number).map_err(|_| libc::EBADF)
}

fn check(result: c_long) -> Result<c_long, c_int> {
    if result < 0 {
        Err(last_errno())
    } else {
        Ok(result)
    }
}

/// Closes every descriptor from `first` on.
///
/// SAFETY: for `prepare_and_exec` only.
unsafe fn close_from(first: c_int) {
    // SAFETY: the child's own descriptor table.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) == 0 {
            return;
        }
        // Before 5.9. Descriptors can lie above the soft limit, so the list is asked first.
        if close_listed(first) {
            return;
        }
        let mut limit = MaybeUninit::<[u64; 2]>::zeroed().assume_init();
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            libc::RLIMIT_NOFILE,
            ptr::null::<c_void>(),
            &raw mut limit,
        );
        // Without /proc and close_range; a million calls are a twentieth of a second.
        let end = c_int::try_from(limit[0].min(1 << 20)).unwrap_or(1 << 20);
        for number in first..end {
            libc::syscall(libc::SYS_close, number);
        }
    }
}

/// [`close_from`] by the list in /proc; false where there is none.
///
/// SAFETY: for `close_from` only.
unsafe fn close_listed(first: c_int) -> bool {
    const NAME_OFFSET: usize = 19; // struct linux_dirent64: ino 8, off 8, reclen 2, type 1
    #[repr(align(8))]
    struct Buffer([u8; 1024]);
    // SAFETY: the buffer is as large as said; offsets stay inside what the kernel filled.
    unsafe {
        let directory = libc::syscall(
            libc::SYS_openat,
            libc::AT_FDCWD,
            c"/proc/self/fd".as_ptr(),
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
            0,
        );
        if directory < 0 {
            return false;
        }
        let mut buffer = Buffer([0; 1024]);
        loop {
            let filled = libc::syscall(
                libc::SYS_getdents64,
                directory,
                &raw mut buffer.0,
                buffer.0.len(),
            );
            let Ok(filled @ 1..) = usize::try_from(filled) else {
                break;
            };
            let mut closed_any = false;
            let mut rest = buffer.0.get(..filled).unwrap_or(&[]);
            while let (Some(&[low, high]), Some(name)) = (rest.get(16..18), rest.get(NAME_OFFSET..))
            {
                let mut number: c_long = 0;
                for digit in name.iter().take_while(|byte| byte.is_ascii_digit()) {
                    number = number * 10 + c_long::from(digit - b'0');
                }
                let is_number = name.first().is_some_and(u8::is_ascii_digit);
                if is_number && number >= c_long::from(first) && number != directory {
                    libc::syscall(libc::SYS_close, number);
                    closed_any = true;
                }
                rest = rest
                    .get(usize::from(u16::from_ne_bytes([low, high])).max(1)..)
                    .unwrap_or(&[]);
            }
            if closed_any {
                // Positions in this directory are numbers of descriptors: start over to miss none.
                libc::syscall(libc::SYS_lseek, directory, 0, libc::SEEK_SET);
            }
        }
        libc::syscall(libc::SYS_close, directory);
    }
    true
}

/// Default dispositions (an ignored signal would stay ignored across exec) and an empty mask.
///
/// SAFETY: for `prepare_and_exec` only.
unsafe fn reset_signals() {
    const LAST_SIGNAL: c_int = 64;
    // The kernel's sigaction is 20 to 32 bytes of handler, flags, restorer and mask: all zero is
    // SIG_DFL on every architecture.
    let default = [0_u64; 8];
    let none = 0_u64;
    // SAFETY: the pointers are to locals large enough. Without CLONE_SIGHAND the table is the
    // child's own. SIGKILL and SIGSTOP refuse, which changes nothing.
    unsafe {
        for signal in 1..=LAST_SIGNAL {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const default,
                ptr::null_mut::<c_void>(),
                KERNEL_SIGSET_BYTES,
            );
        }
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut::<c_void>(),
            KERNEL_SIGSET_BYTES,
        );
    }
}

#[cfg(test)]
mod tests;
