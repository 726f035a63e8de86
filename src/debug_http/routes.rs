//! What is answered: each path, and whom it asks.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use tiny_http::{Header, Method, Request, Response, Server};

use super::head::{CLIENT, PPROF, SYMBOL};
use super::questions::Monitor;
use super::streams::{self, Stream};
use super::views::{self, Form};
use crate::debug_frames::{DebugToMonitor, MonitorToDebug, SessionFact};
use crate::limits::{
    DEBUG_ANSWER_TIME_MS, DEBUG_BODY_MAX_BYTES, PROBE_TIME_MS, PROFILE_MAX_BYTES,
    SESSIONS_SHOWN_MAX,
};
use crate::metrics::{self, Format};
use crate::profile::Kind;

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";
const NO_LEVEL: &str = "no such level: write TRACE, DEBUG, INFO, WARN or ERROR";

/// What GET / says.
const INDEX: &str = "\
GET  /healthz               whether the server answers
GET  /readyz                whether it accepts connections, and what it works with
GET  /log-level             the level at which is logged
PUT  /log-level             TRACE, DEBUG, INFO, WARN or ERROR: log at that level
GET  /log?level=LEVEL&format=text|json&follow=yes|no
                            log lines as they come, at a level of their own; or the last ones
GET  /debug/pprof/profile?seconds=N&process=WHICH&hz=N
                            where CPU time goes; of monitor, net or a pid
GET  /debug/pprof/mutex     waiting for locks, over seconds=N
GET  /debug/pprof/block     waiting for locks and answers, over seconds=N
GET  /debug/pprof/heap      what is in use of the heap
GET  /debug/pprof/allocs    what was allocated
GET  /debug/pprof/goroutine where the threads are (also as threads)
GET  /debug/pprof/threadcreate
                            who made threads
GET  /debug/pprof/trace     what connections go through, over seconds=N, for chrome://tracing
GET  /debug/pprof/cmdline   the command line of a process
GET  /debug/pprof/symbol    no names are known here (also POST)
GET  /metrics               counters, for Prometheus
GET  /sessions              live connections
POST /sessions/ID/close     end one
POST /drain                 accept no more, end with the last connection
POST /upgrade               have the program that the server's file holds now take over
GET  /refusals?for=WHOM     the last refusals, of a user or an address
GET  /penalties             penalised addresses
POST /penalties/clear?address=ADDRESS
                            forget a penalty, or all
POST /penalties/set?address=ADDRESS&seconds=N
                            refuse an address for that long; 0: let it in";

/// An answer that is complete.
struct Answer {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
    /// When it may be tried again.
    retry_s: Option<u32>,
}

impl Answer {
    fn new(status: u16, kind: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            kind,
            body: body.into(),
            retry_s: None,
        }
    }

    fn text(status: u16, text: &str) -> Self {
        Self::new(status, TEXT, format!("{text}\n"))
    }

    fn in_form(form: Form, body: String) -> Self {
        let kind = match form {
            Form::Json => JSON,
            Form::Table => TEXT,
        };
        Self::new(200, kind, body)
    }
}

/// Answers requests, one after the other.
pub(super) fn work(server: &Server, monitor: &Monitor) {
    while let Ok(mut request) = server.recv() {
        let Answer {
            status,
            kind,
            body,
            retry_s,
        } = answer(&mut request, monitor);
        let mut response = Response::from_data(body)
            .with_status_code(status)
            .with_chunked_threshold(usize::MAX);
        let retry = retry_s.map(|seconds| Header::from_bytes("Retry-After", seconds.to_string()));
        if let Some(Ok(header)) = retry {
            response.add_header(header);
        }
        if let Ok(header) = Header::from_bytes("Content-Type", kind) {
            response.add_header(header);
        }
        // Its reader notices when it cannot be written.
        let _ = request.respond(response);
    }
}

/// One request, on behalf of a client.
struct Asked<'a> {
    monitor: &'a Monitor,
    number: u32,
    path: &'a str,
    query: &'a str,
    accept: String,
    /// Not HEAD.
    wants_body: bool,
}

fn answer(request: &mut Request, monitor: &Monitor) -> Answer {
    let number = field(request, CLIENT).and_then(|number| number.parse().ok());
    let Some(number) = number else {
        return Answer::text(400, "no client");
    };
    let target = request.url().to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let asked = Asked {
        monitor,
        number,
        path,
        query,
        accept: field(request, "Accept").unwrap_or_default(),
        wants_body: *request.method() == Method::Get,
    };
    let answered = match request.method() {
        Method::Get | Method::Head => asked.get(),
        Method::Put if path == "/log-level" => Some(asked.set_level(request)),
        Method::Post => asked.post(),
        _ => None,
    };
    answered.unwrap_or_else(|| {
        if asked.is_known() {
            Answer::text(405, "not with this method; GET / lists what is here")
        } else {
            Answer::text(404, "nothing is here; GET / lists what is")
        }
    })
}

