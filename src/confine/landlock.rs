//! Landlock without a single right: no path, no port, no abstract socket, no signal to outside.
//!
//! One ruleset that handles everything this kernel's ABI knows and allows nothing. Source:
//! linux/landlock.h, landlock(7).
#![allow(unsafe_code)] // system calls that neither libc nor rustix wraps

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::ConfineError;

const CREATE_RULESET_VERSION: u32 = 1;

/// `struct landlock_ruleset_attr`; a kernel takes as much of it as its ABI has.
#[repr(C)]
struct RulesetAttributes {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

/// Takes away all that landlock knows of; gives what is missing for it.
pub(super) fn forbid_everything() -> Result<Option<&'static str>, ConfineError> {
    let abi = match abi_version() {
        Ok(abi) => abi,
        // Not built in, or switched off at boot.
        Err(errno) if errno == libc::ENOSYS || errno == libc::EOPNOTSUPP => {
            return Ok(Some("landlock"));
        }
        Err(errno) => {
            return Err(ConfineError {
                step: "landlock version",
                errno,
            });
        }
    };
    let (attributes, size) = everything(abi);
    // SAFETY: the kernel reads `size` bytes of `attributes`, which is at least that large, lives
    // through the call, and is plain integers.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            &raw const attributes,
            size,
            0_u32,
        )
    };
    let descriptor = i32::try_from(descriptor).unwrap_or(-1);
    if descriptor < 0 {
        return Err(failed("landlock_create_ruleset"));
    }
    // SAFETY: the kernel just made this descriptor for us; nobody else knows its number.
    let ruleset = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: takes integers only.
    let result =
        unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0_u32) };
    if result == 0 {
        Ok(None)
    } else {
        Err(failed("landlock_restrict_self"))
    }
}

fn abi_version() -> Result<u32, i32> {
    // SAFETY: with this flag the kernel takes no attributes: a null pointer of size 0.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<RulesetAttributes>(),
            0_usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| errno())
}

/// All that `abi` handles, and how many bytes of the structure it knows.
fn everything(abi: u32) -> (RulesetAttributes, usize) {
    // Rights on files: 13 at first, then REFER, TRUNCATE and IOCTL_DEV.
    let fs_rights = match abi {
        0 | 1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    let attributes = RulesetAttributes {
        handled_access_fs: (1 << fs_rights) - 1,
        // Binding and connecting TCP sockets.
        handled_access_net: if abi >= 4 { 0b11 } else { 0 },
        // Abstract Unix sockets and signals.
        scoped: if abi >= 6 { 0b11 } else { 0 },
    };
    let size = match abi {
        0..=3 => 8,
        4 | 5 => 16,
        _ => 24,
    };
    (attributes, size)
}

fn failed(step: &'static str) -> ConfineError {
    ConfineError {
        step,
        errno: errno(),
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
