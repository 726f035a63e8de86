//! The forms of private key files: OpenSSH's own (PROTOCOL.key), and in PEM armour PKCS#1
//! (RFC 8017 appendix A.1.2), SEC1 (RFC 5915) and PKCS#8 (RFC 5958, RFC 8410).
//!
//! Reads the values out and checks the forms; whether the values make a key is
//! [`super::private_key`]'s to find out. Encrypted files are recognized only.

use zeroize::Zeroizing;

use super::base64;
use super::der::{self, Der, NotDer};
use super::private_key::KeyFileError;
use super::public_key::KeyType;
use crate::ssh::ProtocolError;
use crate::ssh::wire::{Reader, Writer};

/// The values of a private key, borrowed from a decoded file.
pub enum Secret<'a> {
    Ed25519(Ed25519Secret<'a>),
    Ecdsa(EcdsaSecret<'a>),
    Rsa(RsaSecret<'a>),
}

pub struct Ed25519Secret<'a> {
    pub seed: &'a [u8],
    /// Where the file has it.
    pub public: Option<&'a [u8]>,
}

pub struct EcdsaSecret<'a> {
    pub key_type: KeyType,
    /// Big-endian, of any length.
    pub scalar: &'a [u8],
    pub point: &'a [u8],
}

/// Big-endian magnitudes without leading zeroes.
pub struct RsaSecret<'a> {
    pub n: &'a [u8],
    pub e: &'a [u8],
    pub d: &'a [u8],
    pub p: &'a [u8],
    pub q: &'a [u8],
    pub q_inverse: &'a [u8],
}

/// Finds the key in a file and hands its values to `make`.
pub fn read<T>(
    text: &[u8],
    make: impl FnOnce(&Secret<'_>) -> Result<T, KeyFileError>,
) -> Result<T, KeyFileError> {
    if text.trim_ascii().is_empty() {
        return Err(KeyFileError::Empty);
    }
    let (label, body) = armoured(text)?;
    match label {
        b"OPENSSH PRIVATE KEY" => read_openssh(&decoded(body)?, make),
        b"RSA PRIVATE KEY" => make(&Secret::Rsa(rsa_private_key(&decoded(body)?)?)),
        b"EC PRIVATE KEY" => make(&Secret::Ecdsa(ec_private_key(&decoded(body)?, None)?)),
        b"PRIVATE KEY" => read_pkcs8(&decoded(body)?, make),
        b"ENCRYPTED PRIVATE KEY" => Err(KeyFileError::Encrypted),
        _ => Err(KeyFileError::Unsupported),
    }
}

/// OpenSSH's format for one unencrypted key. `fields`: type and values of the private part.
pub fn write(
    public_blob: &[u8],
    fields: &[u8],
    comment: &str,
    check: [u8; 4],
) -> Zeroizing<Vec<u8>> {
    // Both grow no further: a growing vector would leave copies of the key behind.
    let private_bytes = 8 + fields.len() + 4 + comment.len() + 8;
    let mut private = Zeroizing::new(Vec::with_capacity(private_bytes));
    private.put_bytes(&check);
    private.put_bytes(&check);
    private.put_bytes(fields);
    private.put_string(comment.as_bytes());
    let padding_bytes = private.len().next_multiple_of(8) - private.len();
    private.extend((1..=8).take(padding_bytes));

    let mut whole = Zeroizing::new(Vec::with_capacity(64 + public_blob.len() + private.len()));
    whole.put_bytes(OPENSSH_MAGIC);
    whole.put_string(b"none"); // cipher
    whole.put_string(b"none"); // key derivation
    whole.put_string(b""); // and its options
    whole.put_u32(1);
    whole.put_string(public_blob);
    whole.put_string(&private);

    let encoded = Zeroizing::new(base64::encode(&whole));
    let mut text = Zeroizing::new(Vec::with_capacity(
        encoded.len() / LINE_BYTES + encoded.len() + 80,
    ));
    text.put_bytes(b"-----BEGIN OPENSSH PRIVATE KEY-----\n");
    for line in encoded.as_bytes().chunks(LINE_BYTES) {
        text.put_bytes(line);
        text.put_bytes(b"\n");
    }
    text.put_bytes(b"-----END OPENSSH PRIVATE KEY-----\n");
    text
}

/// The label and the lines of the first private key in `text`. Other text and other blocks, such as
/// OpenSSL's EC PARAMETERS, may stand before it.
fn armoured(text: &[u8]) -> Result<(&[u8], &[u8]), KeyFileError> {
    let mut lines = text.split_inclusive(|byte| *byte == b'\n');
    let mut consumed_bytes = 0;
    while let Some(line) = lines.next() {
        consumed_bytes += line.len();
        let Some(label) = between(line.trim_ascii(), b"-----BEGIN ", b"-----") else {
            continue;
        };
        if !label.ends_with(b"PRIVATE KEY") {
            continue;
        }
        let body = &text[consumed_bytes..];
        let mut body_bytes = 0;
        for line in lines {
            if between(line.trim_ascii(), b"-----END ", b"-----") == Some(label) {
                return Ok((label, &body[..body_bytes]));
            }
            body_bytes += line.len();
        }
        return Err(KeyFileError::Malformed);
    }
    Err(KeyFileError::NotAKey)
}

fn between<'a>(line: &'a [u8], before: &[u8], after: &[u8]) -> Option<&'a [u8]> {
    line.strip_prefix(before)?.strip_suffix(after)
}

