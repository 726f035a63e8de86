//! Key exchange (RFC 4253 sections 7 to 9, strict KEX of OpenSSH PROTOCOL 1.9).
//!
//! The state is consumed by every step: an exchange that failed half way leaves
//! [`State::Failed`] behind and cannot be resumed with half its secrets. The private host key and
//! the cookie are the monitor's; both are asked for and come later.

use agent_helper::wire::Bytes;
use zeroize::Zeroizing;

use super::compression::Compressed;
use super::crypto::Random;
use super::crypto::cipher::{DirectionKeys, Opener, Sealer};
use super::crypto::hash::Hash;
use super::crypto::kex::Answer;
use super::error::ProtocolError;
use super::message;
use super::negotiate::{self, Agreed, KexInit, Markers, Protection};
use super::outgoing::Outgoing;
use super::permit::Phase;
use super::setup::Setup;
use super::wire::{Reader, Writer};
use crate::frames;
use crate::limits;

/// Everything about keys that outlives one exchange.
#[derive(Debug)]
pub(super) struct Exchanges {
    state: State,
    client_version: Bytes,
    /// H of the first exchange; empty before.
    session_id: Vec<u8>,
    markers: Markers,
    /// Bytes under one key, per direction.
    limit_in_bytes: u64,
    limit_out_bytes: u64,
    /// An exchange was asked for by [`Exchanges::want`].
    wanted: bool,
    /// The first exchange is over.
    keyed: bool,
    /// By the last exchange.
    compressed: Compressed,
    algorithms: String,
    /// What the client offered where nothing was in common.
    unmatched: Option<String>,
}

#[derive(Debug)]
enum State {
    /// No exchange under way.
    Idle,
    /// Our cookie was asked for; the client's KEXINIT may have come already.
    AwaitCookie(Option<Bytes>),
    /// Our KEXINIT went out.
    AwaitInit(Bytes),
    /// Both KEXINIT are there.
    AwaitPublic(Box<AwaitPublic>),
    /// All but the signature is there.
    AwaitSignature(Box<AwaitSignature>),
    /// Our side is under new keys; these are for the client's.
    AwaitNewKeys(Box<Opener>),
    /// A step failed.
    Failed,
}

#[derive(Debug)]
struct AwaitPublic {
    agreed: Agreed,
    client_kexinit: Bytes,
    server_kexinit: Bytes,
    /// The next exchange message was sent on a wrong guess.
    drop_next: bool,
}

struct AwaitSignature {
    agreed: Agreed,
    server_public: Bytes,
    shared_secret: Zeroizing<Vec<u8>>,
    h: Vec<u8>,
}

impl std::fmt::Debug for AwaitSignature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwaitSignature")
            .field("agreed", &self.agreed)
            .finish_non_exhaustive()
    }
}

/// What lives on over a hand-over.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    pub(super) client_version: Bytes,
    pub(super) session_id: Bytes,
    pub(super) markers: Markers,
    pub(super) limit_in_bytes: u64,
    pub(super) limit_out_bytes: u64,
    pub(super) wanted: bool,
    pub(super) compressed: Compressed,
    pub(super) algorithms: String,
}

/// What the client's KEXINIT leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AfterInit {
    /// Its next message.
    Await,
    /// A cookie for ours, from the driver.
    NeedCookie,
}

impl Exchanges {
    /// Starts the first exchange: our KEXINIT goes out.
    pub(super) fn start(setup: &Setup, cookie: [u8; 16], outgoing: &mut Outgoing) -> Self {
        let ours = Bytes(negotiate::server_kexinit(setup, cookie, true));
        outgoing.send(&ours);
        outgoing.start_holding();
        Self {
            state: State::AwaitInit(ours),
            client_version: Bytes::default(),
            session_id: Vec::new(),
            markers: Markers {
                ext_info: false,
                strict: false,
            },
            limit_in_bytes: u64::MAX,
            limit_out_bytes: u64::MAX,
            wanted: false,
            keyed: false,
            compressed: Compressed::default(),
            algorithms: String::new(),
            unmatched: None,
        }
    }

    /// Goes on after a hand-over.
    pub(super) fn settled(settled: Settled) -> Self {
        Self {
            state: State::Idle,
            client_version: settled.client_version,
            session_id: settled.session_id.0,
            markers: settled.markers,
            limit_in_bytes: settled.limit_in_bytes,
            limit_out_bytes: settled.limit_out_bytes,
            wanted: settled.wanted,
            keyed: true,
            compressed: settled.compressed,
            algorithms: settled.algorithms,
            unmatched: None,
        }
    }

