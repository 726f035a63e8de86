//! The environment of a session, exactly as OpenSSH's sshd sets it up: in this order, a later
//! setting taking the place of an earlier one.
//!
//! Client's `env` requests; USER to TZ; TERM; `environment=` of the key; `~/.ssh/environment`;
//! `SetEnv`; SSH_CLIENT, SSH_CONNECTION, SSH_TTY, SSH_ORIGINAL_COMMAND. Source: sshd(8) LOGIN
//! PROCESS and ENVIRONMENT.
#![forbid(unsafe_code)]

use alloc::ffi::CString;
use alloc::vec::Vec;

use crate::frame::Policy;
use crate::pattern::{admits, matches};
use crate::text::{c_string, decimal, split};
use crate::wire::Bytes;

/// `env` requests taken, as sshd: more are ignored.
const CLIENT_VARIABLES_MAX: usize = 128;
/// Lines of `~/.ssh/environment` taken.
const FILE_LINES_MAX: u32 = 1000;

/// Variables in order.
#[derive(Debug, Default)]
pub struct Environment {
    entries: Vec<CString>,
}

impl Environment {
    /// Sets `name` to `value`; a name that is set keeps its place. What cannot be an entry is left out.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        if name.is_empty() || name.contains(&b'=') {
            return;
        }
        let Ok(entry) = c_string(&[name, b"=", value].concat()) else {
            return;
        };
        let same = |old: &&mut CString| {
            old.to_bytes()
                .strip_prefix(name)
                .is_some_and(|rest| rest.first() == Some(&b'='))
        };
        match self.entries.iter_mut().find(same) {
            Some(old) => *old = entry,
            None => self.entries.push(entry),
        }
    }

    /// The entries for exec.
    pub fn entries(&self) -> &[CString] {
        &self.entries
    }

    /// Sets those of `variables` whose names are wanted, the first `most` of them.
    #[inline(never)]
    fn set_all(
        &mut self,
        variables: &[(Bytes, Bytes)],
        most: usize,
        is_wanted: &dyn Fn(&[u8]) -> bool,
    ) {
        let wanted = variables.iter().filter(|(name, _)| is_wanted(name));
        for (name, value) in wanted.take(most) {
            self.set(name, value);
        }
    }

    #[inline(never)]
    fn set_if_any(&mut self, name: &[u8], value: Option<&[u8]>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }
}

/// What a session adds to the policy's variables.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionVariables<'a> {
    /// `env` requests as `net` passed them on.
    pub client: &'a [(Bytes, Bytes)],
    /// TERM and the terminal's path.
    pub terminal: Option<(&'a [u8], &'a [u8])>,
    /// DISPLAY.
    pub display: Option<&'a [u8]>,
    /// What the client asked for where something else is run.
    pub original_command: Option<&'a [u8]>,
    /// Path of the file that says how the user logged in.
    pub auth_info: Option<&'a [u8]>,
    /// Content of `~/.ssh/environment`, if it is to be honoured.
    pub file: Option<&'a [u8]>,
}

/// Builds the environment; the second value is complaints for the session's stderr.
pub fn build(policy: &Policy, session: &SessionVariables<'_>) -> (Environment, Vec<u8>) {
    let mut environment = Environment::default();
    let mut complaints = Vec::new();
    let is_accepted = |name: &[u8]| {
        let mut patterns = policy.accept_env.iter();
        patterns.any(|pattern| matches(name, pattern))
    };
    let is_about_connection = |name: &[u8]| name.starts_with(b"SSH_");
    let (term, terminal) = session.terminal.unzip();
    environment.set_all(session.client, CLIENT_VARIABLES_MAX, &is_accepted);
    environment.set_all(&policy.environment, usize::MAX, &|name| {
        !is_about_connection(name)
    });
    // As in sshd: a terminal without a name leaves TERM alone.
    environment.set_if_any(b"TERM", term.filter(|term| !term.is_empty()));
    environment.set_if_any(b"DISPLAY", session.display);
    environment.set_all(&policy.key_environment, usize::MAX, &|_| true);
    if let Some(file) = session.file {
        add_file(&mut environment, file, policy, &mut complaints);
    }
    environment.set_all(&policy.set_env, usize::MAX, &|_| true);
    environment.set_all(&policy.environment, usize::MAX, &is_about_connection);
    environment.set_if_any(b"SSH_USER_AUTH", session.auth_info);
    environment.set_if_any(b"SSH_TTY", terminal);
    environment.set_if_any(b"SSH_ORIGINAL_COMMAND", session.original_command);
    (environment, complaints)
}