/// The bytes in the lines of an armoured block.
fn decoded(body: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    // Only RFC 1421 headers hold a colon; they are there to say how the block is encrypted.
    if body.contains(&b':') {
        let encrypted = body
            .split(|byte| *byte == b'\n')
            .any(|line| line.starts_with(b"Proc-Type:"));
        return Err(if encrypted {
            KeyFileError::Encrypted
        } else {
            KeyFileError::Malformed
        });
    }
    let mut encoded = Zeroizing::new(Vec::with_capacity(body.len()));
    encoded.extend(body.iter().filter(|byte| !byte.is_ascii_whitespace()));
    base64::decode(&encoded).ok_or(KeyFileError::Malformed)
}

fn read_openssh<T>(
    bytes: &[u8],
    make: impl FnOnce(&Secret<'_>) -> Result<T, KeyFileError>,
) -> Result<T, KeyFileError> {
    let bytes = bytes
        .strip_prefix(OPENSSH_MAGIC)
        .ok_or(KeyFileError::Malformed)?;
    let mut reader = Reader::new(bytes);
    if reader.string("cipher").map_err(malformed)? != b"none" {
        return Err(KeyFileError::Encrypted);
    }
    let derivation = reader.string("key derivation").map_err(malformed)?;
    let options = reader.string("key derivation options").map_err(malformed)?;
    let keys = reader.u32("number of keys").map_err(malformed)?;
    if derivation != b"none" || !options.is_empty() || keys != 1 {
        return Err(KeyFileError::Malformed);
    }
    let public = reader.string("public key").map_err(malformed)?;
    let private = reader.string("private keys").map_err(malformed)?;
    if !reader.is_empty() || !private.len().is_multiple_of(8) {
        return Err(KeyFileError::Malformed);
    }
    let mut reader = Reader::new(private);
    let checks = [
        reader.u32("check").map_err(malformed)?,
        reader.u32("check").map_err(malformed)?,
    ];
    let secret = openssh_secret(&mut reader)?;
    reader.string("comment").map_err(malformed)?;
    let padding = reader.rest();
    let counts_up = padding.iter().zip(1..).all(|(byte, count)| *byte == count);
    if checks[0] != checks[1] || padding.len() >= 8 || !counts_up {
        return Err(KeyFileError::Malformed);
    }
    if secret.public_blob() != public {
        return Err(KeyFileError::Malformed);
    }
    make(&secret)
}

fn openssh_secret<'a>(reader: &mut Reader<'a>) -> Result<Secret<'a>, KeyFileError> {
    let name = reader.string("key type").map_err(malformed)?;
    let key_type = KeyType::by_name(name).ok_or(KeyFileError::Unsupported)?;
    let mut string = || reader.string("private value").map_err(malformed);
    match key_type {
        KeyType::Ed25519 => {
            let public = string()?;
            let (seed, again) = string()?
                .split_at_checked(32)
                .ok_or(KeyFileError::Malformed)?;
            if again != public {
                return Err(KeyFileError::Malformed);
            }
            Ok(Secret::Ed25519(Ed25519Secret {
                seed,
                public: Some(public),
            }))
        }
        KeyType::EcdsaP256 | KeyType::EcdsaP384 => {
            let (curve, point) = (string()?, string()?);
            if curve_name(key_type) != curve {
                return Err(KeyFileError::Malformed);
            }
            let scalar = reader.mpint("scalar").map_err(malformed)?;
            Ok(Secret::Ecdsa(EcdsaSecret {
                key_type,
                scalar,
                point,
            }))
        }
        KeyType::Rsa => {
            let mut number = || reader.mpint("RSA value").map_err(malformed);
            let (n, e, d) = (number()?, number()?, number()?);
            let (q_inverse, p, q) = (number()?, number()?, number()?);
            Ok(Secret::Rsa(RsaSecret {
                n,
                e,
                d,
                p,
                q,
                q_inverse,
            }))
        }
        // Security keys keep theirs to themselves; with P-521 nothing is signed here.
        KeyType::EcdsaP521 | KeyType::SkEd25519 | KeyType::SkEcdsaP256 => {
            Err(KeyFileError::Unsupported)
        }
    }
}

