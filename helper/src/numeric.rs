//! Addresses in numbers, which need no resolver (RFC 4291 section 2.2). The parser of `core` would
//! be a thirtieth of the helper.
#![forbid(unsafe_code)]

use crate::forward_frame::Address;
use crate::text::{hexadecimal_digit, parse_decimal, split};

/// Groups of an IPv6 address.
const GROUPS: usize = 8;

/// The address that all of `text` is.
pub fn address(text: &[u8]) -> Option<Address> {
    if text.contains(&b':') {
        let octets = v6(text)?;
        return Some(Address::V6 { octets, zone: 0 });
    }
    Some(Address::V4 { octets: v4(text)? })
}

/// Four numbers up to 255, without leading zeros: some read those as octal.
fn v4(text: &[u8]) -> Option<[u8; 4]> {
    let mut octets = [0; 4];
    let mut parts = split(text, b'.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.len() > 3 || (part.len() > 1 && part.first() == Some(&b'0')) {
            return None;
        }
        *octet = u8::try_from(parse_decimal(part)?).ok()?;
    }
    parts.next().is_none().then_some(octets)
}

/// Groups of up to four hexadecimal digits; `::` once, for one or more that are zero; the last two
/// may be an IPv4 address.
fn v6(text: &[u8]) -> Option<[u8; 16]> {
    let mut groups = [0_u16; GROUPS];
    let mut count = 0;
    let mut gap = None;
    let mut rest = text;
    if let Some(behind) = rest.strip_prefix(b"::") {
        gap = Some(0);
        rest = behind;
    }
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b':');
        let (group, behind) = rest.split_at(end.unwrap_or(rest.len()));
        if end.is_none() && group.contains(&b'.') {
            let [a, b, c, d] = v4(group)?;
            *groups.get_mut(count)? = u16::from_be_bytes([a, b]);
            *groups.get_mut(count + 1)? = u16::from_be_bytes([c, d]);
            count += 2;
            break;
        }
        *groups.get_mut(count)? = hexadecimal(group)?;
        count += 1;
        rest = match behind {
            [b':', b':', behind @ ..] if gap.is_none() => {
                gap = Some(count);
                behind
            }
            // A group follows every single colon.
            [b':', next, ..] if *next != b':' => behind.get(1..)?,
            [] => behind,
            _ => return None,
        };
    }
    match gap {
        // Behind the gap, from the last one on: where they come from is zero then.
        Some(at) if count < GROUPS => {
            for distance in 1..=count - at {
                groups.swap(count - distance, GROUPS - distance);
            }
        }
        None if count == GROUPS => {}
        _ => return None,
    }
    let mut octets = [0; 16];
    for (pair, group) in octets.chunks_exact_mut(2).zip(groups) {
        pair.copy_from_slice(&group.to_be_bytes());
    }
    Some(octets)
}

fn hexadecimal(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 4 {
        return None;
    }
    digits.iter().try_fold(0, |number: u16, &digit| {
        let value = hexadecimal_digit(digit.to_ascii_lowercase())?;
        Some(number << 4 | u16::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::IpAddr;

    fn expected(text: &str) -> Option<Address> {
        Some(match text.parse().ok()? {
            IpAddr::V4(v4) => Address::V4 {
                octets: v4.octets(),
            },
            IpAddr::V6(v6) => Address::V6 {
                octets: v6.octets(),
                zone: 0,
            },
        })
    }

    #[test]
    fn reads_what_the_standard_library_reads_and_nothing_else() {
        for text in [
            "127.0.0.1",
            "0.0.0.0",
            "255.255.255.255",
            "256.0.0.1",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "1.2.3.-4",
            "1.2.3.4 ",
            "",
            ".",
            "...",
            "1..2.3",
            "::",
            "::1",
            "1::",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1:2:3:4::5:6:7:8",
            "1::2::3",
            ":1",
            "1:",
            ":",
            ":::",
            "1:::2",
            "fe80::1%eth0",
            "::ffff:192.0.2.1",
            "1:2:3:4:5:6:192.0.2.1",
            "1:2:3:4:5:6:7:192.0.2.1",
            "::192.0.2.1:1",
            "::192.0.2",
            "12345::",
            "g::",
            "ABCD:ef01::",
            "1:2:3:4:5:6:7:8::",
            "::1:2:3:4:5:6:7:8",
            "2001:db8::1:0:0:1",
            "localhost",
            "1:2:3:4:5:6::192.0.2.1",
            "::1.2.3.4",
            "1.2.3.4::",
        ] {
            assert_eq!(address(text.as_bytes()), expected(text), "{text}");
        }
    }

    #[test]
    fn agrees_with_the_standard_library_on_whatever_comes() {
        let alphabet = b"0123456789abf:.:.:1";
        let mut state = 1_u32;
        for _ in 0..200_000 {
            let mut text = [0_u8; 12];
            let mut len = 0;
            for place in &mut text {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let pick = usize::try_from(state >> 24).unwrap_or(0);
                *place = alphabet[pick % alphabet.len()];
                len += 1;
                if state.is_multiple_of(9) {
                    break;
                }
            }
            let text = core::str::from_utf8(&text[..len]).expect("ASCII");
            assert_eq!(address(text.as_bytes()), expected(text), "{text}");
        }
    }
}
