//! When a connection must act though nothing arrives: keepalives, new keys by time, giving buffers
//! back. An idle connection without such settings has no timer and never wakes.

use std::time::{Duration, Instant};

use crate::limits::{ACCEPT_RETRY_MS, IDLE_RELEASE_MS};

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Ask the client whether it lives.
    Keepalive,
    /// The client did not answer often enough.
    Dead,
    /// RekeyLimit's time is over.
    Rekey,
    /// Listeners that rested may accept again.
    Listeners,
    /// Nothing happened for a while: give buffers back.
    Release,
}

/// One connection's timers.
#[derive(Debug)]
pub(super) struct Timers {
    /// ClientAliveInterval, once logged in.
    alive_interval: Option<Duration>,
    alive_count_max: u32,
    alive_unanswered: u32,
    alive_at: Option<Instant>,
    rekey_interval: Option<Duration>,
    rekey_at: Option<Instant>,
    listeners_at: Option<Instant>,
    release_at: Option<Instant>,
}

impl Timers {
    pub(super) fn new(alive_interval_s: u32, alive_count_max: u32, rekey_s: u32) -> Self {
        let duration = |seconds: u32| (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        Self {
            alive_interval: duration(alive_interval_s),
            alive_count_max,
            alive_unanswered: 0,
            alive_at: None,
            rekey_interval: duration(rekey_s),
            rekey_at: None,
            listeners_at: None,
            release_at: None,
        }
    }

    /// The connection is logged in: ClientAliveInterval counts from here.
    pub(super) fn logged_in(&mut self, now: Instant) {
        self.alive_at = self.alive_interval.map(|interval| now + interval);
        self.keys_changed(now);
    }

    /// Something came from the client.
    pub(super) fn heard(&mut self, now: Instant) {
        self.alive_unanswered = 0;
        if self.alive_at.is_some() {
            self.alive_at = self.alive_interval.map(|interval| now + interval);
        }
    }

    /// New keys are in use.
    pub(super) fn keys_changed(&mut self, now: Instant) {
        self.rekey_at = self.rekey_interval.map(|interval| now + interval);
    }

    /// Accepting failed for want of descriptors or memory.
    pub(super) fn rest_listeners(&mut self, now: Instant) {
        let rest = Duration::from_millis(ACCEPT_RETRY_MS.into());
        self.listeners_at.get_or_insert(now + rest);
    }

    /// Something moved, so buffers are in use.
    pub(super) fn busy(&mut self, now: Instant) {
        self.release_at = Some(now + Duration::from_millis(IDLE_RELEASE_MS.into()));
    }

    /// When to wake up at the latest.
    pub(super) fn next(&self) -> Option<Instant> {
        [
            self.alive_at,
            self.rekey_at,
            self.listeners_at,
            self.release_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What is due at `now`; called until it gives `None`.
    pub(super) fn due(&mut self, now: Instant) -> Option<Due> {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.alive_at) {
            self.alive_at = self.alive_interval.map(|interval| now + interval);
            self.alive_unanswered = self.alive_unanswered.saturating_add(1);
            // As OpenSSH: a maximum of 0 asks for ever and never gives up.
            let given_up = self.alive_count_max > 0 && self.alive_unanswered > self.alive_count_max;
            return Some(if given_up { Due::Dead } else { Due::Keepalive });
        }
        if is_due(self.rekey_at) {
            self.rekey_at = None;
            return Some(Due::Rekey);
        }
        if is_due(self.listeners_at) {
            self.listeners_at = None;
            return Some(Due::Listeners);
        }
        if is_due(self.release_at) {
            self.release_at = None;
            return Some(Due::Release);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(timers: &mut Timers, now: Instant) -> Vec<Due> {
        std::iter::from_fn(|| timers.due(now)).collect()
    }

    #[test]
    fn an_idle_connection_never_wakes() {
        let start = Instant::now();
        let mut timers = Timers::new(0, 3, 0);
        timers.logged_in(start);
        assert_eq!(timers.next(), None);
        timers.busy(start);
        let later = start + Duration::from_millis(IDLE_RELEASE_MS.into());
        assert_eq!(timers.next(), Some(later));
        assert_eq!(drain(&mut timers, later), [Due::Release]);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_silent_client_is_given_up_after_count_max_questions() {
        let mut now = Instant::now();
        let mut timers = Timers::new(15, 2, 0);
        timers.logged_in(now);
        let mut seen = Vec::new();
        for _ in 0..3 {
            now += Duration::from_secs(15);
            seen.extend(drain(&mut timers, now));
        }
        assert_eq!(seen, [Due::Keepalive, Due::Keepalive, Due::Dead]);
    }

    #[test]
    fn any_byte_of_the_client_starts_the_count_anew() {
        let mut now = Instant::now();
        let mut timers = Timers::new(15, 1, 0);
        timers.logged_in(now);
        for _ in 0..5 {
            now += Duration::from_secs(15);
            assert_eq!(drain(&mut timers, now), [Due::Keepalive]);
            timers.heard(now);
        }
    }

    #[test]
    fn nothing_asks_for_life_signs_before_login() {
        let start = Instant::now();
        let mut timers = Timers::new(15, 1, 0);
        timers.heard(start);
        assert_eq!(timers.next(), None);
    }
}
