//! The server's own keys: finding, checking, making and keeping them.

use std::path::PathBuf;

use crate::config::Options;
use crate::ssh::crypto::private_key::PrivateKey;

/// A host key in the monitor's memory.
#[derive(Debug)]
pub struct HostKey {
    pub private: PrivateKey,
    /// Where it came from, or where it should have been written.
    pub path: PathBuf,
    /// False for a key that could not be written and ends with this process.
    pub persisted: bool,
}

/// Loads all host keys; makes an Ed25519 key where no `HostKey` is configured and none exists.
///
/// # Errors
///
/// One complete sentence for every key that is configured or present and cannot be used.
#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
pub fn load(options: &Options, as_root: bool) -> Result<Vec<HostKey>, Vec<String>> {
    todo!()
}
