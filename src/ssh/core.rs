//! The connection as the driver sees it: bytes in, events and bytes out.
//!
//! The driver reads the socket into [`Core::inbox`], takes events until there is none, answers them
//! in its own time, and writes [`Core::outbox`] to the socket. After each answer and each write there
//! may be events again.

mod channels;
mod login;

use channels::Slot;

use super::channel::Channels;
use super::connection::{Connection, Found, Service, Update};
use super::crypto::Random;
use super::error::ProtocolError;
use super::event::Event;
use super::exchange::Exchanges;
use super::ident;
use super::incoming::Incoming;
use super::message;
use super::outgoing::Outgoing;
use super::permit::Permit;
use super::setup::Setup;
use super::wire::Writer;
use crate::limits;

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

    /// Sends a global request of ours; only after authentication, and not to a client that leaves much
    /// unread: with ClientAliveCountMax 0 keepalives for it would pile up without end.
    pub fn send_global_request(&mut self, name: &[u8], want_reply: bool, extra: &[u8]) {
        if self.connection.service != Service::Open
            || self.connection.outgoing.waiting() > limits::OUTBOX_BYTES
        {
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
}
