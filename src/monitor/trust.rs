//! The keys that TrustedUserCAKeys names, and how lists of keys that the administrator keeps are read.
//!
//! Read anew for each login, so that a change holds at once, as with sshd. The paths are the
//! configuration's, never a user's.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::revoked;
use crate::authorized_keys::{KeyOptions, LineError, Lines, names_key, parse_line};
use crate::config::Options;
use crate::limits::AUTHORITIES_MAX_BYTES;
use crate::ssh::crypto::base64;
use crate::ssh::crypto::public_key::PublicKey;

/// What is wrong with the lists of a configuration: sentences for who starts or checks a server.
/// With an unusable list of revoked keys nobody gets in by key, which should be known before.
pub fn complaints(options: &Options) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Some(path) = &options.trusted_user_ca_keys
        && let Err(why) = read_whole(path, AUTHORITIES_MAX_BYTES)
    {
        complaints.push(format!(
            "TrustedUserCAKeys {}: {why}; no certificate lets anybody in by it",
            path.display()
        ));
    }
    if let Some(path) = &options.revoked_keys
        && let Err(why) = revoked::read(path)
    {
        complaints.push(format!(
            "RevokedKeys {}: {why}; nobody gets in by key until this is mended",
            path.display()
        ));
    }
    complaints
}

/// Whether the file lists `key`, without options.
///
/// # Errors
///
/// Why it cannot be read.
pub(super) fn lists(path: &Path, key: &PublicKey) -> Result<bool, String> {
    let content = read_whole(path, AUTHORITIES_MAX_BYTES)?;
    let text = base64::encode(&key.blob);
    let mut listed = false;
    each_line(&content, |_, line| {
        let Ok(line) = line else { return };
        if names_key(line, key.key_type, text.as_bytes())
            && let Ok(Some(found)) = parse_line(line)
        {
            listed |= found.blob == key.blob && found.options == KeyOptions::default();
        }
    });
    Ok(listed)
}

pub(super) fn each_line(content: &[u8], mut each: impl FnMut(u32, Result<&[u8], LineError>)) {
    let mut lines = Lines::new();
    lines.push(content, &mut each);
    lines.finish(&mut each);
}

/// A regular file of the administrator, whole.
pub(super) fn read_whole(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("it cannot be read ({error})");
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .map_err(cannot)?;
    let found = file.metadata().map_err(cannot)?;
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if found.len() > limit_bytes {
        return Err(format!("it is larger than {limit_bytes} bytes"));
    }
    let mut content = Vec::new();
    file.take(limit_bytes)
        .read_to_end(&mut content)
        .map_err(cannot)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;

    #[test]
    fn unusable_lists_are_complained_of_before_somebody_tries_to_get_in() {
        let options = |lines: &str| {
            let config = Config::from_text(lines.as_bytes(), true).unwrap().config;
            config.global()
        };
        assert!(complaints(&options("")).is_empty());
        let absent = "RevokedKeys /nonexistent/a\nTrustedUserCAKeys /nonexistent/b\n";
        let found = complaints(&options(absent));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[1].contains("nobody gets in by key"), "{found:?}");
        // A text, and none of keys.
        assert_eq!(complaints(&options("RevokedKeys /etc/passwd\n")).len(), 1);
    }
}
