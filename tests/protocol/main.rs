//! Dialogues with the protocol core: a client without a socket against a driver without processes.

#![allow(clippy::unwrap_used, clippy::cast_possible_truncation)]

mod bodies;
mod channels;
mod client;
mod compression;
mod corpora;
mod dialogue;
mod exchange;
mod extensions;
mod handover;
mod login;
mod memory;
mod offers;
mod packets;
mod phases;
mod rekey;
mod version;
