//! Packet protection: ciphers and MACs as SSH combines them, in place.
//!
//! Sources: RFC 4253 section 6, RFC 4344 (counter mode), RFC 5647 with OpenSSH's names (GCM),
//! RFC 6668 (HMAC), OpenSSH's PROTOCOL section 1.7 (encrypt-then-MAC) and
//! draft-ietf-sshm-chacha20-poly1305.

use agent_primitives::{AesCounter, ChaChaPoly};
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::CryptoError;
pub use super::suite::{Cipher, Mac};
use crate::ssh::wire::{Reader, Writer};

/// Key material for one direction (RFC 4253 section 7.2), of the lengths that the cipher and the
/// MAC ask for.
pub struct DirectionKeys<'a> {
    pub key: &'a [u8],
    pub iv: &'a [u8],
    pub mac_key: &'a [u8],
}

impl std::fmt::Debug for DirectionKeys<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("DirectionKeys")
    }
}

/// Protects outgoing packets.
#[derive(Debug)]
pub struct Sealer(Protection);

/// Opens incoming packets.
#[derive(Debug)]
pub struct Opener {
    protection: Protection,
    /// Of the packet at hand, where the length travels encrypted.
    length: [u8; LENGTH_BYTES],
}

impl Sealer {
    /// No protection: before the first NEWKEYS.
    pub fn none() -> Self {
        Self(Protection::none())
    }

    pub fn new(
        cipher: Cipher,
        mac: Option<Mac>,
        keys: &DirectionKeys<'_>,
    ) -> Result<Self, CryptoError> {
        Protection::new(cipher, mac, keys).map(Self)
    }

    /// The padded part is a multiple of this; at least 8.
    pub fn block_bytes(&self) -> usize {
        self.0.block_bytes()
    }

    /// Whether the 4 length bytes count as padded part (they do not for AEAD and EtM).
    pub fn length_is_padded(&self) -> bool {
        self.0.length_is_padded()
    }

    pub fn tag_bytes(&self) -> usize {
        self.0.tag_bytes()
    }

    /// `packet`: length, padding length, payload, padding; protected in place. `tag`:
    /// [`Self::tag_bytes`] bytes.
    ///
    /// # Panics
    /// When `packet` or `tag` has a size that the padding rule excludes: anything else would send
    /// clear bytes.
    pub fn seal(&mut self, sequence: u32, packet: &mut [u8], tag: &mut [u8]) {
        assert_eq!(
            tag.len(),
            self.tag_bytes(),
            "invariant: the tag has the cipher's size"
        );
        match &mut self.0.engine {
            Engine::None => {}
            Engine::ChaChaPoly(keys) => {
                let mut whole = [0; AEAD_TAG_BYTES];
                keys.seal(sequence, packet, &mut whole);
                tag.copy_from_slice(&whole);
            }
            Engine::Gcm { key, nonce } => {
                let (length, body) = packet.split_at_mut(LENGTH_BYTES);
                let made = key
                    .seal_in_place_separate_tag(nonce.next(), Aad::from(length), body)
                    .expect("invariant: a packet is shorter than GCM's limit of 64 GiB");
                tag.copy_from_slice(made.as_ref());
            }
            Engine::Counter {
                stream,
                key,
                etm: true,
            } => {
                let (length, body) = packet.split_at_mut(LENGTH_BYTES);
                let mut mac = authenticate(key, sequence, length);
                for chunk in body.chunks_mut(CHUNK_BYTES) {
                    stream.apply(chunk);
                    mac.update(chunk);
                }
                tag.copy_from_slice(mac.sign().as_ref());
            }
            Engine::Counter {
                stream,
                key,
                etm: false,
            } => {
                let mut mac = authenticate(key, sequence, &[]);
                for chunk in packet.chunks_mut(CHUNK_BYTES) {
                    mac.update(chunk);
                    stream.apply(chunk);
                }
                tag.copy_from_slice(mac.sign().as_ref());
            }
        }
    }

    /// State for `Core::freeze`, secret.
    pub fn freeze(&self, out: &mut Vec<u8>) {
        self.0.freeze(out);
    }

    /// Takes exactly what [`Self::freeze`] wrote.
    pub fn thaw(state: &[u8]) -> Result<Self, CryptoError> {
        Protection::thaw(state).map(Self)
    }
}

impl Opener {
    /// No protection: before the first NEWKEYS.
    pub fn none() -> Self {
        Self {
            protection: Protection::none(),
            length: [0; LENGTH_BYTES],
        }
    }

