//! Forwarding on one connection: the channels that carry sockets, and the listeners behind them.
//!
//! The helper makes every socket, under the login's policy; here they are checked, accepted from,
//! and moved bytes between. A listener rests while the client owes answers to too many offers.

use std::collections::BTreeMap;

use agent_helper::forward_frame::{ForwardAnswer, ForwardRequest, Place, TunnelMode, X11Request};
use agent_helper::frame::NetToSession;
use agent_helper::link::LinkError;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{SocketFlags, acceptfrom_with, sockopt};

use super::descriptors::{is_unix, listener, stream_socket, tunnel_device};
use super::forward_requests::{CONNECT_FAILED, offer, originator, refusal};
use super::helper_queue::HelperQueue;
use super::relay::Relay;
use super::service::ServiceError;
use super::session::consumed;
use super::tunnel::Tunnel;
use crate::limits::{
    ACCEPTS_PER_TURN, AGENT_PACKET_BYTES, AGENT_WINDOW_BYTES, FORWARD_PACKET_BYTES,
    LISTENERS_PER_CONNECTION, OFFERS_MAX,
};
use crate::ssh::{ChannelId, Core};

/// All forwarding of one connection.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    channels: BTreeMap<u32, Forward>,
    listeners: Vec<Listener>,
    next_number: u32,
    /// Accepting failed for want of descriptors or memory.
    resting: bool,
    /// Whose socket is read first in the next turn.
    first: u32,
}

/// A channel that carries a socket, or will.
#[derive(Debug)]
enum Forward {
    /// The helper connects under this number; the client's open waits for it.
    Connecting(u32),
    /// The helper opens a tunnel device under this number; as above.
    Tunnelling(u32, TunnelMode),
    /// The client has not answered our open yet.
    Offered(Relay),
    Open(Relay),
    Tunnel(Tunnel),
}

#[derive(Debug)]
struct Listener {
    number: u32,
    purpose: Purpose,
    /// Where it listens; 0 for a path.
    port: u16,
    /// None until the helper answered.
    sockets: Vec<OwnedFd>,
    /// The client wants it no more, and did so before it was there.
    cancelled: bool,
}

/// What those who connect are led to.
#[derive(Debug, PartialEq, Eq)]
enum Purpose {
    /// What the client forwards this place to; as it asked.
    Place(Place),
    /// The client's agent, through channels of this type.
    Agent(&'static [u8]),
    /// The client's display, as long as this session lives; or only once.
    Display { session: u32, single: bool },
}

/// What the helper answered that somebody waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Listening(Listening),
    /// Whether the agent can be reached.
    Agent(bool),
    /// Whether a session's display can be reached.
    Display(u32, bool),
}

/// The answer to a request to listen no more.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancelled {
    Known(bool),
    /// It succeeds if listening under this number does.
    Later(u32),
}

/// The answer to a request to listen.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listening {
    pub number: u32,
    /// Where it listens, and whether the client left that open; `None`: refused.
    pub port: Option<(u16, bool)>,
}

impl Forwards {
    /// Whether the channel is one of these.
    pub(super) fn has(&self, channel: ChannelId) -> bool {
        self.channels.contains_key(&channel.0)
    }

    /// The open channels, each with its type as ChannelTimeout names it.
    pub(super) fn kinds(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.channels
            .iter()
            .filter_map(|(number, forward)| match forward {
                Forward::Open(relay) => Some((*number, relay.kind())),
                Forward::Tunnel(_) => Some((*number, Tunnel::KIND)),
                Forward::Connecting(_) | Forward::Tunnelling(..) | Forward::Offered(_) => None,
            })
    }

    /// Ends a channel that rested for too long.
    pub(super) fn abandon(&mut self, core: &mut Core, channel: ChannelId) {
        match self.channels.get_mut(&channel.0) {
            Some(Forward::Open(relay)) => relay.abandon(core, channel),
            Some(Forward::Tunnel(tunnel)) => tunnel.abandon(core, channel),
            _ => {}
        }
    }

