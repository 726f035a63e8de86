//! The connection as the driver sees it: bytes in, events and bytes out.

use super::crypto::Random;
use super::error::ProtocolError;
use super::setup::Setup;
use crate::frames::Exchange;

/// Our number of a channel (RFC 4254 section 5): what the peer calls `recipient channel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId(pub u32);

/// Which stream of a channel data belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// SSH_MSG_CHANNEL_DATA.
    Data,
    /// SSH_MSG_CHANNEL_EXTENDED_DATA with SSH_EXTENDED_DATA_STDERR.
    Stderr,
}

/// What the driver must know or answer. Borrowed bytes live until the next call.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The peer's identification line came (without CR LF).
    ClientVersion(&'a [u8]),
    /// A key re-exchange needs a cookie: answer with [`Core::provide_cookie`].
    NeedCookie,
    /// An exchange needs a signature: answer with [`Core::provide_signature`].
    NeedSignature(Box<Exchange>),
    /// New keys are in use in both directions; true for the first exchange.
    KeysChanged {
        /// Whether this was the first exchange of the connection.
        first: bool,
    },
    /// SSH_MSG_USERAUTH_REQUEST, payload behind the number. No further event comes until it is
    /// answered by one of the `auth_…` methods.
    AuthRequest(&'a [u8]),
    /// SSH_MSG_CHANNEL_OPEN: answer with [`Core::open_confirm`] or [`Core::open_fail`].
    ChannelOpen {
        /// Our number for it, should it be confirmed.
        channel: ChannelId,
        /// Channel type.
        kind: &'a [u8],
        /// Fields behind the common ones.
        extra: &'a [u8],
    },
    /// SSH_MSG_CHANNEL_REQUEST. With `want_reply` answer by [`Core::reply`], in order; the core
    /// keeps the order of replies by channel.
    ChannelRequest {
        /// The channel.
        channel: ChannelId,
        /// Request type.
        kind: &'a [u8],
        /// Whether the peer waits for an answer.
        want_reply: bool,
        /// Fields of the request.
        extra: &'a [u8],
    },
    /// Data for the program. The window opens again only through [`Core::consumed`].
    ChannelData {
        /// The channel.
        channel: ChannelId,
        /// The bytes.
        data: &'a [u8],
    },
    /// SSH_MSG_CHANNEL_EOF.
    ChannelEof {
        /// The channel.
        channel: ChannelId,
    },
    /// SSH_MSG_CHANNEL_CLOSE came. The number is free once ours went out too.
    ChannelClose {
        /// The channel.
        channel: ChannelId,
    },
    /// SSH_MSG_GLOBAL_REQUEST. With `want_reply` answer by [`Core::global_reply`], in order.
    GlobalRequest {
        /// Request name.
        name: &'a [u8],
        /// Whether the peer waits for an answer.
        want_reply: bool,
        /// Fields of the request.
        extra: &'a [u8],
    },
    /// An answer to a global request of ours: the peer lives.
    GlobalReply {
        /// SUCCESS or FAILURE.
        success: bool,
    },
    /// SSH_MSG_DISCONNECT.
    Disconnect {
        /// RFC 4253 section 11.1.
        reason: u32,
        /// The peer's words: escape before logging.
        message: &'a [u8],
    },
}

/// A connection at rest between authentication and SUCCESS: keys, counters, bytes not yet handled.
#[derive(Debug)]
pub struct Frozen(());

/// One SSH connection, server side.
#[derive(Debug)]
pub struct Core(());

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl Core {
    /// Starts a connection: our version line and nothing else is in the outbox. `cookie` is for the
    /// first KEXINIT, which goes out at once behind the version line.
    pub fn new(setup: &Setup, cookie: [u8; 16], random: Random) -> Self {
        todo!()
    }

    /// Ends this side's part at a moment when nothing is under way: an authentication request is
    /// unanswered and no exchange runs.
    pub fn freeze(self) -> Result<Vec<u8>, ProtocolError> {
        todo!()
    }

    /// Goes on where [`Core::freeze`] ended, in phase "authentication request unanswered".
    pub fn thaw(frozen: &[u8], setup: &Setup, random: Random) -> Result<Self, ProtocolError> {
        todo!()
    }

    /// Room to read from the socket into; empty while the core waits for an answer or for its
    /// outbox to drain (then the driver does not poll for input).
    pub fn inbox(&mut self) -> &mut [u8] {
        todo!()
    }

    /// `len` bytes were read into [`Core::inbox`].
    pub fn received(&mut self, len: usize) {
        todo!()
    }

    /// The next event, or `None` when more input or an answer is needed.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol: SSH_MSG_DISCONNECT is in the outbox (unless it is no use),
    /// every further call gives the same error.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, ProtocolError> {
        todo!()
    }

    /// Bytes for the socket.
    pub fn outbox(&self) -> &[u8] {
        todo!()
    }

    /// `len` bytes of the outbox went out.
    pub fn sent(&mut self, len: usize) {
        todo!()
    }

    /// Gives back the buffers that hold nothing; called when the connection goes idle.
    pub fn release_buffers(&mut self) {
        todo!()
    }

    /// Answers [`Event::NeedCookie`].
    pub fn provide_cookie(&mut self, cookie: [u8; 16]) {
        todo!()
    }

    /// Answers [`Event::NeedSignature`] with a signature blob.
    pub fn provide_signature(&mut self, blob: &[u8]) {
        todo!()
    }

    /// Sends SSH_MSG_USERAUTH_BANNER.
    pub fn auth_banner(&mut self, text: &[u8]) {
        todo!()
    }

    /// Answers with SSH_MSG_USERAUTH_FAILURE.
    pub fn auth_failure(&mut self, methods: &[&[u8]], partial: bool) {
        todo!()
    }

    /// Answers with SSH_MSG_USERAUTH_PK_OK.
    pub fn auth_public_key_ok(&mut self, algorithm: &[u8], key: &[u8]) {
        todo!()
    }

    /// Answers with SSH_MSG_USERAUTH_SUCCESS: channels may open from here on.
    pub fn auth_success(&mut self) {
        todo!()
    }

    /// Confirms a channel with our initial window and maximum packet, in bytes.
    pub fn open_confirm(&mut self, channel: ChannelId, window: u32, max_packet: u32) {
        todo!()
    }

    /// Refuses a channel (RFC 4254 section 5.1 codes).
    pub fn open_fail(&mut self, channel: ChannelId, code: u32, message: &str) {
        todo!()
    }

    /// Answers the oldest unanswered request of the channel that wants a reply.
    pub fn reply(&mut self, channel: ChannelId, success: bool) {
        todo!()
    }

    /// `len` bytes of the channel's data went to the program: the window may open again.
    pub fn consumed(&mut self, channel: ChannelId, len: u32) {
        todo!()
    }

    /// How many bytes [`Core::send_slot`] would take now: limited by the peer's window and packet
    /// size, by the outbox, and 0 while keys change.
    pub fn send_room(&self, channel: ChannelId) -> usize {
        todo!()
    }

    /// Room for data inside the packet being built, to be filled by read(2) and closed by
    /// [`Core::send_commit`]; `None` where [`Core::send_room`] is 0.
    pub fn send_slot(&mut self, channel: ChannelId, stream: Stream) -> Option<&mut [u8]> {
        todo!()
    }

    /// Sends the first `len` bytes of the slot as one message; 0 takes the slot back.
    pub fn send_commit(&mut self, len: usize) {
        todo!()
    }

    /// Sends SSH_MSG_CHANNEL_EOF, once.
    pub fn send_eof(&mut self, channel: ChannelId) {
        todo!()
    }

    /// Sends SSH_MSG_CHANNEL_CLOSE, once.
    pub fn send_close(&mut self, channel: ChannelId) {
        todo!()
    }

    /// Sends a channel request of ours, without wish for a reply unless said.
    pub fn send_request(&mut self, channel: ChannelId, kind: &[u8], want_reply: bool, extra: &[u8]) {
        todo!()
    }

    /// Answers the oldest unanswered global request that wants a reply.
    pub fn global_reply(&mut self, success: bool, extra: &[u8]) {
        todo!()
    }

    /// Sends a global request of ours.
    pub fn send_global_request(&mut self, name: &[u8], want_reply: bool, extra: &[u8]) {
        todo!()
    }

    /// Asks for new keys: at the next moment when none are under way.
    pub fn rekey(&mut self) {
        todo!()
    }

    /// Sends SSH_MSG_DISCONNECT; afterwards only the outbox matters.
    pub fn disconnect(&mut self, reason: u32, message: &str) {
        todo!()
    }

    /// True between our or the peer's KEXINIT and the last NEWKEYS.
    pub fn is_changing_keys(&self) -> bool {
        todo!()
    }

    /// The peer's identification line without CR LF; empty before it came.
    pub fn client_version(&self) -> &[u8] {
        todo!()
    }

    /// The negotiated algorithms in words, for log lines.
    pub fn algorithms(&self) -> String {
        todo!()
    }
}
