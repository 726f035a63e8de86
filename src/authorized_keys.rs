//! authorized_keys lines (sshd(8), AUTHORIZED_KEYS FILE FORMAT): bytes of a user, read as root.
//!
//! Opens nothing: the helper's child reads the files with the user's rights, this module gets the
//! bytes. A line that is not wholly understood gives no key. Every limit is in [`crate::limits`].

#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;

use crate::limits;
use crate::local_time::{self, Civil};
use crate::pattern::{self, Outcome};
use crate::ssh::crypto::base64;
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

/// Why a key that fits must not be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// from= does not name the client, or names it with `!`.
    From,
    /// from= holds a malformed CIDR: what it would have excluded is not known.
    FromMalformed,
    /// expiry-time= has passed.
    Expired,
    /// The line has an option that is not implemented.
    Unimplemented(&'static str),
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self {
            command: None,
            environment: Vec::new(),
            from: None,
            expires_s: None,
            permit_pty: true,
            permit_user_rc: true,
            permit_port_forwarding: true,
            permit_agent_forwarding: true,
            permit_x11_forwarding: true,
            unimplemented: Vec::new(),
        }
    }
}

impl KeyOptions {
    /// Whether the key may be used by this client at `now_s` (Unix time). `host` is the client's
    /// verified name, with `UseDNS yes`.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn admit(&self, host: Option<&str>, address: IpAddr, now_s: i64) -> Result<(), Refusal> {
        if let Some(name) = self.unimplemented.first() {
            return Err(Refusal::Unimplemented(name));
        }
        if self.expires_s.is_some_and(|expires_s| now_s >= expires_s) {
            return Err(Refusal::Expired);
        }
        match &self.from {
            None => Ok(()),
            Some(list) => match pattern::matches_client(host, address, list) {
                Ok(Outcome::Yes) => Ok(()),
                Ok(Outcome::No | Outcome::Negated) => Err(Refusal::From),
                Err(_) => Err(Refusal::FromMalformed),
            },
        }
    }
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => write!(f, "longer than {} bytes", limits::KEY_LINE_MAX_BYTES),
            Self::Nul => f.write_str("holds a NUL byte"),
            Self::NoKey => f.write_str("holds no key"),
            Self::UnsupportedType => f.write_str("its key type is not served"),
            Self::BadKey => f.write_str("its key is damaged"),
            Self::UnknownOption => f.write_str("has an unknown option"),
            Self::BadOption(name) => write!(f, "its option {name} is malformed"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From => f.write_str("from= does not permit this client"),
            Self::FromMalformed => f.write_str("from= holds a malformed address"),
            Self::Expired => f.write_str("expiry-time= has passed"),
            Self::Unimplemented(name) => write!(f, "option {name} is not implemented yet"),
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
    let options = parse_options(options)?;
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

fn parse_options(text: &[u8]) -> Result<KeyOptions, LineError> {
    let mut options = KeyOptions::default();
    let mut rest = text;
    while !rest.is_empty() {
        rest = parse_option(rest, &mut options)?;
        match rest.split_first() {
            None => break,
            Some((b',', behind)) => rest = behind,
            Some(_) => return Err(LineError::UnknownOption),
        }
    }
    Ok(options)
}

/// Takes one option off the front; returns what is behind it.
fn parse_option<'a>(text: &'a [u8], options: &mut KeyOptions) -> Result<&'a [u8], LineError> {
    let end = text
        .iter()
        .position(|byte| matches!(byte, b',' | b'='))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let name = name.to_ascii_lowercase();
    match rest.strip_prefix(b"=") {
        None => parse_flag(&name, options).map(|()| rest),
        Some(value) => parse_valued(&name, value, options),
    }
}

fn parse_flag(name: &[u8], options: &mut KeyOptions) -> Result<(), LineError> {
    match name {
        b"restrict" => {
            options.permit_pty = false;
            options.permit_user_rc = false;
            options.permit_port_forwarding = false;
            options.permit_agent_forwarding = false;
            options.permit_x11_forwarding = false;
        }
        b"pty" => options.permit_pty = true,
        b"no-pty" => options.permit_pty = false,
        b"user-rc" => options.permit_user_rc = true,
        b"no-user-rc" => options.permit_user_rc = false,
        b"port-forwarding" => options.permit_port_forwarding = true,
        b"no-port-forwarding" => options.permit_port_forwarding = false,
        b"agent-forwarding" => options.permit_agent_forwarding = true,
        b"no-agent-forwarding" => options.permit_agent_forwarding = false,
        b"x11-forwarding" => options.permit_x11_forwarding = true,
        b"no-x11-forwarding" => options.permit_x11_forwarding = false,
        // The default, about FIDO keys.
        b"touch-required" | b"no-verify-required" => {}
        b"cert-authority" => add_once(&mut options.unimplemented, "cert-authority"),
        b"no-touch-required" => add_once(&mut options.unimplemented, "no-touch-required"),
        b"verify-required" => add_once(&mut options.unimplemented, "verify-required"),
        b"command" | b"environment" | b"from" | b"expiry-time" | b"principals" | b"permitopen"
        | b"permitlisten" | b"tunnel" => return Err(LineError::BadOption("without a value")),
        _ => return Err(LineError::UnknownOption),
    }
    Ok(())
}

