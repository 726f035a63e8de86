//! A stranger arrives: is the socket ours, is there room, and what does the configuration say.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Monitor;
use super::connection::{Connection, Generation, Phase};
use super::ids::{ConnectionKey, NetId};
use super::names::ClientName;
use super::penalties::{Conduct, Offence};
use super::permit::Permit;
use super::setup::{connection_options, signature_algorithms};
use super::socket::{Client, Ends, host_text};
use super::startups::{Bounds, Drop};
use super::timers::Deadline;
use crate::config::{Options, Subject};
use crate::frames::{ConnectionReport, ToNet};
use crate::logging::LOGIN;

/// What OpenSSH sends before it closes.
const NOT_ALLOWED: &str = "Not allowed at this time\r\n";

impl Monitor {
    /// A `net` says that it accepted a connection.
    pub(super) fn accept(&mut self, net: NetId, number: u32, mut descriptors: Vec<OwnedFd>) {
        let Some(process) = self.nets.get_mut(net) else {
            return;
        };
        if !process.may_accept() || number <= process.highest {
            return self.nets.doom(net, "it accepted what it may not");
        }
        process.highest = number;
        // One that accepts no more may have accepted this one before it heard of that.
        self.timers.cancel(process.idle.take());
        let (Some(socket), true) = (descriptors.pop(), descriptors.is_empty()) else {
            return self.nets.doom(net, "it accepted without a socket");
        };
        let (client, ends) = match Client::accepted(socket, &self.addresses()) {
            Ok(accepted) => accepted,
            Err(why) => {
                // A client that is gone already has no peer name any more: nothing to suspect.
                log::debug!("a connection was not taken: {why}");
                self.refuse(net, number, "");
                return self.end_retired(net);
            }
        };
        if self.cookies.contains(&client.cookie) {
            return self
                .nets
                .doom(net, "attack: it passed one socket for two connections");
        }
        self.admit(net, number, client, ends);
    }

    /// The one connection of --inetd.
    pub(super) fn serve_inherited(&mut self, net: NetId, client: Client, ends: Ends) {
        const NUMBER: u32 = 1;
        if let Some(process) = self.nets.get_mut(net) {
            process.highest = NUMBER;
        }
        self.nets.send(
            &self.poller,
            net,
            NUMBER,
            &ToNet::Serve,
            &client.descriptors(),
        );
        self.admit(net, NUMBER, client, ends);
    }