    /// How many channels there are.
    pub(super) fn count(&self) -> usize {
        self.channels.len()
    }

    /// Accepting failed: the listeners rest until [`Forwards::wake`].
    pub(super) fn is_resting(&self) -> bool {
        self.resting
    }

    /// Accepts again.
    pub(super) fn wake(&mut self) {
        self.resting = false;
    }

    /// The client opens `channel` to `to`: the helper is asked.
    pub(super) fn connect(
        &mut self,
        helper: &mut HelperQueue,
        channel: ChannelId,
        to: Place,
    ) -> Result<(), LinkError> {
        let number = self.take_number();
        self.channels.insert(channel.0, Forward::Connecting(number));
        let request = ForwardRequest::Connect { number, to };
        helper.send(&NetToSession::Forward { request })
    }

    /// The client opens `channel` to a tunnel device: the helper is asked.
    pub(super) fn open_tunnel(
        &mut self,
        helper: &mut HelperQueue,
        channel: ChannelId,
        (mode, unit): (TunnelMode, u32),
    ) -> Result<(), LinkError> {
        let number = self.take_number();
        let waiting = Forward::Tunnelling(number, mode);
        self.channels.insert(channel.0, waiting);
        let request = ForwardRequest::OpenTunnel { number, mode, unit };
        helper.send(&NetToSession::Forward { request })
    }

    /// The client wants connections to `at`: the helper is asked under the number given back.
    /// `None`: there are too many, or there is one at that path.
    pub(super) fn listen(
        &mut self,
        helper: &mut HelperQueue,
        at: Place,
    ) -> Result<Option<u32>, LinkError> {
        // It was cancelled before it was there: then it stays.
        let again = self
            .listeners
            .iter_mut()
            .find(|listener| listener.cancelled && listener.purpose == Purpose::Place(at.clone()));
        if let Some(listener) = again {
            listener.cancelled = false;
            return Ok(Some(listener.number));
        }
        if self.listeners.len() >= LISTENERS_PER_CONNECTION {
            return Ok(None);
        }
        let number = self.take_number();
        self.listeners.push(Listener {
            number,
            purpose: Purpose::Place(at.clone()),
            port: 0,
            sockets: Vec::new(),
            cancelled: false,
        });
        let request = ForwardRequest::Listen { number, at };
        helper.send(&NetToSession::Forward { request })?;
        Ok(Some(number))
    }

    /// The client wants no more connections to `at`. Connections that were accepted live on.
    pub(super) fn cancel(
        &mut self,
        helper: &mut HelperQueue,
        at: &Place,
    ) -> Result<Cancelled, LinkError> {
        let Some(index) = self.listeners.iter().position(|it| it.is_at(at)) else {
            return Ok(Cancelled::Known(false));
        };
        let Some(listener) = self.listeners.get_mut(index) else {
            return Ok(Cancelled::Known(false));
        };
        if listener.sockets.is_empty() {
            listener.cancelled = true;
            return Ok(Cancelled::Later(listener.number));
        }
        let listener = self.listeners.swap_remove(index);
        listener.end(helper)?;
        Ok(Cancelled::Known(true))
    }

    /// The client's agent is to be reached through channels of type `kind`. `None`: the helper is
    /// asked. One listener serves all sessions; its channels keep the type that was asked for first.
    pub(super) fn listen_agent(
        &mut self,
        helper: &mut HelperQueue,
        kind: &'static [u8],
    ) -> Result<Option<bool>, LinkError> {
        let mut agents = self
            .listeners
            .iter()
            .filter(|listener| matches!(listener.purpose, Purpose::Agent(_)));
        if let Some(listener) = agents.next() {
            return Ok((!listener.sockets.is_empty()).then_some(true));
        }
        let number = self.take_number();
        self.listeners.push(Listener {
            number,
            purpose: Purpose::Agent(kind),
            port: 0,
            sockets: Vec::new(),
            cancelled: false,
        });
        let request = ForwardRequest::ListenAgent { number };
        helper.send(&NetToSession::Forward { request })?;
        Ok(None)
    }

