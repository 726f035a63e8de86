//! Base64 (RFC 4648 section 4) of key files, key lines and fingerprints.

use zeroize::Zeroizing;

/// Encodes with padding.
pub fn encode(bytes: &[u8]) -> String {
    let mut text = encode_unpadded(bytes);
    while !text.len().is_multiple_of(4) {
        text.push('=');
    }
    text
}

/// Encodes without padding, as in fingerprints.
pub fn encode_unpadded(bytes: &[u8]) -> String {
    // Room for the padding too: key files are secret, and a growing string leaves copies behind.
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for index in 0..=group.len() {
            let digit = (bits >> (18 - 6 * index)) & 0x3f;
            text.push(usize::try_from(digit).map_or('A', |digit| char::from(ALPHABET[digit])));
        }
    }
    text
}

/// Decodes exactly: padded, no white space, unused bits zero. `None` for anything else.
pub fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3));
    let (groups, rest) = text.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    let (last, groups) = groups.split_last()?;
    for group in groups {
        bytes.extend_from_slice(&decode_group(*group)?);
    }
    match *last {
        [a, b, b'=', b'='] => match decode_group([a, b, b'A', b'A'])? {
            [first, 0, 0] => bytes.push(first),
            _ => return None,
        },
        [a, b, c, b'='] => match decode_group([a, b, c, b'A'])? {
            [first, second, 0] => bytes.extend_from_slice(&[first, second]),
            _ => return None,
        },
        group => bytes.extend_from_slice(&decode_group(group)?),
    }
    Some(bytes)
}

fn decode_group(group: [u8; 4]) -> Option<[u8; 3]> {
    let mut bits = 0;
    for character in group {
        bits = bits << 6 | digit(character)?;
    }
    let [_, first, second, third] = bits.to_be_bytes();
    Some([first, second, third])
}

fn digit(character: u8) -> Option<u32> {
    let (first, offset) = match character {
        b'A'..=b'Z' => (b'A', 0),
        b'a'..=b'z' => (b'a', 26),
        b'0'..=b'9' => (b'0', 52),
        b'+' => (b'+', 62),
        b'/' => (b'/', 63),
        _ => return None,
    };
    Some(u32::from(character - first) + offset)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// RFC 4648 section 10.
    const VECTORS: [(&str, &str); 7] = [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foob", "Zm9vYg=="),
        ("fooba", "Zm9vYmE="),
        ("foobar", "Zm9vYmFy"),
    ];

    #[test]
    fn the_rfc_vectors_hold_both_ways() {
        for (clear, encoded) in VECTORS {
            assert_eq!(encode(clear.as_bytes()), encoded);
            if !clear.is_empty() {
                assert_eq!(decode(encoded.as_bytes()).unwrap()[..], *clear.as_bytes());
            }
        }
    }

    #[test]
    fn all_bytes_survive_at_all_lengths() {
        let bytes: Vec<u8> = (0..=255).collect();
        for len in 1..=bytes.len() {
            assert_eq!(
                decode(encode(&bytes[..len]).as_bytes()).unwrap()[..],
                bytes[..len]
            );
        }
    }

    #[test]
    fn only_the_one_encoding_is_taken() {
        for wrong in [
            "", "Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zg==Zg==", "Z===", "====", "Zm 9", "Zm9v\n",
        ] {
            assert_eq!(decode(wrong.as_bytes()), None, "{wrong:?}");
        }
        for byte in 0..=255_u8 {
            let digit = byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
            assert_eq!(decode(&[b'A', byte, b'A', b'A']).is_some(), digit);
        }
    }
}
