//! Terminals, opened as root and given to the user for as long as a session lasts.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use rustix::io;
use rustix::pty::OpenptFlags;

/// What is kept of a terminal: never an end of it, or its hang-up would not be seen.
#[derive(Debug)]
pub(super) struct Terminal {
    /// `/dev/pts/3`.
    pub path: Vec<u8>,
    /// The inode itself: the number may belong to another by the time it is given back.
    node: Option<OwnedFd>,
}

/// Both ends, for the helper.
#[derive(Debug)]
pub(super) struct Ends {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Terminal {
    /// Opens a terminal for a user. With a group `tty`, only its programs (wall, write) may write to
    /// it; without, nobody but the user.
    pub(super) fn open(uid: u32, gid: u32, tty_group: Option<u32>) -> io::Result<(Self, Ends)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&master)?;
        let path = rustix::pty::ptsname(&master, Vec::new())?;
        // Kernels before 4.13 have no TIOCGPTPEER; there the path must do.
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).or_else(|_| {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            rustix::fs::open(&path, flags, Mode::empty())
        })?;
        let mode = if tty_group.is_some() { 0o620 } else { 0o600 };
        let group = Gid::from_raw(tty_group.unwrap_or(gid));
        rustix::fs::fchown(&slave, Some(Uid::from_raw(uid)), Some(group))?;
        rustix::fs::fchmod(&slave, Mode::from_raw_mode(mode))?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let node = rustix::fs::open(&path, flags, Mode::empty())
            .ok()
            .filter(|node| {
                let of =
                    |descriptor: &OwnedFd| rustix::fs::fstat(descriptor).map(|stat| stat.st_rdev);
                of(node).is_ok_and(|device| of(&slave) == Ok(device))
            });
        Ok((
            Self {
                path: path.into_bytes(),
                node,
            },
            Ends { master, slave },
        ))
    }

    /// The line of utmp: without /dev/.
    pub(super) fn line(&self) -> &[u8] {
        self.path.strip_prefix(b"/dev/").unwrap_or(&self.path)
    }

    /// Takes the terminal back from the user, as OpenSSH's pty_release.
    pub(super) fn give_back(&self) {
        let Some(node) = &self.node else { return };
        let root = (Some(Uid::ROOT), Some(Gid::ROOT));
        let _ = rustix::fs::chownat(node.as_fd(), c"", root.0, root.1, AtFlags::EMPTY_PATH);
    }
}
