//! Host keys: reading, making, writing and signing.
//!
//! The forms of key files are in [`super::key_file`]; here is what a key is and does. Signing is
//! ring's; from it come the limits for RSA: 2048, 3072 or 4096 bits, two primes of one size, a
//! public exponent of 65537 or more.

use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};
use subtle::{Choice, ConditionallySelectable};
use zeroize::Zeroizing;

use super::key_file::{self, EcdsaSecret, Ed25519Secret, RsaSecret, Secret, curve_name};
use super::public_key::{KeyType, PublicKey};
use super::{CryptoError, Random};
use crate::ssh::wire::Writer;

/// A private key in memory; zeroized on drop as far as it is ours (ring keeps its own copy).
pub struct PrivateKey {
    public: PublicKey,
    signer: Signer,
    /// Type and values as OpenSSH's format writes them, for [`Self::to_file`].
    fields: Zeroizing<Vec<u8>>,
}

/// Why a key file gave no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFileError {
    /// Nothing in it.
    Empty,
    /// Neither OpenSSH's format nor PEM.
    NotAKey,
    /// Encrypted: a server cannot ask for a passphrase.
    Encrypted,
    /// A type or a size that is not served here.
    Unsupported,
    /// Damaged.
    Malformed,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl PrivateKey {
    /// Parses OpenSSH's format (PROTOCOL.key), PKCS#1 "RSA PRIVATE KEY", SEC1 "EC PRIVATE KEY" and
    /// PKCS#8. `random` blinds.
    pub fn from_file(text: &[u8], random: &Random) -> Result<Self, KeyFileError> {
        key_file::read(text, |secret| Self::new(secret, random))
    }

    /// Makes a key: Ed25519, ECDSA P-256 or P-384. RSA is unsupported (no safe generator at hand).
    pub fn generate(key_type: KeyType, random: &Random) -> Result<Self, CryptoError> {
        let curve = match key_type {
            KeyType::Ed25519 => {
                let mut seed = Zeroizing::new([0; 32]);
                random.fill(&mut *seed)?;
                let secret = Secret::Ed25519(Ed25519Secret {
                    seed: &*seed,
                    public: None,
                });
                return Self::new(&secret, random).map_err(|_| CryptoError::Random);
            }
            KeyType::EcdsaP256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
            KeyType::EcdsaP384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
            _ => return Err(CryptoError::Unsupported),
        };
        let document =
            EcdsaKeyPair::generate_pkcs8(curve, &random.source).map_err(|_| CryptoError::Random)?;
        key_file::read_pkcs8(document.as_ref(), |secret| Self::new(secret, random))
            .map_err(|_| CryptoError::Random)
    }

    /// OpenSSH's private key format, unencrypted.
    pub fn to_file(&self, comment: &str, random: &Random) -> Zeroizing<Vec<u8>> {
        let mut check = [0; 4];
        // It shows whether a passphrase was right, and there is none: zeroes serve as well.
        let _ = random.fill(&mut check);
        key_file::write(&self.public.blob, &self.fields, comment, check)
    }

    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A signature blob over `data` with `algorithm` (one of the type's).
    pub fn sign(
        &self,
        algorithm: &[u8],
        data: &[u8],
        random: &Random,
    ) -> Result<Vec<u8>, CryptoError> {
        if !self
            .public
            .key_type
            .algorithms()
            .any(|known| known.as_bytes() == algorithm)
        {
            return Err(CryptoError::Unsupported);
        }
        let signature = match &self.signer {
            Signer::Ed25519(key) => key.sign(data).as_ref().to_vec(),
            Signer::Ecdsa(key) => {
                let fixed = key
                    .sign(&random.source, data)
                    .map_err(|_| CryptoError::Random)?;
                let (r, s) = fixed.as_ref().split_at(fixed.as_ref().len() / 2);
                let mut signature = Vec::with_capacity(fixed.as_ref().len() + 10);
                signature.put_mpint(r);
                signature.put_mpint(s);
                signature
            }
            Signer::Rsa(key) => rsa_sign(key, algorithm, data, &random.source)?,
        };
        let mut blob = Vec::with_capacity(8 + algorithm.len() + signature.len());
        blob.put_string(algorithm);
        blob.put_string(&signature);
        Ok(blob)
    }

    fn new(secret: &Secret<'_>, random: &Random) -> Result<Self, KeyFileError> {
        let (signer, blob, fields) = match secret {
            Secret::Ed25519(secret) => ed25519(secret)?,
            Secret::Ecdsa(secret) => ecdsa(secret, random)?,
            Secret::Rsa(secret) => rsa(secret)?,
        };
        let public = PublicKey::from_blob(&blob).map_err(|error| match error {
            CryptoError::Unsupported => KeyFileError::Unsupported,
            _ => KeyFileError::Malformed,
        })?;
        Ok(Self {
            public,
            signer,
            fields,
        })
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "PrivateKey({})", self.public.fingerprint())
    }
}

