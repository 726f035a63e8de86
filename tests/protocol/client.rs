//! A small SSH client without a socket: its own packet layer and key exchange, and every way to
//! send what a client should not.

use std::collections::VecDeque;

use agent::frames;
use agent::ssh::crypto::cipher::{Cipher, DirectionKeys, Mac, Opener, Sealer};
use agent::ssh::crypto::hash::Hash;
use agent::ssh::message;
use agent::ssh::wire::{Reader, Writer};
use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::inflate::stream::{InflateState, inflate};
use miniz_oxide::{DataFormat, MZFlush};
use ring::agreement::{
    Algorithm, ECDH_P256, ECDH_P384, EphemeralPrivateKey, UnparsedPublicKey, X25519,
    agree_ephemeral,
};
use ring::rand::SystemRandom;

/// What the client offers and how it behaves.
#[derive(Debug, Clone)]
pub struct Habits {
    pub version: &'static str,
    pub strict: bool,
    pub ext_info: bool,
    pub kex: Vec<&'static str>,
    pub host_key: Vec<&'static str>,
    pub ciphers: Vec<&'static str>,
    pub macs: Vec<&'static str>,
    pub compression: Vec<&'static str>,
    /// From the server, where that is another list.
    pub compression_back: Option<Vec<&'static str>>,
    /// Sends an exchange message right behind KEXINIT, and says so.
    pub guess: Option<Vec<u8>>,
    /// Answers KEXINIT, NEWKEYS and so on by itself.
    pub exchanges_keys: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            version: "SSH-2.0-test",
            strict: true,
            ext_info: true,
            kex: vec!["curve25519-sha256"],
            host_key: vec!["ssh-ed25519"],
            ciphers: vec!["chacha20-poly1305@openssh.com"],
            macs: vec!["hmac-sha2-256"],
            compression: vec!["none"],
            compression_back: None,
            guess: None,
            exchanges_keys: true,
        }
    }
}

/// The client.
pub struct Client {
    pub habits: Habits,
    /// Bytes for the server.
    pub wire: Vec<u8>,
    /// Bytes from the server, not understood yet.
    received: Vec<u8>,
    pub server_version: Option<Vec<u8>>,
    /// Payloads that the key exchange did not take.
    pub inbox: VecDeque<Vec<u8>>,
    sealer: Sealer,
    opener: Opener,
    pub send_sequence: u32,
    pub receive_sequence: u32,
    length: Option<usize>,
    our_kexinit: Option<Vec<u8>>,
    their_kexinit: Option<Vec<u8>>,
    secret: Option<(EphemeralPrivateKey, Vec<u8>)>,
    /// Keys for the other direction, until NEWKEYS.
    next_opener: Option<Opener>,
    pub session_id: Vec<u8>,
    strict_agreed: bool,
    /// Sending, receiving: whether compression was agreed on, and the stream once it began.
    compresses: (bool, bool),
    pub deflater: Option<Box<CompressorOxide>>,
    pub inflater: Option<Box<InflateState>>,
    authenticated: bool,
    /// Messages that wait for the exchange to end.
    held: VecDeque<Vec<u8>>,
    pub exchanges: usize,
    /// Every message number that came, in order.
    pub numbers: Vec<u8>,
    /// Gives up where it lost track, instead of failing the test: for input made by chance.
    pub gives_up: bool,
    lost: bool,
}

/// A client's state between two packets, to start many dialogues from.
#[derive(Debug, Clone)]
pub struct Snapshot {
    habits: Habits,
    sealer: Vec<u8>,
    opener: Vec<u8>,
    sequences: (u32, u32),
    server_version: Option<Vec<u8>>,
    session_id: Vec<u8>,
    strict_agreed: bool,
    compresses: (bool, bool),
}

impl Client {
    pub fn new(habits: Habits) -> Self {
        let mut wire = habits.version.as_bytes().to_vec();
        wire.extend_from_slice(b"\r\n");
        Self {
            habits,
            wire,
            received: Vec::new(),
            server_version: None,
            inbox: VecDeque::new(),
            sealer: Sealer::none(),
            opener: Opener::none(),
            send_sequence: 0,
            receive_sequence: 0,
            length: None,
            our_kexinit: None,
            their_kexinit: None,
            secret: None,
            next_opener: None,
            session_id: Vec::new(),
            strict_agreed: false,
            compresses: (false, false),
            deflater: None,
            inflater: None,
            authenticated: false,
            held: VecDeque::new(),
            exchanges: 0,
            numbers: Vec::new(),
            gives_up: false,
            lost: false,
        }
    }

