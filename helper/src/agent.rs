//! The socket through which a login's programs reach the client's agent, in a directory that nobody
//! else can enter; both are removed with their value.
//!
//! With AgentSocketPath a fixed path leads to the socket of the newest connection that lives. It is a
//! symbolic link, put in place by rename; each socket's directory notes which one it took the place
//! of, so that the link goes back when its connection ends.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, mkdir};
use rustix::io::Errno;
use rustix::process::getpid;

use crate::connect;
use crate::limits::AGENT_LINKS_MAX;
use crate::listen::{self, UnixFile};
use crate::path::{read_link, remove};
use crate::sftp::change::{make_symbolic_link, remove_directory, rename_over};
use crate::sys::now_ms;
use crate::text::{c_string, decimal};

/// Names tried for the directory: some may be taken.
const ATTEMPTS: u32 = 100;
/// In each directory: the socket whose place ours took.
const EARLIER: &[u8] = b"/earlier";

/// The socket, its directory, and the link to it.
#[derive(Debug)]
pub struct AgentSocket {
    /// Gone before its directory goes.
    file: Option<UnixFile>,
    directory: Vec<u8>,
    path: Vec<u8>,
    link: Option<Vec<u8>>,
}

impl AgentSocket {
    /// Listens in a new directory in `/tmp`, else in the user's `.ssh`. `link`: AgentSocketPath; the
    /// second value is why there is no link though one was wanted.
    pub fn new(home: &[u8], link: Option<&[u8]>) -> Result<(OwnedFd, Self, Option<Errno>), Errno> {
        let directory = match directory(b"/tmp") {
            Ok(directory) => directory,
            Err(_) => directory(&[home, b"/.ssh"].concat())?,
        };
        let number = decimal(getpid().as_raw_pid().cast_unsigned());
        let path = [&directory, b"/agent.".as_slice(), &number].concat();
        let mut socket = Self {
            file: None,
            directory,
            path,
            link: None,
        };
        // From here on the directory goes with the value.
        let (listener, file) = listen::unix(&socket.path, 0o177, false)?;
        socket.file = Some(file);
        let mut failure = None;
        if let Some(link) = link {
            match socket.take_link(link) {
                Ok(()) => socket.link = Some(link.to_vec()),
                Err(errno) => failure = Some(errno),
            }
        }
        Ok((listener, socket, failure))
    }

    /// For SSH_AUTH_SOCK.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// Makes the link lead here. What stands in its place and is no link stays.
    fn take_link(&self, link: &[u8]) -> Result<(), Errno> {
        match read_link(link) {
            Ok(earlier) => set_link(&self.earlier(), &earlier)?,
            Err(Errno::NOENT) => {}
            Err(Errno::INVAL) => return Err(Errno::EXIST),
            Err(errno) => return Err(errno),
        }
        set_link(link, &self.path)
    }

    /// Makes the link lead to the newest that lives, or to nothing; or, where it leads to a newer
    /// one, takes this one out of the row behind that.
    fn give_link_back(&self, link: &[u8]) {
        let earlier = read_link(&self.earlier()).ok();
        let Ok(mut newest) = read_link(link) else {
            return;
        };
        if newest == self.path {
            let _ = match earlier.and_then(living) {
                Some(earlier) => set_link(link, &earlier),
                None => remove(link),
            };
            return;
        }
        for _ in 0..AGENT_LINKS_MAX {
            let note = earlier_of(&newest);
            match read_link(&note) {
                Ok(next) if next == self.path => {
                    let _ = match &earlier {
                        Some(earlier) => set_link(&note, earlier),
                        None => remove(&note),
                    };
                    return;
                }
                Ok(next) => newest = next,
                Err(_) => return,
            }
        }
    }

    fn earlier(&self) -> Vec<u8> {
        [&self.directory, EARLIER].concat()
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            self.give_link_back(&link);
        }
        self.file = None;
        let _ = remove(&self.earlier());
        let _ = remove_directory(&self.directory);
    }
}

/// The first in the row from `path` on that somebody listens at.
fn living(path: Vec<u8>) -> Option<Vec<u8>> {
    let mut path = path;
    for _ in 0..AGENT_LINKS_MAX {
        if connect::unix(&path).is_ok() {
            return Some(path);
        }
        path = read_link(&earlier_of(&path)).ok()?;
    }
    None
}

fn earlier_of(socket: &[u8]) -> Vec<u8> {
    let end = socket.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    [socket.get(..end).unwrap_or_default(), EARLIER].concat()
}