    fn admit(&mut self, net: NetId, number: u32, client: Client, ends: Ends) {
        let generation = Rc::clone(&self.generation);
        let options = effective_options(&generation, ends);
        if options.refuse_connection {
            self.log_drop(ends, "prohibited by RefuseConnection", "refuse-connection");
            self.penalise(ends.peer.ip(), Offence::RefusedConnection);
            return self.refuse(net, number, NOT_ALLOWED);
        }
        let text = match self.room_for(&options, ends) {
            Ok(slot) => {
                let Some(cookie) = self.host.random_bytes() else {
                    self.startups.give_back(slot);
                    return self.refuse(net, number, "");
                };
                return self.begin(
                    net, number, client, ends, generation, &options, slot, cookie,
                );
            }
            Err(text) => text,
        };
        self.refuse(net, number, text);
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "everything that a connection begins with"
    )]
    fn begin(
        &mut self,
        net: NetId,
        number: u32,
        client: Client,
        ends: Ends,
        generation: Rc<Generation>,
        options: &Options,
        slot: super::startups::Slot,
        cookie: [u8; 16],
    ) {
        let key = ConnectionKey(self.keys.next());
        let mut told = connection_options(options, &generation.host_keys);
        told.setup.signature_algorithms =
            signature_algorithms(&generation.config.user_key_algorithms(options));
        let told = Rc::new(told);
        let frame = ToNet::Accepted {
            cookie,
            options: (*told).clone(),
        };
        let now = Instant::now();
        let grace = (options.login_grace_s > 0).then(|| {
            let time = Duration::from_secs(u64::from(options.login_grace_s));
            self.timers.after(time, Deadline::Grace(key))
        });
        self.counters.connections += 1;
        self.cookies.insert(client.cookie);
        let connection = Connection {
            net,
            number,
            client,
            ends,
            started: now,
            generation,
            options: told,
            permit: Permit::new(now),
            phase: Phase::Greeting,
            cookie: Some(cookie),
            signing: false,
            conduct: Conduct::Silent,
            client_name: ClientName::Unknown,
            log_level: options.log_level,
            session_id: Vec::new(),
            signs_with: Vec::new(),
            proven: Vec::new(),
            host_key: Vec::new(),
            client_version: Vec::new(),
            grace,
            slot: Some(slot),
            helper: None,
            report: ConnectionReport::default(),
        };
        crate::logging::set_level(self.debug.level.unwrap_or(options.log_level));
        log::debug!(
            "Connection from {} on {} port {}",
            connection.place(),
            host_text(ends.local),
            ends.local.port()
        );
        super::trace::phase(key, &connection);
        self.connections.insert(key, connection);
        if let Some(process) = self.nets.get_mut(net) {
            process.connections.insert(number, key);
        }
        self.nets.send(&self.poller, net, number, &frame, &[]);
        if options.use_dns {
            self.seek_name(key);
        }
    }

    /// Start-up limits; the error is what the client is told.
    fn room_for(
        &mut self,
        options: &Options,
        ends: Ends,
    ) -> Result<super::startups::Slot, &'static str> {
        if self.connections.len() >= self.host.connections_max {
            self.log_drop(ends, "without a descriptor for it", "descriptors");
            return Err("");
        }
        if let Err(refused) = self.unpenalised(ends.peer.ip()) {
            self.log_drop(ends, refused.text(), "penalty");
            return Err(NOT_ALLOWED);
        }
        let bounds = Bounds {
            max: options.max_startups,
            per_source: options.per_source_max_startups,
            block: options.per_source_net_block,
        };
        let dice = self.host.random_bytes().map_or(0, u32::from_ne_bytes);
        self.startups
            .take(ends.peer.ip(), &bounds, dice)
            .map_err(|drop| {
                let (what, code) = match drop {
                    Drop::MaxStartups => ("past MaxStartups", "max-startups"),
                    Drop::PerSource => ("past PerSourceMaxStartups", "per-source-max-startups"),
                };
                self.log_drop(ends, what, code);
                NOT_ALLOWED
            })
    }

    /// A connection was not taken. A flood of them must not be a flood of lines.
    fn log_drop(&mut self, ends: Ends, what: &str, reason: &'static str) {
        self.remember_refusal(None, (ends.peer.ip(), ends.peer.port()), reason);
        if !self.drop_lines.take(Instant::now()) {
            self.dropped_lines += 1;
            return;
        }
        if self.dropped_lines > 0 {
            log::warn!(
                "{} lines about dropped connections were left out",
                self.dropped_lines
            );
            self.dropped_lines = 0;
        }
        log::warn!(
            "drop connection from {} port {} on {} port {} {what}; reason={reason}",
            host_text(ends.peer),
            ends.peer.port(),
            host_text(ends.local),
            ends.local.port()
        );
    }

    fn refuse(&mut self, net: NetId, number: u32, text: &str) {
        let frame = ToNet::Refused { text: text.into() };
        self.nets.send(&self.poller, net, number, &frame, &[]);
    }

    /// LoginGraceTime is over.
    pub(super) fn grace_over(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        connection.grace = None;
        connection.conduct = Conduct::Worse(Offence::GraceExceeded);
        log::info!(
            target: LOGIN,
            "Timeout before authentication for connection from {} to {}",
            host_text(connection.ends.peer),
            host_text(connection.ends.local)
        );
        let user = match &connection.phase {
            Phase::Authenticating(attempt) => Some(attempt.user.clone()),
            _ => None,
        };
        self.refused(key, user.as_deref(), "login-grace-time");
        self.cut_off(key);
    }
}

/// What the configuration says of a connection before a user is known.
fn effective_options(generation: &Generation, ends: Ends) -> Options {
    generation.config.effective(&Subject {
        user: None,
        groups: &[],
        invalid_user: false,
        address: ends.peer.ip(),
        host: None,
        local_address: ends.local.ip(),
        local_port: ends.local.port(),
    })
}
