//! authorized_keys lines (sshd(8), AUTHORIZED_KEYS FILE FORMAT): bytes of a user, read as root.
//!
//! Opens nothing: the helper's child reads the files with the user's rights, this module gets the
//! bytes. A line that is not wholly understood gives no key. Every limit is in [`crate::limits`].

#![forbid(unsafe_code)]

mod options;
mod permits;

use std::fmt;

use crate::limits;
use crate::ssh::crypto::certificate::Certificate;
use crate::ssh::crypto::public_key::{KeyType, PublicKey};
use crate::ssh::crypto::{CryptoError, base64};

pub use options::{KeyOptions, Refusal, parse_time};
pub use permits::Permits;

/// A line that holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLine {
    pub options: KeyOptions,
    pub key_type: KeyType,
    pub blob: Vec<u8>,
    pub comment: Vec<u8>,
}

/// Why a line gives no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineError {
    /// Longer than the limit.
    TooLong,
    /// A NUL byte.
    Nul,
    /// No key type where one should be.
    NoKey,
    /// More than options and one name in a line of a principals file.
    NoPrincipal,
    /// A key type that is not served here.
    UnsupportedType,
    /// The key is not base64, or not of the type that the line names.
    BadKey,
    /// An option that OpenSSH does not know either.
    UnknownOption,
    /// An option without its value, with a bad value, or with bad quotes.
    BadOption(&'static str),
    /// `principals=` where there is no authority: what it was meant to limit is not limited.
    NoAuthority,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {} bytes", limits::KEY_LINE_MAX_BYTES),
            Self::Nul => f.write_str("holds a NUL byte"),
            Self::NoKey => f.write_str("holds no key"),
            Self::NoPrincipal => f.write_str("is not a name, nor options and a name"),
            Self::UnsupportedType => f.write_str("its key type is not served"),
            Self::BadKey => f.write_str("its key is damaged"),
            Self::UnknownOption => f.write_str("has an unknown option"),
            Self::BadOption(name) => write!(f, "its option {name} is malformed"),
            Self::NoAuthority => {
                f.write_str("has an option that belongs to cert-authority lines of key files")
            }
        }
    }
}

/// Parses one line without its line end. `None`: empty or a comment.
///
/// # Errors
///
/// [`LineError`]; the line must be skipped then, and said so in the log.
pub fn parse_line(line: &[u8]) -> Result<Option<KeyLine>, LineError> {
    if line.len() > limits::KEY_LINE_MAX_BYTES {
        return Err(LineError::TooLong);
    }
    let line = skip_blanks(line.strip_suffix(b"\r").unwrap_or(line));
    if line.is_empty() || line.first() == Some(&b'#') {
        return Ok(None);
    }
    if line.contains(&0) {
        return Err(LineError::Nul);
    }
    // As in sshd: a line that begins with a key type has no options.
    if is_key_type(word(line).0) {
        return parse_key(line, KeyOptions::default()).map(Some);
    }
    let (options, rest) = split_options(line)?;
    let options = options::parse_options(options)?;
    if options.principals.is_some() && !options.cert_authority {
        return Err(LineError::NoAuthority);
    }
    parse_key(skip_blanks(rest), options).map(Some)
}

fn parse_key(text: &[u8], options: KeyOptions) -> Result<KeyLine, LineError> {
    let (name, rest) = word(text);
    let key_type = match KeyType::by_name(name) {
        Some(key_type) => key_type,
        None if is_key_type(name) => return Err(LineError::UnsupportedType),
        None => return Err(LineError::NoKey),
    };
    let (encoded, rest) = word(skip_blanks(rest));
    let blob = base64::decode(encoded).ok_or(LineError::BadKey)?.to_vec();
    // Whether the rest of the blob is a good key shows when a signature is verified with it.
    if !names_type(&blob, key_type.name().as_bytes()) {
        return Err(LineError::BadKey);
    }
    Ok(KeyLine {
        options,
        key_type,
        blob,
        comment: skip_blanks(rest).to_vec(),
    })
}

/// Parses a line of a principals file: a name, with the options of a key line before it or not
/// (sshd_config(5) AuthorizedPrincipalsFile). `None`: empty or a comment.
///
/// # Errors
///
/// [`LineError`]; the line must be skipped then, and said so in the log.
pub fn parse_principal(line: &[u8]) -> Result<Option<(KeyOptions, &[u8])>, LineError> {
    if line.len() > limits::KEY_LINE_MAX_BYTES {
        return Err(LineError::TooLong);
    }
    if line.contains(&0) {
        return Err(LineError::Nul);
    }
    // As in sshd: a comment may begin anywhere.
    let line = line.split(|&byte| byte == b'#').next().unwrap_or(line);
    let line = skip_blanks(line);
    let end = line
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
    let Some(line) = end.and_then(|end| line.get(..=end)) else {
        return Ok(None);
    };
    if !line.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
        return Ok(Some((KeyOptions::default(), line)));
    }
    let (options, rest) = split_options(line)?;
    let name = skip_blanks(rest);
    if name.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(LineError::NoPrincipal);
    }
    let options = options::parse_options(options)?;
    if options.principals.is_some() || options.cert_authority {
        return Err(LineError::NoAuthority);
    }
    Ok(Some((options, name)))
}

