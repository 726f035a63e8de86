//! What each message means: services, authentication's outer shape, requests, channels.
//!
//! Everything of a connection but its inbox, so that a message borrowed from there can be acted on.
//! Whether a message may come now was decided before it reaches this file (`permit`).

use std::ops::Range;

use super::channel::{Channels, Ends};
use super::crypto::Random;
use super::crypto::cipher::Opener;
use super::error::ProtocolError;
use super::event::{ChannelId, Event};
use super::exchange::{AfterInit, Exchanges};
use super::message;
use super::outgoing::Outgoing;
use super::permit::Phase;
use super::setup::Setup;
use super::wire::{Reader, Writer};
use crate::frames;
use crate::limits;

const SERVICE_USERAUTH: &[u8] = b"ssh-userauth";
const OPEN_RESOURCE_SHORTAGE: u32 = 4;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) setup: Setup,
    pub(super) random: Random,
    pub(super) outgoing: Outgoing,
    pub(super) exchanges: Exchanges,
    pub(super) channels: Channels,
    pub(super) service: Service,
    /// What the client's own EXT_INFO allows of ours.
    pub(super) update: Update,
    /// Unanswered global requests of the client.
    pub(super) unanswered: u32,
    /// Global requests of ours that wait for an answer.
    pub(super) expected: u32,
}

/// A second EXT_INFO, once the user is known (`ext-info-in-auth@openssh.com`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Update {
    /// The client has not said that it takes one.
    #[default]
    Unwelcome,
    /// It goes ahead of the first answer to an authentication request.
    Due,
    /// It went out.
    Sent,
}

/// Which service the client is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// None was asked for.
    None,
    /// `ssh-userauth`.
    Auth {
        /// A request is with the driver: nothing else is handled until it is answered.
        waiting: bool,
        /// The last answer was a question (RFC 4256): its answer may come.
        asked: bool,
    },
    /// `ssh-connection`.
    Open,
}

/// An event whose bytes are ranges of the payload, so that no borrow outlives the decoding loop.
#[derive(Debug)]
pub(super) enum Found {
    NeedCookie,
    NeedSignature(Box<frames::Exchange>),
    /// Becomes [`Found::KeysChanged`] once the opener is in its place.
    NewKeys {
        opener: Box<Opener>,
        first: bool,
    },
    KeysChanged {
        first: bool,
    },
    AuthRequest(Range<usize>),
    AuthResponse(Range<usize>),
    ChannelOpen {
        channel: u32,
        kind: Range<usize>,
        extra: Range<usize>,
    },
    ChannelOpened {
        channel: u32,
    },
    ChannelRefused {
        channel: u32,
        reason: u32,
    },
    ChannelRequest {
        channel: u32,
        kind: Range<usize>,
        want_reply: bool,
        extra: Range<usize>,
    },
    ChannelData {
        channel: u32,
        data: Range<usize>,
    },
    ChannelEof {
        channel: u32,
    },
    ChannelClose {
        channel: u32,
    },
    GlobalRequest {
        name: Range<usize>,
        want_reply: bool,
        extra: Range<usize>,
    },
    GlobalReply {
        success: bool,
    },
    Disconnect {
        reason: u32,
        message: Range<usize>,
    },
}

type Outcome = Result<Option<Found>, ProtocolError>;

impl Connection {
    /// Where the connection is, for the permit table.
    pub(super) fn phase(&self) -> Phase {
        self.exchanges.phase().unwrap_or(match self.service {
            Service::None => Phase::Service,
            Service::Auth { .. } => Phase::Auth,
            Service::Open => Phase::Open,
        })
    }

    /// Tells the client how this user's keys may sign, where it takes that.
    pub(super) fn update_extensions(&mut self) {
        if self.update == Update::Due {
            self.update = Update::Sent;
            let names = &self.setup.signature_algorithms;
            self.outgoing.message(message::EXT_INFO, |fields| {
                fields.put_u32(1);
                fields.put_string(b"server-sig-algs");
                fields.put_name_list(names.iter().map(|name| &**name));
            });
        }
    }

    /// Whether the next message waits for the driver or for the socket.
    pub(super) fn blocks_input(&self) -> bool {
        self.exchanges.blocks_input()
            || matches!(self.service, Service::Auth { waiting: true, .. })
            || self.outgoing.waiting() > limits::OUTBOX_BYTES
    }

