//! The fields of forwarding: channel types and global requests (RFC 4254 section 7, OpenSSH
//! PROTOCOL 2.4), and those of the channels that we open.

use std::net::SocketAddr;

use agent_helper::forward_frame::{Failure, Place, TunnelMode};
use rustix::io::Errno;

use crate::ssh::ProtocolError;
use crate::ssh::message::{CHANNEL_OPEN, GLOBAL_REQUEST};
use crate::ssh::wire::{Reader, Writer};

/// SSH_OPEN_ADMINISTRATIVELY_PROHIBITED (RFC 4254 section 5.1).
pub(super) const PROHIBITED: u32 = 1;
/// SSH_OPEN_CONNECT_FAILED.
pub(super) const CONNECT_FAILED: u32 = 2;
/// SSH_OPEN_UNKNOWN_CHANNEL_TYPE.
pub(super) const UNKNOWN_TYPE: u32 = 3;
/// SSH_OPEN_RESOURCE_SHORTAGE.
pub(super) const RESOURCE_SHORTAGE: u32 = 4;

/// Where a channel of `kind` wants to go; `None`: it is no such type, or a port that does not exist.
pub(super) fn target(kind: &[u8], extra: &[u8]) -> Result<Option<Place>, ProtocolError> {
    let mut reader = Reader::new(extra);
    let place = match kind {
        b"direct-tcpip" => {
            let host = reader.string("host to connect")?;
            let port = reader.u32("port to connect")?;
            reader.string("originator address")?;
            reader.u32("originator port")?;
            u16::try_from(port).ok().map(|port| Place::Tcp {
                host: host.into(),
                port,
            })
        }
        b"direct-streamlocal@openssh.com" => {
            let path = reader.string("socket path")?;
            reader.string("reserved")?;
            reader.u32("reserved")?;
            Some(Place::Unix { path: path.into() })
        }
        _ => return Ok(None),
    };
    reader.finish(CHANNEL_OPEN)?;
    Ok(place)
}

/// Which tunnel device a channel of type tun@openssh.com wants; `None`: there is no such mode.
pub(super) fn tunnel(extra: &[u8]) -> Result<Option<(TunnelMode, u32)>, ProtocolError> {
    let mut reader = Reader::new(extra);
    let mode = match reader.u32("tunnel mode")? {
        1 => Some(TunnelMode::PointToPoint),
        2 => Some(TunnelMode::Ethernet),
        _ => None,
    };
    let unit = reader.u32("tunnel unit")?;
    reader.finish(CHANNEL_OPEN)?;
    Ok(mode.map(|mode| (mode, unit)))
}

/// A global request about listening.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ListenRequest {
    /// Listen there.
    Begin(Place),
    /// Listen there no more.
    Cancel(Place),
    /// For a port that does not exist.
    Impossible,
    /// Another request.
    None,
}

impl ListenRequest {
    /// Decodes the fields `extra` of the request `name`.
    pub(super) fn decode(name: &[u8], extra: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(extra);
        let place = match name {
            b"tcpip-forward" | b"cancel-tcpip-forward" => {
                let host = reader.string("address to bind")?;
                let port = reader.u32("port to bind")?;
                u16::try_from(port).ok().map(|port| Place::Tcp {
                    host: host.into(),
                    port,
                })
            }
            b"streamlocal-forward@openssh.com" | b"cancel-streamlocal-forward@openssh.com" => {
                let path = reader.string("socket path")?;
                Some(Place::Unix { path: path.into() })
            }
            _ => return Ok(Self::None),
        };
        reader.finish(GLOBAL_REQUEST)?;
        Ok(match place {
            Some(place) if name.starts_with(b"cancel-") => Self::Cancel(place),
            Some(place) => Self::Begin(place),
            None => Self::Impossible,
        })
    }
}

/// The type and the fields of a channel for a connection to a forwarded `place`, which listens at
/// `port`. The place is named as the client asked for it, not as it was bound.
pub(super) fn offer(
    place: &Place,
    port: u16,
    from: Option<SocketAddr>,
) -> (&'static [u8], Vec<u8>) {
    let mut extra = Vec::new();
    match place {
        Place::Tcp { host, .. } => {
            extra.put_string(host);
            extra.put_u32(port.into());
            extra.extend(originator(from));
            (b"forwarded-tcpip", extra)
        }
        Place::Unix { path } => {
            extra.put_string(path);
            extra.put_string(b"");
            (b"forwarded-streamlocal@openssh.com", extra)
        }
    }
}

/// Address and port of whoever connected, as channels of types x11 and forwarded-tcpip carry them.
pub(super) fn originator(from: Option<SocketAddr>) -> Vec<u8> {
    let (address, port) = match from {
        Some(from) => (from.ip().to_canonical().to_string(), from.port()),
        None => ("UNKNOWN".to_owned(), 0),
    };
    let mut fields = Vec::new();
    fields.put_string(address.as_bytes());
    fields.put_u32(port.into());
    fields
}