    /// A session wants X11 clients to reach the client's display; false: there are too many
    /// listeners.
    pub(super) fn listen_x11(
        &mut self,
        helper: &mut HelperQueue,
        request: X11Request,
        single: bool,
    ) -> Result<bool, LinkError> {
        if self.listeners.len() >= LISTENERS_PER_CONNECTION {
            return Ok(false);
        }
        let number = self.take_number();
        self.listeners.push(Listener {
            number,
            purpose: Purpose::Display {
                session: request.session,
                single,
            },
            port: 0,
            sockets: Vec::new(),
            cancelled: false,
        });
        let request = ForwardRequest::ListenX11 { number, request };
        helper.send(&NetToSession::Forward { request })?;
        Ok(true)
    }

    /// Displays go with their sessions; who uses one goes on.
    pub(super) fn end_displays(&mut self, lives: impl Fn(u32) -> bool) {
        self.listeners.retain(|listener| match listener.purpose {
            Purpose::Display { session, .. } => listener.sockets.is_empty() || lives(session),
            _ => true,
        });
    }

    /// The helper's answer. What somebody waits for is given back.
    pub(super) fn answer(
        &mut self,
        core: &mut Core,
        helper: &mut HelperQueue,
        answer: &ForwardAnswer,
        descriptors: Vec<OwnedFd>,
        window: u32,
    ) -> Result<Option<Answered>, ServiceError> {
        match *answer {
            ForwardAnswer::Connected { number } => {
                let (channel, mode) = self.connecting(number)?;
                if descriptors.is_empty() {
                    // There is no place for it here, and it is closed.
                    self.channels.remove(&channel.0);
                    core.open_fail(channel, CONNECT_FAILED, "open failed");
                    return Ok(None);
                }
                let [descriptor] = <[OwnedFd; 1]>::try_from(descriptors)
                    .map_err(|_| unexpected("not one descriptor"))?;
                let forward = match mode {
                    None => Forward::Open(relay_of(descriptor)?),
                    Some(mode) => {
                        let device = tunnel_device(descriptor)
                            .ok_or(unexpected("a tunnel device that is none"))?;
                        let point_to_point = mode == TunnelMode::PointToPoint;
                        Forward::Tunnel(Tunnel::new(device, point_to_point))
                    }
                };
                self.channels.insert(channel.0, forward);
                core.open_confirm(channel, window, FORWARD_PACKET_BYTES);
                Ok(None)
            }
            ForwardAnswer::NotConnected { number, failure } => {
                let (channel, mode) = self.connecting(number)?;
                no_descriptors(&descriptors)?;
                self.channels.remove(&channel.0);
                let (code, words) = match mode {
                    None => refusal(failure),
                    Some(_) => (CONNECT_FAILED, "open failed"),
                };
                core.open_fail(channel, code, words);
                Ok(None)
            }
            ForwardAnswer::Listening { number, port } => {
                if descriptors.is_empty() {
                    // There is no place for it here: nobody listens.
                    let answered = self.not_listening(number)?;
                    if let Some(index) = self.position(number) {
                        self.listeners.swap_remove(index).end(helper)?;
                    }
                    return Ok(Some(answered));
                }
                let found = self.asked(number)?;
                for socket in descriptors {
                    let socket = listener(socket).ok_or(unexpected("a listener that is none"))?;
                    found.sockets.push(socket);
                }
                found.port = port;
                let open = match &found.purpose {
                    Purpose::Agent(_) => return Ok(Some(Answered::Agent(true))),
                    Purpose::Display { session, .. } => {
                        return Ok(Some(Answered::Display(*session, true)));
                    }
                    Purpose::Place(place) => matches!(place, Place::Tcp { port: 0, .. }),
                };
                let ended = found.cancelled;
                let port = Some((port, open));
                if ended && let Some(index) = self.position(number) {
                    self.listeners.swap_remove(index).end(helper)?;
                }
                Ok(Some(Answered::Listening(Listening { number, port })))
            }
            ForwardAnswer::NotListening { number } => {
                no_descriptors(&descriptors)?;
                let answered = self.not_listening(number)?;
                self.listeners.retain(|listener| listener.number != number);
                Ok(Some(answered))
            }
        }
    }