/// The signer, the public blob, and the fields of OpenSSH's private key format.
type Parts = (Signer, Vec<u8>, Zeroizing<Vec<u8>>);

fn ed25519(secret: &Ed25519Secret<'_>) -> Result<Parts, KeyFileError> {
    let pair = match secret.public {
        Some(public) => Ed25519KeyPair::from_seed_and_public_key(secret.seed, public),
        None => Ed25519KeyPair::from_seed_unchecked(secret.seed),
    };
    let pair = pair.map_err(|_| KeyFileError::Malformed)?;
    let public = pair.public_key().as_ref().to_vec();
    let mut blob = Vec::new();
    blob.put_string(KeyType::Ed25519.name().as_bytes());
    blob.put_string(&public);
    let mut fields = fields_with_room_for(secret.seed.len());
    fields.put_bytes(&blob);
    fields.put_u32(64); // The private value is seed and public value once more.
    fields.put_bytes(secret.seed);
    fields.put_bytes(&public);
    Ok((Signer::Ed25519(pair), blob, fields))
}

fn ecdsa(secret: &EcdsaSecret<'_>, random: &Random) -> Result<Parts, KeyFileError> {
    let (curve, scalar_bytes): (&'static EcdsaSigningAlgorithm, usize) = match secret.key_type {
        KeyType::EcdsaP256 => (&ECDSA_P256_SHA256_FIXED_SIGNING, 32),
        KeyType::EcdsaP384 => (&ECDSA_P384_SHA384_FIXED_SIGNING, 48),
        _ => return Err(KeyFileError::Malformed),
    };
    let mut scalar = Zeroizing::new(vec![0; scalar_bytes]);
    let start = secret
        .scalar
        .iter()
        .position(|byte| *byte != 0)
        .unwrap_or(secret.scalar.len());
    let digits = &secret.scalar[start..];
    let start = scalar_bytes
        .checked_sub(digits.len())
        .ok_or(KeyFileError::Malformed)?;
    scalar[start..].copy_from_slice(digits);
    // Checks that the point is the scalar's.
    let pair =
        EcdsaKeyPair::from_private_key_and_public_key(curve, &scalar, secret.point, &random.source)
            .map_err(|_| KeyFileError::Malformed)?;
    let mut blob = Vec::new();
    blob.put_string(secret.key_type.name().as_bytes());
    blob.put_string(curve_name(secret.key_type));
    blob.put_string(secret.point);
    let mut fields = fields_with_room_for(secret.point.len());
    fields.put_bytes(&blob);
    fields.put_mpint(&scalar);
    Ok((Signer::Ecdsa(pair), blob, fields))
}

fn rsa(secret: &RsaSecret<'_>) -> Result<Parts, KeyFileError> {
    let RsaSecret {
        n,
        e,
        d,
        p,
        q,
        q_inverse,
    } = *secret;
    // Sizes that ring does not sign with: not the file's fault.
    let common_exponent = e.len() > 3 || (e.len() == 3 && e >= &[1, 0, 1][..]);
    if !matches!(n.len(), 256 | 384 | 512) || n[0] & 0x80 == 0 || !common_exponent {
        return Err(KeyFileError::Unsupported);
    }
    if p.len() > n.len() || q.len() > n.len() || d.len() > n.len() {
        return Err(KeyFileError::Malformed);
    }
    let public_key = PublicKeyComponents { n, e };
    let (d_p, d_q) = (crt_exponent(d, e, p)?, crt_exponent(d, e, q)?);
    let components = KeyPairComponents {
        public_key,
        d,
        p,
        q,
        dP: d_p.as_slice(),
        dQ: d_q.as_slice(),
        qInv: q_inverse,
    };
    let pair = RsaKeyPair::from_components(&components).map_err(|_| KeyFileError::Malformed)?;
    let mut blob = Vec::new();
    blob.put_string(KeyType::Rsa.name().as_bytes());
    blob.put_mpint(e);
    blob.put_mpint(n);
    let mut fields = fields_with_room_for(5 * n.len());
    fields.put_string(KeyType::Rsa.name().as_bytes());
    for number in [n, e, d, q_inverse, p, q] {
        fields.put_mpint(number);
    }
    Ok((Signer::Rsa(Box::new(pair)), blob, fields))
}

