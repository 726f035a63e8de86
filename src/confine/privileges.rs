//! Ids, capabilities, and the ways back to them.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, capabilities, clear_ambient_capability_set,
    no_new_privs, remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
    set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::{ConfineError, Identity, step};

/// Capability numbers that may exist; the kernel answers EINVAL beyond its last one (41 in 6.18).
const CAPABILITIES_MAX: u32 = 64;

/// Becomes `identity` for good. Groups go first and the uid last: each step needs rights that the
/// next one gives up.
pub(super) fn become_identity(identity: Identity) -> Result<(), ConfineError> {
    empty_bounding_set()?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    set_thread_groups(&[]).map_err(step("setgroups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(step("setresgid"))?;
    set_thread_res_uid(uid, uid, uid).map_err(step("setresuid"))?;
    // A kernel or container that lets us back would make all that follows a lie.
    if uid.is_root() || set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok() {
        return Err(ConfineError {
            step: "verify uid",
            errno: Errno::PERM.raw_os_error(),
        });
    }
    Ok(())
}

/// What is permitted now survives [`become_identity`], without being in effect.
pub(super) fn keep_permitted() -> Result<(), ConfineError> {
    set_keep_capabilities(true).map_err(step("PR_SET_KEEPCAPS"))
}

/// Gives up capabilities but for `kept`, new ones included, and lets nobody of the same uid look
/// inside.
pub(super) fn give_up(kept: CapabilitySet) -> Result<(), ConfineError> {
    match clear_ambient_capability_set() {
        // Before Linux 4.3 there is no such set.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(step("ambient capabilities")(errno)),
    }
    let wanted = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, wanted).map_err(step("capset"))?;
    let left = capabilities(None).map_err(step("capget"))?;
    if (left.effective, left.permitted) != (kept, kept) || !left.inheritable.is_empty() {
        return Err(ConfineError {
            step: "verify capabilities",
            errno: Errno::PERM.raw_os_error(),
        });
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("PR_SET_DUMPABLE"))?;
    set_no_new_privs(true).map_err(step("PR_SET_NO_NEW_PRIVS"))?;
    match no_new_privs() {
        Ok(true) => Ok(()),
        Ok(false) => Err(ConfineError {
            step: "verify no_new_privs",
            errno: Errno::PERM.raw_os_error(),
        }),
        Err(errno) => Err(step("PR_GET_NO_NEW_PRIVS")(errno)),
    }
}

fn empty_bounding_set() -> Result<(), ConfineError> {
    for number in 0..CAPABILITIES_MAX {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << number)) {
            Ok(()) => {}
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return Err(step("capability bounding set")(errno)),
        }
    }
    Ok(())
}
