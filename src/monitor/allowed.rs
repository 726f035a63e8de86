//! Whether an account may log in at all: what OpenSSH's allowed_user() asks, in its words.

use std::net::IpAddr;

use super::methods::Way;
use crate::config::Options;
use crate::config::options::PermitRootLogin;
use crate::pattern::{BadAddress, matches_one, matches_user};

/// Why an account may not log in. The code is stable; scripts may rely on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    UnknownUser,
    OtherUser,
    Unreadable,
    Locked,
    Expired,
    NoShell,
    ShellNotExecutable,
    DenyUsers,
    NotInAllowUsers,
    NoGroups,
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
            Self::Unreadable => "account-unreadable",
            Self::Locked => "account-locked",
            Self::Expired => "account-expired",
            Self::NoShell => "no-shell",
            Self::ShellNotExecutable => "shell-not-executable",
            Self::DenyUsers => "deny-users",
            Self::NotInAllowUsers => "not-in-allow-users",
            Self::NoGroups => "no-groups",
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
            Self::Unreadable => "its line in shadow cannot be read",
            Self::Locked => "account is locked",
            Self::Expired => "account has expired",
            Self::NoShell => "shell does not exist",
            Self::ShellNotExecutable => "shell is not executable",
            Self::DenyUsers => "listed in DenyUsers",
            Self::NotInAllowUsers => "not listed in AllowUsers",
            Self::NoGroups => "not in any group",
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
    /// Whether the account is locked or expired could not be found out.
    pub unreadable: bool,
    pub locked: bool,
    pub expired: bool,
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
    if facts.unreadable {
        return Err(Refusal::Unreadable);
    }
    if facts.locked {
        return Err(Refusal::Locked);
    }
    if facts.expired {
        return Err(Refusal::Expired);
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
    let asked = !options.deny_groups.is_empty() || !options.allow_groups.is_empty();
    // Without a name for one of its groups nothing says that the account is not in a denied one.
    if asked && facts.groups.is_empty() {
        return Err(Refusal::NoGroups);
    }
    if listed(&options.deny_groups) {
        return Err(Refusal::DenyGroups);
    }
    if !options.allow_groups.is_empty() && !listed(&options.allow_groups) {
        return Err(Refusal::NotInAllowGroups);
    }
    Ok(())
}

/// Whether root's login by a method that succeeded may go on (auth_root_allowed()): with
/// `forced-commands-only` it is the key's own command that counts, not that of ForceCommand.
pub(super) fn root_permitted(options: &Options, key_forces_command: bool, way: Way) -> bool {
    match options.permit_root_login {
        PermitRootLogin::Yes => true,
        PermitRootLogin::ProhibitPassword => way == Way::PublicKey,
        PermitRootLogin::ForcedCommandsOnly => way == Way::PublicKey && key_forces_command,
        PermitRootLogin::No => false,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::{Config, Subject};

    fn options(text: &str) -> Options {
        let config = Config::from_text(text.as_bytes(), true).unwrap().config;
        let address = "192.0.2.7".parse().unwrap();
        config.effective(&Subject {
            user: Some("alice"),
            groups: &[],
            invalid_user: false,
            address,
            host: None,
            local_address: address,
            local_port: 22,
        })
    }

    fn judge(text: &str, change: impl FnOnce(&mut Facts<'_>)) -> Result<(), Refusal> {
        let groups = ["users".to_owned(), "audio".to_owned()];
        let mut facts = Facts {
            user: "alice",
            uid: 1000,
            groups: &groups,
            unreadable: false,
            locked: false,
            expired: false,
            shell: Shell::Usable,
            address: "192.0.2.7".parse().unwrap(),
            host: None,
            only_uid: None,
        };
        change(&mut facts);
        check(&facts, &options(text))
    }

    fn refused(text: &str) -> Option<Refusal> {
        judge(text, |_| {}).err()
    }

    #[test]
    fn users_are_denied_before_they_are_allowed() {
        assert_eq!(refused(""), None);
        assert_eq!(refused("AllowUsers alice bob\n"), None);
        assert_eq!(refused("AllowUsers bob\n"), Some(Refusal::NotInAllowUsers));
        assert_eq!(
            refused("AllowUsers al*\nDenyUsers alice\n"),
            Some(Refusal::DenyUsers)
        );
        assert_eq!(refused("AllowUsers alice@192.0.2.0/24\n"), None);
        assert_eq!(
            refused("AllowUsers alice@198.51.100.0/24\n"),
            Some(Refusal::NotInAllowUsers)
        );
    }

    #[test]
    fn one_group_is_enough_to_allow_and_to_deny() {
        assert_eq!(refused("AllowGroups audio\n"), None);
        assert_eq!(
            refused("AllowGroups wheel\n"),
            Some(Refusal::NotInAllowGroups)
        );
        assert_eq!(
            refused("DenyGroups wheel aud*\n"),
            Some(Refusal::DenyGroups)
        );
    }

    #[test]
    fn groups_without_names_are_no_way_around_the_lists() {
        for list in ["DenyGroups wheel\n", "AllowGroups *\n"] {
            let nameless = judge(list, |facts| facts.groups = &[]);
            assert_eq!(nameless, Err(Refusal::NoGroups), "{list}");
        }
        assert_eq!(judge("", |facts| facts.groups = &[]), Ok(()));
    }

    #[test]
    fn locked_accounts_and_unusable_shells_are_refused() {
        assert_eq!(judge("", |facts| facts.locked = true), Err(Refusal::Locked));
        assert_eq!(
            judge("", |facts| facts.unreadable = true),
            Err(Refusal::Unreadable)
        );
        assert_eq!(
            judge("", |facts| facts.expired = true),
            Err(Refusal::Expired)
        );
        assert_eq!(
            judge("", |facts| facts.shell = Shell::Missing),
            Err(Refusal::NoShell)
        );
        assert_eq!(
            judge("", |facts| facts.shell = Shell::NotExecutable),
            Err(Refusal::ShellNotExecutable)
        );
        // Inside of a ChrootDirectory it may exist.
        assert_eq!(
            judge("ChrootDirectory /srv\n", |facts| facts.shell =
                Shell::Missing),
            Ok(())
        );
    }

    #[test]
    fn a_server_without_root_has_one_user() {
        assert_eq!(judge("", |facts| facts.only_uid = Some(1000)), Ok(()));
        assert_eq!(
            judge("", |facts| facts.only_uid = Some(1001)),
            Err(Refusal::OtherUser)
        );
    }

    #[test]
    fn root_needs_what_permit_root_login_says() {
        let root = |facts: &mut Facts<'_>| facts.uid = 0;
        assert_eq!(judge("PermitRootLogin no\n", root), Err(Refusal::RootLogin));
        for (value, plain, forced) in [
            ("yes", true, true),
            ("prohibit-password", true, true),
            ("forced-commands-only", false, true),
            ("no", false, false),
        ] {
            let options = options(&format!("PermitRootLogin {value}\n"));
            let permitted = |forced, way| root_permitted(&options, forced, way);
            assert_eq!(permitted(false, Way::PublicKey), plain, "{value}");
            assert_eq!(permitted(true, Way::PublicKey), forced, "{value}");
            for way in [Way::Password, Way::KeyboardInteractive, Way::Nothing] {
                assert_eq!(permitted(false, way), value == "yes", "{value}");
                assert_eq!(permitted(true, way), value == "yes", "{value}");
            }
        }
    }
}