/// PKCS#8, unencrypted.
pub fn read_pkcs8<T>(
    bytes: &[u8],
    make: impl FnOnce(&Secret<'_>) -> Result<T, KeyFileError>,
) -> Result<T, KeyFileError> {
    let mut outer = Der::new(bytes);
    let mut info = outer.sequence()?;
    outer.finish()?;
    let version = info.integer()?;
    let mut algorithm = info.sequence()?;
    let key = info.element(der::OCTET_STRING)?;
    let _attributes = info.optional(der::CONTEXT_0)?;
    let public = info.optional(der::CONTEXT_1_PRIMITIVE)?;
    info.finish()?;
    if !matches!(version, [] | [1]) {
        return Err(KeyFileError::Malformed);
    }
    match algorithm.element(der::OBJECT_IDENTIFIER)? {
        OID_RSA => {
            algorithm.element(der::NULL)?;
            algorithm.finish()?;
            make(&Secret::Rsa(rsa_private_key(key)?))
        }
        OID_EC => {
            let curve = algorithm.optional(der::OBJECT_IDENTIFIER)?;
            let key_type = curve
                .and_then(curve_type)
                .ok_or(KeyFileError::Unsupported)?;
            make(&Secret::Ecdsa(ec_private_key(key, Some(key_type))?))
        }
        OID_ED25519 => {
            algorithm.finish()?;
            let mut inner = Der::new(key);
            let seed = inner.element(der::OCTET_STRING)?;
            inner.finish()?;
            let public = match public {
                None => None,
                Some([0, public @ ..]) => Some(public),
                Some(_) => return Err(KeyFileError::Malformed),
            };
            make(&Secret::Ed25519(Ed25519Secret { seed, public }))
        }
        _ => Err(KeyFileError::Unsupported),
    }
}

/// RSAPrivateKey.
fn rsa_private_key(bytes: &[u8]) -> Result<RsaSecret<'_>, KeyFileError> {
    let mut outer = Der::new(bytes);
    let mut key = outer.sequence()?;
    outer.finish()?;
    match key.integer()? {
        [] => {}
        [1] => return Err(KeyFileError::Unsupported), // more than two primes
        _ => return Err(KeyFileError::Malformed),
    }
    let (n, e, d) = (key.integer()?, key.integer()?, key.integer()?);
    let (p, q) = (key.integer()?, key.integer()?);
    // What is derived from the others is derived anew.
    let (_, _, q_inverse) = (key.integer()?, key.integer()?, key.integer()?);
    key.finish()?;
    Ok(RsaSecret {
        n,
        e,
        d,
        p,
        q,
        q_inverse,
    })
}

