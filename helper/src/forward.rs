//! Forwarding for one login: connections made and sockets bound as the user, within the policy.
//!
//! What comes from `net` may come from a client that has taken it over: the policy is asked here,
//! whatever was answered there. Sockets go to `net`; none stays here. Names are looked up by a
//! resolver of the monitor's making, since this program has no resolver; nothing waits for one.
//!
//! Functions of some size are not inlined: into one of 20 KiB, each access to the stack has an
//! offset of four bytes.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::slice;

use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::agent::AgentSocket;
use crate::connect::{self, Race};
use crate::display::Display;
use crate::forward_frame::{
    Address, Addresses, Failure, ForwardAnswer, ForwardRequest, Forwarding, Lookup, Place,
    TunnelMode, X11Request,
};
use crate::forward_policy::{bind_to, permits_listen, permits_open};
use crate::frame::{HelperToMonitor, SessionToNet};
use crate::limits::{
    ADDRESSES_MAX, CONNECTS_MAX, LOOKUP_TIME_MS, TUNNELS_NAMED_MAX, UNIX_LISTENERS_MAX,
};
use crate::link::{Assembly, Link, LinkError};
use crate::listen::{self, UnixFile};
use crate::numeric;
use crate::session::Peers;
use crate::sys::now_ms;
use crate::text::{decimal, printable};
use crate::tunnel;
use crate::wire::{Bytes, Wire};

/// Log levels.
const ERROR: u8 = 1;
const INFO: u8 = 3;
/// Bytes of a name in a log line (OpenSSH's).
const NAME_LOGGED_BYTES: usize = 100;

/// All forwarding of one login.
#[derive(Debug)]
pub struct Forwards {
    rules: Forwarding,
    pending: Vec<Pending>,
    files: Vec<(u32, UnixFile)>,
    home: Bytes,
    agent: Option<AgentSocket>,
    display: Option<(u32, Display)>,
    /// Names of interfaces with commas between, and how many.
    tunnels: Vec<u8>,
    tunnels_named: usize,
    resolver: Resolver,
    last_lookup: u32,
}

/// A request that could not be answered at once.
#[derive(Debug)]
struct Pending {
    /// `net`'s number.
    number: u32,
    place: Bytes,
    port: u16,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The name is looked up.
    Resolving {
        /// Our number towards the resolver.
        lookup: u32,
        then: Then,
        asked: bool,
        until_ms: u64,
    },
    Connecting(Race),
}

/// What to do with the addresses of a name.
#[derive(Debug, Clone, Copy)]
enum Then {
    Connect,
    Listen,
}

#[derive(Debug)]
enum Resolver {
    None,
    /// The monitor was asked for one.
    Asked,
    Open(Link, Assembly),
}

impl Forwards {
    /// Nothing is forwarded yet.
    pub fn new(rules: Forwarding, home: Bytes) -> Self {
        Self {
            rules,
            pending: Vec::new(),
            files: Vec::new(),
            home,
            agent: None,
            display: None,
            tunnels: Vec::new(),
            tunnels_named: 0,
            resolver: Resolver::None,
            last_lookup: 0,
        }
    }

    /// Acts on a request of `net`.
    pub fn on_request<P: Peers>(
        &mut self,
        request: ForwardRequest,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        match request {
            ForwardRequest::Connect { number, to } => self.connect(number, to, peers),
            ForwardRequest::Listen { number, at } => self.listen(number, at, peers),
            ForwardRequest::StopListening { number } => {
                while let Some(index) = self.files.iter().position(|(known, _)| *known == number) {
                    self.files.swap_remove(index);
                }
                Ok(())
            }
            ForwardRequest::ListenAgent { number } => self.listen_agent(number, peers),
            ForwardRequest::ListenX11 { number, request } => {
                self.listen_x11(number, &request, peers)
            }
            ForwardRequest::OpenTunnel { number, mode, unit } => {
                self.open_tunnel(number, mode, unit, peers)
            }
        }
    }

