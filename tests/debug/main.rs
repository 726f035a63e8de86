//! The debug service, asked over its socket by raw bytes and by `agent debug`, of the real server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod attacks;
mod commands;
mod level;
mod log;
mod login;
mod packages;
mod pprof;
mod profiles;
mod server;
mod soak;
mod views;
