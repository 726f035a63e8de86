//! Key revocation lists, as `ssh-keygen -k` writes them (OpenSSH PROTOCOL.krl).
//!
//! Read from front to back for one credential, nothing is kept. What is not understood is an error,
//! and the caller must then refuse everything: it may have been meant to revoke this.

use std::fmt;

use ring::digest;

use super::certificate::Certificate;
use super::public_key::PublicKey;
use crate::ssh::ProtocolError;
use crate::ssh::wire::Reader;

const MAGIC: &[u8] = b"SSHKRL\n\0";
const FORMAT_VERSION: u32 = 1;

// Sections.
const CERTIFICATES: u8 = 1;
const EXPLICIT_KEYS: u8 = 2;
const SHA1_FINGERPRINTS: u8 = 3;
const SHA256_FINGERPRINTS: u8 = 5;
const EXTENSION: u8 = 255;

// Parts of a section of certificates.
const SERIAL_LIST: u8 = 0x20;
const SERIAL_RANGE: u8 = 0x21;
const SERIAL_BITMAP: u8 = 0x22;
const KEY_ID: u8 = 0x23;
const CERTIFICATES_EXTENSION: u8 = 0x39;

/// Why a list cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListError {
    /// A field runs past the end, or holds what it cannot.
    Malformed(&'static str),
    /// A version, section or critical extension that is not known here.
    Unknown(&'static str),
}

impl fmt::Display for ListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "the revocation list is damaged ({what})"),
            Self::Unknown(what) => write!(f, "the revocation list has an unknown {what}"),
        }
    }
}

impl From<ProtocolError> for ListError {
    fn from(error: ProtocolError) -> Self {
        match error {
            ProtocolError::Truncated { field } | ProtocolError::BadValue { field } => {
                Self::Malformed(field)
            }
            _ => Self::Malformed("rest"),
        }
    }
}

/// What is asked about.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The key, and for a certificate its authority.
    keys: Vec<HashedKey<'a>>,
    certificate: Option<&'a Certificate>,
}

#[derive(Debug)]
struct HashedKey<'a> {
    blob: &'a [u8],
    sha1: digest::Digest,
    sha256: digest::Digest,
}

impl<'a> Subject<'a> {
    /// A key by itself.
    pub fn key(key: &'a PublicKey) -> Self {
        Self {
            keys: vec![HashedKey::new(key)],
            certificate: None,
        }
    }

    /// Nothing: to see whether a list can be read.
    pub fn nothing() -> Self {
        Self {
            keys: Vec::new(),
            certificate: None,
        }
    }

    /// A certificate: it, its key, or its authority may be revoked.
    pub fn certificate(certificate: &'a Certificate) -> Self {
        Self {
            keys: vec![
                HashedKey::new(&certificate.key),
                HashedKey::new(&certificate.authority),
            ],
            certificate: Some(certificate),
        }
    }

    fn has(&self, matches: impl FnMut(&HashedKey<'a>) -> bool) -> bool {
        self.keys.iter().any(matches)
    }
}

impl<'a> HashedKey<'a> {
    fn new(key: &'a PublicKey) -> Self {
        Self {
            blob: &key.blob,
            // Fingerprints of old lists; nothing is signed with it.
            sha1: digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &key.blob),
            sha256: digest::digest(&digest::SHA256, &key.blob),
        }
    }
}

/// Whether a file's content is such a list, good or bad.
pub fn is_one(content: &[u8]) -> bool {
    content.starts_with(MAGIC)
}

/// Whether the list revokes the subject. All of it is read: a list that is damaged behind the place
/// that counts is as damaged as any.
///
/// # Errors
///
/// [`ListError`]; nothing may be accepted then.
pub fn revokes(content: &[u8], subject: &Subject<'_>) -> Result<bool, ListError> {
    let mut reader = Reader::new(content);
    if reader.bytes(MAGIC.len(), "magic")? != MAGIC {
        return Err(ListError::Malformed("magic"));
    }
    if reader.u32("format version")? != FORMAT_VERSION {
        return Err(ListError::Unknown("format version"));
    }
    reader.u64("version")?;
    reader.u64("date")?;
    reader.u64("flags")?;
    reader.string("reserved")?;
    reader.string("comment")?;
    let mut revoked = false;
    while !reader.is_empty() {
        let kind = reader.u8("section type")?;
        let section = Reader::new(reader.string("section")?);
        revoked |= match kind {
            CERTIFICATES => certificates(section, subject)?,
            EXPLICIT_KEYS => any_string(section, |blob| subject.has(|key| key.blob == blob))?,
            SHA1_FINGERPRINTS => fingerprints(section, 20, |hash| {
                subject.has(|key| key.sha1.as_ref() == hash)
            })?,
            SHA256_FINGERPRINTS => fingerprints(section, 32, |hash| {
                subject.has(|key| key.sha256.as_ref() == hash)
            })?,
            EXTENSION => {
                extension(section)?;
                false
            }
            // Signatures too (4): OpenSSH never verified them, and refuses them since 9.4.
            _ => return Err(ListError::Unknown("section")),
        };
    }
    Ok(revoked)
}

