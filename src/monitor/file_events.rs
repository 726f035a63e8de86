//! What users do to files by SFTP and the built-in scp, in the log: one line of fixed `key=value`
//! fields for each.
//!
//! The helper that reports is the user, so a line tells what it says it did. It can say too much but
//! nothing for others: user and address are the monitor's own knowledge, and paths are escaped.

use std::net::SocketAddr;
use std::time::Instant;

use agent_helper::frame::{FileEvent, FileOperation, Policy};
use agent_helper::sftp::options::Options;

use super::Monitor;
use super::budget::Budgets;
use super::connection::LoggedUser;
use super::helpers::helper_of;
use super::ids::ConnectionKey;
use super::log::{helper_line, level_of, user_text};
use super::socket::host_text;
use crate::limits::{LOGGED_PATH_HEAD_BYTES, LOGGED_PATH_TAIL_BYTES};
use crate::logging::escape_name;

/// From this level on the SFTP server says what it does.
const LOG_LEVEL_INFO: u8 = 3;

/// A login of which it is wanted to know what it does to files.
#[derive(Debug)]
pub(super) struct FileLog {
    pub uid: u32,
    /// The fields that say who.
    who: String,
    /// Events (SftpAudit).
    audit: bool,
    /// Lines of the SFTP server itself, as many as requests.
    lines: bool,
}

impl FileLog {
    /// For a login with this policy; `None`: nobody wants to know.
    pub(super) fn of(policy: &Policy, login: &LoggedUser, peer: SocketAddr) -> Option<Self> {
        let (audit, lines) = (policy.sftp_audit, logs_files(policy));
        (audit || lines).then(|| Self {
            uid: login.uid,
            who: format!(
                "user=\"{}\" address={} port={}",
                user_text(&login.name),
                host_text(peer),
                peer.port(),
            ),
            audit,
            lines,
        })
    }

    /// Whether a line of this level is one about files: those are wanted whole. What a helper has to
    /// complain of is not.
    pub(super) fn has_line(&self, level: u8) -> bool {
        self.lines && level >= LOG_LEVEL_INFO
    }

    /// Writes a line of the SFTP server.
    pub(super) fn line(&self, place: &str, level: u8, message: &[u8], budgets: &mut Budgets) {
        if log::log_enabled!(level_of(level)) {
            let line = helper_line(place, message);
            budgets.spend(self.uid, line.len(), Instant::now());
            log::log!(level_of(level), "{line}");
        }
    }

    /// Writes an event; false: nobody wants any.
    fn event(&self, event: &FileEvent, budgets: &mut Budgets) -> bool {
        if self.audit && log::log_enabled!(log::Level::Info) {
            let by = if event.is_scp { "scp" } else { "sftp" };
            let line = format!("event={by} {} {}", self.who, fields(event));
            budgets.spend(self.uid, line.len(), Instant::now());
            log::info!("{line}");
        }
        self.audit
    }
}

impl Monitor {
    /// A helper reports; where nobody asked it to, that ends it.
    pub(super) fn file_event(&mut self, key: ConnectionKey, event: &FileEvent) {
        let helper = helper_of(&mut self.connections, &mut self.farewells, key);
        let files = helper.and_then(|helper| helper.files.as_ref());
        if !files.is_some_and(|files| files.event(event, &mut self.budgets)) {
            self.helper_lost(key, "it sent FileEvent where none is wanted");
        }
    }
}

/// Whether a line of the configuration asks the SFTP server to log what it does (`-l INFO`): who wants
/// that wants all of it, however much is done.
fn logs_files(policy: &Policy) -> bool {
    let subsystems = policy.subsystems.iter().map(|(_, line)| line);
    subsystems.chain(&policy.forced_command).any(|line| {
        let mut words = line.split(|&byte| byte == b' ' || byte == b'\t');
        let program = words.next().unwrap_or_default();
        (program == b"internal-sftp" || program.ends_with(b"/sftp-server"))
            && Options::parse(&mut words).is_ok_and(|options| options.log_level >= LOG_LEVEL_INFO)
    })
}

/// The fields of the event itself.
fn fields(event: &FileEvent) -> String {
    let mut text = format!(
        "op={} result={}",
        operation_name(event.operation),
        result_name(event.status),
    );
    push_path(&mut text, "path", &event.path);
    if !event.second.is_empty() {
        push_path(&mut text, "second", &event.second);
    }
    if matches!(event.operation, FileOperation::Close | FileOperation::Copy) {
        text.push_str(&format!(
            " read={} written={}",
            event.read_bytes, event.written_bytes
        ));
    }
    text
}

