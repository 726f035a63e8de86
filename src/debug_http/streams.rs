//! What goes on for a while: log lines and traces, from the monitor's socket to the client as they
//! come. tiny_http answers with the head; the rest goes past it, in a thread of its own, so that
//! streams keep nobody waiting.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use agent_helper::wire::Wire;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::json::{Object, string};
use super::tables::utc;
use crate::debug_frames::{LogLine, TraceEvent};
use crate::limits::{DEBUG_WRITE_TIME_MS, TRACE_OPEN_MAX};
use crate::logging::level_filter;

/// A stream that is about to begin, or under way.
pub(super) struct Stream {
    /// Where its records come from.
    pub records: OwnedFd,
    pub form: Form,
    /// When it ends by itself.
    pub until: Option<Instant>,
}

/// How records are shown.
pub(super) enum Form {
    LogText,
    LogJson,
    Trace(Trace),
}

impl Stream {
    /// Copies until the time is over, or an end is gone.
    pub(super) fn run(mut self, client: &UnixStream) {
        let mut out = self.form.begin();
        loop {
            if !out.is_empty() && !self.send(client, &out) {
                return;
            }
            out.clear();
            if self.until.is_some_and(|until| until <= Instant::now()) {
                break;
            }
            let Some(came) = self.wait(client) else {
                return;
            };
            if came && !self.take(&mut out) {
                break;
            }
        }
        self.form.end(&mut out);
        self.send(client, &out);
    }

    /// Waits for records; gives whether there are any. `None`: the client is gone.
    fn wait(&self, client: &UnixStream) -> Option<bool> {
        let left = self
            .until
            .map(|until| until.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        let mut set = [
            PollFd::new(&self.records, PollFlags::IN),
            PollFd::new(client, PollFlags::empty()),
        ];
        // An interrupted wait is one that brought nothing.
        let _ = poll(&mut set, timeout.as_ref());
        let [records, client] = set.map(|entry| entry.revents());
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        (!client.intersects(gone)).then_some(!records.is_empty())
    }

    /// Shows all records that are there; false: there will be no more.
    fn take(&mut self, out: &mut Vec<u8>) -> bool {
        const ENOUGH_BYTES: usize = 64 * 1024;
        let mut record = [0; 4096];
        while out.len() < ENOUGH_BYTES {
            match rustix::io::read(&self.records, &mut record) {
                Ok(0) => return false,
                Ok(len) => self.form.show(record.get(..len).unwrap_or_default(), out),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
        true
    }

    /// Sends all of it to a client that may take its time: what comes meanwhile waits in the socket,
    /// or is counted as lost. False: the client is gone, or does not read although all is over.
    fn send(&self, mut client: &UnixStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match client.write(bytes) {
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.room(client) {
                        return false;
                    }
                }
                Err(_) => return false,
            }
        }
        true
    }

    fn room(&self, client: &UnixStream) -> bool {
        // One that has no end is as patient as its reader.
        let patience = self.until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            left + Duration::from_millis(DEBUG_WRITE_TIME_MS)
        });
        let timeout = patience.and_then(|left| Timespec::try_from(left).ok());
        let mut set = [PollFd::new(client, PollFlags::OUT)];
        match poll(&mut set, timeout.as_ref()) {
            Ok(0) => false,
            Ok(_) => set[0].revents().contains(PollFlags::OUT),
            Err(errno) => errno == rustix::io::Errno::INTR,
        }
    }
}

impl Form {
    pub(super) fn content_type(&self) -> &'static str {
        match self {
            Self::LogText => "text/plain; charset=utf-8",
            Self::LogJson => "application/x-ndjson",
            Self::Trace(_) => "application/json",
        }
    }

    fn begin(&self) -> Vec<u8> {
        match self {
            Self::Trace(_) => b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n".to_vec(),
            Self::LogText | Self::LogJson => Vec::new(),
        }
    }

    fn show(&mut self, record: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Trace(trace) => {
                if let Ok(event) = TraceEvent::from_wire(record) {
                    trace.show(&event, out);
                }
            }
            Self::LogText | Self::LogJson => {
                if let Ok(line) = LogLine::from_wire(record) {
                    let text = match self {
                        Self::LogJson => json(&line),
                        _ => text(&line),
                    };
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if let Self::Trace(trace) = self {
            trace.end(out);
        }
    }
}

/// `2026-11-22T02:49:00.123456Z`
fn time(at_us: u64) -> String {
    let (seconds, us) = (at_us / 1_000_000, at_us % 1_000_000);
    let mut text = utc(i64::try_from(seconds).unwrap_or(0));
    text.pop();
    format!("{text}.{us:06}Z")
}

fn program(line: &LogLine) -> &'static str {
    if line.login {
        crate::logging::LOGIN
    } else {
        "agent"
    }
}

fn gap(line: &LogLine) -> String {
    format!(
        "{} lines are missing here: they came faster than they were read",
        line.dropped
    )
}

fn text(line: &LogLine) -> String {
    let time = time(line.at_us);
    let mut text = String::new();
    if line.dropped > 0 {
        text.push_str(&format!("{time} WARN  agent: {}\n", gap(line)));
    }
    text.push_str(&format!(
        "{time} {:5} {}: {}\n",
        level_filter(line.level).as_str(),
        program(line),
        String::from_utf8_lossy(&line.message)
    ));
    text
}

