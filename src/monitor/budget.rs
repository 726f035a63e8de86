//! How much of the log users may fill with what they do to files: so many bytes at once, and so many a
//! second in the long run, for all connections of one user together.
//!
//! Nothing is left out. Who is beyond the budget is not listened to for a moment: the link fills up,
//! and the SFTP server behind it waits before it does what comes next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::limits::{FILE_LOG_BURST_BYTES, FILE_LOG_BYTES_PER_SECOND, FILE_LOG_PAUSE_MS};

/// What each user has left; who has all of it is not kept.
#[derive(Debug, Default)]
pub(super) struct Budgets(BTreeMap<u32, Budget>);

#[derive(Debug)]
struct Budget {
    /// Below zero by the last line at most.
    left_bytes: i64,
    since: Instant,
}

impl Budgets {
    /// How long this user is not to be listened to; `None`: there is something left.
    pub(super) fn wait(&mut self, uid: u32, now: Instant) -> Option<Duration> {
        let budget = self.0.get_mut(&uid)?;
        budget.refill(now);
        if budget.left_bytes > 0 {
            return None;
        }
        let owed_bytes = budget.left_bytes.unsigned_abs();
        let owed_ms = owed_bytes * 1000 / FILE_LOG_BYTES_PER_SECOND.unsigned_abs();
        Some(Duration::from_millis(owed_ms + FILE_LOG_PAUSE_MS))
    }

    /// A line was written.
    pub(super) fn spend(&mut self, uid: u32, bytes: usize, now: Instant) {
        if !self.0.contains_key(&uid) {
            self.0.retain(|_, budget| !budget.is_full(now));
        }
        let budget = self.0.entry(uid).or_insert(Budget {
            left_bytes: FILE_LOG_BURST_BYTES,
            since: now,
        });
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        budget.left_bytes = budget.left_bytes.saturating_sub(bytes);
    }
}

impl Budget {
    fn refill(&mut self, now: Instant) {
        let passed_ms = now.saturating_duration_since(self.since).as_millis();
        if passed_ms > 0 {
            let passed_ms = i64::try_from(passed_ms).unwrap_or(i64::MAX);
            let gained = passed_ms.saturating_mul(FILE_LOG_BYTES_PER_SECOND) / 1000;
            self.left_bytes = (self.left_bytes.saturating_add(gained)).min(FILE_LOG_BURST_BYTES);
            self.since = now;
        }
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left_bytes == FILE_LOG_BURST_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of 100 bytes that are written until somebody has to wait.
    fn lines(budgets: &mut Budgets, uid: u32, now: Instant) -> i64 {
        let mut count = 0;
        while budgets.wait(uid, now).is_none() {
            budgets.spend(uid, 100, now);
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_is_followed_by_the_rate_and_users_have_their_own() {
        let now = Instant::now();
        let mut budgets = Budgets::default();
        let burst = FILE_LOG_BURST_BYTES / 100;
        assert!((burst..=burst + 1).contains(&lines(&mut budgets, 1, now)));
        assert_eq!(lines(&mut budgets, 1, now), 0);
        assert!(lines(&mut budgets, 2, now) >= burst);
        let later = now + Duration::from_secs(10);
        let ten_seconds = FILE_LOG_BYTES_PER_SECOND / 10;
        assert!((ten_seconds - 2..=ten_seconds + 1).contains(&lines(&mut budgets, 1, later)));
    }

    #[test]
    fn who_overdrew_waits_longer_and_then_has_something() {
        let now = Instant::now();
        let mut budgets = Budgets::default();
        let one_second = usize::try_from(FILE_LOG_BYTES_PER_SECOND).unwrap_or(0);
        let burst = usize::try_from(FILE_LOG_BURST_BYTES).unwrap_or(0);
        budgets.spend(1, burst + one_second, now);
        let wait = budgets.wait(1, now).unwrap_or_default();
        assert_eq!(wait, Duration::from_millis(1000 + FILE_LOG_PAUSE_MS));
        assert_eq!(budgets.wait(1, now + wait), None);
    }

    #[test]
    fn who_has_all_of_it_is_forgotten() {
        let now = Instant::now();
        let mut budgets = Budgets::default();
        for uid in 0..1000 {
            budgets.spend(uid, 10, now + Duration::from_secs(u64::from(uid)));
        }
        assert!(budgets.0.len() < 3, "{}", budgets.0.len());
    }
}
