//! PerSourcePenalties: addresses that behaved badly are refused for a while.
//!
//! The table is the monitor's, so it outlives every `net` and each reload. Penalties of one block of
//! addresses add up; small sums wait until they are worth refusing for. It can be listed, cleared
//! and changed while the server runs. Source: OpenSSH's srclimit.c.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Monitor;
use super::startups::masked;
use crate::config::penalties::{Overflow, Penalties as Settings};
use crate::pattern::{Outcome, address_matches_list};

/// What an address is penalised for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Offence {
    Crash,
    AuthFail,
    InvalidUser,
    NoAuth,
    GraceExceeded,
    RefusedConnection,
}

impl Offence {
    /// As PerSourcePenalties spells it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::AuthFail => "authfail",
            Self::InvalidUser => "invaliduser",
            Self::NoAuth => "noauth",
            Self::GraceExceeded => "grace-exceeded",
            Self::RefusedConnection => "refuseconnection",
        }
    }

    /// OpenSSH's words for it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Crash => "penalty: caused crash",
            Self::AuthFail => "penalty: failed authentication",
            Self::InvalidUser => "penalty: attempted invalid user login",
            Self::NoAuth => "penalty: connections without attempting authentication",
            Self::GraceExceeded => "penalty: exceeded LoginGraceTime",
            Self::RefusedConnection => "penalty: attempted prohibited connection",
        }
    }

    fn costs(self, settings: &Settings) -> Duration {
        Duration::from_secs(
            match self {
                Self::Crash => settings.crash_s,
                Self::AuthFail => settings.auth_fail_s,
                Self::InvalidUser => settings.invalid_user_s,
                Self::NoAuth => settings.no_auth_s,
                Self::GraceExceeded => settings.grace_exceeded_s,
                Self::RefusedConnection => settings.refuse_connection_s,
            }
            .into(),
        )
    }
}

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Penalised(Offence),
    /// The table is full, and set to refuse everybody then.
    TableFull,
}

impl Refused {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Penalised(offence) => offence.text(),
            Self::TableFull => "too many penalised addresses",
        }
    }
}

/// The penalty of one block of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Penalty {
    pub until: Instant,
    /// The last that added to it.
    pub offence: Offence,
    /// It reached the minimum: the block is refused.
    pub active: bool,
}

/// What a new penalty did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Imposed {
    pub total: Duration,
    /// It began to count with this one.
    pub activated: bool,
}

/// How a connection has behaved so far, as far as penalties go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Conduct {
    /// No try yet.
    Silent,
    /// Tried to log in, in vain.
    Tried,
    /// Tried under a name that may not log in.
    TriedInvalid,
    /// Worse than any try.
    Worse(Offence),
    /// Logged in, or failed through no fault of its own.
    Good,
}

impl Conduct {
    /// A try failed.
    pub(super) fn failed(&mut self, invalid_user: bool) {
        match self {
            Self::Silent | Self::Tried if invalid_user => *self = Self::TriedInvalid,
            Self::Silent => *self = Self::Tried,
            _ => {}
        }
    }

    /// What it is penalised for at its end.
    pub(super) fn offence(self) -> Option<Offence> {
        match self {
            Self::Silent => Some(Offence::NoAuth),
            Self::Tried => Some(Offence::AuthFail),
            Self::TriedInvalid => Some(Offence::InvalidUser),
            Self::Worse(offence) => Some(offence),
            Self::Good => None,
        }
    }
}

/// All penalties, by masked address.
#[derive(Debug, Default)]
pub(super) struct Penalties {
    four: Table,
    six: Table,
}

#[derive(Debug, Default)]
struct Table {
    by_address: BTreeMap<IpAddr, Penalty>,
    by_end: BTreeSet<(Instant, IpAddr)>,
}

