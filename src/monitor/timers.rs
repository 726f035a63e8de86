//! Deadlines of the monitor, in order of time; each can be taken back.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::ids::{ConnectionKey, NetId};
use crate::profile::Kind;

/// What happens at a deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deadline {
    /// LoginGraceTime is over.
    Grace(ConnectionKey),
    /// The answer to a failed request may go out.
    Answer(ConnectionKey),
    /// Reading keys took too long.
    KeyReading(ConnectionKey),
    /// A connection that was told to end did not.
    Ending(ConnectionKey),
    /// A helper has not said hello.
    HelperHello(ConnectionKey),
    /// A helper that said too much is listened to again.
    HelperRested(ConnectionKey),
    /// What is still to be told of a connection that is over takes too long.
    Farewell(ConnectionKey),
    /// A user's `net`, or one that accepts no more, has been without connections for long enough.
    Idle(NetId),
    /// A `net` has not said hello.
    NetHello(NetId),
    /// A `net` may try to accept again.
    Resume(NetId),
    /// Strangers' `net` is due for a new start.
    Restart,
    /// The debug service's process has not said hello.
    DebugHello,
    /// The debug service may be started again.
    DebugRestart,
    /// What `net`s have not told about their connections is done without.
    Gathered,
    /// What a connection left behind is due to be looked at.
    Aftermath(u64),
    /// The monitor's own profile of this kind has taken long enough.
    OwnProfile(Kind),
    /// A program that is to take over has not proven itself.
    Probe,
}

/// Names a deadline, to take it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerId(Instant, u64);

#[derive(Debug, Default)]
pub(super) struct Timers {
    queue: BTreeMap<TimerId, Deadline>,
    last: u64,
}

impl Timers {
    pub(super) fn after(&mut self, delay: Duration, deadline: Deadline) -> TimerId {
        self.last += 1;
        let id = TimerId(Instant::now() + delay, self.last);
        self.queue.insert(id, deadline);
        id
    }

    pub(super) fn cancel(&mut self, id: Option<TimerId>) {
        if let Some(id) = id {
            self.queue.remove(&id);
        }
    }

    /// How long until the next deadline; `None`: there is none.
    pub(super) fn next_in(&self, now: Instant) -> Option<Duration> {
        self.queue
            .first_key_value()
            .map(|(id, _)| id.0.saturating_duration_since(now))
    }

    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Deadline> {
        let first = self.queue.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_order_and_can_be_taken_back() {
        let mut timers = Timers::default();
        let late = timers.after(Duration::from_secs(20), Deadline::Restart);
        timers.after(Duration::from_secs(10), Deadline::Idle(NetId(1)));
        timers.after(Duration::from_secs(30), Deadline::Idle(NetId(2)));
        timers.cancel(Some(late));
        timers.cancel(Some(late));
        let now = Instant::now();
        assert_eq!(timers.pop_due(now), None);
        assert!(
            timers
                .next_in(now)
                .is_some_and(|left| left <= Duration::from_secs(10))
        );
        let then = now + Duration::from_secs(60);
        assert_eq!(timers.next_in(then), Some(Duration::ZERO));
        assert_eq!(timers.pop_due(then), Some(Deadline::Idle(NetId(1))));
        assert_eq!(timers.pop_due(then), Some(Deadline::Idle(NetId(2))));
        assert_eq!(timers.next_in(then), None);
    }
}
