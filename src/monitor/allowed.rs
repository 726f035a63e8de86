//! Whether an account may log in at all: what OpenSSH's allowed_user() asks, in its words.

use std::net::IpAddr;

use crate::config::Options;
use crate::config::options::PermitRootLogin;
use crate::pattern::{BadAddress, matches_one, matches_user};

/// Why an account may not log in. The code is stable; scripts may rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    UnknownUser,
    OtherUser,
    Locked,
    NoShell,
    ShellNotExecutable,
    DenyUsers,
    NotInAllowUsers,
    DenyGroups,
    NotInAllowGroups,
    RootLogin,
    BadPattern,
}

impl Refusal {
    pub(super) fn code(self) -> &'static str {
        match self {
            Self::UnknownUser => "unknown-user",
            Self::OtherUser => "not-the-servers-user",
            Self::Locked => "account-locked",
            Self::NoShell => "no-shell",
            Self::ShellNotExecutable => "shell-not-executable",
            Self::DenyUsers => "deny-users",
            Self::NotInAllowUsers => "not-in-allow-users",
            Self::DenyGroups => "deny-groups",
            Self::NotInAllowGroups => "not-in-allow-groups",
            Self::RootLogin => "permit-root-login",
            Self::BadPattern => "bad-pattern",
        }
    }

    /// What stands behind "not allowed because".
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::UnknownUser => "the user is unknown",
            Self::OtherUser => "the server runs as another user",
            Self::Locked => "account is locked",
            Self::NoShell => "shell does not exist",
            Self::ShellNotExecutable => "shell is not executable",
            Self::DenyUsers => "listed in DenyUsers",
            Self::NotInAllowUsers => "not listed in AllowUsers",
            Self::DenyGroups => "a group is listed in DenyGroups",
            Self::NotInAllowGroups => "none of user's groups are listed in AllowGroups",
            Self::RootLogin => "PermitRootLogin is no",
            Self::BadPattern => "a pattern in Allow or Deny lists is malformed",
        }
    }
}

/// What is known of the account's shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shell {
    Usable,
    Missing,
    NotExecutable,
}

/// The facts about one login attempt.
#[derive(Debug)]
pub(super) struct Facts<'a> {
    pub user: &'a str,
    pub uid: u32,
    pub groups: &'a [String],
    pub locked: bool,
    pub shell: Shell,
    pub address: IpAddr,
    pub host: Option<&'a str>,
    /// Without root: the only user who may log in.
    pub only_uid: Option<u32>,
}

/// Judges an account that exists.
pub(super) fn check(facts: &Facts<'_>, options: &Options) -> Result<(), Refusal> {
    if facts.only_uid.is_some_and(|only| only != facts.uid) {
        return Err(Refusal::OtherUser);
    }
    if facts.locked {
        return Err(Refusal::Locked);
    }
    match facts.shell {
        // With ChrootDirectory the shell is looked for inside of it, by the helper.
        _ if options.chroot_directory.is_some() => {}
        Shell::Usable => {}
        Shell::Missing => return Err(Refusal::NoShell),
        Shell::NotExecutable => return Err(Refusal::ShellNotExecutable),
    }
    check_users(facts, options)?;
    check_groups(facts, options)?;
    // Without root the only user may be root's equal in nothing, so the keyword has no meaning.
    if facts.uid == 0 && options.permit_root_login == PermitRootLogin::No {
        return Err(Refusal::RootLogin);
    }
    Ok(())
}

fn check_users(facts: &Facts<'_>, options: &Options) -> Result<(), Refusal> {
    let listed = |entries: &[String]| -> Result<bool, BadAddress> {
        for entry in entries {
            if matches_user(facts.user, facts.host, facts.address, entry)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if listed(&options.deny_users).map_err(|_| Refusal::BadPattern)? {
        return Err(Refusal::DenyUsers);
    }
    let allowed = listed(&options.allow_users).map_err(|_| Refusal::BadPattern)?;
    if !options.allow_users.is_empty() && !allowed {
        return Err(Refusal::NotInAllowUsers);
    }
    Ok(())
}

fn check_groups(facts: &Facts<'_>, options: &Options) -> Result<(), Refusal> {
    let listed = |patterns: &[String]| {
        patterns.iter().any(|pattern| {
            facts
                .groups
                .iter()
                .any(|group| matches_one(group.as_bytes(), pattern.as_bytes()))
        })
    };
    if listed(&options.deny_groups) {
        return Err(Refusal::DenyGroups);
    }
    if !options.allow_groups.is_empty() && !listed(&options.allow_groups) {
        return Err(Refusal::NotInAllowGroups);
    }
    Ok(())
}

/// Whether root's login with an accepted key may go on (auth_root_allowed()).
pub(super) fn root_permitted(options: &Options, has_forced_command: bool) -> bool {
    match options.permit_root_login {
        PermitRootLogin::Yes | PermitRootLogin::ProhibitPassword => true,
        PermitRootLogin::ForcedCommandsOnly => has_forced_command,
        PermitRootLogin::No => false,
    }
}
