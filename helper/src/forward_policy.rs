//! Which forwards a login may have, by the names that the client asked for.
//!
//! What is asked is compared as it was written, before anything is resolved: as with sshd, a rule
//! for `localhost` is none for `127.0.0.1`. Source: sshd_config(5) AllowTcpForwarding,
//! AllowStreamLocalForwarding, PermitOpen, PermitListen, GatewayPorts.
#![forbid(unsafe_code)]

use crate::forward_frame::{Forwarding, Gateway, HostPort, Place};
use crate::pattern;

/// Bytes of a host name: DNS has 255; longer ones resolve to nothing.
const HOST_MAX_BYTES: usize = 255;

/// Whether a connection to `to` is permitted.
pub fn permits_open(rules: &Forwarding, to: &Place) -> bool {
    match to {
        Place::Tcp { host, port } => {
            rules.tcp_local
                && is_host(host)
                && rules.permit_open.iter().all(|list| {
                    list.iter().any(|(allowed, any_port)| {
                        names_port(*any_port, *port) && (&**allowed == b"*" || allowed == host)
                    })
                })
        }
        Place::Unix { path } => rules.unix_local && is_path(path),
    }
}

/// Whether listening at `at` is permitted.
pub fn permits_listen(rules: &Forwarding, at: &Place) -> bool {
    match at {
        Place::Tcp { host, port } => {
            let lowered = host.to_ascii_lowercase();
            let is_named = |(allowed, any_port): &HostPort| {
                names_port(*any_port, *port) && pattern::matches(&lowered, allowed)
            };
            rules.tcp_remote
                && (host.is_empty() || is_host(host))
                && rules
                    .permit_listen
                    .iter()
                    .all(|list| list.iter().any(is_named))
        }
        // As with sshd, PermitListen is about ports.
        Place::Unix { path } => rules.unix_remote && is_path(path),
    }
}

/// Which addresses a listener gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bind<'a> {
    /// Those of the loopback interface.
    Loopback,
    /// All.
    Wildcard,
    /// The one that the client named.
    Named(&'a [u8]),
}

/// Where a listener that was asked for at `host` listens (RFC 4254 section 7.1, within the limits
/// that GatewayPorts sets).
pub fn bind_to<'a>(gateway: Gateway, host: &'a [u8]) -> Bind<'a> {
    // One of the two families of loopback may be asked for always.
    let is_loopback = host == b"127.0.0.1" || host == b"::1";
    match gateway {
        Gateway::Yes => Bind::Wildcard,
        Gateway::No if is_loopback => Bind::Named(host),
        Gateway::No => Bind::Loopback,
        Gateway::ClientSpecified if host.is_empty() || host == b"*" => Bind::Wildcard,
        Gateway::ClientSpecified if host == b"localhost" => Bind::Loopback,
        Gateway::ClientSpecified => Bind::Named(host),
    }
}

fn names_port(allowed: u16, asked: u16) -> bool {
    allowed == 0 || allowed == asked
}

fn is_host(host: &[u8]) -> bool {
    !host.is_empty() && host.len() <= HOST_MAX_BYTES && !host.contains(&0)
}

/// An abstract name (with a NUL in front) is none: anybody could take or meet it.
fn is_path(path: &[u8]) -> bool {
    !path.is_empty() && !path.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Bytes;
    use alloc::vec;

    fn all() -> Forwarding {
        Forwarding {
            tcp_local: true,
            tcp_remote: true,
            unix_local: true,
            unix_remote: true,
            ..Forwarding::default()
        }
    }

    fn tcp(host: &str, port: u16) -> Place {
        Place::Tcp {
            host: host.into(),
            port,
        }
    }

    fn unix(path: &[u8]) -> Place {
        Place::Unix { path: path.into() }
    }

    fn list(entries: &[(&str, u16)]) -> Vec<HostPort> {
        entries
            .iter()
            .map(|(host, port)| (Bytes::from(*host), *port))
            .collect()
    }

    #[test]
    fn without_a_policy_nothing_is_permitted() {
        let none = Forwarding::default();
        for place in [tcp("localhost", 22), unix(b"/run/x")] {
            assert!(!permits_open(&none, &place));
            assert!(!permits_listen(&none, &place));
        }
    }

    #[test]
    fn a_target_is_compared_as_it_was_asked_for() {
        let rules = Forwarding {
            permit_open: vec![list(&[("localhost", 80), ("10.0.0.1", 0), ("*", 443)])],
            ..all()
        };
        for (host, port, permitted) in [
            ("localhost", 80, true),
            ("LOCALHOST", 80, false),
            ("127.0.0.1", 80, false),
            ("localhost", 81, false),
            ("10.0.0.1", 9, true),
            ("anything", 443, true),
            ("localhost.", 80, false),
        ] {
            assert_eq!(permits_open(&rules, &tcp(host, port)), permitted, "{host}");
        }
    }

    #[test]
    fn every_list_must_name_the_target_and_an_empty_one_names_none() {
        let both = Forwarding {
            permit_open: vec![list(&[("*", 80)]), list(&[("a", 0)])],
            permit_listen: vec![list(&[]), list(&[("*", 0)])],
            ..all()
        };
        assert!(permits_open(&both, &tcp("a", 80)));
        assert!(!permits_open(&both, &tcp("b", 80)));
        assert!(!permits_open(&both, &tcp("a", 81)));
        assert!(!permits_listen(&both, &tcp("localhost", 8080)));
    }

    #[test]
    fn listening_places_are_patterns_in_lower_case() {
        let rules = Forwarding {
            permit_listen: vec![list(&[("127.0.*", 8080), ("local*", 0)])],
            ..all()
        };
        assert!(permits_listen(&rules, &tcp("127.0.0.1", 8080)));
        assert!(permits_listen(&rules, &tcp("LocalHost", 1)));
        assert!(!permits_listen(&rules, &tcp("127.0.0.1", 0)));
        assert!(!permits_listen(&rules, &tcp("", 8080)));
    }

    #[test]
    fn names_and_paths_without_sense_are_refused() {
        let long = "x".repeat(HOST_MAX_BYTES + 1);
        for host in ["", "a\0b", &long] {
            assert!(!permits_open(&all(), &tcp(host, 80)), "{host:?}");
        }
        assert!(permits_listen(&all(), &tcp("", 80)), "all addresses");
        assert!(!permits_listen(&all(), &tcp("a\0b", 80)));
        for path in [&b""[..], b"\0abstract", b"/tmp/a\0b"] {
            assert!(!permits_open(&all(), &unix(path)));
            assert!(!permits_listen(&all(), &unix(path)));
        }
    }

    #[test]
    fn gateway_ports_decides_where_a_port_listens() {
        use Bind::{Loopback, Named, Wildcard};
        for (host, no, specified) in [
            ("", Loopback, Wildcard),
            ("*", Loopback, Wildcard),
            ("0.0.0.0", Loopback, Named(&b"0.0.0.0"[..])),
            ("localhost", Loopback, Loopback),
            ("127.0.0.1", Named(b"127.0.0.1"), Named(b"127.0.0.1")),
            ("::1", Named(b"::1"), Named(b"::1")),
            ("192.0.2.1", Loopback, Named(b"192.0.2.1")),
        ] {
            let host = host.as_bytes();
            assert_eq!(bind_to(Gateway::No, host), no, "{host:?}");
            assert_eq!(bind_to(Gateway::ClientSpecified, host), specified);
            assert_eq!(bind_to(Gateway::Yes, host), Wildcard);
        }
    }
}
