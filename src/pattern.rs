//! Patterns of ssh_config(5), section PATTERNS: wildcards, lists with negation, CIDR.
//!
//! Owns the comparison only. Semantics are OpenSSH's match.c and addr.c, because administrators
//! rely on them: a negated pattern that matches denies, and a list of negations alone matches
//! nothing.

use std::net::IpAddr;

/// What a pattern list says about a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A pattern matches and no negated one does.
    Yes,
    /// Nothing matches.
    No,
    /// A negated pattern matches: whatever else the list says, this is a no.
    Negated,
}

/// A CIDR or address that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadAddress {
    /// Neither an address nor address/length.
    Syntax,
    /// The prefix is longer than the family's addresses.
    PrefixLength,
    /// Bits of the address are set behind the prefix: OpenSSH refuses it as inconsistent.
    HostBits,
}

impl Outcome {
    /// Whether the list matches.
    pub fn is_match(self) -> bool {
        self == Self::Yes
    }
}

impl BadAddress {
    /// What is wrong, to follow the quoted entry in a sentence.
    pub fn phrase(self) -> &'static str {
        match self {
            Self::Syntax => "is empty or not an address",
            Self::PrefixLength => "has a prefix length that its family does not have",
            Self::HostBits => "has bits set behind its prefix; write the network's address",
        }
    }
}

/// Whether `text` matches the one `pattern`, `*` for any run of bytes, `?` for any one byte. Takes
/// time linear in `text` times `pattern` at most, never more.
pub fn matches_one(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut next) = (0, 0);
    // Where to resume after the last `*`: behind it in the pattern, and the text position tried.
    let mut retry: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(next) {
            Some(b'*') => {
                next += 1;
                retry = Some((next, at));
            }
            Some(&wanted) if wanted == b'?' || wanted == text[at] => {
                at += 1;
                next += 1;
            }
            _ => match retry {
                Some((behind_star, tried)) => {
                    at = tried + 1;
                    next = behind_star;
                    retry = Some((behind_star, at));
                }
                None => return false,
            },
        }
    }
    pattern[next..].iter().all(|&left| left == b'*')
}

/// What the comma-separated `list` with `!negation` says about `text`.
pub fn matches_list(text: &[u8], list: &[u8]) -> Outcome {
    let mut outcome = Outcome::No;
    for pattern in list.split(|&byte| byte == b',') {
        match pattern.strip_prefix(b"!") {
            Some(negated) if matches_one(text, negated) => return Outcome::Negated,
            None if matches_one(text, pattern) => outcome = Outcome::Yes,
            _ => {}
        }
    }
    outcome
}

/// As [`matches_list`], with ASCII letters of `list` and `text` compared without case: host names.
pub fn matches_host_list(host: &[u8], list: &[u8]) -> Outcome {
    matches_list(&host.to_ascii_lowercase(), &list.to_ascii_lowercase())
}

/// Whether `address` is in `cidr` (`ADDRESS` or `ADDRESS/LENGTH`). Addresses of the other family
/// are not; an IPv4 address mapped into IPv6 counts as IPv4.
///
/// # Errors
///
/// [`BadAddress`] if `cidr` is not one.
pub fn cidr_match(address: IpAddr, cidr: &str) -> Result<bool, BadAddress> {
    let (base, prefix_bits) = parse_cidr(cidr)?;
    Ok(match (address.to_canonical(), base) {
        (IpAddr::V4(ours), IpAddr::V4(base)) => {
            let mask = u32::MAX.checked_shl(32 - prefix_bits).unwrap_or(0);
            u32::from(ours) & mask == u32::from(base)
        }
        (IpAddr::V6(ours), IpAddr::V6(base)) => {
            let mask = u128::MAX.checked_shl(128 - prefix_bits).unwrap_or(0);
            u128::from(ours) & mask == u128::from(base)
        }
        _ => false,
    })
}

/// Whether `list` is addresses and CIDRs and nothing else, as `source-address` of certificates.
pub fn is_cidr_list(list: &str) -> bool {
    list.split(',').all(|entry| parse_cidr(entry).is_ok())
}

