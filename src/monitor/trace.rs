//! A trace for the debug service: what connections and their sessions go through, as it happens.
//!
//! Events go into a socket of records that is never waited for; without a trace they cost one look.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use agent_helper::wire::{Bytes, Wire};
use rustix::net::{SendFlags, send};

use super::Monitor;
use super::connection::{Connection, Phase};
use super::ids::ConnectionKey;
use super::log::user_text;
use super::permit::Stage;
use super::socket::host_text;
use crate::debug_frames::TraceEvent;
use crate::logging::streams;

static RUNNING: AtomicBool = AtomicBool::new(false);
static TRACE: Mutex<Option<Trace>> = Mutex::new(None);

struct Trace {
    /// The client of the debug service that it is for.
    number: u32,
    socket: OwnedFd,
    begun: Instant,
    dropped: u64,
}

fn trace() -> MutexGuard<'static, Option<Trace>> {
    TRACE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A part of a connection begins; it ends with [`part_over`].
pub(super) fn part(key: ConnectionKey, part: &str, detail: &str) {
    if RUNNING.load(Ordering::Relaxed) {
        put(key, Some(part), part, detail);
    }
}

pub(super) fn part_over(key: ConnectionKey, part: &str) {
    if RUNNING.load(Ordering::Relaxed) {
        put(key, Some(part), "", "");
    }
}

/// The same for one of the sessions.
pub(super) fn session(key: ConnectionKey, number: u32, pid: Option<u32>) {
    if RUNNING.load(Ordering::Relaxed) {
        let name = format!("session {number}");
        match pid {
            Some(pid) => put(key, Some(&name), &name, &format!("process {pid}")),
            None => put(key, Some(&name), "", ""),
        }
    }
}

/// The connection is in another phase now, or is one that the trace has not seen.
pub(super) fn phase(key: ConnectionKey, connection: &Connection) {
    if !RUNNING.load(Ordering::Relaxed) {
        return;
    }
    let user = |name: &[u8]| format!("{} as {}", connection.place(), user_text(name));
    let (name, detail) = match &connection.phase {
        Phase::Greeting if connection.permit.stage() == Stage::Exchanged => {
            ("no request yet", String::new())
        }
        Phase::Greeting => ("key exchange", String::new()),
        Phase::Authenticating(attempt) => ("authentication", user(&attempt.user)),
        Phase::HandingOver(it) => ("login", user(&it.login.name)),
        Phase::Live(live) => ("logged in", user(&live.login.name)),
        Phase::Ending { .. } => ("ending", String::new()),
    };
    let detail = if detail.is_empty() {
        host_text(connection.peer()) + " port " + &connection.peer().port().to_string()
    } else {
        detail
    };
    put(key, None, name, &detail);
}

pub(super) fn over(key: ConnectionKey) {
    if RUNNING.load(Ordering::Relaxed) {
        put(key, None, "", "");
    }
}

fn put(key: ConnectionKey, part: Option<&str>, name: &str, detail: &str) {
    if let Some(trace) = &mut *trace() {
        let event = TraceEvent {
            at_us: u64::try_from(trace.begun.elapsed().as_micros()).unwrap_or(u64::MAX),
            connection: key.0,
            part: part.map(Bytes::from),
            name: name.into(),
            detail: detail.into(),
            dropped: trace.dropped,
        };
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match send(&trace.socket, &event.to_wire(), flags) {
            Ok(_) => trace.dropped = 0,
            Err(_) => trace.dropped = trace.dropped.saturating_add(1),
        }
    }
}

impl Monitor {
    /// Begins, for a client of the debug service; gives the reader's end. What goes on already is the
    /// first thing it sees.
    pub(super) fn begin_trace(&self, number: u32) -> io::Result<OwnedFd> {
        let (socket, reader) = streams::pair()?;
        *trace() = Some(Trace {
            number,
            socket,
            begun: Instant::now(),
            dropped: 0,
        });
        RUNNING.store(true, Ordering::Relaxed);
        for (key, connection) in &self.connections {
            phase(*key, connection);
            if let Phase::Live(live) = &connection.phase {
                for (number, its) in &live.sessions {
                    session(*key, *number, Some(its.pid));
                }
            }
        }
        Ok(reader)
    }
}

/// The client is gone; `None`: all are. True where it was its trace.
pub(super) fn end(number: Option<u32>) -> bool {
    let mut trace = trace();
    let its = |trace: &Trace| number.is_none_or(|number| trace.number == number);
    let ends = trace.as_ref().is_some_and(its);
    if ends {
        *trace = None;
        RUNNING.store(false, Ordering::Relaxed);
    }
    ends
}
