//! Public keys of users and hosts: blobs, names, signatures over data.
//!
//! Sources: RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8332 (RSA with SHA-2), RFC 8709
//! (Ed25519), OpenSSH PROTOCOL.u2f (security keys). Everything here reads bytes of strangers.

use p521::ecdsa::signature::hazmat::PrehashVerifier;
use p521::ecdsa::{Signature, VerifyingKey};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

use super::hash::Hash;
pub use super::key_type::KeyType;
use super::webauthn::{self, Wrapping};
use super::{CryptoError, base64};
use crate::ssh::ProtocolError;
use crate::ssh::wire::{Reader, Writer};

/// A parsed public key blob (RFC 4253 section 6.6, RFC 5656, RFC 8709).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// The type named in the blob.
    pub key_type: KeyType,
    /// The whole blob.
    pub blob: Vec<u8>,
}

/// RSA keys up to this length are verified in a tenth of a millisecond.
const QUICK_RSA_BITS: u32 = 4096;

/// What a security key says of its user along with a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Presence {
    /// Somebody touched it.
    pub touched: bool,
    /// It knows who: by PIN or finger.
    pub verified: bool,
}

impl PublicKey {
    /// Parses a blob exactly: type, sizes, form of points, RSA 1024 to 8192 bits (the policy's
    /// minimum is the caller's). A key has one blob only, so blobs can be compared. That a point is
    /// on its curve is checked by [`Self::verify`].
    pub fn from_blob(blob: &[u8]) -> Result<Self, CryptoError> {
        let (key_type, _) = Material::parse(blob)?;
        Ok(Self {
            key_type,
            blob: blob.to_vec(),
        })
    }

    /// Size in bits, for RequiredRSASize and log lines.
    pub fn bits(&self) -> u32 {
        match Material::parse(&self.blob) {
            Ok((_, Material::Rsa { modulus, .. })) => bit_length(modulus),
            _ => match self.key_type {
                KeyType::EcdsaP384 => 384,
                KeyType::EcdsaP521 => 521,
                KeyType::Rsa => 0,
                _ => 256,
            },
        }
    }

