//! Log lines of this process: frames to the monitor, bounded in length and number.
//!
//! Only the monitor writes logs. A connection's thread says once which connection it serves and at
//! which level (LogLevel may stand in Match blocks); the lines it logs carry both.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::monitor_link::MonitorLink;
use crate::frames::NetToMonitor;
use crate::limits::{LOG_LINE_MAX_BYTES, LOG_LINES_BURST, LOG_LINES_PER_SECOND};
use crate::logging::level_filter;
use crate::profile::lock;

thread_local! {
    static THREAD: Cell<(u32, LevelFilter)> = const { Cell::new((0, LevelFilter::Trace)) };
}

/// A level for all threads, by its number; [`NONE`]: each has its own.
static FORCED: AtomicU8 = AtomicU8::new(NONE);
const NONE: u8 = u8::MAX;
/// The level for what concerns no connection.
static PROCESS: AtomicU8 = AtomicU8::new(LevelFilter::Info as u8);
/// Lines up to this level are followed by somebody.
static FOLLOWED: AtomicU8 = AtomicU8::new(0);
/// The highest level of any thread so far, by its number.
static HIGHEST: AtomicU8 = AtomicU8::new(0);

/// Sends this process's log lines over `link`, and says where a panic happened.
pub(super) fn install(link: Arc<MonitorLink>) {
    let logger = Logger {
        link,
        logged: Mutex::new(Budget::new(Instant::now())),
        followed: Mutex::new(Budget::new(Instant::now())),
    };
    // Fails only when a logger is there already, which then keeps its place.
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
    std::panic::set_hook(Box::new(|info| {
        // The place only: the message could quote what a peer sent.
        if let Some(place) = info.location() {
            log::error!("fault at {}:{}", place.file(), place.line());
        }
    }));
}

/// From here on the calling thread logs about `connection`, up to `level`.
pub(super) fn set_connection(connection: u32, level: LevelFilter) {
    THREAD.with(|thread| thread.set((connection, level)));
    // Frames cost nothing where nobody asks for them: the process-wide level is the highest of all.
    HIGHEST.fetch_max(number_of(level), Ordering::Relaxed);
    if level > log::max_level() && FORCED.load(Ordering::Relaxed) == NONE {
        log::set_max_level(level);
    }
}

/// From here on this level counts; `forced`: for all threads, whatever theirs are. Lines up to
/// `followed` are wanted too.
pub(super) fn set_process(level: u8, forced: bool, followed: u8) {
    FORCED.store(if forced { level } else { NONE }, Ordering::Relaxed);
    PROCESS.store(level, Ordering::Relaxed);
    FOLLOWED.store(followed, Ordering::Relaxed);
    let highest = if forced {
        level
    } else {
        level.max(HIGHEST.load(Ordering::Relaxed))
    };
    log::set_max_level(level_filter(highest.max(followed)));
}

/// As frames name levels.
fn number_of(level: LevelFilter) -> u8 {
    level.to_level().map_or(0, level_number)
}

/// Up to here the calling thread's lines are for the log.
fn own_level() -> LevelFilter {
    match FORCED.load(Ordering::Relaxed) {
        NONE => match THREAD.with(Cell::get) {
            (0, _) => level_filter(PROCESS.load(Ordering::Relaxed)),
            (_, level) => level,
        },
        forced => level_filter(forced),
    }
}

struct Logger {
    link: Arc<MonitorLink>,
    /// For lines that go to the log.
    logged: Mutex<Budget>,
    /// For those that are only followed: they never take the place of others.
    followed: Mutex<Budget>,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let followed = level_filter(FOLLOWED.load(Ordering::Relaxed));
        own_level().max(followed) >= metadata.level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let budget = if record.level() <= own_level() {
            &self.logged
        } else {
            &self.followed
        };
        let Some(lost) = lock(budget).take(Instant::now()) else {
            return;
        };
        let mut line = Line(String::new());
        if lost > 0 {
            let _ = write!(line, "[{lost} lines were dropped before this one] ");
        }
        // An error only says that the line was cut.
        let _ = line.write_fmt(*record.args());
        let frame = NetToMonitor::Log {
            level: level_number(record.level()),
            message: line.0.into_bytes().into(),
        };
        // A line that finds the queue full is lost, rather than the connection held up.
        let sent = self.link.try_send(THREAD.with(Cell::get).0, &frame);
        if sent.is_err() {
            lock(budget).lost += lost + 1;
        }
    }

    fn flush(&self) {}
}

fn level_number(level: Level) -> u8 {
    match level {
        Level::Error => 1,
        Level::Warn => 2,
        Level::Info => 3,
        Level::Debug => 4,
        Level::Trace => 5,
    }
}

/// A line that stops growing at its bound.
struct Line(String);

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = LOG_LINE_MAX_BYTES.saturating_sub(self.0.len());
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(
            text.get(..text.floor_char_boundary(room))
                .unwrap_or_default(),
        );
        Err(std::fmt::Error)
    }
}

/// How many lines may go out now: a burst, refilled steadily.
struct Budget {
    lines: u32,
    since: Instant,
    /// Lines that did not go out since the last one that did.
    lost: u64,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            lines: LOG_LINES_BURST,
            since: now,
            lost: 0,
        }
    }

    /// Takes a line, if there is one; gives how many were lost before it.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let per_line_ms = 1000 / u64::from(LOG_LINES_PER_SECOND);
        let passed_ms =
            u64::try_from(now.duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        let refill = u32::try_from(passed_ms / per_line_ms).unwrap_or(u32::MAX);
        if refill > 0 {
            self.lines = self.lines.saturating_add(refill).min(LOG_LINES_BURST);
            self.since = now;
        }
        match self.lines.checked_sub(1) {
            Some(left) => {
                self.lines = left;
                Some(std::mem::take(&mut self.lost))
            }
            None => {
                self.lost += 1;
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn lines_are_cut_at_a_character() {
        let mut line = Line(String::new());
        let _ = write!(line, "{}é", "x".repeat(LOG_LINE_MAX_BYTES - 1));
        assert_eq!(line.0.len(), LOG_LINE_MAX_BYTES - 1);
    }

    #[test]
    fn a_burst_is_followed_by_a_steady_rate() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let burst = (0..10 * LOG_LINES_BURST)
            .filter(|_| budget.take(start).is_some())
            .count();
        assert_eq!(u32::try_from(burst), Ok(LOG_LINES_BURST));
        let later = start + Duration::from_secs(1);
        let lost = u64::from(9 * LOG_LINES_BURST);
        assert_eq!(
            budget.take(later),
            Some(lost),
            "it is said how many are missing"
        );
        let refilled = 1
            + (1..10 * LOG_LINES_BURST)
                .filter(|_| budget.take(later).is_some())
                .count();
        assert_eq!(
            u32::try_from(refilled),
            Ok(LOG_LINES_PER_SECOND.min(LOG_LINES_BURST))
        );
    }
}
