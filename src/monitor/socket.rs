//! What the monitor asks of a client's socket. It never reads from one.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{AddressFamily, Shutdown, SocketType, sockopt};

/// Both ends of a connection, as the kernel names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub peer: SocketAddr,
    pub local: SocketAddr,
}

/// What stands for both ends where --inetd's descriptors are no socket.
const NO_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), u16::MAX);

/// An address as text: `UNKNOWN`, as OpenSSH says it, where there is none.
pub(super) fn host_text(address: SocketAddr) -> String {
    if address == NO_ADDRESS {
        "UNKNOWN".to_owned()
    } else {
        address.ip().to_string()
    }
}

/// A client's connection: one socket, or with --inetd two descriptors of any kind.
#[derive(Debug)]
pub(super) struct Client {
    input: OwnedFd,
    output: Option<OwnedFd>,
    /// SO_COOKIE: the same socket under two connections would be two masters of one peer.
    pub cookie: u64,
}

impl Client {
    /// Takes a socket that a `net` says it accepted, if it is one of our listeners' and connected.
    pub(super) fn accepted(
        socket: OwnedFd,
        listeners: &[SocketAddr],
    ) -> Result<(Self, Ends), &'static str> {
        let ends = ends(socket.as_fd()).ok_or("a descriptor that is no connected TCP socket")?;
        if !listeners
            .iter()
            .any(|listener| listens_for(*listener, ends.local))
        {
            return Err("a socket that none of our listeners accepted");
        }
        let cookie = sockopt::socket_cookie(&socket).map_err(|_| "a socket without an identity")?;
        Ok((
            Self {
                input: socket,
                output: None,
                cookie,
            },
            ends,
        ))
    }

    /// Takes the descriptors that inetd hands over. Addresses are the socket's, where it is one.
    pub(super) fn inherited(input: OwnedFd, output: OwnedFd) -> (Self, Ends) {
        let ends = ends(input.as_fd()).unwrap_or(Ends {
            peer: NO_ADDRESS,
            local: NO_ADDRESS,
        });
        let cookie = sockopt::socket_cookie(&input).unwrap_or(0);
        (
            Self {
                input,
                output: Some(output),
                cookie,
            },
            ends,
        )
    }

    /// For a frame that hands the connection on.
    pub(super) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(self.input.as_fd())
            .chain(self.output.as_ref().map(AsFd::as_fd))
            .collect()
    }

    /// Ends the connection for everybody who holds a copy of the socket.
    pub(super) fn shut_down(&self) {
        for descriptor in self.descriptors() {
            let _ = rustix::net::shutdown(descriptor, Shutdown::Both);
        }
    }
}

fn ends(socket: BorrowedFd<'_>) -> Option<Ends> {
    let domain = sockopt::socket_domain(socket).ok()?;
    let internet = domain == AddressFamily::INET || domain == AddressFamily::INET6;
    let stream = sockopt::socket_type(socket).ok()? == SocketType::STREAM;
    if !internet || !stream || sockopt::socket_acceptconn(socket).ok()? {
        return None;
    }
    let peer = SocketAddr::try_from(rustix::net::getpeername(socket).ok()??).ok()?;
    let local = SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
    Some(Ends {
        peer: canonical(peer),
        local: canonical(local),
    })
}

/// An IPv4 client of a dual-stack listener is an IPv4 client.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn listens_for(listener: SocketAddr, local: SocketAddr) -> bool {
    let ip = listener.ip().to_canonical();
    listener.port() == local.port() && (ip.is_unspecified() || ip == local.ip())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn pair() -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        (listener, client, server)
    }

    #[test]
    fn addresses_come_from_the_kernel() {
        let (listener, client, server) = pair();
        let ours = [listener.local_addr().unwrap()];
        let (_, ends) = Client::accepted(server.into(), &ours).unwrap();
        assert_eq!(ends.peer, client.local_addr().unwrap());
        assert_eq!(ends.local, ours[0]);
    }

    #[test]
    fn what_is_no_accepted_connection_of_ours_is_refused() {
        let (listener, client, server) = pair();
        let ours = [listener.local_addr().unwrap()];
        let elsewhere: SocketAddr = "127.0.0.1:1".parse().unwrap();
        assert!(Client::accepted(server.into(), &[elsewhere]).is_err());
        assert!(Client::accepted(client.into(), &ours).is_err());
        assert!(Client::accepted(listener.into(), &ours).is_err());
        let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(Client::accepted(unix.into(), &ours).is_err());
        let (reader, _writer) = rustix::pipe::pipe().unwrap();
        assert!(Client::accepted(reader, &ours).is_err());
    }

    #[test]
    fn one_socket_has_one_identity_however_often_it_is_passed() {
        let (listener, _client, server) = pair();
        let ours = [listener.local_addr().unwrap()];
        let copy = server.try_clone().unwrap();
        let (first, _) = Client::accepted(server.into(), &ours).unwrap();
        let (second, _) = Client::accepted(copy.into(), &ours).unwrap();
        assert_eq!(first.cookie, second.cookie);
    }

    #[test]
    fn descriptors_that_are_no_socket_have_no_address() {
        let (input, output) = rustix::pipe::pipe().unwrap();
        let (_, ends) = Client::inherited(input, output);
        assert_eq!(host_text(ends.peer), "UNKNOWN");
        assert_eq!(ends.peer.port(), 65535);
        assert_eq!(host_text("192.0.2.1:65535".parse().unwrap()), "192.0.2.1");
    }

    #[test]
    fn a_wildcard_listener_listens_for_every_address_of_its_port() {
        let any = "0.0.0.0:22".parse().unwrap();
        assert!(listens_for(any, "192.0.2.1:22".parse().unwrap()));
        assert!(!listens_for(any, "192.0.2.1:23".parse().unwrap()));
        assert!(listens_for(
            "[::]:22".parse().unwrap(),
            "192.0.2.1:22".parse().unwrap()
        ));
        assert!(!listens_for(
            "192.0.2.2:22".parse().unwrap(),
            "192.0.2.1:22".parse().unwrap()
        ));
    }
}
