//! Signatures that a security key made for a web browser: over the browser's words, which quote ours.
//!
//! Sources: W3C Web Authentication, sections 5.8.1.1 (what a client writes, in this order) and 6.1
//! (flags); OpenSSH PROTOCOL.u2f. The words begin in one way only, so no JSON is parsed. Which
//! sites may sign is said by the key's application alone. Everything here reads bytes of strangers.

use super::public_key::malformed;
use super::{CryptoError, base64};
use crate::ssh::wire::Reader;

/// The signature algorithm; the key is that of other security keys.
pub(super) const ALGORITHM: &str = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com";

/// Attested credential data follows: that is how keys are made, not how they sign.
const ATTESTED: u8 = 0x40;
/// Extensions follow.
const EXTENDED: u8 = 0x80;

/// What stands behind flags and counter of such a signature.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wrapping<'a> {
    origin: &'a [u8],
    /// The browser's words: signed in the place of the data.
    pub words: &'a [u8],
    /// Signed before them.
    pub extensions: &'a [u8],
}

impl<'a> Wrapping<'a> {
    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, CryptoError> {
        Ok(Self {
            origin: reader.string("origin").map_err(malformed)?,
            words: reader.string("client data").map_err(malformed)?,
            extensions: reader.string("extensions").map_err(malformed)?,
        })
    }

    /// Whether the words are about `data`, and agree with the rest.
    pub(super) fn check(&self, flags: u8, data: &[u8]) -> Result<(), CryptoError> {
        let ends_text = |byte: &u8| matches!(byte, b'"' | b'\\' | 0);
        let is_extended = flags & EXTENDED != 0;
        if self.origin.iter().any(ends_text)
            || flags & ATTESTED != 0
            || is_extended == self.extensions.is_empty()
        {
            return Err(CryptoError::Malformed);
        }
        let challenge = base64::encode_unpadded(data)
            .replace('+', "-")
            .replace('/', "_");
        let beginning = [
            br#"{"type":"webauthn.get","challenge":""#,
            challenge.as_bytes(),
            br#"","origin":""#,
            self.origin,
            b"\"",
        ];
        if self.words.starts_with(&beginning.concat()) {
            Ok(())
        } else {
            Err(CryptoError::Mismatch)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: &[u8] = b"https://www.example.com";
    /// The challenge of the bytes below, in the alphabet for addresses.
    const WORDS: &[u8] =
        br#"{"type":"webauthn.get","challenge":"-_8A","origin":"https://www.example.com","crossOrigin":false}"#;
    const DATA: &[u8] = &[0xfb, 0xff, 0x00];

    fn check(origin: &[u8], words: &[u8], extensions: &[u8], flags: u8) -> Result<(), CryptoError> {
        let wrapping = Wrapping {
            origin,
            words,
            extensions,
        };
        wrapping.check(flags, DATA)
    }

    #[test]
    fn words_about_the_data_count() {
        assert_eq!(check(ORIGIN, WORDS, b"", 1), Ok(()));
        assert_eq!(check(ORIGIN, WORDS, b"\xa0", 1 | EXTENDED), Ok(()));
    }

    #[test]
    fn other_words_do_not() {
        let text = String::from_utf8_lossy(WORDS);
        for (from, to) in [
            ("-_8A", "-_8B"),
            ("-_8A", "+/8A"),
            ("-_8A", "-_8A="),
            ("webauthn.get", "webauthn.create"),
            ("www", "ww2"),
            ("{", " {"),
            ("\"type\":\"webauthn.get\",", ""),
        ] {
            let changed = text.replace(from, to);
            let verdict = check(ORIGIN, changed.as_bytes(), b"", 1);
            assert_eq!(verdict, Err(CryptoError::Mismatch), "{from} {to}");
        }
        assert_eq!(check(ORIGIN, b"", b"", 1), Err(CryptoError::Mismatch));
        let longer = check(b"https://www.example.com.org", WORDS, b"", 1);
        assert_eq!(longer, Err(CryptoError::Mismatch));
        let shorter = check(b"https://www.example.co", WORDS, b"", 1);
        assert_eq!(shorter, Err(CryptoError::Mismatch));
    }

    #[test]
    fn flags_and_fields_agree() {
        let malformed = Err(CryptoError::Malformed);
        assert_eq!(check(ORIGIN, WORDS, b"\xa0", 1), malformed);
        assert_eq!(check(ORIGIN, WORDS, b"", 1 | EXTENDED), malformed);
        assert_eq!(check(ORIGIN, WORDS, b"", 1 | ATTESTED), malformed);
        for origin in [&b"https://a\""[..], b"https://a\\", b"https://a\0"] {
            assert_eq!(check(origin, WORDS, b"", 1), malformed);
        }
    }
}
