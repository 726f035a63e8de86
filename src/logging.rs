//! Where log lines go: stderr or syslog, steered by one level.

use log::LevelFilter;

/// Where to log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    Stderr,
    /// /dev/log with this facility (SyslogFacility's name), stderr while it cannot be reached.
    Syslog {
        facility: String,
    },
}

/// Installs the logger, once.
#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
pub fn init(destination: Destination, level: LevelFilter) {
    todo!()
}

/// Changes the level at run time.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Makes a peer's bytes fit to be logged: one line, printable, unambiguous (vis(3)-like).
#[expect(clippy::todo, unused_variables, reason = "interfaces first")]
pub fn escape(bytes: &[u8]) -> String {
    todo!()
}