/// What a list of addresses, CIDRs and wildcards (`192.0.2.*`) says about `address`.
///
/// # Errors
///
/// [`BadAddress`] for an entry that is a malformed CIDR.
pub fn address_matches_list(address: IpAddr, list: &str) -> Result<Outcome, BadAddress> {
    let text = address.to_canonical().to_string();
    let mut outcome = Outcome::No;
    for entry in list.split(',') {
        let (negated, entry) = match entry.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, entry),
        };
        // OpenSSH: an empty entry, a lone `!` included, makes the list invalid.
        if entry.is_empty() {
            return Err(BadAddress::Syntax);
        }
        let matched = match cidr_match(address, entry) {
            Ok(matched) => matched,
            // Not an address at all: a wildcard pattern.
            Err(BadAddress::Syntax) => matches_one(text.as_bytes(), entry.as_bytes()),
            Err(wrong) => return Err(wrong),
        };
        match (matched, negated) {
            (true, true) => return Ok(Outcome::Negated),
            (true, false) => outcome = Outcome::Yes,
            (false, _) => {}
        }
    }
    Ok(outcome)
}

/// What the list of `from=` or of `USER@HOST` says about a client: addresses and CIDRs count
/// against the address, wildcards against the address and, where it is known, the host name.
///
/// # Errors
///
/// [`BadAddress`] for an entry that is a malformed CIDR; the caller must refuse then.
pub fn matches_client(
    host: Option<&str>,
    address: IpAddr,
    list: &str,
) -> Result<Outcome, BadAddress> {
    let by_address = address_matches_list(address, list)?;
    if by_address == Outcome::Negated {
        return Ok(Outcome::Negated);
    }
    let by_name = match host {
        Some(host) => matches_host_list(host.as_bytes(), list.as_bytes()),
        None => Outcome::No,
    };
    Ok(match (by_address, by_name) {
        (_, Outcome::Negated) => Outcome::Negated,
        (Outcome::No, Outcome::No) => Outcome::No,
        _ => Outcome::Yes,
    })
}

/// Whether one entry of AllowUsers or DenyUsers, `USER` or `USER@HOST`, means this login.
///
/// # Errors
///
/// [`BadAddress`] for a malformed CIDR behind the `@`.
pub fn matches_user(
    user: &str,
    host: Option<&str>,
    address: IpAddr,
    entry: &str,
) -> Result<bool, BadAddress> {
    match entry.rsplit_once('@') {
        None => Ok(matches_one(user.as_bytes(), entry.as_bytes())),
        Some((name, from)) => {
            let from_matches = matches_client(host, address, from)?.is_match();
            Ok(from_matches && matches_one(user.as_bytes(), name.as_bytes()))
        }
    }
}