/// The key of a line that is a key and nothing before it; of a certificate the key that it is
/// about. `None`: empty or a comment.
///
/// # Errors
///
/// [`LineError`]
pub fn key_of_line(line: &[u8]) -> Result<Option<PublicKey>, LineError> {
    let line = skip_blanks(line.strip_suffix(b"\r").unwrap_or(line));
    if line.is_empty() || line.first() == Some(&b'#') {
        return Ok(None);
    }
    let (name, rest) = word(line);
    let encoded = word(skip_blanks(rest)).0;
    if KeyType::by_certificate_name(name).is_some() {
        let blob = base64::decode(encoded).ok_or(LineError::BadKey)?;
        let certificate = Certificate::parse(&blob).map_err(|_| LineError::BadKey)?;
        return Ok(Some(certificate.key));
    }
    let key = parse_key(line, KeyOptions::default())?;
    match PublicKey::from_blob(&key.blob) {
        Ok(key) => Ok(Some(key)),
        // Too short or too long for anybody to log in with.
        Err(CryptoError::Unsupported) => Err(LineError::UnsupportedType),
        Err(_) => Err(LineError::BadKey),
    }
}

/// Whether the line can hold the key of type `key_type` whose blob reads `text` in base64; a quick
/// look that spares [`parse_line`] for lines about other keys. A blob has one spelling only.
pub fn names_key(line: &[u8], key_type: KeyType, text: &[u8]) -> bool {
    let line = skip_blanks(line.strip_suffix(b"\r").unwrap_or(line));
    if line.len() < text.len() {
        return false;
    }
    let (first, rest) = word(line);
    if first == key_type.name().as_bytes() {
        let behind = skip_blanks(rest).strip_prefix(text);
        return behind.is_some_and(|behind| matches!(behind.first(), None | Some(b' ' | b'\t')));
    }
    if is_key_type(first) {
        return false;
    }
    line.split(|byte| matches!(byte, b' ' | b'\t'))
        .any(|word| word == text)
}

/// Whether the blob's first string is `name` (RFC 4253 section 6.6).
fn names_type(blob: &[u8], name: &[u8]) -> bool {
    let Some((length, rest)) = blob.split_first_chunk::<4>() else {
        return false;
    };
    usize::try_from(u32::from_be_bytes(*length)) == Ok(name.len()) && rest.starts_with(name)
}

/// Key types of OpenSSH, served or not: what tells a key from options.
fn is_key_type(word: &[u8]) -> bool {
    KeyType::by_name(word).is_some()
        || [
            &b"ssh-"[..],
            b"ecdsa-sha2-",
            b"sk-ssh-",
            b"sk-ecdsa-",
            b"webauthn-sk-",
        ]
        .iter()
        .any(|prefix| word.starts_with(prefix))
}

/// Cuts the options off: they end at the first blank outside of quotes.
fn split_options(line: &[u8]) -> Result<(&[u8], &[u8]), LineError> {
    let mut quoted = false;
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        match byte {
            b'\\' if line.get(at + 1) == Some(&b'"') => at += 1,
            b'"' => quoted = !quoted,
            b' ' | b'\t' if !quoted => return Ok(line.split_at(at)),
            _ => {}
        }
        at += 1;
    }
    Err(if quoted {
        LineError::BadOption("quotes")
    } else {
        LineError::NoKey
    })
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    &text[start.unwrap_or(text.len())..]
}

/// Where the first line ends: eight bytes at a time, since files of thousands of lines are read for
/// each login.
fn line_end(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const LINE_ENDS: u64 = u64::from_ne_bytes([b'\n'; 8]);
    let has_none = |word: &&[u8; 8]| {
        let zero_where_it_ends = u64::from_ne_bytes(**word) ^ LINE_ENDS;
        // The classic test for a zero byte in a word.
        zero_where_it_ends.wrapping_sub(ONES) & !zero_where_it_ends & (ONES << 7) == 0
    };
    let (words, _) = bytes.as_chunks::<8>();
    let passed = words.iter().take_while(has_none).count() * 8;
    let rest = bytes.get(passed..)?;
    Some(passed + rest.iter().position(|&byte| byte == b'\n')?)
}

/// The first word and what is behind it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| matches!(byte, b' ' | b'\t'));
    text.split_at(end.unwrap_or(text.len()))
}

/// Cuts a stream of chunks into lines, holding one line of bounded length at most.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    /// The current line is over the limit and was reported; its rest is passed over.
    skipping: bool,
    /// Lines that ended so far.
    ended: u32,
}

impl Lines {
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives every line that `chunk` completes to `each`, with its number, from 1. A line over the
    /// limit comes as [`LineError::TooLong`], once, and its rest is skipped.
    pub fn push(&mut self, chunk: &[u8], mut each: impl FnMut(u32, Result<&[u8], LineError>)) {
        let mut rest = chunk;
        while let Some(end) = line_end(rest) {
            let (line, behind) = rest.split_at(end);
            rest = &behind[1..];
            if self.held.is_empty() && !self.skipping && line.len() <= limits::KEY_LINE_MAX_BYTES {
                each(self.number(), Ok(line));
            } else {
                self.hold(line, &mut each);
                if !self.skipping {
                    each(self.number(), Ok(&self.held));
                }
            }
            self.held.clear();
            self.skipping = false;
            self.ended = self.ended.saturating_add(1);
        }
        self.hold(rest, &mut each);
    }

    /// The end of the file: the last line, if it had no line end.
    pub fn finish(self, mut each: impl FnMut(u32, Result<&[u8], LineError>)) {
        if !self.skipping && !self.held.is_empty() {
            each(self.number(), Ok(&self.held));
        }
    }

    fn hold(&mut self, part: &[u8], each: &mut impl FnMut(u32, Result<&[u8], LineError>)) {
        if self.skipping {
            return;
        }
        if self.held.len() + part.len() > limits::KEY_LINE_MAX_BYTES {
            self.held.clear();
            self.skipping = true;
            each(self.number(), Err(LineError::TooLong));
        } else {
            self.held.extend_from_slice(part);
        }
    }

    fn number(&self) -> u32 {
        self.ended.saturating_add(1)
    }
}

#[cfg(test)]
mod tests;