impl Penalties {
    /// Penalises the block that `address` is in; `None` where nothing comes of it.
    pub(super) fn impose(
        &mut self,
        address: IpAddr,
        block: (u8, u8),
        offence: Offence,
        settings: &Settings,
        now: Instant,
    ) -> Option<Imposed> {
        let cost = offence.costs(settings);
        if cost.is_zero() {
            return None;
        }
        let source = masked(address, block);
        let (table, most, overflow) = self.table(source, settings);
        table.expire(now);
        let (minimum, maximum) = (
            Duration::from_secs(settings.min_s.into()),
            Duration::from_secs(settings.max_s.into()),
        );
        let before = table.by_address.get(&source).copied();
        if before.is_none() && table.by_address.len() >= most {
            match overflow {
                Overflow::DenyAll => return None,
                Overflow::Permissive => table.forget_soonest(),
            }
        }
        // As OpenSSH: the maximum is for sums.
        let total = before.map_or(cost, |before| (before.until - now + cost).min(maximum));
        let was_active = before.is_some_and(|before| before.active);
        let active = was_active || total > minimum;
        table.put(
            source,
            Penalty {
                until: now + total,
                offence,
                active,
            },
        );
        Some(Imposed {
            total,
            activated: active && !was_active,
        })
    }

    /// Whether a connection from `address` is taken.
    pub(super) fn check(
        &mut self,
        address: IpAddr,
        block: (u8, u8),
        settings: &Settings,
        now: Instant,
    ) -> Result<(), Refused> {
        let source = masked(address, block);
        let (table, most, overflow) = self.table(source, settings);
        table.expire(now);
        match table.by_address.get(&source) {
            Some(penalty) if penalty.active => Err(Refused::Penalised(penalty.offence)),
            _ if overflow == Overflow::DenyAll && table.by_address.len() >= most => {
                Err(Refused::TableFull)
            }
            _ => Ok(()),
        }
    }

    fn table(&mut self, source: IpAddr, settings: &Settings) -> (&mut Table, usize, Overflow) {
        let bound = |sources| usize::try_from(sources).unwrap_or(usize::MAX);
        if source.is_ipv4() {
            let most = bound(settings.max_sources.0);
            (&mut self.four, most, settings.overflow.0)
        } else {
            let most = bound(settings.max_sources.1);
            (&mut self.six, most, settings.overflow.1)
        }
    }
}

/// For whoever looks at a running server.
impl Penalties {
    /// Everything that is remembered, addresses in order.
    pub(super) fn list(&mut self, now: Instant) -> Vec<(IpAddr, Penalty)> {
        let mut all = Vec::new();
        for table in [&mut self.four, &mut self.six] {
            table.expire(now);
            all.extend(table.by_address.iter().map(|(at, penalty)| (*at, *penalty)));
        }
        all
    }

    /// Forgets the penalty of the block that `address` is in, or all of them; gives how many.
    pub(super) fn clear(&mut self, address: Option<IpAddr>, block: (u8, u8)) -> usize {
        match address.map(|address| masked(address, block)) {
            Some(source) => {
                let table = if source.is_ipv4() {
                    &mut self.four
                } else {
                    &mut self.six
                };
                usize::from(table.remove(source).is_some())
            }
            None => {
                let all = self.four.by_address.len() + self.six.by_address.len();
                *self = Self::default();
                all
            }
        }
    }

    /// Sets how long the block that `address` is in stays refused from now on; zero lets it in.
    pub(super) fn set(
        &mut self,
        address: IpAddr,
        block: (u8, u8),
        time: Duration,
        settings: &Settings,
        now: Instant,
    ) {
        self.clear(Some(address), block);
        let source = masked(address, block);
        let (table, most, _) = self.table(source, settings);
        if time.is_zero() {
            return;
        }
        if table.by_address.len() >= most {
            table.forget_soonest();
        }
        table.put(
            source,
            Penalty {
                until: now + time,
                offence: Offence::RefusedConnection,
                active: true,
            },
        );
    }
}

impl Table {
    fn put(&mut self, source: IpAddr, penalty: Penalty) {
        self.remove(source);
        self.by_end.insert((penalty.until, source));
        self.by_address.insert(source, penalty);
    }

