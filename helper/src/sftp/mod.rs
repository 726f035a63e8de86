//! The SFTP server (role `sftp`): a fork of a connection's helper, or a program of its own that takes
//! the place of OpenSSH's sftp-server.
//!
//! It is the user already and asks nobody; it reads requests from one descriptor, writes replies to
//! another, and ends with its input. Sources: draft-ietf-secsh-filexfer-02, OpenSSH PROTOCOL section
//! 4, sftp-server(8).
#![forbid(unsafe_code)]

pub mod attributes;
pub mod change;
pub mod directory;
pub mod handles;
pub mod log;
pub mod long_name;
pub mod names;
pub mod options;
pub mod packet;
mod questions;
pub mod request;
pub mod server;
pub mod sharing;
pub mod status;
pub mod stream;
pub mod tally;
pub mod transfer;
pub mod zone;

use alloc::vec::Vec;

use rustix::fs::Mode;
use rustix::process::{chdir, getuid, umask};

use crate::link::Link;
use crate::sys;
use crate::text::c_string;
use log::{Log, Sink};
use names::{Database, Names};
use options::{Options, Refusal, USAGE};
use request::Kind;
use server::{Account, Server};
use sharing::Sharing;

/// AUTH, as sftp-server(8).
const FACILITY_DEFAULT: u8 = 4;

/// A session of a connection.
#[derive(Debug)]
pub struct Session<'a> {
    /// What stands behind `internal-sftp`.
    pub arguments: &'a [u8],
    /// Who is served.
    pub account: Account,
    /// For log lines and events.
    pub monitor: Option<Link>,
    /// To hand files to `net`.
    pub sharing: Option<Sharing>,
    /// The monitor wants to know what is done to files.
    pub audit: bool,
}

/// Serves a session on standard input and output; gives the exit status.
pub fn serve_session(session: Session<'_>) -> i32 {
    let mut words = session
        .arguments
        .split(|&byte| byte == b' ' || byte == b'\t');
    let options = match Options::parse(&mut words) {
        Ok(options) => options,
        Err(refusal) => return refuse(&refusal),
    };
    // A facility of its own is for syslog; out of a chroot, where no syslog is, the monitor writes.
    let sink = match options.facility {
        _ if options.log_to_stderr => Sink::StandardError,
        Some(facility) => Sink::syslog(b"internal-sftp", facility).unwrap_or(Sink::Monitor),
        None => Sink::Monitor,
    };
    let log = Log {
        sink,
        level: options.log_level,
        monitor: session.monitor,
        audit: session.audit,
        is_scp: false,
    };
    // What cannot be counted stays here, where somebody wants the numbers.
    let sharing = match session.sharing {
        Some(sharing) if log.audit || log.wants(3) => sharing.counted(),
        sharing => sharing,
    };
    serve(options, session.account, log, sharing)
}

/// Serves standard input and output as a program of its own; gives the exit status.
pub fn serve_alone(arguments: &mut dyn Iterator<Item = &[u8]>) -> i32 {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(refusal) => return refuse(&refusal),
    };
    let mut users = Names::new(Database::Users);
    let name = users.name(getuid().as_raw()).unwrap_or_default().to_vec();
    let home = users.home(&name).unwrap_or(b"/").to_vec();
    let facility = options.facility.unwrap_or(FACILITY_DEFAULT);
    let sink = if options.log_to_stderr {
        Sink::StandardError
    } else {
        // Without one, lines are lost as everywhere else.
        Sink::syslog(b"sftp-server", facility).unwrap_or(Sink::Monitor)
    };
    let log = Log {
        sink,
        level: options.log_level,
        monitor: None,
        audit: false,
        is_scp: false,
    };
    serve(options, Account { name, home }, log, None)
}

fn serve(options: Options, account: Account, mut log: Log, sharing: Option<Sharing>) -> i32 {
    sys::block_write_signals();
    if let Some(mask) = options.umask {
        umask(Mode::from_raw_mode(mask));
    }
    if let Some(directory) = &options.start_directory {
        let entered = expand(directory, &account)
            .and_then(|directory| c_string(&directory).ok())
            .is_some_and(|directory| chdir(&*directory).is_ok());
        if !entered {
            log.line(1, &[b"cannot enter the start directory ", directory]);
        }
    }
    log.line(3, &[b"session opened for local user ", &account.name]);
    let name = account.name.clone();
    let mut server = Server::new(options, account, log, sharing);
    let status = stream::run(&mut server, sys::standard_input(), sys::standard_output());
    server.finish();
    server
        .log()
        .line(3, &[b"session closed for local user ", &name]);
    status
}

/// `%d` the home directory, `%u` the user, `%%` a percent sign; nothing for anything else.
fn expand(text: &[u8], account: &Account) -> Option<Vec<u8>> {
    let mut expanded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            expanded.push(byte);
            continue;
        }
        match bytes.next()? {
            b'd' | b'h' => expanded.extend_from_slice(&account.home),
            b'u' => expanded.extend_from_slice(&account.name),
            b'%' => expanded.push(b'%'),
            _ => return None,
        }
    }
    Some(expanded)
}

/// Says why the server does not start; gives the exit status.
fn refuse(refusal: &Refusal<'_>) -> i32 {
    let (to, text, status) = match refusal {
        Refusal::Help => (sys::standard_error(), USAGE.to_vec(), 1),
        Refusal::Requests => {
            let mut list = Vec::new();
            for (_, name) in Kind::all() {
                list.extend_from_slice(name);
                list.push(b'\n');
            }
            (sys::standard_output(), list, 0)
        }
        Refusal::Wrong(what, argument) => {
            let text = [
                b"sftp-server: ".as_slice(),
                &crate::text::printable(argument),
                b": ",
                what.as_bytes(),
                b"\n",
                USAGE,
            ];
            (sys::standard_error(), text.concat(), 1)
        }
    };
    let _ = rustix::io::write(to, &text);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_of_the_start_directory() {
        let account = Account {
            name: b"alice".to_vec(),
            home: b"/home/alice".to_vec(),
        };
        let expand = |text: &str| expand(text.as_bytes(), &account);
        assert_eq!(expand("/up/%u%%"), Some(b"/up/alice%".to_vec()));
        assert_eq!(expand("%d/in"), Some(b"/home/alice/in".to_vec()));
        assert_eq!(expand("/%x"), None);
        assert_eq!(expand("/%"), None);
    }
}
