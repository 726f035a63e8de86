//! authorized_keys lines (sshd(8), AUTHORIZED_KEYS FILE FORMAT): bytes of a user, read as root.
//!
//! Opens nothing: the helper's child reads the files with the user's rights, this module gets the
//! bytes. Every limit is in [`crate::limits`].

#![forbid(unsafe_code)]

use crate::ssh::crypto::public_key::KeyType;

/// A line that holds a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyLine {
    pub options: KeyOptions,
    pub key_type: KeyType,
    pub blob: Vec<u8>,
    pub comment: Vec<u8>,
}

/// What the options of a line say. The default is a line without options: everything permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are the options of the format"
)]
pub struct KeyOptions {
    /// command=
    pub command: Option<Vec<u8>>,
    /// environment=, the first of one name wins.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// from=, the pattern list.
    pub from: Option<String>,
    /// expiry-time=: not valid from this second (Unix time) on.
    pub expires_s: Option<i64>,
    /// pty, no-pty, restrict
    pub permit_pty: bool,
    /// user-rc, no-user-rc, restrict
    pub permit_user_rc: bool,
    /// port-forwarding, no-port-forwarding, restrict
    pub permit_port_forwarding: bool,
    /// agent-forwarding, no-agent-forwarding, restrict
    pub permit_agent_forwarding: bool,
    /// X11-forwarding, no-X11-forwarding, restrict
    pub permit_x11_forwarding: bool,
    /// Options that the line asks for and that are not implemented: the key must be refused.
    pub unimplemented: Vec<&'static str>,
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
    /// A key type that is not served here.
    UnsupportedType,
    /// The key is not base64, or not of the type that the line names.
    BadKey,
    /// An option that OpenSSH does not know either.
    UnknownOption,
    /// An option without its value, with a bad value, or with bad quotes.
    BadOption(&'static str),
}

/// Parses one line without its line end. `None`: empty or a comment.
///
/// # Errors
///
/// [`LineError`]; the line must be skipped then, and said so in the log.
#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
pub fn parse_line(line: &[u8]) -> Result<Option<KeyLine>, LineError> {
    todo!()
}

/// Cuts a stream of chunks into lines, holding one line of bounded length at most.
#[derive(Debug, Default)]
pub struct Lines(());

#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
impl Lines {
    pub fn new() -> Self {
        todo!()
    }

    /// Gives every line that `chunk` completes to `each`, with its number, from 1. A line over the
    /// limit comes as [`LineError::TooLong`], once, and its rest is skipped.
    pub fn push(&mut self, chunk: &[u8], each: impl FnMut(u32, Result<&[u8], LineError>)) {
        todo!()
    }

    /// The end of the file: the last line, if it had no line end.
    pub fn finish(self, each: impl FnMut(u32, Result<&[u8], LineError>)) {
        todo!()
    }
}
