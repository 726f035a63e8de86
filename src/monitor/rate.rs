//! A token bucket: bursts up to a bound, a rate in the long run.

use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub(super) struct Rate {
    /// Thousandths of a token, so that short pauses count too; below zero they are owed.
    millitokens: i64,
    burst: u32,
    per_second: u32,
    since: Instant,
}

impl Rate {
    pub(super) fn new(burst: u32, per_second: u32, now: Instant) -> Self {
        Self {
            millitokens: i64::from(burst) * 1000,
            burst,
            per_second,
            since: now,
        }
    }

    /// Takes one token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let taken = self.millitokens >= 1000;
        if taken {
            self.millitokens -= 1000;
        }
        taken
    }

    /// Takes so many tokens, also where there are fewer.
    pub(super) fn spend(&mut self, tokens: usize) {
        let tokens = i64::try_from(tokens).unwrap_or(i64::MAX);
        self.millitokens = self.millitokens.saturating_sub(tokens.saturating_mul(1000));
    }

    /// How long it takes until nothing is owed; `None`: there is something left.
    pub(super) fn owes(&mut self, now: Instant) -> Option<Duration> {
        self.refill(now);
        let owed = self.millitokens.unsigned_abs() / u64::from(self.per_second);
        (self.millitokens <= 0).then(|| Duration::from_millis(owed))
    }

    /// Nothing was taken for so long that it is as new.
    pub(super) fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.millitokens == i64::from(self.burst) * 1000
    }

    fn refill(&mut self, now: Instant) {
        let passed_ms = now.saturating_duration_since(self.since).as_millis();
        if passed_ms > 0 {
            let passed_ms = i64::try_from(passed_ms).unwrap_or(i64::MAX);
            let gained = passed_ms.saturating_mul(i64::from(self.per_second));
            let full = i64::from(self.burst) * 1000;
            self.millitokens = self.millitokens.saturating_add(gained).min(full);
            self.since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
