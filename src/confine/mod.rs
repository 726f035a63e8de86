//! Gives up everything that a process which talks to strangers does not need.
//!
//! In this order, since each step needs rights that a later one gives up: an empty root directory,
//! capabilities and ids, no way to new rights, landlock, and last the system calls. Runs before
//! the process starts a thread, since most of it holds for the calling thread and those it starts.
//!
//! What the kernel does not have is named in the answer; what it has and what fails is an error.
//! Ids, capabilities and no_new_privs are always required.

mod landlock;
mod privileges;
mod root;
mod seccomp;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::CapabilitySet;

/// Numeric ids that own nothing else on the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
}

impl Identity {
    /// What the monitor says in `AGENT_UID` and `AGENT_GID`.
    pub fn from_environment() -> Option<Self> {
        let number = |name| std::env::var(name).ok()?.parse().ok();
        Some(Self {
            uid: number("AGENT_UID")?,
            gid: number("AGENT_GID")?,
        })
    }
}

/// What a process keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Confinement {
    /// Whom to become; `None` without root.
    pub identity: Option<Identity>,
    /// May accept connections: strangers, and those who connect to a forwarded port.
    pub accepts: bool,
    /// Runs an HTTP server, which has its own ways with sockets.
    pub serves_http: bool,
    /// Reads and writes files that others open for it: those of a user, for that user.
    pub has_files: bool,
}

/// Which step failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConfineError {
    pub step: &'static str,
    pub errno: i32,
}

impl std::fmt::Display for ConfineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {}",
            self.step,
            std::io::Error::from_raw_os_error(self.errno)
        )
    }
}

impl std::error::Error for ConfineError {}

/// Confines the calling process, which must have one thread. Gives the names of what this kernel
/// does not have.
///
/// # Errors
///
/// A step that the kernel has failed: the process must not go on.
pub fn confine(confinement: &Confinement) -> Result<Vec<&'static str>, ConfineError> {
    let mut missing = Vec::new();
    forbid_files_and_cores(confinement.has_files)?;
    missing.extend(root::make_empty(confinement.identity.is_some())?);
    if let Some(identity) = confinement.identity {
        privileges::become_identity(identity)?;
    }
    privileges::give_up(CapabilitySet::empty())?;
    missing.extend(landlock::forbid_everything()?);
    missing.extend(seccomp::install(confinement)?);
    Ok(missing)
}

/// Gives up ids and capabilities and nothing else: for a process that still needs files and sockets.
///
/// # Errors
///
/// A step failed: the process must not go on.
pub fn give_up_rights(identity: Option<Identity>) -> Result<(), ConfineError> {
    forbid_files_and_cores(false)?;
    if let Some(identity) = identity {
        privileges::become_identity(identity)?;
    }
    privileges::give_up(CapabilitySet::empty())
}

/// Gives up everything but what it takes to signal any process and to see which there are. `sees_all`
/// says whether an ordinary user can do the latter here: /proc may hide processes (`hidepid`).
///
/// # Errors
///
/// A step failed: the process must not go on.
pub fn keep_signals(
    identity: Identity,
    sees_all: impl FnOnce() -> bool,
) -> Result<(), ConfineError> {
    forbid_files_and_cores(false)?;
    privileges::keep_permitted()?;
    privileges::become_identity(identity)?;
    let kept = if sees_all() {
        CapabilitySet::KILL
    } else {
        // Much more than is wanted; the filter leaves of it what is.
        CapabilitySet::KILL | CapabilitySet::SYS_PTRACE
    };
    privileges::give_up(kept)?;
    // Without filters in the kernel, the ids do what they can.
    seccomp::install_for_signals().map(drop)
}

/// No file grows (there should be none, but where that is the work), and no memory image is ever
/// written.
fn forbid_files_and_cores(has_files: bool) -> Result<(), ConfineError> {
    let none = || Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if !has_files {
        setrlimit(Resource::Fsize, none()).map_err(step("RLIMIT_FSIZE"))?;
    }
    setrlimit(Resource::Core, none()).map_err(step("RLIMIT_CORE"))
}

fn step(step: &'static str) -> impl FnOnce(Errno) -> ConfineError {
    move |errno| ConfineError {
        step,
        errno: errno.raw_os_error(),
    }
}
