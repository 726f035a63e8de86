//! Fixed bytes and real tools against the cryptographic layer.
//!
//! Known answers come from the RFCs and NIST publications named beside them, or were computed with
//! OpenSSL and are marked so. `ssh-keygen` and `openssl` must be there: they make keys and
//! signatures for us, and read ours.

#![allow(clippy::unwrap_used)]

mod bodies;
mod certificates;
mod ciphers;
mod exchanges;
mod key_files;
mod malformed;
mod signatures;
mod tools;
mod webauthn;

/// Bytes from hexadecimal digits; white space is skipped.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    assert!(
        digits.len().is_multiple_of(2),
        "an odd number of hexadecimal digits"
    );
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}