    /// What a hand-over takes along; `None` while an exchange runs.
    pub(super) fn settle(self) -> Option<Settled> {
        if !matches!(self.state, State::Idle) {
            return None;
        }
        Some(Settled {
            client_version: self.client_version,
            session_id: Bytes(self.session_id),
            markers: self.markers,
            limit_in_bytes: self.limit_in_bytes,
            limit_out_bytes: self.limit_out_bytes,
            wanted: self.wanted,
            compressed: self.compressed,
            algorithms: self.algorithms,
        })
    }

    pub(super) fn set_client_version(&mut self, version: &[u8]) {
        self.client_version = version.into();
    }

    pub(super) fn client_version(&self) -> &[u8] {
        &self.client_version
    }

    pub(super) fn session_id(&self) -> &[u8] {
        &self.session_id
    }

    pub(super) fn algorithms(&self) -> &str {
        &self.algorithms
    }

    /// Whether the first exchange is over.
    pub(super) fn is_keyed(&self) -> bool {
        self.keyed
    }

    /// Where packets are compressed, under the keys that are in use or about to be.
    pub(super) fn compressed(&self) -> Compressed {
        self.compressed
    }

    pub(super) fn is_strict(&self) -> bool {
        self.markers.strict
    }

    /// The phase that the exchange puts the connection into, if it does.
    pub(super) fn phase(&self) -> Option<Phase> {
        let phases = match (self.keyed, self.markers.strict) {
            (true, _) => [None, Some(Phase::RekeyExchange), Some(Phase::RekeyNewKeys)],
            (false, true) => [
                Phase::FirstInit,
                Phase::StrictExchange,
                Phase::StrictNewKeys,
            ]
            .map(Some),
            (false, false) => {
                [Phase::FirstInit, Phase::FirstExchange, Phase::FirstNewKeys].map(Some)
            }
        };
        let [init, exchange, newkeys] = phases;
        match &self.state {
            State::Idle | State::AwaitCookie(_) | State::Failed => None,
            State::AwaitInit(_) => init,
            State::AwaitPublic(_) | State::AwaitSignature(_) => exchange,
            State::AwaitNewKeys(_) => newkeys,
        }
    }

    /// Whether the next message waits for an answer of the driver's.
    pub(super) fn blocks_input(&self) -> bool {
        matches!(
            self.state,
            State::AwaitCookie(Some(_)) | State::AwaitSignature(_)
        )
    }

