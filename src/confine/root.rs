//! An empty root directory: whatever opens a path finds nothing.
//!
//! Best is a mount namespace of its own with nothing but an empty, read-only tmpfs. Where the
//! kernel has no such namespace or no tmpfs, a directory that was removed while we stand in it: it
//! is empty and nothing can be made in it. An ordinary user gets the first through a user
//! namespace, where those are allowed.
#![allow(unsafe_code)] // unshare(2)

use rustix::fs::{Mode, OFlags, mkdir, open, rmdir};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount,
};
use rustix::process::{chdir, chroot, fchdir, getpid, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::{ConfineError, step};

/// Where the fallback's directory is made, for a moment.
const WRITABLE_PLACES: [&str; 6] = ["/run", "/dev/shm", "/tmp", "/var/run", "/var/tmp", ""];

/// Makes the root empty; gives what is missing for it. `privileged`: the process is root.
pub(super) fn make_empty(privileged: bool) -> Result<Option<&'static str>, ConfineError> {
    let namespaces = if privileged {
        UnshareFlags::NEWNS
    } else {
        UnshareFlags::NEWUSER | UnshareFlags::NEWNS
    };
    match unshare(namespaces) {
        Ok(()) => match enter_empty_mount() {
            Ok(()) => Ok(None),
            // No tmpfs in this kernel.
            Err(ConfineError {
                step: "mount tmpfs",
                errno,
            }) if errno == Errno::NODEV.raw_os_error() => enter_removed_directory(privileged),
            // In a chroot: "/" is no mount point, so mounts here could not be kept to ourselves.
            Err(ConfineError {
                step: "private mounts",
                errno,
            }) if errno == Errno::INVAL.raw_os_error() => enter_removed_directory(privileged),
            // An ordinary user may be let into the namespace and still not mount (AppArmor).
            Err(_) if !privileged => Ok(Some("empty root directory")),
            Err(error) => Err(error),
        },
        // Not in this kernel (INVAL, NOSYS), or not for us (a container without CAP_SYS_ADMIN).
        Err(Errno::INVAL | Errno::NOSYS | Errno::PERM | Errno::NOSPC | Errno::USERS) => {
            enter_removed_directory(privileged)
        }
        Err(errno) => Err(step("unshare")(errno)),
    }
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: only CLONE_FILES can break what others rely on (descriptors would no longer be
    // shared between threads), and neither namespace flag implies it.
    unsafe { unshare_unsafe(flags) }
}

fn enter_empty_mount() -> Result<(), ConfineError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(step("private mounts"))?;
    let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // Over the root itself: the one directory that is always there.
    mount(
        c"none",
        "/",
        "tmpfs",
        flags,
        Some(c"size=4k,nr_inodes=2,mode=0555"),
    )
    .map_err(step("mount tmpfs"))?;
    // ".." at the root steps onto what is mounted over it.
    chdir("/..").map_err(step("chdir"))?;
    match pivot_root(".", ".") {
        Ok(()) => {
            // The old root lies over the new one now.
            unmount(".", UnmountFlags::DETACH).map_err(step("unmount the old root"))?;
        }
        // The kernel's first root file system (an initramfs) cannot be moved.
        Err(Errno::INVAL) => {}
        Err(errno) => return Err(step("pivot_root")(errno)),
    }
    chroot(".").map_err(step("chroot"))?;
    chdir("/").map_err(step("chdir"))
}

fn enter_removed_directory(privileged: bool) -> Result<Option<&'static str>, ConfineError> {
    if !privileged {
        return Ok(Some("empty root directory"));
    }
    let name = format!(".agent-empty-{}", getpid().as_raw_nonzero());
    for place in WRITABLE_PLACES {
        let path = format!("{place}/{name}");
        if mkdir(&path, Mode::empty()).is_err() {
            continue;
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::PATH;
        let directory = open(&path, flags, Mode::empty());
        rmdir(&path).map_err(step("rmdir"))?;
        let directory = directory.map_err(step("open the empty directory"))?;
        fchdir(&directory).map_err(step("fchdir"))?;
        return match chroot(".") {
            Ok(()) => chdir("/").map(|()| None).map_err(step("chdir")),
            Err(Errno::PERM) => Ok(Some("empty root directory")),
            Err(errno) => Err(step("chroot")(errno)),
        };
    }
    Ok(Some("empty root directory"))
}