    /// What the loop waits for, beside its own.
    pub fn poll_set<'a>(&'a self, polled: &mut Vec<PollFd<'a>>) {
        if let Resolver::Open(link, _) = &self.resolver {
            polled.push(PollFd::new(link, PollFlags::IN));
        }
        for pending in &self.pending {
            if let Stage::Connecting(race) = &pending.stage {
                polled.extend(
                    race.sockets()
                        .map(|socket| PollFd::new(socket, PollFlags::OUT)),
                );
            }
        }
    }

    /// How long the loop may wait; `None`: as long as it likes.
    pub fn patience_ms(&self) -> Option<u64> {
        let wake = self.pending.iter().map(|pending| match &pending.stage {
            Stage::Resolving { until_ms, .. } => *until_ms,
            Stage::Connecting(race) => race.wake_ms(),
        });
        wake.min().map(|at_ms| at_ms.saturating_sub(now_ms()))
    }

    /// Goes on with everything that waited, after the loop did.
    #[inline(never)]
    pub fn advance<P: Peers>(&mut self, peers: &mut P) -> Result<(), P::Error> {
        self.receive_addresses(peers)?;
        if self.pending.is_empty() {
            return Ok(());
        }
        let now_ms = now_ms();
        let mut index = 0;
        while let Some(pending) = self.pending.get_mut(index) {
            let outcome = match &mut pending.stage {
                Stage::Connecting(race) => race.advance(now_ms).map(Outcome::Connection),
                Stage::Resolving { until_ms, .. } if now_ms >= *until_ms => {
                    Some(Outcome::NoAddress)
                }
                Stage::Resolving { .. } => None,
            };
            match outcome {
                None => index += 1,
                Some(outcome) => {
                    let pending = self.pending.swap_remove(index);
                    answer(&pending, outcome, peers)?;
                }
            }
        }
        Ok(())
    }

    /// The monitor's answer to [`HelperToMonitor::StartResolver`].
    pub fn on_resolver<P: Peers>(
        &mut self,
        socket: Option<OwnedFd>,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        match socket {
            Some(socket) => {
                self.resolver = Resolver::Open(Link::new(socket), Assembly::default());
                self.look_up(peers)
            }
            None => {
                self.resolver = Resolver::None;
                self.give_up_names(peers)
            }
        }
    }

    #[inline(never)]
    fn connect<P: Peers>(&mut self, number: u32, to: Place, peers: &mut P) -> Result<(), P::Error> {
        if !permits_open(&self.rules, &to) {
            let (name, port) = named(&to);
            log_refusal(peers, b"Received request to connect to host ", name, port)?;
            return refuse(peers, number, Failure::Prohibited);
        }
        match to {
            Place::Unix { path } => match connect::unix(&path) {
                Ok(socket) => connected(peers, number, &socket),
                Err(errno) => refuse(peers, number, system(errno)),
            },
            Place::Tcp { host, port } => {
                if self.pending.len() >= CONNECTS_MAX {
                    return refuse(peers, number, Failure::Busy);
                }
                let stage = match numeric::address(&host) {
                    Some(address) if listen::fits(address, self.rules.family) => {
                        Stage::Connecting(Race::new(&[address], port, now_ms()))
                    }
                    Some(_) => return refuse(peers, number, Failure::Unresolved),
                    None => self.resolving(Then::Connect),
                };
                self.wait_for(number, host, port, stage, peers)
            }
        }
    }

    #[inline(never)]
    fn listen<P: Peers>(&mut self, number: u32, at: Place, peers: &mut P) -> Result<(), P::Error> {
        if !permits_listen(&self.rules, &at) {
            let (name, port) = named(&at);
            log_refusal(
                peers,
                b"Received request for remote forward at ",
                name,
                port,
            )?;
            return refuse_listener(peers, number);
        }
        let (host, port) = match at {
            Place::Unix { path } => return self.listen_unix(number, &path, peers),
            Place::Tcp { host, port } => (host, port),
        };
        let bind = bind_to(self.rules.gateway, &host);
        let numeric = numeric::address(&host);
        let addresses = match (listen::addresses(bind, self.rules.family), &numeric) {
            (Some(addresses), _) => addresses,
            (None, Some(address)) if listen::fits(*address, self.rules.family) => {
                slice::from_ref(address)
            }
            (None, Some(_)) => return refuse_listener(peers, number),
            (None, None) if self.pending.len() >= CONNECTS_MAX => {
                return refuse_listener(peers, number);
            }
            (None, None) => {
                let stage = self.resolving(Then::Listen);
                return self.wait_for(number, host, port, stage, peers);
            }
        };
        listen_tcp(number, addresses, port, peers)
    }

    #[inline(never)]
    fn listen_unix<P: Peers>(
        &mut self,
        number: u32,
        path: &[u8],
        peers: &mut P,
    ) -> Result<(), P::Error> {
        if self.files.len() >= UNIX_LISTENERS_MAX {
            return refuse_listener(peers, number);
        }
        match listen::unix(path, self.rules.bind_mask, self.rules.bind_unlink) {
            Ok((socket, file)) => {
                self.files.push((number, file));
                listening(peers, number, 0, slice::from_ref(&socket))
            }
            Err(errno) => {
                peers.log_failure(&[b"cannot listen to path: ", &short(path)], errno)?;
                refuse_listener(peers, number)
            }
        }
    }

    /// One for all sessions of the connection, as with sshd.
    fn listen_agent<P: Peers>(&mut self, number: u32, peers: &mut P) -> Result<(), P::Error> {
        if !self.rules.agent || self.agent.is_some() {
            return refuse_listener(peers, number);
        }
        match AgentSocket::new(&self.home, self.rules.agent_link.as_deref()) {
            Ok((listener, socket, failure)) => {
                self.agent = Some(socket);
                if let Some(errno) = failure {
                    peers.log_failure(&[b"AgentSocketPath"], errno)?;
                }
                listening(peers, number, 0, slice::from_ref(&listener))
            }
            Err(errno) => {
                peers.log_failure(&[b"agent socket"], errno)?;
                refuse_listener(peers, number)
            }
        }
    }

    #[inline(never)]
    fn listen_x11<P: Peers>(
        &mut self,
        number: u32,
        request: &X11Request,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        let Some(rules) = &self.rules.x11 else {
            return refuse_listener(peers, number);
        };
        match Display::open(rules, self.rules.family, request) {
            Ok((sockets, port, display)) => {
                self.display = Some((request.session, display));
                listening(peers, number, port, &sockets)
            }
            Err(errno) => {
                peers.log_failure(&[b"X11 display"], errno)?;
                refuse_listener(peers, number)
            }
        }
    }

    #[inline(never)]
    fn open_tunnel<P: Peers>(
        &mut self,
        number: u32,
        mode: TunnelMode,
        unit: u32,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        let Some(unit) = tunnel::permitted(&self.rules.tunnel, mode, unit) else {
            peers.log(INFO, &[b"Server has rejected tunnel device forwarding"])?;
            return refuse(peers, number, Failure::Prohibited);
        };
        match tunnel::open_device(mode, unit) {
            Ok((device, name)) => {
                peers.log(INFO, &[b"tunnel device ", &name])?;
                self.name_tunnel(&name);
                connected(peers, number, &device)
            }
            Err(errno) => {
                peers.log_failure(&[b"tunnel device"], errno)?;
                refuse(peers, number, system(errno))
            }
        }
    }

    fn name_tunnel(&mut self, name: &[u8]) {
        if self.tunnels_named < TUNNELS_NAMED_MAX {
            if self.tunnels_named > 0 {
                self.tunnels.push(b',');
            }
            self.tunnels.extend_from_slice(name);
            self.tunnels_named += 1;
        }
    }

    /// SSH_TUNNEL: interfaces of tunnels, in order, with commas between; empty: there are none.
    pub fn tunnels(&self) -> &[u8] {
        &self.tunnels
    }

    /// The display that was opened last, with its session's number; once.
    pub fn take_display(&mut self) -> Option<(u32, Display)> {
        self.display.take()
    }

    /// Where the client's agent can be reached.
    pub fn agent_path(&self) -> Option<&[u8]> {
        self.agent.as_ref().map(AgentSocket::path)
    }

    fn resolving(&mut self, then: Then) -> Stage {
        self.last_lookup = self.last_lookup.wrapping_add(1);
        Stage::Resolving {
            lookup: self.last_lookup,
            then,
            asked: false,
            until_ms: now_ms().saturating_add(LOOKUP_TIME_MS),
        }
    }

    #[inline(never)]
    fn wait_for<P: Peers>(
        &mut self,
        number: u32,
        place: Bytes,
        port: u16,
        stage: Stage,
        peers: &mut P,
    ) -> Result<(), P::Error> {
        let is_name = matches!(stage, Stage::Resolving { .. });
        self.pending.push(Pending {
            number,
            place,
            port,
            stage,
        });
        if is_name {
            self.look_up(peers)
        } else {
            self.advance(peers)
        }
    }

    /// Sends the names that were not sent yet to the resolver, or has one started.
    #[inline(never)]
    fn look_up<P: Peers>(&mut self, peers: &mut P) -> Result<(), P::Error> {
        let link = match &self.resolver {
            Resolver::Open(link, _) => link,
            Resolver::Asked => return Ok(()),
            Resolver::None => {
                self.resolver = Resolver::Asked;
                return peers.to_monitor(&HelperToMonitor::StartResolver);
            }
        };
        let mut lost = false;
        for pending in &mut self.pending {
            if let Stage::Resolving { lookup, asked, .. } = &mut pending.stage
                && !*asked
            {
                let frame = Lookup {
                    number: *lookup,
                    name: pending.place.clone(),
                    family: self.rules.family,
                };
                match link.send(0, &frame, &[], false) {
                    Ok(()) => *asked = true,
                    Err(LinkError::Closed) => lost = true,
                    // Its queue is full of names that nobody answers: this one's time ends too.
                    Err(_) => *asked = true,
                }
            }
        }
        if lost {
            self.resolver_ended(peers)
        } else {
            Ok(())
        }
    }

    fn receive_addresses<P: Peers>(&mut self, peers: &mut P) -> Result<(), P::Error> {
        while let Resolver::Open(link, assembly) = &mut self.resolver {
            match link.receive(assembly, false) {
                Ok(Some(received)) => match Addresses::from_wire(&received.content) {
                    Ok(found) => self.on_addresses(&found, peers)?,
                    Err(_) => return self.resolver_ended(peers),
                },
                Ok(None) => {
                    Link::release_buffer(assembly);
                    return Ok(());
                }
                Err(_) => return self.resolver_ended(peers),
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn on_addresses<P: Peers>(&mut self, found: &Addresses, peers: &mut P) -> Result<(), P::Error> {
        let is_it = |pending: &Pending| matches!(&pending.stage, Stage::Resolving { lookup, .. } if *lookup == found.number);
        // An answer that came too late is for nobody.
        let Some(index) = self.pending.iter().position(is_it) else {
            return Ok(());
        };
        let most = found.addresses.len().min(ADDRESSES_MAX);
        let addresses = found.addresses.get(..most).unwrap_or_default();
        let Some(pending) = self.pending.get_mut(index) else {
            return Ok(());
        };
        let Stage::Resolving { then, .. } = pending.stage else {
            return Ok(());
        };
        match then {
            Then::Connect if !addresses.is_empty() => {
                pending.stage = Stage::Connecting(Race::new(addresses, pending.port, now_ms()));
                Ok(())
            }
            Then::Connect => {
                let pending = self.pending.swap_remove(index);
                answer(&pending, Outcome::NoAddress, peers)
            }
            Then::Listen => {
                let pending = self.pending.swap_remove(index);
                listen_tcp(pending.number, addresses, pending.port, peers)
            }
        }
    }

    /// It ends by itself after a while without names; a name that crossed its end is asked anew.
    fn resolver_ended<P: Peers>(&mut self, peers: &mut P) -> Result<(), P::Error> {
        self.resolver = Resolver::None;
        let mut any = false;
        for pending in &mut self.pending {
            if let Stage::Resolving { asked, .. } = &mut pending.stage {
                any = true;
                *asked = false;
            }
        }
        if any { self.look_up(peers) } else { Ok(()) }
    }

    fn give_up_names<P: Peers>(&mut self, peers: &mut P) -> Result<(), P::Error> {
        let mut index = 0;
        while let Some(pending) = self.pending.get(index) {
            if matches!(pending.stage, Stage::Resolving { .. }) {
                let pending = self.pending.swap_remove(index);
                answer(&pending, Outcome::NoAddress, peers)?;
            } else {
                index += 1;
            }
        }
        Ok(())
    }
}

/// How a pending request ended.
enum Outcome {
    Connection(Result<OwnedFd, Errno>),
    NoAddress,
}

#[inline(never)]
fn answer<P: Peers>(pending: &Pending, outcome: Outcome, peers: &mut P) -> Result<(), P::Error> {
    let failure = match outcome {
        Outcome::Connection(Ok(socket)) => return connected(peers, pending.number, &socket),
        Outcome::Connection(Err(errno)) => system(errno),
        Outcome::NoAddress => Failure::Unresolved,
    };
    let then_listen = matches!(
        pending.stage,
        Stage::Resolving {
            then: Then::Listen,
            ..
        }
    );
    if then_listen {
        return refuse_listener(peers, pending.number);
    }
    // OpenSSH's words.
    let (name, port) = (short(&pending.place), decimal(pending.port.into()));
    let line: [&[u8]; 5] = [b"connect_to ", &name, b" port ", &port, b": failed."];
    peers.log(ERROR, &line)?;
    refuse(peers, pending.number, failure)
}

#[inline(never)]
fn listen_tcp<P: Peers>(
    number: u32,
    addresses: &[Address],
    port: u16,
    peers: &mut P,
) -> Result<(), P::Error> {
    match listen::tcp(addresses, port) {
        Ok((sockets, bound)) => listening(peers, number, bound, &sockets),
        Err(errno) => {
            peers.log_failure(&[b"cannot listen to port: ", &decimal(port.into())], errno)?;
            refuse_listener(peers, number)
        }
    }
}

fn connected<P: Peers>(peers: &mut P, number: u32, socket: &OwnedFd) -> Result<(), P::Error> {
    say(
        peers,
        ForwardAnswer::Connected { number },
        slice::from_ref(socket),
    )
}

fn listening<P: Peers>(
    peers: &mut P,
    number: u32,
    port: u16,
    sockets: &[OwnedFd],
) -> Result<(), P::Error> {
    say(peers, ForwardAnswer::Listening { number, port }, sockets)
}

fn refuse<P: Peers>(peers: &mut P, number: u32, failure: Failure) -> Result<(), P::Error> {
    say(peers, ForwardAnswer::NotConnected { number, failure }, &[])
}

fn refuse_listener<P: Peers>(peers: &mut P, number: u32) -> Result<(), P::Error> {
    say(peers, ForwardAnswer::NotListening { number }, &[])
}

#[inline(never)]
fn say<P: Peers>(
    peers: &mut P,
    answer: ForwardAnswer,
    descriptors: &[OwnedFd],
) -> Result<(), P::Error> {
    peers.to_net(&SessionToNet::Forward { answer }, descriptors)
}

fn system(errno: Errno) -> Failure {
    Failure::System {
        errno: errno.raw_os_error(),
    }
}

fn named(place: &Place) -> (&[u8], u16) {
    match place {
        Place::Tcp { host, port } => (host, *port),
        Place::Unix { path } => (path, 0),
    }
}

/// OpenSSH's words for what its administrator's rules forbid.
fn log_refusal<P: Peers>(
    peers: &mut P,
    what: &[u8],
    name: &[u8],
    port: u16,
) -> Result<(), P::Error> {
    let (name, port) = (short(name), decimal(port.into()));
    let end = b", but the request was denied.";
    peers.log(INFO, &[what, &name, b" port ", &port, end])
}

fn short(name: &[u8]) -> Vec<u8> {
    printable(
        name.get(..name.len().min(NAME_LOGGED_BYTES))
            .unwrap_or_default(),
    )
}
