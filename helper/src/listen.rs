//! Listening sockets: ports, and sockets in the file system with what happens to their files.
//!
//! The kernel decides what the user may bind; there is no privilege here to misuse.
//! Source: sshd_config(5) StreamLocalBindMask and StreamLocalBindUnlink.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::net::{Ipv6Addr, SocketAddr};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, statat};
use rustix::io::Errno;
use rustix::net::{AddressFamily, bind, getsockname, listen, sockopt};
use rustix::process::umask;

use crate::connect::{family, socket_address, stream, unix_address};
use crate::forward_frame::{Address, Family};
use crate::forward_policy::Bind;
use crate::limits::{LISTEN_ADDRESSES_MAX, LISTEN_BACKLOG};
use crate::path::remove;
use crate::text::c_string;

/// IPv4 first.
const LOOPBACK: [Address; 2] = both([127, 0, 0, 1], Ipv6Addr::LOCALHOST);
const WILDCARD: [Address; 2] = both([0; 4], Ipv6Addr::UNSPECIFIED);

const fn both(v4: [u8; 4], v6: Ipv6Addr) -> [Address; 2] {
    let v6 = Address::V6 {
        octets: v6.octets(),
        zone: 0,
    };
    [Address::V4 { octets: v4 }, v6]
}

/// The addresses that `bind` stands for; `None`: they have to be looked up.
pub fn addresses(bind: Bind<'_>, families: Family) -> Option<&'static [Address]> {
    let both: &'static [Address] = match bind {
        Bind::Loopback => &LOOPBACK,
        Bind::Wildcard => &WILDCARD,
        Bind::Named(_) => return None,
    };
    Some(match families {
        Family::Any => both,
        Family::V4 => both.get(..1)?,
        Family::V6 => both.get(1..)?,
    })
}

/// Whether AddressFamily lets an address be used.
pub fn fits(address: Address, families: Family) -> bool {
    match families {
        Family::Any => true,
        Family::V4 => matches!(address, Address::V4 { .. }),
        Family::V6 => matches!(address, Address::V6 { .. }),
    }
}

/// Listens at `port` of as many of `addresses` as will do; with port 0 at one that the kernel
/// chooses. As with sshd, one is enough.
pub fn tcp(addresses: &[Address], mut port: u16) -> Result<(Vec<OwnedFd>, u16), Errno> {
    let mut sockets = Vec::new();
    let mut failure = Errno::ADDRNOTAVAIL;
    for address in addresses.iter().take(LISTEN_ADDRESSES_MAX) {
        match one_tcp(&socket_address(*address, port)) {
            Ok((socket, bound)) => {
                sockets.push(socket);
                port = bound;
            }
            Err(errno) => failure = errno,
        }
    }
    if sockets.is_empty() {
        Err(failure)
    } else {
        Ok((sockets, port))
    }
}

/// Listens at `port` of all of `addresses` that this machine has, or at none: another program's
/// display must not be half of ours.
pub fn exclusive_tcp(addresses: &[Address], port: u16) -> Result<Vec<OwnedFd>, Errno> {
    let mut sockets = Vec::new();
    let mut failure = Errno::ADDRNOTAVAIL;
    for address in addresses {
        match one_tcp(&socket_address(*address, port)) {
            Ok((socket, _)) => sockets.push(socket),
            Err(Errno::ADDRINUSE) => return Err(Errno::ADDRINUSE),
            Err(errno) => failure = errno,
        }
    }
    if sockets.is_empty() {
        Err(failure)
    } else {
        Ok(sockets)
    }
}

fn one_tcp(address: &SocketAddr) -> Result<(OwnedFd, u16), Errno> {
    let socket = stream(family(address))?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    bind(&socket, address)?;
    listen(&socket, LISTEN_BACKLOG)?;
    let bound = SocketAddr::try_from(getsockname(&socket)?)?;
    Ok((socket, bound.port()))
}

/// A socket in the file system that we made. Its file is removed with this value.
#[derive(Debug)]
pub struct UnixFile {
    path: Vec<u8>,
    /// Device and inode: another file under that path is not ours to remove.
    identity: (u64, u64),
}