    /// Whether data may not be sent and is not to be expected soon.
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self.state, State::Idle | State::AwaitCookie(None))
    }

    /// Asks for new keys at the next moment when none are under way.
    pub(super) fn want(&mut self) {
        if matches!(self.state, State::Idle) {
            self.wanted = true;
        }
    }

    /// Starts a re-exchange where one is due; true: the driver is to be asked for a cookie.
    pub(super) fn begin_if_due(&mut self, since_in: (u64, u64), since_out: (u64, u64)) -> bool {
        // RFC 4344 section 3.1: no more than 2^31 packets under one key.
        const PACKETS: u64 = 1 << 31;
        let due = self.wanted
            || since_in.0 >= self.limit_in_bytes
            || since_out.0 >= self.limit_out_bytes
            || since_in.1 >= PACKETS
            || since_out.1 >= PACKETS;
        if !due || !matches!(self.state, State::Idle) {
            return false;
        }
        self.wanted = false;
        self.state = State::AwaitCookie(None);
        true
    }

    /// The driver's cookie: our KEXINIT of a re-exchange goes out.
    pub(super) fn on_cookie(
        &mut self,
        cookie: [u8; 16],
        setup: &Setup,
        outgoing: &mut Outgoing,
    ) -> Result<(), ProtocolError> {
        let State::AwaitCookie(theirs) = &mut self.state else {
            return Ok(());
        };
        let theirs = theirs.take();
        self.state = State::Failed;
        let ours = Bytes(negotiate::server_kexinit(setup, cookie, false));
        outgoing.send(&ours);
        outgoing.start_holding();
        self.state = match theirs {
            None => State::AwaitInit(ours),
            Some(theirs) => await_public(ours, theirs, setup)?,
        };
        Ok(())
    }

    /// SSH_MSG_KEXINIT.
    pub(super) fn on_kexinit(
        &mut self,
        payload: &[u8],
        sequence: u32,
        setup: &Setup,
    ) -> Result<AfterInit, ProtocolError> {
        let markers = KexInit::decode(payload)?.markers();
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Idle => {
                self.wanted = false;
                self.state = State::AwaitCookie(Some(payload.into()));
                Ok(AfterInit::NeedCookie)
            }
            State::AwaitCookie(None) => {
                self.state = State::AwaitCookie(Some(payload.into()));
                Ok(AfterInit::Await)
            }
            State::AwaitInit(ours) => {
                if !self.keyed {
                    self.markers = markers;
                    if markers.strict && sequence != 0 {
                        // PROTOCOL 1.9: KEXINIT must be the first packet.
                        return Err(unexpected(message::KEXINIT, Phase::StrictExchange));
                    }
                }
                self.state = await_public(ours, payload.into(), setup).inspect_err(|error| {
                    self.unmatched = unmatched(payload, setup, *error);
                })?;
                Ok(AfterInit::Await)
            }
            _ => Err(unexpected(message::KEXINIT, Phase::RekeyExchange)),
        }
    }

    /// After an exchange that failed for want of a common algorithm: which, and the client's list.
    pub(super) fn unmatched(&self) -> Option<&str> {
        self.unmatched.as_deref()
    }

    /// Whether message `number` was sent on a wrong guess and is to be dropped; once.
    pub(super) fn drops(&mut self, number: u8) -> bool {
        let State::AwaitPublic(state) = &mut self.state else {
            return false;
        };
        // Any exchange message: the guess may have been for another method.
        matches!(number, 30..=49) && std::mem::take(&mut state.drop_next)
    }

    /// SSH_MSG_KEX_ECDH_INIT or what the hybrid methods call it: gives what has to be signed.
    pub(super) fn on_public(
        &mut self,
        payload: &[u8],
        setup: &Setup,
        random: &Random,
    ) -> Result<Box<frames::Exchange>, ProtocolError> {
        let State::AwaitPublic(state) = std::mem::replace(&mut self.state, State::Failed) else {
            return Err(unexpected(message::KEX_ECDH_INIT, Phase::FirstInit));
        };
        let AwaitPublic {
            agreed,
            client_kexinit,
            server_kexinit,
            ..
        } = *state;
        let mut reader = Reader::new(payload);
        reader.u8("message number")?;
        let client_public = reader.string("Q_C")?;
        reader.finish(message::KEX_ECDH_INIT)?;
        let Answer {
            server_public,
            shared_secret,
        } = agreed
            .kex
            .respond(client_public, random)
            .map_err(|_| ProtocolError::KeyExchange {
                what: "public value",
            })?;
        let exchange = Box::new(frames::Exchange {
            kex: agreed.kex_name.clone(),
            host_key_algorithm: agreed.host_key_algorithm.clone(),
            client_version: self.client_version.clone(),
            client_kexinit,
            server_kexinit,
            client_public: client_public.into(),
            server_public: Bytes(server_public.clone()),
            shared_secret: Bytes(shared_secret.to_vec()),
        });
        let h = agreed
            .kex
            .hash()
            .exchange(&exchange, &agreed.host_key, &setup.server_version);
        let server_public = Bytes(server_public);
        self.state = State::AwaitSignature(Box::new(AwaitSignature {
            agreed,
            server_public,
            shared_secret,
            h,
        }));
        Ok(exchange)
    }

    /// The driver's signature: our answer and NEWKEYS go out, and EXT_INFO behind the first.
    pub(super) fn on_signature(
        &mut self,
        signature: &[u8],
        setup: &Setup,
        outgoing: &mut Outgoing,
    ) -> Result<(), ProtocolError> {
        if !matches!(self.state, State::AwaitSignature(_)) {
            return Ok(());
        }
        let State::AwaitSignature(state) = std::mem::replace(&mut self.state, State::Failed) else {
            return Ok(());
        };
        let first = !self.keyed;
        if first {
            self.session_id.clone_from(&state.h);
        }
        // First of all: a failure must be told under the keys that the client has.
        let (opener, sealer) = state.keys(&self.session_id)?;
        outgoing.message(message::KEX_ECDH_REPLY, |fields| {
            fields.put_string(&state.agreed.host_key);
            fields.put_string(&state.server_public);
            fields.put_string(signature);
        });
        outgoing.message(message::NEWKEYS, |_| {});
        self.compressed = state.agreed.compressed;
        outgoing.install(sealer, self.compressed.outgoing, self.markers.strict);
        if first && self.markers.ext_info {
            send_ext_info(setup, outgoing);
        }
        outgoing.stop_holding();
        self.limit_in_bytes = limit_bytes(setup, state.agreed.incoming);
        self.limit_out_bytes = limit_bytes(setup, state.agreed.outgoing);
        self.algorithms = state.agreed.describe();
        self.state = State::AwaitNewKeys(Box::new(opener));
        Ok(())
    }

    /// SSH_MSG_NEWKEYS: gives the opener for everything behind it.
    pub(super) fn on_newkeys(&mut self, payload: &[u8]) -> Result<Opener, ProtocolError> {
        let mut reader = Reader::new(payload);
        reader.u8("message number")?;
        reader.finish(message::NEWKEYS)?;
        match std::mem::replace(&mut self.state, State::Failed) {
            State::AwaitNewKeys(opener) => {
                self.state = State::Idle;
                self.keyed = true;
                Ok(*opener)
            }
            _ => Err(unexpected(message::NEWKEYS, Phase::FirstInit)),
        }
    }
}