    pub fn new(
        cipher: Cipher,
        mac: Option<Mac>,
        keys: &DirectionKeys<'_>,
    ) -> Result<Self, CryptoError> {
        let protection = Protection::new(cipher, mac, keys)?;
        Ok(Self {
            protection,
            length: [0; LENGTH_BYTES],
        })
    }

    /// The padded part is a multiple of this; at least 8.
    pub fn block_bytes(&self) -> usize {
        self.protection.block_bytes()
    }

    /// Whether the 4 length bytes count as padded part (they do not for AEAD and EtM).
    pub fn length_is_padded(&self) -> bool {
        self.protection.length_is_padded()
    }

    pub fn tag_bytes(&self) -> usize {
        self.protection.tag_bytes()
    }

    /// Bytes of a packet that must be there before [`Self::packet_length`] can tell its length: 4,
    /// or one block where the length is encrypted with the rest (encrypt-and-MAC).
    pub fn head_bytes(&self) -> usize {
        match self.protection.engine {
            Engine::Counter { etm: false, .. } => AES_BLOCK_BYTES,
            _ => LENGTH_BYTES,
        }
    }

    /// The packet_length field of `head`, [`Self::head_bytes`] bytes. May decrypt the head in
    /// place; call once a packet.
    ///
    /// Nothing has proved the length yet. With encrypt-and-MAC, where the head is longer than the
    /// field, an impossible length must not be told apart from a wrong tag: take the largest
    /// packet there can be instead, wait for it, and let [`Self::open`] refuse it.
    ///
    /// # Panics
    /// When `head` has another size.
    pub fn packet_length(&mut self, sequence: u32, head: &mut [u8]) -> u32 {
        assert_eq!(
            head.len(),
            self.head_bytes(),
            "invariant: the head has the cipher's size"
        );
        self.length.copy_from_slice(&head[..LENGTH_BYTES]);
        match &mut self.protection.engine {
            Engine::ChaChaPoly(keys) => self.length = keys.length(sequence, self.length),
            Engine::Counter {
                stream, etm: false, ..
            } => {
                stream.apply(head);
                self.length.copy_from_slice(&head[..LENGTH_BYTES]);
            }
            Engine::None | Engine::Gcm { .. } | Engine::Counter { etm: true, .. } => {}
        }
        u32::from_be_bytes(self.length)
    }

    /// `packet`: the whole packet, head included, without the tag; opened in place, after the tag
    /// was compared in constant time (before decryption, except encrypt-and-MAC).
    ///
    /// After an error the packet's bytes are worthless, and so is the connection.
    pub fn open(
        &mut self,
        sequence: u32,
        packet: &mut [u8],
        tag: &[u8],
    ) -> Result<(), CryptoError> {
        let head_bytes = self.head_bytes();
        let Some((head, body)) = packet.split_at_mut_checked(head_bytes) else {
            return Err(CryptoError::Malformed);
        };
        if tag.len() != self.tag_bytes() {
            return Err(CryptoError::Malformed);
        }
        match &mut self.protection.engine {
            Engine::None => Ok(()),
            Engine::ChaChaPoly(keys) => {
                let tag = tag.try_into().map_err(|_| CryptoError::Malformed)?;
                keys.open(sequence, packet, tag)
                    .map_err(|_| CryptoError::Mismatch)?;
                packet[..LENGTH_BYTES].copy_from_slice(&self.length);
                Ok(())
            }
            Engine::Gcm { key, nonce } => {
                let tag = tag.try_into().map_err(|_| CryptoError::Malformed)?;
                key.open_in_place_separate_tag(nonce.next(), Aad::from(head), tag, body, 0..)
                    .map(drop)
                    .map_err(|_| CryptoError::Mismatch)
            }
            Engine::Counter { stream, key, etm } => {
                if body.len() % AES_BLOCK_BYTES != 0 {
                    return Err(CryptoError::Malformed);
                }
                let mut mac = authenticate(key, sequence, head);
                if *etm {
                    mac.update(body);
                    compare(&mac.sign(), tag)?;
                    stream.apply(body);
                    return Ok(());
                }
                for chunk in body.chunks_mut(CHUNK_BYTES) {
                    stream.apply(chunk);
                    mac.update(chunk);
                }
                compare(&mac.sign(), tag)
            }
        }
    }

