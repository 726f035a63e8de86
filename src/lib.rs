//! `agent`, an SSH server in one static file. ARCHITECTURE.md is the map.

pub mod config;
pub mod frames;
pub mod launch;
pub mod limits;
pub mod monitor;
pub mod net;
pub mod ssh;
