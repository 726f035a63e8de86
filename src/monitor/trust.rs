//! Lists of keys that the administrator keeps: TrustedUserCAKeys and RevokedKeys.
//!
//! Read anew for each login, so that a change holds at once, as with sshd. The paths are the
//! configuration's, never a user's.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::credential::Credential;
use crate::authorized_keys::{KeyOptions, LineError, Lines, key_of_line, names_key, parse_line};
use crate::config::Options;
use crate::limits::{AUTHORITIES_MAX_BYTES, REVOKED_KEYS_MAX_BYTES};
use crate::ssh::crypto::base64;
use crate::ssh::crypto::public_key::PublicKey;
use crate::ssh::crypto::revocation_list::{self, Subject};

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
        && let Err(why) = read_revoked(path)
    {
        complaints.push(format!(
            "RevokedKeys {}: {why}; nobody gets in by key until this is mended",
            path.display()
        ));
    }
    complaints
}

/// Whether the list can be used at all.
fn read_revoked(path: &Path) -> Result<(), String> {
    let content = read_whole(path, REVOKED_KEYS_MAX_BYTES)?;
    if revocation_list::is_one(&content) {
        let nothing = Subject::nothing();
        return revocation_list::revokes(&content, &nothing)
            .map(drop)
            .map_err(|error| error.to_string());
    }
    plain_keys(&content, |_| {})
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

/// Asks RevokedKeys about a credential that would let its owner in: strangers' keys do not make the
/// list be read.
///
/// # Errors
///
/// The reason code: it is revoked, or that is not known.
pub(super) fn check_revoked(
    options: &Options,
    credential: &Credential,
) -> Result<(), &'static str> {
    let Some(path) = &options.revoked_keys else {
        return Ok(());
    };
    match revokes(path, credential) {
        Ok(false) => Ok(()),
        Ok(true) => Err("revoked"),
        Err(why) => {
            log::error!(
                "RevokedKeys {}: {why}; nobody gets in by key until this is mended",
                path.display()
            );
            Err("revoked-unreadable")
        }
    }
}

/// Whether RevokedKeys revokes the credential: its key, its authority, or the certificate.
///
/// # Errors
///
/// Why the file cannot be read or understood: what it would have revoked is not known then, and
/// nothing may be accepted.
fn revokes(path: &Path, credential: &Credential) -> Result<bool, String> {
    let content = read_whole(path, REVOKED_KEYS_MAX_BYTES)?;
    if !revocation_list::is_one(&content) {
        return plain_list_revokes(&content, credential);
    }
    let subject = match credential {
        Credential::Key(key) => Subject::key(key),
        Credential::Certificate(certified) => Subject::certificate(&certified.certificate),
    };
    revocation_list::revokes(&content, &subject).map_err(|error| error.to_string())
}

/// A list of public keys, one a line.
fn plain_list_revokes(content: &[u8], credential: &Credential) -> Result<bool, String> {
    let mut revoked = false;
    plain_keys(content, |key| {
        revoked |= key == *credential.key();
        if let Credential::Certificate(certified) = credential {
            revoked |= key == certified.certificate.authority;
        }
    })?;
    Ok(revoked)
}

/// Gives the key of each line.
fn plain_keys(content: &[u8], mut each: impl FnMut(PublicKey)) -> Result<(), String> {
    let mut broken = None;
    each_line(content, |number, line| {
        match line.and_then(key_of_line) {
            Ok(Some(key)) => each(key),
            // Of a type that nobody can log in with here.
            Ok(None) | Err(LineError::UnsupportedType) => {}
            Err(error) => {
                broken.get_or_insert_with(|| format!("line {number}: {error}"));
            }
        }
    });
    match broken {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

fn each_line(content: &[u8], mut each: impl FnMut(u32, Result<&[u8], LineError>)) {
    let mut lines = Lines::new();
    lines.push(content, &mut each);
    lines.finish(&mut each);
}

/// A regular file of the administrator, whole.
fn read_whole(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, String> {
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

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
    const OTHER: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJqvg7yqKq1cL0bCw5T7yJ5zXyH0GZQyYw0n1xkYb0sM";

    fn key(line: &str) -> PublicKey {
        key_of_line(line.as_bytes()).unwrap().unwrap()
    }

    fn plain(content: &str) -> Result<bool, String> {
        plain_list_revokes(content.as_bytes(), &Credential::Key(key(KEY)))
    }

    #[test]
    fn a_plain_list_revokes_the_keys_in_it() {
        assert_eq!(plain(""), Ok(false));
        assert_eq!(plain(&format!("# nothing\n\n{OTHER} c\n")), Ok(false));
        assert_eq!(plain(&format!("{OTHER}\n{KEY} comment\n")), Ok(true));
        assert_eq!(plain(&format!("ssh-dss AAAA\n{KEY}")), Ok(true));
    }

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

    #[test]
    fn a_list_that_cannot_be_understood_revokes_everything() {
        for bad in ["nonsense", "ssh-ed25519", "ssh-ed25519 AAAA", "\0"] {
            assert!(plain(&format!("{OTHER}\n{bad}\n")).is_err(), "{bad:?}");
        }
        assert!(plain(&"x".repeat(9000)).is_err());
        let absent = Path::new("/nonexistent/revoked");
        assert!(revokes(absent, &Credential::Key(key(KEY))).is_err());
        assert!(revokes(Path::new("/"), &Credential::Key(key(KEY))).is_err());
        assert!(revokes(Path::new("/dev/null"), &Credential::Key(key(KEY))).is_err());
    }
}
