//! The connection as the driver sees it: bytes in, events and bytes out.
//!
//! The driver reads the socket into [`Core::inbox`], takes events until there is none, answers them
//! in its own time, and writes [`Core::outbox`] to the socket. After each answer and each write there
//! may be events again.

use agent_helper::wire::Bytes;

use super::channel::{Channels, Ends};
use super::connection::{Connection, Found, Service, Update};
use super::crypto::Random;
use super::error::ProtocolError;
use super::exchange::Exchanges;
use super::ident;
use super::incoming::Incoming;
use super::message;
use super::outgoing::Outgoing;
use super::permit::Permit;
use super::setup::Setup;
use super::wire::Writer;
use crate::frames::Exchange;
use crate::limits;

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

/// One SSH connection, server side.
#[derive(Debug)]
pub struct Core {
    pub(super) incoming: Incoming,
    pub(super) connection: Connection,
    pub(super) life: Life,
    slot: Option<Slot>,
}

/// Whether there is anything left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// The client's identification line is awaited.
    Ident,
    /// Packets.
    Running,
    /// Somebody said SSH_MSG_DISCONNECT.
    Ended,
    /// The peer broke the protocol.
    Failed(ProtocolError),
}

/// The packet being built between [`Core::send_slot`] and [`Core::send_commit`].
#[derive(Debug, Clone, Copy)]
struct Slot {
    channel: u32,
    stream: Stream,
    room: usize,
}

impl Core {
    /// Starts a connection: our version line is in the outbox and behind it, at once, the first
    /// KEXINIT, which `cookie` is for.
    pub fn new(setup: &Setup, cookie: [u8; 16], random: Random) -> Self {
        let mut outgoing = Outgoing::new(random.clone());
        outgoing.put_plain(&setup.server_version);
        outgoing.put_plain(b"\r\n");
        let exchanges = Exchanges::start(setup, cookie, &mut outgoing);
        Self {
            incoming: Incoming::new(),
            connection: Connection {
                setup: setup.clone(),
                random,
                outgoing,
                exchanges,
                channels: Channels::new(setup.max_channels),
                service: Service::None,
                update: Update::default(),
                unanswered: 0,
                expected: 0,
            },
            life: Life::Ident,
            slot: None,
        }
    }

    /// Goes on with parts from a hand-over.
    pub(super) fn from_parts(incoming: Incoming, connection: Connection) -> Self {
        Self {
            incoming,
            connection,
            life: Life::Running,
            slot: None,
        }
    }

    /// Whether [`Core::inbox`] would have room: for the poll set, without taking memory for it.
    pub fn wants_input(&self) -> bool {
        self.is_live() && !self.connection.blocks_input() && self.incoming.has_room()
    }

    /// Room to read from the socket into; empty while the core waits for an answer or for its
    /// outbox to drain (then the driver does not poll for input).
    pub fn inbox(&mut self) -> &mut [u8] {
        if !self.is_live() || self.connection.blocks_input() {
            return &mut [];
        }
        self.incoming.room()
    }

    /// `len` bytes were read into [`Core::inbox`].
    pub fn received(&mut self, len: usize) {
        self.incoming.received(len);
    }

