//! `agent`, an SSH server in one static file. ARCHITECTURE.md is the map.

pub mod account;
pub mod aftermath;
pub mod allocator;
pub mod authorized_keys;
pub mod cli;
pub mod client_name;
pub mod config;
pub mod confine;
pub mod debug_frames;
pub mod debug_http;
pub mod fault;
mod footprint;
pub mod frames;
pub mod host_certificates;
pub mod host_keys;
#[cfg(any(test, feature = "embed-helper"))]
mod image_filter;
mod inherited;
pub mod keygen;
pub mod launch;
pub mod limits;
pub mod local_time;
pub mod logging;
pub mod memexec;
pub mod metrics;
pub mod monitor;
pub mod net;
pub mod notify;
pub mod password;
pub mod pattern;
pub mod profile;
mod program;
pub mod records;
mod replace;
pub mod resolve;
pub mod ssh;
mod take_over;
pub mod trusted_path;

/// When this program was built, in Unix time: no clock that runs before it is right.
pub const BUILT_S: u64 = include!(concat!(env!("OUT_DIR"), "/built-s"));

/// Names this build: processes that talk over frames compare it first, since frames have no versions.
pub const BUILD_ID: [u8; 16] = *include_bytes!(concat!(env!("OUT_DIR"), "/build-id"));
