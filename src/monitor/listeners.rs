//! Listening sockets: opened by the monitor, accepted from by strangers' `net`.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, sockopt};

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Listener {
    pub address: SocketAddr,
    socket: OwnedFd,
    /// From a service manager: reloads keep it, whatever the configuration says.
    pub handed_over: bool,
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// As OpenSSH: the kernel cuts it to net.core.somaxconn.
const BACKLOG: i32 = 128;

impl Listener {
    /// Listens at `address`. The error is a whole sentence.
    pub(super) fn open(address: SocketAddr) -> Result<Self, String> {
        match bind(address) {
            Ok(socket) => {
                let address = local_address(&socket).unwrap_or(address);
                Ok(Self {
                    address,
                    socket,
                    handed_over: false,
                })
            }
            Err(error) => Err(explain(address, error)),
        }
    }

    /// Ends the listening in all processes that have the socket, so that the next server finds the
    /// port free whatever they do. A service manager's is its own to end.
    pub(super) fn stop(self) {
        if !self.handed_over {
            let _ = shutdown(&self.socket, Shutdown::Both);
        }
    }

    /// Takes a socket that an earlier program in this process listened on; true: it had it from a
    /// service manager.
    pub(super) fn taken_over((socket, handed_over): (OwnedFd, bool)) -> Option<Self> {
        let listener = Self::handed_over(socket).ok()?;
        Some(Self {
            handed_over,
            ..listener
        })
    }

    /// Takes a listening socket from a service manager; `None`: it does not listen.
    pub(super) fn handed_over(socket: OwnedFd) -> Result<Self, OwnedFd> {
        match (sockopt::socket_acceptconn(&socket), local_address(&socket)) {
            (Ok(true), Some(address)) => {
                // Several processes accept from it during a reload, and one of them is late.
                let _ = rustix::io::ioctl_fionbio(&socket, true);
                Ok(Self {
                    address,
                    socket,
                    handed_over: true,
                })
            }
            _ => Err(socket),
        }
    }
}

/// A socket for an address of a new configuration.
pub(super) enum NewListener {
    /// Index of one that is open.
    Kept(usize),
    New(Listener),
}

/// Sockets for the addresses of a new configuration: of those that are `open` the ones at these
/// addresses, and new ones; and where there can be none. Those of a service manager stay, whatever
/// the configuration says.
pub(super) fn for_addresses(
    wanted: &[SocketAddr],
    open: &[Listener],
) -> (Vec<NewListener>, Vec<(SocketAddr, String)>) {
    if open.iter().any(|listener| listener.handed_over) {
        return ((0..open.len()).map(NewListener::Kept).collect(), Vec::new());
    }
    let mut listeners = Vec::new();
    let mut errors = Vec::new();
    for address in wanted {
        let kept = open.iter().position(|it| it.address == *address);
        match kept.map_or_else(
            || Listener::open(*address).map(NewListener::New),
            |index| Ok(NewListener::Kept(index)),
        ) {
            Ok(listener) => listeners.push(listener),
            Err(error) => errors.push((*address, error)),
        }
    }
    (listeners, errors)
}

/// The sockets of `new`; of `old`, those that are not kept are closed.
pub(super) fn exchange(old: Vec<Listener>, new: Vec<NewListener>) -> Vec<Listener> {
    let mut old: Vec<_> = old.into_iter().map(Some).collect();
    new.into_iter()
        .filter_map(|listener| match listener {
            NewListener::New(listener) => Some(listener),
            NewListener::Kept(index) => old.get_mut(index).and_then(Option::take),
        })
        .collect()
}

fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()
}

fn bind(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    // Nonblocking: several processes accept from it during a reload, and one of them is late.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn explain(address: SocketAddr, error: rustix::io::Errno) -> String {
    let port = address.port();
    let other = if port == 22 || port == u16::MAX {
        2222
    } else {
        port + 1
    };
    let what = match error {
        rustix::io::Errno::ADDRINUSE => match owner::of(address) {
            Some(owner) => format!("the port is in use by {owner}"),
            None => "the port is in use".into(),
        },
        rustix::io::Errno::ACCESS => "ports below 1024 need root".into(),
        error => error.to_string(),
    };
    format!("cannot listen on {address}: {what}; another port: agent serve -p {other}")
}

/// Who holds a port: /proc/net/tcp names the socket, /proc/PID/fd who has it open.
mod owner {
    use super::{IpAddr, SocketAddr};
    use crate::logging::escape;
    use std::os::unix::ffi::OsStrExt;

