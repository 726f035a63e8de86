//! What runs as the user: the library behind the `helper` binary.
//!
//! `no_std`, no libc, one thread; the only crate is rustix with its raw Linux backend. The agent
//! links this library too: for the frame codec, and to play the same roles by re-executing itself
//! where the embedded image cannot run.

#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod frame;
pub mod heap;
pub mod link;
pub mod sys;
pub mod title;
pub mod wire;

use alloc::ffi::CString;

use title::Title;

/// Exit status for arguments that no launcher of ours passes.
const STATUS_USAGE: i32 = 64;

/// Plays the role that `arguments` name: argv\[0\] is the title, argv\[1\] the role. Returns the exit status.
pub fn run(arguments: &[CString], mut title: Title) -> i32 {
    if let Some(name) = arguments.first() {
        title.set(name.to_bytes());
    }
    match arguments.get(1).map(|role| role.to_bytes()) {
        Some(b"true") => 0,
        _ => STATUS_USAGE,
    }
}
