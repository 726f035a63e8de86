//! Where log lines go: stderr or syslog, steered by one level.
//!
//! Only the monitor and the command line log; other processes send frames. The lines that tell of
//! logins have the target [`LOGIN`] and OpenSSH's wording under OpenSSH's name, for the tools that
//! read them (fail2ban, logcheck); all others come under our own. RFC 3164 for syslog, since that is
//! what every /dev/log understands.
//! Whoever follows the log over the debug service gets copies from [`streams`].

pub mod streams;

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::config::value::FACILITIES;
use crate::{limits, local_time};

/// Target of lines in OpenSSH's wording.
pub const LOGIN: &str = "sshd";
/// Where syslog listens.
const SYSLOG_SOCKET: &str = "/dev/log";
/// LOG_AUTH of syslog(3).
const DEFAULT_FACILITY: u8 = 4;

/// Where to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    Stderr,
    /// /dev/log with this facility (SyslogFacility's name), stderr while it cannot be reached.
    Syslog {
        facility: String,
    },
}

/// Installs the logger, once. A second call changes the level only.
pub fn init(destination: Destination, level: LevelFilter) {
    let mut builder = env_logger::Builder::new();
    // It lets everything through: what reaches it is decided before, at run time.
    builder.filter_level(LevelFilter::Trace);
    match destination {
        Destination::Stderr if is_journal() => {
            builder.format(|out, record| out.write_all(journal_line(record).as_bytes()));
        }
        Destination::Stderr => {
            builder.format(|out, record| out.write_all(stderr_line(record, now_s()).as_bytes()));
        }
        Destination::Syslog { facility } => {
            let facility = facility_number(&facility);
            builder.format(move |out, record| {
                out.write_all(syslog_line(record, facility, now_s()).as_bytes())
            });
            builder.target(env_logger::Target::Pipe(Box::new(Syslog::new(
                SYSLOG_SOCKET,
            ))));
            return install(&mut builder, level);
        }
    }
    builder.target(env_logger::Target::Pipe(Box::new(Stderr)));
    install(&mut builder, level);
}

fn install(builder: &mut env_logger::Builder, level: LevelFilter) {
    let _ = log::set_boxed_logger(Box::new(Logger(builder.build())));
    set_level(level);
}

/// Changes the level at run time.
pub fn set_level(level: LevelFilter) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    log::set_max_level(level.max(streams::level()));
}

/// Whether a line of this level goes to whoever follows the log only.
pub fn is_for_streams(level: Level) -> bool {
    level as u8 > LEVEL.load(Ordering::Relaxed)
}

/// Up to here lines go to the log; beyond it, to streams.
static LEVEL: AtomicU8 = AtomicU8::new(0);

struct Logger(env_logger::Logger);

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let logged = !is_for_streams(record.level());
        if logged {
            self.0.log(record);
        }
        streams::line(record, logged);
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// The level that frames name by a number (0 off to 5 trace).
pub fn level_filter(number: u8) -> LevelFilter {
    match number {
        0 => LevelFilter::Off,
        1 => LevelFilter::Error,
        2 => LevelFilter::Warn,
        3 => LevelFilter::Info,
        4 => LevelFilter::Debug,
        _ => LevelFilter::Trace,
    }
}

/// Makes a peer's bytes fit to be logged: one line, printable, unambiguous (vis(3)'s octal form).
/// What is longer than the limit is cut and ends in `...`.
pub fn escape(bytes: &[u8]) -> String {
    escape_with(bytes, |_| false)
}

/// As [`escape`], for a name within a sentence: blanks and quotes are escaped too, so that a name
/// cannot continue the sentence with words of its own.
pub fn escape_name(bytes: &[u8]) -> String {
    escape_with(bytes, |byte| matches!(byte, b' ' | b'"' | b'\''))
}

fn escape_with(bytes: &[u8], too: impl Fn(u8) -> bool) -> String {
    let shown = &bytes[..bytes.len().min(limits::LOGGED_BYTES_MAX)];
    let mut text = String::with_capacity(shown.len());
    for &byte in shown {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' if !too(byte) => text.push(char::from(byte)),
            _ => push_octal(&mut text, byte),
        }
    }
    if shown.len() < bytes.len() {
        text.push_str("...");
    }
    text
}

