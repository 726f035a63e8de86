//! The options of a key line (sshd(8), AUTHORIZED_KEYS FILE FORMAT), all 22 of them.
//!
//! What a certificate permits has the same form, so that both can be narrowed to what they have in
//! common (`monitor::rights`).

#![forbid(unsafe_code)]

use std::fmt;
use std::net::IpAddr;

use agent_helper::tunnel::{ANY_UNIT, UNIT_MAX};

use super::LineError;
use super::permits::Permits;
use crate::local_time::{self, Civil};
use crate::pattern::{self, Outcome};

/// What the options of a line say. The default is a line without options: everything permitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyOptions {
    /// command=
    pub command: Option<Vec<u8>>,
    /// environment=, the first of one name wins.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// from=, the pattern list.
    pub from: Option<String>,
    /// expiry-time=: not valid from this second (Unix time) on.
    pub expires_s: Option<i64>,
    /// The rights with a word each.
    pub permits: Permits,
    /// tunnel=: this one only; [`agent_helper::tunnel::ANY_UNIT`] for "any".
    pub tunnel: Option<u32>,
    /// permitopen=: `HOST:PORT` in the order of the line; empty: no limit of this line.
    pub permit_open: Vec<Vec<u8>>,
    /// permitlisten=: `HOST:PORT`, the host `*` where the line leaves it out.
    pub permit_listen: Vec<Vec<u8>>,
    /// cert-authority: the key signs certificates and is none to log in with.
    pub cert_authority: bool,
    /// principals=, a list of names.
    pub principals: Option<Vec<u8>>,
    /// no-touch-required takes it away: a security key must have been touched.
    pub require_touch: bool,
    /// verify-required: a security key must have verified its user, by PIN for example.
    pub require_verify: bool,
    /// source-address of a certificate: addresses and CIDRs only.
    pub source_address: Option<String>,
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
    /// The certificate's source-address does not name the client.
    SourceAddress,
}

impl Default for KeyOptions {
    fn default() -> Self {
        Self {
            command: None,
            environment: Vec::new(),
            from: None,
            expires_s: None,
            permits: Permits::ALL,
            tunnel: None,
            permit_open: Vec::new(),
            permit_listen: Vec::new(),
            cert_authority: false,
            principals: None,
            require_touch: true,
            require_verify: false,
            source_address: None,
        }
    }
}

impl KeyOptions {
    /// Nothing permitted: where a certificate begins.
    pub fn none() -> Self {
        Self {
            permits: Permits::NONE,
            ..Self::default()
        }
    }

    /// Whether the key may be used by this client at `now_s` (Unix time). `host` is the client's
    /// verified name, with `UseDNS yes`.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn admit(&self, host: Option<&str>, address: IpAddr, now_s: i64) -> Result<(), Refusal> {
        if self.expires_s.is_some_and(|expires_s| now_s >= expires_s) {
            return Err(Refusal::Expired);
        }
        if let Some(list) = &self.from {
            match pattern::matches_client(host, address, list) {
                Ok(Outcome::Yes) => {}
                Ok(Outcome::No | Outcome::Negated) => return Err(Refusal::From),
                Err(_) => return Err(Refusal::FromMalformed),
            }
        }
        match &self.source_address {
            Some(list) if !in_any(address, list) => Err(Refusal::SourceAddress),
            _ => Ok(()),
        }
    }
}

impl Refusal {
    /// The stable reason code (docs/refusals.md).
    pub fn code(self) -> &'static str {
        match self {
            Self::From | Self::FromMalformed => "key-option-from",
            Self::Expired => "key-option-expiry-time",
            Self::SourceAddress => "cert-source-address",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From => f.write_str("from= does not permit this client"),
            Self::FromMalformed => f.write_str("from= holds a malformed address"),
            Self::Expired => f.write_str("expiry-time= has passed"),
            Self::SourceAddress => {
                f.write_str("the certificate's source-address does not permit this client")
            }
        }
    }
}

/// Parses options, separated by commas. As in sshd, nothing between two commas is no option.
pub(super) fn parse_options(text: &[u8]) -> Result<KeyOptions, LineError> {
    let mut options = KeyOptions::default();
    let mut rest = text;
    while !rest.is_empty() {
        if rest.first() != Some(&b',') {
            rest = parse_option(rest, &mut options)?;
        }
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
        b"restrict" => options.permits = Permits::NONE,
        b"pty" => options.permits.pty = true,
        b"no-pty" => options.permits.pty = false,
        b"user-rc" => options.permits.user_rc = true,
        b"no-user-rc" => options.permits.user_rc = false,
        b"port-forwarding" => options.permits.port_forwarding = true,
        b"no-port-forwarding" => options.permits.port_forwarding = false,
        b"agent-forwarding" => options.permits.agent_forwarding = true,
        b"no-agent-forwarding" => options.permits.agent_forwarding = false,
        b"x11-forwarding" => options.permits.x11_forwarding = true,
        b"no-x11-forwarding" => options.permits.x11_forwarding = false,
        // The default, about FIDO keys.
        b"cert-authority" => options.cert_authority = true,
        b"touch-required" => options.require_touch = true,
        b"no-touch-required" => options.require_touch = false,
        b"verify-required" => options.require_verify = true,
        b"no-verify-required" => options.require_verify = false,
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
        "permitopen" => add_target(&mut options.permit_open, value, false),
        "permitlisten" => add_target(&mut options.permit_listen, value, true),
        "principals" => !value.is_empty() && set_once(&mut options.principals, value),
        _ => tunnel_unit(&value).is_some_and(|unit| set_once(&mut options.tunnel, unit)),
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
pub fn parse_time(text: &[u8]) -> Option<i64> {
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

/// Takes `HOST:PORT` (`PORT` alone where the host may be left out) with a port from 1 to 65535 or
/// `*`. A malformed restriction must never come to mean "any".
fn add_target(targets: &mut Vec<Vec<u8>>, value: Vec<u8>, host_is_optional: bool) -> bool {
    let colon = value.iter().rposition(|&byte| byte == b':');
    let (host, port) = match colon {
        Some(colon) => (&value[..colon], &value[colon + 1..]),
        None if host_is_optional => (&b"*"[..], &value[..]),
        None => return false,
    };
    if host.is_empty() || (port != b"*" && !is_number(port, 1, u32::from(u16::MAX))) {
        return false;
    }
    targets.push([host, b":", port].concat());
    true
}

/// The number of a tunnel device.
fn tunnel_unit(value: &[u8]) -> Option<u32> {
    if value.eq_ignore_ascii_case(b"any") {
        return Some(ANY_UNIT);
    }
    is_number(value, 0, UNIT_MAX).then_some(())?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether it is decimal digits, from `low` to `high`.
fn is_number(text: &[u8], low: u32, high: u32) -> bool {
    text.iter().all(u8::is_ascii_digit)
        && std::str::from_utf8(text).is_ok_and(|digits| {
            digits
                .parse()
                .is_ok_and(|number| low <= number && number <= high)
        })
}

/// Whether the address is in one of the list's addresses and CIDRs. What is neither admits nobody.
fn in_any(address: IpAddr, list: &str) -> bool {
    list.split(',')
        .any(|entry| pattern::cidr_match(address, entry) == Ok(true))
}
