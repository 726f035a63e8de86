//! The keywords about forwarding: their values and defaults (sshd_config(5)).

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use agent_helper::forward_frame::{Family, Gateway, X11Rules};

use super::lex::Line;
use super::settings::{Settings, absolute, settings, single, tokens};
use super::value::{self, AddressFamily, Parsed};

/// Where distributions have it.
const XAUTH: &str = "/usr/bin/xauth";

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

/// PermitTunnel: which kinds of tunnel devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tunnels {
    pub point_to_point: bool,
    pub ethernet: bool,
}

settings! { ForwardSettings {
    agent_socket_path: Option<Option<String>>,
    allow_agent_forwarding: Option<bool>,
    allow_stream_local_forwarding: Option<Ways>,
    allow_tcp_forwarding: Option<Ways>,
    disable_forwarding: Option<bool>,
    gateway_ports: Option<Gateway>,
    permit_listen: Option<Places>,
    permit_open: Option<Places>,
    permit_tunnel: Option<Tunnels>,
    stream_local_bind_mask: Option<u32>,
    stream_local_bind_unlink: Option<bool>,
    x11_display_offset: Option<u32>,
    x11_forwarding: Option<bool>,
    x11_use_localhost: Option<bool>,
    xauth_location: Option<PathBuf>,
}}

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
    pub tunnels: Tunnels,
    pub agent: bool,
    /// AgentSocketPath, tokens not expanded.
    pub agent_socket_path: Option<String>,
    /// X11Forwarding.
    pub x11: bool,
    pub x11_rules: X11Rules,
}

impl ForwardOptions {
    /// The values of `settings`, with OpenSSH's defaults.
    pub(super) fn new(settings: &Settings) -> Self {
        let set = &settings.forwarding;
        const BOTH: Ways = Ways {
            local: true,
            remote: true,
        };
        let places = |set: &Option<Places>| set.clone().unwrap_or(Places::Any);
        Self {
            tcp: set.allow_tcp_forwarding.unwrap_or(BOTH),
            unix: set.allow_stream_local_forwarding.unwrap_or(BOTH),
            disabled: set.disable_forwarding.unwrap_or(false),
            gateway: set.gateway_ports.unwrap_or(Gateway::No),
            permit_open: places(&set.permit_open),
            permit_listen: places(&set.permit_listen),
            bind_mask: set.stream_local_bind_mask.unwrap_or(0o177),
            bind_unlink: set.stream_local_bind_unlink.unwrap_or(false),
            family: match settings.address_family {
                None | Some(AddressFamily::Any) => Family::Any,
                Some(AddressFamily::Inet) => Family::V4,
                Some(AddressFamily::Inet6) => Family::V6,
            },
            tunnels: set.permit_tunnel.unwrap_or_default(),
            agent: set.allow_agent_forwarding.unwrap_or(true),
            agent_socket_path: set.agent_socket_path.clone().flatten(),
            x11: set.x11_forwarding.unwrap_or(false),
            x11_rules: X11Rules {
                offset: set.x11_display_offset.unwrap_or(10),
                localhost: set.x11_use_localhost.unwrap_or(true),
                xauth: match &set.xauth_location {
                    Some(path) => path.as_os_str().as_bytes().into(),
                    None => XAUTH.into(),
                },
            },
        }
    }

    /// Keywords and values in the manner of `sshd -T`.
    pub(super) fn dump(&self, mut line: impl FnMut(&str, String)) {
        let yes_no = |value: bool| if value { "yes" } else { "no" }.to_owned();
        line("allowagentforwarding", yes_no(self.agent));
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
        line("permittunnel", tunnels_text(self.tunnels).to_owned());
        line("streamlocalbindmask", format!("0{:o}", self.bind_mask));
        line("streamlocalbindunlink", yes_no(self.bind_unlink));
        line("x11forwarding", yes_no(self.x11));
        line("x11displayoffset", self.x11_rules.offset.to_string());
        line("x11uselocalhost", yes_no(self.x11_rules.localhost));
        let xauth = String::from_utf8_lossy(&self.x11_rules.xauth);
        line("xauthlocation", xauth.into_owned());
        let path = self.agent_socket_path.as_deref();
        line("agentsocketpath", path.unwrap_or("none").to_owned());
    }
}

