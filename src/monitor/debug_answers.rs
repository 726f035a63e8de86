//! What the debug service is told, and what it may have done.
//!
//! Answers that need the word of `net`s (sessions, metrics) wait for it, for a bounded time; clients
//! that ask meanwhile share it.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, Instant, SystemTime};

use super::Monitor;
use super::connection::{Connection, Phase};
use super::debug_profile::Wanted;
use super::ids::{ConnectionKey, NetId};
use super::log::{peer_text, user_text};
use super::nets::Role;
use super::refusals::advice;
use super::socket::host_text;
use super::timers::{Deadline, TimerId};
use super::upgrade::Asker;
use crate::debug_frames::{
    DebugToMonitor, HostKeyFact, MonitorToDebug, PenaltyFact, Readiness, RefusalFact, SessionFact,
};
use crate::frames::{ConnectionReport, ToNet};
use crate::limits::{DEBUG_QUESTIONS_MAX, REPORT_TIME_MS, REPORTS_PER_FRAME};
use crate::logging;

/// Answers that wait for the word of `net`s.
#[derive(Debug, Default)]
pub(super) struct Gathering {
    waiting: Vec<(u32, Report)>,
    owing: BTreeSet<NetId>,
    timer: Option<TimerId>,
}

#[derive(Debug, Clone, Copy)]
enum Report {
    Sessions { after: u64 },
    Metrics,
}

impl Monitor {
    /// Does what a client asks for, whom the monitor let in as `who`.
    pub(super) fn debug_request(&mut self, number: u32, who: &str, frame: DebugToMonitor) {
        let answer = match frame {
            DebugToMonitor::GetLogLevel => self.level_answer(),
            DebugToMonitor::SetLogLevel { level } => {
                let level = logging::level_filter(level);
                announce(&format!("log level {level}"), who);
                self.force_log_level(Some(level));
                self.level_answer()
            }
            DebugToMonitor::GetReadiness => MonitorToDebug::Readiness {
                readiness: self.readiness(),
            },
            DebugToMonitor::GetSessions { after } => {
                return self.gather(number, Report::Sessions { after });
            }
            DebugToMonitor::GetMetrics => return self.gather(number, Report::Metrics),
            DebugToMonitor::Profile {
                kind,
                seconds,
                process,
                hz,
            } => {
                let wanted = Wanted { kind, seconds, hz };
                return self.profile(number, &wanted, process.as_deref(), who);
            }
            DebugToMonitor::Follow { level, last } => {
                return self.follow_log(number, level, last, who);
            }
            DebugToMonitor::Trace { seconds } => return self.trace(number, seconds, who),
            DebugToMonitor::GetCommandLine { process } => self.command_line(process.as_deref()),
            DebugToMonitor::Close { id } => self.close_session(id, who),
            DebugToMonitor::Drain => {
                announce("draining: no more connections are accepted", who);
                self.speak_of_all();
                self.accept_no_more();
                done(self.connections.len())
            }
            DebugToMonitor::Upgrade => {
                announce("an upgrade", who);
                self.speak_of_all();
                let process = self.debug.process_id();
                return self.upgrade_wanted(process.map(|process| Asker { process, number }));
            }
            DebugToMonitor::GetRefusals { whom } => self.refusals_answer(whom.as_deref()),
            DebugToMonitor::GetPenalties => self.penalties_answer(),
            DebugToMonitor::ClearPenalties { address } => {
                self.clear_penalties(address.as_deref(), who)
            }
            DebugToMonitor::SetPenalty { address, seconds } => {
                self.set_penalty(&address, seconds, who)
            }
            // Dealt with before: these are about no client's request.
            DebugToMonitor::Hello { .. }
            | DebugToMonitor::Client
            | DebugToMonitor::Left
            | DebugToMonitor::Log { .. } => return,
        };
        self.tell_debug(number, &answer, &[]);
    }

    fn level_answer(&self) -> MonitorToDebug {
        MonitorToDebug::LogLevel {
            level: super::setup::level_number(self.log_level()),
        }
    }

