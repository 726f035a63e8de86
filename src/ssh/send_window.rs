//! What we may send on a channel: the client's window, and less than that while somebody types on
//! another channel.
//!
//! Everything on its way to the client stands in one queue. A client that grants two mebibytes and
//! takes them slower than they come has all of them before the echo of a key. So while another
//! channel is interactive, one may have only so much in flight: sent, and not granted again. Where
//! the way is long, that little would not fill it; then the client's grants are long in coming each
//! time, and the limit doubles until they are not.

use core::time::Duration;

use crate::limits::{
    INTERACTIVE_DATA_BYTES, SHARED_FLIGHT_BYTES, SHARED_LONG_WAIT, SHARED_LONG_WAITS,
    SHARED_SHORT_WAITS,
};

/// The sending side of one channel's window (RFC 4254 section 5.2).
#[derive(Debug)]
pub(super) struct SendWindow {
    left_bytes: u32,
    max_packet_bytes: u32,
    /// The largest window so far: what is left when the client took everything.
    full_bytes: u32,
    /// The limit counts.
    shares: bool,
    /// In flight at most.
    limit_bytes: u32,
    /// Since when the limit, and nothing else, holds data back.
    held_since: Option<Duration>,
    /// A grant came since then.
    granted: bool,
    /// How many waits for a grant in a row were long; or short.
    long_waits: u16,
    short_waits: u16,
}

impl SendWindow {
    /// As the client said when the channel was opened.
    pub(super) fn new(bytes: u32, max_packet_bytes: u32) -> Self {
        Self {
            left_bytes: bytes,
            max_packet_bytes,
            full_bytes: bytes,
            shares: false,
            limit_bytes: SHARED_FLIGHT_BYTES,
            held_since: None,
            granted: false,
            long_waits: 0,
            short_waits: 0,
        }
    }

    /// Bytes of the largest packet that may go now.
    pub(super) fn room_bytes(&self) -> u32 {
        if self.is_held() {
            return 0;
        }
        // Beyond the limit by one packet, rather than a packet cut short.
        self.left_bytes.min(self.max_packet_bytes)
    }

    /// So many bytes were sent.
    pub(super) fn take(&mut self, bytes: u32) {
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
    }

    /// SSH_MSG_CHANNEL_WINDOW_ADJUST; false: the sum is no number of the protocol's.
    pub(super) fn raise(&mut self, bytes: u32) -> bool {
        let Some(left_bytes) = self.left_bytes.checked_add(bytes) else {
            return false;
        };
        self.left_bytes = left_bytes;
        self.full_bytes = self.full_bytes.max(left_bytes);
        self.granted = true;
        true
    }

    /// Whether `len_bytes` from the client look like somebody typing: little comes, and little is
    /// on its way back.
    pub(super) fn is_interactive(&self, len_bytes: usize) -> bool {
        let in_flight = usize::try_from(self.in_flight_bytes()).unwrap_or(usize::MAX);
        len_bytes.max(in_flight) <= INTERACTIVE_DATA_BYTES
    }

    /// Another channel is interactive, at the time `now` since whenever. Gives when to ask again, if
    /// the limit holds data back.
    pub(super) fn share(&mut self, now: Duration) -> Option<Duration> {
        self.shares = true;
        if let Some(since) = self.held_since {
            let is_long = now.saturating_sub(since) >= SHARED_LONG_WAIT;
            if self.granted || is_long {
                self.note_wait(is_long);
                self.held_since = None;
            }
        }
        if !self.is_held() {
            self.held_since = None;
            return None;
        }
        let since = *self.held_since.get_or_insert_with(|| {
            self.granted = false;
            now
        });
        Some(since + SHARED_LONG_WAIT)
    }

    /// Whether another channel is interactive.
    pub(super) fn shares(&self) -> bool {
        self.shares
    }

    /// No other channel is interactive.
    pub(super) fn stop_sharing(&mut self) {
        self.shares = false;
        self.held_since = None;
    }

