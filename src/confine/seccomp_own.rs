//! Turns rules into a filter for architectures that `seccompiler` does not know (32-bit Arm).
//!
//! The same shape, as small as can be: check the architecture, then one block for each call. The
//! tests run this and `seccompiler`'s program side by side. Source: seccomp(2), the kernel's
//! Documentation/userspace-api/seccomp_filter.rst.
#![allow(unsafe_code)] // seccomp(2) takes a pointer

use std::io;

use libc::sock_filter;

use super::{Condition, Rule};
use crate::confine::ConfineError;

/// What a filter does with the calls it does not name, and with those it does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Otherwise {
    /// Named calls may be made; any other ends the process.
    EndTheProcess,
    /// Named calls are answered with ENOSYS; any other may be made.
    AllowAndRefuseThese,
}

/// This architecture's name in seccomp's data (linux/audit.h).
#[cfg(target_arch = "arm")]
const AUDIT_ARCH: u32 = 0x4000_0028;
#[cfg(all(test, target_arch = "x86_64"))]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(all(test, target_arch = "aarch64"))]
const AUDIT_ARCH: u32 = 0xc000_00b7;
#[cfg(all(test, target_arch = "riscv64"))]
const AUDIT_ARCH: u32 = 0xc000_00f3;

/// Offsets in `struct seccomp_data`; of an argument the lower 32 bits (we run little-endian only).
const OFFSET_CALL: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// Installs one filter for the calling thread and those it starts.
#[cfg_attr(test, expect(dead_code, reason = "the tests install the shipped one"))]
pub(super) fn install(rules: &[Rule<'_>], otherwise: Otherwise) -> Result<(), ConfineError> {
    let mut program = compile(rules, otherwise);
    let failed = |errno| ConfineError {
        step: "seccomp",
        errno,
    };
    let len = u16::try_from(program.len()).map_err(|_| failed(libc::EINVAL))?;
    let description = libc::sock_fprog {
        len,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel reads the description and `len` instructions behind it, both of which
    // live through the call, and keeps a copy.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0_u32,
            &raw const description,
        )
    };
    if result == 0 {
        return Ok(());
    }
    Err(failed(
        io::Error::last_os_error().raw_os_error().unwrap_or(0),
    ))
}

/// The whole program.
pub(super) fn compile(rules: &[Rule<'_>], otherwise: Otherwise) -> Vec<sock_filter> {
    let (matched, unmatched) = match otherwise {
        Otherwise::EndTheProcess => (libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS),
        Otherwise::AllowAndRefuseThese => (
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned(),
            libc::SECCOMP_RET_ALLOW,
        ),
    };
    let mut program = vec![
        load(OFFSET_ARCH),
        jump_unless_equal(AUDIT_ARCH, 1),
        jump(1),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(OFFSET_CALL),
    ];
    for rule in rules {
        let block = block(rule.when, matched, unmatched);
        program.push(jump_unless_equal(call_number(rule), block.len()));
        program.extend(block);
    }
    program.push(answer(unmatched));
    program
}

fn call_number(rule: &Rule<'_>) -> u32 {
    // No call has a number beyond; should one have, it matches nothing.
    u32::try_from(rule.call).unwrap_or(u32::MAX)
}

/// What happens to a call that is named.
fn block(conditions: &[Condition], matched: u32, unmatched: u32) -> Vec<sock_filter> {
    if conditions.is_empty() {
        return vec![answer(matched)];
    }
    let mut block = Vec::new();
    for condition in conditions {
        match *condition {
            Condition::Is(argument, value) => {
                block.extend([load_argument(argument), jump_unless_equal(value, 1)]);
            }
            Condition::Are(first, value, second, other) => block.extend([
                load_argument(first),
                jump_unless_equal(value, 3),
                load_argument(second),
                jump_unless_equal(other, 1),
            ]),
            Condition::Bits(argument, mask, value) => block.extend([
                load_argument(argument),
                statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask),
                jump_unless_equal(value, 1),
            ]),
        }
        block.push(answer(matched));
    }
    block.push(answer(unmatched));
    block
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn load_argument(index: u8) -> sock_filter {
    load(OFFSET_ARGUMENTS + 8 * u32::from(index))
}

fn answer(action: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, action)
}

fn jump(distance: u32) -> sock_filter {
    statement(libc::BPF_JMP | libc::BPF_JA, distance)
}

/// Goes on when the accumulator is `value`, else `distance` instructions further.
fn jump_unless_equal(value: u32, distance: usize) -> sock_filter {
    // Blocks have a handful of conditions; a longer one would be refused by the kernel's check.
    let distance = u8::try_from(distance).unwrap_or(u8::MAX);
    sock_filter {
        jf: distance,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value)
    }
}

fn statement(code: u32, k: u32) -> sock_filter {
    // Codes are below 256.
    sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: 0,
        jf: 0,
        k,
    }
}
