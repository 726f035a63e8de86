//! The file that tells a session how its user logged in (ExposeAuthInfo): one line for each method,
//! readable by the user alone, gone with the session. Source: sshd_config(5).
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::getpid;

use crate::output::write_all;
use crate::text::{c_string, decimal};

/// Where it lies, as sshd's.
const PREFIX: &[u8] = b"/tmp/sshauth.";
/// Names that are tried: others may have taken some.
const NAMES_MAX: u32 = 256;

/// The file; removed when dropped.
#[derive(Debug)]
pub struct AuthInfo {
    path: Vec<u8>,
}

impl AuthInfo {
    /// Writes the file. It must be new: nobody's link or file is followed or filled.
    pub fn write(content: &[u8]) -> Result<Self, Errno> {
        let process = decimal(getpid().as_raw_pid().cast_unsigned());
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for number in 0..NAMES_MAX {
            let path = [PREFIX, &process, b".", &decimal(number)].concat();
            let opened = rustix::fs::open(&*c_string(&path)?, flags, Mode::RUSR | Mode::WUSR);
            let file = match opened {
                Err(Errno::EXIST) => continue,
                opened => opened?,
            };
            // From here on it is ours to remove.
            let info = Self { path };
            write_all(file.as_fd(), content)?;
            return Ok(info);
        }
        Err(Errno::EXIST)
    }

    /// For SSH_USER_AUTH.
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

impl Drop for AuthInfo {
    fn drop(&mut self) {
        let _ = crate::path::remove(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    #[test]
    fn the_file_is_the_users_alone_and_goes_with_its_session() {
        let first = AuthInfo::write(b"publickey ssh-ed25519 AAAA\n").expect("a file");
        let second = AuthInfo::write(b"password\n").expect("another file");
        assert_ne!(first.path(), second.path());
        let path = Path::new(std::ffi::OsStr::from_bytes(first.path())).to_path_buf();
        assert_eq!(
            fs::read(&path).expect("its content"),
            b"publickey ssh-ed25519 AAAA\n"
        );
        let mode = fs::metadata(&path).expect("its mode").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(first);
        assert!(!path.exists());
    }
}