    /// Acts on a message that the permit table lets through.
    pub(super) fn on_message(&mut self, number: u8, payload: &[u8], sequence: u32) -> Outcome {
        match number {
            message::DISCONNECT => Ok(Some(disconnect(payload))),
            // RFC 4253 section 11: to be accepted and not acted on.
            message::IGNORE | message::DEBUG | message::UNIMPLEMENTED => Ok(None),
            message::PING => self.on_ping(payload),
            message::KEXINIT => match self.exchanges.on_kexinit(payload, sequence, &self.setup)? {
                AfterInit::NeedCookie => Ok(Some(Found::NeedCookie)),
                AfterInit::Await => Ok(None),
            },
            message::KEX_ECDH_INIT => {
                let exchange = self
                    .exchanges
                    .on_public(payload, &self.setup, &self.random)?;
                Ok(Some(Found::NeedSignature(exchange)))
            }
            message::NEWKEYS => {
                let first = !self.exchanges.is_keyed();
                let opener = Box::new(self.exchanges.on_newkeys(payload)?);
                Ok(Some(Found::NewKeys { opener, first }))
            }
            message::EXT_INFO => self.on_ext_info(payload),
            message::SERVICE_REQUEST => self.on_service_request(payload),
            message::USERAUTH_REQUEST => {
                // Whatever was asked before is dropped (RFC 4256 section 3.1).
                self.service = Service::Auth {
                    waiting: true,
                    asked: false,
                };
                Ok(Some(Found::AuthRequest(1..payload.len())))
            }
            message::USERAUTH_INFO_RESPONSE => {
                if !matches!(self.service, Service::Auth { asked: true, .. }) {
                    self.unimplemented(sequence);
                    return Ok(None);
                }
                self.service = Service::Auth {
                    waiting: true,
                    asked: false,
                };
                Ok(Some(Found::AuthResponse(1..payload.len())))
            }
            message::GLOBAL_REQUEST => self.on_global_request(payload),
            message::REQUEST_SUCCESS => Ok(self.on_global_reply(true)),
            message::REQUEST_FAILURE => Ok(self.on_global_reply(false)),
            message::CHANNEL_OPEN => self.on_channel_open(payload),
            _ => self.on_channel_message(number, payload),
        }
    }

    /// Sends SSH_MSG_UNIMPLEMENTED for the packet with that sequence number.
    pub(super) fn unimplemented(&mut self, sequence: u32) {
        self.outgoing
            .message(message::UNIMPLEMENTED, |fields| fields.put_u32(sequence));
    }

    fn on_ping(&mut self, payload: &[u8]) -> Outcome {
        let mut reader = after_number(payload)?;
        let data = reader.string("data")?;
        reader.finish(message::PING)?;
        self.outgoing
            .message(message::PONG, |fields| fields.put_string(data));
        Ok(None)
    }

    /// Names that are not known are skipped (RFC 8308 section 2.5).
    fn on_ext_info(&mut self, payload: &[u8]) -> Outcome {
        let mut reader = after_number(payload)?;
        for _ in 0..reader.u32("number of extensions")? {
            let name = reader.string("extension name")?;
            let value = reader.string("extension value")?;
            let asks = name == b"ext-info-in-auth@openssh.com" && value == b"0";
            if asks && self.update == Update::Unwelcome {
                self.update = Update::Due;
            }
        }
        reader.finish(message::EXT_INFO)?;
        Ok(None)
    }

    fn on_service_request(&mut self, payload: &[u8]) -> Outcome {
        let mut reader = after_number(payload)?;
        let name = reader.string("service name")?;
        reader.finish(message::SERVICE_REQUEST)?;
        if name != SERVICE_USERAUTH {
            return Err(ProtocolError::ServiceNotAvailable);
        }
        if self.service == Service::None {
            self.service = Service::Auth {
                waiting: false,
                asked: false,
            };
        }
        self.outgoing
            .message(message::SERVICE_ACCEPT, |fields| fields.put_string(name));
        Ok(None)
    }

    fn on_global_request(&mut self, payload: &[u8]) -> Outcome {
        let mut reader = after_number(payload)?;
        let name = reader.string("request name")?;
        let want_reply = reader.boolean("want reply")?;
        let extra = reader.rest();
        if want_reply {
            if self.unanswered >= limits::UNANSWERED_REQUESTS {
                return Err(ProtocolError::TooMuchPending {
                    what: "global requests",
                });
            }
            self.unanswered += 1;
        }
        Ok(Some(Found::GlobalRequest {
            name: within(payload, name),
            want_reply,
            extra: within(payload, extra),
        }))
    }

    fn on_global_reply(&mut self, success: bool) -> Option<Found> {
        // An answer to nothing is dropped, as OpenSSH does.
        self.expected = self.expected.checked_sub(1)?;
        Some(Found::GlobalReply { success })
    }