fn parse_valued<'a>(
    name: &[u8],
    text: &'a [u8],
    options: &mut KeyOptions,
) -> Result<&'a [u8], LineError> {
    let name = match name {
        b"command" => "command",
        b"environment" => "environment",
        b"from" => "from",
        b"expiry-time" => "expiry-time",
        b"principals" => "principals",
        b"permitopen" => "permitopen",
        b"permitlisten" => "permitlisten",
        b"tunnel" => "tunnel",
        _ => return Err(LineError::UnknownOption),
    };
    let bad = LineError::BadOption(name);
    let (value, rest) = unquote(text).ok_or(bad)?;
    let valid = match name {
        "command" => set_once(&mut options.command, value),
        "from" => String::from_utf8(value).is_ok_and(|list| set_once(&mut options.from, list)),
        "environment" => add_environment(options, value),
        "expiry-time" => add_expiry(options, &value),
        "permitopen" | "permitlisten" => {
            add_once(&mut options.unimplemented, name);
            is_forward_target(&value, name == "permitlisten")
        }
        _ => {
            add_once(&mut options.unimplemented, name);
            true
        }
    };
    if valid { Ok(rest) } else { Err(bad) }
}

/// A value in double quotes, in which only `\"` is special; returns it and what is behind it.
fn unquote(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let inside = text.strip_prefix(b"\"")?;
    let mut value = Vec::new();
    let mut at = 0;
    loop {
        match inside.get(at)? {
            b'"' => return Some((value, &inside[at + 1..])),
            b'\\' if inside.get(at + 1) == Some(&b'"') => {
                value.push(b'"');
                at += 2;
            }
            &byte => {
                value.push(byte);
                at += 1;
            }
        }
    }
}

/// False where there is a value already: two of them leave open which one was meant.
fn set_once<T>(slot: &mut Option<T>, value: T) -> bool {
    slot.is_none() && {
        *slot = Some(value);
        true
    }
}

fn add_once(list: &mut Vec<&'static str>, name: &'static str) {
    if !list.contains(&name) {
        list.push(name);
    }
}

/// Takes NAME=value; the name is letters, digits and underscores. The first of a name wins.
fn add_environment(options: &mut KeyOptions, text: Vec<u8>) -> bool {
    let Some(equals) = text.iter().position(|&byte| byte == b'=') else {
        return false;
    };
    let (name, value) = text.split_at(equals);
    if name.is_empty()
        || !name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
    {
        return false;
    }
    if !options.environment.iter().any(|(known, _)| known == name) {
        options
            .environment
            .push((name.to_vec(), value[1..].to_vec()));
    }
    true
}

/// The earliest of several counts.
fn add_expiry(options: &mut KeyOptions, text: &[u8]) -> bool {
    let Some(expires_s) = parse_time(text) else {
        return false;
    };
    options.expires_s = Some(match options.expires_s {
        Some(earlier_s) => earlier_s.min(expires_s),
        None => expires_s,
    });
    true
}

/// YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS in local time; with `Z` or `UTC` behind it in UTC. A
/// moment that is 0 is refused, since 0 stands for never in OpenSSH.
fn parse_time(text: &[u8]) -> Option<i64> {
    let upper = text.to_ascii_uppercase();
    let stem = upper
        .strip_suffix(b"UTC")
        .or_else(|| upper.strip_suffix(b"Z"));
    let digits = stem.unwrap_or(&upper);
    if !digits.iter().all(u8::is_ascii_digit) || !matches!(digits.len(), 8 | 12 | 14) {
        return None;
    }
    let pair = |at: usize, low: u8, high: u8| -> Option<u8> {
        match digits.get(at..at + 2) {
            None => Some(low),
            Some(two) => {
                let value = (two[0] - b'0') * 10 + (two[1] - b'0');
                (low..=high).contains(&value).then_some(value)
            }
        }
    };
    let civil = Civil {
        year: i32::from(pair(0, 0, 99)?) * 100 + i32::from(pair(2, 0, 99)?),
        month: pair(4, 1, 12)?,
        day: pair(6, 1, 31)?,
        hour: pair(8, 0, 23)?,
        minute: pair(10, 0, 59)?,
        second: pair(12, 0, 60)?,
        weekday: 0,
    };
    let unix_s = if stem.is_some() {
        local_time::from_utc(&civil)
    } else {
        local_time::from_local(&civil)
    };
    unix_s.filter(|&unix_s| unix_s > 0)
}

/// `host:port` (`port` alone where the host may be left out) with a port from 1 to 65535 or `*`.
/// Not used yet, but a malformed restriction must never come to mean "any".
fn is_forward_target(value: &[u8], host_is_optional: bool) -> bool {
    let (host, port) = match value.iter().rposition(|&byte| byte == b':') {
        Some(colon) => (&value[..colon], &value[colon + 1..]),
        None if host_is_optional => (&b"*"[..], value),
        None => return false,
    };
    let number = std::str::from_utf8(port)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    let port_is_good =
        port == b"*" || number.is_some_and(|text| text.parse::<u16>().is_ok_and(|port| port != 0));
    !host.is_empty() && port_is_good
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t'));
    &text[start.unwrap_or(text.len())..]
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
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
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
