//! Key encapsulation, the server's half of the post-quantum exchanges.

use ml_kem::ml_kem_768;
use zeroize::{Zeroize, Zeroizing};

use crate::Refused;

/// What encapsulation yields: a ciphertext of `N` bytes and the secret in it.
pub struct Encapsulated<const N: usize> {
    /// For the peer.
    pub ciphertext: [u8; N],
    /// For the key exchange.
    pub secret: Zeroizing<[u8; 32]>,
}

impl<const N: usize> core::fmt::Debug for Encapsulated<N> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("Encapsulated")
    }
}

/// ML-KEM-768 (FIPS 203): encapsulates for `key`, after its modulus check (section 7.2), with the
/// 32 fresh random bytes `randomness` (m in algorithm 20).
pub fn ml_kem_768(key: &[u8; 1184], randomness: &[u8; 32]) -> Result<Encapsulated<1088>, Refused> {
    let key = ml_kem_768::EncapsulationKey::new(key.into()).map_err(|_| Refused)?;
    let (ciphertext, mut secret) = key.encapsulate_deterministic(randomness.into());
    let encapsulated = Encapsulated {
        ciphertext: ciphertext.into(),
        secret: Zeroizing::new(secret.into()),
    };
    secret.zeroize();
    Ok(encapsulated)
}

/// Streamlined NTRU Prime 761: encapsulates for `key` with randomness expanded from `seed`, 32
/// fresh random bytes. Every key of this length is a valid one.
#[cfg(feature = "sntrup761")]
pub fn sntrup761(key: &[u8; 1158], seed: &[u8; 32]) -> Encapsulated<1039> {
    let (ciphertext, secret) =
        sntrup761::EncapsulationKey::from(*key).encapsulate_deterministic(*seed);
    let mut encapsulated = Encapsulated {
        ciphertext: [0; 1039],
        secret: [0; 32].into(),
    };
    encapsulated.ciphertext.copy_from_slice(ciphertext.as_ref());
    encapsulated.secret.copy_from_slice(secret.as_ref());
    encapsulated
}