fn any_string(
    mut section: Reader<'_>,
    mut matches: impl FnMut(&[u8]) -> bool,
) -> Result<bool, ListError> {
    let mut found = false;
    while !section.is_empty() {
        found |= matches(section.string("key")?);
    }
    Ok(found)
}

fn fingerprints(
    section: Reader<'_>,
    length: usize,
    matches: impl Fn(&[u8]) -> bool,
) -> Result<bool, ListError> {
    let mut sizes_are_right = true;
    let found = any_string(section, |hash| {
        sizes_are_right &= hash.len() == length;
        matches(hash)
    })?;
    if sizes_are_right {
        Ok(found)
    } else {
        Err(ListError::Malformed("fingerprint"))
    }
}

/// One authority's certificates, or everybody's where it names none.
fn certificates(mut section: Reader<'_>, subject: &Subject<'_>) -> Result<bool, ListError> {
    let authority = section.string("authority")?;
    section.string("reserved")?;
    let concerned = subject
        .certificate
        .filter(|it| authority.is_empty() || it.authority.blob == authority);
    let mut revoked = false;
    while !section.is_empty() {
        let kind = section.u8("certificate section type")?;
        let part = Reader::new(section.string("certificate section")?);
        // Zero is what authorities that count nothing write: it cannot be revoked by number.
        let serial = concerned.map(|it| it.serial).filter(|&serial| serial != 0);
        revoked |= match kind {
            SERIAL_LIST => serial_list(part, serial)?,
            SERIAL_RANGE => serial_range(part, serial)?,
            SERIAL_BITMAP => serial_bitmap(part, serial)?,
            KEY_ID => any_string(part, |id| concerned.is_some_and(|it| it.key_id == id))?,
            CERTIFICATES_EXTENSION => {
                extension(part)?;
                false
            }
            _ => return Err(ListError::Unknown("certificate section")),
        };
    }
    Ok(revoked)
}

fn serial_list(mut part: Reader<'_>, wanted: Option<u64>) -> Result<bool, ListError> {
    let mut found = false;
    while !part.is_empty() {
        let serial = part.u64("serial number")?;
        found |= wanted == Some(serial);
    }
    Ok(found)
}

fn serial_range(mut part: Reader<'_>, wanted: Option<u64>) -> Result<bool, ListError> {
    let first = part.u64("first serial number")?;
    let last = part.u64("last serial number")?;
    if !part.is_empty() || first > last {
        return Err(ListError::Malformed("range of serial numbers"));
    }
    Ok(wanted.is_some_and(|serial| (first..=last).contains(&serial)))
}

/// A number whose bits stand for serial numbers from `offset` on, the lowest bit first.
fn serial_bitmap(mut part: Reader<'_>, wanted: Option<u64>) -> Result<bool, ListError> {
    let offset = part.u64("offset")?;
    let bitmap = part.mpint("bitmap")?;
    if !part.is_empty() {
        return Err(ListError::Malformed("bitmap of serial numbers"));
    }
    let Some(distance) = wanted.and_then(|serial| serial.checked_sub(offset)) else {
        return Ok(false);
    };
    let byte = usize::try_from(distance / 8)
        .ok()
        .and_then(|from_end| bitmap.len().checked_sub(from_end)?.checked_sub(1))
        .and_then(|index| bitmap.get(index));
    Ok(byte.is_some_and(|byte| byte >> (distance % 8) & 1 == 1))
}

/// What is not known may be passed over unless it says that it matters.
fn extension(mut part: Reader<'_>) -> Result<(), ListError> {
    part.string("name of an extension")?;
    let critical = part.boolean("critical flag")?;
    part.string("extension")?;
    if !part.is_empty() {
        return Err(ListError::Malformed("extension"));
    }
    if critical {
        return Err(ListError::Unknown("critical extension"));
    }
    Ok(())
}
