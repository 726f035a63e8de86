//! How much of the log users may fill with what they do to files: so many bytes at once, and so many a
//! second in the long run, for all connections of one user together.
//!
//! Nothing is left out. Who is beyond the budget is not listened to for a moment: the link fills up,
//! and the SFTP server behind it waits before it does what comes next.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::rate::Rate;
use crate::limits::{FILE_LOG_BURST_BYTES, FILE_LOG_BYTES_PER_SECOND, FILE_LOG_PAUSE_MS};

/// What each user has left, in bytes; who has all of it is not kept.
#[derive(Debug, Default)]
pub(super) struct Budgets(BTreeMap<u32, Rate>);

impl Budgets {
    /// How long this user is not to be listened to; `None`: there is something left.
    pub(super) fn wait(&mut self, uid: u32, now: Instant) -> Option<Duration> {
        let owed = self.0.get_mut(&uid)?.owes(now)?;
        Some(owed + Duration::from_millis(FILE_LOG_PAUSE_MS))
    }

    /// A line was written.
    pub(super) fn spend(&mut self, uid: u32, bytes: usize, now: Instant) {
        if !self.0.contains_key(&uid) {
            self.0.retain(|_, budget| !budget.is_full(now));
        }
        let new = || Rate::new(FILE_LOG_BURST_BYTES, FILE_LOG_BYTES_PER_SECOND, now);
        self.0.entry(uid).or_insert_with(new).spend(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of 100 bytes that are written until somebody has to wait.
    fn lines(budgets: &mut Budgets, uid: u32, now: Instant) -> u32 {
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
