//! Endings: of a connection, of a `net`, of everything.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::{WaitOptions, WaitStatus, wait};

use super::Monitor;
use super::connection::{Connection, Phase, Step};
use super::ids::{ConnectionKey, NetId};
use super::log as lines;
use super::nets::{Net, Role};
use super::penalties::{Conduct, Offence};
use super::timers::Deadline;
use crate::frames::{CloseReason, ToNet};
use crate::limits::{ENDING_TIME_MS, RETIRED_NET_TIME_MS};
use crate::logging::LOGIN;

impl Monitor {
    /// `net` says that a connection ended.
    pub(super) fn closed(
        &mut self,
        key: ConnectionKey,
        reason: CloseReason,
        detail: &[u8],
        bytes: (u64, u64),
    ) {
        if let Some(connection) = self.connections.get_mut(&key) {
            if reason == CloseReason::Fault && connection.conduct != Conduct::Good {
                connection.conduct = Conduct::Worse(Offence::Crash);
            }
            let (line, code) = lines::ending(connection, reason, detail);
            log::info!(target: LOGIN, "{line}");
            if matches!(reason, CloseReason::ByPeer { .. }) {
                // OpenSSH's second line, which says who.
                log::info!(target: LOGIN, "{}", lines::ending(connection, CloseReason::Ended, b"").0);
            }
            let user = match &connection.phase {
                Phase::Live(live) => Some(live.login.name.as_slice()),
                Phase::Ending {
                    user: Some(login), ..
                } => Some(login.name.as_slice()),
                Phase::Authenticating(attempt) => Some(attempt.user.as_slice()),
                _ => None,
            };
            log::info!(
                "{} seconds={} received={} sent={}",
                lines::fields("end", user, connection, code),
                connection.age().as_secs(),
                bytes.0,
                bytes.1
            );
        }
        if let Some(connection) = self.connections.get_mut(&key) {
            (connection.report.received, connection.report.sent) = bytes;
        }
        self.forget(key);
    }

