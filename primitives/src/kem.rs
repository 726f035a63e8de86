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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Refused;
    use ml_kem::{Decapsulate, KeyExport, ml_kem_768};
    use ring::digest::{SHA256, digest};

    /// A key pair as FIPS 203 expands it from the seed 0, 1, 2 … 63.
    fn ml_kem_pair() -> (ml_kem_768::DecapsulationKey, [u8; 1184]) {
        let seed: [u8; 64] = core::array::from_fn(|index| u8::try_from(index).unwrap_or(0));
        let private = ml_kem_768::DecapsulationKey::from_seed(seed.into());
        let public = private.encapsulation_key().to_bytes().into();
        (private, public)
    }

    /// The key is the one, and the secret what, OpenSSL 4.0 makes of that seed and ciphertext.
    #[test]
    fn ml_kem_gives_the_known_answer() {
        let (private, public) = ml_kem_pair();
        assert_eq!(
            digest(&SHA256, &public).as_ref(),
            hex("0b7934c83125c788995e2ba6bd761e33046b3e40571be53e023309a29f398cc9")
        );
        let made = super::ml_kem_768(&public, &[0x42; 32]).unwrap();
        assert_eq!(
            digest(&SHA256, &made.ciphertext).as_ref(),
            hex("9c7b2f8d05c70575ec03ed8f93b7bb298e1506b97e54e5e885748965b1466f1c")
        );
        assert_eq!(
            *made.secret,
            hex("b83e7f23b33f909715c7a50b0d4b1f6684d53e1f4b9056f803b29f058ccb5566")
        );
        let opened: [u8; 32] = private.decapsulate(&made.ciphertext.into()).into();
        assert_eq!(*made.secret, opened);
    }

    /// FIPS 203 section 7.2: a coefficient is below q = 3329.
    #[test]
    fn an_ml_kem_key_with_an_unreduced_coefficient_is_refused() {
        let (_, public) = ml_kem_pair();
        for value in [3329_u16, 3330, 4095] {
            let [low, high] = value.to_le_bytes();
            // Two coefficients share three bytes; 1152 bytes hold the vector, then comes rho.
            for group in 0..384 {
                let mut wrong = public;
                wrong[3 * group] = low;
                wrong[3 * group + 1] = wrong[3 * group + 1] & 0xf0 | high;
                assert!(
                    super::ml_kem_768(&wrong, &[0; 32]).is_err(),
                    "{value} {group}"
                );
                let mut wrong = public;
                wrong[3 * group + 1] = wrong[3 * group + 1] & 0x0f | low << 4;
                wrong[3 * group + 2] = low >> 4 | high << 4;
                assert_eq!(super::ml_kem_768(&wrong, &[0; 32]).err(), Some(Refused));
            }
        }
        let mut largest = public;
        // 3328 is 0xd00.
        largest[0] = 0;
        largest[1] = largest[1] & 0xf0 | 0x0d;
        assert!(super::ml_kem_768(&largest, &[0; 32]).is_ok());
    }

    #[cfg(feature = "sntrup761")]
    #[test]
    fn the_holder_of_the_key_opens_what_sntrup_encapsulates() {
        let (public, private) = sntrup761::generate_key_from_seed([7; 32]);
        let key = public.as_ref().try_into().unwrap();
        let made = super::sntrup761(key, &[8; 32]);
        let opened = private.decapsulate(&made.ciphertext.into());
        assert_eq!(opened.as_ref(), *made.secret);
        assert_ne!(super::sntrup761(key, &[9; 32]).ciphertext, made.ciphertext);
    }

    fn hex(digits: &str) -> [u8; 32] {
        let digits = digits.as_bytes();
        core::array::from_fn(|index| {
            let pair = core::str::from_utf8(&digits[2 * index..2 * index + 2]).unwrap();
            u8::from_str_radix(pair, 16).unwrap()
        })
    }
}
