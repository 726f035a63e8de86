//! What can be wrong with a peer's bytes, and what to tell the peer of it.

/// Why the peer's bytes ended the connection. Carries numbers and our own words only, never text
/// from the peer, so it is always safe to log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProtocolError {
    /// A field ran past the end of its message.
    Truncated { field: &'static str },
    /// Bytes were left over after the last field of message `number`.
    TrailingBytes { number: u8 },
    /// Message `number` is not allowed in this phase.
    Unexpected { number: u8, phase: &'static str },
    /// The authentication tag did not match.
    BadTag,
    /// A packet length outside RFC 4253 section 6 or above our ceiling.
    BadPacketLength,
    /// Padding outside RFC 4253 section 6.
    BadPadding,
    /// Not an SSH 2.0 identification line (RFC 4253 section 4.2).
    BadVersion,
    /// A packet's payload cannot be had from its compressed form.
    Compression { what: &'static str },
    /// Nothing in common for one of the lists of KEXINIT.
    NoCommonAlgorithm { list: &'static str },
    /// The key exchange failed: a bad public value.
    KeyExchange { what: &'static str },
    /// The peer sent more than its window allows.
    WindowOverrun { channel: u32 },
    /// A window was raised past 2^32-1.
    WindowOverflow { channel: u32 },
    /// A message for a channel that is not open.
    UnknownChannel { channel: u32 },
    /// A field has a value that the protocol forbids.
    BadValue { field: &'static str },
    /// The peer keeps more answers waiting than we hold.
    TooMuchPending { what: &'static str },
    /// Too many packets under one key: sequence numbers would repeat.
    SequenceWrapped,
    /// Another service than `ssh-userauth` was asked for.
    ServiceNotAvailable,
}

impl ProtocolError {
    /// The reason code for SSH_MSG_DISCONNECT (RFC 4253 section 11.1).
    pub fn disconnect_reason(self) -> u32 {
        match self {
            Self::BadTag => 5,
            Self::NoCommonAlgorithm { .. } | Self::KeyExchange { .. } => 3,
            Self::Compression { .. } => 6,
            Self::BadVersion => 8,
            Self::ServiceNotAvailable => 7,
            _ => 2,
        }
    }
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated { field } => write!(f, "message ends inside {field}"),
            Self::TrailingBytes { number } => write!(f, "message {number} is too long"),
            Self::Unexpected { number, phase } => {
                write!(f, "message {number} is not allowed in phase {phase}")
            }
            Self::BadTag => f.write_str("message authentication failed"),
            Self::BadPacketLength => f.write_str("bad packet length"),
            Self::BadPadding => f.write_str("bad packet padding"),
            Self::BadVersion => f.write_str("not an SSH 2.0 client"),
            Self::Compression { what } => write!(f, "bad compressed data: {what}"),
            Self::NoCommonAlgorithm { list } => write!(f, "no common {list}"),
            Self::KeyExchange { what } => write!(f, "key exchange failed: {what}"),
            Self::WindowOverrun { channel } => write!(f, "window of channel {channel} overrun"),
            Self::WindowOverflow { channel } => write!(f, "window of channel {channel} overflows"),
            Self::UnknownChannel { channel } => write!(f, "channel {channel} is not open"),
            Self::BadValue { field } => write!(f, "bad value of {field}"),
            Self::TooMuchPending { what } => write!(f, "too many {what} pending"),
            Self::SequenceWrapped => f.write_str("sequence number wrapped before keys changed"),
            Self::ServiceNotAvailable => f.write_str("service not available"),
        }
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use super::ProtocolError;

    #[test]
    fn the_peer_is_told_the_rfcs_reason() {
        for (error, reason) in [
            (ProtocolError::BadTag, 5),
            (ProtocolError::Compression { what: "stream" }, 6),
            (ProtocolError::BadVersion, 8),
            (ProtocolError::ServiceNotAvailable, 7),
            (ProtocolError::NoCommonAlgorithm { list: "cipher" }, 3),
            (
                ProtocolError::KeyExchange {
                    what: "public value",
                },
                3,
            ),
            (ProtocolError::Truncated { field: "data" }, 2),
            (ProtocolError::WindowOverrun { channel: 1 }, 2),
        ] {
            assert_eq!(error.disconnect_reason(), reason, "{error}");
        }
    }
}