fn field(request: &Request, name: &'static str) -> Option<String> {
    let mut headers = request.headers().iter();
    let found = headers.find(|header| header.field.equiv(name))?;
    Some(found.value.as_str().to_owned())
}

impl Asked<'_> {
    /// Whether another method is answered under this path.
    fn is_known(&self) -> bool {
        INDEX
            .lines()
            .filter_map(|line| line.split_whitespace().nth(1))
            .any(|known| known.split('?').next() == Some(self.path))
            || self.path.starts_with("/sessions/")
    }

    /// A whole number of the query; 0 where it has none.
    fn number(&self, name: &str) -> Result<u32, Answer> {
        let Some(text) = parameter(self.query, name) else {
            return Ok(0);
        };
        let number = String::from_utf8_lossy(&text).parse();
        number.map_err(|_| Answer::text(422, &format!("{name} is a whole number")))
    }

    /// What stands under /debug/pprof/.
    fn pprof(&self, name: &str) -> Option<Answer> {
        let answered = match name {
            "" => Ok(Answer::text(200, INDEX)),
            "cmdline" => Ok(self.command_line()),
            "symbol" => Ok(symbols()),
            "trace" => self.trace(),
            name => self.profile(Kind::named(name)?),
        };
        Some(answered.unwrap_or_else(|refusal| refusal))
    }

    fn command_line(&self) -> Answer {
        let process = parameter(self.query, "process").map(Into::into);
        match self.ask(&DebugToMonitor::GetCommandLine { process }) {
            Some(MonitorToDebug::CommandLine { words }) => Answer::new(200, TEXT, words.0),
            Some(MonitorToDebug::Invalid { what }) => {
                Answer::text(422, &String::from_utf8_lossy(&what))
            }
            _ => unanswered(),
        }
    }

    fn trace(&self) -> Result<Answer, Answer> {
        let seconds = self.number("seconds")?;
        let form = streams::Form::Trace(streams::Trace::default());
        Ok(self.stream(&DebugToMonitor::Trace { seconds }, form))
    }

    /// Follows the log, or shows its last lines.
    fn log(&self) -> Result<Answer, Answer> {
        let text = |name| parameter(self.query, name);
        let level = match text("level") {
            None => 0,
            Some(level) => level_number(&String::from_utf8_lossy(&level))
                .ok_or_else(|| Answer::text(422, NO_LEVEL))?,
        };
        let json = self.accept.starts_with(JSON) || self.accept.starts_with(NDJSON);
        let form = match text("format").as_deref() {
            None if json => streams::Form::LogJson,
            None | Some(b"text") => streams::Form::LogText,
            Some(b"json") => streams::Form::LogJson,
            Some(_) => return Err(Answer::text(422, "format is text or json")),
        };
        let last = match text("follow").as_deref() {
            None | Some(b"yes" | b"1") => false,
            Some(b"no" | b"0") => true,
            Some(_) => return Err(Answer::text(422, "follow is yes or no")),
        };
        Ok(self.stream(&DebugToMonitor::Follow { level, last }, form))
    }

    /// An answer that goes on when its head is out.
    fn stream(&self, frame: &DebugToMonitor, form: streams::Form) -> Answer {
        let kind = form.content_type();
        if !self.wants_body {
            return Answer::new(200, kind, []);
        }
        match self.ask_for_descriptor(frame) {
            Ok((MonitorToDebug::Following { seconds }, Some(records))) => {
                let time = Duration::from_secs(seconds.into());
                self.monitor.hand_over(
                    self.number,
                    Stream {
                        records,
                        form,
                        until: (seconds > 0).then(|| Instant::now() + time),
                    },
                );
                Answer::new(200, kind, [])
            }
            Ok(_) => unanswered(),
            Err(answer) => answer,
        }
    }

    /// Asks for what comes through a descriptor.
    fn ask_for_descriptor(
        &self,
        frame: &DebugToMonitor,
    ) -> Result<(MonitorToDebug, Option<OwnedFd>), Answer> {
        if self.monitor.tell(self.number, frame, &[]).is_err() {
            return Err(unanswered());
        }
        let patience = Duration::from_millis(DEBUG_ANSWER_TIME_MS);
        match self.monitor.next(self.number, patience) {
            Some((MonitorToDebug::Busy { seconds }, _)) => Err(Answer {
                retry_s: Some(seconds),
                ..Answer::text(
                    429,
                    "that is under way already, as often as it may be; try again later",
                )
            }),
            Some((MonitorToDebug::Invalid { what }, _)) => {
                Err(Answer::text(422, &String::from_utf8_lossy(&what)))
            }
            Some((answer, mut descriptors)) => Ok((answer, descriptors.pop())),
            None => Err(unanswered()),
        }
    }

    /// Has a profile taken, and waits for it.
    fn profile(&self, kind: Kind) -> Result<Answer, Answer> {
        let frame = DebugToMonitor::Profile {
            kind: kind.number(),
            seconds: self.number("seconds")?,
            process: parameter(self.query, "process").map(Into::into),
            hz: self.number("hz")?,
        };
        let (_, pipe) = self.ask_for_descriptor(&frame)?;
        let mut profile = Vec::new();
        let most = u64::try_from(PROFILE_MAX_BYTES * 16).unwrap_or(u64::MAX);
        if let Some(pipe) = pipe {
            // Half of one shows as such: its format has a checksum at its end.
            let _ = File::from(pipe).take(most).read_to_end(&mut profile);
        }
        if profile.is_empty() {
            return Err(Answer::text(
                503,
                "the process ended before its profile did; try again",
            ));
        }
        Ok(Answer::new(200, "application/octet-stream", profile))
    }

    fn ask(&self, frame: &DebugToMonitor) -> Option<MonitorToDebug> {
        self.monitor.ask(self.number, frame)
    }

    fn get(&self) -> Option<Answer> {
        let form = Form::accepted(&self.accept);
        Some(match self.path {
            "/" => Answer::text(200, INDEX),
            "/healthz" => match self.ask(&DebugToMonitor::GetLogLevel) {
                Some(_) => Answer::text(200, "ok"),
                None => unanswered(),
            },
            "/log-level" => self.level(&DebugToMonitor::GetLogLevel),
            "/log" => self.log().unwrap_or_else(|refusal| refusal),
            "/readyz" => match self.ask(&DebugToMonitor::GetReadiness) {
                Some(MonitorToDebug::Readiness { readiness }) => {
                    let status = if readiness.ready { 200 } else { 503 };
                    let body = views::readiness(&readiness, form);
                    Answer {
                        status,
                        ..Answer::in_form(form, body)
                    }
                }
                _ => unanswered(),
            },
            "/metrics" => {
                let format = Format::accepted(&self.accept);
                match self.ask(&DebugToMonitor::GetMetrics) {
                    Some(MonitorToDebug::Metrics {
                        samples,
                        histograms,
                    }) => {
                        let text = metrics::render(format, &samples, &histograms);
                        Answer::new(200, format.content_type(), text)
                    }
                    _ => unanswered(),
                }
            }
            "/sessions" => match self.sessions() {
                Some(sessions) => Answer::in_form(form, views::sessions(&sessions, form)),
                None => unanswered(),
            },
            "/refusals" => {
                let whom = parameter(self.query, "for").map(Into::into);
                match self.ask(&DebugToMonitor::GetRefusals { whom }) {
                    Some(MonitorToDebug::Refusals { refusals }) => {
                        Answer::in_form(form, views::refusals(&refusals, form))
                    }
                    _ => unanswered(),
                }
            }
            "/penalties" => match self.ask(&DebugToMonitor::GetPenalties) {
                Some(MonitorToDebug::Penalties { penalties }) => {
                    Answer::in_form(form, views::penalties(&penalties, form))
                }
                _ => unanswered(),
            },
            path => return self.pprof(path.strip_prefix(PPROF)?),
        })
    }

    fn post(&self) -> Option<Answer> {
        let id = self.path.strip_prefix("/sessions/");
        if let Some(id) = id.and_then(|rest| rest.strip_suffix("/close")) {
            let Ok(id) = id.parse() else {
                return Some(Answer::text(
                    400,
                    "an id is a number: GET /sessions lists them",
                ));
            };
            let nothing = "no such connection: the list of sessions has their ids";
            return Some(self.done(&DebugToMonitor::Close { id }, Some(nothing)));
        }
        match self.path {
            SYMBOL => Some(symbols()),
            "/drain" => Some(self.done(&DebugToMonitor::Drain, None)),
            "/upgrade" => Some(self.upgrade()),
            "/penalties/clear" => {
                let address = parameter(self.query, "address").map(Into::into);
                let frame = DebugToMonitor::ClearPenalties { address };
                Some(self.done(&frame, None))
            }
            "/penalties/set" => {
                let address = parameter(self.query, "address")?;
                let seconds = parameter(self.query, "seconds")?;
                let seconds = String::from_utf8_lossy(&seconds).parse().ok();
                let Some(seconds) = seconds else {
                    return Some(Answer::text(422, "seconds is a whole number"));
                };
                let address = address.into();
                let frame = DebugToMonitor::SetPenalty { address, seconds };
                Some(self.done(&frame, None))
            }
            _ => None,
        }
    }

    /// Has something done; `nothing`: what to say where it concerned nobody.
    fn done(&self, frame: &DebugToMonitor, nothing: Option<&str>) -> Answer {
        match (self.ask(frame), nothing) {
            (Some(MonitorToDebug::Done { count: 0 }), Some(nothing)) => Answer::text(404, nothing),
            (Some(MonitorToDebug::Done { count }), _) => Answer::text(200, &count.to_string()),
            (Some(MonitorToDebug::Invalid { what }), _) => {
                Answer::text(422, &String::from_utf8_lossy(&what))
            }
            _ => unanswered(),
        }
    }

    /// Waits for the proof of the new program and then for the end of the link, which is the end of
    /// the program that this process belongs to.
    fn upgrade(&self) -> Answer {
        let (proof, exec) = (PROBE_TIME_MS + DEBUG_ANSWER_TIME_MS, DEBUG_ANSWER_TIME_MS);
        let told = self
            .monitor
            .tell(self.number, &DebugToMonitor::Upgrade, &[]);
        let mut answer = told
            .ok()
            .and_then(|()| self.monitor.next(self.number, Duration::from_millis(proof)));
        let mut new = String::new();
        if let Some((MonitorToDebug::Upgrading { what }, _)) = &answer {
            new = String::from_utf8_lossy(what).into_owned();
            answer = self.monitor.next(self.number, Duration::from_millis(exec));
        }
        match answer {
            Some((MonitorToDebug::Invalid { what }, _)) => {
                Answer::text(409, &String::from_utf8_lossy(&what))
            }
            None if !new.is_empty() && self.monitor.is_over() => Answer::text(200, &new),
            _ => unanswered(),
        }
    }

    /// All of them, a bounded number at a time.
    fn sessions(&self) -> Option<Vec<SessionFact>> {
        let mut all: Vec<SessionFact> = Vec::new();
        loop {
            let after = all.last().map_or(0, |last| last.id);
            match self.ask(&DebugToMonitor::GetSessions { after })? {
                MonitorToDebug::Sessions { sessions, more } => {
                    all.extend(sessions);
                    if !more || all.len() >= SESSIONS_SHOWN_MAX {
                        return Some(all);
                    }
                }
                _ => return None,
            }
        }
    }

    fn set_level(&self, request: &mut Request) -> Answer {
        match wanted_level(request) {
            Some(level) => self.level(&DebugToMonitor::SetLogLevel { level }),
            None => Answer::text(422, NO_LEVEL),
        }
    }

    fn level(&self, frame: &DebugToMonitor) -> Answer {
        match self.ask(frame) {
            Some(MonitorToDebug::LogLevel { level }) => {
                Answer::text(200, crate::logging::level_filter(level).as_str())
            }
            _ => unanswered(),
        }
    }
}