    fn on_channel_open(&mut self, payload: &[u8]) -> Outcome {
        let mut reader = after_number(payload)?;
        let kind = reader.string("channel type")?;
        let sender = reader.u32("sender channel")?;
        let window = reader.u32("initial window size")?;
        let max_packet = reader.u32("maximum packet size")?;
        let extra = reader.rest();
        let Some(channel) = self.channels.open(sender, window, max_packet) else {
            self.open_failure(sender, OPEN_RESOURCE_SHORTAGE, "too many channels");
            return Ok(None);
        };
        Ok(Some(Found::ChannelOpen {
            channel,
            kind: within(payload, kind),
            extra: within(payload, extra),
        }))
    }

    pub(super) fn open_failure(&mut self, peer: u32, code: u32, text: &str) {
        self.outgoing
            .message(message::CHANNEL_OPEN_FAILURE, |fields| {
                fields.put_u32(peer);
                fields.put_u32(code);
                fields.put_string(text.as_bytes());
                fields.put_string(b"");
            });
    }

    fn on_channel_message(&mut self, number: u8, payload: &[u8]) -> Outcome {
        let mut reader = after_number(payload)?;
        let channel = reader.u32("recipient channel")?;
        match number {
            message::CHANNEL_DATA => {
                let data = reader.string("data")?;
                reader.finish(number)?;
                let wanted = self.channels.addressed(channel)?.take_data(data.len())?;
                let data = within(payload, data);
                Ok((wanted && !data.is_empty()).then_some(Found::ChannelData { channel, data }))
            }
            message::CHANNEL_EXTENDED_DATA => {
                reader.u32("data type code")?;
                let data = reader.string("data")?;
                reader.finish(number)?;
                self.on_extended_data(channel, data.len())
            }
            message::CHANNEL_WINDOW_ADJUST => {
                let bytes = reader.u32("bytes to add")?;
                reader.finish(number)?;
                self.channels.addressed(channel)?.raise_send_window(bytes)?;
                Ok(None)
            }
            message::CHANNEL_EOF => {
                reader.finish(number)?;
                let news = self.channels.addressed(channel)?.receive_end(Ends::Eof);
                Ok(news.then_some(Found::ChannelEof { channel }))
            }
            message::CHANNEL_CLOSE => {
                reader.finish(number)?;
                Ok(self.on_channel_close(channel)?)
            }
            message::CHANNEL_REQUEST => self.on_channel_request(channel, payload, reader),
            // Answers to requests of ours, of which none needs one.
            message::CHANNEL_SUCCESS | message::CHANNEL_FAILURE => {
                reader.finish(number)?;
                self.channels.addressed(channel)?;
                Ok(None)
            }
            message::CHANNEL_OPEN_CONFIRMATION => {
                let offered = self.channels.offered(channel)?;
                let sender = reader.u32("sender channel")?;
                let window = reader.u32("initial window size")?;
                let max_packet = reader.u32("maximum packet size")?;
                // Type-specific fields may follow (RFC 4254 section 5.1); none of our types has any.
                offered.confirmed(sender, window, max_packet);
                Ok(Some(Found::ChannelOpened { channel }))
            }
            message::CHANNEL_OPEN_FAILURE => {
                self.channels.offered(channel)?;
                let reason = reader.u32("reason code")?;
                self.channels.remove(channel);
                Ok(Some(Found::ChannelRefused { channel, reason }))
            }
            _ => Err(ProtocolError::UnknownChannel { channel }),
        }
    }

    /// No channel has a second stream towards us: counted against the window and dropped.
    fn on_extended_data(&mut self, channel: u32, len: usize) -> Outcome {
        let found = self.channels.addressed(channel)?;
        found.take_data(len)?;
        found.consumed(u32::try_from(len).unwrap_or(u32::MAX));
        self.adjust(channel);
        Ok(None)
    }

    fn on_channel_close(&mut self, channel: u32) -> Outcome {
        let found = self.channels.addressed(channel)?;
        let news = found.receive_end(Ends::Close);
        if found.is_over() {
            self.channels.remove(channel);
        }
        Ok(news.then_some(Found::ChannelClose { channel }))
    }

    fn on_channel_request(
        &mut self,
        channel: u32,
        payload: &[u8],
        mut reader: Reader<'_>,
    ) -> Outcome {
        let kind = reader.string("request type")?;
        let want_reply = reader.boolean("want reply")?;
        let extra = reader.rest();
        let found = self.channels.addressed(channel)?;
        if !found.takes_requests() {
            // On its way when the channel closed.
            return Ok(None);
        }
        if want_reply {
            found.expect_reply()?;
        }
        Ok(Some(Found::ChannelRequest {
            channel,
            kind: within(payload, kind),
            want_reply,
            extra: within(payload, extra),
        }))
    }

