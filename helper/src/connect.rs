//! One connection to a host that may have several addresses: they are tried one after the other,
//! each a little later than the one before, and the first that answers wins.
//!
//! Nothing here waits: the helper's loop polls the sockets. Source: RFC 8305 (Happy Eyeballs),
//! sections 4 and 5.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

use crate::forward_frame::Address;
use crate::limits::{CONNECT_STAGGER_MS, CONNECT_TIME_MS};
use crate::text::c_string;

/// A connection that is being made.
#[derive(Debug)]
pub struct Race {
    /// Not tried yet, the next one last.
    left: Vec<Address>,
    port: u16,
    running: Vec<OwnedFd>,
    /// Why the last one failed.
    errno: Errno,
    /// When the next one starts, even if none failed.
    next_ms: u64,
    until_ms: u64,
}

impl Race {
    /// Prepares to connect to `port` of one of `addresses`; [`Race::advance`] begins.
    pub fn new(addresses: &[Address], port: u16, now_ms: u64) -> Self {
        let mut left = interleaved(addresses);
        left.reverse();
        Self {
            left,
            port,
            running: Vec::new(),
            errno: Errno::ADDRNOTAVAIL,
            next_ms: now_ms,
            until_ms: now_ms.saturating_add(CONNECT_TIME_MS),
        }
    }

    /// The sockets to wait for, until they can be written to.
    pub fn sockets(&self) -> impl Iterator<Item = &OwnedFd> {
        self.running.iter()
    }

    /// When to call [`Race::advance`] again, though no socket became ready.
    pub fn wake_ms(&self) -> u64 {
        if self.left.is_empty() {
            self.until_ms
        } else {
            self.next_ms.min(self.until_ms)
        }
    }

    /// Sees what became of the attempts and starts the next where it is time: the connected socket,
    /// or why there is none, or nothing yet.
    pub fn advance(&mut self, now_ms: u64) -> Option<Result<OwnedFd, Errno>> {
        let mut index = 0;
        while let Some(socket) = self.running.get(index) {
            match outcome(socket) {
                None => index += 1,
                Some(Ok(())) => return Some(Ok(self.running.swap_remove(index))),
                Some(Err(errno)) => {
                    self.errno = errno;
                    self.running.swap_remove(index);
                    self.next_ms = now_ms;
                }
            }
        }
        if now_ms >= self.until_ms {
            return Some(Err(Errno::TIMEDOUT));
        }
        while now_ms >= self.next_ms || self.running.is_empty() {
            let Some(address) = self.left.pop() else {
                break;
            };
            match begin(&socket_address(address, self.port)) {
                Ok((socket, true)) => return Some(Ok(socket)),
                Ok((socket, false)) => {
                    self.running.push(socket);
                    self.next_ms = now_ms.saturating_add(CONNECT_STAGGER_MS);
                }
                Err(errno) => self.errno = errno,
            }
        }
        self.running.is_empty().then_some(Err(self.errno))
    }
}

/// Connects to a socket in the file system, which succeeds or fails at once.
pub fn unix(path: &[u8]) -> Result<OwnedFd, Errno> {
    let address = unix_address(path)?;
    let socket = stream(AddressFamily::UNIX)?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// The address of a socket in the file system.
#[inline(never)]
pub fn unix_address(path: &[u8]) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new(&*c_string(path)?)
}

/// Families in turn, in the order of the first address of each.
fn interleaved(addresses: &[Address]) -> Vec<Address> {
    let is_first_kind = |address: &&Address| {
        let first = addresses.first();
        first.is_some_and(|first| {
            core::mem::discriminant(first) == core::mem::discriminant(*address)
        })
    };
    let mut these = addresses.iter().filter(is_first_kind);
    let mut those = addresses.iter().filter(|address| !is_first_kind(address));
    let mut all = Vec::with_capacity(addresses.len());
    loop {
        let (this, that) = (these.next(), those.next());
        if this.is_none() && that.is_none() {
            return all;
        }
        all.extend(this);
        all.extend(that);
    }
}

/// The address in the kernel's form.
pub fn socket_address(address: Address, port: u16) -> SocketAddr {
    match address {
        Address::V4 { octets } => SocketAddrV4::new(Ipv4Addr::from(octets), port).into(),
        Address::V6 { octets, zone } => {
            SocketAddrV6::new(Ipv6Addr::from(octets), port, 0, zone).into()
        }
    }
}

/// A stream socket that never blocks.
pub fn stream(family: AddressFamily) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(family, SocketType::STREAM, flags, None)
}

/// The family of an address.
pub fn family(address: &SocketAddr) -> AddressFamily {
    if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    }
}

