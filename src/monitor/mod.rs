//! The monitor: the one privileged process. It owns configuration, host keys, accounts, terminals,
//! records, logs and the other processes.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::{Config, Loaded};
use crate::host_keys::HostKey;

/// What the command line hands over.
#[derive(Debug)]
pub struct Start {
    /// The checked configuration.
    pub loaded: Loaded,
    /// The host keys of that configuration.
    pub host_keys: Vec<HostKey>,
    /// What `-c` said: read again at SIGHUP.
    pub config_path: Option<PathBuf>,
    /// What `-o` and `-p` said: they win at SIGHUP too.
    pub overrides: Vec<(String, String)>,
    /// Serve the one connection on descriptors 0 and 1.
    pub inetd: bool,
    /// The effective user is root.
    pub as_root: bool,
}

/// Serves until SIGTERM. The exit code is that of the process.
#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
pub fn serve(start: Start) -> ExitCode {
    todo!()
}

/// Ends the server of this configuration and all its connections.
#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
pub fn drain(config: &Config) -> ExitCode {
    todo!()
}
