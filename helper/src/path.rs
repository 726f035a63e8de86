//! Where a path really leads, and who could have changed what lies there.
//!
//! The rules are those of OpenSSH's StrictModes: the file and every directory above it belong to
//! root or the user and nobody else can write to them, up to the home directory or to `/`. Sources:
//! sshd_config(5) StrictModes, path_resolution(7).
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::mem::MaybeUninit;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::text::{c_string, printable};

/// As the kernel's own limit.
const SYMLINKS_MAX: usize = 40;
/// PATH_MAX.
pub const PATH_MAX_BYTES: usize = 4096;

/// The absolute path of `path` without symbolic links, `.` and `..`.
pub fn canonical(path: &[u8]) -> Result<Vec<u8>, Errno> {
    resolve(path, false)
}

/// As [`canonical`]; the last component need not exist if `last_may_be_missing`.
pub fn resolve(path: &[u8], last_may_be_missing: bool) -> Result<Vec<u8>, Errno> {
    if path.first() != Some(&b'/') {
        return Err(Errno::INVAL);
    }
    let mut links = 0;
    // Components still to come, the next one last.
    let mut rest = Vec::new();
    push_components(path, &mut rest);
    let mut resolved: Vec<u8> = Vec::new();
    while let Some(component) = rest.pop() {
        if component == b"." {
            continue;
        }
        if component == b".." {
            parent(&mut resolved);
            continue;
        }
        resolved.push(b'/');
        resolved.extend_from_slice(&component);
        if resolved.len() >= PATH_MAX_BYTES || rest.len() > PATH_MAX_BYTES {
            return Err(Errno::NAMETOOLONG);
        }
        match rustix::fs::lstat(&*c_string(&resolved)?) {
            Ok(stat) if file_type(&stat) == FileType::Symlink => {}
            Ok(_) => continue,
            Err(Errno::NOENT) if last_may_be_missing && rest.is_empty() => break,
            Err(errno) => return Err(errno),
        }
        links += 1;
        if links > SYMLINKS_MAX {
            return Err(Errno::LOOP);
        }
        let target = read_link(&resolved)?;
        if target.first() == Some(&b'/') {
            resolved.clear();
        } else {
            parent(&mut resolved);
        }
        push_components(&target, &mut rest);
    }
    if resolved.is_empty() {
        resolved.push(b'/');
    }
    Ok(resolved)
}

/// Appends the components of `path`, the first one last.
fn push_components(path: &[u8], rest: &mut Vec<Vec<u8>>) {
    for name in path.rsplit(|&byte| byte == b'/') {
        if !name.is_empty() {
            rest.push(name.to_vec());
        }
    }
}

/// Cuts the last component off; `/` is the empty path here.
fn parent(path: &mut Vec<u8>) {
    let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    path.truncate(end);
}

/// stat(2).
#[inline(never)]
pub fn stat(path: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::stat(&*c_string(path)?)
}

/// open(2), close-on-exec and never as a controlling terminal.
#[inline(never)]
pub fn open(path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::open(
        &*c_string(path)?,
        flags | OFlags::CLOEXEC | OFlags::NOCTTY,
        Mode::empty(),
    )
}

/// unlink(2).
#[inline(never)]
pub fn remove(path: &[u8]) -> Result<(), Errno> {
    rustix::fs::unlink(&*c_string(path)?)
}

/// Where a symbolic link points.
#[inline(never)]
pub fn read_link(path: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); PATH_MAX_BYTES];
    let (target, room) = rustix::fs::readlinkat_raw(CWD, &*c_string(path)?, &mut buffer)?;
    if room.is_empty() {
        return Err(Errno::NAMETOOLONG);
    }
    Ok(target.to_vec())
}

