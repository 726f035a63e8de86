//! Host keys: reading, making, writing and signing.

use super::public_key::{KeyType, PublicKey};
use super::{CryptoError, Random};
use zeroize::Zeroizing;

/// A private key in memory; zeroized on drop as far as it is ours (ring keeps its own copy).
#[derive(Debug)]
pub struct PrivateKey(());

/// Why a key file gave no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFileError {
    /// Nothing in it.
    Empty,
    /// Neither OpenSSH's format nor PEM.
    NotAKey,
    /// Encrypted: a server cannot ask for a passphrase.
    Encrypted,
    /// A type that is not served here.
    Unsupported,
    /// Damaged.
    Malformed,
}

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl PrivateKey {
    /// Parses OpenSSH's format (PROTOCOL.key), PKCS#1 "RSA PRIVATE KEY", SEC1 "EC PRIVATE KEY" and PKCS#8.
    pub fn from_file(text: &[u8]) -> Result<Self, KeyFileError> { todo!() }
    /// Makes a key: Ed25519, ECDSA P-256 or P-384. RSA is unsupported (no safe generator at hand).
    pub fn generate(key_type: KeyType, random: &Random) -> Result<Self, CryptoError> { todo!() }
    /// OpenSSH's private key format, unencrypted.
    pub fn to_file(&self, comment: &str, random: &Random) -> Zeroizing<Vec<u8>> { todo!() }
    pub fn public(&self) -> &PublicKey { todo!() }
    /// A signature blob over `data` with `algorithm` (one of the type's).
    pub fn sign(&self, algorithm: &[u8], data: &[u8], random: &Random) -> Result<Vec<u8>, CryptoError> { todo!() }
}
