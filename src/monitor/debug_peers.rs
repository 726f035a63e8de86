//! Who asks over the debug service's socket, and whether they may.
//!
//! Anybody of the machine may connect where the socket is open, as often as they like: what is known of
//! a user is kept for a moment, and accounts are looked up at a bounded rate.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;

use super::Monitor;
use super::rate::Rate;
use crate::account;
use crate::config::options::DebugOptions;
use crate::limits::{
    DEBUG_LOOKUPS_BURST, DEBUG_LOOKUPS_PER_SECOND, DEBUG_PEERS_KEPT, DEBUG_PEERS_KEPT_MS,
};
use crate::pattern;

/// A client of the service.
pub(super) struct Peer {
    pub uid: u32,
    pub permitted: bool,
    /// For the log: `alice (uid 1000, pid 77)`.
    pub text: String,
}

/// What is known of users that asked.
#[derive(Debug)]
pub(super) struct Peers {
    /// The oldest first.
    known: Vec<(Instant, Known)>,
    look_ups: Rate,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    uid: u32,
    /// Empty: there is no such account, or no time to look it up.
    name: String,
    /// DebugAllowUsers or DebugAllowGroups names them.
    listed: bool,
}

impl Peers {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            known: Vec::new(),
            look_ups: Rate::new(DEBUG_LOOKUPS_BURST, DEBUG_LOOKUPS_PER_SECOND, now),
        }
    }

    /// Other lists count from now on.
    pub(super) fn forget(&mut self) {
        self.known = Vec::new();
    }

    fn about(&mut self, uid: u32, now: Instant, look_up: impl FnOnce(u32) -> Known) -> Known {
        let kept = Duration::from_millis(DEBUG_PEERS_KEPT_MS);
        self.known
            .retain(|(since, _)| now.saturating_duration_since(*since) < kept);
        if let Some((_, known)) = self.known.iter().find(|(_, known)| known.uid == uid) {
            return known.clone();
        }
        if !self.look_ups.take(now) {
            return Known {
                uid,
                name: String::new(),
                listed: false,
            };
        }
        let known = look_up(uid);
        if self.known.len() >= DEBUG_PEERS_KEPT {
            self.known.remove(0);
        }
        self.known.push((now, known.clone()));
        known
    }
}

impl Monitor {
    /// Who is at the other end, by the kernel's word, and whether they may ask.
    pub(super) fn peer_of(&mut self, socket: &OwnedFd) -> Option<Peer> {
        let credentials = socket_peercred(socket).ok()?;
        let uid = credentials.uid.as_raw();
        let pid = credentials.pid.as_raw_nonzero();
        let options = &self.generation.options;
        let known = self
            .debug
            .peers
            .about(uid, Instant::now(), |uid| look_up(uid, &options.debug));
        let own = rustix::process::geteuid().as_raw();
        let is_confined = super::host::Host::is_confined_id(uid)
            || self.host.net_ids(options).map(|ids| ids.uid) == Some(uid);
        let name = match known.name.as_str() {
            "" => "-".to_owned(),
            name => crate::logging::escape_name(name.as_bytes()),
        };
        Some(Peer {
            uid,
            permitted: uid == 0 || uid == own || known.listed && !is_confined,
            text: format!("{name} (uid {uid}, pid {pid})"),
        })
    }
}

fn look_up(uid: u32, options: &DebugOptions) -> Known {
    let account = account::by_uid(uid);
    let name = account.as_ref().map_or_else(String::new, |account| {
        String::from_utf8_lossy(&account.name).into_owned()
    });
    let matches = |name: &str, list: &[String]| {
        pattern::matches_list(name.as_bytes(), list.join(",").as_bytes()).is_match()
    };
    let in_group = || {
        let groups = account
            .as_ref()
            .map(|it| account::group_names(&it.groups()));
        let mut groups = groups.unwrap_or_default().into_iter();
        groups.any(|group| matches(&group, &options.allow_groups))
    };
    let listed = !name.is_empty()
        && (matches(&name, &options.allow_users) || !options.allow_groups.is_empty() && in_group());
    Known { uid, name, listed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(uid: u32) -> Known {
        Known {
            uid,
            name: format!("user{uid}"),
            listed: true,
        }
    }

    #[test]
    fn a_user_who_keeps_asking_is_looked_up_now_and_then() {
        let start = Instant::now();
        let mut peers = Peers::new(start);
        let mut looked_up = 0;
        for ms in 0..100_000 {
            let now = start + Duration::from_millis(ms);
            let known = peers.about(7, now, |uid| {
                looked_up += 1;
                of(uid)
            });
            assert_eq!(known, of(7));
        }
        assert_eq!(looked_up, 100_000_u64.div_ceil(DEBUG_PEERS_KEPT_MS));
        peers.forget();
        peers.about(7, start + Duration::from_secs(100), |_| Known {
            listed: false,
            ..of(7)
        });
        assert!(!peers.known[0].1.listed);
    }

    #[test]
    fn many_users_cost_no_more_than_the_rate() {
        let start = Instant::now();
        let mut peers = Peers::new(start);
        let mut looked_up = 0;
        for uid in 0..10_000 {
            let known = peers.about(uid, start, |uid| {
                looked_up += 1;
                of(uid)
            });
            assert_eq!(known.listed, looked_up == uid + 1, "who is unknown may not");
            assert!(peers.known.len() <= DEBUG_PEERS_KEPT);
        }
        assert_eq!(looked_up, DEBUG_LOOKUPS_BURST);
    }
}
