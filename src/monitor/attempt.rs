//! Whom a connection wants to be: the account behind the name, and whether it may log in at all.
//!
//! An unknown name, and an account that may not log in, are walked through as the decoy from here on.

use std::path::Path;
use std::rc::Rc;

use super::allowed::{self, Facts, Refusal, Shell};
use super::connection::{Attempt, Expiry, Phase};
use super::ids::ConnectionKey;
use super::methods::Methods;
use super::penalties::{Conduct, Offence};
use super::setup::{level_number, signature_algorithms};
use super::{Monitor, log as lines};
use crate::account::{self, Account};
use crate::config::Subject;
use crate::frames::ToNet;
use crate::limits::{BANNER_FRAME_BYTES, BANNER_MAX_BYTES, OUTBOX_MAX_BYTES};
use crate::logging::{self, LOGIN};
use crate::ssh::auth::AuthRequest;

/// RFC 4253 section 11.1.
const PROTOCOL_ERROR: u32 = 2;
const SERVICE_NOT_AVAILABLE: u32 = 7;
const BY_APPLICATION: u32 = 11;

impl Monitor {
    /// The attempt of a connection that is authenticating, and where it comes from, for a line.
    pub(super) fn attempt_from(&mut self, key: ConnectionKey) -> Option<(String, &mut Attempt)> {
        let connection = self.connections.get_mut(&key)?;
        Some((connection.place(), connection.attempt()?))
    }

    /// Knows the user of the first request, and sees that later ones name the same.
    pub(super) fn meet(
        &mut self,
        key: ConnectionKey,
        request: &AuthRequest<'_>,
    ) -> Result<(), (u32, &'static str)> {
        if request.service != b"ssh-connection" {
            return Err((SERVICE_NOT_AVAILABLE, "no such service"));
        }
        let Some(connection) = self.connections.get_mut(&key) else {
            return Ok(());
        };
        let user = account_of(request.user);
        match &connection.phase {
            Phase::Authenticating(attempt) if attempt.user == user => Ok(()),
            Phase::Authenticating(_) => {
                Err((PROTOCOL_ERROR, "Change of username or service not allowed"))
            }
            Phase::Greeting => self.begin_attempt(key, user),
            // It ends already, or is somebody's.
            Phase::HandingOver(_) | Phase::Live(_) | Phase::Ending { .. } => Ok(()),
        }
    }

    fn begin_attempt(
        &mut self,
        key: ConnectionKey,
        user: &[u8],
    ) -> Result<(), (u32, &'static str)> {
        let attempt = self.new_attempt(key, user);
        let (Some(attempt), Some(connection)) = (attempt, self.connections.get_mut(&key)) else {
            return Ok(());
        };
        let level = attempt.options.log_level;
        if level != connection.log_level {
            connection.log_level = level;
            logging::set_level(self.debug.level.unwrap_or(level));
            let frame = ToNet::SetLogLevel {
                level: level_number(level),
                forced: false,
                followed: 0,
            };
            let (net, number) = (connection.net, connection.number);
            self.nets.send(&self.poller, net, number, &frame, &[]);
        }
        let names = signature_algorithms(&attempt.options.pubkey_accepted_algorithms);
        if names != connection.options.setup.signature_algorithms {
            let frame = ToNet::SignatureAlgorithms { names };
            let (net, number) = (connection.net, connection.number);
            self.nets.send(&self.poller, net, number, &frame, &[]);
        }
        let place = connection.place();
        let prohibited = attempt.options.refuse_connection;
        if prohibited {
            connection.conduct = Conduct::Worse(Offence::RefusedConnection);
            log::info!(
                "connection of {} from {place} is prohibited",
                lines::user_text(user)
            );
        } else if let Some(refusal) = attempt.refusal {
            log_refusal(&attempt, refusal, &place);
        }
        let reason = if prohibited {
            Some("refuse-connection")
        } else {
            attempt.refusal.map(Refusal::code)
        };
        let banner = attempt.options.banner.clone();
        connection.enter(Phase::Authenticating(Box::new(attempt)));
        super::trace::phase(key, connection);
        if let Some(reason) = reason {
            self.refused(key, Some(user), reason);
        }
        if prohibited {
            return Err((BY_APPLICATION, "Connection refused by the administrator"));
        }
        if let Some(text) = banner.and_then(|path| read_banner(&path)) {
            self.send_banner(key, &text);
        }
        Ok(())
    }

