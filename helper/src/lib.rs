//! What runs as the user: the library behind the `helper` binary.
//!
//! `no_std`, no libc, one thread; the only crate is rustix with its raw Linux backend. The agent
//! links this library too: for the frame codec, and to play the same roles by re-executing itself
//! where the embedded image cannot run.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod agent;
pub mod auth_info;
pub mod connect;
pub mod decision;
pub mod descendants;
pub mod display;
pub mod environment;
pub mod file_system;
pub mod forward;
pub mod forward_frame;
pub mod forward_policy;
pub mod frame;
pub mod heap;
pub mod identity;
pub mod key_command;
pub mod keys;
pub mod limits;
pub mod link;
pub mod listen;
pub mod login;
pub mod numeric;
pub mod output;
pub mod path;
pub mod pattern;
pub mod program;
pub mod relocation;
pub mod scp;
pub mod serve;
pub mod session;
pub mod sftp;
pub mod signal;
pub mod sys;
pub mod terminal;
pub mod text;
pub mod title;
pub mod tunnel;
pub mod wire;

use alloc::ffi::CString;

use title::Title;

/// Exit status for arguments that no launcher of ours passes.
const STATUS_USAGE: i32 = 64;

/// Plays the role that `arguments` name: argv\[0\] is the title, argv\[1\] the role, what follows
/// depends on it: the build id for `serve`, sftp-server's options for `sftp`. Returns the exit status.
pub fn run(arguments: &[CString], mut title: Title) -> i32 {
    let mut arguments = arguments.iter().map(|argument| argument.to_bytes());
    if let Some(name) = arguments.next() {
        title.set(name);
    }
    match arguments.next() {
        Some(role) if role == b"true" => 0,
        Some(role) if role == b"serve" => match arguments.next().and_then(build_id) {
            Some(build_id) => serve::serve(build_id, title),
            None => STATUS_USAGE,
        },
        Some(role) if role == b"sftp" => sftp::serve_alone(&mut arguments),
        _ => STATUS_USAGE,
    }
}

/// Decodes 32 hexadecimal digits.
fn build_id(text: &[u8]) -> Option<[u8; 16]> {
    let mut id = [0; 16];
    if text.len() != 2 * id.len() {
        return None;
    }
    for (byte, digits) in id.iter_mut().zip(text.chunks_exact(2)) {
        let &[high, low] = digits else { return None };
        *byte = text::hexadecimal_digit(high)? << 4 | text::hexadecimal_digit(low)?;
    }
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_id_is_32_digits() {
        assert_eq!(
            build_id(b"000102030405060708090a0b0c0d0e0f").map(|id| id[15]),
            Some(15)
        );
        assert_eq!(build_id(b"000102030405060708090a0b0c0d0e"), None);
        assert_eq!(build_id(b"0001020304050607 8090a0b0c0d0e0f"), None);
    }

    #[test]
    fn a_role_that_does_not_exist_is_a_usage_error() {
        let run_with = |words: &[&str]| {
            let arguments: alloc::vec::Vec<CString> = words
                .iter()
                .map(|&word| CString::new(word).expect("a word"))
                .collect();
            run(&arguments, Title::none())
        };
        assert_eq!(run_with(&["agent-helper: test", "true"]), 0);
        for words in [
            &[][..],
            &["agent-helper"],
            &["agent-helper", "x"],
            &["agent-helper", "serve"],
        ] {
            assert_eq!(run_with(words), STATUS_USAGE);
        }
    }
}