/// What is in the regular file at `path`, up to `limit_bytes`. Nothing else is opened.
#[inline(never)]
pub fn read_regular(path: &[u8], limit_bytes: usize) -> Option<Vec<u8>> {
    if file_type(&stat(path).ok()?) != FileType::RegularFile {
        return None;
    }
    let file = open(path, OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    let mut content = Vec::new();
    let mut piece = [0; 4096];
    while content.len() < limit_bytes
        && let Ok(filled @ 1..) = rustix::io::read(&file, piece.as_mut_slice())
    {
        content.extend_from_slice(piece.get(..filled).unwrap_or_default());
    }
    content.truncate(limit_bytes);
    Some(content)
}

/// The kind of file behind a stat.
pub fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Owned by root or `uid`, and nobody else may write.
fn is_safe(stat: &Stat, uid: u32) -> bool {
    (stat.st_uid == 0 || stat.st_uid == uid) && stat.st_mode & 0o022 == 0
}

/// Checks `file`, whose canonical path is `path`, and the directories above it, for a user with
/// `uid` and `home`. The error is a sentence.
pub fn check_strict_modes(file: &Stat, path: &[u8], uid: u32, home: &[u8]) -> Result<(), Vec<u8>> {
    if !is_safe(file, uid) {
        return Err([
            b"bad ownership or modes for file ".as_slice(),
            &printable(path),
        ]
        .concat());
    }
    let home = canonical(home).ok();
    let mut directory = path.to_vec();
    loop {
        parent(&mut directory);
        let name: &[u8] = if directory.is_empty() {
            b"/"
        } else {
            &directory
        };
        if !stat(name).is_ok_and(|stat| is_safe(&stat, uid)) {
            return Err([
                b"bad ownership or modes for directory ".as_slice(),
                &printable(name),
            ]
            .concat());
        }
        if directory.is_empty() || home.as_deref() == Some(name) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;

    /// A directory that goes away with the test.
    struct Place(PathBuf);
    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("helper-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).expect("a place for the test");
            Self(path.canonicalize().expect("its path"))
        }
        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }
    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn bytes(path: &std::path::Path) -> &[u8] {
        path.as_os_str().as_bytes()
    }

    #[test]
    fn links_dots_and_double_slashes_are_resolved_as_the_kernel_does() {
        let place = Place::new("canonical");
        fs::create_dir_all(place.path("a/b")).expect("directories");
        fs::write(place.path("a/b/file"), "x").expect("a file");
        symlink("b", place.path("a/relative")).expect("a link");
        symlink(place.path("a"), place.path("absolute")).expect("a link");
        symlink("../absolute/./relative//file", place.path("a/long")).expect("a link");
        let wanted = place.path("a/b/file");
        for name in [
            "a/b/file",
            "absolute/b/../relative/file",
            "a/long",
            "./a//b/./file",
        ] {
            let found = canonical(bytes(&place.path(name)));
            assert_eq!(found.as_deref(), Ok(bytes(&wanted)), "{name}");
        }
        assert_eq!(canonical(b"/").as_deref(), Ok(b"/".as_slice()));
        assert_eq!(canonical(b"/../..").as_deref(), Ok(b"/".as_slice()));
        assert_eq!(canonical(bytes(&place.path("none/x"))), Err(Errno::NOENT));
        assert_eq!(
            canonical(bytes(&place.path("a/b/file/x"))),
            Err(Errno::NOTDIR)
        );
        assert_eq!(canonical(b"relative"), Err(Errno::INVAL));
        let missing = place.path("absolute/none");
        assert_eq!(
            resolve(bytes(&missing), true).as_deref(),
            Ok(bytes(&place.path("a/none")))
        );
        assert_eq!(
            resolve(bytes(&place.path("none/x")), true),
            Err(Errno::NOENT)
        );
        symlink("loop", place.path("loop")).expect("a link");
        assert_eq!(canonical(bytes(&place.path("loop"))), Err(Errno::LOOP));
    }

    #[test]
    fn strict_modes_look_at_the_file_and_at_every_directory_up_to_home() {
        let place = Place::new("strict");
        let uid = rustix::process::getuid().as_raw();
        fs::create_dir_all(place.path("home/.ssh")).expect("directories");
        let file = place.path("home/.ssh/authorized_keys");
        fs::write(&file, "x").expect("a file");
        let mode = |name: &str, mode: u32| {
            fs::set_permissions(place.path(name), fs::Permissions::from_mode(mode))
                .expect("a mode");
        };
        let verdict = |uid: u32, home: &str| {
            let real = canonical(bytes(&file)).expect("a path");
            let stat = stat(&real).expect("a stat");
            check_strict_modes(&stat, &real, uid, bytes(&place.path(home)))
        };
        mode("home", 0o755);
        mode("home/.ssh", 0o700);
        mode("home/.ssh/authorized_keys", 0o600);
        // Above home nothing counts: /tmp is writable by all.
        assert_eq!(verdict(uid, "home"), Ok(()));
        for (name, bad, what) in [
            ("home/.ssh/authorized_keys", 0o620, "file"),
            ("home/.ssh/authorized_keys", 0o602, "file"),
            ("home/.ssh", 0o770, "directory"),
            ("home", 0o775, "directory"),
            ("home", 0o757, "directory"),
        ] {
            let before = fs::metadata(place.path(name))
                .expect("a mode")
                .permissions();
            mode(name, bad);
            let error = verdict(uid, "home").expect_err(name);
            let wanted = format!(
                "bad ownership or modes for {what} {}",
                place.path(name).display()
            );
            assert_eq!(error, wanted.as_bytes());
            fs::set_permissions(place.path(name), before).expect("a mode");
        }
        assert_eq!(verdict(uid, "home"), Ok(()));
        // With another home all directories up to / count.
        assert!(verdict(uid, "elsewhere").is_err());
    }
}