    /// State for `Core::freeze`, secret. Between two packets only.
    pub fn freeze(&self, out: &mut Vec<u8>) {
        self.protection.freeze(out);
    }

    /// Takes exactly what [`Self::freeze`] wrote.
    pub fn thaw(state: &[u8]) -> Result<Self, CryptoError> {
        Ok(Self {
            protection: Protection::thaw(state)?,
            length: [0; LENGTH_BYTES],
        })
    }
}

/// What both directions share.
struct Protection {
    suite: Option<(Cipher, Option<Mac>)>,
    /// As it came, for freezing: the primitives do not give keys back.
    key: Zeroizing<Vec<u8>>,
    mac_key: Zeroizing<Vec<u8>>,
    engine: Engine,
}

enum Engine {
    None,
    ChaChaPoly(ChaChaPoly),
    Gcm {
        key: LessSafeKey,
        nonce: GcmNonce,
    },
    Counter {
        stream: AesCounter,
        key: hmac::Key,
        etm: bool,
    },
}

impl Protection {
    fn none() -> Self {
        let (key, mac_key) = (Zeroizing::default(), Zeroizing::default());
        Self {
            suite: None,
            key,
            mac_key,
            engine: Engine::None,
        }
    }

    fn new(
        cipher: Cipher,
        mac: Option<Mac>,
        keys: &DirectionKeys<'_>,
    ) -> Result<Self, CryptoError> {
        let mac = mac.filter(|_| !cipher.is_aead());
        if keys.key.len() != cipher.key_bytes() || keys.iv.len() != cipher.iv_bytes() {
            return Err(CryptoError::Malformed);
        }
        if let Some(mac) = mac
            && keys.mac_key.len() != mac.key_bytes()
        {
            return Err(CryptoError::Malformed);
        }
        let mac_key = if mac.is_some() {
            keys.mac_key.to_vec()
        } else {
            Vec::new()
        };
        Ok(Self {
            suite: Some((cipher, mac)),
            key: Zeroizing::new(keys.key.to_vec()),
            mac_key: Zeroizing::new(mac_key),
            engine: Engine::new(cipher, mac, keys)?,
        })
    }

    fn block_bytes(&self) -> usize {
        self.suite.map_or(8, |(cipher, _)| cipher.block_bytes())
    }

    fn length_is_padded(&self) -> bool {
        matches!(
            self.engine,
            Engine::None | Engine::Counter { etm: false, .. }
        )
    }

    fn tag_bytes(&self) -> usize {
        match self.suite {
            None => 0,
            Some((_, Some(mac))) => mac.tag_bytes(),
            Some((_, None)) => AEAD_TAG_BYTES,
        }
    }

    fn freeze(&self, out: &mut Vec<u8>) {
        let (cipher, mac) = match self.suite {
            None => ("", ""),
            Some((cipher, mac)) => (cipher.name(), mac.map_or("", Mac::name)),
        };
        // Grown at once, so that no copy of a key stays behind in a smaller buffer.
        out.reserve(FROZEN_BYTES_MAX);
        out.put_string(cipher.as_bytes());
        out.put_string(mac.as_bytes());
        out.put_string(&self.key);
        match &self.engine {
            Engine::None | Engine::ChaChaPoly(_) => out.put_string(&[]),
            Engine::Gcm { nonce, .. } => out.put_string(&nonce.0),
            Engine::Counter { stream, .. } => out.put_string(&stream.position()),
        }
        out.put_string(&self.mac_key);
    }

    fn thaw(state: &[u8]) -> Result<Self, CryptoError> {
        let mut reader = Reader::new(state);
        let mut field = || {
            reader
                .string("frozen keys")
                .map_err(|_| CryptoError::Malformed)
        };
        let (cipher, mac) = (field()?, field()?);
        let keys = DirectionKeys {
            key: field()?,
            iv: field()?,
            mac_key: field()?,
        };
        if !reader.is_empty() {
            return Err(CryptoError::Malformed);
        }
        if cipher.is_empty() {
            let nothing = [mac, keys.key, keys.iv, keys.mac_key]
                .iter()
                .all(|part| part.is_empty());
            return if nothing {
                Ok(Self::none())
            } else {
                Err(CryptoError::Malformed)
            };
        }
        let cipher = Cipher::by_name(cipher).ok_or(CryptoError::Unsupported)?;
        let mac = match mac {
            [] => None,
            name => Some(Mac::by_name(name).ok_or(CryptoError::Unsupported)?),
        };
        if cipher.is_aead() && (mac.is_some() || !keys.mac_key.is_empty()) {
            return Err(CryptoError::Malformed);
        }
        Self::new(cipher, mac, &keys)
    }
}