/// `NAME=value` lines; empty ones and those that begin with `#` are skipped.
fn add_file(environment: &mut Environment, file: &[u8], policy: &Policy, complaints: &mut Vec<u8>) {
    for (number, line) in (1..=FILE_LINES_MAX).zip(split(file, b'\n')) {
        let start = line.iter().position(|&byte| byte != b' ' && byte != b'\t');
        let line = start
            .and_then(|start| line.get(start..))
            .unwrap_or_default();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match line.iter().position(|&byte| byte == b'=') {
            Some(end) => {
                let (name, value) = line.split_at(end);
                if admits(&policy.user_environment, name) {
                    environment.set(name, value.get(1..).unwrap_or_default());
                }
            }
            None => {
                let number = decimal(number);
                let text = [b"Bad line ", &*number, b" in ~/.ssh/environment\n"].concat();
                complaints.extend_from_slice(&text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(Bytes, Bytes)> {
        list.iter()
            .map(|&(name, value)| (name.into(), value.into()))
            .collect()
    }

    fn lines(environment: &Environment) -> Vec<&str> {
        environment
            .entries()
            .iter()
            .map(|entry| entry.to_str().expect("text"))
            .collect()
    }

    fn policy() -> Policy {
        Policy {
            environment: pairs(&[
                ("USER", "alice"),
                ("HOME", "/home/alice"),
                ("PATH", "/bin"),
                ("SSH_CLIENT", "192.0.2.1 1 22"),
                ("SSH_CONNECTION", "192.0.2.1 1 192.0.2.2 22"),
            ]),
            ..Policy::default()
        }
    }

    #[test]
    fn a_plain_session_has_exactly_the_base() {
        let (environment, _) = build(&policy(), &SessionVariables::default());
        assert_eq!(
            lines(&environment),
            [
                "USER=alice",
                "HOME=/home/alice",
                "PATH=/bin",
                "SSH_CLIENT=192.0.2.1 1 22",
                "SSH_CONNECTION=192.0.2.1 1 192.0.2.2 22"
            ]
        );
    }

    #[test]
    fn later_settings_win_over_earlier_ones() {
        let policy = Policy {
            accept_env: alloc::vec!["*".into()],
            key_environment: pairs(&[("A", "key"), ("B", "key"), ("C", "key")]),
            user_environment: alloc::vec!["*".into()],
            set_env: pairs(&[("C", "set"), ("TERM", "set")]),
            ..policy()
        };
        let client = pairs(&[
            ("A", "client"),
            ("PATH", "client"),
            ("SSH_CLIENT", "forged"),
            ("SSH_ORIGINAL_COMMAND", "forged"),
            ("SSH_TTY", "forged"),
            ("TERM", "client"),
        ]);
        let session = SessionVariables {
            display: Some(b"localhost:10.0"),
            client: &client,
            terminal: Some((b"xterm", b"/dev/pts/3")),
            original_command: Some(b"id"),
            auth_info: Some(b"/tmp/sshauth.1.0"),
            file: Some(b"# comment\n\n  B=file\nC=file\nSSH_CLIENT=file\nnonsense\n"),
        };
        let (environment, complaints) = build(&policy, &session);
        assert_eq!(
            lines(&environment),
            [
                "A=key",
                "PATH=/bin",
                "SSH_CLIENT=192.0.2.1 1 22",
                "SSH_ORIGINAL_COMMAND=id",
                "SSH_TTY=/dev/pts/3",
                "TERM=set",
                "USER=alice",
                "HOME=/home/alice",
                "DISPLAY=localhost:10.0",
                "B=file",
                "C=set",
                "SSH_CONNECTION=192.0.2.1 1 192.0.2.2 22",
                "SSH_USER_AUTH=/tmp/sshauth.1.0"
            ]
        );
        assert_eq!(complaints, b"Bad line 6 in ~/.ssh/environment\n");
    }

    #[test]
    fn a_terminal_without_a_name_leaves_term_alone() {
        let session = |term| SessionVariables {
            terminal: Some((term, &b"/dev/pts/3"[..])),
            ..SessionVariables::default()
        };
        let named = build(&Policy::default(), &session(b"vt100")).0;
        assert_eq!(lines(&named), ["TERM=vt100", "SSH_TTY=/dev/pts/3"]);
        let nameless = build(&Policy::default(), &session(b"")).0;
        assert_eq!(lines(&nameless), ["SSH_TTY=/dev/pts/3"]);
    }

    #[test]
    fn only_accepted_names_come_from_the_client_and_not_too_many() {
        let policy = Policy {
            accept_env: alloc::vec!["LC_*".into()],
            ..Policy::default()
        };
        let mut client = pairs(&[
            ("LD_PRELOAD", "/x"),
            ("LC_ALL", "C"),
            ("LC_=", "x"),
            ("", "x"),
        ]);
        client.push((Bytes::from("LC_NUL"), Bytes(alloc::vec![b'a', 0, b'b'])));
        for number in 0..500 {
            client.push((
                Bytes::from(alloc::format!("LC_{number}").as_str()),
                "x".into(),
            ));
        }
        let session = SessionVariables {
            client: &client,
            ..SessionVariables::default()
        };
        let (environment, _) = build(&policy, &session);
        assert_eq!(lines(&environment).first(), Some(&"LC_ALL=C"));
        assert!(environment.entries().len() <= CLIENT_VARIABLES_MAX);
        assert!(
            lines(&environment)
                .iter()
                .all(|line| line.starts_with("LC_"))
        );
    }
}