    /// Verifies a signature blob (string algorithm, string signature) made with `algorithm`; the
    /// algorithm named in the blob must be the same and fit the key. SHA-1 `ssh-rsa` is
    /// unsupported. A security key's signature says more, which is the caller's to judge.
    pub fn verify(
        &self,
        algorithm: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> Result<Option<Presence>, CryptoError> {
        let (key_type, material) = Material::parse(&self.blob)?;
        if !key_type
            .algorithms()
            .any(|known| known.as_bytes() == algorithm)
        {
            return Err(CryptoError::Unsupported);
        }
        let mut reader = Reader::new(signature);
        let named = reader.string("signature algorithm").map_err(malformed)?;
        if named != algorithm {
            return Err(CryptoError::Mismatch);
        }
        let signature = reader.string("signature").map_err(malformed)?;
        let device = if key_type.is_security_key() {
            Some(Device::read(algorithm, &mut reader)?)
        } else {
            None
        };
        if !reader.is_empty() {
            return Err(CryptoError::Malformed);
        }
        match (material, device) {
            (Material::Sk { application, inner }, Some(device)) => {
                let signed = device.signed(application, data)?;
                inner.verify(algorithm, &signed, signature)?;
                Ok(Some(Presence {
                    touched: device.flags & 0x01 != 0,
                    verified: device.flags & 0x04 != 0,
                }))
            }
            (material, None) => material.verify(algorithm, data, signature).map(|()| None),
            (_, Some(_)) => Err(CryptoError::Unsupported),
        }
    }

    /// Whether a verification takes more than the fraction of a millisecond of other keys: up to two
    /// of them (docs/threat-model.md), which is long for whoever serves others meanwhile.
    pub fn is_slow(&self) -> bool {
        match self.key_type {
            KeyType::EcdsaP384 | KeyType::EcdsaP521 => true,
            KeyType::Rsa => self.bits() > QUICK_RSA_BITS,
            _ => false,
        }
    }

    /// `SHA256:` and unpadded base64, as OpenSSH prints it.
    pub fn fingerprint(&self) -> String {
        format!(
            "SHA256:{}",
            base64::encode_unpadded(&Hash::Sha256.digest(&self.blob))
        )
    }
}

/// What a blob holds behind its type.
enum Material<'a> {
    Ed25519(&'a [u8]),
    /// Uncompressed points: 4, x, y.
    EcdsaP256(&'a [u8]),
    EcdsaP384(&'a [u8]),
    EcdsaP521(&'a [u8]),
    /// Big-endian without leading zeroes.
    Rsa {
        exponent: &'a [u8],
        modulus: &'a [u8],
    },
    /// A key in a device, and what the device binds it to.
    Sk {
        application: &'a [u8],
        inner: Box<Material<'a>>,
    },
}

impl<'a> Material<'a> {
    fn parse(blob: &'a [u8]) -> Result<(KeyType, Self), CryptoError> {
        let mut reader = Reader::new(blob);
        let name = reader.string("key type").map_err(malformed)?;
        let key_type = KeyType::by_name(name).ok_or(CryptoError::Unsupported)?;
        let material = Self::fields(key_type, &mut reader)?;
        if !reader.is_empty() {
            return Err(CryptoError::Malformed);
        }
        Ok((key_type, material))
    }

    /// The fields behind the type, which a certificate has too.
    fn fields(key_type: KeyType, reader: &mut Reader<'a>) -> Result<Self, CryptoError> {
        Ok(match key_type {
            KeyType::Ed25519 => Self::Ed25519(ed25519(reader)?),
            KeyType::EcdsaP256 => Self::EcdsaP256(point(reader, b"nistp256", 65)?),
            KeyType::EcdsaP384 => Self::EcdsaP384(point(reader, b"nistp384", 97)?),
            KeyType::EcdsaP521 => Self::EcdsaP521(point(reader, b"nistp521", 133)?),
            KeyType::Rsa => rsa(reader)?,
            KeyType::SkEd25519 | KeyType::SkEcdsaP256 => {
                let inner = Box::new(if key_type == KeyType::SkEd25519 {
                    Self::Ed25519(ed25519(reader)?)
                } else {
                    Self::EcdsaP256(point(reader, b"nistp256", 65)?)
                });
                let application = reader.string("application").map_err(malformed)?;
                Self::Sk { application, inner }
            }
        })
    }

    fn verify(&self, algorithm: &[u8], data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        match *self {
            Self::Ed25519(key) => check(&ED25519, key, data, signature),
            Self::EcdsaP256(point) => {
                let signature = ecdsa_fixed::<32>(signature)?.concat();
                check(&ECDSA_P256_SHA256_FIXED, point, data, &signature)
            }
            Self::EcdsaP384(point) => {
                let signature = ecdsa_fixed::<48>(signature)?.concat();
                check(&ECDSA_P384_SHA384_FIXED, point, data, &signature)
            }
            Self::EcdsaP521(point) => check_p521(point, data, &ecdsa_fixed::<66>(signature)?),
            Self::Rsa { exponent, modulus } => {
                let parameters = rsa_parameters(algorithm).ok_or(CryptoError::Unsupported)?;
                let signature = rsa_padded(signature, modulus.len())?;
                RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                }
                .verify(parameters, data, &signature)
                .map_err(|_| CryptoError::Mismatch)
            }
            Self::Sk { .. } => Err(CryptoError::Unsupported),
        }
    }
}

/// Takes the fields of a key off the front of `reader`; gives the key's own blob.
pub(super) fn take_key(
    key_type: KeyType,
    reader: &mut Reader<'_>,
) -> Result<PublicKey, CryptoError> {
    let before = reader.clone().rest();
    Material::fields(key_type, reader)?;
    let taken = before.len() - reader.clone().rest().len();
    let mut blob = Vec::with_capacity(4 + key_type.name().len() + taken);
    blob.put_string(key_type.name().as_bytes());
    blob.put_bytes(before.get(..taken).unwrap_or_default());
    Ok(PublicKey { key_type, blob })
}

/// What a device adds to its signature (PROTOCOL.u2f, "SSH U2F Signatures").
struct Device<'a> {
    flags: u8,
    counter: u32,
    wrapping: Option<Wrapping<'a>>,
}

impl<'a> Device<'a> {
    fn read(algorithm: &[u8], reader: &mut Reader<'a>) -> Result<Self, CryptoError> {
        Ok(Self {
            flags: reader.u8("flags").map_err(malformed)?,
            counter: reader.u32("counter").map_err(malformed)?,
            wrapping: if algorithm == webauthn::ALGORITHM.as_bytes() {
                Some(Wrapping::read(reader)?)
            } else {
                None
            },
        })
    }

    /// What it signs instead of `data`.
    fn signed(&self, application: &[u8], data: &[u8]) -> Result<Vec<u8>, CryptoError> {
        let (extensions, message) = match &self.wrapping {
            Some(wrapping) => {
                wrapping.check(self.flags, data)?;
                (wrapping.extensions, wrapping.words)
            }
            None => (&[][..], data),
        };
        let mut signed = Vec::with_capacity(2 * 32 + 5 + extensions.len());
        signed.put_bytes(&Hash::Sha256.digest(application));
        signed.put_u8(self.flags);
        signed.put_u32(self.counter);
        signed.put_bytes(extensions);
        signed.put_bytes(&Hash::Sha256.digest(message));
        Ok(signed)
    }
}

fn ed25519<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], CryptoError> {
    match reader.string("public key").map_err(malformed)? {
        key if key.len() == 32 => Ok(key),
        _ => Err(CryptoError::Malformed),
    }
}

/// RFC 5656 section 3.1: the curve's name, then the point. Compressed points are optional there;
/// nobody writes them.
fn point<'a>(
    reader: &mut Reader<'a>,
    curve: &[u8],
    point_bytes: usize,
) -> Result<&'a [u8], CryptoError> {
    if reader.string("curve").map_err(malformed)? != curve {
        return Err(CryptoError::Malformed);
    }
    match reader.string("point").map_err(malformed)? {
        point if point.len() == point_bytes && point.first() == Some(&0x04) => Ok(point),
        _ => Err(CryptoError::Malformed),
    }
}

