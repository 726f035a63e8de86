//! Sessions of a connection after login: terminals and records. The helper is the user by now, so
//! nothing in its frames is believed; it gets what the policy permits, and no more of it.

use std::os::fd::AsFd;

use agent_helper::frame::{HelperToMonitor, MonitorToHelper};

use std::time::Instant;

use super::connection::{LoggedUser, Phase, Session};
use super::ids::ConnectionKey;
use super::setup::level_number;
use super::socket::host_text;
use super::terminals::Terminal;
use super::{Monitor, clock};
use crate::limits::{
    SESSIONS_PER_CONNECTION_MAX, TERMINALS_BURST, TERMINALS_PER_CONNECTION_MAX,
    TERMINALS_PER_SECOND,
};
use crate::records::{Entry, Records};

impl Monitor {
    /// A frame of a helper that is the user.
    pub(super) fn session_frame(&mut self, key: ConnectionKey, frame: HelperToMonitor) {
        match frame {
            HelperToMonitor::OpenTerminal { session } => self.open_terminal(key, session),
            HelperToMonitor::SessionStarted { session, pid } => {
                self.session_started(key, session, pid);
            }
            HelperToMonitor::SessionEnded { session } => self.session_ended(key, session),
            HelperToMonitor::FileEvent { event } => self.file_event(key, &event),
            HelperToMonitor::StartResolver => self.start_resolver(key),
            other => self.helper_lost(key, &format!("it sent {} out of turn", other.kind().1)),
        }
    }

    fn open_terminal(&mut self, key: ConnectionKey, number: u32) {
        let tty_group = self.host.tty_group;
        let as_root = self.host.as_root;
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let place = connection.place();
        let Phase::Live(live) = &mut connection.phase else {
            return;
        };
        let open = live
            .sessions
            .values()
            .filter(|session| session.terminal.is_some())
            .count();
        let taken = live
            .sessions
            .get(&number)
            .is_some_and(|session| session.terminal.is_some());
        let permitted = as_root && live.permit_pty && !taken;
        let has_room = open < TERMINALS_PER_CONNECTION_MAX
            && live.sessions.len() < SESSIONS_PER_CONNECTION_MAX
            && live.terminals.take(Instant::now());
        let opened = (permitted && has_room)
            .then(|| Terminal::open(live.login.uid, live.login.gid, tty_group))
            .and_then(|opened| {
                opened
                    .inspect_err(|error| log::error!("no terminal: {error}"))
                    .ok()
            });
        let Some(helper) = connection.helper.as_mut() else {
            return;
        };
        // Within its share of lines: who asks too often does not fill the log either.
        if permitted && !has_room && helper.logs.take(level_number(log::LevelFilter::Warn)) {
            log::warn!(
                "no terminal for {place}: {open} are open, of {TERMINALS_PER_CONNECTION_MAX} at most on a connection, which gets {TERMINALS_BURST} at once and {TERMINALS_PER_SECOND} more each second"
            );
        }
        let sent = match opened {
            Some((terminal, ends)) => {
                let frame = MonitorToHelper::Terminal {
                    session: number,
                    path: terminal.path.clone().into(),
                };
                live.sessions.entry(number).or_default().terminal = Some(terminal);
                let descriptors = [ends.master.as_fd(), ends.slave.as_fd()];
                helper.send(&self.poller, key, &frame, &descriptors)
            }
            None => helper.send(
                &self.poller,
                key,
                &MonitorToHelper::NoTerminal { session: number },
                &[],
            ),
        };
        if let Err(error) = sent {
            self.helper_lost(key, &error.to_string());
        }
    }

    fn session_started(&mut self, key: ConnectionKey, number: u32, pid: u32) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let options = &connection.generation.options;
        let peer = connection.ends.peer;
        let Phase::Live(live) = &mut connection.phase else {
            return;
        };
        if live.sessions.len() >= SESSIONS_PER_CONNECTION_MAX
            && !live.sessions.contains_key(&number)
        {
            return;
        }
        let session = live.sessions.entry(number).or_default();
        session.pid = pid;
        super::trace::session(key, number, Some(pid));
        if let (Some(terminal), false) = (&session.terminal, session.recorded) {
            let host = host_text(peer);
            let entry = entry(&live.login, terminal, &host, peer.ip(), pid);
            let records = self.host.records(options);
            records.login(&entry);
            records.set_last_login(live.login.uid, &entry);
            session.recorded = true;
        }
        log::debug!(
            "session {number} of {} runs as process {pid}",
            connection.place()
        );
    }

    fn session_ended(&mut self, key: ConnectionKey, number: u32) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let options = &connection.generation.options;
        let peer = connection.ends.peer.ip();
        let Phase::Live(live) = &mut connection.phase else {
            return;
        };
        super::trace::session(key, number, None);
        if let Some(session) = live.sessions.remove(&number)
            && session.terminal.is_some()
        {
            close(&self.host.records(options), &live.login, &session, peer);
        }
    }

    /// All sessions of a connection are over.
    pub(super) fn end_sessions(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let options = &connection.generation.options;
        let peer = connection.ends.peer.ip();
        let Phase::Live(live) = &mut connection.phase else {
            return;
        };
        let mut sessions = std::mem::take(&mut live.sessions);
        for number in sessions.keys() {
            super::trace::session(key, *number, None);
        }
        sessions.retain(|_, session| session.terminal.is_some());
        if sessions.is_empty() {
            return;
        }
        let records = self.host.records(options);
        for session in sessions.into_values() {
            close(&records, &live.login, &session, peer);
        }
    }
}

/// Ends a session's record and takes its terminal back.
fn close(records: &Records, login: &LoggedUser, session: &Session, peer: std::net::IpAddr) {
    let Some(terminal) = &session.terminal else {
        return;
    };
    if session.recorded {
        records.logout(&entry(login, terminal, "", peer, session.pid));
    }
    terminal.give_back();
}

fn entry<'a>(
    login: &'a LoggedUser,
    terminal: &'a Terminal,
    host: &'a str,
    address: std::net::IpAddr,
    pid: u32,
) -> Entry<'a> {
    Entry {
        line: terminal.line(),
        user: &login.name,
        host,
        address,
        pid,
        time: clock::now(),
    }
}
