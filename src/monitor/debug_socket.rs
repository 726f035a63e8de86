//! `<DataDir>/debug.sock`: made, watched and removed by the monitor, accepted from by the debug
//! service's process.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
    socket_with, sockopt,
};

use super::rundir::{make_directory, others_drain};
use crate::limits::DEBUG_BACKLOG;
use crate::take_over::DebugSocketFile;

/// Name in DataDir.
const NAME: &str = "debug.sock";

#[derive(Debug)]
pub(super) struct DebugSocket {
    listener: OwnedFd,
    path: PathBuf,
    /// The file that is ours: another server may have replaced it.
    inode: u64,
}

impl DebugSocket {
    /// Makes the socket; `open`: everybody may connect, and who they are decides.
    ///
    /// # Errors
    ///
    /// What is in the way, in words.
    pub(super) fn make(data_dir: &Path, as_root: bool, open: bool) -> Result<Self, String> {
        let path = data_dir.join(NAME);
        let text = |error: io::Error| format!("{}: {error}", path.display());
        make_directory(data_dir, as_root).map_err(text)?;
        if is_served(&path) && !others_drain(data_dir) {
            return Err(format!(
                "{}: another running server has it; give one of them a DataDir of its own",
                path.display()
            ));
        }
        let listener = bind_there(&path, open).map_err(text)?;
        let inode = std::fs::symlink_metadata(&path).map_err(text)?.ino();
        Ok(Self {
            listener,
            path,
            inode,
        })
    }

    /// The socket of the program before this one in the same process; `None`: another server has
    /// taken the name.
    pub(super) fn taken_over(file: DebugSocketFile) -> Option<Self> {
        let found = std::fs::symlink_metadata(&file.path).ok()?;
        (found.ino() == file.inode).then_some(Self {
            listener: file.listener,
            path: file.path,
            inode: file.inode,
        })
    }

    /// For the program after this one: inode and path of the file.
    pub(super) fn described(&self) -> Vec<u8> {
        let path = self.path.as_os_str().as_encoded_bytes();
        [self.inode.to_string().as_bytes(), b" ", path].concat()
    }

    /// Whether `socket` was accepted here: the descriptors that a process of ours was started with
    /// bear our credentials too, and are no client.
    pub(super) fn accepted(&self, socket: impl AsFd) -> bool {
        let socket = socket.as_fd();
        let kind = (
            sockopt::socket_domain(socket),
            sockopt::socket_type(socket),
            sockopt::socket_acceptconn(socket),
        );
        let is_connected = (Ok(AddressFamily::UNIX), Ok(SocketType::STREAM), Ok(false)) == kind;
        match (getsockname(socket), getsockname(&self.listener)) {
            (Ok(name), Ok(ours)) => is_connected && name == ours,
            _ => false,
        }
    }

    /// Whether it is where this configuration wants it.
    pub(super) fn is_in(&self, data_dir: &Path) -> bool {
        self.path.parent() == Some(data_dir)
    }

    /// Changes who may connect.
    pub(super) fn set_open(&self, open: bool) {
        if let Err(error) = set_mode(&self.path, open) {
            log::warn!("{}: {error}", self.path.display());
        }
    }

    /// The file belongs to somebody else now.
    pub(super) fn forget(mut self) {
        self.inode = 0;
    }
}

impl AsFd for DebugSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl Drop for DebugSocket {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Bound under a name of its own and renamed: nobody meets a socket that does not listen yet, and
/// one that a crash left behind is replaced.
fn bind_there(path: &Path, open: bool) -> io::Result<OwnedFd> {
    if let Ok(found) = std::fs::symlink_metadata(path)
        && !found.file_type().is_socket()
    {
        return Err(io::Error::other("is no socket; move it away"));
    }
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&new);
    let socket = stream()?;
    let made = bind(&socket, &SocketAddrUnix::new(&new)?)
        .map_err(io::Error::from)
        .and_then(|()| set_mode(&new, open))
        .and_then(|()| Ok(listen(&socket, DEBUG_BACKLOG)?))
        .and_then(|()| std::fs::rename(&new, path));
    if let Err(error) = made {
        let _ = std::fs::remove_file(&new);
        return Err(error);
    }
    Ok(socket)
}

