//! The bodies of the fuzz targets, which are those that `cargo test` replays over `corpus/`.

#![allow(dead_code, reason = "the dialogues serve the tests too")]

#[path = "../../tests/protocol/bodies.rs"]
pub mod bodies;
#[path = "../../tests/protocol/client.rs"]
pub mod client;
#[path = "../../tests/config/bodies.rs"]
pub mod config_bodies;
#[path = "../../tests/vectors/bodies.rs"]
pub mod credential_bodies;
#[path = "../../tests/protocol/dialogue.rs"]
pub mod dialogue;
#[path = "../../tests/sftp/bodies.rs"]
pub mod sftp_bodies;
