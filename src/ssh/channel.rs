//! Channels: numbers, windows, and what may still be sent or expected (RFC 4254 section 5).

use super::error::ProtocolError;
use crate::limits;

/// All channels of a connection. Our number of a channel is its place here.
#[derive(Debug, Default)]
pub(super) struct Channels {
    slots: Vec<Option<Channel>>,
    max: usize,
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    number: u32,
    /// The client's number for it.
    pub(super) peer: u32,
    confirmed: bool,
    receive: ReceiveWindow,
    send: SendWindow,
    pub(super) sent: Ends,
    received: Ends,
    unanswered: u32,
}

/// How far one direction of a channel has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) enum Ends {
    /// Not at all.
    #[default]
    Open,
    /// SSH_MSG_CHANNEL_EOF.
    Eof,
    /// SSH_MSG_CHANNEL_CLOSE.
    Close,
}

/// What the client may send.
#[derive(Debug, Default)]
struct ReceiveWindow {
    /// What we granted at the start.
    full_bytes: u32,
    left_bytes: u32,
    /// Used up by the program, not granted again yet.
    consumed_bytes: u32,
    max_packet_bytes: u32,
}

/// What we may send.
#[derive(Debug)]
struct SendWindow {
    left_bytes: u32,
    max_packet_bytes: u32,
}

impl Channels {
    /// Room for `max` channels at once.
    pub(super) fn new(max: u32) -> Self {
        Self {
            slots: Vec::new(),
            max: usize::try_from(max).unwrap_or(usize::MAX),
        }
    }

    /// Takes the lowest free number for a channel that the client opens; `None`: too many.
    pub(super) fn open(&mut self, peer: u32, window: u32, max_packet: u32) -> Option<u32> {
        let free = self
            .slots
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.slots.len());
        if free >= self.max {
            return None;
        }
        let number = u32::try_from(free).ok()?;
        let channel = Channel {
            number,
            peer,
            confirmed: false,
            receive: ReceiveWindow::default(),
            send: SendWindow {
                left_bytes: window,
                max_packet_bytes: max_packet,
            },
            sent: Ends::Open,
            received: Ends::Open,
            unanswered: 0,
        };
        match self.slots.get_mut(free) {
            Some(slot) => *slot = Some(channel),
            None => self.slots.push(Some(channel)),
        }
        Some(number)
    }

    /// A channel by our number, in any state.
    pub(super) fn find(&mut self, number: u32) -> Option<&mut Channel> {
        self.slots.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    /// A confirmed channel by our number.
    pub(super) fn live(&self, number: u32) -> Option<&Channel> {
        let channel = self.slots.get(usize::try_from(number).ok()?)?.as_ref()?;
        channel.confirmed.then_some(channel)
    }

    /// The channel that a message of the client's is for. It cannot know a number that was not
    /// confirmed to it, nor one of a channel that both sides closed.
    pub(super) fn addressed(&mut self, number: u32) -> Result<&mut Channel, ProtocolError> {
        self.find(number)
            .filter(|channel| channel.confirmed)
            .ok_or(ProtocolError::UnknownChannel { channel: number })
    }

    /// Forgets a channel: its number is free.
    pub(super) fn remove(&mut self, number: u32) {
        let slot = usize::try_from(number)
            .ok()
            .and_then(|index| self.slots.get_mut(index));
        if let Some(slot) = slot {
            *slot = None;
        }
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
    }

    /// Channels whose window can be granted again, with their numbers on the client's side: what
    /// could not be sent while keys changed.
    pub(super) fn due_adjusts(&mut self) -> impl Iterator<Item = (u32, u32)> {
        self.slots.iter_mut().flatten().filter_map(|channel| {
            let peer = channel.peer;
            channel.take_adjust().map(|bytes| (peer, bytes))
        })
    }

    /// Gives memory back.
    pub(super) fn release(&mut self) {
        self.slots.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Channel>>()
    }
}

impl Channel {
    /// Whether the open was answered with yes.
    pub(super) fn is_confirmed(&self) -> bool {
        self.confirmed
    }

    /// Answers the open with yes.
    pub(super) fn confirm(&mut self, window: u32, max_packet: u32) {
        self.confirmed = true;
        self.receive = ReceiveWindow {
            full_bytes: window,
            left_bytes: window,
            consumed_bytes: 0,
            max_packet_bytes: max_packet,
        };
    }