impl AwaitSignature {
    /// RFC 4253 section 7.2: letters A, C, E are the client's direction, B, D, F ours.
    fn keys(&self, session_id: &[u8]) -> Result<(Opener, Sealer), ProtocolError> {
        let failed = |_| ProtocolError::KeyExchange { what: "keys" };
        let incoming = self.derive(self.agreed.incoming, session_id, [b'A', b'C', b'E']);
        let outgoing = self.derive(self.agreed.outgoing, session_id, [b'B', b'D', b'F']);
        let Protection { cipher, mac } = self.agreed.incoming;
        let opener = Opener::new(cipher, mac, &incoming.borrow()).map_err(failed)?;
        let Protection { cipher, mac } = self.agreed.outgoing;
        let sealer = Sealer::new(cipher, mac, &outgoing.borrow()).map_err(failed)?;
        Ok((opener, sealer))
    }

    fn derive(&self, protection: Protection, session_id: &[u8], letters: [u8; 3]) -> Derived {
        let hash: Hash = self.agreed.kex.hash();
        let take = |letter, len| hash.derive(&self.shared_secret, &self.h, letter, session_id, len);
        let [iv, key, mac_key] = letters;
        Derived {
            iv: take(iv, protection.cipher.iv_bytes()),
            key: take(key, protection.cipher.key_bytes()),
            mac_key: take(mac_key, protection.mac.map_or(0, |mac| mac.key_bytes())),
        }
    }
}

struct Derived {
    iv: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    mac_key: Zeroizing<Vec<u8>>,
}

impl Derived {
    fn borrow(&self) -> DirectionKeys<'_> {
        DirectionKeys {
            key: &self.key,
            iv: &self.iv,
            mac_key: &self.mac_key,
        }
    }
}

fn await_public(ours: Bytes, theirs: Bytes, setup: &Setup) -> Result<State, ProtocolError> {
    let agreed = KexInit::decode(&theirs)?.negotiate(setup)?;
    Ok(State::AwaitPublic(Box::new(AwaitPublic {
        drop_next: agreed.wrong_guess,
        agreed,
        client_kexinit: theirs,
        server_kexinit: ours,
    })))
}

/// RFC 8308; the names besides `server-sig-algs` are OpenSSH PROTOCOL 1.6 and 1.8, and
/// draft-ietf-sshm-ssh-agent.
fn send_ext_info(setup: &Setup, outgoing: &mut Outgoing) {
    outgoing.message(message::EXT_INFO, |fields| {
        fields.put_u32(4);
        fields.put_string(b"server-sig-algs");
        fields.put_name_list(setup.signature_algorithms.iter().map(|name| &**name));
        fields.put_string(b"publickey-hostbound@openssh.com");
        fields.put_string(b"0");
        fields.put_string(b"ping@openssh.com");
        fields.put_string(b"0");
        fields.put_string(b"agent-forward");
        fields.put_string(b"0");
    });
}

/// RekeyLimit, at most the cipher's own limit (RFC 4344 section 3.2, as OpenSSH computes it).
fn limit_bytes(setup: &Setup, protection: Protection) -> u64 {
    let own = match protection.cipher.block_bytes() {
        0..16 => 1 << 30,
        block_bytes => (block_bytes as u64) << 32,
    };
    if setup.rekey_bytes == 0 {
        own
    } else {
        own.min(setup.rekey_bytes)
    }
}

fn unexpected(number: u8, phase: Phase) -> ProtocolError {
    ProtocolError::Unexpected {
        number,
        phase: phase.name(),
    }
}

/// In OpenSSH's words, which tools read.
fn unmatched(theirs: &[u8], setup: &Setup, error: ProtocolError) -> Option<String> {
    let ProtocolError::NoCommonAlgorithm { list } = error else {
        return None;
    };
    let offer = KexInit::decode(theirs).ok()?.unmatched(setup, list);
    let offer = offer.get(..limits::UNMATCHED_OFFER_BYTES).unwrap_or(offer);
    let list = match list {
        "host key algorithm" => "host key type",
        "compression" => "compression method",
        other => other,
    };
    Some(format!(
        "no matching {list} found. Their offer: {}",
        String::from_utf8_lossy(offer)
    ))
}
