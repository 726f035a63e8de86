//! What the monitor hands to a `net` process at its start: descriptors and a few variables.
//!
//! Descriptor 3 is the link, listening sockets follow; `AGENT_NET`, `AGENT_UID`, `AGENT_GID` and
//! `AGENT_LISTENERS` say what to do with them.

use std::env;
use std::os::fd::{OwnedFd, RawFd};

use agent_helper::link::Link;

use crate::confine::Identity;
use crate::inherited::take_descriptor;
use crate::launch::FIRST_DESCRIPTOR;
use crate::limits::LISTENERS_MAX;

/// Everything a `net` process starts with.
#[derive(Debug)]
pub(super) struct Inherited {
    /// To the monitor.
    pub link: Link,
    /// Sockets to accept from.
    pub listeners: Vec<OwnedFd>,
    /// It serves one user, and no strangers.
    pub serves_user: bool,
    /// Whom to become; `None` without root.
    pub identity: Option<Identity>,
}

impl Inherited {
    /// Takes what is there. `None`: this process was not started by a monitor.
    pub(super) fn take() -> Option<Self> {
        let serves_user = env::var_os("AGENT_NET")? == "users";
        let identity = match (number("AGENT_UID"), number("AGENT_GID")) {
            (Some(uid), Some(gid)) => Some(Identity { uid, gid }),
            (None, None) => None,
            _ => return None,
        };
        let count = number("AGENT_LISTENERS").unwrap_or(0);
        let count = RawFd::try_from(count)
            .ok()
            .filter(|count| *count <= LISTENERS_MAX)?;
        let link = Link::new(take_descriptor(FIRST_DESCRIPTOR)?);
        let listeners = (FIRST_DESCRIPTOR + 1..=FIRST_DESCRIPTOR + count)
            .map(take_descriptor)
            .collect::<Option<Vec<_>>>()?;
        Some(Self {
            link,
            listeners,
            serves_user,
            identity,
        })
    }
}

fn number(name: &str) -> Option<u32> {
    env::var(name).ok()?.parse().ok()
}