    /// Ends a connection politely: SSH_MSG_DISCONNECT, and a while for it to go out.
    pub(super) fn disconnect(&mut self, key: ConnectionKey, reason: u32, text: &str) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        let suffix = if connection.is_live() {
            ""
        } else {
            " [preauth]"
        };
        log::info!(target: LOGIN, "Disconnecting {}: {text}{suffix}", connection.place());
        let frame = ToNet::Disconnect {
            reason,
            message: text.into(),
        };
        self.nets
            .send(&self.poller, connection.net, connection.number, &frame, &[]);
        self.stop_reading(key);
        self.checks.forget(key);
        self.names.forget(key);
        self.drop_helper(key);
        self.end_soon(key);
    }

    /// Cuts a connection off if it has not ended by itself in a while.
    pub(super) fn end_soon(&mut self, key: ConnectionKey) {
        let time = Duration::from_millis(ENDING_TIME_MS);
        let timer = self.timers.after(time, Deadline::Ending(key));
        let Some(connection) = self.connections.get_mut(&key) else {
            return self.timers.cancel(Some(timer));
        };
        let user = match &connection.phase {
            Phase::Live(live) => Some(live.login.clone()),
            Phase::Ending {
                user,
                timer: running,
            } => {
                self.timers.cancel(Some(*running));
                user.clone()
            }
            _ => None,
        };
        connection.client_name.drop_request();
        drop(connection.enter(Phase::Ending { timer, user }));
        super::trace::phase(key, connection);
    }

    /// Ends a connection at once, whatever its `net` does.
    pub(super) fn cut_off(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        connection.client.shut_down();
        let frame = ToNet::Disconnect {
            reason: 11,
            message: "".into(),
        };
        self.nets
            .send(&self.poller, connection.net, connection.number, &frame, &[]);
        self.forget(key);
    }

    /// Gives back everything that a connection held.
    fn forget(&mut self, key: ConnectionKey) {
        self.stop_reading(key);
        self.checks.forget(key);
        self.names.forget(key);
        self.end_sessions(key);
        self.drop_helper(key);
        let Some(mut connection) = self.connections.remove(&key) else {
            return;
        };
        super::trace::over(key);
        self.cookies.remove(&connection.client.cookie);
        let report = &connection.report;
        self.counters.bytes.0 += report.received;
        self.counters.bytes.1 += report.sent;
        self.counters.rekeys += u64::from(report.rekeys);
        self.timers.cancel(connection.grace.take());
        match &connection.phase {
            Phase::Ending { timer, .. } => self.timers.cancel(Some(*timer)),
            Phase::HandingOver(hand_over) => self.net_is_idle(hand_over.target),
            _ => {}
        }
        if let Some(slot) = connection.slot.take() {
            self.startups.give_back(slot);
        }
        let net = connection.net;
        if let Some(process) = self.nets.get_mut(net) {
            process.connections.remove(&connection.number);
        }
        // Whoever ends because the server does has done nothing wrong.
        if let Some(offence) = connection.conduct.offence()
            && !self.stopping
            && !self.inetd
        {
            self.penalise(connection.peer().ip(), offence);
        }
        // The socket is closed here; a `net` that paused for want of descriptors shares the table of
        // the whole system with us.
        drop(connection);
        self.net_is_idle(net);
        self.end_retired(net);
    }

    /// A `net` that accepts no more ends by itself with its last connection. What it accepted before
    /// it heard of that may still be on its way here.
    pub(super) fn end_retired(&mut self, id: NetId) {
        if let Some(net) = self.nets.get_mut(id)
            && net.retired
            && net.connections.is_empty()
        {
            self.timers.cancel(net.idle.take());
            let time = Duration::from_millis(RETIRED_NET_TIME_MS);
            net.idle = Some(self.timers.after(time, Deadline::Idle(id)));
        }
    }

    /// A `net` was without connections for long enough.
    pub(super) fn idle_over(&mut self, id: NetId) {
        if let Some(net) = self.nets.get(id).filter(|net| net.connections.is_empty()) {
            if net.retired {
                // It should have ended by itself, and may have gone bad: it has our listeners.
                net.kill();
            }
            self.end_net(id);
        }
    }

    /// Lets a `net` go: it ends when its link does.
    pub(super) fn end_net(&mut self, id: NetId) {
        if let Some(net) = self.nets.remove(id) {
            self.release(&net);
        }
    }

    fn release(&mut self, net: &Net) {
        self.timers.cancel(net.idle);
        self.timers.cancel(net.hello);
        self.timers.cancel(net.resume);
        self.poller.remove(net.link());
    }

    /// Buries the `net`s that ended, or that did what none of ours does.
    pub(super) fn bury(&mut self) {
        loop {
            let doomed = self.nets.take_doomed();
            if doomed.is_empty() {
                return;
            }
            for (id, why) in doomed {
                let Some(net) = self.nets.remove(id) else {
                    continue;
                };
                self.release(&net);
                let pid = net.pid;
                let left: Vec<_> = net
                    .connections
                    .values()
                    .filter(|key| !self.needs_no_net(**key))
                    .collect();
                if !(net.retired && left.is_empty()) {
                    self.counters.net_deaths += 1;
                    log::error!("net[{}] is gone: {why}", pid.as_raw_nonzero());
                }
                if net.kill() {
                    self.nets.expect_end(pid);
                }
                let alone = left.len() == 1;
                for key in left {
                    self.lost(*key, alone);
                }
                if net.role == Role::Strangers && !net.retired {
                    self.replace_strangers(net.started.elapsed());
                }
            }
        }
    }

    /// A connection that was frozen is on its way to another `net`: the one that had it may end.
    fn needs_no_net(&self, key: ConnectionKey) -> bool {
        let phase = self.connections.get(&key).map(|it| &it.phase);
        matches!(phase, Some(Phase::HandingOver(hand_over)) if hand_over.frozen.is_some())
    }

    /// The process of a connection is gone. Only of one that was alone in it is it known who ended it.
    fn lost(&mut self, key: ConnectionKey, alone: bool) {
        if let Some(connection) = self.connections.get_mut(&key) {
            if connection.conduct != Conduct::Good {
                connection.conduct = if alone {
                    Conduct::Worse(Offence::Crash)
                } else {
                    Conduct::Good
                };
            }
            connection.client.shut_down();
            log::info!(target: LOGIN, "{}", lines::ending(connection, CloseReason::Fault, b"").0);
        }
        self.forget(key);
    }

    /// Collects children. Their links say that they are gone; this says how.
    pub(super) fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            if self.probe_collected(pid, status) {
                continue;
            }
            if let Some(id) = self.nets.by_pid(pid) {
                let mut is_expected = false;
                if let Some(net) = self.nets.get_mut(id) {
                    net.collected = true;
                    is_expected = net.retired && failure(status).is_none();
                }
                // Of one that ends as it should, frames may still be on their way.
                if !is_expected {
                    self.nets.doom(id, describe(status));
                }
                continue;
            }
            let how = failure(status);
            self.aftermaths.collected(pid, how.as_deref());
            if !self.debug_collected(pid, how.as_deref())
                && self.nets.was_dying(pid)
                // Also of those that were let go: theirs is status 0.
                && let Some(how) = how
            {
                log::error!("net[{}]: {how}", pid.as_raw_nonzero());
            }
        }
    }

    /// `agent drain`: all connections end, and then this process.
    pub(super) fn drain(&mut self) {
        log::info!("draining: all connections are ended");
        self.accept_no_more();
        let all: Vec<_> = self.connections.keys().copied().collect();
        for key in all {
            self.disconnect(key, 11, "the server is shut down");
        }
    }

    /// The end of the last connection is the end of this process. The debug service stays: whoever
    /// waits for that wants to look.
    pub(super) fn accept_no_more(&mut self) {
        self.give_up_upgrade("the server accepts no more connections");
        self.notifier.stopping();
        self.late_addresses = self.addresses();
        self.stopping = true;
        if let Some(mark) = &self.mark {
            mark.note_drain();
        }
        if let Some(path) = &self.generation.options.pid_file {
            super::rundir::remove_pid_file(path);
        }
        self.retire_strangers();
        // After the order to accept no more: what is not accepted by now, nobody will.
        for listener in self.listeners.drain(..) {
            listener.stop();
        }
    }

    /// Where connections come in.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.listeners.iter().map(|listener| listener.address);
        addresses
            .chain(self.late_addresses.iter().copied())
            .collect()
    }

    /// Tells strangers' `net`s to accept no more.
    pub(super) fn retire_strangers(&mut self) {
        let strangers: Vec<_> = self
            .nets
            .iter()
            .filter(|(_, net)| net.role == Role::Strangers)
            .map(|(id, _)| id)
            .collect();
        for id in strangers {
            self.nets
                .send(&self.poller, id, 0, &ToNet::StopAccepting, &[]);
            if let Some(net) = self.nets.get_mut(id) {
                net.retire();
            }
            self.end_retired(id);
        }
    }
}

/// In words, where it did not end as it should.
fn failure(status: WaitStatus) -> Option<String> {
    (status.exit_status() != Some(0)).then(|| describe(status))
}

pub(super) fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("it exited with status {code}"),
        (_, Some(signal)) => format!("it was killed by signal {signal}"),
        _ => "it ended".into(),
    }
}

impl Connection {
    /// The pipe of a key reader under way.
    pub(super) fn key_pipe(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        use std::os::fd::AsFd;
        let Phase::Authenticating(attempt) = &self.phase else {
            return None;
        };
        match &attempt.pending.as_ref()?.step {
            Step::Reading { pipe, .. } => Some(pipe.as_fd()),
            _ => None,
        }
    }
}
