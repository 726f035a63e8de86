//! Copies of log lines for whoever follows the log, and the last lines for whoever comes late.
//!
//! A stream has a level of its own, also below the one at which is logged: then the lines go to it
//! alone. Each is a socket of records that is never waited for: what finds it full is counted, and the
//! next record says how many were lost. While nobody follows, a line costs one look at a number.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use agent_helper::wire::Wire;
use log::{Level, LevelFilter, Record};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};

use super::{LOGIN, level_filter, one_line};
use crate::debug_frames::LogLine;
use crate::limits::{LOG_KEPT_BYTES, LOG_STREAMS_MAX};

static STREAMS: Mutex<Streams> = Mutex::new(Streams {
    live: Vec::new(),
    kept: VecDeque::new(),
    kept_bytes: 0,
    keeps: false,
});
/// The highest level of any stream, by its number; 0: there is none.
static LEVEL: AtomicU8 = AtomicU8::new(0);

struct Streams {
    live: Vec<Stream>,
    /// The last lines that were logged.
    kept: VecDeque<LogLine>,
    kept_bytes: usize,
    keeps: bool,
}

struct Stream {
    /// Whose it is.
    number: u32,
    level: LevelFilter,
    socket: OwnedFd,
    /// Lines that it lost since the last one.
    dropped: u64,
}

fn streams() -> MutexGuard<'static, Streams> {
    STREAMS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The level up to which somebody follows.
pub fn level() -> LevelFilter {
    level_filter(LEVEL.load(Ordering::Relaxed))
}

/// From here on the last lines are kept, or no longer.
pub fn keep(keeps: bool) {
    let mut streams = streams();
    streams.keeps = keeps;
    if !keeps {
        streams.kept = VecDeque::new();
        streams.kept_bytes = 0;
    }
}

/// Follows the log for the client `number`; gives the reader's end. `None`: others do, as many as may.
pub fn follow(number: u32, level: LevelFilter) -> io::Result<Option<OwnedFd>> {
    let mut streams = streams();
    if streams.live.len() >= LOG_STREAMS_MAX {
        return Ok(None);
    }
    let (socket, reader) = pair()?;
    streams.live.push(Stream {
        number,
        level,
        socket,
        dropped: 0,
    });
    streams.settle();
    Ok(Some(reader))
}

/// The last lines, up to `level`; gives the reader's end.
pub fn last(level: LevelFilter) -> io::Result<OwnedFd> {
    let (socket, reader) = pair()?;
    let mut stream = Stream {
        number: 0,
        level,
        socket,
        dropped: 0,
    };
    for line in &streams().kept {
        stream.offer(line);
    }
    Ok(reader)
}

/// The client is gone; `None`: all are.
pub fn end(number: Option<u32>) {
    let mut streams = streams();
    let before = streams.live.len();
    let goes = |stream: &Stream| number.is_none_or(|number| stream.number == number);
    streams.live.retain(|stream| !goes(stream));
    if streams.live.len() < before {
        streams.settle();
    }
}

/// A line; `logged`: it went to the log too.
pub(super) fn line(record: &Record<'_>, logged: bool) {
    let is_followed = record.level() <= level();
    if !is_followed && !logged {
        return;
    }
    let mut streams = streams();
    if !is_followed && !streams.keeps {
        return;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let line = LogLine {
        at_us: now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(0)),
        level: record.level() as u8,
        login: record.target() == LOGIN,
        dropped: 0,
        message: one_line(record).into_bytes().into(),
    };
    for stream in &mut streams.live {
        stream.offer(&line);
    }
    if logged && streams.keeps {
        streams.remember(line);
    }
}

/// Lines that a process did not get out are lost to whoever follows.
pub fn lost(level: Level, count: u64) {
    if level <= self::level() {
        let mut streams = streams();
        let concerned = streams.live.iter_mut();
        for stream in concerned.filter(|stream| level <= stream.level) {
            stream.dropped = stream.dropped.saturating_add(count);
        }
    }
}

impl Streams {
    fn settle(&self) {
        let highest = self.live.iter().map(|stream| stream.level).max();
        LEVEL.store(highest.unwrap_or(LevelFilter::Off) as u8, Ordering::Relaxed);
    }

    fn remember(&mut self, line: LogLine) {
        self.kept_bytes += weight(&line);
        self.kept.push_back(line);
        while self.kept_bytes > LOG_KEPT_BYTES
            && let Some(oldest) = self.kept.pop_front()
        {
            self.kept_bytes -= weight(&oldest);
        }
    }
}

fn weight(line: &LogLine) -> usize {
    size_of::<LogLine>() + line.message.len()
}

impl Stream {
    fn offer(&mut self, line: &LogLine) {
        if self.level < level_filter(line.level) {
            return;
        }
        let record = LogLine {
            dropped: self.dropped,
            ..line.clone()
        }
        .to_wire();
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // A reader that is gone will be said to be gone.
        match send(&self.socket, &record, flags) {
            Ok(_) => self.dropped = 0,
            Err(_) => self.dropped = self.dropped.saturating_add(1),
        }
    }
}

/// A socket of records that is never waited for, and its reader's end.
///
/// # Errors
///
/// Those of socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn received(reader: &OwnedFd) -> Option<LogLine> {
        let mut record = [0; 4096];
        let len = rustix::io::read(reader, &mut record).ok()?;
        LogLine::from_wire(record.get(..len)?).ok()
    }

    fn say(level: Level, text: &str, logged: bool) {
        let arguments = format_args!("{text}");
        let record = Record::builder().level(level).args(arguments).build();
        line(&record, logged);
    }

    // One test: there is one set of streams in a process.
    #[test]
    fn each_stream_has_its_level_its_bound_and_its_end() {
        keep(true);
        let all = follow(1, LevelFilter::Trace).unwrap().unwrap();
        let few = follow(2, LevelFilter::Warn).unwrap().unwrap();
        assert_eq!(level(), LevelFilter::Trace);
        say(Level::Debug, "quiet", false);
        say(Level::Warn, "loud\n", true);
        assert_eq!(received(&all).unwrap().message.0, b"quiet");
        assert_eq!(received(&all).unwrap().message.0, b"loud\\012");
        assert_eq!(received(&few).unwrap().message.0, b"loud\\012");
        assert!(received(&few).is_none());

        for _ in 0..100_000 {
            say(Level::Debug, "flood", false);
        }
        let mut got = 0;
        while received(&all).is_some() {
            got += 1;
        }
        say(Level::Debug, "after", false);
        assert_eq!(received(&all).unwrap().dropped, 100_000 - got);
        lost(Level::Debug, 7);
        say(Level::Debug, "after", false);
        assert_eq!(received(&all).unwrap().dropped, 7);

        let last = last(LevelFilter::Info).unwrap();
        assert_eq!(received(&last).unwrap().message.0, b"loud\\012");
        assert!(received(&last).is_none(), "what was not logged is not kept");

        for number in 3.. {
            match follow(number, LevelFilter::Error).unwrap() {
                Some(_) => assert!(usize::try_from(number).unwrap() <= LOG_STREAMS_MAX),
                None => break,
            }
        }
        end(Some(1));
        assert_eq!(level(), LevelFilter::Warn);
        end(None);
        assert_eq!(level(), LevelFilter::Off);
        for _ in 0..10_000 {
            say(Level::Info, "kept", true);
        }
        assert!(streams().kept_bytes <= LOG_KEPT_BYTES);
        keep(false);
    }
}