    /// The client agreed to a channel of ours.
    pub(super) fn opened(&mut self, channel: ChannelId) {
        if let Some(forward) = self.channels.remove(&channel.0) {
            let forward = match forward {
                Forward::Offered(relay) => Forward::Open(relay),
                other => other,
            };
            self.channels.insert(channel.0, forward);
        }
    }

    /// The client refused it: whoever connected sees the end.
    pub(super) fn refused(&mut self, channel: ChannelId) {
        self.channels.remove(&channel.0);
    }

    /// SSH_MSG_CHANNEL_DATA; gives how many bytes are done with.
    pub(super) fn client_data(&mut self, channel: ChannelId, data: &[u8]) -> usize {
        match self.channels.get_mut(&channel.0) {
            Some(Forward::Open(relay)) => relay.client_data(data),
            Some(Forward::Tunnel(tunnel)) => tunnel.client_data(data),
            _ => data.len(),
        }
    }

    /// SSH_MSG_CHANNEL_EOF.
    pub(super) fn client_eof(&mut self, channel: ChannelId) {
        match self.channels.get_mut(&channel.0) {
            Some(Forward::Open(relay)) => relay.client_eof(),
            Some(Forward::Tunnel(tunnel)) => tunnel.client_ends(false),
            _ => {}
        }
    }

    /// SSH_MSG_CHANNEL_CLOSE. The number may be another channel's with the next message.
    pub(super) fn client_close(&mut self, channel: ChannelId) {
        match self.channels.get_mut(&channel.0) {
            Some(Forward::Open(relay)) => relay.client_close(),
            Some(Forward::Tunnel(tunnel)) => tunnel.client_ends(true),
            _ => return,
        }
        if self.channels.get(&channel.0).is_some_and(Forward::is_gone) {
            self.channels.remove(&channel.0);
        }
    }

    /// Reads what sockets give, each turn beginning behind the one that began the turn before; then
    /// settles what ended.
    pub(super) fn pump(&mut self, core: &mut Core) {
        let (before, behind) = (..self.first, self.first..);
        for (number, forward) in self.channels.range_mut(behind) {
            pump_one(core, *number, forward);
        }
        for (number, forward) in self.channels.range_mut(before) {
            pump_one(core, *number, forward);
        }
        let next = self.first.saturating_add(1);
        let next = self.channels.range(next..).next();
        self.first = next.map_or(0, |(number, _)| *number);
        self.channels.retain(|_, forward| !forward.is_gone());
    }

