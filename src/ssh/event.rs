//! What the core tells its driver.

#[cfg(doc)]
use super::core::Core;
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
    /// SSH_MSG_USERAUTH_INFO_RESPONSE to [`Core::auth_info_request`], payload behind the number; to
    /// be answered like a request.
    AuthResponse(&'a [u8]),
    /// SSH_MSG_CHANNEL_OPEN: answer with [`Core::open_confirm`] or [`Core::open_fail`].
    ChannelOpen {
        /// Our number for it, should it be confirmed.
        channel: ChannelId,
        /// Channel type.
        kind: &'a [u8],
        /// Fields behind the common ones.
        extra: &'a [u8],
    },
    /// The client agreed to a channel that [`Core::offer`] began.
    ChannelOpened {
        /// The channel.
        channel: ChannelId,
    },
    /// The client refused a channel that [`Core::offer`] began: its number is free.
    ChannelRefused {
        /// What was its number.
        channel: ChannelId,
        /// RFC 4254 section 5.1.
        reason: u32,
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

impl std::fmt::Debug for Event<'_> {
    // Names and lengths only: no channel byte, password or command is ever printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, channel, len) = match self {
            Self::ClientVersion(version) => ("ClientVersion", None, version.len()),
            Self::NeedCookie => ("NeedCookie", None, 0),
            Self::NeedSignature(_) => ("NeedSignature", None, 0),
            Self::KeysChanged { .. } => ("KeysChanged", None, 0),
            Self::AuthRequest(request) => ("AuthRequest", None, request.len()),
            Self::AuthResponse(response) => ("AuthResponse", None, response.len()),
            Self::ChannelOpen { channel, extra, .. } => ("ChannelOpen", Some(channel), extra.len()),
            Self::ChannelOpened { channel } => ("ChannelOpened", Some(channel), 0),
            Self::ChannelRefused { channel, .. } => ("ChannelRefused", Some(channel), 0),
            Self::ChannelRequest { channel, extra, .. } => {
                ("ChannelRequest", Some(channel), extra.len())
            }
            Self::ChannelData { channel, data } => ("ChannelData", Some(channel), data.len()),
            Self::ChannelEof { channel } => ("ChannelEof", Some(channel), 0),
            Self::ChannelClose { channel } => ("ChannelClose", Some(channel), 0),
            Self::GlobalRequest { extra, .. } => ("GlobalRequest", None, extra.len()),
            Self::GlobalReply { .. } => ("GlobalReply", None, 0),
            Self::Disconnect { message, .. } => ("Disconnect", None, message.len()),
        };
        match channel {
            Some(ChannelId(number)) => write!(f, "{name} [channel {number}, {len} bytes]"),
            None => write!(f, "{name} [{len} bytes]"),
        }
    }
}
