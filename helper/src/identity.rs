//! Becoming the user, for good, and proof of it.
//!
//! Sources: credentials(7), capabilities(7), setresuid(2).

use alloc::vec::Vec;

use rustix::io::Errno;
use rustix::process::{Gid, Uid, getegid, geteuid, getgid, getgroups, getuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::frame::Identity;

/// What the kernel takes at most (NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// Which step of a login failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepError {
    /// Our own word for it.
    pub step: &'static str,
    /// Why.
    pub errno: Errno,
}

/// Names a step in front of its error.
pub fn step(step: &'static str) -> impl Fn(Errno) -> StepError {
    move |errno| StepError { step, errno }
}

/// Becomes `identity` for good.
///
/// Groups go first and the uid last, since each step needs the rights that the next one gives up.
/// The calls act on one thread only: right here, where there is one.
pub fn become_user(identity: &Identity) -> Result<(), StepError> {
    // -1 means "leave as it is" to the kernel.
    if identity.uid == u32::MAX || identity.gid == u32::MAX || identity.groups.contains(&u32::MAX) {
        return Err(StepError {
            step: "identity",
            errno: Errno::INVAL,
        });
    }
    if identity.groups.len() > GROUPS_MAX {
        return Err(StepError {
            step: "setgroups",
            errno: Errno::INVAL,
        });
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    let groups: Vec<Gid> = identity
        .groups
        .iter()
        .map(|&raw| Gid::from_raw(raw))
        .collect();
    set_thread_groups(&groups).map_err(step("setgroups"))?;
    set_thread_res_gid(gid, gid, gid).map_err(step("setresgid"))?;
    set_thread_res_uid(uid, uid, uid).map_err(step("setresuid"))?;
    if !uid.is_root() {
        // The kernel took effective and permitted ones with the uid. What a container runtime left
        // inheritable could come back through a file's capabilities.
        let none = CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        set_capabilities(None, none).map_err(step("capset"))?;
    }
    verify(uid, gid, groups)
}

/// Whether this process already is `identity`, where it may not become anybody.
fn already_is(identity: &Identity) -> Result<(), StepError> {
    if geteuid().as_raw() == identity.uid && getuid().as_raw() == identity.uid {
        Ok(())
    } else {
        Err(StepError {
            step: "identity",
            errno: Errno::PERM,
        })
    }
}

/// Becomes `identity` where the monitor has the rights for it (`change`), else makes sure of it.
pub fn take_on(identity: &Identity, change: bool) -> Result<(), StepError> {
    if change {
        become_user(identity)
    } else {
        already_is(identity)
    }
}

/// A kernel or container that let us back would make everything after this a lie.
fn verify(uid: Uid, gid: Gid, mut groups: Vec<Gid>) -> Result<(), StepError> {
    let failed = Err(StepError {
        step: "verify",
        errno: Errno::PERM,
    });
    if getuid() != uid || geteuid() != uid || getgid() != gid || getegid() != gid {
        return failed;
    }
    // The kernel keeps them sorted, and the account database nearly: insertion is quick enough.
    let actual = getgroups().map_err(step("verify"))?;
    insertion_sort(&mut groups);
    if actual != groups {
        return failed;
    }
    if uid.is_root() {
        return Ok(());
    }
    if set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).is_ok()
        || (gid.as_raw() != 0 && set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).is_ok())
    {
        return failed;
    }
    let held = capabilities(None).map_err(step("verify"))?;
    if !(held.effective | held.permitted | held.inheritable).is_empty() {
        return failed;
    }
    Ok(())
}

fn insertion_sort(groups: &mut [Gid]) {
    for end in 1..groups.len() {
        let mut index = end;
        while index > 0 && groups[index - 1].as_raw() > groups[index].as_raw() {
            groups.swap(index - 1, index);
            index -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minus_one_is_nobody_to_become() {
        for identity in [
            Identity {
                uid: u32::MAX,
                ..Identity::default()
            },
            Identity {
                gid: u32::MAX,
                ..Identity::default()
            },
            Identity {
                groups: alloc::vec![4, u32::MAX],
                ..Identity::default()
            },
        ] {
            assert_eq!(
                become_user(&identity).map_err(|error| error.step),
                Err("identity")
            );
        }
    }

    #[test]
    fn without_a_change_only_the_own_identity_is_right() {
        let own = Identity {
            uid: getuid().as_raw(),
            ..Identity::default()
        };
        assert_eq!(already_is(&own), Ok(()));
        let other = Identity {
            uid: own.uid.wrapping_add(1),
            ..Identity::default()
        };
        assert!(already_is(&other).is_err());
    }
}