/// The keywords about forwarding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    AgentSocketPath,
    AllowAgentForwarding,
    AllowStreamLocalForwarding,
    AllowTcpForwarding,
    DisableForwarding,
    GatewayPorts,
    PermitListen,
    PermitOpen,
    PermitTunnel,
    StreamLocalBindMask,
    StreamLocalBindUnlink,
    X11DisplayOffset,
    X11Forwarding,
    X11UseLocalhost,
    XAuthLocation,
}

/// Reads one line's value for `keyword`.
pub(super) fn set(to: &mut ForwardSettings, keyword: Forward, line: &Line<'_>) -> Parsed<()> {
    match keyword {
        Forward::AgentSocketPath => {
            to.agent_socket_path = Some(agent_socket_path(single(line)?)?);
        }
        Forward::AllowAgentForwarding => {
            to.allow_agent_forwarding = Some(value::yes_no(single(line)?)?);
        }
        Forward::AllowStreamLocalForwarding => {
            to.allow_stream_local_forwarding = Some(ways(single(line)?)?);
        }
        Forward::AllowTcpForwarding => {
            to.allow_tcp_forwarding = Some(ways(single(line)?)?);
        }
        Forward::DisableForwarding => {
            to.disable_forwarding = Some(value::yes_no(single(line)?)?);
        }
        Forward::GatewayPorts => to.gateway_ports = Some(gateway(single(line)?)?),
        Forward::PermitListen => to.permit_listen = Some(places(line, true)?),
        Forward::PermitOpen => to.permit_open = Some(places(line, false)?),
        Forward::PermitTunnel => to.permit_tunnel = Some(tunnels(single(line)?)?),
        Forward::StreamLocalBindMask => {
            to.stream_local_bind_mask = Some(mask(single(line)?)?);
        }
        Forward::StreamLocalBindUnlink => {
            to.stream_local_bind_unlink = Some(value::yes_no(single(line)?)?);
        }
        Forward::X11DisplayOffset => {
            to.x11_display_offset = Some(value::number(single(line)?, 0, 59_535)?);
        }
        Forward::X11Forwarding => to.x11_forwarding = Some(value::yes_no(single(line)?)?),
        Forward::X11UseLocalhost => to.x11_use_localhost = Some(value::yes_no(single(line)?)?),
        Forward::XAuthLocation => to.xauth_location = Some(absolute(single(line)?)?),
    }
    Ok(())
}

fn ways_text(ways: Ways) -> &'static str {
    match (ways.local, ways.remote) {
        (true, true) => "yes",
        (true, false) => "local",
        (false, true) => "remote",
        (false, false) => "no",
    }
}

const TUNNELS: [(&str, Tunnels); 4] = {
    const fn of(point_to_point: bool, ethernet: bool) -> Tunnels {
        Tunnels {
            point_to_point,
            ethernet,
        }
    }
    [
        ("yes", of(true, true)),
        ("no", of(false, false)),
        ("point-to-point", of(true, false)),
        ("ethernet", of(false, true)),
    ]
};

/// PermitTunnel.
fn tunnels(text: &str) -> Parsed<Tunnels> {
    value::one_of(text, &TUNNELS)
}

fn tunnels_text(tunnels: Tunnels) -> &'static str {
    let named = TUNNELS.iter().find(|(_, value)| *value == tunnels);
    named.map_or("no", |(name, _)| name)
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
fn ways(text: &str) -> Parsed<Ways> {
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
fn gateway(text: &str) -> Parsed<Gateway> {
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
fn places(line: &Line<'_>, host_is_optional: bool) -> Parsed<Places> {
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

fn agent_socket_path(text: &str) -> Parsed<Option<String>> {
    let Some(path) = value::none_or(text) else {
        return Ok(None);
    };
    tokens(path, "%huU")?;
    if path.starts_with('/') || path.starts_with("%h/") {
        Ok(Some(path.to_owned()))
    } else {
        Err(format!(
            "\"{path}\" is neither an absolute path nor below %h"
        ))
    }
}

/// StreamLocalBindMask: octal digits.
fn mask(text: &str) -> Parsed<u32> {
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