    /// The sockets to wait for, by channel.
    pub(super) fn poll_set<'a>(
        &'a self,
        core: &'a Core,
    ) -> impl Iterator<Item = (u32, BorrowedFd<'a>, PollFlags)> {
        self.channels.iter().filter_map(|(number, forward)| {
            let room = core.send_room(ChannelId(*number)) > 0;
            let (descriptor, flags) = match forward {
                Forward::Open(relay) => relay.poll(room)?,
                Forward::Tunnel(tunnel) => tunnel.poll(room)?,
                _ => return None,
            };
            Some((*number, descriptor, flags))
        })
    }

    /// The listeners to wait for, by number.
    pub(super) fn listening<'a>(
        &'a self,
        core: &Core,
    ) -> impl Iterator<Item = (u32, BorrowedFd<'a>)> {
        let accepts = !self.resting && !self.listeners.is_empty() && self.may_offer(core);
        self.listeners
            .iter()
            .filter(move |_| accepts)
            .flat_map(|listener| {
                listener
                    .sockets
                    .iter()
                    .map(|socket| (listener.number, socket.as_fd()))
            })
    }

    /// A socket became ready.
    pub(super) fn ready(&mut self, core: &mut Core, number: u32, flags: PollFlags) {
        let channel = ChannelId(number);
        let relay = match self.channels.get_mut(&number) {
            Some(Forward::Open(relay)) => relay,
            Some(Forward::Tunnel(tunnel)) => return tunnel.set_ready(),
            _ => return,
        };
        if flags.contains(PollFlags::OUT) {
            let done = relay.flush();
            consumed(core, channel, done);
        }
        if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            relay.set_ready();
            // An error shows at the next write too.
            let done = relay.flush();
            consumed(core, channel, done);
        }
    }

    /// Somebody connected to a listener.
    pub(super) fn accept(&mut self, core: &mut Core, number: u32, window: u32) {
        let Some(index) = self
            .listeners
            .iter()
            .position(|listener| listener.number == number)
        else {
            return;
        };
        for _ in 0..ACCEPTS_PER_TURN {
            let accepted = match self.listeners.get(index) {
                Some(listener) if self.may_offer(core) => accept_one(listener),
                _ => return,
            };
            let (socket, from, listener) = match accepted {
                Ok(accepted) => accepted,
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => {
                    self.resting = true;
                    return;
                }
                // Whoever connected is gone again.
                Err(_) => continue,
            };
            let offered = match &listener.purpose {
                Purpose::Place(place) => {
                    let (kind, extra) = offer(place, listener.port, from);
                    core.offer(kind, window, FORWARD_PACKET_BYTES, &extra)
                }
                Purpose::Agent(kind) => {
                    core.offer(kind, AGENT_WINDOW_BYTES, AGENT_PACKET_BYTES, &[])
                }
                Purpose::Display { .. } => {
                    let extra = originator(from);
                    core.offer(b"x11", AGENT_WINDOW_BYTES, AGENT_PACKET_BYTES, &extra)
                }
            };
            let kind: &[u8] = match &listener.purpose {
                Purpose::Place(Place::Tcp { .. }) => b"forwarded-tcpip",
                Purpose::Place(Place::Unix { .. }) => b"forwarded-streamlocal@openssh.com",
                Purpose::Agent(_) => b"agent-connection",
                Purpose::Display { .. } => b"x11-connection",
            };
            let once = matches!(listener.purpose, Purpose::Display { single: true, .. });
            if let Some(channel) = offered {
                let relay = Relay::new(socket, kind);
                self.channels.insert(channel.0, Forward::Offered(relay));
            }
            if once {
                self.listeners.swap_remove(index);
                return;
            }
        }
    }

    fn may_offer(&self, core: &Core) -> bool {
        let offered = self
            .channels
            .values()
            .filter(|forward| matches!(forward, Forward::Offered(_)));
        core.can_offer() && offered.count() < OFFERS_MAX
    }

    fn take_number(&mut self) -> u32 {
        self.next_number = self.next_number.wrapping_add(1);
        self.next_number
    }

    /// What waits for the helper under this number: its channel, and the mode of a tunnel.
    fn connecting(&self, number: u32) -> Result<(ChannelId, Option<TunnelMode>), ServiceError> {
        self.channels
            .iter()
            .find_map(|(channel, forward)| match forward {
                Forward::Connecting(of) if *of == number => Some((ChannelId(*channel), None)),
                Forward::Tunnelling(of, mode) if *of == number => {
                    Some((ChannelId(*channel), Some(*mode)))
                }
                _ => None,
            })
            .ok_or(unexpected("a connection that nobody asked for"))
    }

    /// What became of a request to listen that failed.
    fn not_listening(&mut self, number: u32) -> Result<Answered, ServiceError> {
        Ok(match self.asked(number)?.purpose {
            Purpose::Agent(_) => Answered::Agent(false),
            Purpose::Display { session, .. } => Answered::Display(session, false),
            Purpose::Place(_) => {
                let port = None;
                Answered::Listening(Listening { number, port })
            }
        })
    }

    fn position(&self, number: u32) -> Option<usize> {
        self.listeners.iter().position(|it| it.number == number)
    }

    fn asked(&mut self, number: u32) -> Result<&mut Listener, ServiceError> {
        self.listeners
            .iter_mut()
            .find(|listener| listener.number == number && listener.sockets.is_empty())
            .ok_or(unexpected("a listener that nobody asked for"))
    }
}

