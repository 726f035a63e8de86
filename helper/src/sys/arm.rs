//! arm (EABI): the system call instruction, call numbers that rustix does not cover, the start stub.

use core::arch::asm;

/// Numbers of system calls.
pub mod number {
    pub const CLOSE: usize = 6;
    pub const CLOSE_RANGE: usize = 436;
    // The old call: a clock that starts with the machine outlives no 32 bits of seconds.
    pub const CLOCK_GETTIME: usize = 263;
    pub const EXECVE: usize = 11;
    pub const IOCTL: usize = 54;
    pub const CLONE: usize = 120;
    pub const RT_SIGACTION: usize = 174;
    pub const RT_SIGPROCMASK: usize = 175;
    pub const EXIT_GROUP: usize = 248;
    pub const SIGNALFD4: usize = 355;
}

/// `R_ARM_RELATIVE`.
pub const RELOCATION_RELATIVE: usize = 23;

/// # Safety
///
/// The conditions of the call that `number` names.
#[inline]
pub unsafe fn syscall5(number: usize, a: usize, b: usize, c: usize, d: usize, e: usize) -> isize {
    let result: isize;
    // SAFETY: the kernel preserves all registers but r0; r7 may be the frame pointer, which the
    // compiler does not let us name, so it is saved by hand. The caller answers for the call.
    unsafe {
        asm!(
            "mov {saved}, r7",
            "mov r7, {number}",
            "svc 0",
            "mov r7, {saved}",
            saved = out(reg) _,
            number = in(reg) number,
            inlateout("r0") a => result,
            in("r1") b, in("r2") c, in("r3") d, in("r4") e,
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
            "mov r10, r7",
            "mov r7, #{number}",
            "svc 0",
            "mov r7, r10",
            "cmp r0, #0",
            "bne 2f",
            "bic sp, sp, #7",
            "mov r0, r5",
            "blx r8",
            "udf #0",
            "2:",
            number = const number::CLONE,
            inlateout("r0") flags => result,
            in("r1") 0, in("r2") 0, in("r3") 0, in("r4") 0,
            in("r5") argument, in("r8") child,
            out("r10") _,
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
            ".type _start, %function",
            "_start:",
            "mov r11, #0",
            "mov lr, #0",
            "mov r0, sp",
            "ldr r1, 3f",
            "1: add r1, pc, r1",
            "ldr r2, 4f",
            "2: add r2, pc, r2",
            "bic r3, r0, #15",
            "mov sp, r3",
            "bl {entry}",
            "udf #0",
            ".p2align 2",
            "3: .word __ehdr_start - (1b + 8)",
            "4: .word _DYNAMIC - (2b + 8)",
            entry = sym $entry,
        );
    };
}
