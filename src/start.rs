//! The first instructions of the static file for x86-64: applies its packed relocations, then goes on to
//! the C library's start.
//!
//! Packed (`-z pack-relative-relocs`), the table of what has to be moved to the load address takes 1 KiB
//! instead of 63. musl before 1.2.4 does not know it; to one that does, the table is empty when it
//! looks. `cargo xtask dist` names [`agent_start`](self) as the entry point; elsewhere nothing calls it.
//!
//! Nothing here may use relocated data. Source: System V ABI for x86-64, section 3.4.1, on registers and stack at the start of a process.
#![allow(unsafe_code)] // the bare start of a process

use core::arch::global_asm;

use agent_helper::relocation::{RELR, RELR_BYTES, apply_packed};

// The stack pointer is a multiple of 16 here, as it must be before a call; rdx is what the loader wants
// called at the end: nothing, in a static program.
global_asm!(
    // Linked without a load address to choose, the program has no such section, and no use for this.
    ".weak _DYNAMIC",
    ".hidden _DYNAMIC",
    ".globl agent_start",
    ".type agent_start, @function",
    "agent_start:",
    "    lea rdi, [rip + __ehdr_start]",
    "    lea rsi, [rip + _DYNAMIC]",
    "    call {relocate}",
    "    xor edx, edx",
    "    jmp _start",
    ".size agent_start, . - agent_start",
    relocate = sym relocate,
);

const END: usize = 0;

/// Adds `image`, where the file's first byte is mapped, to every word that the table names, and empties
/// the table.
///
/// # Safety
///
/// Called once, before anything else; `dynamic` is the image's own dynamic section, still writable.
unsafe extern "C" fn relocate(image: usize, mut dynamic: *mut [usize; 2]) {
    let (mut table, mut table_bytes) = (0, 0);
    // SAFETY: the section is a list of pairs that ends with tag 0; the table that it names is the
    // image's own.
    unsafe {
        loop {
            let [tag, value] = *dynamic;
            match tag {
                END => break,
                RELR => table = value,
                RELR_BYTES => {
                    table_bytes = value;
                    *dynamic = [RELR_BYTES, 0];
                }
                _ => {}
            }
            dynamic = dynamic.add(1);
        }
        apply_packed(image, table, table_bytes);
    }
}
