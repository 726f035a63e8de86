//! The role `name`: looks up what name a client's address has, for UseDNS.
//!
//! One address comes on descriptor 3, one name goes back, and the process ends. It has no rights:
//! what name servers answer is decoded here and nowhere else. A name counts only if it leads back
//! to the address, and is never one that looks like an address.
//!
//! Sources: getnameinfo(3); OpenSSH's remote_hostname().
#![allow(unsafe_code)] // std has no reverse look-up

pub(crate) mod form;

use std::ffi::CStr;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::time::Duration;

use agent_helper::link::{Assembly, Link};
use agent_helper::wire::{Bytes, Wire};

use crate::confine::{self, Identity};
use crate::inherited::take_descriptor;
use crate::launch::FIRST_DESCRIPTOR;
use crate::limits::CLIENT_NAME_TIME_MS;

/// The role's entry.
pub fn main() -> ExitCode {
    let Some(socket) = take_descriptor(FIRST_DESCRIPTOR) else {
        return ExitCode::FAILURE;
    };
    if confine::give_up_rights(Identity::from_environment()).is_err() {
        return ExitCode::FAILURE;
    }
    let link = Link::new(socket);
    let Ok(Some(received)) = link.receive(&mut Assembly::default(), true) else {
        return ExitCode::FAILURE;
    };
    let Ok(address) = SocketAddr::from_wire(&received.content) else {
        return ExitCode::FAILURE;
    };
    // The C library waits for servers as long as it likes; the end of the process ends that.
    let (sender, answer) = channel();
    let found = std::thread::Builder::new()
        .spawn(move || sender.send(verified_name(address.ip().to_canonical())))
        .ok()
        .and_then(|_| {
            let time = Duration::from_millis(CLIENT_NAME_TIME_MS);
            answer.recv_timeout(time).ok().flatten()
        });
    let name: Option<Bytes> = found.map(|name| name.as_str().into());
    match link.send(0, &name, &[], true) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The name of `address`, if it leads back there.
fn verified_name(address: IpAddr) -> Option<String> {
    let name = form::usable(&reverse(address)?)?;
    let leads_back = (name.as_str(), 0)
        .to_socket_addrs()
        .ok()?
        .any(|found| found.ip().to_canonical() == address);
    leads_back.then_some(name)
}

/// What getnameinfo(3) answers.
fn reverse(address: IpAddr) -> Option<String> {
    let family = |number| libc::sa_family_t::try_from(number).unwrap_or_default();
    match address {
        IpAddr::V4(ip) => {
            // SAFETY: all fields are integers, for which zeroes are valid.
            let mut socket: libc::sockaddr_in = unsafe { std::mem::zeroed() };
            socket.sin_family = family(libc::AF_INET);
            socket.sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
            name_of(&socket)
        }
        IpAddr::V6(ip) => {
            // SAFETY: as above.
            let mut socket: libc::sockaddr_in6 = unsafe { std::mem::zeroed() };
            socket.sin6_family = family(libc::AF_INET6);
            socket.sin6_addr.s6_addr = ip.octets();
            name_of(&socket)
        }
    }
}

/// The name of a socket address in the form of its family.
fn name_of<T>(socket: &T) -> Option<String> {
    const CAPACITY: usize = 1025; // NI_MAXHOST
    let mut host = [0 as libc::c_char; CAPACITY];
    let bytes = |len: usize| libc::socklen_t::try_from(len).unwrap_or_default();
    // SAFETY: `socket` is a socket address of the length that is passed, `host` has as much room as
    // is said, and no service is asked for.
    let status = unsafe {
        libc::getnameinfo(
            std::ptr::from_ref(socket).cast(),
            bytes(size_of::<T>()),
            host.as_mut_ptr(),
            bytes(CAPACITY),
            std::ptr::null_mut(),
            0,
            libc::NI_NAMEREQD,
        )
    };
    if status != 0 {
        return None;
    }
    // SAFETY: on success the buffer holds a NUL-terminated string.
    let name = unsafe { CStr::from_ptr(host.as_ptr()) };
    name.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_its_name() {
        let name = verified_name([127, 0, 0, 1].into());
        assert_eq!(name.as_deref(), Some("localhost"));
    }
}