    fn note_wait(&mut self, is_long: bool) {
        if is_long {
            self.short_waits = 0;
            self.long_waits += 1;
        } else {
            self.long_waits = 0;
            self.short_waits += 1;
        }
        if self.long_waits >= SHARED_LONG_WAITS {
            self.long_waits = 0;
            self.limit_bytes = self.limit_bytes.saturating_mul(2);
        } else if self.short_waits >= SHARED_SHORT_WAITS {
            self.short_waits = 0;
            self.limit_bytes = SHARED_FLIGHT_BYTES.max(self.limit_bytes / 2);
        }
    }

    /// The window has room and the limit has none.
    fn is_held(&self) -> bool {
        self.shares && self.left_bytes > 0 && self.in_flight_bytes() >= self.limit_bytes
    }

    fn in_flight_bytes(&self) -> u32 {
        self.full_bytes - self.left_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u32 = 2 << 20;
    const PACKET: u32 = 32 << 10;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Sends what goes; gives how much that was.
    fn fill(window: &mut SendWindow) -> u32 {
        let mut sent = 0;
        while let room @ 1.. = window.room_bytes() {
            window.take(room);
            sent += room;
        }
        sent
    }

    #[test]
    fn alone_a_channel_has_all_of_its_window() {
        let mut window = SendWindow::new(WINDOW, PACKET);
        assert_eq!(fill(&mut window), WINDOW);
        assert!(window.raise(5));
        assert_eq!(fill(&mut window), 5);
    }

    #[test]
    fn beside_others_it_sends_what_the_client_takes() {
        let mut window = SendWindow::new(WINDOW, PACKET);
        assert_eq!(window.share(at(0)), None);
        let mut in_flight = fill(&mut window);
        assert_eq!(in_flight, SHARED_FLIGHT_BYTES);
        // Short waits, for ever: the limit stays.
        for ms in 1..1000 {
            assert_eq!(window.share(at(ms)), Some(at(ms) + SHARED_LONG_WAIT));
            assert_eq!(window.room_bytes(), 0);
            assert!(window.raise(100_000));
            in_flight = in_flight - 100_000 + fill(&mut window);
            assert!((SHARED_FLIGHT_BYTES..SHARED_FLIGHT_BYTES + PACKET).contains(&in_flight));
        }
        // Alone again, it has the rest.
        window.stop_sharing();
        assert_eq!(in_flight + fill(&mut window), WINDOW);
    }

    #[test]
    fn a_long_way_is_filled() {
        let mut window = SendWindow::new(WINDOW, PACKET);
        let mut in_flight = 0;
        for turn in 0..40 {
            window.share(at(turn * 100));
            in_flight += fill(&mut window);
            window.share(at(turn * 100 + 1));
            if in_flight == WINDOW {
                return;
            }
            assert!(window.raise(in_flight));
            in_flight = 0;
        }
        panic!("the window is never used up");
    }

    #[test]
    fn who_grants_late_gets_everything_before_long() {
        let mut window = SendWindow::new(u32::MAX, PACKET);
        let mut now = at(0);
        let mut wakes = 0;
        loop {
            window.share(now);
            fill(&mut window);
            let Some(next) = window.share(now) else { break };
            now = next;
            wakes += 1;
        }
        assert_eq!(window.left_bytes, 0);
        assert!(wakes < 100, "{wakes} wakes");
        assert!(now < Duration::from_secs(1), "{now:?}");
    }

    #[test]
    fn one_long_wait_among_short_ones_changes_nothing() {
        let mut window = SendWindow::new(WINDOW, PACKET);
        window.share(at(0));
        fill(&mut window);
        for turn in 0..100 {
            let now = turn * 100;
            for (after, held) in [(0, true), (50, true), (51, true)] {
                assert_eq!(window.share(at(now + after)).is_some(), held);
                assert!(window.raise(PACKET));
                assert_eq!(fill(&mut window), PACKET);
            }
        }
        assert_eq!(window.limit_bytes, SHARED_FLIGHT_BYTES);
    }

    #[test]
    fn windows_end_at_the_largest_number() {
        let mut window = SendWindow::new(u32::MAX, PACKET);
        assert!(!window.raise(1));
        window.take(1);
        assert!(window.raise(1));
    }
}