fn wanted_level(request: &mut Request) -> Option<u8> {
    let mut body = String::new();
    let limit = u64::try_from(DEBUG_BODY_MAX_BYTES).unwrap_or(u64::MAX);
    request
        .as_reader()
        .take(limit)
        .read_to_string(&mut body)
        .ok()?;
    level_number(&body)
}

fn level_number(text: &str) -> Option<u8> {
    let level: log::Level = text.trim().parse().ok()?;
    Some(level as u8)
}

/// As Go's handler says that there are no names: the file is stripped, and this process has it not.
fn symbols() -> Answer {
    Answer::text(200, "num_symbols: 0")
}

/// The value of a parameter of the query, its %-escapes undone; an empty one is none.
fn parameter(query: &str, name: &str) -> Option<Vec<u8>> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs
        .into_iter()
        .find(|(found, _)| *found == name)
        .map(|(_, value)| value.as_bytes())
        .filter(|value| !value.is_empty())?;
    let mut decoded = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(escaped) => {
                decoded.push(escaped);
                rest = &after[2..];
            }
            None => {
                decoded.push(byte);
                rest = after;
            }
        }
    }
    Some(decoded)
}

fn unanswered() -> Answer {
    Answer::text(503, "the monitor does not answer; try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_and_decoded() {
        assert_eq!(
            parameter("a=1&for=al%20b%C3%A9", "for"),
            Some("al bé".as_bytes().to_vec())
        );
        assert_eq!(parameter("for=100%", "for"), Some(b"100%".to_vec()));
        assert_eq!(parameter("for=", "for"), None);
        assert_eq!(parameter("", "for"), None);
    }
}
