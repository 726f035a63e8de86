//! What the monitor stands on: who it is, the executables, ids, limits it was started with.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::delay::FailureDelay;
use crate::account;
use crate::config::Options;
use crate::memexec::{self, HelperImage, OwnImage};
use crate::records::Records;
use crate::ssh::crypto::Random;

/// Ids of the confined processes: no account needs to exist for them, and `nobody` owns files in
/// places. One each, so that none can signal another.
const NET_ID: u32 = 64310;
const USERS_NET_ID: u32 = 64311;
const DEBUG_ID: u32 = 64312;
const DECOY_ID: u32 = 64313;
const PASSWORD_ID: u32 = 64314;
const NAME_ID: u32 = 64315;
const END_ID: u32 = 64316;

const OOM_SCORE_ADJ: &str = "/proc/self/oom_score_adj";

/// A user and a group to be confined to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub uid: u32,
    pub gid: u32,
}

impl Ids {
    /// What tells a role whom to become (`confine::Identity::from_environment`).
    pub(super) fn environment(ids: Option<Self>) -> Vec<CString> {
        ids.map_or_else(Vec::new, |Self { uid, gid }| {
            [format!("AGENT_UID={uid}"), format!("AGENT_GID={gid}")]
                .map(|entry| CString::new(entry).unwrap_or_default())
                .into()
        })
    }
}

#[derive(Debug)]
pub(super) struct Host {
    pub as_root: bool,
    /// Without root: the only user who may log in.
    pub only_uid: Option<u32>,
    /// The executable of every `net`: the agent's own file.
    pub own: OwnImage,
    /// RLIMIT_NOFILE that the server was started with: sessions get it back.
    pub nofile: (u64, u64),
    /// Connections that the raised limit has room for.
    pub connections_max: usize,
    pub oom_score_adj: Option<i32>,
    pub random: Random,
    pub delay: FailureDelay,
    pub tty_group: Option<u32>,
    pub time_zone: Option<Vec<u8>>,
}

impl Host {
    /// `image`: the agent's own file, where it was handed down.
    pub(super) fn new(as_root: bool, image: Option<OwnedFd>) -> io::Result<Self> {
        let own = match image {
            Some(image) => OwnImage::from_descriptor(image),
            None => OwnImage::open()?,
        };
        let (nofile, connections_max) = raise_descriptors();
        let oom_score_adj = protect_from_oom(as_root);
        let random = Random::system();
        let mut secret = [0; 32];
        random
            .fill(&mut secret)
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        let only_uid = (!as_root).then(|| rustix::process::geteuid().as_raw());
        Ok(Self {
            as_root,
            only_uid,
            own,
            nofile,
            connections_max,
            oom_score_adj,
            random,
            delay: FailureDelay::new(secret),
            tty_group: account::group_id(c"tty"),
            time_zone: std::env::var_os("TZ").map(std::os::unix::ffi::OsStringExt::into_vec),
        })
    }

    /// Puts the helper where it can be executed, which takes milliseconds.
    pub(super) fn prepare_helper(&self, options: &Options) -> io::Result<HelperImage> {
        let mut helper =
            memexec::prepare(options.helper_mode, &self.own).map_err(io::Error::other)?;
        for refusal in helper.refusals() {
            log::warn!(
                "helper: {:?} does not work here: {}",
                refusal.mode,
                refusal.reason
            );
        }
        helper.set_oom_score_adj(self.oom_score_adj);
        Ok(helper)
    }

    /// Whom strangers' `net` is confined to; `None` without root.
    pub(super) fn net_ids(&self, options: &Options) -> Option<Ids> {
        self.as_root.then(|| {
            privsep_ids(options).unwrap_or(Ids {
                uid: NET_ID,
                gid: NET_ID,
            })
        })
    }

    /// Whom a user's `net` is confined to; `None` without root.
    pub(super) fn users_net_ids(&self) -> Option<Ids> {
        self.as_root.then_some(Ids {
            uid: USERS_NET_ID,
            gid: USERS_NET_ID,
        })
    }

    /// Whom the debug service's process is confined to; `None` without root.
    pub(super) fn debug_ids(&self) -> Option<Ids> {
        self.as_root.then_some(Ids {
            uid: DEBUG_ID,
            gid: DEBUG_ID,
        })
    }

