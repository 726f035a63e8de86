//! What users do to files by SFTP, in the log: one line of fixed `key=value` fields for each.
//!
//! The helper that reports is the user, so a line tells what it says it did. It can say too much but
//! nothing for others: user and address are the monitor's own knowledge, and paths are escaped.

use agent_helper::frame::{FileEvent, FileOperation};

use super::Monitor;
use super::connection::Phase;
use super::ids::ConnectionKey;
use super::log::user_text;
use super::socket::host_text;
use crate::logging::escape_name;

impl Monitor {
    /// A helper reports; where nobody asked it to, that ends it.
    pub(super) fn file_event(&mut self, key: ConnectionKey, event: &FileEvent) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        let Phase::Live(live) = &connection.phase else {
            return;
        };
        if !live.sftp_audit {
            return self.helper_lost(key, "it sent FileEvent where none is wanted");
        }
        log::info!(
            "event=sftp user=\"{}\" address={} port={} {}",
            user_text(&live.login.name),
            host_text(connection.peer()),
            connection.peer().port(),
            fields(event)
        );
    }
}

/// The fields of the event itself.
fn fields(event: &FileEvent) -> String {
    let mut text = format!(
        "op={} result={} path=\"{}\"",
        operation_name(event.operation),
        result_name(event.status),
        escape_name(&event.path)
    );
    if !event.second.is_empty() {
        text.push_str(&format!(" second=\"{}\"", escape_name(&event.second)));
    }
    if matches!(event.operation, FileOperation::Close | FileOperation::Copy) {
        text.push_str(&format!(
            " read={} written={}",
            event.read_bytes, event.written_bytes
        ));
    }
    text
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
        };
        assert_eq!(
            fields(&close),
            "op=close result=ok path=\"/x\" read=5 written=1099511627776"
        );
    }
}