/// Starts to connect; true: it is done already.
fn begin(address: &SocketAddr) -> Result<(OwnedFd, bool), Errno> {
    let socket = stream(family(address))?;
    // Small messages go at once, as with sshd; a refusal costs latency only.
    let _ = sockopt::set_tcp_nodelay(&socket, true);
    match connect(&socket, address) {
        Ok(()) => Ok((socket, true)),
        Err(Errno::INPROGRESS | Errno::INTR) => Ok((socket, false)),
        Err(errno) => Err(errno),
    }
}

/// What became of a connection under way, if it is decided.
fn outcome(socket: &OwnedFd) -> Option<Result<(), Errno>> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut [PollFd::new(socket, PollFlags::OUT)], Some(&now)) {
        Ok(1) => match sockopt::socket_error(socket) {
            Ok(result) => Some(result),
            Err(errno) => Some(Err(errno)),
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{bind, getsockname, listen};

    fn v4(last: u8) -> Address {
        Address::V4 {
            octets: [127, 0, 0, last],
        }
    }

    fn v6() -> Address {
        Address::V6 {
            octets: Ipv6Addr::LOCALHOST.octets(),
            zone: 0,
        }
    }

    fn listener(address: Address) -> (OwnedFd, u16) {
        let address = socket_address(address, 0);
        let socket = stream(family(&address)).expect("a socket");
        bind(&socket, &address).expect("an address");
        listen(&socket, 1).expect("a listener");
        let bound: SocketAddr = getsockname(&socket)
            .expect("its name")
            .try_into()
            .expect("an address");
        (socket, bound.port())
    }

    fn finish(mut race: Race, from_ms: u64) -> Result<OwnedFd, Errno> {
        for now_ms in from_ms..from_ms + 2000 {
            if let Some(result) = race.advance(now_ms) {
                return result;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("no outcome");
    }

    #[test]
    fn families_take_turns_in_the_order_given() {
        assert_eq!(
            interleaved(&[v4(1), v4(2), v6(), v4(3)]),
            [v4(1), v6(), v4(2), v4(3)]
        );
        assert_eq!(interleaved(&[v6(), v4(1)]), [v6(), v4(1)]);
        assert_eq!(interleaved(&[]), []);
    }

    #[test]
    fn the_next_address_is_tried_at_once_where_one_refuses() {
        let (_socket, port) = listener(v4(1));
        // Nobody listens at 127.0.0.9.
        assert!(finish(Race::new(&[v4(9), v4(1)], port, 0), 0).is_ok());
    }

    #[test]
    fn where_all_refuse_the_last_reason_counts() {
        let (_socket, port) = listener(v4(1));
        let race = Race::new(&[v4(8), v4(9)], port, 0);
        assert_eq!(finish(race, 0).map(drop), Err(Errno::CONNREFUSED));
        assert!(finish(Race::new(&[], port, 0), 0).is_err());
    }

    /// A port of `address` that answers nobody: its queue is full, so the kernel drops what comes.
    fn silent(address: Address) -> (Vec<OwnedFd>, u16) {
        let (listener, port) = listener(address);
        let address = socket_address(address, port);
        let mut held: Vec<OwnedFd> = (0..4)
            .filter_map(|_| begin(&address).ok())
            .map(|(socket, _)| socket)
            .collect();
        held.push(listener);
        (held, port)
    }

    #[test]
    fn an_address_that_is_silent_does_not_hold_up_the_next() {
        let (_held, port) = silent(v4(7));
        let other = stream(AddressFamily::INET).expect("a socket");
        bind(&other, &socket_address(v4(1), port)).expect("the same port");
        listen(&other, 1).expect("a listener");
        let mut race = Race::new(&[v4(7), v4(1)], port, 0);
        assert!(race.advance(0).is_none());
        assert_eq!(race.wake_ms(), CONNECT_STAGGER_MS);
        assert!(race.advance(CONNECT_STAGGER_MS - 1).is_none());
        assert!(finish(race, CONNECT_STAGGER_MS).is_ok());
    }

    #[test]
    fn a_connection_is_given_up_after_a_while() {
        let (_held, port) = silent(v4(6));
        let mut race = Race::new(&[v4(6)], port, 0);
        assert!(race.advance(0).is_none());
        assert_eq!(race.wake_ms(), CONNECT_TIME_MS);
        assert!(race.advance(CONNECT_TIME_MS - 1).is_none());
        let given_up = race.advance(CONNECT_TIME_MS).expect("an outcome");
        assert_eq!(given_up.map(drop), Err(Errno::TIMEDOUT));
    }

    #[test]
    fn a_path_is_connected_to_or_not_at_once() {
        assert_eq!(unix(b"/nonexistent/x").map(drop), Err(Errno::NOENT));
        assert_eq!(unix(&[b'x'; 300]).map(drop), Err(Errno::NAMETOOLONG));
        assert_eq!(unix(b"a\0b").map(drop), Err(Errno::INVAL));
    }
}
