//! The peer's end: a TCP socket, or the two descriptors that inetd gives.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, sockopt};

/// The connection to the peer, non-blocking. Dropping it shuts the socket down, since the monitor
/// holds a copy that would keep it open; [`ClientSocket::release`] does not.
#[derive(Debug)]
pub(super) struct ClientSocket {
    input: OwnedFd,
    /// Where writing goes, if not to `input`.
    output: Option<OwnedFd>,
    tcp: bool,
    released: bool,
}

impl ClientSocket {
    /// A connected socket.
    pub(super) fn new(socket: OwnedFd) -> Result<Self, Errno> {
        Self::pair(socket, None)
    }

    /// What inetd gives as standard input and output; often two names of one socket.
    pub(super) fn pair(input: OwnedFd, output: Option<OwnedFd>) -> Result<Self, Errno> {
        rustix::io::ioctl_fionbio(&input, true)?;
        if let Some(output) = &output {
            rustix::io::ioctl_fionbio(output, true)?;
        }
        let tcp = sockopt::socket_domain(&input)
            .is_ok_and(|domain| domain == AddressFamily::INET || domain == AddressFamily::INET6);
        let client = Self {
            input,
            output,
            tcp,
            released: false,
        };
        if client.tcp {
            // A refusal costs latency only.
            let _ = sockopt::set_tcp_nodelay(client.output(), true);
        }
        Ok(client)
    }

    /// For the poll set, and to pass on.
    pub(super) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// For the poll set.
    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_ref().unwrap_or(&self.input).as_fd()
    }

    /// True where reading and writing have descriptors of their own.
    pub(super) fn is_split(&self) -> bool {
        self.output.is_some()
    }

    /// Reads what is there; 0 at the end, `Errno::AGAIN` when there is nothing yet.
    pub(super) fn read(&self, room: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| rustix::io::read(&self.input, &mut *room))
    }

    /// Writes what fits.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| rustix::io::write(self.output(), bytes))
    }

    /// Acknowledges what was just read at once, this time: the peer may hold back its next small
    /// packet until then (Nagle's algorithm is on in OpenSSH's client until its session starts).
    pub(super) fn acknowledge_now(&self) {
        if self.tcp {
            let _ = sockopt::set_tcp_quickack(&self.input, true);
        }
    }

    /// TCPKeepAlive.
    pub(super) fn keep_alive(&self, on: bool) {
        if self.tcp {
            let _ = sockopt::set_socket_keepalive(&self.input, on);
        }
    }

    /// IPQoS; 0 leaves it as it is.
    pub(super) fn type_of_service(&self, value: u8) {
        if !self.tcp || value == 0 {
            return;
        }
        let socket = self.output();
        let _ = match sockopt::socket_domain(socket) {
            Ok(AddressFamily::INET6) => sockopt::set_ipv6_tclass(socket, u32::from(value)),
            _ => sockopt::set_ip_tos(socket, value),
        };
    }

    /// Says that nothing more will be written.
    pub(super) fn end_output(&self) {
        let _ = rustix::net::shutdown(self.output(), Shutdown::Write);
    }

    /// Forgets the connection without ending it: another process goes on with it.
    pub(super) fn release(mut self) {
        self.released = true;
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if !self.released {
            let _ = rustix::net::shutdown(&self.input, Shutdown::Both);
            if let Some(output) = &self.output {
                let _ = rustix::net::shutdown(output, Shutdown::Both);
            }
        }
    }
}
