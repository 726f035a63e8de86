//! Channels: numbers, windows, and what may still be sent or expected (RFC 4254 section 5).

use core::time::Duration;

use super::error::ProtocolError;
use super::send_window::SendWindow;
use crate::limits::{self, INTERACTIVE_FOR};

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
    /// The client's number for it; unknown, and 0, until it confirmed what we open.
    pub(super) peer: u32,
    stage: Stage,
    receive: ReceiveWindow,
    send: SendWindow,
    pub(super) sent: Ends,
    received: Ends,
    unanswered: u32,
    /// Data passed since the driver asked last.
    moved: bool,
    /// Somebody typed since it was last looked at.
    typed: bool,
    /// It counts as interactive up to here.
    interactive_until: Duration,
}

/// How far the opening of a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The client asked, the driver has not answered.
    Asked,
    /// We asked, the client has not answered.
    Offered,
    /// Open.
    Confirmed,
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

impl Channels {
    /// Room for `max` channels at once.
    pub(super) fn new(max: u32) -> Self {
        Self {
            slots: Vec::new(),
            max: usize::try_from(max).unwrap_or(usize::MAX),
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.slots.iter().flatten().count()
    }

    /// Takes the lowest free number for a channel that the client opens; `None`: too many.
    pub(super) fn open(&mut self, peer: u32, window: u32, max_packet: u32) -> Option<u32> {
        let send = SendWindow::new(window, max_packet);
        self.take_number(|number| Channel {
            peer,
            send,
            ..Channel::new(number, Stage::Asked)
        })
    }

    /// Takes the lowest free number for a channel that we open, with the window that the client
    /// gets; `None`: too many.
    pub(super) fn offer(&mut self, window: u32, max_packet: u32) -> Option<u32> {
        self.take_number(|number| Channel {
            receive: ReceiveWindow::new(window, max_packet),
            ..Channel::new(number, Stage::Offered)
        })
    }

    /// Whether [`Self::offer`] would find room.
    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.max || self.slots.iter().any(Option::is_none)
    }

    fn take_number(&mut self, channel: impl FnOnce(u32) -> Channel) -> Option<u32> {
        let free = self
            .slots
            .iter()
            .position(Option::is_none)
            .unwrap_or(self.slots.len());
        if free >= self.max {
            return None;
        }
        let number = u32::try_from(free).ok()?;
        let channel = channel(number);
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
        (channel.stage == Stage::Confirmed).then_some(channel)
    }

    /// The channel that a message of the client's is for. It cannot know a number that was not
    /// confirmed to it, nor one of a channel that both sides closed.
    pub(super) fn addressed(&mut self, number: u32) -> Result<&mut Channel, ProtocolError> {
        self.find(number)
            .filter(|channel| channel.stage == Stage::Confirmed)
            .ok_or(ProtocolError::UnknownChannel { channel: number })
    }

    /// The channel that an answer to our open is for.
    pub(super) fn offered(&mut self, number: u32) -> Result<&mut Channel, ProtocolError> {
        self.find(number)
            .filter(|channel| channel.stage == Stage::Offered)
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

    /// Keeps the way to the client free for who types. Gives when to do it again, on the clock of
    /// `now`, if data is held back.
    pub(super) fn share(&mut self, now: Duration) -> Option<Duration> {
        let mut interactive = 0;
        for channel in self.slots.iter_mut().flatten() {
            interactive += usize::from(channel.is_interactive(now));
        }
        let channels = self.slots.iter_mut().flatten();
        channels
            .filter_map(|channel| {
                let itself = usize::from(channel.is_interactive(now));
                if interactive > itself {
                    channel.send.share(now)
                } else {
                    channel.send.stop_sharing();
                    None
                }
            })
            .min()
    }

    /// Gives memory back.
    pub(super) fn release(&mut self) {
        self.slots.shrink_to_fit();
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Channel>>()
    }
}

impl ReceiveWindow {
    fn new(bytes: u32, max_packet_bytes: u32) -> Self {
        Self {
            full_bytes: bytes,
            left_bytes: bytes,
            consumed_bytes: 0,
            max_packet_bytes,
        }
    }
}

impl Channel {
    /// One that nobody may send on yet.
    fn new(number: u32, stage: Stage) -> Self {
        Self {
            number,
            peer: 0,
            stage,
            receive: ReceiveWindow::default(),
            send: SendWindow::new(0, 0),
            sent: Ends::Open,
            received: Ends::Open,
            unanswered: 0,
            moved: false,
            typed: false,
            interactive_until: Duration::ZERO,
        }
    }

