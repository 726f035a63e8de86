//! aarch64: the system call instruction, call numbers that rustix does not cover, the start stub.

use core::arch::asm;

/// Numbers of system calls.
pub mod number {
    pub const CLOCK_GETTIME: usize = 113;
    pub const CLOSE: usize = 57;
    pub const CLOSE_RANGE: usize = 436;
    pub const SIGNALFD4: usize = 74;
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGACTION: usize = 134;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const IOCTL: usize = 29;
}

/// `R_AARCH64_RELATIVE`.
pub const RELOCATION_RELATIVE: usize = 1027;

/// # Safety
///
/// The conditions of the call that `number` names.
#[inline]
pub unsafe fn syscall5(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but x0; the caller answers for the call.
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b, in("x2") c, in("x3") d, in("x4") e,
            options(nostack)
        );
    }
    result
}

/// clone(2) with `flags` and nothing else; the child calls `child` with `argument`, on the stack below
/// where we are. Gives what the call gives us.
///
/// # Safety
///
/// The conditions of the call; with CLONE_VM also CLONE_VFORK, so that we do not go on meanwhile.
pub unsafe fn clone_and_call(
    flags: usize,
    child: extern "C" fn(*const ()) -> !,
    argument: *const (),
) -> isize {
    let result: isize;
    // SAFETY: as in `syscall5`. The child changes registers of its own, and memory only below the
    // stack pointer, where nothing of ours is.
    unsafe {
        asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, #0",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            in("x8") number::CLONE,
            inlateout("x0") flags => result,
            in("x1") 0, in("x2") 0, in("x3") 0, in("x4") 0,
            in("x20") argument, in("x21") child,
        );
    }
    result
}

/// Defines `_start`: calls `$entry(stack, image, dynamic)` on an aligned stack.
#[macro_export]
macro_rules! start_stub {
    ($entry:path) => {
        core::arch::global_asm!(
            ".globl _start",
            ".hidden _DYNAMIC",
            ".hidden __ehdr_start",
            "_start:",
            "mov x29, #0",
            "mov x30, #0",
            "mov x0, sp",
            "adrp x1, __ehdr_start",
            "add x1, x1, :lo12:__ehdr_start",
            "adrp x2, _DYNAMIC",
            "add x2, x2, :lo12:_DYNAMIC",
            "and sp, x0, #-16",
            "bl {entry}",
            "brk #1",
            entry = sym $entry,
        );
    };
}