fn json(line: &LogLine) -> String {
    let time = time(line.at_us);
    let object = |level: &str, program: &str, message: &[u8]| {
        Object::new()
            .text("time", time.as_bytes())
            .text("level", level.as_bytes())
            .text("program", program.as_bytes())
            .text("message", message)
    };
    let mut text = String::new();
    if line.dropped > 0 {
        let gap = object("WARN", "agent", gap(line).as_bytes());
        text.push_str(&gap.number("dropped", line.dropped).end());
        text.push('\n');
    }
    let level = level_filter(line.level).as_str();
    text.push_str(&object(level, program(line), &line.message).end());
    text.push('\n');
    text
}

/// A trace in Chrome's format: each connection is a thread, its phases follow each other; sessions and
/// other parts of it may overlap, and have lines of their own.
///
/// Source: Trace Event Format, Google, of 2016.
#[derive(Default)]
pub(super) struct Trace {
    begun: bool,
    last_us: u64,
    /// What has begun and not ended, by connection and part, with its name.
    open: BTreeMap<(u64, Option<Vec<u8>>), Vec<u8>>,
}

impl Trace {
    fn show(&mut self, event: &TraceEvent, out: &mut Vec<u8>) {
        self.last_us = self.last_us.max(event.at_us);
        if event.dropped > 0 {
            let gap = format!("{} events are missing here", event.dropped);
            let instant = Object::new()
                .text("ph", b"i")
                .text("s", b"g")
                .number("ts", event.at_us)
                .number("pid", 1)
                .number("tid", 0)
                .text("name", gap.as_bytes());
            self.put(instant, out);
        }
        let part = event.part.as_ref().map(|part| part.0.clone());
        let place = (event.connection, part);
        if let Some(name) = self.open.remove(&place) {
            let end = span(false, event.at_us, &place, &name);
            self.put(end, out);
        } else if place.1.is_none() && !event.name.is_empty() {
            let title = Object::new().text("name", &event.detail).end();
            let named = Object::new()
                .text("ph", b"M")
                .number("pid", 1)
                .number("tid", event.connection)
                .text("name", b"thread_name")
                .value("args", &title);
            self.put(named, out);
        }
        if event.name.is_empty() {
            return;
        }
        let detail = Object::new().text("detail", &event.detail).end();
        let begin = span(true, event.at_us, &place, &event.name).value("args", &detail);
        self.put(begin, out);
        if self.open.len() < TRACE_OPEN_MAX {
            self.open.insert(place, event.name.0.clone());
        }
    }

    fn put(&mut self, object: Object, out: &mut Vec<u8>) {
        if self.begun {
            out.extend_from_slice(b",\n");
        }
        self.begun = true;
        out.extend_from_slice(object.end().as_bytes());
    }

    /// What goes on beyond the trace ends with it, for whoever shows it.
    fn end(&mut self, out: &mut Vec<u8>) {
        for (place, name) in std::mem::take(&mut self.open) {
            self.put(span(false, self.last_us, &place, &name), out);
        }
        out.extend_from_slice(b"\n]}\n");
    }
}

fn span(begins: bool, at_us: u64, place: &(u64, Option<Vec<u8>>), name: &[u8]) -> Object {
    let (connection, part) = place;
    let phase = match (part, begins) {
        (None, true) => "B",
        (None, false) => "E",
        (Some(_), true) => "b",
        (Some(_), false) => "e",
    };
    let object = Object::new()
        .text("ph", phase.as_bytes())
        .number("ts", at_us)
        .number("pid", 1)
        .number("tid", *connection)
        .text("cat", b"ssh")
        .text("name", name);
    match part {
        Some(part) => {
            let id = format!("{connection} {}", String::from_utf8_lossy(part));
            object.value("id", &string(id.as_bytes()))
        }
        None => object,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(dropped: u64) -> LogLine {
        LogLine {
            at_us: 1_795_315_740_000_042,
            level: 4,
            login: false,
            dropped,
            message: "a \"b\"".into(),
        }
    }

    #[test]
    fn lines_are_for_people_or_programs() {
        assert_eq!(
            text(&line(0)),
            "2026-11-22T02:49:00.000042Z DEBUG agent: a \"b\"\n"
        );
        assert_eq!(text(&line(3)).lines().count(), 2);
        let json = json(&line(3));
        let lines: Vec<&str> = json.lines().collect();
        assert!(lines[0].contains("\"dropped\":3"), "{json}");
        assert_eq!(
            lines[1],
            "{\"time\":\"2026-11-22T02:49:00.000042Z\",\"level\":\"DEBUG\",\"program\":\"agent\",\
             \"message\":\"a \\\"b\\\"\"}"
        );
    }

    #[test]
    fn what_begins_ends() {
        let event = |at_us, part: Option<&str>, name: &str| TraceEvent {
            at_us,
            connection: 7,
            part: part.map(Into::into),
            name: name.into(),
            detail: "192.0.2.1".into(),
            dropped: 0,
        };
        let mut form = Form::Trace(Trace::default());
        let mut out = form.begin();
        for event in [
            event(1, None, "one"),
            event(2, Some("s"), "session"),
            event(3, None, "two"),
            event(4, Some("s"), ""),
        ] {
            form.show(&event.to_wire(), &mut out);
        }
        form.end(&mut out);
        let text = String::from_utf8_lossy(&out);
        for (phase, count) in [("B", 2), ("E", 2), ("b", 1), ("e", 1), ("M", 1)] {
            let wanted = format!("{{\"ph\":\"{phase}\"");
            assert_eq!(text.matches(&wanted).count(), count, "{phase} in {text}");
        }
        assert!(text.ends_with("\n]}\n"), "{text}");
    }
}