    /// This client's keys and counters, with nothing under way.
    pub fn snapshot(&self) -> Snapshot {
        let (mut sealer, mut opener) = (Vec::new(), Vec::new());
        self.sealer.freeze(&mut sealer);
        self.opener.freeze(&mut opener);
        Snapshot {
            habits: self.habits.clone(),
            sealer,
            opener,
            sequences: (self.send_sequence, self.receive_sequence),
            server_version: self.server_version.clone(),
            session_id: self.session_id.clone(),
            strict_agreed: self.strict_agreed,
            compresses: self.compresses,
        }
    }

    /// A client that goes on from there.
    pub fn resume(snapshot: &Snapshot) -> Self {
        let mut client = Self::new(snapshot.habits.clone());
        client.wire.clear();
        client.sealer = Sealer::thaw(&snapshot.sealer).unwrap();
        client.opener = Opener::thaw(&snapshot.opener).unwrap();
        (client.send_sequence, client.receive_sequence) = snapshot.sequences;
        client.server_version.clone_from(&snapshot.server_version);
        client.session_id.clone_from(&snapshot.session_id);
        client.strict_agreed = snapshot.strict_agreed;
        client.compresses = snapshot.compresses;
        client
    }

    /// Takes what should be there; without it the client lost track.
    fn expect<T>(&mut self, thing: Option<T>, why: &str) -> Option<T> {
        if thing.is_none() {
            assert!(self.gives_up, "the client lost track: {why}");
            self.lost = true;
        }
        thing
    }

    /// Sends a message; waits where keys change.
    pub fn send(&mut self, payload: &[u8]) {
        let changing = self.our_kexinit.is_some();
        if changing && payload.first().is_some_and(|number| *number >= 50) {
            self.held.push_back(payload.to_vec());
        } else {
            self.send_now(payload);
        }
    }

    /// Sends a message at once, allowed or not.
    pub fn send_now(&mut self, payload: &[u8]) {
        let packet = self.packet(payload);
        self.wire.extend_from_slice(&packet);
    }

    /// A sealed packet with the least padding, compressed where that was agreed on; not sent.
    pub fn packet(&mut self, payload: &[u8]) -> Vec<u8> {
        let packed = match &mut self.deflater {
            Some(stream) => deflated(stream, payload),
            None => payload.to_vec(),
        };
        self.packet_as_is(&packed)
    }

    /// A sealed packet of these very bytes; not sent.
    pub fn packet_as_is(&mut self, payload: &[u8]) -> Vec<u8> {
        let block = self.sealer.block_bytes();
        let head = if self.sealer.length_is_padded() { 5 } else { 1 };
        let mut padding = block - (head + payload.len()) % block;
        if padding < 4 {
            padding += block;
        }
        let length = u32::try_from(1 + payload.len() + padding).unwrap();
        self.frame(length, u8::try_from(padding).unwrap(), payload, padding)
    }

    /// A sealed packet with these fields, true or not.
    pub fn frame(&mut self, length: u32, padding: u8, payload: &[u8], padded: usize) -> Vec<u8> {
        let mut packet = length.to_be_bytes().to_vec();
        packet.push(padding);
        packet.extend_from_slice(payload);
        packet.resize(packet.len() + padded, 0x55);
        let mut tag = vec![0; self.sealer.tag_bytes()];
        self.sealer.seal(self.send_sequence, &mut packet, &mut tag);
        self.send_sequence = self.send_sequence.wrapping_add(1);
        packet.extend_from_slice(&tag);
        packet
    }

