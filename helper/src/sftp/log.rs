//! Where the server's own lines go: to the monitor, to syslog, or to standard error.
//!
//! Built in, the lines are frames to the monitor, which writes them; also out of a chroot, where no
//! /dev/log is. As a program of its own it talks to syslog as sftp-server(8) does. Source: syslog(3),
//! RFC 3164.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::status::Status;
use crate::frame::{FileEvent, FileOperation, HelperToMonitor};
use crate::link::Link;
use crate::path::PATH_MAX_BYTES;
use crate::sys;
use crate::text::{decimal, printable};
use crate::wire::Bytes;

const STATUS_NOT_TOLD: i32 = 1;
/// Paths in one line are cut here.
const LINE_MAX_BYTES: usize = 1900;

/// Where lines go.
#[derive(Debug)]
pub enum Sink {
    /// Frames to the monitor.
    Monitor,
    /// Datagrams to /dev/log.
    Syslog(Syslog),
    /// Lines.
    StandardError,
}

/// A connection to the machine's syslog.
#[derive(Debug)]
pub struct Syslog {
    socket: OwnedFd,
    /// Who writes.
    name: &'static [u8],
    facility: u8,
}

impl Sink {
    /// The machine's syslog, if there is one within reach.
    pub fn syslog(name: &'static [u8], facility: u8) -> Option<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).ok()?;
        connect(&socket, &SocketAddrUnix::new(c"/dev/log").ok()?).ok()?;
        Some(Self::Syslog(Syslog {
            socket,
            name,
            facility,
        }))
    }
}

/// The log.
#[derive(Debug)]
pub struct Log {
    /// Where to.
    pub sink: Sink,
    /// Lines above this level are not wanted: 1 errors, 3 what is done, 4 and 5 more.
    pub level: u8,
    /// The monitor, for lines and events.
    pub monitor: Option<Link>,
    /// The monitor wants to know what is done to files.
    pub audit: bool,
    /// It is done by scp.
    pub is_scp: bool,
}

impl Log {
    /// Whether lines of `level` are wanted at all.
    pub fn wants(&self, level: u8) -> bool {
        level <= self.level
    }

    /// Tells the monitor what was done to a file, if it wants to know. Waits for it: an event that
    /// is lost would be as good as none.
    pub fn event(
        &mut self,
        operation: FileOperation,
        (path, second): (&[u8], &[u8]),
        status: Status,
        (read_bytes, written_bytes): (u64, u64),
    ) {
        if !self.audit {
            return;
        }
        let event = event_of(
            operation,
            (path, second),
            status,
            (read_bytes, written_bytes),
            self.is_scp,
        );
        self.tell(&HelperToMonitor::FileEvent { event });
    }

    /// Waits until the monitor takes it, which says no sooner that there is room than its log may
    /// grow. Where it takes nothing any more this process ends: what it did next, nobody would know.
    fn tell(&self, frame: &HelperToMonitor) {
        let monitor = self.monitor.as_ref();
        if monitor.is_some_and(|monitor| monitor.send(0, frame, &[], true).is_err()) {
            sys::exit(STATUS_NOT_TOLD);
        }
    }

    /// Writes a line of `level`, made of `parts`. Control characters are shown as numbers.
    pub fn line(&mut self, level: u8, parts: &[&[u8]]) {
        if !self.wants(level) {
            return;
        }
        let mut text = printable(&parts.concat());
        text.truncate(LINE_MAX_BYTES);
        match &self.sink {
            Sink::Monitor => {
                let frame = HelperToMonitor::Log {
                    level,
                    message: Bytes([b"sftp: ".as_slice(), &text].concat()),
                };
                self.tell(&frame);
            }
            Sink::Syslog(syslog) => {
                let line = syslog_line(syslog, level, &text);
                let _ = rustix::io::write(&syslog.socket, &line);
            }
            Sink::StandardError => {
                let _ =
                    rustix::io::write(sys::standard_error(), &[text.as_slice(), b"\n"].concat());
            }
        }
    }
}

/// No longer than a datagram: other servers of the connection send on the same socket, and parts of
/// longer frames would mix. What is cut off, no file has.
fn event_of(
    operation: FileOperation,
    (path, second): (&[u8], &[u8]),
    status: Status,
    (read_bytes, written_bytes): (u64, u64),
    is_scp: bool,
) -> FileEvent {
    let known = |path: &[u8]| path.get(..PATH_MAX_BYTES).unwrap_or(path).into();
    FileEvent {
        operation,
        path: known(path),
        second: known(second),
        status: status as u32,
        read_bytes,
        written_bytes,
        is_scp,
    }
}

fn syslog_line(syslog: &Syslog, level: u8, text: &[u8]) -> Vec<u8> {
    let severity = match level {
        0 | 1 => 3,
        2 => 4,
        3 => 6,
        _ => 7,
    };
    let process = decimal(
        rustix::process::getpid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs(),
    );
    [
        b"<".as_slice(),
        &decimal(u32::from(syslog.facility) * 8 + severity),
        b">",
        syslog.name,
        b"[",
        &process,
        b"]: ",
        text,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::CONTENT_MAX_BYTES;
    use crate::wire::Wire;

    #[test]
    fn an_event_is_one_datagram_whatever_the_path() {
        let long = [b'x'; 250 * 1024];
        let event = event_of(
            FileOperation::Rename,
            (&long, &long),
            Status::Failure,
            (0, 0),
            false,
        );
        let frame = HelperToMonitor::FileEvent { event };
        assert!(frame.to_wire().len() <= CONTENT_MAX_BYTES);
    }

    #[test]
    fn a_syslog_line_names_facility_severity_and_process() {
        let (socket, _) = rustix::pipe::pipe().expect("a descriptor");
        let syslog = Syslog {
            socket,
            name: b"sftp-server",
            facility: 4,
        };
        let line = syslog_line(&syslog, 3, b"opened");
        let wanted = alloc::format!("<38>sftp-server[{}]: opened", std::process::id());
        assert_eq!(line, wanted.as_bytes());
    }
}
