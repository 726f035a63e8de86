//! Packet protection: ciphers and MACs as SSH combines them, in place.

use super::CryptoError;

/// A cipher by its SSH name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    ChaCha20Poly1305,
    Aes128Gcm,
    Aes256Gcm,
    Aes128Ctr,
    Aes192Ctr,
    Aes256Ctr,
}

/// A MAC by its SSH name; `etm`: encrypt-then-MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mac {
    HmacSha256 { etm: bool },
    HmacSha512 { etm: bool },
}

/// Key material for one direction (RFC 4253 section 7.2), of the lengths that the cipher and the MAC ask for.
#[derive(Debug)]
pub struct DirectionKeys<'a> {
    pub key: &'a [u8],
    pub iv: &'a [u8],
    pub mac_key: &'a [u8],
}

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl Cipher {
    pub fn by_name(name: &[u8]) -> Option<Self> { todo!() }
    pub fn name(self) -> &'static str { todo!() }
    pub fn key_bytes(self) -> usize { todo!() }
    pub fn iv_bytes(self) -> usize { todo!() }
    /// 8 for chacha20-poly1305, 16 for AES.
    pub fn block_bytes(self) -> usize { todo!() }
    /// AEAD ciphers ignore the negotiated MAC.
    pub fn is_aead(self) -> bool { todo!() }
}

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl Mac {
    pub fn by_name(name: &[u8]) -> Option<Self> { todo!() }
    pub fn name(self) -> &'static str { todo!() }
    pub fn key_bytes(self) -> usize { todo!() }
    pub fn tag_bytes(self) -> usize { todo!() }
}

/// Protects outgoing packets.
#[derive(Debug)]
pub struct Sealer(());

/// Opens incoming packets.
#[derive(Debug)]
pub struct Opener(());

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl Sealer {
    /// No protection: before the first NEWKEYS.
    pub fn none() -> Self { todo!() }
    pub fn new(cipher: Cipher, mac: Option<Mac>, keys: &DirectionKeys<'_>) -> Result<Self, CryptoError> { todo!() }
    /// The padded part is a multiple of this; at least 8.
    pub fn block_bytes(&self) -> usize { todo!() }
    /// Whether the 4 length bytes count as padded part (they do not for AEAD and EtM).
    pub fn length_is_padded(&self) -> bool { todo!() }
    pub fn tag_bytes(&self) -> usize { todo!() }
    /// `packet`: length, padding length, payload, padding; protected in place. `tag`: [`Self::tag_bytes`] bytes.
    pub fn seal(&mut self, sequence: u32, packet: &mut [u8], tag: &mut [u8]) { todo!() }
    /// State for `Core::freeze`, secret.
    pub fn freeze(&self, out: &mut Vec<u8>) { todo!() }
    pub fn thaw(state: &[u8]) -> Result<Self, CryptoError> { todo!() }
}

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl Opener {
    pub fn none() -> Self { todo!() }
    pub fn new(cipher: Cipher, mac: Option<Mac>, keys: &DirectionKeys<'_>) -> Result<Self, CryptoError> { todo!() }
    pub fn block_bytes(&self) -> usize { todo!() }
    pub fn length_is_padded(&self) -> bool { todo!() }
    pub fn tag_bytes(&self) -> usize { todo!() }
    /// Bytes of a packet that must be there before [`Self::packet_length`] can tell its length: 4, or one
    /// block where the length is encrypted with the rest (encrypt-and-MAC).
    pub fn head_bytes(&self) -> usize { todo!() }
    /// The packet_length field. May decrypt the head in place; call once a packet.
    pub fn packet_length(&mut self, sequence: u32, head: &mut [u8]) -> u32 { todo!() }
    /// `packet`: the whole packet, head included, without the tag; opened in place, after the tag was
    /// compared in constant time (before decryption, except encrypt-and-MAC).
    pub fn open(&mut self, sequence: u32, packet: &mut [u8], tag: &[u8]) -> Result<(), CryptoError> { todo!() }
    pub fn freeze(&self, out: &mut Vec<u8>) { todo!() }
    pub fn thaw(state: &[u8]) -> Result<Self, CryptoError> { todo!() }
}
