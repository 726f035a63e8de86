//! The one place that names cryptographic crates; what of them is generic, `agent-primitives`
//! instantiates for it. Primitives are theirs; how SSH puts them together is here.

pub mod base64;
pub mod certificate;
pub mod cipher;
mod der;
pub mod hash;
pub mod kex;
mod key_file;
mod key_type;
pub mod password;
pub mod private_key;
pub mod public_key;
pub mod revocation_list;
mod suite;
mod webauthn;

/// Why a cryptographic operation gave nothing. Deliberately says no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CryptoError {
    /// A tag or signature is wrong.
    Mismatch,
    /// A key, public value or signature has an impossible form, size or value.
    Malformed,
    /// An algorithm that is not served here, or not by this key.
    Unsupported,
    /// The system's random source failed.
    Random,
}

/// The random source, made by the driver and handed to the core: the kernel's getrandom(2).
#[derive(Debug, Clone)]
pub struct Random {
    pub(crate) source: ring::rand::SystemRandom,
}

impl Random {
    /// The kernel's random source. Waits, early at boot, until it is ready.
    pub fn system() -> Self {
        Self {
            source: ring::rand::SystemRandom::new(),
        }
    }

    /// Fills `bytes`.
    pub fn fill(&self, bytes: &mut [u8]) -> Result<(), CryptoError> {
        ring::rand::SecureRandom::fill(&self.source, bytes).map_err(|_| CryptoError::Random)
    }
}
