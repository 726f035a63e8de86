//! The keywords about forwarding: their values and defaults (sshd_config(5)).

use agent_helper::forward_frame::{Family, Gateway};

use super::lex::Line;
use super::settings::Settings;
use super::value::{self, AddressFamily, Parsed};

/// Which ways may be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ways {
    /// From here to elsewhere (`ssh -L`).
    pub local: bool,
    /// To the client from here (`ssh -R`).
    pub remote: bool,
}

/// What PermitOpen and PermitListen name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    Any,
    /// Only these; port 0 is any.
    These(Vec<(String, u16)>),
}

/// Everything about forwarding, as it holds for one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardOptions {
    pub tcp: Ways,
    pub unix: Ways,
    pub disabled: bool,
    pub gateway: Gateway,
    pub permit_open: Places,
    pub permit_listen: Places,
    pub bind_mask: u32,
    pub bind_unlink: bool,
    pub family: Family,
}

impl ForwardOptions {
    /// The values of `settings`, with OpenSSH's defaults.
    pub(super) fn new(settings: &Settings) -> Self {
        const BOTH: Ways = Ways {
            local: true,
            remote: true,
        };
        let places = |set: &Option<Places>| set.clone().unwrap_or(Places::Any);
        Self {
            tcp: settings.allow_tcp_forwarding.unwrap_or(BOTH),
            unix: settings.allow_stream_local_forwarding.unwrap_or(BOTH),
            disabled: settings.disable_forwarding.unwrap_or(false),
            gateway: settings.gateway_ports.unwrap_or(Gateway::No),
            permit_open: places(&settings.permit_open),
            permit_listen: places(&settings.permit_listen),
            bind_mask: settings.stream_local_bind_mask.unwrap_or(0o177),
            bind_unlink: settings.stream_local_bind_unlink.unwrap_or(false),
            family: match settings.address_family {
                None | Some(AddressFamily::Any) => Family::Any,
                Some(AddressFamily::Inet) => Family::V4,
                Some(AddressFamily::Inet6) => Family::V6,
            },
        }
    }

    /// Keywords and values in the manner of `sshd -T`.
    pub(super) fn dump(&self, mut line: impl FnMut(&str, String)) {
        let yes_no = |value: bool| if value { "yes" } else { "no" }.to_owned();
        line("allowtcpforwarding", ways_text(self.tcp).to_owned());
        line(
            "allowstreamlocalforwarding",
            ways_text(self.unix).to_owned(),
        );
        line("disableforwarding", yes_no(self.disabled));
        let gateway = match self.gateway {
            Gateway::No => "no",
            Gateway::Yes => "yes",
            Gateway::ClientSpecified => "clientspecified",
        };
        line("gatewayports", gateway.to_owned());
        line("permitopen", places_text(&self.permit_open));
        line("permitlisten", places_text(&self.permit_listen));
        line("streamlocalbindmask", format!("0{:o}", self.bind_mask));
        line("streamlocalbindunlink", yes_no(self.bind_unlink));
    }
}

fn ways_text(ways: Ways) -> &'static str {
    match (ways.local, ways.remote) {
        (true, true) => "yes",
        (true, false) => "local",
        (false, true) => "remote",
        (false, false) => "no",
    }
}

fn places_text(places: &Places) -> String {
    let one = |(host, port): &(String, u16)| {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        match port {
            0 => format!("{host}:*"),
            port => format!("{host}:{port}"),
        }
    };
    match places {
        Places::Any => "any".to_owned(),
        Places::These(list) if list.is_empty() => "none".to_owned(),
        Places::These(list) => list.iter().map(one).collect::<Vec<_>>().join(" "),
    }
}

/// AllowTcpForwarding and AllowStreamLocalForwarding.
pub(super) fn ways(text: &str) -> Parsed<Ways> {
    let ways = |local, remote| Ways { local, remote };
    value::one_of(
        text,
        &[
            ("yes", ways(true, true)),
            ("all", ways(true, true)),
            ("no", ways(false, false)),
            ("local", ways(true, false)),
            ("remote", ways(false, true)),
        ],
    )
}

/// GatewayPorts.
pub(super) fn gateway(text: &str) -> Parsed<Gateway> {
    value::one_of(
        text,
        &[
            ("yes", Gateway::Yes),
            ("no", Gateway::No),
            ("clientspecified", Gateway::ClientSpecified),
        ],
    )
}

/// PermitOpen; with `host_is_optional` PermitListen.
pub(super) fn places(line: &Line<'_>, host_is_optional: bool) -> Parsed<Places> {
    match line.arguments.as_slice() {
        [] => Err("has no value".to_owned()),
        [only] if only.eq_ignore_ascii_case("any") => Ok(Places::Any),
        [only] if only.eq_ignore_ascii_case("none") => Ok(Places::These(Vec::new())),
        list => list
            .iter()
            .map(|text| {
                host_port(text, host_is_optional).ok_or_else(|| {
                    let form = if host_is_optional {
                        "[host:]port"
                    } else {
                        "host:port"
                    };
                    format!("\"{text}\" is not {form} with a port from 1 to 65535 or *")
                })
            })
            .collect::<Parsed<Vec<_>>>()
            .map(Places::These),
    }
}

/// `host:port`, with an IPv6 address in brackets; `*` is any host or any port.
pub fn host_port(text: &str, host_is_optional: bool) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some(parts) => parts,
        None if host_is_optional => ("*", text),
        None => return None,
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        // Without brackets it would not be clear where the address ends.
        None if host.contains(':') => return None,
        None => host,
    };
    let port = match port {
        "*" => 0,
        number => value::port(number).ok()?,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// StreamLocalBindMask: octal digits.
pub(super) fn mask(text: &str) -> Parsed<u32> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mask| *mask <= 0o777 && !text.starts_with('+'))
        .ok_or_else(|| format!("\"{text}\" is not a mask in octal digits, such as 0177"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_have_a_host_and_a_port_that_exists() {
        let good = |text: &str, host: &str, port| {
            assert_eq!(
                host_port(text, false),
                Some((host.to_owned(), port)),
                "{text}"
            );
        };
        good("localhost:80", "localhost", 80);
        good("*:80", "*", 80);
        good("[2001:db8::1]:443", "2001:db8::1", 443);
        good("host:*", "host", 0);
        for text in [
            "",
            ":",
            "80",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:65536",
            "host:-1",
            "host:+1",
            "host:4294967295",
            "::1:80",
            "[::1:80",
            "[]:80",
            "host:8 0",
        ] {
            assert_eq!(host_port(text, false), None, "{text}");
        }
        assert_eq!(host_port("8080", true), Some(("*".to_owned(), 8080)));
        assert_eq!(host_port("0", true), None);
    }

    #[test]
    fn masks_are_octal() {
        assert_eq!(mask("0177"), Ok(0o177));
        assert_eq!(mask("0"), Ok(0));
        for text in ["", "8", "+7", "-7", "1000", "0x1"] {
            assert!(mask(text).is_err(), "{text}");
        }
    }
}