/// A new directory in `base`, for its owner only. That the name is free is all that matters: it need
/// not be hard to guess.
fn directory(base: &[u8]) -> Result<Vec<u8>, Errno> {
    const DIGITS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345679";
    let pid = u64::from(getpid().as_raw_pid().cast_unsigned());
    let mut number = now_ms() << 24 ^ pid;
    for _ in 0..ATTEMPTS {
        let mut path = [base, b"/ssh-"].concat();
        let mut rest = number;
        for _ in 0..10 {
            let digit = usize::try_from(rest % 32).unwrap_or(0);
            path.extend(DIGITS.get(digit));
            rest /= 32;
        }
        match mkdir(&*c_string(&path)?, Mode::from_raw_mode(0o700)) {
            Ok(()) => return Ok(path),
            Err(Errno::EXIST) => number = number.wrapping_mul(6_364_136_223_846_793_005) + 1,
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::EXIST)
}

/// Makes `path` a link to `target`, in one step for whoever looks.
fn set_link(path: &[u8], target: &[u8]) -> Result<(), Errno> {
    let pid = decimal(getpid().as_raw_pid().cast_unsigned());
    let new = [path, b".", &pid].concat();
    let _ = remove(&new);
    make_symbolic_link(target, &new)?;
    rename_over(&new, path).inspect_err(|_| {
        let _ = remove(&new);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    fn text(bytes: &[u8]) -> PathBuf {
        Path::new(core::str::from_utf8(bytes).expect("a path")).to_owned()
    }

    fn link_in(name: &str) -> (PathBuf, Vec<u8>) {
        let home = std::env::temp_dir().join(format!("agent-link-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&home).expect("a directory");
        let link = home
            .join("agent.sock")
            .to_str()
            .expect("text")
            .as_bytes()
            .to_vec();
        (home, link)
    }

    fn open(link: Option<&[u8]>) -> (OwnedFd, AgentSocket) {
        let _turn = listen::umask_in_turn();
        let (listener, socket, failure) =
            AgentSocket::new(b"/nonexistent", link).expect("a socket");
        assert_eq!(failure, None);
        (listener, socket)
    }

    #[test]
    fn the_socket_is_its_owners_alone_and_leaves_nothing_behind() {
        let (_listener, socket) = open(None);
        let mode = |path: &[u8]| {
            let found = std::fs::metadata(text(path)).expect("it");
            found.permissions().mode() & 0o777
        };
        let directory = socket.directory.clone();
        assert_eq!((mode(&directory), mode(socket.path())), (0o700, 0o600));
        assert!(connect::unix(socket.path()).is_ok());
        drop(socket);
        assert!(!text(&directory).exists());
    }

    #[test]
    fn the_link_follows_the_newest_that_lives() {
        let (home, link) = link_in("newest");
        let target = || read_link(&link).ok();
        let (_a, first) = open(Some(&link));
        let (_b, second) = open(Some(&link));
        let (_c, third) = open(Some(&link));
        let (_d, fourth) = open(Some(&link));
        assert_eq!(target(), Some(fourth.path().to_vec()));
        drop(second);
        drop(fourth);
        assert_eq!(target(), Some(third.path().to_vec()));
        drop(third);
        assert_eq!(
            target(),
            Some(first.path().to_vec()),
            "past one that ended before"
        );
        drop(first);
        assert_eq!(target(), None);
        std::fs::remove_dir(home).expect("an empty directory");
    }

    #[test]
    fn one_that_was_killed_is_passed_over() {
        let (home, link) = link_in("killed");
        let (_a, first) = open(Some(&link));
        let (listener, killed) = open(Some(&link));
        let (_c, third) = open(Some(&link));
        drop(listener);
        drop(third);
        assert_eq!(read_link(&link), Ok(first.path().to_vec()));
        drop(killed);
        drop(first);
        std::fs::remove_dir(home).expect("an empty directory");
    }

    #[test]
    fn what_is_no_link_is_not_replaced() {
        let (home, link) = link_in("file");
        std::fs::write(text(&link), "precious").expect("a file");
        let (_listener, socket, failure) =
            AgentSocket::new(b"/nonexistent", Some(&link)).expect("a socket");
        assert_eq!(failure, Some(Errno::EXIST));
        drop(socket);
        assert_eq!(std::fs::read(text(&link)).expect("it"), b"precious");
        std::fs::remove_dir_all(home).expect("removal");
    }
}