    fn readiness(&self) -> Readiness {
        let greeted = self
            .nets
            .iter()
            .any(|(_, net)| net.role == Role::Strangers && net.greeted && !net.retired);
        let refusals = self.helper_image.refusals().iter();
        let keys = self.generation.host_keys.iter();
        Readiness {
            ready: greeted && !self.stopping,
            draining: self.stopping,
            pid: std::process::id(),
            started_s: self.started_s,
            helper_mode: self.helper_image.mode().to_string().as_str().into(),
            helper_refusals: refusals
                .map(|refusal| {
                    let mode = refusal.mode.to_string();
                    (mode.as_str().into(), refusal.reason.as_str().into())
                })
                .collect(),
            host_keys: keys
                .map(|key| HostKeyFact {
                    name: key.private.public().key_type.name().into(),
                    path: key.path.as_os_str().as_encoded_bytes().into(),
                    persisted: key.persisted,
                })
                .collect(),
            listeners: self.listeners.iter().map(|it| it.address).collect(),
            missing: self.missing.clone(),
            keepers: super::rundir::keepers(&self.generation.options.data_dir),
        }
    }

    fn close_session(&mut self, id: u64, who: &str) -> MonitorToDebug {
        let key = ConnectionKey(id);
        let Some(connection) = self.connections.get(&key) else {
            return done(0);
        };
        announce(
            &format!("connection {id} of {} is ended", connection.place()),
            who,
        );
        self.speak_of_all();
        self.disconnect(key, 11, "ended by the administrator");
        done(1)
    }

    fn refusals_answer(&self, whom: Option<&[u8]>) -> MonitorToDebug {
        let whom = whom.map(String::from_utf8_lossy);
        let refusals = self.refusals.about(whom.as_deref());
        MonitorToDebug::Refusals {
            refusals: refusals
                .map(|record| RefusalFact {
                    at_s: record.at_s,
                    user: record
                        .user
                        .as_ref()
                        .map_or_else(String::new, |name| user_text(name))
                        .as_str()
                        .into(),
                    address: record.address.to_string().as_str().into(),
                    port: record.port,
                    reason: record.reason.into(),
                    advice: advice(record.reason).unwrap_or_default().into(),
                })
                .collect(),
        }
    }

    fn penalties_answer(&mut self) -> MonitorToDebug {
        let now = Instant::now();
        let list = self.penalties.list(now).into_iter();
        MonitorToDebug::Penalties {
            // As many as a frame holds, the next to be asked for when these are gone.
            penalties: list
                .take(REPORTS_PER_FRAME * 4)
                .map(|(address, penalty)| PenaltyFact {
                    address: address.to_string().as_str().into(),
                    offence: penalty.offence.name().into(),
                    active: penalty.active,
                    left_s: penalty.until.saturating_duration_since(now).as_secs(),
                })
                .collect(),
        }
    }

    fn clear_penalties(&mut self, address: Option<&[u8]>, who: &str) -> MonitorToDebug {
        let parsed = match address.map(|text| String::from_utf8_lossy(text).parse()) {
            None => None,
            Some(Ok(address)) => Some(address),
            Some(Err(_)) => {
                return MonitorToDebug::Invalid {
                    what: "that is no address: write one like 192.0.2.1 or 2001:db8::1".into(),
                };
            }
        };
        let block = self.generation.options.per_source_net_block;
        let count = self.penalties.clear(parsed, block);
        let whose = parsed.map_or_else(|| "all".to_owned(), |address| address.to_string());
        announce(&format!("penalties of {whose} are cleared"), who);
        self.speak_of_all();
        done(count)
    }

    fn set_penalty(&mut self, address: &[u8], seconds: u32, who: &str) -> MonitorToDebug {
        let Ok(parsed) = String::from_utf8_lossy(address).parse() else {
            return MonitorToDebug::Invalid {
                what: "that is no address: write one like 192.0.2.1 or 2001:db8::1".into(),
            };
        };
        let options = &self.generation.options;
        let Some(settings) = &options.per_source_penalties else {
            return MonitorToDebug::Invalid {
                what: "PerSourcePenalties is off".into(),
            };
        };
        let time = Duration::from_secs(seconds.into());
        let block = options.per_source_net_block;
        self.penalties
            .set(parsed, block, time, settings, Instant::now());
        announce(&format!("{parsed} is refused for {seconds} seconds"), who);
        self.speak_of_all();
        done(1)
    }

