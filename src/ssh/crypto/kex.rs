//! Key exchange methods, server side: one answer to one public value.

use super::hash::Hash;
use super::{CryptoError, Random};
use zeroize::Zeroizing;

/// A method by its SSH name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kex {
    MlKem768X25519,
    #[cfg(feature = "sntrup761")]
    Sntrup761X25519,
    Curve25519,
    EcdhNistp256,
    EcdhNistp384,
}

/// What the server's side of an exchange yields.
#[derive(Debug)]
pub struct Answer {
    /// Q_S, sent to the client.
    pub server_public: Vec<u8>,
    /// K as it enters hash and key derivation: an mpint or a string, its length included.
    pub shared_secret: Zeroizing<Vec<u8>>,
}

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl Kex {
    /// Both spellings of the methods that have two.
    pub fn by_name(name: &[u8]) -> Option<Self> { todo!() }
    /// All names served by this build, in OpenSSH's order.
    pub fn names() -> &'static [&'static str] { todo!() }
    pub fn hash(self) -> Hash { todo!() }
    /// Answers Q_C. Every malformed, low-order or off-curve value is an error.
    pub fn respond(self, client_public: &[u8], random: &Random) -> Result<Answer, CryptoError> { todo!() }
}