impl UnixFile {
    /// Where it is.
    pub fn path(&self) -> &[u8] {
        &self.path
    }
}

impl Drop for UnixFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            let _ = remove(&self.path);
        }
    }
}

/// Listens at `path`, for those whom `mask` leaves the right to write to it. `replace`: a socket
/// that is there goes first; anything else stays.
pub fn unix(path: &[u8], mask: u32, replace: bool) -> Result<(OwnedFd, UnixFile), Errno> {
    let address = unix_address(path)?;
    if replace && identity(path).is_some() {
        let _ = remove(path);
    }
    let socket = stream(AddressFamily::UNIX)?;
    let before = umask(Mode::from_raw_mode(mask));
    let bound = bind(&socket, &address);
    umask(before);
    bound?;
    let identity = identity(path).ok_or(Errno::NOENT)?;
    let file = UnixFile {
        path: path.to_vec(),
        identity,
    };
    listen(&socket, LISTEN_BACKLOG)?;
    Ok((socket, file))
}

/// Device and inode of the socket at `path`.
fn identity(path: &[u8]) -> Option<(u64, u64)> {
    let path = c_string(path).ok()?;
    let found = statat(CWD, &*path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
    is_socket.then_some((found.st_dev, found.st_ino))
}

/// The umask is the process's: tests that make sockets, or look at modes, take turns. (The helper has
/// one thread.)
#[cfg(test)]
pub fn umask_in_turn() -> std::sync::MutexGuard<'static, ()> {
    static UMASK: std::sync::Mutex<()> = std::sync::Mutex::new(());
    UMASK
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("agent-listen-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        path
    }

    fn bytes(path: &std::path::Path) -> Vec<u8> {
        path.to_str().expect("text").as_bytes().to_vec()
    }

    #[test]
    fn port_zero_gives_both_families_the_same_port() {
        let both = addresses(Bind::Loopback, Family::Any).expect("addresses");
        let (sockets, port) = tcp(both, 0).expect("listeners");
        assert_ne!(port, 0);
        for socket in &sockets {
            let bound = SocketAddr::try_from(getsockname(socket).expect("a name")).expect("one");
            assert_eq!(bound.port(), port);
            assert!(bound.ip().is_loopback());
        }
        assert_eq!(tcp(&both[..1], port).map(drop), Err(Errno::ADDRINUSE));
    }

    #[test]
    fn families_that_are_not_wanted_are_left_out() {
        let of = |family| addresses(Bind::Wildcard, family).expect("addresses");
        assert!(matches!(of(Family::V4)[..], [Address::V4 { .. }]));
        assert!(matches!(of(Family::V6)[..], [Address::V6 { .. }]));
        assert_eq!(of(Family::Any).len(), 2);
        assert_eq!(addresses(Bind::Named(b"x"), Family::Any), None);
    }

    #[test]
    fn the_file_has_the_modes_of_the_mask_and_goes_with_its_listener() {
        let _turn = umask_in_turn();
        let directory = directory("mask");
        let path = directory.join("socket");
        let (_socket, file) = unix(&bytes(&path), 0o177, false).expect("a listener");
        let mode = std::fs::metadata(&path)
            .expect("the file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            unix(&bytes(&path), 0o177, false).map(drop),
            Err(Errno::ADDRINUSE)
        );
        drop(file);
        assert!(!path.exists());
        std::fs::remove_dir_all(directory).expect("removal");
    }

    #[test]
    fn only_a_socket_is_replaced_and_only_our_own_is_removed() {
        let _turn = umask_in_turn();
        let directory = directory("unlink");
        let path = directory.join("socket");
        let (_first, old) = unix(&bytes(&path), 0o177, false).expect("a listener");
        let (_second, new) = unix(&bytes(&path), 0o177, true).expect("another in its place");
        drop(old);
        assert!(path.exists(), "another's");
        drop(new);
        std::fs::write(&path, "precious").expect("a file");
        assert_eq!(
            unix(&bytes(&path), 0o177, true).map(drop),
            Err(Errno::ADDRINUSE)
        );
        assert!(path.exists());
        std::fs::remove_dir_all(directory).expect("removal");
    }
}