fn rsa<'a>(reader: &mut Reader<'a>) -> Result<Material<'a>, CryptoError> {
    let exponent = reader.mpint("exponent").map_err(malformed)?;
    let modulus = reader.mpint("modulus").map_err(malformed)?;
    if !is_odd(modulus) || !is_odd(exponent) || exponent == [1] {
        return Err(CryptoError::Malformed);
    }
    // Long exponents make a verification as expensive as a signature; 33 bits is ring's bound.
    if bit_length(exponent) > 33 || !(1024..=8192).contains(&bit_length(modulus)) {
        return Err(CryptoError::Unsupported);
    }
    Ok(Material::Rsa { exponent, modulus })
}

fn is_odd(magnitude: &[u8]) -> bool {
    magnitude.last().is_some_and(|last| last & 1 == 1)
}

/// Of a magnitude without leading zeroes.
fn bit_length(magnitude: &[u8]) -> u32 {
    let Some(first) = magnitude.first() else {
        return 0;
    };
    u32::try_from(magnitude.len()).map_or(u32::MAX, |len| len.saturating_mul(8))
        - first.leading_zeros()
}

fn check(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    data: &[u8],
    signature: &[u8],
) -> Result<(), CryptoError> {
    UnparsedPublicKey::new(algorithm, key)
        .verify(data, signature)
        .map_err(|_| CryptoError::Mismatch)
}

/// The one curve that ring does not have.
fn check_p521(point: &[u8], data: &[u8], halves: &[[u8; 66]; 2]) -> Result<(), CryptoError> {
    let key = VerifyingKey::from_sec1_bytes(point).map_err(|_| CryptoError::Malformed)?;
    let signature =
        Signature::from_slice(halves.as_flattened()).map_err(|_| CryptoError::Malformed)?;
    key.verify_prehash(&Hash::Sha512.digest(data), &signature)
        .map_err(|_| CryptoError::Mismatch)
}

/// RFC 5656 section 3.1.2: mpint r, mpint s; to `N` bytes each. Leading zeroes beyond the one that
/// an mpint may need are tolerated, as OpenSSH does: some tokens write them.
fn ecdsa_fixed<const N: usize>(signature: &[u8]) -> Result<[[u8; N]; 2], CryptoError> {
    let mut reader = Reader::new(signature);
    let mut fixed = [[0; N]; 2];
    for half in &mut fixed {
        let number = reader.string("signature half").map_err(malformed)?;
        if number.first().is_some_and(|first| first & 0x80 != 0) {
            return Err(CryptoError::Malformed);
        }
        let start = number
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(number.len());
        let digits = &number[start..];
        let start = N.checked_sub(digits.len()).ok_or(CryptoError::Malformed)?;
        half[start..].copy_from_slice(digits);
    }
    if reader.is_empty() {
        Ok(fixed)
    } else {
        Err(CryptoError::Malformed)
    }
}

/// RFC 8332 section 3: as long as the modulus; shorter ones are padded, as OpenSSH does.
fn rsa_padded(signature: &[u8], modulus_bytes: usize) -> Result<Vec<u8>, CryptoError> {
    let missing = modulus_bytes
        .checked_sub(signature.len())
        .ok_or(CryptoError::Malformed)?;
    let mut padded = vec![0; missing];
    padded.extend_from_slice(signature);
    Ok(padded)
}

fn rsa_parameters(algorithm: &[u8]) -> Option<&'static RsaParameters> {
    match algorithm {
        b"rsa-sha2-256" => Some(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
        b"rsa-sha2-512" => Some(&RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
        _ => None,
    }
}

pub(super) fn malformed(_: ProtocolError) -> CryptoError {
    CryptoError::Malformed
}