    /// Opens the client's window again where enough was consumed; later, while keys change.
    pub(super) fn adjust(&mut self, channel: u32) {
        if self.outgoing.is_holding() {
            return;
        }
        let Some(found) = self.channels.find(channel) else {
            return;
        };
        let peer = found.peer;
        if let Some(bytes) = found.take_adjust() {
            send_adjust(&mut self.outgoing, peer, bytes);
        }
    }

    /// Sends the window adjustments that waited for keys to change.
    pub(super) fn adjust_all(&mut self) {
        let Self {
            channels, outgoing, ..
        } = self;
        for (peer, bytes) in channels.due_adjusts() {
            send_adjust(outgoing, peer, bytes);
        }
    }
}

impl Found {
    /// The event, with its bytes out of `payload`.
    pub(super) fn event(self, payload: &[u8]) -> Event<'_> {
        let part = |range: Range<usize>| payload.get(range).unwrap_or(&[]);
        match self {
            Self::NeedCookie => Event::NeedCookie,
            Self::NeedSignature(exchange) => Event::NeedSignature(exchange),
            Self::NewKeys { first, .. } | Self::KeysChanged { first } => {
                Event::KeysChanged { first }
            }
            Self::AuthRequest(range) => Event::AuthRequest(part(range)),
            Self::AuthResponse(range) => Event::AuthResponse(part(range)),
            Self::ChannelOpen {
                channel,
                kind,
                extra,
            } => Event::ChannelOpen {
                channel: ChannelId(channel),
                kind: part(kind),
                extra: part(extra),
            },
            Self::ChannelOpened { channel } => Event::ChannelOpened {
                channel: ChannelId(channel),
            },
            Self::ChannelRefused { channel, reason } => Event::ChannelRefused {
                channel: ChannelId(channel),
                reason,
            },
            Self::ChannelRequest {
                channel,
                kind,
                want_reply,
                extra,
            } => Event::ChannelRequest {
                channel: ChannelId(channel),
                kind: part(kind),
                want_reply,
                extra: part(extra),
            },
            Self::ChannelData { channel, data } => Event::ChannelData {
                channel: ChannelId(channel),
                data: part(data),
            },
            Self::ChannelEof { channel } => Event::ChannelEof {
                channel: ChannelId(channel),
            },
            Self::ChannelClose { channel } => Event::ChannelClose {
                channel: ChannelId(channel),
            },
            Self::GlobalRequest {
                name,
                want_reply,
                extra,
            } => Event::GlobalRequest {
                name: part(name),
                want_reply,
                extra: part(extra),
            },
            Self::GlobalReply { success } => Event::GlobalReply { success },
            Self::Disconnect { reason, message } => Event::Disconnect {
                reason,
                message: part(message),
            },
        }
    }
}

fn send_adjust(outgoing: &mut Outgoing, peer: u32, bytes: u32) {
    outgoing.message(message::CHANNEL_WINDOW_ADJUST, |fields| {
        fields.put_u32(peer);
        fields.put_u32(bytes);
    });
}

fn after_number(payload: &[u8]) -> Result<Reader<'_>, ProtocolError> {
    let mut reader = Reader::new(payload);
    reader.u8("message number")?;
    Ok(reader)
}

/// A peer that says goodbye badly says goodbye all the same.
fn disconnect(payload: &[u8]) -> Found {
    let decode = || {
        let mut reader = after_number(payload)?;
        let reason = reader.u32("reason code")?;
        let message = reader.string("description").unwrap_or_default();
        Ok::<_, ProtocolError>((reason, message))
    };
    let (reason, message) = decode().unwrap_or((0, &[]));
    let message = if message.is_empty() {
        0..0
    } else {
        within(payload, message)
    };
    Found::Disconnect { reason, message }
}

/// Where `inner`, a part of `outer`, is in it.
fn within(outer: &[u8], inner: &[u8]) -> Range<usize> {
    let start = inner.as_ptr().addr().wrapping_sub(outer.as_ptr().addr());
    start..start.wrapping_add(inner.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn within_finds_the_part() {
        let outer = b"0123456789";
        assert_eq!(within(outer, &outer[3..7]), 3..7);
        assert_eq!(within(outer, &outer[10..]), 10..10);
        assert_eq!(within(outer, outer), 0..10);
    }
}