    /// Asks all `net`s about their connections, for an answer that waits for them.
    fn gather(&mut self, number: u32, wanted: Report) {
        if self.gathering.waiting.len() >= DEBUG_QUESTIONS_MAX {
            let what = "too many ask at once; try again".into();
            return self.tell_debug(number, &MonitorToDebug::Invalid { what }, &[]);
        }
        self.gathering.waiting.push((number, wanted));
        if self.gathering.timer.is_some() {
            return;
        }
        let nets: Vec<_> = self
            .nets
            .iter()
            .filter(|(_, net)| net.greeted && !net.connections.is_empty())
            .map(|(id, _)| id)
            .collect();
        for id in &nets {
            self.nets.send(&self.poller, *id, 0, &ToNet::Report, &[]);
        }
        self.gathering.owing = nets.into_iter().collect();
        if self.gathering.owing.is_empty() {
            return self.gathered();
        }
        let time = Duration::from_millis(REPORT_TIME_MS);
        self.gathering.timer = Some(self.timers.after(time, Deadline::Gathered));
    }

    /// A `net` tells about some of its connections.
    pub(super) fn reported(&mut self, id: NetId, reports: Vec<ConnectionReport>, last: bool) {
        if !self.gathering.owing.contains(&id) {
            // Late, for an answer that did without.
            return;
        }
        for report in reports {
            let key = self
                .nets
                .get(id)
                .and_then(|net| net.connections.get(&report.number).copied());
            // Those that ended meanwhile are gone.
            if let Some(connection) = key.and_then(|key| self.connections.get_mut(&key)) {
                connection.report = report;
            }
        }
        if last {
            self.gathering.owing.remove(&id);
            if self.gathering.owing.is_empty() {
                self.gathered();
            }
        }
    }

    /// All have answered, or the time is over.
    pub(super) fn gathered(&mut self) {
        self.timers.cancel(self.gathering.timer.take());
        // One that is late reports to nobody, and is not blamed: it stays among those that owe.
        for (number, wanted) in std::mem::take(&mut self.gathering.waiting) {
            let answer = match wanted {
                Report::Sessions { after } => self.sessions_answer(after),
                Report::Metrics => {
                    let (samples, histograms) = self.metrics();
                    MonitorToDebug::Metrics {
                        samples,
                        histograms,
                    }
                }
            };
            self.tell_debug(number, &answer, &[]);
        }
    }

    fn sessions_answer(&self, after: u64) -> MonitorToDebug {
        let behind = (Bound::Excluded(ConnectionKey(after)), Bound::Unbounded);
        let mut rest = self.connections.range(behind);
        let sessions = rest
            .by_ref()
            .take(REPORTS_PER_FRAME)
            .map(|(key, connection)| session_fact(*key, connection))
            .collect();
        MonitorToDebug::Sessions {
            sessions,
            more: rest.next().is_some(),
        }
    }
}

fn session_fact(key: ConnectionKey, connection: &Connection) -> SessionFact {
    let report = &connection.report;
    let (phase, user) = match &connection.phase {
        Phase::Greeting => ("greeting", None),
        Phase::Authenticating(attempt) => ("authenticating", Some(attempt.user.as_slice())),
        Phase::HandingOver(it) => ("authenticating", Some(it.login.name.as_slice())),
        Phase::Live(live) => ("user", Some(live.login.name.as_slice())),
        Phase::Ending { user, .. } => ("ending", user.as_ref().map(|it| it.name.as_slice())),
    };
    let programs = match &connection.phase {
        Phase::Live(live) => live.sessions.len(),
        _ => 0,
    };
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .saturating_sub(connection.age());
    SessionFact {
        id: key.0,
        user: user.map_or_else(String::new, user_text).as_str().into(),
        phase: phase.into(),
        address: host_text(connection.peer()).as_str().into(),
        port: connection.peer().port(),
        since_s: since.as_secs(),
        channels: report.channels,
        programs: u32::try_from(programs).unwrap_or(u32::MAX),
        received: report.received,
        sent: report.sent,
        helper_pid: connection.helper.as_ref().map_or(0, |helper| helper.pid),
        algorithms: peer_text(&report.algorithms).as_str().into(),
        client: peer_text(&connection.client_version).as_str().into(),
    }
}

fn done(count: usize) -> MonitorToDebug {
    MonitorToDebug::Done {
        count: u32::try_from(count).unwrap_or(u32::MAX),
    }
}

/// What was done by whose order is logged whatever the level is.
fn announce(what: &str, who: &str) {
    logging::set_level(log::LevelFilter::Info);
    log::info!("debug service: {what} by order of {who}");
}
