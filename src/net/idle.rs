//! Channels that nothing passes through for too long (sshd_config(5) ChannelTimeout), and a
//! connection without any (UnusedConnectionTimeout).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::pattern;

/// The configured times, and since when each channel rests.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// Patterns of types, with their times; the first that matches counts.
    rules: Vec<(Vec<u8>, Duration)>,
    unused: Option<Duration>,
    unused_since: Option<Instant>,
    channels: BTreeMap<u32, Rest>,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    limit: Duration,
    since: Instant,
}

/// A channel as it is now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen<'a> {
    pub number: u32,
    /// As ChannelTimeout names it.
    pub kind: &'a [u8],
    /// Something passed through since the last look.
    pub moved: bool,
}

impl Idle {
    pub(super) fn new(rules: &[(agent_helper::wire::Bytes, u32)], unused_s: u32) -> Self {
        let time = |seconds: u32| Duration::from_secs(seconds.into());
        Self {
            rules: rules
                .iter()
                .map(|(kind, seconds)| (kind.to_vec(), time(*seconds)))
                .collect(),
            unused: (unused_s > 0).then(|| time(unused_s)),
            unused_since: None,
            channels: BTreeMap::new(),
        }
    }

    /// Whether channels are to be looked at.
    pub(super) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }

    /// Looks at all channels there are; gives those whose time is over.
    pub(super) fn look<'a>(
        &mut self,
        seen: impl Iterator<Item = Seen<'a>>,
        now: Instant,
    ) -> Vec<u32> {
        let before = std::mem::take(&mut self.channels);
        let mut over = Vec::new();
        for channel in seen {
            let Some(limit) = self.limit(channel.kind) else {
                continue;
            };
            let since = match before.get(&channel.number) {
                Some(rest) if !channel.moved && rest.limit == limit => rest.since,
                _ => now,
            };
            if now.saturating_duration_since(since) >= limit {
                over.push(channel.number);
            } else {
                let rest = Rest { limit, since };
                self.channels.insert(channel.number, rest);
            }
        }
        over
    }

    /// Whether a connection with or without channels has been unused for too long.
    pub(super) fn is_over(&mut self, used: bool, now: Instant) -> bool {
        let Some(limit) = self.unused else {
            return false;
        };
        if used {
            self.unused_since = None;
            return false;
        }
        now.saturating_duration_since(*self.unused_since.get_or_insert(now)) >= limit
    }

    /// When to look again, though nothing happens.
    pub(super) fn next(&self) -> Option<Instant> {
        let channels = self.channels.values().map(|rest| rest.since + rest.limit);
        let unused = self.unused_since.zip(self.unused);
        channels
            .chain(unused.map(|(since, limit)| since + limit))
            .min()
    }

    fn limit(&self, kind: &[u8]) -> Option<Duration> {
        let rule = self
            .rules
            .iter()
            .find(|(wanted, _)| pattern::matches_one(kind, wanted))?;
        (!rule.1.is_zero()).then_some(rule.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn idle() -> Idle {
        let rules = [
            ("session:shell".into(), 0),
            ("session:*".into(), 10),
            ("direct-tcpip".into(), 5),
        ];
        Idle::new(&rules, 30)
    }

    fn seen(number: u32, kind: &[u8], moved: bool) -> Seen<'_> {
        Seen {
            number,
            kind,
            moved,
        }
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_channel_ends_when_nothing_passed_for_its_time() {
        let (mut idle, start) = (idle(), Instant::now());
        let mut look = |seconds, moved| {
            let all = [
                seen(0, b"session:command", false),
                seen(1, b"direct-tcpip", moved),
                seen(2, b"session:shell", false),
                seen(3, b"x11-connection", false),
            ];
            idle.look(all.into_iter(), at(start, seconds))
        };
        assert!(look(0, false).is_empty());
        assert!(look(4, true).is_empty());
        assert!(look(8, false).is_empty());
        assert_eq!(look(9, false), [1]);
        assert_eq!(look(10, true), [0]);
    }

    #[test]
    fn the_earliest_end_is_when_to_look_again() {
        let (mut idle, start) = (idle(), Instant::now());
        assert_eq!(idle.next(), None);
        let both = [
            seen(0, b"session:command", false),
            seen(1, b"direct-tcpip", false),
        ];
        idle.look(both.into_iter(), start);
        assert_eq!(idle.next(), Some(at(start, 5)));
        assert!(!idle.is_over(true, start));
        assert_eq!(idle.next(), Some(at(start, 5)));
    }

    #[test]
    fn a_connection_without_channels_ends_after_its_time() {
        let (mut idle, start) = (idle(), Instant::now());
        assert!(!idle.is_over(false, start));
        assert!(!idle.is_over(false, at(start, 29)));
        assert!(!idle.is_over(true, at(start, 29)));
        assert!(!idle.is_over(false, at(start, 31)));
        assert_eq!(idle.next(), Some(at(start, 61)));
        assert!(idle.is_over(false, at(start, 61)));
        assert!(!Idle::new(&[], 0).is_over(false, start));
    }
}
