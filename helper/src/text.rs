//! Numbers and names in messages. `core::fmt` would be a tenth of the helper.
#![forbid(unsafe_code)]

use alloc::ffi::CString;
use alloc::vec::Vec;

use rustix::io::Errno;

/// `number` in decimal digits.
pub fn decimal(mut number: u32) -> Vec<u8> {
    let mut digits = Vec::with_capacity(10);
    loop {
        digits.push(b'0' + u8::try_from(number % 10).unwrap_or(0));
        number /= 10;
        if number == 0 {
            digits.reverse();
            return digits;
        }
    }
}

/// The number that all of `text` is in decimal digits.
pub fn parse_decimal(text: &[u8]) -> Option<usize> {
    let mut number: usize = 0;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(usize::from(digit))?;
    }
    if text.is_empty() { None } else { Some(number) }
}

/// The pieces of `text` between bytes `at`. For all who split: each closure makes an iterator of its own.
pub fn split(text: &[u8], at: u8) -> impl Iterator<Item = &[u8]> {
    text.split(move |&byte| byte == at)
}

/// Which of `words`, with spaces between, is `word`. One text: a table of texts is four times as large.
#[inline(never)]
pub fn word_position(words: &[u8], word: &[u8]) -> Option<usize> {
    split(words, b' ').position(|known| known == word)
}

/// The value of a hexadecimal digit.
pub fn hexadecimal_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

/// `bytes` with what is not printable ASCII as `\xNN`, for a path or name in a message.
pub fn printable(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let mut text = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if byte == b' ' || byte.is_ascii_graphic() {
            text.push(byte);
        } else {
            let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'?');
            text.extend_from_slice(&[b'\\', b'x', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    text
}

/// "WHAT: error NUMBER", for the log.
pub fn failure(what: &[&[u8]], errno: Errno) -> Vec<u8> {
    let mut text = what.concat();
    text.extend_from_slice(b": error ");
    text.extend_from_slice(&decimal(errno.raw_os_error().unsigned_abs()));
    text
}

/// `bytes` for the kernel, which takes no NUL inside.
#[inline(never)]
pub fn c_string(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::INVAL)
}

/// [`c_string`] of each of `list`: arguments, or an environment.
#[inline(never)]
pub fn c_strings(list: &[&[u8]]) -> Result<Vec<CString>, Errno> {
    let mut strings = Vec::with_capacity(list.len());
    for bytes in list {
        strings.push(c_string(bytes)?);
    }
    Ok(strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_numbers_go_both_ways() {
        for (number, text) in [(0, "0"), (7, "7"), (10, "10"), (u32::MAX, "4294967295")] {
            assert_eq!(decimal(number), text.as_bytes());
            assert_eq!(parse_decimal(text.as_bytes()), usize::try_from(number).ok());
        }
        for text in ["", "-1", "1 ", "99999999999999999999999"] {
            assert_eq!(parse_decimal(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn control_characters_are_shown_as_numbers() {
        assert_eq!(printable(b"/a b/\n\xff~"), b"/a b/\\x0a\\xff~");
    }
}
