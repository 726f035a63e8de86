//! Public keys of users and hosts: blobs, names, signatures over data.

use super::CryptoError;

/// A key type by the name in its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    Ed25519,
    EcdsaP256,
    EcdsaP384,
    Rsa,
}

/// A parsed public key blob (RFC 4253 section 6.6, RFC 5656, RFC 8709).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The type named in the blob.
    pub key_type: KeyType,
    /// The whole blob.
    pub blob: Vec<u8>,
}

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl PublicKey {
    /// Parses a blob exactly: type, sizes, points, RSA 1024 to 8192 bits (the policy's minimum is the caller's).
    pub fn from_blob(blob: &[u8]) -> Result<Self, CryptoError> { todo!() }
    /// Size in bits, for RequiredRSASize and log lines.
    pub fn bits(&self) -> u32 { todo!() }
    /// Verifies a signature blob (string algorithm, string signature) made with `algorithm`; the
    /// algorithm named in the blob must be the same and fit the key. SHA-1 `ssh-rsa` is unsupported.
    pub fn verify(&self, algorithm: &[u8], data: &[u8], signature: &[u8]) -> Result<(), CryptoError> { todo!() }
    /// `SHA256:` and unpadded base64, as OpenSSH prints it.
    pub fn fingerprint(&self) -> String { todo!() }
}

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl KeyType {
    /// As in the blob and in key files: `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa` …
    pub fn name(self) -> &'static str { todo!() }
    pub fn by_name(name: &[u8]) -> Option<Self> { todo!() }
    /// As OpenSSH's log lines say it: ED25519, ECDSA, RSA.
    pub fn short_name(self) -> &'static str { todo!() }
    /// Signature algorithms for this type, in order of preference: RSA gives rsa-sha2-512, rsa-sha2-256.
    pub fn algorithms(self) -> &'static [&'static str] { todo!() }
}