    /// Takes `len_bytes` of the client's data out of the window; false: nobody wants them any more.
    ///
    /// # Errors
    ///
    /// More than was granted. The RFC lets us ignore the excess; we end the connection, because no
    /// correct client does this.
    pub(super) fn take_data(&mut self, len_bytes: usize) -> Result<bool, ProtocolError> {
        let overrun = ProtocolError::WindowOverrun {
            channel: self.number,
        };
        let len_bytes = u32::try_from(len_bytes).map_err(|_| overrun)?;
        if len_bytes > self.receive.max_packet_bytes {
            return Err(ProtocolError::BadValue {
                field: "channel data length",
            });
        }
        self.receive.left_bytes = self
            .receive
            .left_bytes
            .checked_sub(len_bytes)
            .ok_or(overrun)?;
        Ok(self.received == Ends::Open && self.sent < Ends::Close)
    }

    /// The program took `len_bytes`, or nobody ever will.
    pub(super) fn consumed(&mut self, len_bytes: u32) {
        let window = &mut self.receive;
        // Never more than is outstanding, whatever the driver says: the window cannot outgrow itself.
        let outstanding = window.full_bytes - window.left_bytes;
        window.consumed_bytes = window
            .consumed_bytes
            .saturating_add(len_bytes)
            .min(outstanding);
    }

    /// What to grant now, batched: three packets' worth or half the window, as OpenSSH does.
    pub(super) fn take_adjust(&mut self) -> Option<u32> {
        let window = &mut self.receive;
        let threshold = (window.full_bytes / 2).min(window.max_packet_bytes.saturating_mul(3));
        if window.consumed_bytes == 0
            || window.consumed_bytes < threshold
            || self.sent == Ends::Close
            || self.received > Ends::Open
        {
            return None;
        }
        let granted = std::mem::take(&mut window.consumed_bytes);
        window.left_bytes += granted;
        Some(granted)
    }

    /// SSH_MSG_CHANNEL_WINDOW_ADJUST.
    pub(super) fn raise_send_window(&mut self, bytes: u32) -> Result<(), ProtocolError> {
        let overflow = ProtocolError::WindowOverflow {
            channel: self.number,
        };
        self.send.left_bytes = self.send.left_bytes.checked_add(bytes).ok_or(overflow)?;
        Ok(())
    }

    /// The most data that may go into the next packet.
    pub(super) fn send_bytes(&self) -> usize {
        if !self.confirmed || self.sent > Ends::Open || self.received == Ends::Close {
            return 0;
        }
        let allowed = self.send.left_bytes.min(self.send.max_packet_bytes);
        usize::try_from(allowed)
            .unwrap_or(usize::MAX)
            .min(limits::DATA_BYTES)
    }

    /// `len` bytes were sent; never more than [`Self::send_bytes`].
    pub(super) fn take_send_window(&mut self, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.send.left_bytes = self.send.left_bytes.saturating_sub(len);
    }

    /// SSH_MSG_CHANNEL_EOF or _CLOSE came; false: it had ended so far before.
    pub(super) fn receive_end(&mut self, end: Ends) -> bool {
        let news = end > self.received;
        self.received = self.received.max(end);
        news
    }

    /// Sends EOF or CLOSE; false: that went out before.
    pub(super) fn send_end(&mut self, end: Ends) -> bool {
        let news = self.confirmed && end > self.sent;
        if news {
            self.sent = end;
        }
        news
    }

    /// Both sides said CLOSE: the number is free.
    pub(super) fn is_over(&self) -> bool {
        self.sent == Ends::Close && self.received == Ends::Close
    }

    /// Whether a request still reaches the driver.
    pub(super) fn takes_requests(&self) -> bool {
        self.sent < Ends::Close && self.received < Ends::Close
    }

    /// Counts a request that wants a reply.
    pub(super) fn expect_reply(&mut self) -> Result<(), ProtocolError> {
        if self.unanswered >= limits::UNANSWERED_REQUESTS {
            return Err(ProtocolError::TooMuchPending {
                what: "channel requests",
            });
        }
        self.unanswered += 1;
        Ok(())
    }