/// A path with its end: that is what tells files apart. Where the middle is left out, a field says
/// how long it really is, since `...` may be a name.
fn push_path(text: &mut String, name: &str, path: &[u8]) {
    let head = fitting(path.iter(), LOGGED_PATH_HEAD_BYTES);
    let tail = fitting(path.iter().rev(), LOGGED_PATH_TAIL_BYTES);
    let (head, rest) = path.split_at(head);
    let (_, tail) = rest.split_at(rest.len().saturating_sub(tail));
    let is_whole = head.len() + tail.len() == path.len();
    let gap = if is_whole { "" } else { "..." };
    text.push_str(&format!(
        " {name}=\"{}{gap}{}\"",
        escape_name(head),
        escape_name(tail)
    ));
    if !is_whole {
        text.push_str(&format!(" {name}_bytes={}", path.len()));
    }
}

/// How many of `bytes` take no more than `limit_bytes` in a line.
fn fitting<'a>(bytes: impl Iterator<Item = &'a u8>, limit_bytes: usize) -> usize {
    let mut used = 0;
    bytes
        .take_while(|&&byte| {
            used += escape_name(&[byte]).len();
            used <= limit_bytes
        })
        .count()
}

fn operation_name(operation: FileOperation) -> &'static str {
    match operation {
        FileOperation::Open => "open",
        FileOperation::Close => "close",
        FileOperation::Remove => "remove",
        FileOperation::Rename => "rename",
        FileOperation::MakeDirectory => "mkdir",
        FileOperation::RemoveDirectory => "rmdir",
        FileOperation::SetAttributes => "setstat",
        FileOperation::SymbolicLink => "symlink",
        FileOperation::HardLink => "link",
        FileOperation::Copy => "copy",
    }
}

/// The SSH_FX_ code by a stable name.
fn result_name(status: u32) -> &'static str {
    match status {
        0 => "ok",
        1 => "end-of-file",
        2 => "no-such-file",
        3 => "permission-denied",
        5 => "bad-message",
        8 => "unsupported",
        _ => "failure",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_fields() {
        let event = FileEvent {
            operation: FileOperation::Rename,
            path: "/a b\n".into(),
            second: "/c\"".into(),
            status: 4,
            read_bytes: 0,
            written_bytes: 0,
            is_scp: false,
        };
        assert_eq!(
            fields(&event),
            "op=rename result=failure path=\"/a\\040b\\012\" second=\"/c\\042\""
        );
        let close = FileEvent {
            operation: FileOperation::Close,
            path: "/x".into(),
            second: "".into(),
            status: 0,
            read_bytes: 5,
            written_bytes: 1 << 40,
            is_scp: false,
        };
        assert_eq!(
            fields(&close),
            "op=close result=ok path=\"/x\" read=5 written=1099511627776"
        );
    }
    #[test]
    fn who_asks_for_a_log_gets_all_of_it() {
        let asks = |subsystem: &str, forced: Option<&str>| {
            logs_files(&Policy {
                subsystems: vec![("sftp".into(), subsystem.into())],
                forced_command: forced.map(Into::into),
                ..Policy::default()
            })
        };
        assert!(asks("internal-sftp -R -l INFO", None));
        assert!(asks(
            "internal-sftp",
            Some("internal-sftp -l verbose -f LOCAL1")
        ));
        assert!(asks("/usr/lib/openssh/sftp-server -l DEBUG3", None));
        for line in [
            "internal-sftp",
            "internal-sftp -l ERROR",
            "/bin/log -l INFO",
        ] {
            assert!(!asks(line, None), "{line}");
        }
    }

    #[test]
    fn the_end_of_a_long_path_is_shown() {
        let deep = [&vec![b'x'; 900][..], b"/secret"].concat();
        let odd = [&vec![b'\n'; 4089][..], b"/second"].concat();
        let event = FileEvent {
            operation: FileOperation::Rename,
            path: deep.into(),
            second: odd.into(),
            status: 0,
            read_bytes: 0,
            written_bytes: 0,
            is_scp: false,
        };
        let text = fields(&event);
        assert!(text.contains("/secret\" path_bytes=907 second="), "{text}");
        assert!(text.ends_with("/second\" second_bytes=4096"), "{text}");
        assert!(text.len() < 1700, "room for who it was: {}", text.len());
    }
}
