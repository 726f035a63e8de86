//! What the monitor says in the log: it is the only process that writes one.
//!
//! Lines about logins follow OpenSSH's wording, which fail2ban and others read; each outcome is
//! followed by a line of fixed `key=value` fields with a stable reason code. Text of peers and of
//! other processes is bounded, escaped and never at the beginning of a line, so it cannot take the
//! form of a login line.

use super::Monitor;
use super::connection::{Attempt, Connection, Phase};
use super::ids::{ConnectionKey, NetId};
use super::penalties::{Conduct, Offence};
use super::permit::Stage;
use super::socket::host_text;
use crate::frames::CloseReason;
use crate::limits::{LOG_LINE_MAX_BYTES, PEER_TEXT_MAX_BYTES};
use crate::logging::escape;

/// At most `PEER_TEXT_MAX_BYTES` of a peer's text, escaped.
pub(super) fn peer_text(text: &[u8]) -> String {
    escape(text.get(..PEER_TEXT_MAX_BYTES).unwrap_or(text))
}

/// A name that a client gave, fit for a line that others parse: no blanks, so that no part of it
/// can look like ` from ADDRESS`.
pub(super) fn user_text(name: &[u8]) -> String {
    peer_text(name).replace(' ', "\\040")
}

/// `invalid user NAME`, or `NAME`.
pub(super) fn named(attempt: &Attempt) -> String {
    let invalid = if attempt.refusal.is_some() {
        "invalid user "
    } else {
        ""
    };
    format!("{invalid}{}", user_text(&attempt.user))
}

/// What stands behind `ssh2` in lines about a method: the key, where there is one.
pub(super) fn key_suffix(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!(": {key}"))
}

/// The fixed fields of an outcome.
pub(super) fn fields(
    event: &str,
    user: Option<&[u8]>,
    connection: &Connection,
    reason: &str,
) -> String {
    let user = user.map_or_else(|| "-".to_owned(), |name| format!("\"{}\"", user_text(name)));
    format!(
        "event={event} user={user} address={} port={} reason={reason}",
        host_text(connection.peer()),
        connection.peer().port(),
    )
}

pub(super) fn level_of(number: u8) -> log::Level {
    match number {
        0 | 1 => log::Level::Error,
        2 => log::Level::Warn,
        3 => log::Level::Info,
        4 => log::Level::Debug,
        _ => log::Level::Trace,
    }
}

fn bounded(message: &[u8]) -> String {
    escape(message.get(..LOG_LINE_MAX_BYTES).unwrap_or(message))
}

/// A line of a helper, about the connection from `place`.
pub(super) fn helper_line(place: &str, message: &[u8]) -> String {
    format!("helper {place}: {}", bounded(message))
}

/// A line of the debug service's process.
pub(super) fn log_of_debug(pid: i32, level: u8, message: &[u8]) {
    log::log!(level_of(level), "debug[{pid}]: {}", bounded(message));
}

impl Monitor {
    /// A line of a `net`, about one of its connections or about itself.
    pub(super) fn log_of_net(
        &self,
        net: NetId,
        key: Option<ConnectionKey>,
        level: u8,
        message: &[u8],
    ) {
        let about = key
            .and_then(|key| self.connections.get(&key))
            .map(Connection::place);
        let pid = self
            .nets
            .get(net)
            .map_or(0, |net| net.pid.as_raw_nonzero().get());
        let about = about.map_or_else(String::new, |place| format!(" {place}"));
        log::log!(level_of(level), "net[{pid}]{about}: {}", bounded(message));
    }

    /// Something came that no `net` of ours sends.
    pub(super) fn attack(&mut self, key: ConnectionKey, what: &str) {
        if let Some(connection) = self.connections.get_mut(&key) {
            connection.conduct = Conduct::Worse(Offence::Crash);
            log::error!(
                "attack: the net process of {} sent {what}; the connection is ended",
                connection.place()
            );
            log::error!(
                "{}",
                fields("attack", None, connection, "frame-not-permitted")
            );
        }
        self.cut_off(key);
    }
}

/// The line at the end of a connection, with its reason code.
pub(super) fn ending(
    connection: &Connection,
    reason: CloseReason,
    detail: &[u8],
) -> (String, &'static str) {
    let place = connection.place();
    let suffix = if connection.is_live() {
        ""
    } else {
        " [preauth]"
    };
    let who = match &connection.phase {
        Phase::Authenticating(attempt) if attempt.refusal.is_some() => {
            format!("invalid user {} ", user_text(&attempt.user))
        }
        Phase::Authenticating(attempt) => {
            format!("authenticating user {} ", user_text(&attempt.user))
        }
        Phase::Live(live) => format!("user {} ", user_text(&live.login.name)),
        Phase::Ending {
            user: Some(login), ..
        } => format!("user {} ", user_text(&login.name)),
        _ => String::new(),
    };
    let text = peer_text(detail);
    match reason {
        CloseReason::Eof => (
            format!("Connection closed by {who}{place}{suffix}"),
            "closed-by-peer",
        ),
        CloseReason::ByPeer { code } => (
            format!("Received disconnect from {place}:{code}: {text}{suffix}"),
            "disconnected-by-peer",
        ),
        CloseReason::Io {
            errno: libc::ECONNRESET,
        } => (
            format!("Connection reset by {who}{place}{suffix}"),
            "reset-by-peer",
        ),
        CloseReason::Io { errno } => {
            let error = std::io::Error::from_raw_os_error(errno);
            (
                format!("Connection with {who}{place} failed: {error}{suffix}"),
                "io-error",
            )
        }
        CloseReason::Protocol { code } if connection.client_version.is_empty() => (
            // sshd's words, by which fail2ban knows who tries ports; then what was wrong.
            format!("banner exchange: Connection from {place}: invalid format: {text}{suffix}"),
            if code == 8 {
                "bad-version"
            } else {
                "protocol-error"
            },
        ),
        CloseReason::Protocol { .. } => (
            format!("Disconnecting {who}{place}: {text}{suffix}"),
            "protocol-error",
        ),
        CloseReason::NoCommonAlgorithm => (
            // Lists of algorithms are longer than other texts.
            format!(
                "Unable to negotiate with {place}: {}{suffix}",
                escape(detail)
            ),
            "no-common-algorithm",
        ),
        CloseReason::Timeout => (
            format!("Timeout, client not responding from {who}{place}{suffix}"),
            "client-timeout",
        ),
        CloseReason::HelperGone => (
            format!("Connection with {who}{place} ended: its helper is gone{suffix}"),
            "helper-gone",
        ),
        CloseReason::Fault => (
            format!("Connection with {who}{place} ended by a fault of the server{suffix}"),
            "fault",
        ),
        CloseReason::Ended => (format!("Disconnected from {who}{place}{suffix}"), "ended"),
    }
}

/// Words for a stage, in lines about attacks.
pub(super) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Accepted => "before the key exchange",
        Stage::Exchanged => "before authentication",
        Stage::Authenticating => "during authentication",
        Stage::HandingOver => "during the hand-over",
        Stage::Live => "after login",
        Stage::Ending => "after its end",
    }
}
