//! What one accepted login may do: the policy that the helper enforces.

use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use agent_helper::frame::Policy;
use agent_helper::pattern::admits;
use agent_helper::wire::{Bytes, Wire};
use rustix::io::Errno;

use super::connection::{Attempt, Expiry};
use super::credential::public_text;
use super::host::Host;
use super::key_reading::expand;
use super::methods::Way;
use super::rights::{CommandsDiffer, Rights};
use super::socket::{Ends, host_text};
use crate::account::Account;
use crate::config::Options;
use crate::config::options::PermitUserEnvironment;
use crate::limits::NOLOGIN_MAX_BYTES;
use crate::records::{LastLogin, Records};
use crate::ssh::crypto::hash::Hash;

/// PATH of sessions, as Debian's sshd has it (_PATH_STDPATH, and for root SUPERUSER_PATH).
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/games";
const ROOT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Builds the policy of an attempt whose methods are complete.
pub(super) fn build(
    host: &Host,
    attempt: &Attempt,
    ends: Ends,
    records: &Records,
) -> Result<Policy, CommandsDiffer> {
    let account = &attempt.account;
    let options = &attempt.options;
    let rights = Rights::of(&attempt.accepted)?;
    let last_login = (options.print_last_log && host.as_root)
        .then(|| records.last_login(account.uid))
        .flatten();
    let title = [
        account.name.as_slice(),
        b"@",
        host_text(ends.peer).as_bytes(),
    ]
    .concat();
    let user_environment = environment_patterns(&options.permit_user_environment);
    Ok(Policy {
        identity: account.identity(attempt.groups.clone()),
        change_identity: host.as_root,
        title: title.into(),
        environment: environment(host, account, ends),
        set_env: pairs(&options.set_env),
        key_environment: rights
            .environment
            .iter()
            .filter(|(name, _)| admits(&user_environment, name))
            .map(|(name, value)| (name.clone().into(), value.clone().into()))
            .collect(),
        accept_env: options
            .accept_env
            .iter()
            .map(|pattern| pattern.clone().into())
            .collect(),
        user_environment,
        forced_command: forced_command(options, rights.command.clone()),
        auth_info: auth_info(attempt).into(),
        permit_pty: options.permit_tty && rights.permits.pty,
        // With ForceCommand nothing of the user's runs before it, as with sshd.
        permit_user_rc: options.permit_user_rc
            && rights.permits.user_rc
            && options.force_command.is_none(),
        sftp_audit: options.sftp_audit,
        print_motd: options.print_motd,
        greeting: greeting(attempt.expiry, last_login.as_ref())
            .into_bytes()
            .into(),
        nologin: nologin(account.uid),
        subsystems: options
            .subsystems
            .iter()
            .map(|(name, command)| (name.as_str().into(), command.clone().into()))
            .collect(),
        max_sessions: options.max_sessions,
        nofile: host.nofile,
        oom_score_adj: host
            .oom_score_adj
            .map(|score| score.to_string().as_str().into()),
        monitor_opens_terminals: host.as_root,
        chroot: options
            .chroot_directory
            .as_ref()
            .filter(|path| *path != "none")
            .map(|path| expand(path, account).into()),
        quiet_login: false,
        on_disconnect: options.on_disconnect,
        forwarding: super::forwarding::rules(
            &options.forwarding,
            &rights,
            forced_command(options, rights.command.clone()).is_some(),
            account,
        ),
    })
}

/// ExposeAuthInfo: each method that was gone through, and the key or certificate of it.
fn auth_info(attempt: &Attempt) -> Vec<u8> {
    if !attempt.options.expose_auth_info {
        return Vec::new();
    }
    let mut keys = attempt.accepted.iter();
    let mut info = String::new();
    for done in &attempt.done {
        info.push_str(done.way.name());
        if done.way == Way::PublicKey
            && let Some(key) = keys.next()
        {
            info.push(' ');
            info.push_str(&public_text(&key.presented));
        }
        info.push('\n');
    }
    info.into_bytes()
}

/// ForceCommand of the configuration wins over the key's (sshd_config(5)).
fn forced_command(options: &Options, of_key: Option<Vec<u8>>) -> Option<Bytes> {
    options
        .force_command
        .clone()
        .filter(|command| command != b"none")
        .or(of_key)
        .map(Bytes::from)
}

fn environment(host: &Host, account: &Account, ends: Ends) -> Vec<(Bytes, Bytes)> {
    let (peer, local) = (ends.peer, ends.local);
    let path = if account.uid == 0 { ROOT_PATH } else { PATH };
    let mail = [b"/var/mail/", account.name.as_slice()].concat();
    let mut variables: Vec<(Bytes, Bytes)> = vec![
        ("USER".into(), account.name.clone().into()),
        ("LOGNAME".into(), account.name.clone().into()),
        ("HOME".into(), account.home.clone().into()),
        ("PATH".into(), path.into()),
        ("MAIL".into(), mail.into()),
        ("SHELL".into(), account.shell().into()),
    ];
    if let Some(zone) = &host.time_zone {
        variables.push(("TZ".into(), zone.clone().into()));
    }
    let (from, to) = (host_text(peer), host_text(local));
    let client = format!("{from} {} {}", peer.port(), local.port());
    let both = format!("{from} {} {to} {}", peer.port(), local.port());
    variables.push(("SSH_CLIENT".into(), client.as_str().into()));
    variables.push(("SSH_CONNECTION".into(), both.as_str().into()));
    variables
}