impl std::fmt::Debug for Protection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.suite.fmt(formatter)
    }
}

impl Engine {
    fn new(
        cipher: Cipher,
        mac: Option<Mac>,
        keys: &DirectionKeys<'_>,
    ) -> Result<Self, CryptoError> {
        let algorithm = match cipher {
            Cipher::ChaCha20Poly1305 => {
                let key = keys.key.try_into().map_err(|_| CryptoError::Malformed)?;
                return Ok(Self::ChaChaPoly(ChaChaPoly::new(key)));
            }
            Cipher::Aes128Gcm => &AES_128_GCM,
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::Aes128Ctr | Cipher::Aes192Ctr | Cipher::Aes256Ctr => {
                // Counter mode without a MAC would let anybody change what is sent.
                let mac = mac.ok_or(CryptoError::Unsupported)?;
                let iv = keys.iv.try_into().map_err(|_| CryptoError::Malformed)?;
                let stream = AesCounter::new(keys.key, iv).map_err(|_| CryptoError::Malformed)?;
                let key = hmac::Key::new(mac.algorithm(), keys.mac_key);
                return Ok(Self::Counter {
                    stream,
                    key,
                    etm: mac.is_etm(),
                });
            }
        };
        let key = UnboundKey::new(algorithm, keys.key).map_err(|_| CryptoError::Malformed)?;
        let nonce = keys.iv.try_into().map_err(|_| CryptoError::Malformed)?;
        Ok(Self::Gcm {
            key: LessSafeKey::new(key),
            nonce: GcmNonce(nonce),
        })
    }
}

/// Four fixed bytes and the invocation counter (RFC 5647 section 7.1).
struct GcmNonce([u8; 12]);

impl GcmNonce {
    /// The nonce of this packet; moves on to the next. The counter wraps only after 2^64 packets,
    /// and keys are exchanged anew long before.
    fn next(&mut self) -> Nonce {
        let nonce = Nonce::assume_unique_for_key(self.0);
        for byte in self.0[4..].iter_mut().rev() {
            *byte = byte.wrapping_add(1);
            if *byte != 0 {
                break;
            }
        }
        nonce
    }
}

/// An HMAC over the sequence number and `start` of the packet, to be continued.
fn authenticate(key: &hmac::Key, sequence: u32, start: &[u8]) -> hmac::Context {
    let mut mac = hmac::Context::with_key(key);
    mac.update(&sequence.to_be_bytes());
    mac.update(start);
    mac
}

fn compare(computed: &hmac::Tag, received: &[u8]) -> Result<(), CryptoError> {
    if computed.as_ref().ct_eq(received).into() {
        Ok(())
    } else {
        Err(CryptoError::Mismatch)
    }
}

