//! One connection: its protocol core, its peer, and one poll(2) loop.
//!
//! State changes in one place, [`Connection::turn`]; what the monitor or the helper must decide is
//! asked, and the loop goes on. Whatever is full stops being read: the core's outbox and windows
//! say so, and the poll set follows.

mod last_words;
mod mail;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use agent_helper::frame::Policy;
use agent_helper::link::{Link, LinkError};
use agent_helper::wire::Bytes;
use log::LevelFilter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::io::Errno;

use super::client::ClientSocket;
use super::host_keys::HostKeys;
use super::idle::Idle;
use super::logger;
use super::memory;
use super::service::{Act, Service, ServiceError, Spot};
use super::threads::{Leave, Place};
use super::timers::{Due, Timers};
use crate::frames::{CloseReason, ConnectionOptions, NetToMonitor, ToNet};
use crate::limits::FROZEN_BYTES;
use crate::logging::level_filter;
use crate::ssh::crypto::Random;
use crate::ssh::{Core, Event, ProtocolError};

/// SSH_DISCONNECT_PROTOCOL_ERROR (RFC 4253 section 11.1).
const PROTOCOL_ERROR: u32 = 2;
/// SSH_DISCONNECT_BY_APPLICATION.
const BY_APPLICATION: u32 = 11;

/// What a user's `net` is told of a connection that it takes over.
#[derive(Debug)]
pub(super) struct Adoption {
    pub state: Bytes,
    pub options: ConnectionOptions,
    pub policy: Policy,
}

/// Serves a connection up to the end of authentication. The monitor was told of it already.
pub(super) fn serve_stranger(place: &Place, client: ClientSocket) -> Leave {
    logger::set_connection(place.number, LevelFilter::Info);
    let (cookie, options) = match first_word(place) {
        Ok(ToNet::Accepted { cookie, options }) => (cookie, options),
        Ok(ToNet::Refused { text }) => {
            last_words::refuse(&client, &text);
            return left(CloseReason::Ended, "refused");
        }
        Ok(ToNet::Disconnect { .. }) => return left(CloseReason::Ended, ""),
        Ok(_) | Err(_) => return left(CloseReason::Fault, "no word from the monitor"),
    };
    logger::set_connection(place.number, level_filter(options.log_level));
    client.keep_alive(options.tcp_keepalive);
    begin(place, client, cookie, options).run()
}

/// Never inlined, like all below that goes deep or holds much: an idle connection waits in
/// [`Connection::run`], and what that frame holds stays in memory.
#[inline(never)]
fn begin(
    place: &Place,
    client: ClientSocket,
    cookie: [u8; 16],
    options: ConnectionOptions,
) -> Box<Connection<'_>> {
    let core = Core::new(&options.setup, cookie, Random::system());
    Connection::new(place, client, core, &options, None)
}

/// Goes on with a connection whose user is known: says so, and serves sessions.
pub(super) fn serve_user(
    place: &Place,
    client: ClientSocket,
    helper: Link,
    adoption: Box<Adoption>,
) -> Leave {
    match take_over(place, client, helper, adoption) {
        Ok(connection) => connection.run(),
        Err(leave) => leave,
    }
}

#[inline(never)]
fn take_over(
    place: &Place,
    client: ClientSocket,
    helper: Link,
    adoption: Box<Adoption>,
) -> Result<Box<Connection<'_>>, Leave> {
    let Adoption {
        state,
        options,
        policy,
    } = *adoption;
    logger::set_connection(place.number, level_filter(options.log_level));
    let mut core = match Core::thaw(&state, &options.setup, Random::system()) {
        Ok(core) => core,
        Err(error) => {
            let why = format!("frozen connection: {error}");
            return Err(left(CloseReason::Fault, &why));
        }
    };
    core.auth_success();
    place.facts.set_algorithms(core.algorithms());
    let wants_eow = core.client_version().starts_with(b"SSH-2.0-OpenSSH");
    let host_keys = HostKeys::new(&options.setup.host_keys);
    let idle = Idle::new(&options.channel_timeouts, options.unused_connection_s);
    let service = Service::new(helper, policy, host_keys, idle, wants_eow);
    service.announce(&mut core);
    let mut connection = Connection::new(place, client, core, &options, Some(service));
    connection.timers.logged_in(Instant::now());
    Ok(connection)
}

/// A connection that ended before it had a core.
fn left(reason: CloseReason, detail: &str) -> Leave {
    Leave::Closed {
        reason,
        detail: detail.into(),
        bytes: (0, 0),
    }
}