/// Code and words for a connection that was not made, as OpenSSH has them.
pub(super) fn refusal(failure: Failure) -> (u32, &'static str) {
    match failure {
        Failure::Prohibited => (PROHIBITED, "open failed"),
        Failure::Unresolved => (CONNECT_FAILED, "Name or service not known"),
        Failure::Busy => (RESOURCE_SHORTAGE, "too many connections are being made"),
        Failure::System { errno } => (CONNECT_FAILED, words(Errno::from_raw_os_error(errno))),
    }
}

/// strerror(3) of what a connection can fail with.
fn words(errno: Errno) -> &'static str {
    match errno {
        Errno::CONNREFUSED => "Connection refused",
        Errno::TIMEDOUT => "Connection timed out",
        Errno::HOSTUNREACH => "No route to host",
        Errno::NETUNREACH => "Network is unreachable",
        Errno::CONNRESET => "Connection reset by peer",
        Errno::ACCESS => "Permission denied",
        Errno::PERM => "Operation not permitted",
        Errno::NOENT => "No such file or directory",
        Errno::AGAIN => "Resource temporarily unavailable",
        Errno::MFILE | Errno::NFILE => "Too many open files",
        Errno::ADDRNOTAVAIL => "Cannot assign requested address",
        _ => "open failed",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tcp(host: &str, port: u16) -> Place {
        Place::Tcp {
            host: host.into(),
            port,
        }
    }

    fn direct(port: u32) -> Vec<u8> {
        let mut extra = Vec::new();
        extra.put_string(b"example.net");
        extra.put_u32(port);
        extra.put_string(b"192.0.2.1");
        extra.put_u32(1);
        extra
    }

    #[test]
    fn a_target_is_kept_as_it_was_asked_for() {
        assert_eq!(
            target(b"direct-tcpip", &direct(80)),
            Ok(Some(tcp("example.net", 80)))
        );
        assert_eq!(target(b"direct-tcpip", &direct(65_536)), Ok(None));
        assert_eq!(target(b"session", b"whatever"), Ok(None));
    }

    #[test]
    fn every_cut_of_the_fields_is_an_error_and_so_is_a_surplus() {
        let whole = direct(80);
        for len in 0..whole.len() {
            assert!(target(b"direct-tcpip", &whole[..len]).is_err(), "{len}");
        }
        assert!(target(b"direct-tcpip", &[&whole[..], b"x"].concat()).is_err());
        assert!(target(b"direct-streamlocal@openssh.com", &whole).is_err());
        for name in [
            &b"tcpip-forward"[..],
            b"cancel-streamlocal-forward@openssh.com",
        ] {
            assert!(ListenRequest::decode(name, b"\0\0\0\x01").is_err());
            assert!(ListenRequest::decode(name, b"").is_err());
        }
    }

    #[test]
    fn a_tunnel_has_a_mode_that_exists_and_a_number() {
        let words = |mode: u32, unit: u32| [mode.to_be_bytes(), unit.to_be_bytes()].concat();
        let asked = tunnel(&words(1, 0x7fff_ffff));
        assert_eq!(asked, Ok(Some((TunnelMode::PointToPoint, 0x7fff_ffff))));
        assert_eq!(tunnel(&words(2, 5)), Ok(Some((TunnelMode::Ethernet, 5))));
        assert_eq!(tunnel(&words(3, 5)), Ok(None));
        assert!(tunnel(&words(1, 5)[..7]).is_err());
        assert!(tunnel(&[&words(1, 5)[..], b"x"].concat()).is_err());
    }

    #[test]
    fn requests_are_told_apart_by_name() {
        let mut extra = Vec::new();
        extra.put_string(b"localhost");
        extra.put_u32(8080);
        let place = tcp("localhost", 8080);
        let decode = |name: &[u8], extra: &[u8]| ListenRequest::decode(name, extra).unwrap();
        let begin = ListenRequest::Begin(place.clone());
        assert_eq!(decode(b"tcpip-forward", &extra), begin);
        let cancel = ListenRequest::Cancel(place);
        assert_eq!(decode(b"cancel-tcpip-forward", &extra), cancel);
        let high = [&extra[..13], b"\0\x01\0\0"].concat();
        assert_eq!(decode(b"tcpip-forward", &high), ListenRequest::Impossible);
        assert_eq!(decode(b"tcpip-forwarded", &extra), ListenRequest::None);
    }

    #[test]
    fn an_offer_names_the_place_as_asked_and_the_port_as_bound() {
        let from = Some("[::ffff:192.0.2.7]:99".parse().unwrap());
        let (kind, extra) = offer(&tcp("", 0), 4242, from);
        assert_eq!(kind, b"forwarded-tcpip");
        let mut reader = Reader::new(&extra);
        assert_eq!(reader.string("").unwrap(), b"");
        assert_eq!(reader.u32("").unwrap(), 4242);
        assert_eq!(reader.string("").unwrap(), b"192.0.2.7");
        assert_eq!(reader.u32("").unwrap(), 99);
    }

    #[test]
    fn failures_have_openssh_s_codes_and_words() {
        let refused = Failure::System {
            errno: Errno::CONNREFUSED.raw_os_error(),
        };
        assert_eq!(refusal(refused), (2, "Connection refused"));
        assert_eq!(refusal(Failure::Prohibited).0, 1);
        assert_eq!(refusal(Failure::Unresolved).0, 2);
        assert_eq!(refusal(Failure::Busy).0, 4);
    }
}