    pub(super) fn of(address: SocketAddr) -> Option<String> {
        let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
            .iter()
            .find_map(|table| {
                let text = std::fs::read_to_string(table).ok()?;
                text.lines().find_map(|line| listening_inode(line, address))
            })?;
        let wanted = format!("socket:[{inode}]");
        for entry in std::fs::read_dir("/proc").ok()?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
                continue;
            };
            let Ok(descriptors) = std::fs::read_dir(entry.path().join("fd")) else {
                continue;
            };
            let holds = descriptors.flatten().any(|descriptor| {
                std::fs::read_link(descriptor.path())
                    .is_ok_and(|target| target.as_os_str().as_bytes() == wanted.as_bytes())
            });
            if holds {
                let name = std::fs::read(entry.path().join("comm")).unwrap_or_default();
                return Some(format!("process {pid} ({})", escape(name.trim_ascii())));
            }
        }
        None
    }

    /// The inode of a line of /proc/net/tcp that listens where `address` wants to.
    pub(super) fn listening_inode(line: &str, address: SocketAddr) -> Option<u64> {
        const LISTEN: &str = "0A";
        let mut fields = line.split_ascii_whitespace();
        let (host, port) = fields.nth(1)?.split_once(':')?;
        let same_port = u16::from_str_radix(port, 16) == Ok(address.port());
        let any_host = host.bytes().all(|digit| digit == b'0') || address.ip().is_unspecified();
        let same_host = match address.ip() {
            // The kernel prints the four bytes as one number in its own byte order.
            IpAddr::V4(ip) => u32::from_str_radix(host, 16) == Ok(u32::from_ne_bytes(ip.octets())),
            IpAddr::V6(_) => host.len() == 32,
        };
        if !same_port || !(any_host || same_host) || fields.nth(1)? != LISTEN {
            return None;
        }
        fields.nth(5)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_port_in_use_names_its_owner_and_another_port() {
        let first = Listener::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let text = Listener::open(first.address).unwrap_err();
        assert!(
            text.contains(&format!("process {} (", std::process::id())),
            "{text}"
        );
        assert!(
            text.contains(&format!("serve -p {}", first.address.port() + 1)),
            "{text}"
        );
    }

    #[test]
    fn lines_of_the_kernels_table_are_understood() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0";
        let at = |text: &str| owner::listening_inode(line, text.parse().unwrap());
        if cfg!(target_endian = "little") {
            assert_eq!(at("127.0.0.1:8080"), Some(12345));
        }
        assert_eq!(at("0.0.0.0:8080"), Some(12345));
        assert_eq!(at("127.0.0.1:8081"), None);
        assert_eq!(
            owner::listening_inode("", "127.0.0.1:1".parse().unwrap()),
            None
        );
        assert_eq!(
            owner::listening_inode("sl local_address", "127.0.0.1:1".parse().unwrap()),
            None
        );
    }

    #[test]
    fn sockets_stay_where_their_addresses_do() {
        let open = |address: &str| Listener::open(address.parse().unwrap()).unwrap();
        let (first, second) = (open("127.0.0.1:0"), open("127.0.0.1:0"));
        let blocked = open("127.0.0.1:0");
        let wanted = [second.address, blocked.address];
        let kept = sockopt::socket_cookie(&second).unwrap();
        let old = vec![first, second];
        let (new, errors) = for_addresses(&wanted, &old);
        assert!(matches!(new.as_slice(), [NewListener::Kept(1)]));
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].0, blocked.address);
        let now = exchange(old, new);
        let cookies = now.iter().map(sockopt::socket_cookie);
        assert_eq!(cookies.collect::<Vec<_>>(), [Ok(kept)]);
        // A service manager's stay, whatever is wanted.
        let managed = Listener {
            handed_over: true,
            ..open("127.0.0.1:0")
        };
        let (new, errors) = for_addresses(&wanted, &[managed]);
        assert!(matches!(new.as_slice(), [NewListener::Kept(0)]) && errors.is_empty());
    }

    #[test]
    fn a_port_is_free_when_its_server_stops_whoever_has_the_socket() {
        let listener = Listener::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address;
        let elsewhere = listener.socket.try_clone().unwrap();
        listener.stop();
        assert!(std::net::TcpStream::connect(address).is_err());
        let next = Listener::open(address).unwrap();
        assert_eq!(next.address, address);
        assert!(rustix::net::accept(&elsewhere).is_err());
        // A service manager goes on with its own.
        let theirs = next.socket.try_clone().unwrap();
        let managed = Listener {
            handed_over: true,
            ..next
        };
        managed.stop();
        assert!(std::net::TcpStream::connect(address).is_ok());
        drop(theirs);
    }

    #[test]
    fn only_listening_sockets_are_taken_over() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let taken = Listener::handed_over(listener.into()).unwrap();
        assert_eq!((taken.address, taken.handed_over), (address, true));
        let stream = std::net::TcpStream::connect(address).unwrap();
        assert!(Listener::handed_over(stream.into()).is_err());
    }
}