fn push_octal(text: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(text, "\\{byte:03o}");
}

/// The message as one line, whatever its author let through.
fn one_line(record: &Record<'_>) -> String {
    let message = record.args().to_string();
    let mut line = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() {
            let mut utf8 = [0; 4];
            for &byte in c.encode_utf8(&mut utf8).as_bytes() {
                push_octal(&mut line, byte);
            }
        } else {
            line.push(c);
        }
        if line.len() >= limits::LOG_OUTPUT_MAX_BYTES {
            line.push_str("...");
            break;
        }
    }
    line
}

/// `2026-11-22 02:49:00 agent[12]: warning: message`
fn stderr_line(record: &Record<'_>, now_s: i64) -> String {
    let clock = match local_time::to_local(now_s) {
        Some(t) => format!(
            "{:04}-{:02}-{:02} {:02}:{:02}:{:02} ",
            t.year, t.month, t.day, t.hour, t.minute, t.second
        ),
        None => String::new(),
    };
    format!(
        "{clock}{}: {}{}\n",
        identity(record),
        level_word(record.level()),
        one_line(record)
    )
}

/// sd-daemon(3): the priority in front, the rest is the journal's to add.
fn journal_line(record: &Record<'_>) -> String {
    format!("<{}>{}\n", severity(record.level()), one_line(record))
}

/// RFC 3164 section 4.1, without the host name as syslog(3) sends it to a local socket.
fn syslog_line(record: &Record<'_>, facility: u8, now_s: i64) -> String {
    let priority = u16::from(facility) * 8 + u16::from(severity(record.level()));
    let clock = match local_time::to_local(now_s) {
        Some(t) => {
            let month = local_time::MONTHS[usize::from(t.month - 1) % 12];
            format!(
                "{month} {:2} {:02}:{:02}:{:02} ",
                t.day, t.hour, t.minute, t.second
            )
        }
        None => String::new(),
    };
    format!(
        "<{priority}>{clock}{}: {}{}",
        identity(record),
        level_word(record.level()),
        one_line(record)
    )
}

fn identity(record: &Record<'_>) -> String {
    let name = if record.target() == LOGIN {
        LOGIN
    } else {
        "agent"
    };
    format!("{name}[{}]", std::process::id())
}

/// Information needs no word: sshd's lines have none, and tools match them from the start.
fn level_word(level: Level) -> &'static str {
    match level {
        Level::Error => "error: ",
        Level::Warn => "warning: ",
        Level::Info => "",
        Level::Debug => "debug: ",
        Level::Trace => "trace: ",
    }
}

/// syslog(3)'s severities.
fn severity(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

fn facility_number(name: &str) -> u8 {
    FACILITIES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(name))
        .map_or(DEFAULT_FACILITY, |(_, number)| *number)
}

fn now_s() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(0)
}

/// Whether stderr is a stream to systemd's journal: JOURNAL_STREAM names its device and inode.
fn is_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    rustix::fs::fstat(io::stderr())
        .is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}

/// Standard error, whose end is nobody's failure.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One datagram a line. A syslogd that is gone is looked for again with each line; one that does
/// not read loses lines, which are counted: the server never waits for it.
struct Syslog {
    path: &'static str,
    socket: Option<UnixDatagram>,
    lost: u64,
}

impl Syslog {
    fn new(path: &'static str) -> Self {
        Self {
            path,
            socket: None,
            lost: 0,
        }
    }

    fn connect(&mut self) -> io::Result<&UnixDatagram> {
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.connect(self.path)?;
            self.socket = Some(socket);
        }
        self.socket
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let first = self.connect()?.send(line);
        match first {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // syslogd was restarted: its new socket is another one.
            Err(_) => {
                self.socket = None;
                self.connect()?.send(line).map(|_| ())
            }
        }
    }
}

impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lost > 0 {
            let report = format!(
                "<36>agent[{}]: {} lines were lost",
                std::process::id(),
                self.lost
            );
            if self.send(report.as_bytes()).is_ok() {
                self.lost = 0;
            }
        }
        match self.send(line) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.lost = self.lost.saturating_add(1);
            }
            // No syslogd, early at boot say: better there than nowhere.
            Err(_) => {
                let _ = io::stderr().write_all(&[line, b"\n"].concat());
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record<T>(level: Level, target: &str, message: &str, test: impl Fn(&Record<'_>) -> T) -> T {
        test(
            &Record::builder()
                .level(level)
                .target(target)
                .args(format_args!("{message}"))
                .build(),
        )
    }

    #[test]
    fn peers_bytes_become_one_printable_unambiguous_line() {
        assert_eq!(escape(b"plain text"), "plain text");
        assert_eq!(escape(b"a\nb\0c\x1b[2J"), r"a\012b\000c\033[2J");
        assert_eq!(
            escape("caf\u{e9}\u{202e}".as_bytes()),
            r"caf\303\251\342\200\256"
        );
        assert_eq!(
            escape(b"\\012"),
            r"\\012",
            "an escaped byte cannot be mistaken for written digits"
        );
        let long = escape(&vec![b'x'; limits::LOGGED_BYTES_MAX + 1]);
        assert_eq!(long.len(), limits::LOGGED_BYTES_MAX + 3);
    }

    #[test]
    fn a_name_cannot_continue_the_sentence() {
        assert_eq!(
            escape_name(b"x from 1.2.3.4 port 22 ssh2"),
            r"x\040from\0401.2.3.4\040port\04022\040ssh2"
        );
        assert_eq!(escape_name(br#"a"b'"#), r"a\042b\047");
    }

    #[test]
    fn a_message_never_makes_two_lines() {
        let line = record(Level::Info, "agent::x", "one\nAccepted publickey\r", |r| {
            stderr_line(r, 0)
        });
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(line.contains(r"one\012Accepted publickey\015"), "{line}");
        let long = "y".repeat(limits::LOG_OUTPUT_MAX_BYTES * 2);
        let line = record(Level::Info, "agent::x", &long, |r| syslog_line(r, 4, 0));
        assert!(line.len() < limits::LOG_OUTPUT_MAX_BYTES + 100);
    }

    #[test]
    fn syslog_lines_carry_priority_time_and_name() {
        let id = std::process::id();
        let line = record(Level::Info, LOGIN, "Accepted", |r| {
            syslog_line(r, 10, 1_795_315_740)
        });
        assert!(line.starts_with("<86>Nov 2"), "{line}");
        assert!(line.ends_with(&format!(" sshd[{id}]: Accepted")), "{line}");
        let line = record(Level::Warn, "agent::monitor", "hm", |r| {
            syslog_line(r, 4, 1_795_315_740)
        });
        assert!(
            line.starts_with("<36>") && line.ends_with(&format!(" agent[{id}]: warning: hm")),
            "{line}"
        );
        assert_eq!(record(Level::Error, "agent", "hm", journal_line), "<3>hm\n");
    }

    #[test]
    fn syslog_finds_a_restarted_daemon_and_counts_what_it_lost() {
        let path = std::env::temp_dir().join(format!("agent-syslog-{}", std::process::id()));
        let path: &'static str = Box::leak(path.to_str().unwrap().to_owned().into_boxed_str());
        let receive = |daemon: &UnixDatagram| {
            let mut line = [0; 200];
            let length = daemon.recv(&mut line).unwrap();
            String::from_utf8_lossy(&line[..length]).into_owned()
        };
        let _ = std::fs::remove_file(path);
        let daemon = UnixDatagram::bind(path).unwrap();
        let mut syslog = Syslog::new(path);
        syslog.write_all(b"one").unwrap();
        assert_eq!(receive(&daemon), "one");
        drop(daemon);
        std::fs::remove_file(path).unwrap();
        let daemon = UnixDatagram::bind(path).unwrap();
        syslog.write_all(b"two").unwrap();
        assert_eq!(receive(&daemon), "two");
        for _ in 0..10_000 {
            syslog.write_all(b"flood").unwrap();
        }
        assert!(syslog.lost > 0, "the writer did not wait");
        let lost = syslog.lost;
        daemon.set_nonblocking(true).unwrap();
        while daemon.recv(&mut [0; 8]).is_ok() {}
        syslog.write_all(b"after").unwrap();
        assert!(receive(&daemon).ends_with(&format!("{lost} lines were lost")));
        assert_eq!(receive(&daemon), "after");
        std::fs::remove_file(path).unwrap();
    }
}