fn environment_patterns(permit: &PermitUserEnvironment) -> Vec<Bytes> {
    match permit {
        PermitUserEnvironment::No => Vec::new(),
        PermitUserEnvironment::Yes => vec!["*".into()],
        PermitUserEnvironment::Patterns(patterns) => patterns
            .iter()
            .map(|pattern| pattern.clone().into())
            .collect(),
    }
}

fn pairs(variables: &[(Vec<u8>, Vec<u8>)]) -> Vec<(Bytes, Bytes)> {
    variables
        .iter()
        .map(|(name, value)| (name.clone().into(), value.clone().into()))
        .collect()
}

/// /etc/nologin stops everybody but root; its text says why.
fn nologin(uid: u32) -> Option<Bytes> {
    if uid == 0 {
        return None;
    }
    ["/etc/nologin", "/var/run/nologin"]
        .iter()
        .find_map(|path| nologin_text(Path::new(path)))
        .map(Bytes::from)
}

/// That the file is there says no, whether it can be read or not.
fn nologin_text(path: &Path) -> Option<Vec<u8>> {
    match rustix::fs::stat(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => None,
        _ => Some(read_small(path, NOLOGIN_MAX_BYTES).unwrap_or_default()),
    }
}

/// A regular file of the administrator, up to `limit` bytes; `None`: there is none.
pub(super) fn read_small(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC)
        .open(path)
        .ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut text = Vec::new();
    file.take(limit).read_to_end(&mut text).ok()?;
    Some(text)
}

/// What a user is told at login, in OpenSSH's words and order.
fn greeting(expiry: Expiry, last: Option<&LastLogin>) -> String {
    let ends = |what: &str, days: Option<i64>| {
        days.map_or_else(String::new, |days| {
            let plural = if days == 1 { "" } else { "s" };
            format!("Your {what} will expire in {days} day{plural}.\r\n")
        })
    };
    let mut text = ends("account", expiry.account_days);
    text += &ends("password", expiry.password_days);
    text += &last.map_or_else(String::new, last_login_line);
    text
}

/// `Last login: DATE from HOST`.
fn last_login_line(last: &LastLogin) -> String {
    let host = std::ffi::OsStr::from_bytes(&last.host).to_string_lossy();
    let host: String = host.chars().filter(|c| !c.is_control()).collect();
    let date = super::clock::local_time(last.time_s);
    if host.is_empty() {
        format!("Last login: {date}\r\n")
    } else {
        format!("Last login: {date} from {host}\r\n")
    }
}

/// Names the rights of a policy: logins of one user with the same digest may share a process.
pub(super) fn rights_digest(policy: &Policy) -> Vec<u8> {
    let rights = Policy {
        // Different for each login, and no right.
        title: Bytes::default(),
        environment: Vec::new(),
        greeting: Bytes::default(),
        auth_info: Bytes::default(),
        ..policy.clone()
    };
    Hash::Sha256.digest(&rights.to_wire())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn logins_with_the_same_rights_share_a_digest() {
        let policy = Policy {
            permit_pty: true,
            ..Policy::default()
        };
        let again = Policy {
            title: "alice@192.0.2.1".into(),
            ..policy.clone()
        };
        let other = Policy {
            permit_pty: false,
            ..policy.clone()
        };
        assert_eq!(rights_digest(&policy), rights_digest(&again));
        assert_ne!(rights_digest(&policy), rights_digest(&other));
        let forced = Policy {
            forced_command: Some("id".into()),
            ..policy.clone()
        };
        assert_ne!(rights_digest(&policy), rights_digest(&forced));
    }

    #[test]
    fn a_nologin_that_cannot_be_read_stops_logins_all_the_same() {
        assert_eq!(nologin_text(Path::new("/nonexistent")), None);
        assert_eq!(nologin_text(Path::new("/etc/passwd/nologin")), None);
        for unreadable in ["/etc", "/dev/zero"] {
            let text = nologin_text(Path::new(unreadable));
            assert_eq!(text.as_deref(), Some(&b""[..]), "{unreadable}");
        }
    }

    #[test]
    fn users_are_told_what_ends_soon() {
        let none = Expiry::default();
        assert_eq!(greeting(none, None), "");
        let both = Expiry {
            account_days: Some(1),
            password_days: Some(0),
        };
        assert_eq!(
            greeting(both, None),
            "Your account will expire in 1 day.\r\nYour password will expire in 0 days.\r\n"
        );
        let last = LastLogin {
            time_s: 0,
            line: b"pts/0".to_vec(),
            host: b"192.0.2.1\x1b".to_vec(),
        };
        let text = greeting(none, Some(&last));
        assert!(text.starts_with("Last login: ") && text.ends_with(" from 192.0.2.1\r\n"));
    }

    #[test]
    fn small_files_are_cut_and_others_not_read() {
        assert_eq!(read_small(Path::new("/etc/passwd"), 4).unwrap(), b"root");
        assert_eq!(read_small(Path::new("/dev/zero"), 4), None);
        assert_eq!(read_small(Path::new("/nonexistent"), 4), None);
    }
}
