//! RevokedKeys: what it says of a key or certificate that would let its owner in.
//!
//! A change of the file holds at once, as with sshd. What it said is remembered as long as the file is
//! the same, for whoever knows a user's public key, which is no secret, can ask as often as they like,
//! and a long list takes the loop a good part of a second to read.

use std::collections::VecDeque;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::credential::Credential;
use super::trust::{each_line, read_whole};
use crate::authorized_keys::{LineError, key_of_line};
use crate::config::Options;
use crate::limits::{REVOKED_KEYS_FILES_MAX, REVOKED_KEYS_MAX_BYTES, REVOKED_KEYS_REMEMBERED};
use crate::ssh::crypto::hash::Hash;
use crate::ssh::crypto::public_key::PublicKey;
use crate::ssh::crypto::revocation_list::{self, Subject};

/// A file that changed within this time of now may change again and look the same: the file system's
/// clock ticks some hundred times a second only.
const SETTLED_S: i64 = 2;

/// What lists of revoked keys said.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    /// The one that was asked last at the end.
    files: VecDeque<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    state: State,
    /// By the SHA-256 of key or certificate.
    verdicts: VecDeque<(Digest, Verdict)>,
}

/// What changes when a file does: device, inode, length, modification and change with nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State([i64; 7]);

/// Whether it is revoked; else why the file cannot be read or understood: what it would have revoked
/// is not known then, and nothing may be accepted.
type Verdict = Result<bool, String>;

type Digest = Vec<u8>;

impl Revocations {
    /// Asks RevokedKeys about a credential that would let its owner in: strangers' keys do not make
    /// the list be read.
    ///
    /// # Errors
    ///
    /// The reason code: it is revoked, or that is not known.
    pub(super) fn check(
        &mut self,
        options: &Options,
        credential: &Credential,
    ) -> Result<(), &'static str> {
        let Some(path) = &options.revoked_keys else {
            return Ok(());
        };
        match self.verdict(path, credential) {
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

    fn verdict(&mut self, path: &Path, credential: &Credential) -> Verdict {
        let state = State::of(path);
        let digest = Hash::Sha256.digest(credential.blob());
        if let Some(state) = state
            && let Some(known) = self.known(path, state, &digest)
        {
            return known;
        }
        let verdict = revokes(path, credential);
        if let Some(state) = state
            && State::of(path) == Some(state)
        {
            self.remember(path, state, digest, &verdict);
        }
        verdict
    }

    fn known(&self, path: &Path, state: State, digest: &[u8]) -> Option<Verdict> {
        let file = self.files.iter().find(|file| file.path == path)?;
        let known = file.verdicts.iter().find(|(known, _)| known == digest);
        known
            .filter(|_| file.state == state)
            .map(|(_, verdict)| verdict.clone())
    }

    fn remember(&mut self, path: &Path, state: State, digest: Digest, verdict: &Verdict) {
        let index = self.files.iter().position(|file| file.path == path);
        let mut file = index
            .and_then(|index| self.files.remove(index))
            .filter(|file| file.state == state)
            .unwrap_or_else(|| File {
                path: path.to_owned(),
                state,
                verdicts: VecDeque::new(),
            });
        if file.verdicts.len() >= REVOKED_KEYS_REMEMBERED {
            file.verdicts.pop_front();
        }
        file.verdicts.push_back((digest, verdict.clone()));
        if self.files.len() >= REVOKED_KEYS_FILES_MAX {
            self.files.pop_front();
        }
        self.files.push_back(file);
    }
}

impl State {
    /// Of a file that is not just being changed.
    fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        let age_s = super::now_s().checked_sub(found.ctime())?;
        let state = Self([
            i64::from_ne_bytes(found.dev().to_ne_bytes()),
            i64::from_ne_bytes(found.ino().to_ne_bytes()),
            i64::from_ne_bytes(found.len().to_ne_bytes()),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ]);
        (age_s.abs() > SETTLED_S).then_some(state)
    }
}

/// Whether the list can be used at all.
pub(super) fn read(path: &Path) -> Result<(), String> {
    let content = read_whole(path, REVOKED_KEYS_MAX_BYTES)?;
    if revocation_list::is_one(&content) {
        let nothing = Subject::nothing();
        return revocation_list::revokes(&content, &nothing)
            .map(drop)
            .map_err(|error| error.to_string());
    }
    plain_keys(&content, |_| {})
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

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

    #[test]
    fn a_file_is_read_again_when_it_changed() {
        let path = std::env::temp_dir().join(format!("agent-revoked-{}", std::process::id()));
        let credential = Credential::Key(key(KEY));
        let write = |content: &str| std::fs::write(&path, content).unwrap();
        let mut revocations = Revocations::default();
        write("");
        assert_eq!(revocations.verdict(&path, &credential), Ok(false));
        assert!(revocations.files.is_empty(), "it may still change unseen");
        write(KEY);
        assert_eq!(revocations.verdict(&path, &credential), Ok(true));
        std::fs::remove_file(&path).unwrap();
        assert!(revocations.verdict(&path, &credential).is_err());
    }

    #[test]
    fn what_was_said_counts_for_the_same_file_and_key_only() {
        let (path, key) = (Path::new("/etc/revoked"), vec![7; 32]);
        let (then, now) = (State([1; 7]), State([2; 7]));
        let mut revocations = Revocations::default();
        revocations.remember(path, then, key.clone(), &Ok(false));
        assert_eq!(revocations.known(path, then, &key), Some(Ok(false)));
        assert_eq!(revocations.known(path, now, &key), None);
        assert_eq!(revocations.known(path, then, &[8; 32]), None);
        assert_eq!(revocations.known(Path::new("/x"), then, &key), None);
        revocations.remember(path, now, key.clone(), &Ok(true));
        assert_eq!(revocations.known(path, then, &key), None);
        assert_eq!(revocations.known(path, now, &key), Some(Ok(true)));
        for number in 0..2 * REVOKED_KEYS_REMEMBERED {
            revocations.remember(
                path,
                now,
                Hash::Sha256.digest(&number.to_ne_bytes()),
                &Ok(false),
            );
        }
        assert_eq!(revocations.files[0].verdicts.len(), REVOKED_KEYS_REMEMBERED);
        assert_eq!(revocations.known(path, now, &key), None);
        for number in 0..2 * REVOKED_KEYS_FILES_MAX {
            let path = PathBuf::from(format!("/{number}"));
            revocations.remember(&path, now, key.clone(), &Ok(true));
        }
        assert_eq!(revocations.files.len(), REVOKED_KEYS_FILES_MAX);
    }
}