fn parse_cidr(cidr: &str) -> Result<(IpAddr, u32), BadAddress> {
    let (address, length) = match cidr.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (cidr, None),
    };
    let address: IpAddr = address.parse().map_err(|_| BadAddress::Syntax)?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let prefix_bits = match length {
        None => width,
        Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
            return Err(BadAddress::PrefixLength);
        }
        Some(digits) => digits.parse().map_err(|_| BadAddress::PrefixLength)?,
    };
    if prefix_bits > width {
        return Err(BadAddress::PrefixLength);
    }
    let host_bits = match address {
        IpAddr::V4(v4) => u32::from(v4).checked_shl(prefix_bits).unwrap_or(0) != 0,
        IpAddr::V6(v6) => u128::from(v6).checked_shl(prefix_bits).unwrap_or(0) != 0,
    };
    if host_bits {
        Err(BadAddress::HostBits)
    } else {
        Ok((address, prefix_bits))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn wildcards_match_runs_and_single_bytes() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "*", true),
            ("", "?", false),
            ("alice", "a*e", true),
            ("alice", "a?ice", true),
            ("alice", "alic", false),
            ("alice", "*alice*", true),
            ("aXbXc", "a*b*c", true),
            ("aXbXd", "a*b*c", false),
            ("LC_ALL", "LC_*", true),
            ("abab", "*ab", true),
        ] {
            assert_eq!(
                matches_one(text.as_bytes(), pattern.as_bytes()),
                expected,
                "{text} {pattern}"
            );
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let text = vec![b'a'; 2000];
        let pattern = b"a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b".to_vec();
        assert!(!matches_one(&text, &pattern));
    }

    #[test]
    fn a_negated_match_denies_and_negation_alone_matches_nothing() {
        assert_eq!(matches_list(b"bob", b"*,!bob"), Outcome::Negated);
        assert_eq!(matches_list(b"bob", b"!bob,*"), Outcome::Negated);
        assert_eq!(matches_list(b"eve", b"!bob"), Outcome::No);
        assert_eq!(matches_list(b"eve", b"!bob,e*"), Outcome::Yes);
        assert_eq!(matches_list(b"eve", b"Eve"), Outcome::No);
        assert_eq!(
            matches_host_list(b"Host.Example", b"*.EXAMPLE"),
            Outcome::Yes
        );
    }

    #[test]
    fn cidr_compares_prefixes_of_one_family() {
        for (address, cidr, expected) in [
            ("192.0.2.1", "192.0.2.0/24", Ok(true)),
            ("192.0.3.1", "192.0.2.0/24", Ok(false)),
            ("192.0.2.1", "0.0.0.0/0", Ok(true)),
            ("192.0.2.1", "192.0.2.1", Ok(true)),
            ("192.0.2.1", "192.0.2.1/32", Ok(true)),
            ("::ffff:192.0.2.1", "192.0.2.0/24", Ok(true)),
            ("2001:db8::1", "2001:db8::/32", Ok(true)),
            ("2001:db9::1", "2001:db8::/32", Ok(false)),
            ("2001:db8::1", "::/0", Ok(true)),
            ("2001:db8::1", "0.0.0.0/0", Ok(false)),
            ("192.0.2.1", "192.0.2.1/24", Err(BadAddress::HostBits)),
            ("192.0.2.1", "192.0.2.0/33", Err(BadAddress::PrefixLength)),
            ("192.0.2.1", "192.0.2.0/", Err(BadAddress::PrefixLength)),
            ("192.0.2.1", "192.0.2.0/-1", Err(BadAddress::PrefixLength)),
            ("192.0.2.1", "192.0.2.0/+8", Err(BadAddress::PrefixLength)),
            ("192.0.2.1", "192.0.2", Err(BadAddress::Syntax)),
        ] {
            assert_eq!(cidr_match(ip(address), cidr), expected, "{address} {cidr}");
        }
    }

    #[test]
    fn address_lists_mix_cidr_wildcards_and_negation() {
        let client = ip("192.0.2.7");
        for (list, expected) in [
            ("192.0.2.*", Ok(Outcome::Yes)),
            ("10.0.0.0/8,192.0.2.0/24", Ok(Outcome::Yes)),
            ("192.0.2.0/24,!192.0.2.7", Ok(Outcome::Negated)),
            ("!192.0.2.7,192.0.2.0/24", Ok(Outcome::Negated)),
            ("!10.0.0.0/8", Ok(Outcome::No)),
            ("", Err(BadAddress::Syntax)),
            ("10.0.0.0/8,", Err(BadAddress::Syntax)),
            ("!", Err(BadAddress::Syntax)),
            ("192.0.2.1/24", Err(BadAddress::HostBits)),
        ] {
            assert_eq!(address_matches_list(client, list), expected, "{list}");
        }
    }

    #[test]
    fn a_client_matches_by_address_or_name_unless_either_is_negated() {
        let client = ip("192.0.2.7");
        let host = Some("box.example");
        assert_eq!(matches_client(host, client, "*.example"), Ok(Outcome::Yes));
        assert_eq!(matches_client(None, client, "*.example"), Ok(Outcome::No));
        assert_eq!(
            matches_client(host, client, "192.0.2.7,!*.example"),
            Ok(Outcome::Negated)
        );
        assert_eq!(
            matches_client(host, client, "*.example,!192.0.2.0/24"),
            Ok(Outcome::Negated)
        );
        assert_eq!(matches_client(None, client, "!192.0.2.8"), Ok(Outcome::No));
    }

    #[test]
    fn user_entries_may_name_the_client() {
        let client = ip("127.0.0.1");
        let matches = |entry| matches_user("cf12a", None, client, entry);
        assert_eq!(matches("cf??a"), Ok(true));
        assert_eq!(matches("cf??a@127.0.0.0/8"), Ok(true));
        assert_eq!(matches("cf??a@10.0.0.0/8"), Ok(false));
        assert_eq!(matches("root@127.0.0.1"), Ok(false));
        assert_eq!(matches("cf12a@127.0.0.1/8"), Err(BadAddress::HostBits));
    }
}