    fn remove(&mut self, source: IpAddr) -> Option<Penalty> {
        let penalty = self.by_address.remove(&source)?;
        self.by_end.remove(&(penalty.until, source));
        Some(penalty)
    }

    fn expire(&mut self, now: Instant) {
        while let Some((until, source)) = self.by_end.first().copied()
            && until <= now
        {
            self.remove(source);
        }
    }

    fn forget_soonest(&mut self) {
        if let Some((_, source)) = self.by_end.first().copied() {
            self.remove(source);
        }
    }
}

impl Monitor {
    /// Penalises `address` as the configuration of now says.
    pub(super) fn penalise(&mut self, address: IpAddr, offence: Offence) {
        let options = &self.generation.options;
        let Some(settings) = &options.per_source_penalties else {
            return;
        };
        if is_exempt(address, &options.per_source_penalty_exempt) {
            return;
        }
        let block = options.per_source_net_block;
        let imposed = self
            .penalties
            .impose(address, block, offence, settings, Instant::now());
        let Some(Imposed { total, activated }) = imposed else {
            return;
        };
        let (total_s, address) = (total.as_secs(), address.to_canonical());
        if activated {
            log::info!(
                "activating a penalty of {total_s} seconds for {address}: {}",
                offence.name()
            );
        } else {
            log::debug!(
                "{address} has a penalty of {total_s} seconds: {}",
                offence.name()
            );
        }
    }

    /// Whether penalties let a connection from `address` in.
    pub(super) fn unpenalised(&mut self, address: IpAddr) -> Result<(), Refused> {
        let options = &self.generation.options;
        match &options.per_source_penalties {
            Some(settings) if !is_exempt(address, &options.per_source_penalty_exempt) => {
                let block = options.per_source_net_block;
                self.penalties
                    .check(address, block, settings, Instant::now())
            }
            _ => Ok(()),
        }
    }
}

