//! The generic cryptographic crates, instantiated where their speed is decided.
//!
//! Rust compiles generic code in the crate that uses it. The agent is compiled for size, and with
//! it AES-CTR would run at an eighth and ChaCha20 at a fifth of their speed; this crate is compiled
//! for speed (see the profiles in the workspace's Cargo.toml) and exports nothing generic. It holds
//! calls of other people's primitives and no primitive of its own. Only the agent's `ssh::crypto`
//! uses it.

#![forbid(unsafe_code)]

mod chacha_poly;
mod counter;
mod kem;

pub use chacha_poly::ChaChaPoly;
pub use counter::AesCounter;
#[cfg(feature = "sntrup761")]
pub use kem::sntrup761;
pub use kem::{Encapsulated, ml_kem_768};

/// A tag or a key did not check out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;
