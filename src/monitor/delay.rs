//! How long the answer to a failed login takes, so that time says nothing about accounts.
//!
//! As OpenSSH's auth2.c: a floor and a fraction that is keyed by a secret of this process and the
//! name, so that it is the same for each try; when the work took longer, the wish is doubled until
//! it has passed. The times of known and unknown names then lie in the same classes.

use std::time::Duration;

use crate::limits::{FAILURE_CEILING_US, FAILURE_FLOOR_US};
use crate::ssh::crypto::hash::Hash;

/// The secret part, made at start.
#[derive(Clone)]
pub(super) struct FailureDelay {
    secret: [u8; 32],
}

impl std::fmt::Debug for FailureDelay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FailureDelay")
    }
}

impl FailureDelay {
    pub(super) fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// How much longer to wait when `elapsed` went by since the request arrived.
    pub(super) fn remaining(&self, user: &[u8], elapsed: Duration) -> Duration {
        remaining(FAILURE_FLOOR_US + self.fraction_us(user), elapsed)
    }

    /// A number that belongs to the name, and that nobody outside can know.
    pub(super) fn seed(&self, user: &[u8]) -> u64 {
        let mut input = self.secret.to_vec();
        input.extend_from_slice(user);
        let digest = Hash::Sha512.digest(&input);
        digest
            .first_chunk()
            .map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }

    /// 0 to 4,294 us, as OpenSSH: 32 bits of a digest, in picoseconds.
    fn fraction_us(&self, user: &[u8]) -> u64 {
        (self.seed(user) >> 32) / 1_000_000
    }
}

fn remaining(wish_us: u64, elapsed: Duration) -> Duration {
    let elapsed_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
    if elapsed_us > FAILURE_CEILING_US {
        return Duration::ZERO;
    }
    let mut wish_us = wish_us.max(1);
    while wish_us < elapsed_us {
        wish_us *= 2; // ends: elapsed is below the ceiling
    }
    Duration::from_micros(wish_us - elapsed_us)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_never_comes_before_the_floor() {
        assert_eq!(
            remaining(5_000, Duration::ZERO),
            Duration::from_micros(5_000)
        );
        assert_eq!(
            remaining(5_000, Duration::from_micros(4_999)),
            Duration::from_micros(1)
        );
        assert_eq!(
            remaining(5_000, Duration::from_micros(5_000)),
            Duration::ZERO
        );
    }

    #[test]
    fn longer_work_is_rounded_up_by_doubling() {
        assert_eq!(
            remaining(5_000, Duration::from_micros(5_001)),
            Duration::from_micros(4_999)
        );
        assert_eq!(
            remaining(5_000, Duration::from_micros(10_001)),
            Duration::from_micros(9_999)
        );
        assert_eq!(
            remaining(7_000, Duration::from_micros(27_000)),
            Duration::from_micros(1_000)
        );
    }

    #[test]
    fn work_beyond_the_ceiling_is_not_padded() {
        assert_eq!(remaining(5_000, Duration::from_secs(6)), Duration::ZERO);
        assert_eq!(remaining(5_000, Duration::MAX), Duration::ZERO);
    }

    #[test]
    fn the_fraction_depends_on_name_and_secret_and_is_bounded() {
        let delay = FailureDelay::new([1; 32]);
        let other = FailureDelay::new([2; 32]);
        assert_eq!(delay.fraction_us(b"alice"), delay.fraction_us(b"alice"));
        assert_ne!(delay.fraction_us(b"alice"), delay.fraction_us(b"bob"));
        assert_ne!(delay.fraction_us(b"alice"), other.fraction_us(b"alice"));
        for number in 0..200_u32 {
            assert!(delay.fraction_us(&number.to_be_bytes()) <= 4_294);
        }
    }
}
