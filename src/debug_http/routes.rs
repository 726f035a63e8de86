//! What is answered: each path, and whom it asks.

use std::io::Read;

use tiny_http::{Header, Method, Request, Response, Server};

use super::head::CLIENT;
use super::questions::Monitor;
use crate::debug_frames::{DebugToMonitor, MonitorToDebug};
use crate::limits::DEBUG_BODY_MAX_BYTES;

const TEXT: &str = "text/plain; charset=utf-8";

/// An answer that is complete.
struct Answer {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
}

impl Answer {
    fn text(status: u16, text: impl Into<String>) -> Self {
        let mut body = text.into().into_bytes();
        body.push(b'\n');
        Self {
            status,
            kind: TEXT,
            body,
        }
    }
}

/// Answers requests, one after the other.
pub(super) fn work(server: &Server, monitor: &Monitor) {
    while let Ok(mut request) = server.recv() {
        let Answer { status, kind, body } = answer(&mut request, monitor);
        let mut response = Response::from_data(body)
            .with_status_code(status)
            .with_chunked_threshold(usize::MAX);
        if let Ok(header) = Header::from_bytes("Content-Type", kind) {
            response.add_header(header);
        }
        // Its reader notices when it cannot be written.
        let _ = request.respond(response);
    }
}

fn answer(request: &mut Request, monitor: &Monitor) -> Answer {
    let Some(number) = client(request) else {
        return Answer::text(400, "no client");
    };
    let target = request.url().to_owned();
    let (path, _query) = target.split_once('?').unwrap_or((&target, ""));
    let reads = matches!(request.method(), Method::Get | Method::Head);
    match (path, reads) {
        ("/", true) => Answer::text(200, INDEX),
        ("/healthz", true) => match monitor.ask(number, &DebugToMonitor::GetLogLevel) {
            Some(_) => Answer::text(200, "ok"),
            None => Answer::text(503, "the monitor does not answer"),
        },
        ("/log-level", true) => log_level(monitor, number, &DebugToMonitor::GetLogLevel),
        ("/log-level", false) if *request.method() == Method::Put => match wanted_level(request) {
            Some(level) => log_level(monitor, number, &DebugToMonitor::SetLogLevel { level }),
            None => Answer::text(
                422,
                "no such level: write TRACE, DEBUG, INFO, WARN or ERROR",
            ),
        },
        ("/" | "/healthz" | "/log-level", _) => Answer::text(405, "not with this method"),
        _ => Answer::text(404, "nothing is here; GET / lists what is"),
    }
}

const INDEX: &str = "\
/healthz      whether the server answers
/log-level    GET: the level; PUT with TRACE, DEBUG, INFO, WARN or ERROR: another one";

/// For whom the fence passed this on.
fn client(request: &Request) -> Option<u32> {
    let headers = request.headers().iter();
    let named = headers.filter(|header| header.field.equiv(CLIENT)).last()?;
    named.value.as_str().parse().ok()
}

fn wanted_level(request: &mut Request) -> Option<u8> {
    let mut body = String::new();
    let limit = u64::try_from(DEBUG_BODY_MAX_BYTES).unwrap_or(u64::MAX);
    request
        .as_reader()
        .take(limit)
        .read_to_string(&mut body)
        .ok()?;
    let level: log::Level = body.trim().parse().ok()?;
    Some(level as u8)
}

fn log_level(monitor: &Monitor, number: u32, frame: &DebugToMonitor) -> Answer {
    match monitor.ask(number, frame) {
        Some(MonitorToDebug::LogLevel { level }) => {
            Answer::text(200, crate::logging::level_filter(level).as_str())
        }
        _ => unanswered(),
    }
}

fn unanswered() -> Answer {
    Answer::text(503, "the monitor does not answer; try again")
}
