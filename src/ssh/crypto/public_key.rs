//! Public keys of users and hosts: blobs, names, signatures over data.
//!
//! Sources: RFC 4253 section 6.6, RFC 5656 section 3.1, RFC 8332 (RSA with SHA-2), RFC 8709
//! (Ed25519). Everything here reads bytes of strangers.

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};

use super::hash::Hash;
use super::{CryptoError, base64};
use crate::ssh::ProtocolError;
use crate::ssh::wire::Reader;

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
                KeyType::Ed25519 | KeyType::EcdsaP256 => 256,
                KeyType::EcdsaP384 => 384,
                KeyType::Rsa => 0,
            },
        }
    }

    /// Verifies a signature blob (string algorithm, string signature) made with `algorithm`; the
    /// algorithm named in the blob must be the same and fit the key. SHA-1 `ssh-rsa` is
    /// unsupported.
    pub fn verify(
        &self,
        algorithm: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> Result<(), CryptoError> {
        let (key_type, material) = Material::parse(&self.blob)?;
        if !key_type
            .algorithms()
            .iter()
            .any(|known| known.as_bytes() == algorithm)
        {
            return Err(CryptoError::Unsupported);
        }
        let mut reader = Reader::new(signature);
        let named = reader.string("signature algorithm").map_err(malformed)?;
        let signature = reader.string("signature").map_err(malformed)?;
        if !reader.is_empty() {
            return Err(CryptoError::Malformed);
        }
        if named != algorithm {
            return Err(CryptoError::Mismatch);
        }
        match material {
            Material::Ed25519(key) => check(&ED25519, key, data, signature),
            Material::EcdsaP256(point) => {
                let signature = ecdsa_fixed::<32>(signature)?.concat();
                check(&ECDSA_P256_SHA256_FIXED, point, data, &signature)
            }
            Material::EcdsaP384(point) => {
                let signature = ecdsa_fixed::<48>(signature)?.concat();
                check(&ECDSA_P384_SHA384_FIXED, point, data, &signature)
            }
            Material::Rsa { exponent, modulus } => {
                let parameters = rsa_parameters(algorithm).ok_or(CryptoError::Unsupported)?;
                let signature = rsa_padded(signature, modulus.len())?;
                RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                }
                .verify(parameters, data, &signature)
                .map_err(|_| CryptoError::Mismatch)
            }
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

impl KeyType {
    pub const ALL: [Self; 4] = [Self::Ed25519, Self::EcdsaP256, Self::EcdsaP384, Self::Rsa];

    /// As in the blob and in key files: `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa` …
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::Rsa => "ssh-rsa",
        }
    }

    pub fn by_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|key_type| key_type.name().as_bytes() == name)
    }

    /// As OpenSSH's log lines say it: ED25519, ECDSA, RSA.
    pub fn short_name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ED25519",
            Self::EcdsaP256 | Self::EcdsaP384 => "ECDSA",
            Self::Rsa => "RSA",
        }
    }

    /// Signature algorithms for this type, in order of preference: RSA gives rsa-sha2-512,
    /// rsa-sha2-256.
    pub fn algorithms(self) -> &'static [&'static str] {
        match self {
            Self::Ed25519 => &["ssh-ed25519"],
            Self::EcdsaP256 => &["ecdsa-sha2-nistp256"],
            Self::EcdsaP384 => &["ecdsa-sha2-nistp384"],
            Self::Rsa => &["rsa-sha2-512", "rsa-sha2-256"],
        }
    }
}

/// What a blob holds behind its type.
enum Material<'a> {
    Ed25519(&'a [u8]),
    /// Uncompressed points: 4, x, y.
    EcdsaP256(&'a [u8]),
    EcdsaP384(&'a [u8]),
    /// Big-endian without leading zeroes.
    Rsa {
        exponent: &'a [u8],
        modulus: &'a [u8],
    },
}

impl<'a> Material<'a> {
    fn parse(blob: &'a [u8]) -> Result<(KeyType, Self), CryptoError> {
        let mut reader = Reader::new(blob);
        let name = reader.string("key type").map_err(malformed)?;
        let key_type = KeyType::by_name(name).ok_or(CryptoError::Unsupported)?;
        let material = match key_type {
            KeyType::Ed25519 => match reader.string("public key").map_err(malformed)? {
                key if key.len() == 32 => Self::Ed25519(key),
                _ => return Err(CryptoError::Malformed),
            },
            KeyType::EcdsaP256 => Self::EcdsaP256(point(&mut reader, b"nistp256", 65)?),
            KeyType::EcdsaP384 => Self::EcdsaP384(point(&mut reader, b"nistp384", 97)?),
            KeyType::Rsa => rsa(&mut reader)?,
        };
        if !reader.is_empty() {
            return Err(CryptoError::Malformed);
        }
        Ok((key_type, material))
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

fn malformed(_: ProtocolError) -> CryptoError {
    CryptoError::Malformed
}