    /// Takes the oldest unanswered request; false: there is none, or it may not be answered now.
    pub(super) fn take_reply(&mut self) -> bool {
        if self.unanswered == 0 || self.sent == Ends::Close {
            return false;
        }
        self.unanswered -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn confirmed(window: u32, max_packet: u32) -> Channels {
        let mut channels = Channels::new(4);
        let number = channels.open(7, u32::MAX, 32_768).unwrap();
        channels.find(number).unwrap().confirm(window, max_packet);
        channels
    }

    #[test]
    fn the_window_is_exact() {
        let mut channels = confirmed(100, 60);
        let channel = channels.addressed(0).unwrap();
        assert_eq!(channel.take_data(60), Ok(true));
        assert_eq!(channel.take_data(40), Ok(true));
        assert_eq!(channel.take_data(0), Ok(true));
        assert_eq!(
            channel.take_data(1),
            Err(ProtocolError::WindowOverrun { channel: 0 })
        );
    }

    #[test]
    fn a_packet_above_our_maximum_is_refused() {
        let mut channels = confirmed(100, 60);
        let channel = channels.addressed(0).unwrap();
        assert!(matches!(
            channel.take_data(61),
            Err(ProtocolError::BadValue { .. })
        ));
    }

    /// Whatever the sizes: once the program has taken everything, at least half the window is open.
    #[test]
    fn a_window_that_was_consumed_opens_again() {
        for (window, max_packet) in [(1, 1), (2, 1), (100, 60), (2 << 20, 32_768), (u32::MAX, 9)] {
            let mut channels = confirmed(window, max_packet);
            let channel = channels.addressed(0).unwrap();
            for _ in 0..1000 {
                let len = channel.receive.left_bytes.min(max_packet).min(7);
                channel.take_data(len as usize).unwrap();
                channel.consumed(len);
                let _ = channel.take_adjust();
            }
            assert!(
                channel.receive.left_bytes >= window / 2,
                "{window} {max_packet}"
            );
            assert!(channel.receive.left_bytes <= window);
        }
    }

    #[test]
    fn the_window_never_outgrows_what_was_granted() {
        let mut channels = confirmed(100, 60);
        let channel = channels.addressed(0).unwrap();
        channel.take_data(10).unwrap();
        channel.consumed(u32::MAX);
        channel.consumed(u32::MAX);
        let _ = channel.take_adjust();
        assert!(channel.receive.left_bytes + channel.receive.consumed_bytes <= 100);
    }

    #[test]
    fn the_peers_window_may_be_all_of_u32_and_no_more() {
        let mut channels = confirmed(100, 60);
        let channel = channels.addressed(0).unwrap();
        assert_eq!(
            channel.raise_send_window(1),
            Err(ProtocolError::WindowOverflow { channel: 0 })
        );
        channel.take_send_window(5);
        assert_eq!(channel.raise_send_window(5), Ok(()));
    }

    #[test]
    fn a_number_is_free_after_both_closes_only() {
        let mut channels = confirmed(100, 60);
        let channel = channels.find(0).unwrap();
        assert!(channel.send_end(Ends::Close));
        assert!(!channel.is_over());
        assert!(channel.receive_end(Ends::Close));
        assert!(channel.is_over());
        channels.remove(0);
        assert!(channels.addressed(0).is_err());
        assert_eq!(channels.open(1, 0, 0), Some(0));
    }

    #[test]
    fn no_more_channels_than_configured() {
        let mut channels = Channels::new(2);
        assert_eq!(channels.open(5, 0, 0), Some(0));
        assert_eq!(channels.open(5, 0, 0), Some(1));
        assert_eq!(channels.open(5, 0, 0), None);
        channels.remove(0);
        assert_eq!(channels.open(5, 0, 0), Some(0));
    }

    #[test]
    fn nobody_can_speak_to_a_channel_that_was_not_confirmed() {
        let mut channels = Channels::new(2);
        channels.open(5, 0, 0).unwrap();
        assert_eq!(
            channels.addressed(0).map(|_| ()),
            Err(ProtocolError::UnknownChannel { channel: 0 })
        );
    }

    #[test]
    fn data_after_our_close_is_nobodys() {
        let mut channels = confirmed(100, 60);
        let channel = channels.find(0).unwrap();
        channel.send_end(Ends::Close);
        assert_eq!(channel.take_data(10), Ok(false));
    }

    #[test]
    fn replies_are_bounded() {
        let mut channels = confirmed(100, 60);
        let channel = channels.find(0).unwrap();
        assert!(!channel.take_reply());
        for _ in 0..limits::UNANSWERED_REQUESTS {
            channel.expect_reply().unwrap();
        }
        assert!(channel.expect_reply().is_err());
        assert!(channel.take_reply());
        assert!(channel.expect_reply().is_ok());
    }
}
