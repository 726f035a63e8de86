//! A banner in messages that every client takes: many stop at 32 KiB for one.

use crate::limits::BANNER_PIECE_BYTES;
use crate::ssh::Core;

/// Sends `text` in as many SSH_MSG_USERAUTH_BANNER as it needs.
pub(super) fn send(core: &mut Core, mut text: &[u8]) {
    while !text.is_empty() {
        let (piece, rest) = text.split_at(piece_len(text, BANNER_PIECE_BYTES));
        core.auth_banner(piece);
        text = rest;
    }
}

/// How much of `text` makes a piece of at most `most` bytes: whole lines where there are such, else
/// whole characters.
fn piece_len(text: &[u8], most: usize) -> usize {
    let Some(head) = text.get(..most) else {
        return text.len();
    };
    if text.len() == most {
        return most;
    }
    let line = head.iter().rposition(|byte| *byte == b'\n');
    let starts_character = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 != 0x80);
    let character = || (1..=most).rev().find(starts_character);
    line.map(|at| at + 1).or_else(character).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::piece_len;

    #[test]
    fn pieces_end_behind_lines_and_never_within_a_character() {
        assert_eq!(piece_len(b"short", 10), 5);
        assert_eq!(piece_len(b"ten bytes!", 10), 10);
        assert_eq!(piece_len(b"one\ntwo\nthree", 10), 8);
        assert_eq!(piece_len(b"no line end here", 10), 10);
        assert_eq!(piece_len("\u{fc}\u{fc}\u{fc}".as_bytes(), 3), 2);
        assert_eq!(piece_len(&[0x80; 9], 4), 4);
        assert_eq!(piece_len(b"\n", 1), 1);
    }
}
