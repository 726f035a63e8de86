//! A connection at rest, as bytes: how it gets from strangers' `net` to its user's `net`.
//!
//! Between an authentication request and its answer nothing is under way: no exchange, no channel.
//! What is left are keys, counters and bytes that wait on either side. The bytes come from a process
//! that may be hostile, so everything is checked; what a lie can do is spoil its own connection.

use agent_helper::wire::{Bytes, Wire, WireError};
use agent_helper::wire_struct;
use zeroize::Zeroize;

use super::channel::Channels;
use super::compression::Compressed;
use super::connection::{Connection, Service, Update};
use super::core::{Core, Life};
use super::crypto::Random;
use super::crypto::cipher::{Opener, Sealer};
use super::error::ProtocolError;
use super::exchange::{Exchanges, Settled};
use super::incoming::Incoming;
use super::negotiate::Markers;
use super::outgoing::Outgoing;
use super::setup::Setup;
use crate::limits;

wire_struct! {
    /// What crosses. Holds keys: overwritten by both ends as soon as it was used.
    #[derive(Debug)]
    pub struct Frozen {
        /// [`Opener`] and [`Sealer`].
        pub ciphers: (Bytes, Bytes),
        /// Next sequence numbers, in and out.
        pub sequences: (u32, u32),
        /// Bytes and packets under these keys, in and out.
        pub since_keys: ((u64, u64), (u64, u64)),
        /// Bytes that may pass under these keys, in and out.
        pub limits: (u64, u64),
        /// V_C.
        pub client_version: Bytes,
        /// H of the first exchange.
        pub session_id: Bytes,
        /// The client wants EXT_INFO; strict KEX.
        pub markers: (bool, bool),
        /// Packets are compressed from authentication on, in and out.
        pub compressed: (bool, bool),
        /// New keys were asked for.
        pub rekey_wanted: bool,
        /// For log lines.
        pub algorithms: Bytes,
        /// Received, not handled.
        pub unread: Bytes,
        /// Sealed, not sent.
        pub unsent: Bytes,
    }
}

/// A hash of the widest kind.
const SESSION_ID_MAX_BYTES: usize = 64;

/// Names of a few algorithms.
const ALGORITHMS_MAX_BYTES: usize = 1024;

impl Core {
    /// Ends this side's part at a moment when nothing is under way: an authentication request is
    /// unanswered and no exchange runs.
    ///
    /// # Errors
    ///
    /// It is another moment.
    pub fn freeze(mut self) -> Result<Vec<u8>, ProtocolError> {
        let not_now = ProtocolError::BadValue {
            field: "moment of the hand-over",
        };
        self.connection.update_extensions();
        let since_in = self.incoming.since_keys();
        let sequence_in = self.incoming.sequence();
        let Connection {
            exchanges,
            outgoing,
            service,
            ..
        } = self.connection;
        let (opener, unread) = self.incoming.rest().ok_or(not_now)?;
        let settled = exchanges.settle().ok_or(not_now)?;
        if !matches!(service, Service::Auth { waiting: true, .. }) || self.life != Life::Running {
            return Err(not_now);
        }
        if unread.len() > limits::FROZEN_BYTES || outgoing.waiting() > limits::FROZEN_BYTES {
            return Err(ProtocolError::TooMuchPending {
                what: "bytes at the hand-over",
            });
        }
        let mut ciphers = (Bytes::default(), Bytes::default());
        opener.freeze(&mut ciphers.0.0);
        outgoing.sealer().freeze(&mut ciphers.1.0);
        let mut frozen = Frozen {
            ciphers,
            sequences: (sequence_in, outgoing.sequence()),
            since_keys: (since_in, outgoing.since_keys()),
            limits: (settled.limit_in_bytes, settled.limit_out_bytes),
            client_version: settled.client_version,
            session_id: settled.session_id,
            markers: (settled.markers.ext_info, settled.markers.strict),
            compressed: (settled.compressed.incoming, settled.compressed.outgoing),
            rekey_wanted: settled.wanted,
            algorithms: settled.algorithms.as_str().into(),
            unread: unread.into(),
            unsent: outgoing.bytes().into(),
        };
        let bytes = frozen.to_wire();
        frozen.wipe();
        Ok(bytes)
    }

    /// Goes on where [`Core::freeze`] ended, in phase "authentication request unanswered".
    ///
    /// # Errors
    ///
    /// The bytes are not what `freeze` makes.
    pub fn thaw(frozen: &[u8], setup: &Setup, random: Random) -> Result<Self, ProtocolError> {
        let mut frozen = Frozen::from_wire(frozen).map_err(|error| ProtocolError::BadValue {
            field: match error {
                WireError::Truncated => "frozen connection: truncated",
                WireError::TrailingBytes => "frozen connection: trailing bytes",
                WireError::BadValue => "frozen connection: value",
            },
        })?;
        let core = frozen.revive(setup, random);
        frozen.wipe();
        core
    }
}

impl Frozen {
    fn revive(&self, setup: &Setup, random: Random) -> Result<Core, ProtocolError> {
        let bad = |field| ProtocolError::BadValue { field };
        let opener = Opener::thaw(&self.ciphers.0).map_err(|_| bad("frozen opener"))?;
        let sealer = Sealer::thaw(&self.ciphers.1).map_err(|_| bad("frozen sealer"))?;
        if opener.tag_bytes() == 0 || sealer.tag_bytes() == 0 {
            return Err(bad("frozen ciphers"));
        }
        if self.session_id.is_empty() || self.session_id.len() > SESSION_ID_MAX_BYTES {
            return Err(bad("frozen session id"));
        }
        if self.client_version.len() > limits::IDENT_BYTES {
            return Err(bad("frozen client version"));
        }
        if self.unread.len() > limits::FROZEN_BYTES || self.unsent.len() > limits::FROZEN_BYTES {
            return Err(bad("frozen buffers"));
        }
        let algorithms = String::from_utf8(self.algorithms.to_vec())
            .ok()
            .filter(|text| text.len() <= ALGORITHMS_MAX_BYTES)
            .filter(|text| text.bytes().all(|byte| (b' '..=b'~').contains(&byte)))
            .ok_or(bad("frozen algorithms"))?;
        let mut incoming = Incoming::with(opener, self.sequences.0, &self.unread);
        incoming.set_since_keys(self.since_keys.0);
        let mut outgoing = Outgoing::with(sealer, self.sequences.1, &self.unsent, random.clone());
        outgoing.set_since_keys(self.since_keys.1);
        let exchanges = Exchanges::settled(Settled {
            client_version: self.client_version.clone(),
            session_id: self.session_id.clone(),
            markers: Markers {
                ext_info: self.markers.0,
                strict: self.markers.1,
            },
            limit_in_bytes: self.limits.0,
            limit_out_bytes: self.limits.1,
            wanted: self.rekey_wanted,
            compressed: Compressed {
                incoming: self.compressed.0,
                outgoing: self.compressed.1,
            },
            algorithms,
        });
        let connection = Connection {
            setup: setup.clone(),
            random,
            outgoing,
            exchanges,
            channels: Channels::new(setup.max_channels),
            service: Service::Auth {
                waiting: true,
                asked: false,
            },
            // It went out before the connection froze.
            update: Update::default(),
            unanswered: 0,
            expected: 0,
        };
        Ok(Core::from_parts(incoming, connection))
    }

    fn wipe(&mut self) {
        self.ciphers.0.0.zeroize();
        self.ciphers.1.0.zeroize();
        // Opened packets' remains, never keys; wiped with the rest all the same.
        self.unread.0.zeroize();
    }
}
