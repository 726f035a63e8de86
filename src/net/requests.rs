//! The fields of session requests (RFC 4254 section 6, RFC 4335 section 3).

use crate::ssh::ProtocolError;
use crate::ssh::message::CHANNEL_REQUEST;
use crate::ssh::wire::Reader;

/// A request on a session channel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// `pty-req`.
    Terminal {
        term: &'a [u8],
        /// Columns, rows, width and height in pixels, as they came.
        size: [u8; 16],
        modes: &'a [u8],
    },
    /// `env`.
    Environment { name: &'a [u8], value: &'a [u8] },
    /// `shell`.
    Shell,
    /// `exec`.
    Command(&'a [u8]),
    /// `subsystem`.
    Subsystem(&'a [u8]),
    /// `window-change`.
    WindowChange {
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
    },
    /// `signal`, without SIG.
    Signal(&'a [u8]),
    /// `break`.
    Break,
    /// `eow@openssh.com` (OpenSSH PROTOCOL 2.1): nobody reads what the program prints any more.
    EndOfWrite,
    /// `auth-agent-req@openssh.com`, or `agent-req` (draft-ietf-sshm-ssh-agent): the client's agent
    /// may be used. Carries the type of the channels that lead to it.
    Agent(&'static [u8]),
    /// `x11-req`: X11 clients may use the client's display.
    X11 {
        single: bool,
        protocol: &'a [u8],
        cookie: &'a [u8],
        screen: u32,
    },
    /// Any other, and those that are not served.
    Unknown,
}

impl<'a> Request<'a> {
    /// Decodes the fields `extra` of a request of type `kind`.
    pub(super) fn decode(kind: &[u8], extra: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(extra);
        let request = match kind {
            b"pty-req" => {
                let term = reader.string("TERM")?;
                let size = reader.bytes(16, "terminal size")?;
                let modes = reader.string("terminal modes")?;
                let size = size.try_into().map_err(|_| ProtocolError::Truncated {
                    field: "terminal size",
                })?;
                Self::Terminal { term, size, modes }
            }
            b"env" => Self::Environment {
                name: reader.string("variable name")?,
                value: reader.string("variable value")?,
            },
            b"shell" => Self::Shell,
            b"exec" => Self::Command(reader.string("command")?),
            b"subsystem" => Self::Subsystem(reader.string("subsystem name")?),
            b"window-change" => Self::WindowChange {
                columns: reader.u32("columns")?,
                rows: reader.u32("rows")?,
                width: reader.u32("width")?,
                height: reader.u32("height")?,
            },
            b"signal" => Self::Signal(reader.string("signal name")?),
            b"break" => {
                // The length: Linux terminals have one of their own.
                reader.u32("break length")?;
                Self::Break
            }
            b"eow@openssh.com" => Self::EndOfWrite,
            b"x11-req" => Self::X11 {
                single: reader.boolean("single connection")?,
                protocol: reader.string("authentication protocol")?,
                cookie: reader.string("authentication cookie")?,
                screen: reader.u32("screen number")?,
            },
            b"auth-agent-req@openssh.com" => Self::Agent(b"auth-agent@openssh.com"),
            b"agent-req" => Self::Agent(b"agent-connect"),
            // Their fields are nobody's business here.
            _ => return Ok(Self::Unknown),
        };
        reader.finish(CHANNEL_REQUEST)?;
        Ok(request)
    }
}

/// The name of a signal for `exit-signal`, without SIG (RFC 4254 section 6.10), from its number on
/// Linux (signal(7); the same on every architecture that we run on).
pub(super) fn signal_name(number: u8) -> &'static str {
    match number {
        1 => "HUP",
        2 => "INT",
        3 => "QUIT",
        4 => "ILL",
        6 => "ABRT",
        8 => "FPE",
        9 => "KILL",
        10 => "USR1",
        11 => "SEGV",
        12 => "USR2",
        13 => "PIPE",
        14 => "ALRM",
        15 => "TERM",
        // The RFC has no name for the others; OpenSSH sends this.
        _ => "SIG@openssh.com",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PTY: &[u8] = b"\0\0\0\x05xterm\0\0\0\x50\0\0\0\x18\0\0\x02\x80\0\0\x01\xe0\0\0\0\x01\0";

    #[test]
    fn a_terminal_request_keeps_its_fields() {
        let Request::Terminal { term, size, modes } = Request::decode(b"pty-req", PTY).unwrap()
        else {
            panic!("another request");
        };
        assert_eq!(term, b"xterm");
        assert_eq!(size, *b"\0\0\0\x50\0\0\0\x18\0\0\x02\x80\0\0\x01\xe0");
        assert_eq!(modes, b"\0");
    }

    #[test]
    fn every_cut_of_a_request_is_an_error_and_so_is_a_surplus() {
        for len in 0..PTY.len() {
            assert!(
                Request::decode(b"pty-req", &PTY[..len]).is_err(),
                "{len} bytes"
            );
        }
        let longer = [PTY, b"\0"].concat();
        assert_eq!(
            Request::decode(b"pty-req", &longer),
            Err(ProtocolError::TrailingBytes {
                number: CHANNEL_REQUEST
            })
        );
        assert!(Request::decode(b"shell", b"x").is_err());
        assert!(Request::decode(b"break", b"\0\0\0").is_err());
    }

    #[test]
    fn what_is_not_served_is_unknown_whatever_it_carries() {
        for kind in [&b"x11-request"[..], b"agent-request", b"", b"\xff"] {
            assert_eq!(Request::decode(kind, b"\0\0"), Ok(Request::Unknown));
        }
    }
}