/// Whether PerSourcePenaltyExemptList has `address`.
pub(super) fn is_exempt(address: IpAddr, list: &str) -> bool {
    address_matches_list(address.to_canonical(), list) == Ok(Outcome::Yes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::penalties::DEFAULT;

    const BLOCK: (u8, u8) = (32, 128);

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn small_penalties_add_up_until_they_count() {
        let mut penalties = Penalties::default();
        let now = Instant::now();
        let mut fail = |now| {
            let it = penalties.impose(address(1), BLOCK, Offence::AuthFail, &DEFAULT, now);
            let refused = penalties.check(address(1), BLOCK, &DEFAULT, now).is_err();
            (it.unwrap().total.as_secs(), refused)
        };
        // 15 seconds are not more than the minimum of 15.
        assert_eq!(fail(now), (5, false));
        assert_eq!(fail(now), (10, false));
        assert_eq!(fail(now), (15, false));
        assert_eq!(fail(now), (20, true));
        // What has passed is paid.
        assert_eq!(fail(now + seconds(10)), (15, true));
        assert!(
            penalties
                .check(address(1), BLOCK, &DEFAULT, now + seconds(26))
                .is_ok()
        );
        assert!(penalties.list(now + seconds(26)).is_empty());
    }

    #[test]
    fn a_large_penalty_counts_at_once_and_none_lasts_for_ever() {
        let mut penalties = Penalties::default();
        let now = Instant::now();
        for round in 1..=20_u64 {
            let imposed = penalties.impose(address(1), BLOCK, Offence::Crash, &DEFAULT, now);
            let imposed = imposed.unwrap();
            assert_eq!(imposed.total, seconds((90 * round).min(600)));
            assert_eq!(imposed.activated, round == 1);
        }
        let refused = penalties.check(address(1), BLOCK, &DEFAULT, now);
        assert_eq!(refused, Err(Refused::Penalised(Offence::Crash)));
        assert!(penalties.check(address(2), BLOCK, &DEFAULT, now).is_ok());
    }

    #[test]
    fn neighbours_in_a_block_share_their_penalty() {
        let mut penalties = Penalties::default();
        let now = Instant::now();
        let block = (24, 64);
        penalties.impose(address(1), block, Offence::Crash, &DEFAULT, now);
        assert!(penalties.check(address(200), block, &DEFAULT, now).is_err());
        let six = "2001:db8::1".parse().unwrap();
        penalties.impose(six, block, Offence::Crash, &DEFAULT, now);
        let neighbour = "2001:db8::2".parse().unwrap();
        assert!(penalties.check(neighbour, block, &DEFAULT, now).is_err());
        let other = "2001:db8:1::1".parse().unwrap();
        assert!(penalties.check(other, block, &DEFAULT, now).is_ok());
    }

    #[test]
    fn a_full_table_forgets_or_refuses_all() {
        let now = Instant::now();
        let settings = Settings {
            max_sources: (2, 2),
            ..DEFAULT
        };
        let mut penalties = Penalties::default();
        for (number, offence) in [
            (1, Offence::GraceExceeded),
            (2, Offence::Crash),
            (3, Offence::Crash),
        ] {
            penalties.impose(address(number), BLOCK, offence, &settings, now);
        }
        let left: Vec<_> = penalties.list(now).iter().map(|(at, _)| *at).collect();
        assert_eq!(left, [address(2), address(3)]);

        let strict = Settings {
            overflow: (Overflow::DenyAll, Overflow::DenyAll),
            ..settings
        };
        assert_eq!(
            penalties.check(address(9), BLOCK, &strict, now),
            Err(Refused::TableFull)
        );
        let more = penalties.impose(address(9), BLOCK, Offence::Crash, &strict, now);
        assert_eq!(more, None);
        let six = "2001:db8::1".parse().unwrap();
        assert!(penalties.check(six, BLOCK, &strict, now).is_ok());
    }

    #[test]
    fn penalties_can_be_seen_cleared_and_set() {
        let mut penalties = Penalties::default();
        let now = Instant::now();
        penalties.impose(address(1), BLOCK, Offence::Crash, &DEFAULT, now);
        penalties.impose(address(2), BLOCK, Offence::NoAuth, &DEFAULT, now);
        let seen = penalties.list(now);
        assert_eq!(seen.len(), 2);
        assert!(seen[0].1.active && !seen[1].1.active);
        assert_eq!(penalties.clear(Some(address(1)), BLOCK), 1);
        assert_eq!(penalties.clear(Some(address(1)), BLOCK), 0);
        assert!(penalties.check(address(1), BLOCK, &DEFAULT, now).is_ok());
        penalties.set(address(3), BLOCK, seconds(100), &DEFAULT, now);
        assert!(penalties.check(address(3), BLOCK, &DEFAULT, now).is_err());
        penalties.set(address(3), BLOCK, Duration::ZERO, &DEFAULT, now);
        assert!(penalties.check(address(3), BLOCK, &DEFAULT, now).is_ok());
        assert_eq!(penalties.clear(None, BLOCK), 1);
        assert!(penalties.list(now).is_empty());
    }

    #[test]
    fn offences_without_a_cost_are_forgiven() {
        let settings = Settings {
            no_auth_s: 0,
            ..DEFAULT
        };
        let mut penalties = Penalties::default();
        let now = Instant::now();
        let imposed = penalties.impose(address(1), BLOCK, Offence::NoAuth, &settings, now);
        assert_eq!(imposed, None);
        assert!(penalties.list(now).is_empty());
    }

    #[test]
    fn exempt_addresses_are_patterns_and_blocks() {
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert!(is_exempt(address(1), "192.0.2.0/24"));
        assert!(is_exempt(mapped, "10.0.0.0/8,192.0.2.*"));
        assert!(!is_exempt(address(1), "!192.0.2.1,192.0.2.0/24"));
        assert!(!is_exempt(address(1), "198.51.100.0/24"));
        assert!(!is_exempt(address(1), ""));
    }
}
