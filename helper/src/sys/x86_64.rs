//! x86_64: the system call instruction, call numbers that rustix does not cover, the start stub.

use core::arch::asm;

/// Numbers of system calls.
pub mod number {
    pub const CLOSE: usize = 3;
    pub const CLOSE_RANGE: usize = 436;
    pub const CLOCK_GETTIME: usize = 228;
    pub const RT_SIGACTION: usize = 13;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const IOCTL: usize = 16;
    pub const EXIT_GROUP: usize = 231;
    pub const SIGNALFD4: usize = 289;
}

/// `R_X86_64_RELATIVE`.
pub const RELOCATION_RELATIVE: usize = 8;

/// # Safety
///
/// The conditions of the call that `number` names.
#[inline]
pub unsafe fn syscall5(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but these; the caller answers for the call.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e,
            out("rcx") _, out("r11") _,
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
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "and rsp, -16",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") number::CLONE => result,
            in("rdi") flags, in("rsi") 0, in("rdx") 0, in("r10") 0, in("r8") 0,
            in("r12") argument, in("r13") child,
            out("rcx") _, out("r11") _,
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
            "xor ebp, ebp",
            "mov rdi, rsp",
            "lea rsi, [rip + __ehdr_start]",
            "lea rdx, [rip + _DYNAMIC]",
            "and rsp, -16",
            "call {entry}",
            "ud2",
            entry = sym $entry,
        );
    };
}
