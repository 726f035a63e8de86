//! `agent`, an SSH server in one static file. ARCHITECTURE.md is the map.

pub mod account;
pub mod authorized_keys;
pub mod config;
pub mod frames;
pub mod host_keys;
pub mod launch;
pub mod limits;
pub mod logging;
pub mod monitor;
pub mod net;
pub mod notify;
pub mod pattern;
pub mod records;
pub mod ssh;
