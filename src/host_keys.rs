//! The server's own keys: finding, checking, making and keeping them.
//!
//! Keys that were made are looked for first, in HostKeyDir: clients know them. Then come OpenSSH's,
//! of the types that are not there yet. Only if there is none at all is one made (Ed25519), so that
//! a box never changes its identity because another program made keys later. Writing is by
//! temporary file, fsync, rename and reading back, for flash disks that lose power.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::RenameFlags;
use rustix::process::geteuid;
use zeroize::Zeroizing;

use crate::config::Options;
use crate::host_certificates;
use crate::limits;
use crate::ssh::crypto::private_key::{KeyFileError, PrivateKey};
use crate::ssh::crypto::public_key::{KeyType, PublicKey};
use crate::ssh::crypto::{Random, base64};
use crate::trusted_path;

/// A host key in the monitor's memory.
#[derive(Debug)]
pub struct HostKey {
    pub private: PrivateKey,
    /// Where it came from, or where it should have been written.
    pub path: PathBuf,
    /// False for a key that could not be written and ends with this process.
    pub persisted: bool,
    /// The blob of its certificate (HostCertificate).
    pub certificate: Option<Vec<u8>>,
}

/// Loads all host keys; makes an Ed25519 key where no `HostKey` is configured and none exists.
///
/// # Errors
///
/// One complete sentence for every key that is configured or present and cannot be used.
pub fn load(options: &Options, as_root: bool) -> Result<Vec<HostKey>, Vec<String>> {
    let found = find(options)?;
    if !found.is_empty() {
        return Ok(found);
    }
    make(&options.host_key_dir, as_root)
        .map(|key| vec![key])
        .map_err(|error| vec![error])
}

/// As [`load`], for a server that runs: a key that lives in memory stays the server's key, and is
/// written if the disk takes it by now.
///
/// # Errors
///
/// As [`load`].
pub fn load_again(
    options: &Options,
    as_root: bool,
    current: &[Arc<HostKey>],
) -> Result<Vec<Arc<HostKey>>, Vec<String>> {
    let found = find(options)?;
    if !found.is_empty() {
        return Ok(found.into_iter().map(Arc::new).collect());
    }
    let Some(key) = current.iter().find(|key| !key.persisted) else {
        return load(options, as_root).map(|keys| keys.into_iter().map(Arc::new).collect());
    };
    let path = key_path(&options.host_key_dir);
    let written = trusted_path::create(&options.host_key_dir, as_root).and_then(|()| {
        write_file(&path, &key.private, COMMENT).map_err(|error| error.to_string())?;
        read_file(&path)
    });
    Ok(vec![match written {
        Ok(private) => Arc::new(HostKey {
            private,
            path,
            persisted: true,
            certificate: None,
        }),
        Err(_) => Arc::clone(key),
    }])
}

/// As [`load`], but makes nothing: empty where a key would be made at start.
///
/// # Errors
///
/// As [`load`].
pub fn find(options: &Options) -> Result<Vec<HostKey>, Vec<String>> {
    let random = Random::system();
    let mut keys: Vec<HostKey> = Vec::new();
    let mut more_of_a_type: Vec<HostKey> = Vec::new();
    let mut errors = Vec::new();
    let mut unserved = Vec::new();
    for path in candidates(options) {
        if options.host_keys_are_default && is_absent(&path) {
            continue;
        }
        match read(&path, &random) {
            Ok(private) => add(&mut keys, &mut more_of_a_type, private, path),
            // sshd goes on without keys of types that it dropped; so do we while there are others.
            Err(Unreadable::Unserved(why)) => unserved.push(why),
            Err(Unreadable::Broken(why)) => errors.push(why),
        }
    }
    if keys.is_empty() || !errors.is_empty() {
        errors.append(&mut unserved);
    }
    for why in unserved {
        log::warn!("{why}");
    }
    host_certificates::attach(
        keys.iter_mut().chain(&mut more_of_a_type),
        &options.host_certificate_files,
    );
    for key in more_of_a_type {
        // Clients learn those that are configured, before the first one goes.
        if key.certificate.is_some() || !options.host_keys_are_default {
            keys.push(key);
        } else {
            log::info!(
                "{} is not used: another key of the same type comes first",
                key.path.display()
            );
        }
    }
    if errors.is_empty() {
        Ok(keys)
    } else {
        Err(errors)
    }
}

/// Reads one private key file, with the checks that a server needs.
///
/// # Errors
///
/// A complete sentence.
pub fn read_file(path: &Path) -> Result<PrivateKey, String> {
    read(path, &Random::system()).map_err(|error| match error {
        Unreadable::Unserved(why) | Unreadable::Broken(why) => why,
    })
}