/// ECPrivateKey. `outer_type`: from PKCS#8, where the curve is named outside.
fn ec_private_key(
    bytes: &[u8],
    outer_type: Option<KeyType>,
) -> Result<EcdsaSecret<'_>, KeyFileError> {
    let mut outer = Der::new(bytes);
    let mut key = outer.sequence()?;
    outer.finish()?;
    if key.integer()? != [1] {
        return Err(KeyFileError::Malformed);
    }
    let scalar = key.element(der::OCTET_STRING)?;
    let inner_type = match key.optional(der::CONTEXT_0)? {
        None => None,
        Some(parameters) => {
            let curve = Der::new(parameters).optional(der::OBJECT_IDENTIFIER)?;
            Some(
                curve
                    .and_then(curve_type)
                    .ok_or(KeyFileError::Unsupported)?,
            )
        }
    };
    // Nothing at hand computes a missing point; OpenSSL and ssh-keygen write it.
    let public = key
        .optional(der::CONTEXT_1)?
        .ok_or(KeyFileError::Unsupported)?;
    let point = Der::new(public).bit_string()?;
    key.finish()?;
    let key_type = match (outer_type, inner_type) {
        (Some(outer), Some(inner)) if outer != inner => return Err(KeyFileError::Malformed),
        (outer, inner) => outer.or(inner).ok_or(KeyFileError::Malformed)?,
    };
    Ok(EcdsaSecret {
        key_type,
        scalar,
        point,
    })
}

impl Secret<'_> {
    /// As the file's public part must say it.
    fn public_blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        match self {
            Secret::Ed25519(secret) => {
                blob.put_string(KeyType::Ed25519.name().as_bytes());
                blob.put_string(secret.public.unwrap_or_default());
            }
            Secret::Ecdsa(secret) => {
                blob.put_string(secret.key_type.name().as_bytes());
                blob.put_string(curve_name(secret.key_type));
                blob.put_string(secret.point);
            }
            Secret::Rsa(secret) => {
                blob.put_string(KeyType::Rsa.name().as_bytes());
                blob.put_mpint(secret.e);
                blob.put_mpint(secret.n);
            }
        }
        blob
    }
}

/// The name of an ECDSA type's curve (RFC 5656 section 10.1); empty for other types.
pub fn curve_name(key_type: KeyType) -> &'static [u8] {
    match key_type {
        KeyType::EcdsaP256 => b"nistp256",
        KeyType::EcdsaP384 => b"nistp384",
        _ => b"",
    }
}

fn curve_type(oid: &[u8]) -> Option<KeyType> {
    match oid {
        OID_P256 => Some(KeyType::EcdsaP256),
        OID_P384 => Some(KeyType::EcdsaP384),
        _ => None,
    }
}

fn malformed(_: ProtocolError) -> KeyFileError {
    KeyFileError::Malformed
}

impl From<NotDer> for KeyFileError {
    fn from(_: NotDer) -> Self {
        Self::Malformed
    }
}

const OPENSSH_MAGIC: &[u8] = b"openssh-key-v1\0";
/// As ssh-keygen breaks lines.
const LINE_BYTES: usize = 70;
/// rsaEncryption, 1.2.840.113549.1.1.1
const OID_RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// id-ecPublicKey, 1.2.840.10045.2.1
const OID_EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// prime256v1, 1.2.840.10045.3.1.7
const OID_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// secp384r1, 1.3.132.0.34
const OID_P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
/// id-Ed25519, 1.3.101.112
const OID_ED25519: &[u8] = &[0x2b, 0x65, 0x70];
