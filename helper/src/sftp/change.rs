//! Requests that change the file system by path or by handle, with OpenSSH's semantics.
//!
//! The process is the user, so the kernel decides what is allowed; nothing here checks a right.
//! Sources: draft-ietf-secsh-filexfer-02 sections 6.5 to 6.10, OpenSSH PROTOCOL section 4.
#![forbid(unsafe_code)]

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;

use super::attributes::Attributes;
use crate::path::{file_type, open};
use crate::text::{c_string, decimal};

/// Permission bits that a client may set.
const PERMISSION_BITS: u32 = 0o7777;

fn mode_of(permissions: u32) -> Mode {
    Mode::from_raw_mode(permissions & PERMISSION_BITS)
}

fn owner_of((user, group): (u32, u32)) -> (Option<Uid>, Option<Gid>) {
    // -1 leaves it as it is, to the kernel and so to OpenSSH.
    let user = (user != u32::MAX).then(|| Uid::from_raw(user));
    (user, (group != u32::MAX).then(|| Gid::from_raw(group)))
}

/// The first error of several steps, all of which are tried.
struct Steps(Result<(), Errno>);

impl Steps {
    fn take(&mut self, step: Result<(), Errno>) {
        if self.0.is_ok() {
            self.0 = step;
        }
    }
}

/// Sets attributes of the file at `path`.
pub fn set(path: &[u8], attributes: &Attributes) -> Result<(), Errno> {
    let name = c_string(path)?;
    let mut steps = Steps(Ok(()));
    if let Some(size) = attributes.size {
        steps.take(truncate(path, size));
    }
    if let Some(permissions) = attributes.permissions {
        steps.take(rustix::fs::chmod(&*name, mode_of(permissions)));
    }
    if let Some(times) = attributes.timestamps() {
        steps.take(rustix::fs::utimensat(CWD, &*name, &times, AtFlags::empty()));
    }
    if let Some(owner) = attributes.owner {
        let (user, group) = owner_of(owner);
        steps.take(rustix::fs::chown(&*name, user, group));
    }
    steps.0
}

/// Sets attributes of an open file.
pub fn set_open(file: BorrowedFd<'_>, attributes: &Attributes) -> Result<(), Errno> {
    let mut steps = Steps(Ok(()));
    if let Some(size) = attributes.size {
        steps.take(rustix::fs::ftruncate(file, size));
    }
    if let Some(permissions) = attributes.permissions {
        steps.take(rustix::fs::fchmod(file, mode_of(permissions)));
    }
    if let Some(times) = attributes.timestamps() {
        steps.take(rustix::fs::futimens(file, &times));
    }
    if let Some(owner) = attributes.owner {
        let (user, group) = owner_of(owner);
        steps.take(rustix::fs::fchown(file, user, group));
    }
    steps.0
}

/// Sets attributes of `path` itself, where that is a symbolic link too (lsetstat@openssh.com).
pub fn set_link(path: &[u8], attributes: &Attributes) -> Result<(), Errno> {
    if attributes.size.is_some() {
        // A link has no size to set.
        return Err(Errno::INVAL);
    }
    let name = c_string(path)?;
    let mut steps = Steps(Ok(()));
    if let Some(permissions) = attributes.permissions {
        steps.take(set_mode_of_link(path, mode_of(permissions)));
    }
    if let Some(times) = attributes.timestamps() {
        steps.take(rustix::fs::utimensat(
            CWD,
            &*name,
            &times,
            AtFlags::SYMLINK_NOFOLLOW,
        ));
    }
    if let Some(owner) = attributes.owner {
        let (user, group) = owner_of(owner);
        steps.take(rustix::fs::chownat(
            CWD,
            &*name,
            user,
            group,
            AtFlags::SYMLINK_NOFOLLOW,
        ));
    }
    steps.0
}

/// truncate(2) by way of a descriptor; a FIFO without a reader is an error and no wait.
fn truncate(path: &[u8], size: u64) -> Result<(), Errno> {
    let file = open(path, OFlags::WRONLY | OFlags::NONBLOCK)?;
    rustix::fs::ftruncate(file, size)
}

/// Linux before 6.6 cannot change a mode without following links except through `/proc`, and links
/// have no mode of their own.
fn set_mode_of_link(path: &[u8], mode: Mode) -> Result<(), Errno> {
    let target = open(path, OFlags::PATH | OFlags::NOFOLLOW)?;
    if file_type(&rustix::fs::fstat(&target)?) == FileType::Symlink {
        return Err(Errno::OPNOTSUPP);
    }
    let number = rustix::fd::AsRawFd::as_raw_fd(&target.as_fd()).cast_unsigned();
    let through = [b"/proc/self/fd/".as_slice(), &decimal(number)].concat();
    match rustix::fs::chmod(&*c_string(&through)?, mode) {
        // No /proc, as in a chroot.
        Err(Errno::NOENT) => rustix::fs::chmod(&*c_string(path)?, mode),
        other => other,
    }
}

/// Calls `act` with two names as the kernel takes them.
#[inline(never)]
fn with_names(
    one: &[u8],
    other: &[u8],
    act: fn(&CStr, &CStr) -> Result<(), Errno>,
) -> Result<(), Errno> {
    act(&c_string(one)?, &c_string(other)?)
}

/// mkdir(2).
pub fn make_directory(path: &[u8], attributes: &Attributes) -> Result<(), Errno> {
    let mode = mode_of(attributes.permissions.unwrap_or(0o777));
    rustix::fs::mkdir(&*c_string(path)?, mode)
}

/// rmdir(2).
pub fn remove_directory(path: &[u8]) -> Result<(), Errno> {
    rustix::fs::rmdir(&*c_string(path)?)
}

/// rename(2): overwrites (posix-rename@openssh.com).
pub fn rename_over(old: &[u8], new: &[u8]) -> Result<(), Errno> {
    with_names(old, new, |old, new| rustix::fs::rename(old, new))
}

/// Renames and never overwrites, as SSH_FXP_RENAME must.
///
/// Where the file system cannot do that in one step, regular files are linked and unlinked, which
/// does not overwrite either; for others, and without links, looking first is all that is left.
pub fn rename(old: &[u8], new: &[u8]) -> Result<(), Errno> {
    with_names(old, new, rename_to_free)
}

fn rename_to_free(old_name: &CStr, new_name: &CStr) -> Result<(), Errno> {
    let flags = RenameFlags::NOREPLACE;
    match rustix::fs::renameat_with(CWD, old_name, CWD, new_name, flags) {
        Err(Errno::INVAL | Errno::NOSYS) => {}
        result => return result,
    }
    if file_type(&rustix::fs::lstat(old_name)?) == FileType::RegularFile {
        match rustix::fs::link(old_name, new_name) {
            Ok(()) => {
                return rustix::fs::unlink(old_name).inspect_err(|_| {
                    let _ = rustix::fs::unlink(new_name);
                });
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::MLINK) => {}
            Err(errno) => return Err(errno),
        }
    }
    if rustix::fs::lstat(new_name).is_ok() {
        return Err(Errno::EXIST);
    }
    rustix::fs::rename(old_name, new_name)
}

/// symlink(2): the target first, as OpenSSH and so every client has it, against the draft.
pub fn make_symbolic_link(target: &[u8], path: &[u8]) -> Result<(), Errno> {
    with_names(target, path, |target, path| {
        rustix::fs::symlink(target, path)
    })
}

/// link(2) (hardlink@openssh.com).
pub fn make_hard_link(old: &[u8], new: &[u8]) -> Result<(), Errno> {
    with_names(old, new, |old, new| rustix::fs::link(old, new))
}