/// Writes a key pair: `path` for the private one, `path.pub` for the public one. Never replaces a
/// file.
///
/// # Errors
///
/// [`io::ErrorKind::AlreadyExists`] where there is a file; anything else as it came.
pub fn write_file(path: &Path, key: &PrivateKey, comment: &str) -> io::Result<()> {
    let random = Random::system();
    let public = public_line(key.public(), comment);
    write_new(path, &key.to_file(comment, &random), 0o600)?;
    let written = read(path, &random)
        .map_err(|_| io::Error::other("what was written could not be read back as a key"))?;
    if written.public() != key.public() {
        return Err(io::Error::other(
            "what was written reads back as another key",
        ));
    }
    // Without the public half everything works; a stale one beside a new key would only confuse.
    let public_path = with_suffix(path, ".pub");
    let _ = fs::remove_file(&public_path);
    let _ = write_new(&public_path, public.as_bytes(), 0o644);
    Ok(())
}

/// The line of a public key, as in `.pub` and authorized_keys files.
pub fn public_line(public: &PublicKey, comment: &str) -> String {
    let encoded = base64::encode(&public.blob);
    let line = format!("{} {encoded} {comment}", public.key_type.name());
    format!("{}\n", line.trim_end())
}

enum Unreadable {
    /// A good key that this server has no use for.
    Unserved(String),
    Broken(String),
}

fn candidates(options: &Options) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if options.host_keys_are_default {
        paths.extend(
            ["ed25519", "ecdsa", "rsa"]
                .map(|kind| options.host_key_dir.join(format!("ssh_host_{kind}_key"))),
        );
    }
    for path in &options.host_key_files {
        if !paths.contains(path) {
            paths.push(path.clone());
        }
    }
    paths
}

/// One key of each type signs: with two, clients would meet the one they do not know. Another may
/// be of use for its certificate, or later.
fn add(
    keys: &mut Vec<HostKey>,
    more_of_a_type: &mut Vec<HostKey>,
    private: PrivateKey,
    path: PathBuf,
) {
    let is_known = |known: &&HostKey| known.private.public() == private.public();
    if keys
        .iter()
        .chain(&*more_of_a_type)
        .any(|known| is_known(&known))
    {
        return;
    }
    let key_type = private.public().key_type;
    let of_type = |known: &HostKey| known.private.public().key_type == key_type;
    let list = if keys.iter().any(of_type) {
        more_of_a_type
    } else {
        keys
    };
    list.push(HostKey {
        private,
        path,
        persisted: true,
        certificate: None,
    });
}

fn is_absent(path: &Path) -> bool {
    matches!(fs::symlink_metadata(path), Err(error) if is_not_found(&error))
}

fn is_not_found(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read(path: &Path, random: &Random) -> Result<PrivateKey, Unreadable> {
    let broken = |why: String| Unreadable::Broken(format!("host key {}: {why}", path.display()));
    let text = read_text(path).map_err(broken)?;
    PrivateKey::from_file(&text, random).map_err(|error| match error {
        KeyFileError::Empty => broken(
            "the file is empty, as a power cut leaves it; restore it from a backup, or delete it \
             to have a new key made (clients will then warn of a changed key)"
                .to_owned(),
        ),
        KeyFileError::NotAKey => broken(
            "the file holds no private key; HostKey names the private file, not the .pub file"
                .to_owned(),
        ),
        KeyFileError::Encrypted => broken(
            "the key has a passphrase, which a server cannot ask for; remove it: ssh-keygen -p -f FILE"
                .to_owned(),
        ),
        KeyFileError::Malformed => broken(
            "the key is damaged; restore it from a backup, or delete it to have a new key made \
             (clients will then warn of a changed key)"
                .to_owned(),
        ),
        KeyFileError::Unsupported => Unreadable::Unserved(format!(
            "host key {}: its type or size is not served (served are Ed25519, ECDSA with 256 or \
             384 bits, RSA from 2048 bits); make another: agent keygen -f FILE",
            path.display()
        )),
    })
}

/// The file's bytes, if it is one that a private key may be in.
fn read_text(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let file = OpenOptions::new()
        .read(true)
        // A FIFO in its place must not hold the start up.
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                "there is no such file; make it: agent keygen -f FILE".to_owned()
            }
            _ => format!("cannot be opened ({error})"),
        })?;
    let metadata = file
        .metadata()
        .map_err(|error| format!("cannot be looked at ({error})"))?;
    if !metadata.is_file() {
        return Err("is not a regular file".to_owned());
    }
    check_access(&metadata)?;
    // Room for all, so that no copy of the key stays behind a growing buffer.
    let limit_bytes = limits::HOST_KEY_FILE_MAX_BYTES;
    let mut text = Zeroizing::new(Vec::with_capacity(limit_bytes));
    let length = file
        .take(limit_bytes as u64)
        .read_to_end(&mut text)
        .map_err(|error| format!("cannot be read ({error})"))?;
    if length == limit_bytes {
        return Err(format!(
            "is longer than {limit_bytes} bytes; this is no key"
        ));
    }
    Ok(text)
}