fn rsa_sign(
    key: &RsaKeyPair,
    algorithm: &[u8],
    data: &[u8],
    random: &SystemRandom,
) -> Result<Vec<u8>, CryptoError> {
    let padding: &'static dyn ring::signature::RsaEncoding = match algorithm {
        b"rsa-sha2-512" => &RSA_PKCS1_SHA512,
        b"rsa-sha2-256" => &RSA_PKCS1_SHA256,
        _ => return Err(CryptoError::Unsupported),
    };
    let mut signature = vec![0; key.public().modulus_len()];
    // Checked with the public key before it is handed out: a wrong one would give the key away.
    key.sign(padding, random, data, &mut signature)
        .map_err(|_| CryptoError::Mismatch)?;
    Ok(signature)
}

/// Room for secrets of `bytes` bytes and all that surrounds them: a growing vector would leave
/// copies of them behind.
fn fields_with_room_for(bytes: usize) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(Vec::with_capacity(bytes + 512))
}

/// d mod (prime - 1), which OpenSSH's format leaves out. Checked against e, since ring would find
/// out only when it signs.
fn crt_exponent(d: &[u8], e: &[u8], prime: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let mut modulus = limbs(prime);
    match modulus.first_mut() {
        // A prime is odd: subtracting one clears a bit.
        Some(lowest) if *lowest & 1 == 1 => *lowest ^= 1,
        _ => return Err(KeyFileError::Malformed),
    }
    let exponent = remainder(&limbs(d), &modulus);
    let e = match limbs(e).as_slice() {
        [e] => u128::from(*e),
        _ => return Err(KeyFileError::Unsupported),
    };
    let mut product = Zeroizing::new(Vec::with_capacity(exponent.len() + 1));
    let mut carry = 0;
    for limb in exponent.iter() {
        let sum = u128::from(*limb) * e + carry;
        product.push(low_limb(sum));
        carry = sum >> 64;
    }
    product.push(low_limb(carry));
    match remainder(&product, &modulus).as_slice() {
        [1, rest @ ..] if rest.iter().all(|limb| *limb == 0) => {}
        _ => return Err(KeyFileError::Malformed),
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(exponent.len() * 8));
    for limb in exponent.iter().rev() {
        bytes.extend_from_slice(&limb.to_be_bytes());
    }
    let surplus = bytes.len() - prime.len();
    Ok(Zeroizing::new(bytes[surplus..].to_vec()))
}

/// value mod modulus by long division, in time that depends on the sizes only.
fn remainder(value: &[u64], modulus: &[u64]) -> Zeroizing<Vec<u64>> {
    let mut remainder = Zeroizing::new(vec![0_u64; modulus.len()]);
    let mut reduced = Zeroizing::new(vec![0_u64; modulus.len()]);
    for limb in value.iter().rev() {
        for shift in (0..64).rev() {
            // remainder = 2 * remainder + bit, then once less modulus where that stays positive.
            let mut carry = limb >> shift & 1;
            for limb in remainder.iter_mut() {
                (*limb, carry) = (*limb << 1 | carry, *limb >> 63);
            }
            let mut borrow = false;
            for ((to, from), less) in reduced.iter_mut().zip(remainder.iter()).zip(modulus) {
                (*to, borrow) = from.borrowing_sub(*less, borrow);
            }
            let enough = Choice::from(u8::from(carry == 1)) | !Choice::from(u8::from(borrow));
            for (to, from) in remainder.iter_mut().zip(reduced.iter()) {
                to.conditional_assign(from, enough);
            }
        }
    }
    remainder
}