/// The monitor's answer to a new connection.
fn first_word(place: &Place) -> Result<ToNet, Errno> {
    loop {
        if let Some(frame) = place.mailbox.take() {
            return Ok(frame);
        }
        let mut set = [PollFd::new(&*place.mailbox, PollFlags::IN)];
        match crate::profile::wait(|| poll(&mut set, None)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Sends a line instead of the version exchange (RFC 4253 section 4.2 lets a server do so).
/// Why the loop ends.
#[derive(Debug)]
enum Stop {
    Closed(CloseReason, Vec<u8>),
    /// The login is accepted: another process goes on.
    HandOver,
}

impl Stop {
    fn closed(reason: CloseReason, detail: &str) -> Self {
        Self::Closed(reason, detail.into())
    }

    fn io(errno: Errno) -> Self {
        Self::Closed(
            CloseReason::Io {
                errno: errno.raw_os_error(),
            },
            Vec::new(),
        )
    }
}

impl From<ProtocolError> for Stop {
    fn from(error: ProtocolError) -> Self {
        let reason = match error {
            ProtocolError::NoCommonAlgorithm { .. } => CloseReason::NoCommonAlgorithm,
            _ => CloseReason::Protocol {
                code: error.disconnect_reason(),
            },
        };
        Self::Closed(reason, error.to_string().into_bytes())
    }
}

/// What a key exchange waits for; the monitor makes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Cookie,
    Signature,
}

/// What a descriptor in the poll set is.
#[derive(Debug, Clone, Copy)]
enum Source {
    Mailbox,
    Input,
    Output,
    Helper,
    Served(Spot),
}

struct Connection<'a> {
    place: &'a Place,
    client: ClientSocket,
    core: Core,
    /// After login.
    service: Option<Service>,
    timers: Timers,
    began: Instant,
    key_exchange_owed: Option<Owed>,
    /// An authentication request is with the monitor.
    login_owed: bool,
    /// The monitor accepted the login: to be handed over as soon as little is left to send.
    accepted: bool,
    tos: (u8, u8),
    tos_set: Option<u8>,
    received_bytes: u64,
    sent_bytes: u64,
    ready: Vec<(Source, PollFlags)>,
}

impl<'a> Connection<'a> {
    fn new(
        place: &'a Place,
        client: ClientSocket,
        core: Core,
        options: &ConnectionOptions,
        service: Option<Service>,
    ) -> Box<Self> {
        let timers = Timers::new(
            options.client_alive_interval_s,
            options.client_alive_count_max,
            options.setup.rekey_s,
        );
        Box::new(Self {
            place,
            client,
            core,
            service,
            timers,
            began: Instant::now(),
            key_exchange_owed: None,
            login_owed: false,
            accepted: false,
            tos: options.tos,
            tos_set: None,
            received_bytes: 0,
            sent_bytes: 0,
            ready: Vec::new(),
        })
    }

    #[inline(never)]
    fn run(mut self: Box<Self>) -> Leave {
        self.timers.busy(Instant::now());
        let stop = loop {
            if let Err(stop) = self.turn() {
                break stop;
            }
        };
        match stop {
            Stop::HandOver => self.hand_over(),
            Stop::Closed(reason, detail) => {
                // Programs lose their streams before the peer gets its last message.
                self.service = None;
                let detail = match self.core.unmatched() {
                    Some(offer) if reason == CloseReason::NoCommonAlgorithm => offer.into(),
                    _ => detail,
                };
                self.last_words();
                Leave::Closed {
                    reason,
                    detail,
                    bytes: (self.received_bytes, self.sent_bytes),
                }
            }
        }
    }

    /// One turn: handle what is there, move data, then wait for more.
    fn turn(&mut self) -> Result<(), Stop> {
        self.events()?;
        if let Some(service) = &mut self.service {
            service.pump(&mut self.core);
        }
        self.end_idle()?;
        let channels = u32::try_from(self.core.open_channels()).unwrap_or(u32::MAX);
        let facts = &self.place.facts;
        facts.channels.store(channels, Ordering::Relaxed);
        self.write()?;
        if self.accepted && self.core.outbox().len() <= FROZEN_BYTES / 2 {
            return Err(Stop::HandOver);
        }
        self.wait()?;
        self.due()?;
        let ready = std::mem::take(&mut self.ready);
        for (source, flags) in &ready {
            self.source_ready(*source, *flags)?;
        }
        self.ready = ready;
        self.ready.clear();
        Ok(())
    }

    /// ChannelTimeout and UnusedConnectionTimeout.
    fn end_idle(&mut self) -> Result<(), Stop> {
        let Some(service) = &mut self.service else {
            return Ok(());
        };
        match service.end_idle(&mut self.core, Instant::now()) {
            Ok(false) => Ok(()),
            Ok(true) => {
                let why = "the connection was not used for too long";
                self.core.disconnect(BY_APPLICATION, why);
                Err(Stop::closed(CloseReason::Ended, "UnusedConnectionTimeout"))
            }
            Err(error) => Err(service_failed(&mut self.core, error)),
        }
    }

    fn source_ready(&mut self, source: Source, flags: PollFlags) -> Result<(), Stop> {
        match source {
            Source::Mailbox => self.mail(),
            Source::Input => {
                // Where one socket is both, its flags say for which it is ready.
                let for_reading = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
                if flags.intersects(for_reading) {
                    self.read()
                } else {
                    Ok(())
                }
            }
            // The next turn writes.
            Source::Output => Ok(()),
            Source::Helper => self.helper(flags),
            Source::Served(spot) => {
                if let Some(service) = &mut self.service {
                    service.ready(&mut self.core, spot, flags);
                    if service.listeners_rest() {
                        self.timers.rest_listeners(Instant::now());
                    }
                }
                Ok(())
            }
        }
    }

    /// Handles what the core has understood so far.
    #[inline(never)]
    fn events(&mut self) -> Result<(), Stop> {
        while self
            .service
            .as_ref()
            .is_none_or(|service| !service.is_full())
        {
            let Some(event) = self.core.next_event()? else {
                return Ok(());
            };
            match event {
                Event::ClientVersion(version) => {
                    let frame = NetToMonitor::ClientVersion {
                        version: version.into(),
                    };
                    self.tell(&frame)?;
                }
                Event::NeedCookie => {
                    self.key_exchange_owed = Some(Owed::Cookie);
                    self.tell(&NetToMonitor::Cookie)?;
                }
                Event::NeedSignature(exchange) => {
                    self.key_exchange_owed = Some(Owed::Signature);
                    self.tell_secret(NetToMonitor::Sign {
                        exchange: *exchange,
                    })?;
                }
                Event::KeysChanged { first } => self.keys_changed(first),
                Event::AuthRequest(request) => {
                    let frame = NetToMonitor::Auth {
                        request: request.into(),
                    };
                    self.login_owed = true;
                    self.tell_secret(frame)?;
                }
                Event::AuthResponse(response) => {
                    let frame = NetToMonitor::AuthResponse {
                        response: response.into(),
                    };
                    self.login_owed = true;
                    self.tell_secret(frame)?;
                }
                Event::GlobalReply { .. } => {}
                Event::Disconnect { reason, message } => {
                    let reason = CloseReason::ByPeer { code: reason };
                    return Err(Stop::Closed(reason, message.to_vec()));
                }
                event => {
                    let Some(service) = &mut self.service else {
                        return Err(Stop::closed(CloseReason::Fault, "a channel before login"));
                    };
                    match service.event(event) {
                        Ok(Act::Prove(keys)) => {
                            for key in keys {
                                self.tell(&NetToMonitor::Prove { key: key.into() })?;
                            }
                        }
                        Ok(act) => service.apply(act, &mut self.core),
                        Err(error) => return Err(service_failed(&mut self.core, error)),
                    }
                }
            }
        }
        Ok(())
    }

    fn keys_changed(&mut self, first: bool) {
        self.timers.keys_changed(Instant::now());
        if !first {
            self.place.facts.rekeys.fetch_add(1, Ordering::Relaxed);
        }
        self.place.facts.set_algorithms(self.core.algorithms());
        if first && log::log_enabled!(log::Level::Debug) {
            log::debug!("algorithms: {}", self.core.algorithms());
        }
    }

    #[inline(never)]
    fn helper(&mut self, flags: PollFlags) -> Result<(), Stop> {
        let Some(service) = &mut self.service else {
            return Ok(());
        };
        self.timers.busy(Instant::now());
        let result = if flags.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            service.helper_frames(&mut self.core)
        } else {
            service.flush_helper()
        };
        match result {
            Ok(()) => {}
            Err(ServiceError::Helper(LinkError::Closed)) => {
                self.core
                    .disconnect(BY_APPLICATION, "the session process ended");
                return Err(Stop::closed(CloseReason::HelperGone, ""));
            }
            Err(error) => return Err(service_failed(&mut self.core, error)),
        }
        self.set_type_of_service();
        Ok(())
    }

    /// IPQoS: the interactive value while a terminal is there, else the bulk one.
    fn set_type_of_service(&mut self) {
        let Some(sessions) = self
            .service
            .as_ref()
            .map(Service::sessions)
            .filter(|sessions| sessions.started_any())
        else {
            return;
        };
        let value = if sessions.has_terminal() {
            self.tos.0
        } else {
            self.tos.1
        };
        if self.tos_set != Some(value) {
            self.tos_set = Some(value);
            self.client.type_of_service(value);
        }
    }

    /// Reads what the peer sent, as far as there is room.
    fn read(&mut self) -> Result<(), Stop> {
        let room = self.core.inbox();
        if room.is_empty() {
            return Ok(());
        }
        match self.client.read(room) {
            Ok(0) => Err(Stop::closed(CloseReason::Eof, "")),
            Ok(len) => {
                self.core.received(len);
                self.received_bytes += len as u64; // widens
                let facts = &self.place.facts;
                facts.received.store(self.received_bytes, Ordering::Relaxed);
                let now = Instant::now();
                self.timers.heard(now);
                self.timers.busy(now);
                if self
                    .service
                    .as_ref()
                    .is_none_or(|service| !service.sessions().started_any())
                {
                    self.client.acknowledge_now();
                }
                Ok(())
            }
            Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(Stop::io(errno)),
        }
    }

    /// Writes what the socket takes.
    fn write(&mut self) -> Result<(), Stop> {
        while !self.core.outbox().is_empty() {
            match self.client.write(self.core.outbox()) {
                Ok(len) => {
                    self.core.sent(len);
                    self.sent_bytes += len as u64; // widens
                    let facts = &self.place.facts;
                    facts.sent.store(self.sent_bytes, Ordering::Relaxed);
                    self.timers.busy(Instant::now());
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(Stop::io(errno)),
            }
        }
        Ok(())
    }

    fn due(&mut self) -> Result<(), Stop> {
        if self.timers.next().is_none() {
            return Ok(());
        }
        let now = Instant::now();
        while let Some(due) = self.timers.due(now) {
            match due {
                Due::Keepalive => {
                    self.core
                        .send_global_request(b"keepalive@openssh.com", true, &[]);
                }
                Due::Dead => return Err(Stop::closed(CloseReason::Timeout, "")),
                Due::Rekey => self.core.rekey(),
                Due::Listeners => {
                    if let Some(service) = &mut self.service {
                        service.wake_listeners();
                    }
                }
                Due::Release => {
                    self.core.release_buffers();
                    if let Some(service) = &mut self.service {
                        service.release_buffers();
                    }
                    self.ready = Vec::new();
                    memory::release_stack();
                }
            }
        }
        Ok(())
    }

    /// Waits until something can be done.
    fn wait(&mut self) -> Result<(), Stop> {
        // First, since it decides from whom data is taken.
        let share_again = self.core.share(self.began.elapsed());
        let wants_input = self.wants_input();
        let wants_output = !self.core.outbox().is_empty();
        let mut set = Vec::with_capacity(8);
        let mut sources = Vec::with_capacity(8);
        let mut watch = |source, descriptor, flags| {
            set.push(PollFd::from_borrowed_fd(descriptor, flags));
            sources.push(source);
        };
        watch(Source::Mailbox, self.place.mailbox.as_fd(), PollFlags::IN);
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, wants_input);
        if self.client.is_split() {
            if wants_output {
                watch(Source::Output, self.client.output(), PollFlags::OUT);
            }
        } else {
            flags.set(PollFlags::OUT, wants_output);
        }
        // Without interest not even a hang-up may wake us: it would again and again.
        if !flags.is_empty() {
            watch(Source::Input, self.client.input(), flags);
        }
        if let Some(service) = &self.service {
            let (descriptor, waiting) = service.helper();
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, waiting);
            watch(Source::Helper, descriptor, flags);
            service.poll_set(&self.core, |spot, descriptor, flags| {
                watch(Source::Served(spot), descriptor, flags);
            });
        }
        let has_work = self
            .service
            .as_ref()
            .is_some_and(|service| service.has_work(&self.core));
        let rest = if has_work {
            Some(Duration::ZERO)
        } else {
            let service = self.service.as_ref().and_then(Service::next_due);
            let share_again = share_again.map(|after| self.began + after);
            let moments = [self.timers.next(), service, share_again];
            let next = moments.into_iter().flatten().min();
            next.map(|at| at.saturating_duration_since(Instant::now()))
        };
        let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
        match poll(&mut set, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Stop::io(errno)),
        }
        let found = sources
            .iter()
            .zip(&set)
            .map(|(source, entry)| (*source, entry.revents()));
        self.ready
            .extend(found.filter(|(_, flags)| !flags.is_empty()));
        Ok(())
    }

    fn wants_input(&self) -> bool {
        let served = self
            .service
            .as_ref()
            .is_none_or(|service| !service.is_full());
        served && self.core.wants_input()
    }
}

fn service_failed(core: &mut Core, error: ServiceError) -> Stop {
    match error {
        ServiceError::Protocol(error) => {
            core.disconnect(error.disconnect_reason(), &error.to_string());
            error.into()
        }
        ServiceError::NoMoreSessions => {
            let why =
                "Possible attack: attempt to open a session after additional sessions disabled";
            core.disconnect(PROTOCOL_ERROR, why);
            Stop::closed(
                CloseReason::Protocol {
                    code: PROTOCOL_ERROR,
                },
                why,
            )
        }
        ServiceError::Helper(error) => {
            core.disconnect(BY_APPLICATION, "the session process failed");
            Stop::closed(CloseReason::HelperGone, &error.to_string())
        }
    }
}
