//! A token bucket: bursts up to a bound, a rate in the long run.

use std::time::Instant;

#[derive(Debug, Clone)]
pub(super) struct Rate {
    /// Thousandths of a token, so that short pauses count too.
    millitokens: u64,
    burst: u32,
    per_second: u32,
    since: Instant,
}

impl Rate {
    pub(super) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self {
            millitokens: u64::from(burst) * 1000,
            burst,
            per_second,
            since: now,
        }
    }

    /// Takes one token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let passed_ms = u64::try_from(now.saturating_duration_since(self.since).as_millis())
            .unwrap_or(u64::MAX);
        if passed_ms > 0 {
            let gained = passed_ms.saturating_mul(u64::from(self.per_second));
            let full = u64::from(self.burst) * 1000;
            self.millitokens = self.millitokens.saturating_add(gained).min(full);
            self.since = now;
        }
        let taken = self.millitokens >= 1000;
        if taken {
            self.millitokens -= 1000;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_followed_by_the_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(3, 2, start);
        assert_eq!((0..10).filter(|_| rate.take(start)).count(), 3);
        assert!(!rate.take(start + Duration::from_millis(499)));
        assert!(rate.take(start + Duration::from_millis(500)));
        assert!(!rate.take(start + Duration::from_millis(501)));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..10).filter(|_| rate.take(later)).count(), 3);
    }

    #[test]
    fn time_that_goes_backwards_gives_nothing() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut rate = Rate::new(1, 1000, start);
        assert!(rate.take(start));
        assert!(!rate.take(start.checked_sub(Duration::from_secs(5)).unwrap_or(start)));
    }
}