/// sshd's rule, with the exception of Fedora and RHEL: a system group (ssh_keys) may read.
fn check_access(metadata: &fs::Metadata) -> Result<(), String> {
    const FIRST_USER_GROUP: u32 = 1000;
    let own = geteuid().as_raw();
    if metadata.uid() != own && metadata.uid() != 0 {
        return Err(format!(
            "belongs to user {}, who knows it then; make it root's and replace the key",
            metadata.uid()
        ));
    }
    let mode = metadata.mode() & 0o777;
    let by_group = (1..FIRST_USER_GROUP).contains(&metadata.gid()) && metadata.uid() == 0;
    let allowed = if by_group { 0o740 } else { 0o700 };
    if mode & !allowed & 0o077 != 0 {
        return Err(format!(
            "others can read or write it (mode {mode:04o}); chmod 600 FILE, and replace the key if \
             somebody may have"
        ));
    }
    Ok(())
}

/// Comment of a key that was made here.
const COMMENT: &str = "agent";

fn key_path(directory: &Path) -> PathBuf {
    directory.join("ssh_host_ed25519_key")
}

/// Makes the first key. What cannot be written is kept in memory: a box with a full or read-only
/// disk must still let its administrator in.
fn make(directory: &Path, as_root: bool) -> Result<HostKey, String> {
    let path = key_path(directory);
    let private = PrivateKey::generate(KeyType::Ed25519, &Random::system())
        .map_err(|_| "no host key could be made: the system's random source failed".to_owned())?;
    let fingerprint = private.public().fingerprint();
    let written = trusted_path::create(directory, as_root).and_then(|()| {
        write_file(&path, &private, COMMENT).map_err(|error| {
            // Another server of ours may have been faster; its key is the one then.
            if error.kind() == io::ErrorKind::AlreadyExists {
                String::new()
            } else {
                format!("{} cannot be written ({error})", path.display())
            }
        })
    });
    match written {
        Ok(()) => {
            log::info!("made host key {} (ED25519 {fingerprint})", path.display());
            Ok(HostKey {
                private,
                path,
                persisted: true,
                certificate: None,
            })
        }
        Err(why) if why.is_empty() => {
            let private = read_file(&path)?;
            Ok(HostKey {
                private,
                path,
                persisted: true,
                certificate: None,
            })
        }
        Err(why) => {
            log::warn!(
                "the host key (ED25519 {fingerprint}) lives in memory only and changes with the \
                 next start: {why}"
            );
            Ok(HostKey {
                private,
                path,
                persisted: false,
                certificate: None,
            })
        }
    }
}

/// Writes a file that must not exist yet, so that after a power cut it is there whole or not at all.
fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let temporary = with_suffix(path, &format!(".{}.tmp", std::process::id()));
    let outcome =
        write_temporary(&temporary, content, mode).and_then(|()| rename_new(&temporary, path));
    if outcome.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    outcome?;
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