impl Listener {
    /// Whether a request to listen no more at `place` means this one.
    fn is_at(&self, place: &Place) -> bool {
        if self.cancelled {
            return false;
        }
        match (&self.purpose, place) {
            // Where the client left the port open, it is named by the one that it got.
            (Purpose::Place(Place::Tcp { host, .. }), Place::Tcp { host: asked, port })
                if !self.sockets.is_empty() =>
            {
                host == asked && self.port == *port
            }
            (Purpose::Place(Place::Tcp { port: 0, .. }), _) => false,
            (Purpose::Place(place), asked) => place == asked,
            (Purpose::Agent(_) | Purpose::Display { .. }, _) => false,
        }
    }

    /// Its sockets are closed with it; what is in the file system is the helper's.
    fn end(self, helper: &mut HelperQueue) -> Result<(), LinkError> {
        if matches!(self.purpose, Purpose::Place(Place::Unix { .. })) {
            let request = ForwardRequest::StopListening {
                number: self.number,
            };
            helper.send(&NetToSession::Forward { request })?;
        }
        Ok(())
    }
}

impl Forward {
    /// The channel is closed on both sides.
    fn is_gone(&self) -> bool {
        match self {
            Self::Open(relay) => relay.is_gone(),
            Self::Tunnel(tunnel) => tunnel.is_gone(),
            Self::Connecting(_) | Self::Tunnelling(..) | Self::Offered(_) => false,
        }
    }
}

fn pump_one(core: &mut Core, number: u32, forward: &mut Forward) {
    match forward {
        Forward::Open(relay) => {
            relay.pump(core, ChannelId(number));
            relay.settle(core, ChannelId(number));
        }
        Forward::Tunnel(tunnel) => tunnel.pump(core, ChannelId(number)),
        Forward::Connecting(_) | Forward::Tunnelling(..) | Forward::Offered(_) => {}
    }
}

/// A connection that the helper made.
fn relay_of(socket: OwnedFd) -> Result<Relay, ServiceError> {
    let socket = stream_socket(socket).ok_or(unexpected("a socket that is none"))?;
    let kind = match is_unix(&socket) {
        true => b"direct-streamlocal@openssh.com".as_slice(),
        false => b"direct-tcpip",
    };
    Ok(Relay::new(socket, kind))
}

type Accepted<'a> = (OwnedFd, Option<std::net::SocketAddr>, &'a Listener);

/// Takes one connection from whichever of the listener's sockets has one.
fn accept_one(listener: &Listener) -> Result<Accepted<'_>, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let mut last = Errno::AGAIN;
    for socket in &listener.sockets {
        match acceptfrom_with(socket, flags) {
            Ok((socket, from)) => {
                let from = from.and_then(|from| std::net::SocketAddr::try_from(from).ok());
                if from.is_some() {
                    // As OpenSSH; a refusal costs latency only.
                    let _ = sockopt::set_tcp_nodelay(&socket, true);
                }
                return Ok((socket, from, listener));
            }
            Err(Errno::AGAIN) => {}
            Err(errno) => last = errno,
        }
    }
    Err(last)
}

fn no_descriptors(descriptors: &[OwnedFd]) -> Result<(), ServiceError> {
    if descriptors.is_empty() {
        Ok(())
    } else {
        Err(unexpected("descriptors where none belong"))
    }
}

fn unexpected(what: &'static str) -> ServiceError {
    ServiceError::Helper(LinkError::Protocol(what))
}