    /// The ids of processes that talk to strangers: none of them may ever use the debug service.
    pub(super) fn is_confined_id(uid: u32) -> bool {
        (NET_ID..=END_ID).contains(&uid)
    }

    /// Whom a process that looks at a password becomes; there is none without root.
    pub(super) fn password_ids(&self) -> Ids {
        Ids {
            uid: PASSWORD_ID,
            gid: PASSWORD_ID,
        }
    }

    /// Whom a process that looks up a client's name becomes; `None` without root.
    pub(super) fn name_ids(&self) -> Option<Ids> {
        self.as_root.then_some(Ids {
            uid: NAME_ID,
            gid: NAME_ID,
        })
    }

    /// Whom a process becomes that ends what a connection left behind; there is none without root.
    pub(super) fn end_ids(&self) -> Ids {
        Ids {
            uid: END_ID,
            gid: END_ID,
        }
    }

    /// Whose rights the walk for an unknown user has.
    pub(super) fn decoy_id(&self) -> u32 {
        match self.only_uid {
            Some(own) => own,
            None => DECOY_ID,
        }
    }

    /// Gives back what [`Self::new`] took for itself, for a program that takes this one's place.
    pub(super) fn undo_own_limits(&self) {
        let limit = |value: u64| (value != u64::MAX).then_some(value);
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit(self.nofile.0),
                maximum: limit(self.nofile.1),
            },
        );
        if let (true, Some(score)) = (self.as_root, self.oom_score_adj) {
            let _ = std::fs::write(OOM_SCORE_ADJ, score.to_string());
        }
    }

    /// Takes it again.
    pub(super) fn set_own_limits(&self) {
        raise_descriptors();
        protect_from_oom(self.as_root);
    }

    /// Records are root's business, and written where the configuration wants them.
    pub(super) fn records(&self, options: &Options) -> Records {
        Records::new(self.as_root && options.accounting)
    }

    pub(super) fn random_bytes<const N: usize>(&self) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).ok().map(|()| bytes)
    }
}

fn privsep_ids(options: &Options) -> Option<Ids> {
    let name = options.privsep_user.as_ref()?;
    let Some(account) = account::lookup(name.as_bytes()) else {
        log::warn!("PrivsepUser: there is no such account; using unused ids");
        return None;
    };
    Some(Ids {
        uid: account.uid,
        gid: account.gid,
    })
}

/// Raises the limit on descriptors; gives what it was, and how many connections fit now.
fn raise_descriptors() -> ((u64, u64), usize) {
    use crate::limits::{CONNECTIONS_MAX, DESCRIPTORS_PER_CONNECTION, DESCRIPTORS_RESERVED};
    let was = getrlimit(Resource::Nofile);
    let unlimited = u64::MAX;
    let hard = was.maximum.unwrap_or(unlimited);
    if setrlimit(
        Resource::Nofile,
        Rlimit {
            current: was.maximum,
            maximum: was.maximum,
        },
    )
    .is_err()
    {
        log::warn!("the limit on open files could not be raised");
    }
    let now = getrlimit(Resource::Nofile).current.unwrap_or(unlimited);
    let room = usize::try_from(now)
        .unwrap_or(usize::MAX)
        .saturating_sub(DESCRIPTORS_RESERVED);
    let connections = (room / DESCRIPTORS_PER_CONNECTION).clamp(1, CONNECTIONS_MAX);
    ((was.current.unwrap_or(unlimited), hard), connections)
}

/// The last process to be killed when memory runs out should be the one that lets an administrator
/// in (OpenSSH: oom_adjust_setup). Gives the value before.
fn protect_from_oom(as_root: bool) -> Option<i32> {
    let before = std::fs::read_to_string(OOM_SCORE_ADJ).ok()?;
    let before = before.trim().parse().ok()?;
    if as_root && std::fs::write(OOM_SCORE_ADJ, "-1000").is_err() {
        log::debug!("oom_score_adj could not be lowered");
    }
    Some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_confined_id_is_known_as_one() {
        for id in [
            NET_ID,
            USERS_NET_ID,
            DEBUG_ID,
            DECOY_ID,
            PASSWORD_ID,
            NAME_ID,
            END_ID,
        ] {
            assert!(Host::is_confined_id(id), "{id}");
        }
        assert!(!Host::is_confined_id(0) && !Host::is_confined_id(1000));
    }
}
