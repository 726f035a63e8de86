//! Dialogues with the protocol core: a client without a socket against a driver without processes.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod client;
mod dialogue;
mod login;
