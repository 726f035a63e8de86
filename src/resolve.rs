//! The role `resolve`: looks names up for one login, with its user's rights.
//!
//! The helper has no resolver and the monitor resolves no name that a user gave, so this process
//! does, started when a name is asked for and gone after a while without one. The C library waits
//! for servers in each call, so each name has a thread, few at once. What answers say is decoded by
//! code that nobody audited for this: it can gain no more here than its user has.

use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use agent_helper::forward_frame::{Address, Addresses, Family, Lookup, ResolverSetup};
use agent_helper::identity::take_on;
use agent_helper::limits::ADDRESSES_MAX;
use agent_helper::link::{Assembly, Link, LinkError};
use agent_helper::wire::Wire;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::set_no_new_privs;

use crate::inherited::take_descriptor;
use crate::launch::FIRST_DESCRIPTOR;
use crate::limits::{LOOKUP_STACK_BYTES, LOOKUPS_AT_ONCE, RESOLVER_LIFETIME_S};

/// The role's entry: serves until the helper is gone, or has had no name for a while.
pub fn main() -> ExitCode {
    let Some(socket) = take_descriptor(FIRST_DESCRIPTOR) else {
        return ExitCode::FAILURE;
    };
    let link = Arc::new(Link::new(socket));
    let mut assembly = Assembly::default();
    match become_its_user(&link, &mut assembly) {
        Some(()) => serve(&link, &mut assembly),
        None => ExitCode::FAILURE,
    }
}

/// The first frame comes from the monitor, and says who to be.
fn become_its_user(link: &Link, assembly: &mut Assembly) -> Option<()> {
    let received = link.receive(assembly, true).ok()??;
    let setup = ResolverSetup::from_wire(&received.content).ok()?;
    take_on(&setup.identity, setup.change_identity).ok()?;
    // A user's other processes may live in a chroot: they must not get out through this one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok()?;
    set_no_new_privs(true).ok()
}

fn serve(link: &Arc<Link>, assembly: &mut Assembly) -> ExitCode {
    let running = Arc::new(Running::default());
    loop {
        // Further names wait in the socket.
        running.wait_below(LOOKUPS_AT_ONCE);
        match link.receive(assembly, false) {
            Ok(Some(received)) => match Lookup::from_wire(&received.content) {
                Ok(lookup) => begin(link, &running, lookup),
                Err(_) => return ExitCode::FAILURE,
            },
            Ok(None) => {
                if !wait(link) && running.is_none() {
                    return ExitCode::SUCCESS;
                }
            }
            Err(LinkError::Closed) => return ExitCode::SUCCESS,
            Err(_) => return ExitCode::FAILURE,
        }
    }
}

/// How many names are being looked up.
#[derive(Debug, Default)]
struct Running {
    count: Mutex<usize>,
    ended: Condvar,
}

impl Running {
    fn change(&self, by: isize) {
        let mut count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_add_signed(by);
        self.ended.notify_one();
    }

    fn is_none(&self) -> bool {
        *self.count.lock().unwrap_or_else(PoisonError::into_inner) == 0
    }

    fn wait_below(&self, most: usize) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.ended.wait_while(count, |count| *count >= most));
    }
}

/// False where nothing came in time.
fn wait(link: &Link) -> bool {
    let patience = Timespec {
        tv_sec: RESOLVER_LIFETIME_S,
        tv_nsec: 0,
    };
    let mut polled = [PollFd::new(link, PollFlags::IN)];
    match poll(&mut polled, Some(&patience)) {
        Ok(ready) => ready > 0,
        Err(errno) => errno == Errno::INTR,
    }
}

fn begin(link: &Arc<Link>, running: &Arc<Running>, lookup: Lookup) {
    let number = lookup.number;
    running.change(1);
    let (their_link, their_running) = (Arc::clone(link), Arc::clone(running));
    let work = move || {
        answer(&their_link, lookup.number, addresses(&lookup));
        their_running.change(-1);
    };
    let thread = std::thread::Builder::new().stack_size(LOOKUP_STACK_BYTES);
    if thread.spawn(work).is_err() {
        running.change(-1);
        answer(link, number, Vec::new());
    }
}

/// A helper that is gone needs no answer, and one that takes none has given the name up.
fn answer(link: &Link, number: u32, addresses: Vec<Address>) {
    let _ = link.send(0, &Addresses { number, addresses }, &[], true);
}

fn addresses(lookup: &Lookup) -> Vec<Address> {
    let Ok(name) = std::str::from_utf8(&lookup.name) else {
        return Vec::new();
    };
    let Ok(found) = (name, 0).to_socket_addrs() else {
        return Vec::new();
    };
    let mut addresses: Vec<Address> = Vec::new();
    for address in found.map(encode) {
        if fits(address, lookup.family) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

fn fits(address: Address, family: Family) -> bool {
    agent_helper::listen::fits(address, family)
}

fn encode(address: SocketAddr) -> Address {
    match address {
        SocketAddr::V4(v4) => Address::V4 {
            octets: v4.ip().octets(),
        },
        SocketAddr::V6(v6) => Address::V6 {
            octets: v6.ip().octets(),
            zone: v6.scope_id(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, family: Family) -> Vec<Address> {
        addresses(&Lookup {
            number: 1,
            name: name.into(),
            family,
        })
    }

    #[test]
    fn localhost_is_found_in_the_families_that_are_wanted() {
        let loopback = Address::V4 {
            octets: [127, 0, 0, 1],
        };
        assert!(find("localhost", Family::Any).contains(&loopback));
        assert!(!find("localhost", Family::V6).contains(&loopback));
    }

    #[test]
    fn what_is_no_name_has_no_address() {
        for name in ["", "a..b", "x y", "\u{fe}"] {
            assert_eq!(find(name, Family::Any), [], "{name:?}");
        }
    }
}
