//! The version exchange (RFC 4253 section 4.2), server side.

use super::error::ProtocolError;
use crate::limits;

/// What a client that speaks something else is told, in the clear: it cannot read packets.
pub(super) const REFUSAL: &[u8] = b"Invalid SSH identification string.\r\n";

/// Looks for the client's identification line at the front of `received`.
///
/// Gives the length of the line with its end, and the line without it; `None` while its end is not
/// there yet. A client may send nothing before it, so the first line is the one that counts.
///
/// # Errors
///
/// [`ProtocolError::BadVersion`]: not an SSH 2 client, or no end within [`limits::IDENT_BYTES`].
pub fn parse(received: &[u8]) -> Result<Option<(usize, &[u8])>, ProtocolError> {
    let window = received.get(..limits::IDENT_BYTES).unwrap_or(received);
    let Some(end) = window.iter().position(|byte| *byte == b'\n') else {
        // Wrong from the start: no reason to wait for more of it.
        let prefix = window.len().min(PREFIX.len());
        if window.get(..prefix) != PREFIX.get(..prefix) || window.len() >= limits::IDENT_BYTES {
            return Err(ProtocolError::BadVersion);
        }
        return Ok(None);
    };
    let line = window.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    check(line)?;
    Ok(Some((end + 1, line)))
}

const PREFIX: &[u8] = b"SSH-";

fn check(line: &[u8]) -> Result<(), ProtocolError> {
    let rest = line.strip_prefix(PREFIX).ok_or(ProtocolError::BadVersion)?;
    // 1.99 says: both 1 and 2 (RFC 4253 section 5.1).
    let software = rest
        .strip_prefix(b"2.0-")
        .or_else(|| rest.strip_prefix(b"1.99-"))
        .ok_or(ProtocolError::BadVersion)?;
    if software.is_empty() || software.iter().any(|byte| matches!(byte, 0 | b'\r')) {
        return Err(ProtocolError::BadVersion);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn takes_the_line_and_leaves_what_follows() {
        assert_eq!(
            parse(b"SSH-2.0-x y\r\nrest"),
            Ok(Some((13, &b"SSH-2.0-x y"[..])))
        );
        assert_eq!(parse(b"SSH-2.0-x\nrest"), Ok(Some((10, &b"SSH-2.0-x"[..]))));
        assert_eq!(parse(b"SSH-1.99-x\r\n"), Ok(Some((12, &b"SSH-1.99-x"[..]))));
    }

    #[test]
    fn waits_for_the_end_of_the_line() {
        for len in 0..b"SSH-2.0-x\r".len() {
            assert_eq!(parse(&b"SSH-2.0-x\r"[..len]), Ok(None), "{len}");
        }
    }

    #[test]
    fn refuses_what_is_no_ssh_2_client() {
        let lines: [&[u8]; 10] = [
            b"GET / HTTP/1.0\r\n",
            b"\r\n",
            b"\n",
            b"SSH-1.5-x\r\n",
            b"SSH-2.0-\r\n",
            b"SSH-2.0\r\n",
            b"SSH-2.0-a\rb\r\n",
            b"SSH-2.0-a\0b\r\n",
            b"junk",
            b"SSX",
        ];
        for line in lines {
            assert_eq!(parse(line), Err(ProtocolError::BadVersion), "{line:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused_at_the_limit() {
        let mut line = b"SSH-2.0-".to_vec();
        line.resize(limits::IDENT_BYTES - 1, b'a');
        assert_eq!(parse(&line), Ok(None));
        line.push(b'a');
        assert_eq!(parse(&line), Err(ProtocolError::BadVersion));
        line.extend_from_slice(b"\r\n");
        assert_eq!(parse(&line), Err(ProtocolError::BadVersion));
    }

    #[test]
    fn longer_than_the_rfc_but_within_opensshs_limit_is_served() {
        let mut line = b"SSH-2.0-".to_vec();
        line.resize(300, b'a');
        line.push(b'\n');
        assert!(matches!(parse(&line), Ok(Some((301, _)))));
    }
}