/// Least significant limb first.
fn limbs(magnitude: &[u8]) -> Zeroizing<Vec<u64>> {
    let mut limbs = Zeroizing::new(Vec::with_capacity(magnitude.len().div_ceil(8)));
    for chunk in magnitude.rchunks(8) {
        limbs.push(
            chunk
                .iter()
                .fold(0, |limb, byte| limb << 8 | u64::from(*byte)),
        );
    }
    limbs
}

#[expect(clippy::cast_possible_truncation, reason = "the rest is the carry")]
fn low_limb(value: u128) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn shared_between_threads<T: Send + Sync>() {}

    #[test]
    fn a_worker_thread_may_sign() {
        shared_between_threads::<PrivateKey>();
    }

    #[test]
    fn a_made_key_survives_its_file_and_signs() {
        let random = Random::system();
        for key_type in [KeyType::Ed25519, KeyType::EcdsaP256, KeyType::EcdsaP384] {
            // Often enough to meet scalars that begin with zeroes or a set high bit.
            for round in 0..if key_type == KeyType::EcdsaP384 {
                20
            } else {
                300
            } {
                let made = PrivateKey::generate(key_type, &random).unwrap();
                let file = made.to_file(&"c".repeat(round % 9), &random);
                let read = PrivateKey::from_file(&file, &random).unwrap();
                assert_eq!(made.public(), read.public());
                assert_eq!(made.fields, read.fields);
                assert_eq!(made.public().key_type, key_type);
                let algorithm = key_type.name().as_bytes();
                let signature = read.sign(algorithm, b"data", &random).unwrap();
                made.public()
                    .verify(algorithm, b"data", &signature)
                    .unwrap();
                let other = made.public().verify(algorithm, b"Data", &signature);
                assert_eq!(other, Err(CryptoError::Mismatch));
            }
        }
        let rsa = PrivateKey::generate(KeyType::Rsa, &random);
        assert_eq!(rsa.err(), Some(CryptoError::Unsupported));
    }

    #[test]
    fn an_algorithm_of_another_type_is_refused() {
        let random = Random::system();
        let key = PrivateKey::generate(KeyType::Ed25519, &random).unwrap();
        for algorithm in ["ecdsa-sha2-nistp256", "rsa-sha2-512", "ssh-rsa", ""] {
            let refused = key.sign(algorithm.as_bytes(), b"", &random);
            assert_eq!(refused, Err(CryptoError::Unsupported));
        }
    }

    #[test]
    fn remainders_are_those_of_division() {
        let split = |number: u128| [low_limb(number), low_limb(number >> 64)];
        let numbers = [
            1,
            2,
            3,
            65_536,
            (1 << 64) - 1,
            1 << 64,
            (1 << 127) - 2,
            u128::MAX - 9,
        ];
        for modulus in numbers {
            for value in numbers
                .into_iter()
                .chain([0, modulus - 1, modulus / 2, u128::MAX])
            {
                let expected = split(value % modulus);
                assert_eq!(*remainder(&split(value), &split(modulus)), expected);
                if let Ok(modulus) = u64::try_from(modulus) {
                    assert_eq!(*remainder(&split(value), &[modulus]), expected[..1]);
                }
            }
        }
    }

    #[test]
    fn exponents_that_do_not_fit_are_refused() {
        // 7 * 103 = 721 = 1 modulo 240 = (17 - 1) * (16 - 1), and modulo 16.
        assert_eq!(crt_exponent(&[103], &[7], &[17]).as_deref(), Ok(&vec![7]));
        assert_eq!(
            crt_exponent(&[1, 2, 103], &[7], &[0, 17]).as_deref(),
            Ok(&vec![0, 7])
        );
        for (d, e, prime) in [
            (&[104][..], &[7][..], &[17][..]),
            (&[103], &[9], &[17]),
            (&[0], &[7], &[17]),
            (&[103], &[7], &[]),
            (&[103], &[7], &[0]),
            (&[103], &[7], &[1]),
            (&[103], &[7], &[16]),
        ] {
            assert_eq!(
                crt_exponent(d, e, prime).err(),
                Some(KeyFileError::Malformed),
                "{d:?}"
            );
        }
        let long = crt_exponent(&[103], &[1; 9], &[17]).err();
        assert_eq!(long, Some(KeyFileError::Unsupported));
    }
}
