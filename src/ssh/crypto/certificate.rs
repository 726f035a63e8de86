//! OpenSSH certificates: a key, whom it stands for, how long and for what, signed by another key.
//!
//! Source: draft-miller-ssh-cert. Parsing and the authority's signature are here; whether the
//! authority is trusted, for whom and now, is the monitor's business. Everything here reads bytes
//! of strangers.

use super::CryptoError;
use super::public_key::{KeyType, PublicKey, malformed, take_key};
use crate::ssh::wire::Reader;

/// Names in one certificate at most, as OpenSSH.
const PRINCIPALS_MAX: usize = 256;
/// Options of each kind at most; OpenSSH knows ten.
const OPTIONS_MAX: usize = 64;

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    User,
    Host,
}

/// A critical option or an extension: its name and its data, which may be empty.
pub type CertificateOption = (Vec<u8>, Vec<u8>);

/// A certificate in its parts. That [`Self::verify`] succeeded is for the caller to see to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The whole blob.
    pub blob: Vec<u8>,
    /// The key that is certified, as a key of its own.
    pub key: PublicKey,
    pub serial: u64,
    pub kind: Kind,
    /// What the authority calls it, for logs.
    pub key_id: Vec<u8>,
    pub principals: Vec<Vec<u8>>,
    /// Valid from this second (Unix time) on.
    pub valid_after_s: u64,
    /// Not valid from this second on.
    pub valid_before_s: u64,
    pub critical_options: Vec<CertificateOption>,
    pub extensions: Vec<CertificateOption>,
    /// Who signed it.
    pub authority: PublicKey,
    /// Length of what is signed, and the signature behind it.
    signed_bytes: usize,
    signature: Vec<u8>,
}

impl Certificate {
    /// Whether a blob's type is that of a certificate, good or bad.
    pub fn is_one(blob: &[u8]) -> bool {
        Reader::new(blob)
            .string("key type")
            .is_ok_and(|name| KeyType::by_certificate_name(name).is_some())
    }

    /// Takes a blob apart, exactly: nothing may be left over, names of options stand in order and
    /// once, and an authority is never a certificate itself.
    ///
    /// # Errors
    ///
    /// [`CryptoError::Unsupported`] for keys of other types, [`CryptoError::Malformed`].
    pub fn parse(blob: &[u8]) -> Result<Self, CryptoError> {
        let mut reader = Reader::new(blob);
        let name = reader.string("key type").map_err(malformed)?;
        let key_type = KeyType::by_certificate_name(name).ok_or(CryptoError::Unsupported)?;
        reader.string("nonce").map_err(malformed)?;
        let key = take_key(key_type, &mut reader)?;
        let serial = reader.u64("serial").map_err(malformed)?;
        let kind = match reader.u32("type").map_err(malformed)? {
            1 => Kind::User,
            2 => Kind::Host,
            _ => return Err(CryptoError::Malformed),
        };
        let key_id = reader.string("key id").map_err(malformed)?.to_vec();
        let principals = principals(reader.string("valid principals").map_err(malformed)?)?;
        let valid_after_s = reader.u64("valid after").map_err(malformed)?;
        let valid_before_s = reader.u64("valid before").map_err(malformed)?;
        let critical_options = options(reader.string("critical options").map_err(malformed)?)?;
        let extensions = options(reader.string("extensions").map_err(malformed)?)?;
        reader.string("reserved").map_err(malformed)?;
        let authority = reader.string("signature key").map_err(malformed)?;
        let signed_bytes = blob.len() - reader.clone().rest().len();
        let signature = reader.string("signature").map_err(malformed)?.to_vec();
        if !reader.is_empty() {
            return Err(CryptoError::Malformed);
        }
        Ok(Self {
            blob: blob.to_vec(),
            key,
            serial,
            kind,
            key_id,
            principals,
            valid_after_s,
            valid_before_s,
            critical_options,
            extensions,
            authority: PublicKey::from_blob(authority)?,
            signed_bytes,
            signature,
        })
    }

    /// The algorithm that the authority signed with.
    pub fn signature_algorithm(&self) -> &[u8] {
        Reader::new(&self.signature)
            .string("signature algorithm")
            .unwrap_or_default()
    }

    /// Whether the authority signed it.
    ///
    /// # Errors
    ///
    /// As [`PublicKey::verify`].
    pub fn verify(&self) -> Result<(), CryptoError> {
        let (signed, signature) = self.signed();
        self.authority
            .verify(self.signature_algorithm(), signed, signature)
            .map(drop)
    }

    /// What the authority signed, and its signature.
    pub fn signed(&self) -> (&[u8], &[u8]) {
        let signed = self.blob.get(..self.signed_bytes).unwrap_or_default();
        (signed, &self.signature)
    }
}

/// Strings one after the other.
fn principals(packed: &[u8]) -> Result<Vec<Vec<u8>>, CryptoError> {
    let mut reader = Reader::new(packed);
    let mut names = Vec::new();
    while !reader.is_empty() {
        if names.len() >= PRINCIPALS_MAX {
            return Err(CryptoError::Malformed);
        }
        names.push(reader.string("principal").map_err(malformed)?.to_vec());
    }
    Ok(names)
}

/// Pairs of a name and data, which, where there is any, is a string within the string.
fn options(packed: &[u8]) -> Result<Vec<CertificateOption>, CryptoError> {
    let mut reader = Reader::new(packed);
    let mut options: Vec<CertificateOption> = Vec::new();
    while !reader.is_empty() {
        let name = reader.string("option").map_err(malformed)?;
        let data = reader.string("option data").map_err(malformed)?;
        let in_order = options
            .last()
            .is_none_or(|(last, _)| last.as_slice() < name);
        if !in_order || options.len() >= OPTIONS_MAX {
            return Err(CryptoError::Malformed);
        }
        options.push((name.to_vec(), data.to_vec()));
    }
    Ok(options)
}
