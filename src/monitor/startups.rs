//! MaxStartups and PerSourceMaxStartups: whether one more unauthenticated connection is taken.
//!
//! Counts live in the monitor, so they outlive every `net` and each reload. Source: OpenSSH's
//! srclimit.c and sshd.c (should_drop_connection).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Unauthenticated connections, in all and by masked address.
#[derive(Debug, Default)]
pub(super) struct Startups {
    total: u32,
    sources: HashMap<IpAddr, u32>,
}

/// The configured bounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// MaxStartups: begin, rate in percent, full.
    pub max: (u32, u32, u32),
    /// PerSourceMaxStartups.
    pub per_source: u32,
    /// PerSourceNetBlockSize.
    pub block: (u8, u8),
}

/// Why a connection is refused, as OpenSSH says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drop {
    MaxStartups,
    PerSource,
}

/// What must be given back when the connection logs in or ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(IpAddr);

impl Startups {
    /// Takes a slot for `address`; `dice` is a random number.
    pub(super) fn take(
        &mut self,
        address: IpAddr,
        bounds: &Bounds,
        dice: u32,
    ) -> Result<Slot, Drop> {
        let source = masked(address, bounds.block);
        if dice % 100 < drop_percent(self.total, bounds.max) {
            return Err(Drop::MaxStartups);
        }
        if self.sources.get(&source).copied().unwrap_or(0) >= bounds.per_source {
            return Err(Drop::PerSource);
        }
        *self.sources.entry(source).or_default() += 1;
        self.total += 1;
        Ok(Slot(source))
    }

    pub(super) fn give_back(&mut self, slot: Slot) {
        self.total = self.total.saturating_sub(1);
        if let Some(count) = self.sources.get_mut(&slot.0) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&slot.0);
            }
        }
    }
}

/// The probability in percent with which the next connection is dropped.
fn drop_percent(total: u32, (begin, rate, full): (u32, u32, u32)) -> u32 {
    if total < begin {
        return 0;
    }
    if total >= full || rate >= 100 {
        return 100;
    }
    // total >= begin and total < full: the divisor is not 0.
    rate + (100 - rate) * (total - begin) / (full - begin)
}

/// The block that `address` is in, by PerSourceNetBlockSize.
pub(super) fn masked(address: IpAddr, (v4_bits, v6_bits): (u8, u8)) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(v4_bits.min(32)))
                .unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(v6_bits.min(128)))
                .unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const DEFAULT: Bounds = Bounds {
        max: (10, 30, 100),
        per_source: u32::MAX,
        block: (32, 128),
    };

    #[test]
    fn probability_rises_as_openssh_says() {
        let max = (10, 30, 100);
        assert_eq!(drop_percent(0, max), 0);
        assert_eq!(drop_percent(9, max), 0);
        assert_eq!(drop_percent(10, max), 30);
        assert_eq!(drop_percent(55, max), 65);
        assert_eq!(drop_percent(99, max), 99);
        assert_eq!(drop_percent(100, max), 100);
        assert_eq!(drop_percent(10, (10, 100, 10)), 100);
        assert_eq!(drop_percent(9, (10, 100, 10)), 0);
        assert_eq!(drop_percent(5, (0, 0, 0)), 100);
    }

    #[test]
    fn a_slot_that_is_given_back_is_free_again() {
        let mut startups = Startups::default();
        let address = "192.0.2.1".parse().unwrap();
        let bounds = Bounds {
            max: (2, 100, 2),
            ..DEFAULT
        };
        let slot = startups.take(address, &bounds, 0).unwrap();
        startups.take(address, &bounds, 0).unwrap();
        assert_eq!(startups.take(address, &bounds, 99), Err(Drop::MaxStartups));
        startups.give_back(slot);
        assert!(startups.take(address, &bounds, 0).is_ok());
    }

    #[test]
    fn sources_are_counted_by_block_and_forgotten() {
        let mut startups = Startups::default();
        let bounds = Bounds {
            per_source: 1,
            block: (24, 64),
            ..DEFAULT
        };
        let slot = startups
            .take("192.0.2.1".parse().unwrap(), &bounds, 0)
            .unwrap();
        let neighbour = "192.0.2.200".parse().unwrap();
        assert_eq!(startups.take(neighbour, &bounds, 0), Err(Drop::PerSource));
        assert!(
            startups
                .take("192.0.3.1".parse().unwrap(), &bounds, 0)
                .is_ok()
        );
        let six = startups
            .take("2001:db8::1".parse().unwrap(), &bounds, 0)
            .unwrap();
        assert_eq!(
            startups.take("2001:db8::2".parse().unwrap(), &bounds, 0),
            Err(Drop::PerSource)
        );
        startups.give_back(slot);
        startups.give_back(six);
        assert!(startups.take(neighbour, &bounds, 0).is_ok());
        assert_eq!(startups.sources.len(), 2);
    }

    #[test]
    fn a_mapped_address_is_the_same_source() {
        let mapped = "::ffff:192.0.2.1".parse().unwrap();
        assert_eq!(
            masked(mapped, (32, 128)),
            "192.0.2.1".parse::<IpAddr>().unwrap()
        );
        assert_eq!(masked(mapped, (0, 0)), "0.0.0.0".parse::<IpAddr>().unwrap());
    }
}