    /// The next event, or `None` when more input or an answer is needed, or the connection is over.
    ///
    /// # Errors
    ///
    /// The peer broke the protocol: SSH_MSG_DISCONNECT is in the outbox (unless it is no use),
    /// every further call gives the same error.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, ProtocolError> {
        self.check()?;
        if self.life == Life::Ident {
            let line = self.incoming.next_line();
            let Some(line) = self.check_result(line)? else {
                return Ok(None);
            };
            self.life = Life::Running;
            let line = self.incoming.bytes().get(line).unwrap_or(&[]);
            self.connection.exchanges.set_client_version(line);
            return Ok(Some(Event::ClientVersion(line)));
        }
        let found = self.advance();
        let Some((found, payload)) = self.check_result(found)? else {
            return Ok(None);
        };
        let payload = self.incoming.bytes().get(payload).unwrap_or(&[]);
        Ok(Some(found.event(payload)))
    }

    /// Bytes for the socket.
    pub fn outbox(&self) -> &[u8] {
        self.connection.outgoing.bytes()
    }

    /// `len` bytes of the outbox went out.
    pub fn sent(&mut self, len: usize) {
        self.connection.outgoing.sent(len);
    }

    /// Gives back the buffers that hold nothing; called when the connection goes idle.
    pub fn release_buffers(&mut self) {
        self.slot = None;
        self.incoming.release();
        self.connection.outgoing.release();
        self.connection.channels.release();
    }

    /// Bytes of buffer memory held, for tests and figures.
    pub fn buffer_bytes(&self) -> usize {
        self.incoming.memory_bytes()
            + self.connection.outgoing.memory_bytes()
            + self.connection.channels.memory_bytes()
    }

    /// Answers [`Event::NeedCookie`].
    pub fn provide_cookie(&mut self, cookie: [u8; 16]) {
        if !self.begin_sending() {
            return;
        }
        let Connection {
            exchanges,
            setup,
            outgoing,
            ..
        } = &mut self.connection;
        let outcome = exchanges.on_cookie(cookie, setup, outgoing);
        self.fail_on(outcome);
    }

    /// Answers [`Event::NeedSignature`] with a signature blob.
    pub fn provide_signature(&mut self, blob: &[u8]) {
        if !self.begin_sending() {
            return;
        }
        let Connection {
            exchanges,
            setup,
            outgoing,
            ..
        } = &mut self.connection;
        let outcome = exchanges.on_signature(blob, setup, outgoing);
        if self.fail_on(outcome) {
            self.connection.adjust_all();
        }
    }

    /// The user's keys may sign by these: goes to clients that take such news (RFC 8308, OpenSSH's
    /// `ext-info-in-auth`), ahead of the first answer to an authentication request.
    pub fn set_signature_algorithms(&mut self, names: Vec<Bytes>) {
        self.connection.setup.signature_algorithms = names;
    }

    /// Sends SSH_MSG_USERAUTH_BANNER; only before success.
    pub fn auth_banner(&mut self, text: &[u8]) {
        if !matches!(self.connection.service, Service::Auth { .. }) {
            return;
        }
        self.message(message::USERAUTH_BANNER, |fields| {
            fields.put_string(text);
            fields.put_string(b"");
        });
    }

    /// Answers with SSH_MSG_USERAUTH_FAILURE.
    pub fn auth_failure(&mut self, methods: &[&[u8]], partial: bool) {
        if self.take_auth_request() {
            self.message(message::USERAUTH_FAILURE, |fields| {
                fields.put_name_list(methods.iter().copied());
                fields.put_boolean(partial);
            });
        }
    }

    /// Answers with SSH_MSG_USERAUTH_PK_OK.
    pub fn auth_public_key_ok(&mut self, algorithm: &[u8], key: &[u8]) {
        if self.take_auth_request() {
            self.message(message::USERAUTH_PK_OK, |fields| {
                fields.put_string(algorithm);
                fields.put_string(key);
            });
        }
    }

    /// Answers with SSH_MSG_USERAUTH_PASSWD_CHANGEREQ (RFC 4252 section 8).
    pub fn auth_password_change(&mut self, prompt: &[u8]) {
        if self.take_auth_request() {
            self.message(message::USERAUTH_PASSWD_CHANGEREQ, |fields| {
                fields.put_string(prompt);
                fields.put_string(b"");
            });
        }
    }

    /// Answers with SSH_MSG_USERAUTH_INFO_REQUEST (RFC 4256 section 3.2); nothing that is typed is
    /// echoed.
    pub fn auth_info_request(&mut self, instruction: &[u8], prompts: &[&[u8]]) {
        if self.take_auth_request() {
            self.message(message::USERAUTH_INFO_REQUEST, |fields| {
                fields.put_string(b"");
                fields.put_string(instruction);
                fields.put_string(b"");
                fields.put_u32(u32::try_from(prompts.len()).unwrap_or(u32::MAX));
                for prompt in prompts {
                    fields.put_string(prompt);
                    fields.put_boolean(false);
                }
            });
            self.connection.service = Service::Auth {
                waiting: false,
                asked: true,
            };
        }
    }

    /// Answers with SSH_MSG_USERAUTH_SUCCESS: channels may open from here on.
    pub fn auth_success(&mut self) {
        if self.take_auth_request() {
            let compressed = self.connection.exchanges.compressed();
            self.connection.service = Service::Open;
            self.incoming.authenticated(compressed.incoming);
            self.message(message::USERAUTH_SUCCESS, |_| {});
            self.connection.outgoing.authenticated(compressed.outgoing);
        }
    }

    /// Confirms a channel with our initial window and maximum packet, in bytes.
    pub fn open_confirm(&mut self, channel: ChannelId, window: u32, max_packet: u32) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if !found.is_asked() {
            return;
        }
        found.confirm(window, max_packet);
        let peer = found.peer;
        self.message(message::CHANNEL_OPEN_CONFIRMATION, |fields| {
            fields.put_u32(peer);
            fields.put_u32(channel.0);
            fields.put_u32(window);
            fields.put_u32(max_packet);
        });
    }

    /// Refuses a channel (RFC 4254 section 5.1 codes).
    pub fn open_fail(&mut self, channel: ChannelId, code: u32, message: &str) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if !found.is_asked() {
            return;
        }
        let peer = found.peer;
        self.connection.channels.remove(channel.0);
        if self.begin_sending() {
            self.connection.open_failure(peer, code, message);
            self.end_sending();
        }
    }

    /// Whether [`Core::offer`] would find a number.
    pub fn can_offer(&self) -> bool {
        self.is_live()
            && self.connection.service == Service::Open
            && self.connection.channels.has_room()
    }

    /// Opens a channel of type `kind` to the client, with our initial window and maximum packet in
    /// bytes; `extra` are the fields behind those. [`Event::ChannelOpened`] or
    /// [`Event::ChannelRefused`] follows, if the client answers. `None`: there are too many.
    pub fn offer(
        &mut self,
        kind: &[u8],
        window: u32,
        max_packet: u32,
        extra: &[u8],
    ) -> Option<ChannelId> {
        if self.connection.service != Service::Open || !self.begin_sending() {
            return None;
        }
        let number = self.connection.channels.offer(window, max_packet)?;
        self.message(message::CHANNEL_OPEN, |fields| {
            fields.put_string(kind);
            fields.put_u32(number);
            fields.put_u32(window);
            fields.put_u32(max_packet);
            fields.put_bytes(extra);
        });
        Some(ChannelId(number))
    }

    /// Answers the oldest unanswered request of the channel that wants a reply.
    pub fn reply(&mut self, channel: ChannelId, success: bool) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if !found.take_reply() {
            return;
        }
        let peer = found.peer;
        let number = if success {
            message::CHANNEL_SUCCESS
        } else {
            message::CHANNEL_FAILURE
        };
        self.message(number, |fields| fields.put_u32(peer));
    }

    /// `len` bytes of the channel's data went to the program: the window may open again.
    pub fn consumed(&mut self, channel: ChannelId, len: u32) {
        if let Some(found) = self.connection.channels.find(channel.0) {
            found.consumed(len);
        }
        if self.begin_sending() {
            self.connection.adjust(channel.0);
        }
    }

    /// Whether data passed through the channel, either way, since the last call.
    pub fn take_moved(&mut self, channel: ChannelId) -> bool {
        let channels = &mut self.connection.channels;
        channels.find(channel.0).is_some_and(|it| it.take_moved())
    }

    /// How many bytes [`Core::send_slot`] would take now: limited by the peer's window and packet
    /// size, by the outbox, and 0 while keys change.
    pub fn send_room(&self, channel: ChannelId) -> usize {
        let Connection {
            outgoing,
            channels,
            service,
            ..
        } = &self.connection;
        if !self.is_live()
            || *service != Service::Open
            || outgoing.is_holding()
            || self.connection.exchanges.blocks_input()
            || outgoing.waiting() >= limits::OUTBOX_DATA_BYTES
        {
            return 0;
        }
        channels
            .live(channel.0)
            .map_or(0, |channel| channel.send_bytes())
    }

    /// Room for data inside the packet being built, to be filled by read(2) and closed by
    /// [`Core::send_commit`], with no other call in between; `None` where [`Core::send_room`] is 0.
    pub fn send_slot(&mut self, channel: ChannelId, stream: Stream) -> Option<&mut [u8]> {
        let room = self.send_room(channel);
        if room == 0 {
            return None;
        }
        self.slot = Some(Slot {
            channel: channel.0,
            stream,
            room,
        });
        self.connection.outgoing.slot(stream.head_bytes(), room)
    }

    /// Sends the first `len` bytes of the slot as one message; 0 takes the slot back.
    pub fn send_commit(&mut self, len: usize) {
        let Some(slot) = self.slot.take() else { return };
        let len = len.min(slot.room);
        let Some(channel) = self.connection.channels.find(slot.channel) else {
            return;
        };
        if len == 0 {
            return;
        }
        channel.take_send_window(len);
        let (head, head_bytes) = slot.stream.head(channel.peer, len);
        if let Some(head) = head.get(..head_bytes) {
            self.connection.outgoing.commit_slot(head, len);
        }
    }

    /// Sends SSH_MSG_CHANNEL_EOF, once.
    pub fn send_eof(&mut self, channel: ChannelId) {
        self.send_end(channel, Ends::Eof, message::CHANNEL_EOF);
    }

    /// Sends SSH_MSG_CHANNEL_CLOSE, once. The number is free once the client's came too.
    pub fn send_close(&mut self, channel: ChannelId) {
        self.send_end(channel, Ends::Close, message::CHANNEL_CLOSE);
        let channels = &mut self.connection.channels;
        if channels
            .find(channel.0)
            .is_some_and(|found| found.is_over())
        {
            channels.remove(channel.0);
        }
    }

    /// Sends a channel request of ours, without wish for a reply unless said. None goes out behind
    /// SSH_MSG_CHANNEL_CLOSE.
    pub fn send_request(
        &mut self,
        channel: ChannelId,
        kind: &[u8],
        want_reply: bool,
        extra: &[u8],
    ) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if !found.is_confirmed() || found.sent == Ends::Close {
            return;
        }
        let peer = found.peer;
        self.message(message::CHANNEL_REQUEST, |fields| {
            fields.put_u32(peer);
            fields.put_string(kind);
            fields.put_boolean(want_reply);
            fields.put_bytes(extra);
        });
    }

    /// Answers the oldest unanswered global request that wants a reply.
    pub fn global_reply(&mut self, success: bool, extra: &[u8]) {
        let Some(left) = self.connection.unanswered.checked_sub(1) else {
            return;
        };
        self.connection.unanswered = left;
        if success {
            self.message(message::REQUEST_SUCCESS, |fields| fields.put_bytes(extra));
        } else {
            self.message(message::REQUEST_FAILURE, |_| {});
        }
    }

    /// Sends a global request of ours; only after authentication.
    pub fn send_global_request(&mut self, name: &[u8], want_reply: bool, extra: &[u8]) {
        if self.connection.service != Service::Open {
            return;
        }
        self.connection.expected = self
            .connection
            .expected
            .saturating_add(u32::from(want_reply));
        self.message(message::GLOBAL_REQUEST, |fields| {
            fields.put_string(name);
            fields.put_boolean(want_reply);
            fields.put_bytes(extra);
        });
    }

    /// Asks for new keys: at the next moment when none are under way.
    pub fn rekey(&mut self) {
        self.connection.exchanges.want();
    }

    /// Sends SSH_MSG_DISCONNECT; afterwards only the outbox matters.
    pub fn disconnect(&mut self, reason: u32, message: &str) {
        if !self.begin_sending() {
            return;
        }
        self.put_disconnect(reason, message);
        self.life = Life::Ended;
    }

    /// True between our or the peer's KEXINIT and the last NEWKEYS.
    pub fn is_changing_keys(&self) -> bool {
        self.connection.exchanges.is_under_way()
    }

    /// How many channels are open.
    pub fn open_channels(&self) -> usize {
        self.connection.channels.count()
    }

    /// The negotiated algorithms in words, for log lines.
    pub fn algorithms(&self) -> String {
        self.connection.exchanges.algorithms().to_owned()
    }

    /// Where there was no common algorithm: which, and what the client offered, for the log.
    pub fn unmatched(&self) -> Option<&str> {
        self.connection.exchanges.unmatched()
    }

    /// The client's identification line, without CR LF; empty before it came.
    pub fn client_version(&self) -> &[u8] {
        self.connection.exchanges.client_version()
    }

    /// The session identifier (RFC 4253 section 7.2); empty before the first exchange.
    pub fn session_id(&self) -> &[u8] {
        self.connection.exchanges.session_id()
    }

    /// Handles packets up to the next one that the driver has to know of.
    fn advance(&mut self) -> Result<Option<(Found, std::ops::Range<usize>)>, ProtocolError> {
        while self.life == Life::Running && !self.connection.blocks_input() {
            if self.rekey_is_due() {
                return Ok(Some((Found::NeedCookie, 0..0)));
            }
            let Some(packet) = self.incoming.next_packet()? else {
                return Ok(None);
            };
            let found = self.on_packet(packet.payload.clone(), packet.sequence)?;
            self.connection.outgoing.check_held()?;
            if let Some(found) = found {
                return Ok(Some((self.apply(found), packet.payload)));
            }
        }
        Ok(None)
    }

    /// Only after authentication: OpenSSH does not begin one before either, and the connection can
    /// be handed over at success because none is under way.
    fn rekey_is_due(&mut self) -> bool {
        let Connection {
            exchanges,
            outgoing,
            service,
            ..
        } = &mut self.connection;
        *service == Service::Open
            && exchanges.begin_if_due(self.incoming.since_keys(), outgoing.since_keys())
    }

    fn on_packet(
        &mut self,
        payload: std::ops::Range<usize>,
        sequence: u32,
    ) -> Result<Option<Found>, ProtocolError> {
        let payload = self.incoming.bytes().get(payload).unwrap_or(&[]);
        let Some(number) = payload.first().copied() else {
            return Err(ProtocolError::Truncated {
                field: "message number",
            });
        };
        if self.connection.exchanges.drops(number) {
            return Ok(None);
        }
        let phase = self.connection.phase();
        match phase.permit(number) {
            Permit::Accept => self.connection.on_message(number, payload, sequence),
            Permit::Ignore => Ok(None),
            Permit::Unimplemented => {
                self.connection.unimplemented(sequence);
                Ok(None)
            }
            Permit::Refuse => Err(ProtocolError::Unexpected {
                number,
                phase: phase.name(),
            }),
        }
    }

    /// What an event changes beyond the connection's own state.
    fn apply(&mut self, found: Found) -> Found {
        match found {
            Found::NewKeys { opener, first } => {
                let exchanges = &self.connection.exchanges;
                let compressed = exchanges.compressed().incoming;
                self.incoming
                    .install(*opener, compressed, exchanges.is_strict());
                return Found::KeysChanged { first };
            }
            // It may hold a password.
            Found::AuthRequest(_) | Found::AuthResponse(_) => self.incoming.wipe_current(),
            Found::Disconnect { .. } => self.life = Life::Ended,
            _ => {}
        }
        found
    }

    fn is_live(&self) -> bool {
        matches!(self.life, Life::Ident | Life::Running)
    }

    fn check(&self) -> Result<(), ProtocolError> {
        match self.life {
            Life::Failed(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends the connection where `result` is an error: what happened, and what to tell the peer.
    fn check_result<T>(&mut self, result: Result<T, ProtocolError>) -> Result<T, ProtocolError> {
        result.inspect_err(|error| self.fail(*error))
    }

    fn fail_on(&mut self, result: Result<(), ProtocolError>) -> bool {
        self.check_result(result).is_ok()
    }

    fn fail(&mut self, error: ProtocolError) {
        if self.life == Life::Ident {
            // Whoever cannot say its version cannot read packets.
            self.connection.outgoing.put_plain(ident::REFUSAL);
        } else {
            self.put_disconnect(error.disconnect_reason(), &error.to_string());
        }
        self.life = Life::Failed(error);
    }

    fn put_disconnect(&mut self, reason: u32, text: &str) {
        self.connection.outgoing.drop_held();
        self.connection
            .outgoing
            .message(message::DISCONNECT, |fields| {
                fields.put_u32(reason);
                fields.put_string(text.as_bytes());
                fields.put_string(b"");
            });
    }

    fn send_end(&mut self, channel: ChannelId, end: Ends, number: u8) {
        let Some(found) = self.connection.channels.find(channel.0) else {
            return;
        };
        if found.send_end(end) {
            let peer = found.peer;
            self.message(number, |fields| fields.put_u32(peer));
        }
    }

    /// Sends a message of the driver's, unless the connection is over.
    fn message(&mut self, number: u8, fields: impl FnOnce(&mut Vec<u8>)) {
        if self.begin_sending() {
            self.connection.outgoing.message(number, fields);
            self.end_sending();
        }
    }

    /// Whether anything may still be sent. A slot that was not committed is gone: its room is
    /// where the next packet goes.
    fn begin_sending(&mut self) -> bool {
        self.slot = None;
        self.is_live()
    }

    fn end_sending(&mut self) {
        let outcome = self.connection.outgoing.check_held();
        self.fail_on(outcome);
    }

    fn take_auth_request(&mut self) -> bool {
        let waiting = matches!(self.connection.service, Service::Auth { waiting: true, .. });
        if waiting {
            if self.begin_sending() {
                self.connection.update_extensions();
            }
            self.connection.service = Service::Auth {
                waiting: false,
                asked: false,
            };
        }
        waiting
    }
}

impl Stream {
    /// Bytes of the fixed fields of a data message.
    fn head_bytes(self) -> usize {
        match self {
            Self::Data => 9,
            Self::Stderr => 13,
        }
    }

    /// The fixed fields of a data message, and how many bytes of them count.
    fn head(self, peer: u32, len: usize) -> ([u8; 13], usize) {
        const SSH_EXTENDED_DATA_STDERR: u32 = 1;
        let mut head = [0; 13];
        let len = u32::try_from(len).unwrap_or(u32::MAX);
        let (number, fields) = match self {
            Self::Data => (message::CHANNEL_DATA, [peer, len, 0]),
            Self::Stderr => (
                message::CHANNEL_EXTENDED_DATA,
                [peer, SSH_EXTENDED_DATA_STDERR, len],
            ),
        };
        if let Some((first, rest)) = head.split_first_mut() {
            *first = number;
            for (place, field) in rest.chunks_exact_mut(4).zip(fields) {
                place.copy_from_slice(&field.to_be_bytes());
            }
        }
        (head, self.head_bytes())
    }
}
