//! Hashes of the key exchange and what is derived from them (RFC 4253 sections 7.2 and 8).

use crate::frames::Exchange;
use zeroize::Zeroizing;

/// The hash of a key exchange method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl Hash {
    pub fn digest(self, data: &[u8]) -> Vec<u8> { todo!() }
    /// H of the exchange; `host_key` is K_S, `server_version` V_S. `exchange.shared_secret` enters as it is.
    pub fn exchange(self, exchange: &Exchange, host_key: &[u8], server_version: &[u8]) -> Vec<u8> { todo!() }
    /// RFC 4253 section 7.2: `letter` is A to F, `shared_secret` encoded as in the hash.
    pub fn derive(self, shared_secret: &[u8], h: &[u8], letter: u8, session_id: &[u8], len: usize) -> Zeroizing<Vec<u8>> { todo!() }
}
