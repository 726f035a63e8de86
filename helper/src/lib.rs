//! What runs as the user: the library behind the `helper` binary.
//!
//! `no_std`, no libc, one thread; the only crate is rustix with its raw Linux backend. The agent
//! links this library too: for the frame codec, and to play the same roles by re-executing itself
//! where the embedded image cannot run.

#![no_std]

extern crate alloc;

pub mod frame;
pub mod link;
pub mod wire;
