//! Writes a new hash into the shadow file, as passwd(1) does: under the lock that all such programs
//! take, into a new file beside it that then takes its place.
//!
//! Sources: lckpwdf(3), shadow(5).

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, fcntl_lock};
use zeroize::Zeroizing;

use super::shadow;
use crate::limits::{PASSWORD_LOCK_TIME_MS, SHADOW_FILE_MAX_BYTES};

/// Where things are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    pub shadow: &'a Path,
    pub lock: &'a Path,
}

/// Replaces the hash of `name`. The error says what failed, for the log and for the user.
pub(super) fn store(
    places: Places<'_>,
    name: &[u8],
    hash: &[u8],
    today: i64,
) -> Result<(), String> {
    if !is_hash(hash) {
        return Err("the hash has impossible characters".to_owned());
    }
    let say = |path: &Path, error: &io::Error| format!("{}: {error}", path.display());
    let _lock = lock(places.lock).map_err(|error| say(places.lock, &error))?;
    // A link (to a writable file system, say) stays one.
    let path = places
        .shadow
        .canonicalize()
        .map_err(|error| say(places.shadow, &error))?;
    replace(&path, name, hash, today).map_err(|error| say(&path, &error))
}

fn replace(path: &Path, name: &[u8], hash: &[u8], today: i64) -> io::Result<()> {
    let old = File::open(path)?;
    let metadata = old.metadata()?;
    let mut file = Zeroizing::new(Vec::new());
    let read = old.take(SHADOW_FILE_MAX_BYTES + 1).read_to_end(&mut file)?;
    if read as u64 > SHADOW_FILE_MAX_BYTES {
        return Err(io::Error::other("the file is larger than any of its kind"));
    }
    let changed = shadow::with_hash(&file, name, hash, today)
        .map(Zeroizing::new)
        .ok_or_else(|| io::Error::other("the account has no line in it"))?;
    // The name that shadow's tools use; what lies there is left from one that was interrupted.
    let mut beside = path.as_os_str().to_owned();
    beside.push("+");
    let beside = Path::new(&beside);
    match std::fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut new = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(beside)?;
    let written = new
        .write_all(&changed)
        .and_then(|()| fchown(&new, Some(metadata.uid()), Some(metadata.gid())))
        .and_then(|()| new.set_permissions(PermissionsExt::from_mode(metadata.mode() & 0o777)))
        .and_then(|()| new.sync_all())
        .and_then(|()| std::fs::rename(beside, path));
    if written.is_err() {
        let _ = std::fs::remove_file(beside);
    }
    written?;
    // The name in the directory, too.
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory)?.sync_all()
}

/// Takes the lock; it is given back when the file is closed.
fn lock(path: &Path) -> io::Result<File> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let until = Instant::now() + Duration::from_millis(PASSWORD_LOCK_TIME_MS);
    loop {
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a hash consists of: nothing that could end a field or a line.
fn is_hash(hash: &[u8]) -> bool {
    const HASH_MAX_BYTES: usize = 384; // libxcrypt's CRYPT_OUTPUT_SIZE
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"./$=,".contains(byte);
    (1..=HASH_MAX_BYTES).contains(&hash.len()) && hash.iter().all(known)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_hash_is_replaced_and_everything_else_stays() {
        let directory = std::env::temp_dir().join(format!("agent-store-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (shadow, link) = (directory.join("shadow"), directory.join("link"));
        let lock = directory.join("lock");
        std::fs::write(&shadow, "al:x:1:0:9:7:::\nbo:y:1:0:9:7:::\n").unwrap();
        std::fs::set_permissions(&shadow, PermissionsExt::from_mode(0o640)).unwrap();
        std::fs::write(directory.join("shadow+"), "left behind").unwrap();
        std::os::unix::fs::symlink(&shadow, &link).unwrap();
        let places = Places {
            shadow: &link,
            lock: &lock,
        };
        store(places, b"bo", b"$6$salt$hash", 20000).unwrap();
        let text = std::fs::read_to_string(&shadow).unwrap();
        assert_eq!(text, "al:x:1:0:9:7:::\nbo:$6$salt$hash:20000:0:9:7:::\n");
        assert_eq!(shadow.metadata().unwrap().mode() & 0o777, 0o640);
        assert!(link.is_symlink() && !directory.join("shadow+").exists());

        let error = store(places, b"carol", b"$6$salt$hash", 20000).unwrap_err();
        assert!(error.contains("no line"), "{error}");
        for hash in [&b""[..], b"a:b", b"a\nroot::", b"\xff"] {
            assert!(store(places, b"bo", hash, 20000).is_err());
        }
        assert_eq!(std::fs::read_to_string(&shadow).unwrap(), text);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
