//! What a helper may hand over: its user controls it, so the kernel is asked what each thing is.
//!
//! The danger is not reading (the user could send any bytes anyway) but a descriptor that behaves
//! otherwise than a pipe or a terminal in the connection's loop: one that blocks, or never ends.

use agent_helper::file_system;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};
use rustix::net::{AddressFamily, SocketType, sockopt};

/// Device number of a terminal's master, once opened: `/dev/ptmx` (Linux devices.txt).
const PTMX: (u32, u32) = (5, 2);
/// Device number of `/dev/net/tun`.
const TUN: (u32, u32) = (10, 200);

/// The master of a terminal.
pub(super) fn terminal_master(descriptor: OwnedFd) -> Option<OwnedFd> {
    let stat = fstat(&descriptor).ok()?;
    let is_master = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == PTMX
        && access(&descriptor)? == OFlags::RDWR;
    accept(descriptor, is_master)
}

/// The end of a pipe that is written to.
pub(super) fn pipe_writer(descriptor: OwnedFd) -> Option<OwnedFd> {
    let is_writer = is_pipe(&descriptor)? && access(&descriptor)? == OFlags::WRONLY;
    accept(descriptor, is_writer)
}

/// The end of a pipe that is read from.
pub(super) fn pipe_reader(descriptor: OwnedFd) -> Option<OwnedFd> {
    let is_reader = is_pipe(&descriptor)? && access(&descriptor)? == OFlags::RDONLY;
    accept(descriptor, is_reader)
}

/// A connected stream socket, or one that was.
pub(super) fn stream_socket(descriptor: OwnedFd) -> Option<OwnedFd> {
    let is_stream = is_stream(&descriptor) && !is_listening(&descriptor);
    accept(descriptor, is_stream)
}

/// A tunnel device.
pub(super) fn tunnel_device(descriptor: OwnedFd) -> Option<OwnedFd> {
    let stat = fstat(&descriptor).ok()?;
    let is_tunnel = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && (major(stat.st_rdev), minor(stat.st_rdev)) == TUN
        && access(&descriptor)? == OFlags::RDWR;
    accept(descriptor, is_tunnel)
}

/// A listening stream socket.
pub(super) fn listener(descriptor: OwnedFd) -> Option<OwnedFd> {
    let is_listener = is_stream(&descriptor) && is_listening(&descriptor);
    accept(descriptor, is_listener)
}

/// Whether a socket is in the file system, or was.
pub(super) fn is_unix(socket: &OwnedFd) -> bool {
    sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
}

fn is_stream(descriptor: &OwnedFd) -> bool {
    let families = [
        AddressFamily::INET,
        AddressFamily::INET6,
        AddressFamily::UNIX,
    ];
    sockopt::socket_type(descriptor) == Ok(SocketType::STREAM)
        && sockopt::socket_domain(descriptor).is_ok_and(|family| families.contains(&family))
}

fn is_listening(descriptor: &OwnedFd) -> bool {
    sockopt::socket_acceptconn(descriptor) == Ok(true)
}

/// What a file may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Access {
    pub read: bool,
    pub write: bool,
}

/// A regular file that can be read and written without waiting for anybody.
pub(super) fn regular_file(descriptor: OwnedFd) -> Option<(OwnedFd, Access)> {
    let is_regular =
        FileType::from_raw_mode(fstat(&descriptor).ok()?.st_mode) == FileType::RegularFile;
    let flags = fcntl_getfl(&descriptor).ok()?;
    if !is_regular || flags.intersects(OFlags::APPEND | OFlags::PATH | OFlags::DIRECT) {
        return None;
    }
    if !file_system::is_local(&descriptor) {
        return None;
    }
    let mode = flags & OFlags::ACCMODE;
    let access = Access {
        read: mode != OFlags::WRONLY,
        write: mode != OFlags::RDONLY,
    };
    Some((descriptor, access))
}

fn is_pipe(descriptor: &OwnedFd) -> Option<bool> {
    Some(FileType::from_raw_mode(fstat(descriptor).ok()?.st_mode) == FileType::Fifo)
}

fn access(descriptor: &impl AsFd) -> Option<OFlags> {
    Some(fcntl_getfl(descriptor).ok()? & OFlags::ACCMODE)
}

fn accept(descriptor: OwnedFd, is_expected: bool) -> Option<OwnedFd> {
    if !is_expected {
        return None;
    }
    rustix::io::ioctl_fionbio(&descriptor, true).ok()?;
    Some(descriptor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use rustix::pty::{OpenptFlags, openpt};

    #[test]
    fn takes_what_it_is_named_after() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(pipe_reader(reader).is_some());
        assert!(pipe_writer(writer).is_some());
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(stream_socket(socket.into()).is_some());
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = listener(listening.into()).unwrap();
        assert!(fcntl_getfl(listening).unwrap().contains(OFlags::NONBLOCK));
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let master = terminal_master(master).unwrap();
        assert!(fcntl_getfl(master).unwrap().contains(OFlags::NONBLOCK));
    }

    #[test]
    fn takes_files_that_wait_for_nobody() {
        let open =
            |path: &str, flags| rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
        let own = std::env::current_exe().unwrap();
        let own = own.to_str().unwrap();
        let (_, access) = regular_file(open(own, OFlags::RDONLY)).unwrap();
        assert_eq!((access.read, access.write), (true, false));
        for (path, flags) in [
            (own, OFlags::PATH),
            ("/", OFlags::RDONLY),
            ("/dev/zero", OFlags::RDONLY),
            ("/proc/self/status", OFlags::RDONLY),
        ] {
            assert!(regular_file(open(path, flags)).is_none(), "{path}");
        }
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(regular_file(reader).is_none());
    }

    #[test]
    fn refuses_everything_else() {
        let open =
            |path: &str, flags| rustix::fs::open(path, flags, rustix::fs::Mode::empty()).unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        assert!(pipe_writer(reader).is_none());
        assert!(pipe_reader(writer).is_none());
        assert!(pipe_reader(open("/dev/zero", OFlags::RDONLY)).is_none());
        assert!(pipe_reader(open("/", OFlags::RDONLY)).is_none());
        assert!(pipe_reader(open("/proc/self/exe", OFlags::RDONLY)).is_none());
        assert!(terminal_master(open("/dev/null", OFlags::RDWR)).is_none());
        assert!(tunnel_device(open("/dev/null", OFlags::RDWR)).is_none());
        let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(pipe_reader(socket.into()).is_none());
        assert!(listener(other.into()).is_none());
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(stream_socket(datagrams.into()).is_none());
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(stream_socket(listening.into()).is_none());
        assert!(stream_socket(open("/dev/null", OFlags::RDWR)).is_none());
    }
}