    /// Sends text for the user's eyes ahead of the answer.
    pub(super) fn send_banner(&mut self, key: ConnectionKey, text: &[u8]) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        // A crowd behind a slow `net` goes without rather than ending it.
        if self.nets.waiting_bytes(connection.net) + text.len() > OUTBOX_MAX_BYTES / 2 {
            return log::warn!("no banner for {}: too much waits", connection.place());
        }
        for piece in text.chunks(BANNER_FRAME_BYTES) {
            let frame = ToNet::Banner { text: piece.into() };
            self.nets
                .send(&self.poller, connection.net, connection.number, &frame, &[]);
        }
    }

    /// Looks the user up: account, groups, options, whether a login is possible at all.
    fn new_attempt(&self, key: ConnectionKey, user: &[u8]) -> Option<Attempt> {
        let connection = self.connections.get(&key)?;
        let found = account::lookup(user);
        let unknown = found.is_none();
        let name = subject_name(user, found.as_ref()).to_vec();
        let account = found.unwrap_or_else(|| Account::decoy(self.host.decoy_id()));
        let groups = account.groups();
        let group_names = if connection.generation.config.asks_for_groups() {
            account::group_names(&groups)
        } else {
            Vec::new()
        };
        let text = String::from_utf8_lossy(&name);
        let ends = connection.ends;
        let options = connection.generation.config.effective(&Subject {
            user: Some(&text),
            groups: if unknown { &[] } else { &group_names },
            invalid_user: unknown,
            address: ends.peer.ip(),
            host: connection.name(),
            local_address: ends.local.ip(),
            local_port: ends.local.port(),
        });
        let state = account
            .state(self.host.as_root)
            .inspect_err(|error| {
                if !unknown {
                    let name = lines::user_text(&account.name);
                    log::error!("whether {name} is locked cannot be read from shadow: {error}");
                }
            })
            .ok();
        let facts = Facts {
            user: &text,
            uid: account.uid,
            groups: &group_names,
            unreadable: state.is_none(),
            locked: state.is_some_and(|it| it.locked),
            expired: state.is_some_and(|it| it.is_expired(super::today())),
            shell: shell_state(account.shell()),
            address: ends.peer.ip(),
            host: connection.name(),
            only_uid: self.host.only_uid,
        };
        let refusal = match allowed::check(&facts, &options) {
            _ if unknown => Some(Refusal::UnknownUser),
            Ok(()) => None,
            Err(refusal) => Some(refusal),
        };
        // From here on a refused account is walked through as an unknown one.
        let (account, groups) = match refusal {
            None => (account, groups),
            Some(_) => {
                let decoy = Account::decoy(self.host.decoy_id());
                let groups = vec![decoy.gid];
                (decoy, groups)
            }
        };
        Some(Attempt {
            user: user.to_vec(),
            account,
            groups,
            refusal,
            requests: 0,
            failures: 0,
            queries: 0,
            methods: Methods::new(&options, self.host.as_root),
            done: Vec::new(),
            accepted: Vec::new(),
            known: None,
            dialog: None,
            must_change: false,
            expiry: Expiry {
                account_days: state.and_then(|it| it.few_days_left(super::today())),
                password_days: None,
            },
            pending: None,
            options: Rc::new(options),
        })
    }
}

/// What a client says may be `ACCOUNT:STYLE`; the style is for authentication devices, of which there
/// are none here. No account has a colon in its name (passwd(5)).
fn account_of(user: &[u8]) -> &[u8] {
    user.split(|byte| *byte == b':').next().unwrap_or(user)
}

fn log_refusal(attempt: &Attempt, refusal: Refusal, place: &str) {
    let user = lines::user_text(&attempt.user);
    match refusal {
        Refusal::UnknownUser => log::info!(target: LOGIN, "Invalid user {user} from {place}"),
        Refusal::RootLogin => log::info!(target: LOGIN, "ROOT LOGIN REFUSED FROM {place}"),
        other => {
            let address = place.split(' ').next().unwrap_or(place);
            log::info!(
                target: LOGIN,
                "User {user} from {address} not allowed because {}",
                other.text()
            );
        }
    }
}

/// The file that `Banner` names: the administrator's, regular, bounded.
fn read_banner(path: &Path) -> Option<Vec<u8>> {
    super::policy::read_small(path, BANNER_MAX_BYTES)
}

/// Whom the configuration is asked about: the account as the database spells it, where that takes
/// other spellings too.
fn subject_name<'a>(typed: &'a [u8], found: Option<&'a Account>) -> &'a [u8] {
    found.map_or(typed, |account| &account.name)
}

fn shell_state(shell: &[u8]) -> Shell {
    use rustix::fs::{Access, FileType, access, stat};
    match stat(shell) {
        Err(_) => Shell::Missing,
        Ok(found) => {
            let regular = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
            let executable = found.st_mode & 0o111 != 0 && access(shell, Access::EXEC_OK).is_ok();
            if regular && executable {
                Shell::Usable
            } else {
                Shell::NotExecutable
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_style_is_no_part_of_the_account() {
        for user in ["al", "al:", "al:style", "al:a:b"] {
            assert_eq!(account_of(user.as_bytes()), b"al");
        }
        assert_eq!(account_of(b":style"), b"");
        assert_eq!(account_of(b""), b"");
    }

    #[test]
    fn lists_of_users_are_asked_about_the_account_however_it_is_typed() {
        let mut account = Account::decoy(1);
        account.name = b"alice".to_vec();
        assert_eq!(subject_name(b"ALICE", Some(&account)), b"alice");
        assert_eq!(subject_name(b"alice@ad.example", Some(&account)), b"alice");
        assert_eq!(subject_name(b"ALICE", None), b"ALICE");
    }

    #[test]
    fn shells_must_be_files_that_can_be_executed() {
        assert_eq!(shell_state(b"/bin/sh"), Shell::Usable);
        assert_eq!(shell_state(b"/nonexistent/sh"), Shell::Missing);
        assert_eq!(shell_state(b"/etc/passwd"), Shell::NotExecutable);
        assert_eq!(shell_state(b"/"), Shell::NotExecutable);
    }
}