fn stream() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

fn set_mode(path: &Path, open: bool) -> io::Result<()> {
    let mode = if open { 0o666 } else { 0o600 };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Whether a process has the socket. The type is the wrong one, so that it never notices: the
/// kernel says EPROTOTYPE for a socket that lives, ECONNREFUSED for one that nobody has.
fn is_served(path: &Path) -> bool {
    let flags = SocketFlags::CLOEXEC;
    let Ok(probe) = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None) else {
        return false;
    };
    SocketAddrUnix::new(path)
        .and_then(|address| connect(&probe, &address))
        .is_err_and(|errno| errno == Errno::PROTOTYPE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::net::UnixStream;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("agent-debug-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn is_for_its_owner_unless_it_is_opened_and_goes_with_us() {
        let directory = directory("own");
        let path = directory.join(NAME);
        let mode = || std::fs::metadata(&path).unwrap().mode() & 0o777;
        let socket = DebugSocket::make(&directory, false, false).unwrap();
        assert_eq!(mode(), 0o600);
        UnixStream::connect(&path).unwrap();
        socket.set_open(true);
        assert_eq!(mode(), 0o666);
        drop(socket);
        assert!(!path.exists());
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn only_what_it_accepted_is_a_client() {
        let directory = directory("client");
        let socket = DebugSocket::make(&directory, false, false).unwrap();
        let _client = UnixStream::connect(directory.join(NAME)).unwrap();
        let accepted = rustix::net::accept(&socket).unwrap();
        assert!(socket.accepted(&accepted));
        assert!(!socket.accepted(&socket), "the listener");
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(!socket.accepted(&stream), "a pair of sockets");
        let (link, _other) = agent_helper::link::pair().unwrap();
        assert!(!socket.accepted(&link), "a link");
        let elsewhere = self::directory("elsewhere");
        let another = DebugSocket::make(&elsewhere, false, false).unwrap();
        assert!(!another.accepted(&accepted), "of another listener");
        drop((socket, another));
        std::fs::remove_dir(&directory).unwrap();
        std::fs::remove_dir(&elsewhere).unwrap();
    }

    #[test]
    fn a_socket_without_a_server_is_replaced_and_one_with_a_server_is_not() {
        let directory = directory("twice");
        let first = DebugSocket::make(&directory, false, false).unwrap();
        let refusal = DebugSocket::make(&directory, false, false).unwrap_err();
        assert!(refusal.contains("another running server"), "{refusal}");
        first.forget();
        let second = DebugSocket::make(&directory, false, false).unwrap();
        UnixStream::connect(directory.join(NAME)).unwrap();
        drop(second);
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn the_next_program_serves_on_the_same_socket() {
        let directory = directory("next");
        let socket = DebugSocket::make(&directory, false, false).unwrap();
        let described = String::from_utf8(socket.described()).unwrap();
        let (inode, path) = described.split_once(' ').unwrap();
        let file = |inode: u64| DebugSocketFile {
            listener: socket.listener.try_clone().unwrap(),
            inode,
            path: path.into(),
        };
        let inode: u64 = inode.parse().unwrap();
        assert!(DebugSocket::taken_over(file(inode + 1)).is_none());
        assert!(directory.join(NAME).exists());
        let next = DebugSocket::taken_over(file(inode)).unwrap();
        assert!(next.is_in(&directory));
        socket.forget();
        UnixStream::connect(directory.join(NAME)).unwrap();
        drop(next);
        assert!(!directory.join(NAME).exists());
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn what_is_no_socket_stays_where_it_is() {
        let directory = directory("file");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join(NAME), "mine").unwrap();
        assert!(DebugSocket::make(&directory, false, false).is_err());
        assert_eq!(std::fs::read(directory.join(NAME)).unwrap(), b"mine");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