/// The packet_length field.
const LENGTH_BYTES: usize = 4;
const AES_BLOCK_BYTES: usize = 16;
/// Both AEAD families.
const AEAD_TAG_BYTES: usize = 16;
/// Counter mode and HMAC take turns on pieces that stay in the first-level cache, next to the rest
/// of the packet that is streaming through.
const CHUNK_BYTES: usize = 4096;
/// Five strings: names of at most 32 bytes, keys of at most 64.
const FROZEN_BYTES_MAX: usize = 5 * 4 + 2 * 32 + 3 * 64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Every combination that can be negotiated.
    fn suites() -> Vec<(Cipher, Option<Mac>)> {
        let mut suites = Vec::new();
        for cipher in Cipher::ALL {
            if cipher.is_aead() {
                suites.push((cipher, None));
            } else {
                suites.extend(Mac::ALL.map(|mac| (cipher, Some(mac))));
            }
        }
        suites
    }

    fn pair((cipher, mac): (Cipher, Option<Mac>)) -> (Sealer, Opener) {
        let bytes: Vec<u8> = (1..=200).collect();
        let keys = DirectionKeys {
            key: &bytes[..cipher.key_bytes()],
            iv: &bytes[100..100 + cipher.iv_bytes()],
            mac_key: &bytes[..mac.map_or(0, Mac::key_bytes)],
        };
        (
            Sealer::new(cipher, mac, &keys).unwrap(),
            Opener::new(cipher, mac, &keys).unwrap(),
        )
    }

    /// A packet of at least `body` bytes behind its length, padded as `sealer` wants it.
    fn packet(sealer: &Sealer, body: usize) -> Vec<u8> {
        let clear = if sealer.length_is_padded() { 4 } else { 0 };
        let body = (body + clear).next_multiple_of(sealer.block_bytes()) - clear;
        let mut packet = u32::try_from(body).unwrap().to_be_bytes().to_vec();
        packet.extend((0..body).map(|index| u8::try_from(index % 251).unwrap()));
        packet
    }

    fn open(opener: &mut Opener, sequence: u32, sealed: &mut [u8], tag: &[u8]) -> Option<u32> {
        let head = opener.head_bytes();
        let length = opener.packet_length(sequence, &mut sealed[..head]);
        opener.open(sequence, sealed, tag).ok().map(|()| length)
    }

    #[test]
    fn what_one_side_seals_the_other_opens() {
        for suite in suites() {
            let (mut sealer, mut opener) = pair(suite);
            for (sequence, body) in [12, 40, 1000, 4096, 4100, 32_768, 200_000]
                .iter()
                .enumerate()
            {
                let sequence = u32::try_from(sequence).unwrap();
                let clear = packet(&sealer, *body);
                let (mut sealed, mut tag) = (clear.clone(), vec![0; sealer.tag_bytes()]);
                sealer.seal(sequence, &mut sealed, &mut tag);
                assert_ne!(sealed[4..], clear[4..], "{suite:?}");
                let length = open(&mut opener, sequence, &mut sealed, &tag);
                assert_eq!(
                    length,
                    Some(u32::try_from(clear.len() - 4).unwrap()),
                    "{suite:?}"
                );
                assert_eq!(sealed, clear, "{suite:?}");
            }
        }
    }

    #[test]
    fn every_changed_bit_of_packet_tag_and_sequence_number_is_refused() {
        for suite in suites() {
            let (mut sealer, _) = pair(suite);
            let clear = packet(&sealer, 28);
            let (mut sealed, mut tag) = (clear.clone(), vec![0; sealer.tag_bytes()]);
            sealer.seal(7, &mut sealed, &mut tag);
            let whole = [&sealed[..], &tag[..]].concat();
            for bit in 0..whole.len() * 8 {
                let mut changed = whole.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let (packet, tag) = changed.split_at_mut(clear.len());
                assert_eq!(
                    open(&mut pair(suite).1, 7, packet, tag),
                    None,
                    "{suite:?} bit {bit}"
                );
            }
            let (mut first, mut second) = (sealed.clone(), sealed.clone());
            if !matches!(suite.0, Cipher::Aes128Gcm | Cipher::Aes256Gcm) {
                assert_eq!(
                    open(&mut pair(suite).1, 8, &mut first, &tag),
                    None,
                    "{suite:?}"
                );
            }
            // A replayed packet.
            let (_, mut opener) = pair(suite);
            assert!(open(&mut opener, 7, &mut second, &tag).is_some());
            assert_eq!(open(&mut opener, 8, &mut sealed, &tag), None, "{suite:?}");
        }
    }

    #[test]
    fn a_refused_packet_is_not_decrypted_where_the_tag_covers_the_ciphertext() {
        for suite in suites() {
            let (mut sealer, mut opener) = pair(suite);
            if opener.head_bytes() > 4 {
                continue;
            }
            let mut sealed = packet(&sealer, 60);
            let mut tag = vec![0; sealer.tag_bytes()];
            sealer.seal(0, &mut sealed, &mut tag);
            tag[0] ^= 1;
            let before = sealed.clone();
            assert_eq!(open(&mut opener, 0, &mut sealed, &tag), None);
            if suite.0.is_aead() && suite.0 != Cipher::ChaCha20Poly1305 {
                // ring decrypts GCM while it computes the tag and clears what it had on failure.
                assert_ne!(sealed, packet(&sealer, 60));
            } else {
                assert_eq!(sealed, before, "{suite:?}");
            }
        }
    }

    #[test]
    fn wrong_sizes_are_errors() {
        for suite in suites() {
            let (_, mut opener) = pair(suite);
            let tag = vec![0; opener.tag_bytes()];
            for len in 0..opener.head_bytes() {
                let refused = opener.open(0, &mut vec![0; len], &tag);
                assert_eq!(refused, Err(CryptoError::Malformed), "{suite:?}");
            }
            for len in (0..100).filter(|len| *len != tag.len()) {
                let refused = opener.open(0, &mut [0; 36], &vec![0; len]);
                assert_eq!(refused, Err(CryptoError::Malformed), "{suite:?}");
            }
            assert!(opener.open(0, &mut [0; 37], &tag).is_err());
            let key = vec![1; suite.0.key_bytes()];
            let iv = vec![1; suite.0.iv_bytes()];
            let mac_key = vec![1; suite.1.map_or(0, Mac::key_bytes)];
            for (keys, part) in [
                (
                    DirectionKeys {
                        key: &key[1..],
                        iv: &iv,
                        mac_key: &mac_key,
                    },
                    true,
                ),
                (
                    DirectionKeys {
                        key: &key,
                        iv: iv.get(1..).unwrap_or(&[1]),
                        mac_key: &mac_key,
                    },
                    true,
                ),
                (
                    DirectionKeys {
                        key: &key,
                        iv: &iv,
                        mac_key: &[],
                    },
                    suite.1.is_some(),
                ),
            ] {
                assert_eq!(
                    Sealer::new(suite.0, suite.1, &keys).is_err(),
                    part,
                    "{suite:?}"
                );
            }
        }
        let keys = DirectionKeys {
            key: &[1; 16],
            iv: &[1; 16],
            mac_key: &[],
        };
        assert_eq!(
            Sealer::new(Cipher::Aes128Ctr, None, &keys).err(),
            Some(CryptoError::Unsupported)
        );
    }

    #[test]
    fn a_thawed_direction_goes_on_where_the_frozen_one_was() {
        let mut directions = suites();
        directions.push((Cipher::Aes128Gcm, Some(Mac::HmacSha256 { etm: true })));
        for suite in directions {
            let (mut sealer, mut opener) = pair(suite);
            for sequence in 0..5 {
                let clear = packet(&sealer, 300);
                let (mut sealed, mut tag) = (clear.clone(), vec![0; sealer.tag_bytes()]);
                sealer.seal(sequence, &mut sealed, &mut tag);
                assert!(open(&mut opener, sequence, &mut sealed, &tag).is_some());
                assert_eq!(sealed, clear);
                let (mut left, mut right) = (Vec::new(), Vec::new());
                sealer.freeze(&mut left);
                opener.freeze(&mut right);
                assert_eq!(left, right, "both directions of one key agree");
                assert!(left.len() <= FROZEN_BYTES_MAX);
                (sealer, opener) = (Sealer::thaw(&left).unwrap(), Opener::thaw(&right).unwrap());
            }
        }
    }

    #[test]
    fn no_protection_changes_nothing_and_freezes_too() {
        let (mut sealer, mut opener) = (Sealer::none(), Opener::none());
        let clear = packet(&sealer, 20);
        let mut bytes = clear.clone();
        sealer.seal(0, &mut bytes, &mut []);
        assert_eq!(open(&mut opener, 0, &mut bytes, &[]), Some(20));
        assert_eq!(bytes, clear);
        assert!(sealer.length_is_padded());
        assert_eq!(
            (
                sealer.block_bytes(),
                sealer.tag_bytes(),
                opener.head_bytes()
            ),
            (8, 0, 4)
        );
        let mut state = Vec::new();
        sealer.freeze(&mut state);
        assert_eq!(Opener::thaw(&state).unwrap().tag_bytes(), 0);
    }

    #[test]
    fn damaged_frozen_state_is_an_error() {
        for suite in suites() {
            let (sealer, _) = pair(suite);
            let mut state = Vec::new();
            sealer.freeze(&mut state);
            for len in 0..state.len() {
                assert!(Sealer::thaw(&state[..len]).is_err(), "{suite:?} {len}");
            }
            assert!(Opener::thaw(&[&state[..], &[0]].concat()).is_err());
            for index in 0..state.len() {
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut changed = state.clone();
                    changed[index] = value;
                    let _ = Opener::thaw(&changed);
                }
            }
        }
    }

    #[test]
    fn the_gcm_counter_carries_and_leaves_the_fixed_part_alone() {
        let mut nonce = GcmNonce([9, 9, 9, 9, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        nonce.next();
        assert_eq!(nonce.0, [9, 9, 9, 9, 0, 0, 0, 0, 0, 1, 0, 0]);
        let mut nonce = GcmNonce([0xff; 12]);
        nonce.next();
        assert_eq!(nonce.0, [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
}
