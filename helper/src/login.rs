//! From "accepted" to "ready": everything that must be true before the user may know of the success.
//!
//! The order matters: what needs root first, what needs `/proc` before the chroot, the identity
//! last. A failed step is a failed login. Sources: sshd_config(5) ChrootDirectory,
//! proc_pid_oom_score_adj(5), proc_pid_loginuid(5).

use alloc::vec::Vec;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::{Errno, write};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, chdir, chroot, getpid, set_dumpable_behavior, setrlimit,
    umask,
};

use crate::descendants::adopt_all;
use crate::frame::{OnDisconnect, Policy};
use crate::identity::{StepError, step, take_on};
use crate::path::{file_type, open, stat};
use crate::text::{c_string, decimal, split};

/// Becomes the user of `policy`.
pub fn become_ready(policy: &Policy) -> Result<(), StepError> {
    let (soft, hard) = policy.nofile;
    if soft != 0 {
        let limit = Rlimit {
            current: Some(soft),
            maximum: Some(hard),
        };
        setrlimit(Resource::Nofile, limit).map_err(step("setrlimit"))?;
    }
    if let Some(score) = &policy.oom_score_adj {
        // Containers and old kernels may refuse; the session is only a likelier victim then.
        let _ = write_file(b"/proc/self/oom_score_adj", score);
    }
    if policy.change_identity {
        // Once for a session, and not at all where the kernel has no audit: never a reason to fail.
        let _ = write_file(b"/proc/self/loginuid", &decimal(policy.identity.uid));
    }
    if policy.on_disconnect != OnDisconnect::Leave {
        adopt_all(getpid()).map_err(step("subreaper"))?;
    }
    if let Some(root) = &policy.chroot {
        if !policy.change_identity {
            return Err(StepError {
                step: "chroot",
                errno: Errno::PERM,
            });
        }
        change_root(root)?;
    }
    take_on(&policy.identity, policy.change_identity)?;
    // The user's other processes must not look into this one, nor steer it.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("prctl"))?;
    // As sshd: at least 022, and what it was started with.
    let inherited = umask(Mode::from_raw_mode(0o077));
    umask(inherited | Mode::from_raw_mode(0o022));
    Ok(())
}

/// Every component must be root's and writable by nobody else: otherwise the user could put another
/// directory in its place.
fn change_root(root: &[u8]) -> Result<(), StepError> {
    if root.first() != Some(&b'/') {
        return Err(StepError {
            step: "chroot",
            errno: Errno::INVAL,
        });
    }
    let mut component: Vec<u8> = Vec::new();
    for name in split(root, b'/') {
        if name.is_empty() && !component.is_empty() {
            continue;
        }
        component.extend_from_slice(name);
        component.push(b'/');
        let found = stat(&component).map_err(step("chroot"))?;
        if file_type(&found) != FileType::Directory {
            return Err(StepError {
                step: "chroot",
                errno: Errno::NOTDIR,
            });
        }
        if found.st_uid != 0 || found.st_mode & 0o022 != 0 {
            return Err(StepError {
                step: "chroot: bad ownership or modes of a component",
                errno: Errno::PERM,
            });
        }
    }
    let root = c_string(root).map_err(step("chroot"))?;
    chdir(&*root).map_err(step("chroot"))?;
    chroot(&*root).map_err(step("chroot"))?;
    chdir(c"/").map_err(step("chroot"))
}

fn write_file(path: &[u8], content: &[u8]) -> Result<(), Errno> {
    let file = open(path, OFlags::WRONLY)?;
    write(&file, content).map(drop)
}