fn write_temporary(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    let here = rustix::fs::CWD;
    match rustix::fs::renameat_with(here, from, here, to, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // Filesystems without the flag (and kernels before 3.15): a moment's race is left.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
            if is_absent(to) {
                fs::rename(from, to)
            } else {
                Err(io::ErrorKind::AlreadyExists.into())
            }
        }
        Err(errno) => Err(errno.into()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;
    use std::os::unix::fs::PermissionsExt as _;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("agent-keys-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            trusted_path::create(&path, false).unwrap();
            Self(path)
        }

        fn options(&self, lines: &str) -> Options {
            let text = format!("HostKeyDir {}\n{lines}", self.0.display());
            // As an ordinary user, so that this machine's own keys stay out of it.
            Config::from_text(text.as_bytes(), false)
                .unwrap()
                .config
                .global()
        }

        fn key(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            let key = PrivateKey::generate(KeyType::Ed25519, &Random::system()).unwrap();
            write_file(&path, &key, "test").unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_first_start_makes_a_key_and_later_ones_find_it() {
        let directory = Directory::new("first");
        let options = directory.options("HostKeyDir /unused\n");
        assert_eq!(find(&options).unwrap().len(), 0);
        let first = load(&options, false).unwrap();
        assert_eq!(first.len(), 1);
        assert!(first[0].persisted);
        let path = directory.0.join("ssh_host_ed25519_key");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let public = fs::read_to_string(with_suffix(&path, ".pub")).unwrap();
        assert_eq!(public, public_line(first[0].private.public(), "agent"));
        let again = load(&options, false).unwrap();
        assert_eq!(again[0].private.public(), first[0].private.public());
        assert_eq!(
            fs::read_dir(&directory.0).unwrap().count(),
            2,
            "no temporary file is left"
        );
    }

    #[test]
    fn configured_keys_must_be_there_and_none_is_made() {
        let directory = Directory::new("configured");
        let good = directory.key("good");
        let options = directory.options(&format!(
            "HostKey {}\nHostKey {}/absent\n",
            good.display(),
            directory.0.display()
        ));
        let errors = load(&options, false).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert!(
            errors[0].contains("absent") && errors[0].contains("agent keygen"),
            "{errors:?}"
        );
        let options = directory.options(&format!("HostKey {}\n", good.display()));
        assert_eq!(load(&options, false).unwrap()[0].path, good);
    }

    #[test]
    fn broken_keys_are_errors_that_say_what_to_do() {
        let directory = Directory::new("broken");
        let path = directory.0.join("ssh_host_ed25519_key");
        let good = fs::read(directory.key("other")).unwrap();
        for (content, hint) in [
            (&b""[..], "empty"),
            (b"ssh-ed25519 AAAA comment\n", "private"),
            (&good[..good.len() / 2], "damaged"),
        ] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            let errors = load(&directory.options(""), false).unwrap_err();
            assert!(errors[0].contains(hint) || hint == "damaged", "{errors:?}");
            assert_eq!(fs::read(&path).unwrap(), content, "it is not replaced");
        }
    }

    #[test]
    fn keys_that_others_can_read_are_refused() {
        let directory = Directory::new("open");
        let path = directory.key("ssh_host_ed25519_key");
        for mode in [0o604, 0o644, 0o660, 0o606] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let errors = load(&directory.options(""), false).unwrap_err();
            assert!(errors[0].contains("chmod 600"), "{mode:o} {errors:?}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(load(&directory.options(""), false).is_ok());
    }

    #[test]
    fn a_pipe_in_a_keys_place_holds_nothing_up() {
        let directory = Directory::new("pipe");
        let path = directory.0.join("ssh_host_ed25519_key");
        let status = std::process::Command::new("mkfifo")
            .arg("-m600")
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success());
        let errors = load(&directory.options(""), false).unwrap_err();
        assert!(errors[0].contains("regular file"), "{errors:?}");
    }

    #[test]
    fn what_cannot_be_written_lives_in_memory() {
        let directory = Directory::new("memory");
        let file = directory.0.join("file");
        fs::write(&file, "").unwrap();
        let options = directory.options("");
        let options = Options {
            host_key_dir: file.join("below"),
            ..options
        };
        let keys = load(&options, false).unwrap();
        assert!(!keys[0].persisted);
    }

    #[test]
    fn a_key_in_memory_stays_when_the_configuration_is_read_again() {
        let directory = Directory::new("again");
        let blocked = directory.0.join("keys");
        fs::write(&blocked, "").unwrap();
        let options = Options {
            host_key_dir: blocked.clone(),
            ..directory.options("")
        };
        let first: Vec<Arc<HostKey>> = load(&options, false)
            .unwrap()
            .into_iter()
            .map(Arc::new)
            .collect();
        let again = load_again(&options, false, &first).unwrap();
        assert_eq!(again[0].private.public(), first[0].private.public());
        assert!(!again[0].persisted);
        fs::remove_file(&blocked).unwrap();
        let written = load_again(&options, false, &first).unwrap();
        assert_eq!(written[0].private.public(), first[0].private.public());
        assert!(written[0].persisted);
        let found = load(&options, false).unwrap();
        assert_eq!(found[0].private.public(), first[0].private.public());
    }

    #[test]
    fn writing_never_replaces_a_key() {
        let directory = Directory::new("replace");
        let path = directory.key("key");
        let before = fs::read(&path).unwrap();
        let key = PrivateKey::generate(KeyType::Ed25519, &Random::system()).unwrap();
        let error = write_file(&path, &key, "x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