    /// Takes bytes of the server's.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        if self.server_version.is_none() {
            let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") else {
                return;
            };
            self.server_version = Some(self.received[..end].to_vec());
            self.received.drain(..end + 2);
        }
        while let Some(payload) = self.next_payload() {
            self.numbers.push(payload[0]);
            if payload[0] == message::USERAUTH_SUCCESS {
                self.authenticated = true;
                self.start_deflating();
                self.start_inflating();
            }
            if !(self.habits.exchanges_keys && self.exchange_step(&payload)) {
                self.inbox.push_back(payload);
            }
        }
    }

    /// Bytes that came and are no packet (the refusal line).
    pub fn unparsed(&self) -> &[u8] {
        &self.received
    }

    fn next_payload(&mut self) -> Option<Vec<u8>> {
        if self.lost {
            return None;
        }
        let length = match self.length {
            Some(length) => length,
            None => {
                let head = self.received.get_mut(..self.opener.head_bytes())?;
                let length = self.opener.packet_length(self.receive_sequence, head) as usize;
                if length > 400_000 {
                    return None; // A plain line, not a packet.
                }
                self.length = Some(length);
                length
            }
        };
        let tag_bytes = self.opener.tag_bytes();
        if self.received.len() < 4 + length + tag_bytes {
            return None;
        }
        let mut packet: Vec<u8> = self.received.drain(..4 + length + tag_bytes).collect();
        let tag = packet.split_off(4 + length);
        let opened = self.opener.open(self.receive_sequence, &mut packet, &tag);
        self.expect(opened.ok(), "a packet of the server's has a bad tag")?;
        self.receive_sequence = self.receive_sequence.wrapping_add(1);
        self.length = None;
        let padding = usize::from(packet[4]);
        assert!(padding >= 4, "padding below RFC 4253's minimum");
        let payload = &packet[5..packet.len() - padding];
        match &mut self.inflater {
            Some(stream) => Some(inflated(stream, payload)),
            None => Some(payload.to_vec()),
        }
    }

    /// Starts an exchange.
    pub fn send_kexinit(&mut self) {
        let payload = self.kexinit();
        self.our_kexinit = Some(payload.clone());
        self.send_now(&payload);
        if let Some(guess) = self.habits.guess.clone() {
            self.send_now(&guess);
        }
    }

    /// Our KEXINIT.
    pub fn kexinit(&self) -> Vec<u8> {
        let habits = &self.habits;
        let list = |names: &[&'static str]| names.join(",");
        let mut kex = habits.kex.clone();
        if self.session_id.is_empty() {
            if habits.ext_info {
                kex.push("ext-info-c");
            }
            if habits.strict {
                kex.push("kex-strict-c-v00@openssh.com");
            }
        }
        let mut payload = vec![message::KEXINIT];
        payload.put_bytes(&[0x42; 16]);
        payload.put_string(list(&kex).as_bytes());
        payload.put_string(list(&habits.host_key).as_bytes());
        let back = habits.compression_back.as_ref();
        for (there, back) in [
            (&habits.ciphers, &habits.ciphers),
            (&habits.macs, &habits.macs),
            (&habits.compression, back.unwrap_or(&habits.compression)),
        ] {
            payload.put_string(list(there).as_bytes());
            payload.put_string(list(back).as_bytes());
        }
        payload.put_string(b"");
        payload.put_string(b"");
        payload.put_boolean(habits.guess.is_some());
        payload.put_u32(0);
        payload
    }

    /// Handles a message of the exchange; false: it is none.
    fn exchange_step(&mut self, payload: &[u8]) -> bool {
        match payload[0] {
            message::KEXINIT => {
                if self.our_kexinit.is_none() {
                    self.send_kexinit();
                }
                if self.session_id.is_empty() {
                    let marker = b"kex-strict-s-v00@openssh.com";
                    let offered = payload.windows(marker.len()).any(|window| window == marker);
                    self.strict_agreed = offered && self.habits.strict;
                }
                let zlib = b"zlib@openssh.com";
                let offered = payload.windows(zlib.len()).any(|window| window == zlib);
                let agreed = |names: &[&str]| offered && names[0].as_bytes() == zlib;
                let there = &self.habits.compression;
                let back = self.habits.compression_back.as_ref().unwrap_or(there);
                self.compresses = (agreed(there), agreed(back));
                self.their_kexinit = Some(payload.to_vec());
                self.send_public();
            }
            message::KEX_ECDH_REPLY => {
                let _ = self.on_reply(payload);
            }
            message::NEWKEYS => {
                let opener = self.next_opener.take();
                let Some(opener) = self.expect(opener, "NEWKEYS before the reply") else {
                    return true;
                };
                self.opener = opener;
                self.start_inflating();
                if self.strict_agreed {
                    self.receive_sequence = 0;
                }
                self.exchanges += 1;
            }
            _ => return false,
        }
        true
    }

    /// Curve and hash of the first method that we offer and can do.
    fn method(&self) -> (&'static Algorithm, Hash) {
        match self.habits.kex.last() {
            Some(&"ecdh-sha2-nistp256") => (&ECDH_P256, Hash::Sha256),
            Some(&"ecdh-sha2-nistp384") => (&ECDH_P384, Hash::Sha384),
            _ => (&X25519, Hash::Sha256),
        }
    }

    /// Sends our public value.
    pub fn send_public(&mut self) {
        let random = SystemRandom::new();
        let private = EphemeralPrivateKey::generate(self.method().0, &random).unwrap();
        let public = private.compute_public_key().unwrap().as_ref().to_vec();
        let mut payload = vec![message::KEX_ECDH_INIT];
        payload.put_string(&public);
        self.secret = Some((private, public));
        self.send_now(&payload);
    }

    fn on_reply(&mut self, payload: &[u8]) -> Option<()> {
        let mut reader = Reader::new(&payload[1..]);
        let host_key = reader.string("K_S").unwrap().to_vec();
        let server_public = reader.string("Q_S").unwrap().to_vec();
        assert_eq!(reader.string("signature"), Ok(&b"signature"[..]));
        let secret = self.secret.take();
        let (private, public) = self.expect(secret, "a reply to nothing")?;
        let ours = self.our_kexinit.take();
        let ours = self.expect(ours, "a reply before our KEXINIT")?;
        let theirs = self.their_kexinit.take();
        let theirs = self.expect(theirs, "a reply before their KEXINIT")?;
        let (curve, hash) = self.method();
        let peer = UnparsedPublicKey::new(curve, &server_public);
        let mut shared_secret = Vec::new();
        agree_ephemeral(private, &peer, |secret| shared_secret.put_mpint(secret)).unwrap();
        let exchange = frames::Exchange {
            kex: "curve25519-sha256".into(),
            host_key_algorithm: "ssh-ed25519".into(),
            client_version: self.habits.version.into(),
            client_kexinit: ours.into(),
            server_kexinit: theirs.into(),
            client_public: public.into(),
            server_public: server_public.into(),
            shared_secret: shared_secret.clone().into(),
        };
        let version = self.server_version.clone().unwrap_or_default();
        let h = hash.exchange(&exchange, &host_key, &version);
        if self.session_id.is_empty() {
            self.session_id.clone_from(&h);
        }
        self.send_now(&[message::NEWKEYS]);
        let cipher = Cipher::by_name(self.habits.ciphers[0].as_bytes()).unwrap();
        let mac = Mac::by_name(self.habits.macs[0].as_bytes()).filter(|_| !cipher.is_aead());
        let derive = |letter, len| hash.derive(&shared_secret, &h, letter, &self.session_id, len);
        let keys = |letters: [u8; 3]| {
            let mac_bytes = mac.map_or(0, Mac::key_bytes);
            (
                derive(letters[0], cipher.iv_bytes()),
                derive(letters[1], cipher.key_bytes()),
                derive(letters[2], mac_bytes),
            )
        };
        let (iv, key, mac_key) = keys(*b"ACE");
        let keys_out = DirectionKeys {
            iv: &iv,
            key: &key,
            mac_key: &mac_key,
        };
        self.sealer = Sealer::new(cipher, mac, &keys_out).unwrap();
        let (iv, key, mac_key) = keys(*b"BDF");
        let keys_in = DirectionKeys {
            iv: &iv,
            key: &key,
            mac_key: &mac_key,
        };
        self.next_opener = Some(Opener::new(cipher, mac, &keys_in).unwrap());
        self.start_deflating();
        if self.strict_agreed {
            self.send_sequence = 0;
        }
        for payload in std::mem::take(&mut self.held) {
            self.send_now(&payload);
        }
        Some(())
    }

    /// As OpenSSH's client does: delayed until SUCCESS came, then anew with each NEWKEYS.
    fn start_deflating(&mut self) {
        let begins = self.authenticated && self.compresses.0;
        // Level 6, with a zlib header.
        let flags = create_comp_flags_from_zip_params(6, 15, 0);
        self.deflater = begins.then(|| Box::new(CompressorOxide::new(flags)));
    }

    fn start_inflating(&mut self) {
        let begins = self.authenticated && self.compresses.1;
        self.inflater = begins.then(|| InflateState::new_boxed(DataFormat::Zlib));
    }

    /// Whether an exchange is under way on this side.
    pub fn is_changing_keys(&self) -> bool {
        self.our_kexinit.is_some() || self.next_opener.is_some()
    }

    /// Takes the oldest message that the exchange did not take.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        self.inbox.pop_front()
    }

    /// The DISCONNECT that came, as (reason, text).
    pub fn disconnect(&self) -> Option<(u32, String)> {
        let payload = self
            .inbox
            .iter()
            .find(|payload| payload[0] == message::DISCONNECT)?;
        let mut reader = Reader::new(&payload[1..]);
        let reason = reader.u32("reason").unwrap();
        let text = reader.string("text").unwrap();
        Some((reason, String::from_utf8(text.to_vec()).unwrap()))
    }
}

/// The next part of a stream.
pub fn deflated(stream: &mut CompressorOxide, payload: &[u8]) -> Vec<u8> {
    let mut packed = vec![0; payload.len() + payload.len() / 10 + 1000];
    let step = deflate(stream, payload, &mut packed, MZFlush::Sync);
    assert_eq!(step.bytes_consumed, payload.len());
    packed.truncate(step.bytes_written);
    packed
}

fn inflated(stream: &mut InflateState, packed: &[u8]) -> Vec<u8> {
    let mut payload = vec![0; 1 << 20];
    let (mut taken, mut len) = (0, 0);
    loop {
        let step = inflate(stream, &packed[taken..], &mut payload[len..], MZFlush::None);
        taken += step.bytes_consumed;
        len += step.bytes_written;
        if step.bytes_consumed + step.bytes_written == 0 {
            assert_eq!(
                taken,
                packed.len(),
                "the server's stream is damaged: {step:?}"
            );
            payload.truncate(len);
            return payload;
        }
    }
}