    /// Whether the open was answered with yes.
    pub(super) fn is_confirmed(&self) -> bool {
        self.stage == Stage::Confirmed
    }

    /// Whether the driver owes the client an answer to its open.
    pub(super) fn is_asked(&self) -> bool {
        self.stage == Stage::Asked
    }

    /// Answers the client's open with yes.
    pub(super) fn confirm(&mut self, window: u32, max_packet: u32) {
        self.stage = Stage::Confirmed;
        self.receive = ReceiveWindow::new(window, max_packet);
    }

    /// The client answered our open with yes: its number, its window and its largest packet.
    pub(super) fn confirmed(&mut self, peer: u32, window: u32, max_packet: u32) {
        self.stage = Stage::Confirmed;
        self.peer = peer;
        self.send = SendWindow::new(window, max_packet);
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
        self.typed |= self.send.is_interactive(len_bytes);
        let len_bytes = u32::try_from(len_bytes).map_err(|_| overrun)?;
        self.moved = true;
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
        if self.send.raise(bytes) {
            Ok(())
        } else {
            Err(ProtocolError::WindowOverflow {
                channel: self.number,
            })
        }
    }

    /// The most data that may go into the next packet.
    pub(super) fn send_bytes(&self) -> usize {
        if !self.is_confirmed() || self.sent > Ends::Open || self.received == Ends::Close {
            return 0;
        }
        usize::try_from(self.send.room_bytes())
            .unwrap_or(usize::MAX)
            .min(limits::DATA_BYTES)
    }

    /// Whether somebody types on another channel.
    pub(super) fn shares(&self) -> bool {
        self.send.shares()
    }

    /// `len` bytes were sent; never more than [`Self::send_bytes`].
    pub(super) fn take_send_window(&mut self, len: usize) {
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        self.send.take(len);
        self.moved = true;
    }

    /// Whether data passed since the last call.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Whether somebody types here, or did a moment ago.
    fn is_interactive(&mut self, now: Duration) -> bool {
        if std::mem::take(&mut self.typed) {
            self.interactive_until = now + INTERACTIVE_FOR;
        }
        self.interactive_until > now
    }

    /// SSH_MSG_CHANNEL_EOF or _CLOSE came; false: it had ended so far before.
    pub(super) fn receive_end(&mut self, end: Ends) -> bool {
        let news = end > self.received;
        self.received = self.received.max(end);
        news
    }

    /// Sends EOF or CLOSE; false: that went out before.
    pub(super) fn send_end(&mut self, end: Ends) -> bool {
        let news = self.is_confirmed() && end > self.sent;
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
    fn what_we_open_is_the_clients_only_once_it_agreed() {
        let mut channels = Channels::new(2);
        let number = channels.offer(100, 60).unwrap();
        assert!(channels.addressed(number).is_err());
        assert!(!channels.find(number).unwrap().send_end(Ends::Close));
        assert_eq!(channels.find(number).unwrap().send_bytes(), 0);
        channels.offered(number).unwrap().confirmed(9, 50, 40);
        assert!(channels.offered(number).is_err());
        let channel = channels.addressed(number).unwrap();
        assert_eq!((channel.peer, channel.send_bytes()), (9, 40));
        assert_eq!(channel.take_data(60), Ok(true));
    }

    #[test]
    fn the_answer_to_an_open_fits_the_side_that_asked() {
        let mut channels = Channels::new(3);
        let theirs = channels.open(5, 0, 0).unwrap();
        assert!(channels.offered(theirs).is_err());
        assert!(channels.has_room());
        let ours = channels.offer(1, 1).unwrap();
        assert!(!channels.find(ours).unwrap().is_asked());
        assert!(channels.offer(1, 1).is_some());
        assert!(!channels.has_room() && channels.offer(1, 1).is_none());
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
