//! Is this the account's password? In two halves: [`Found::read`] with root's rights reads what the
//! shadow file says, [`Found::judge`] without any computes.
//!
//! Whoever has no password that could match costs the same: the hash of another account's kind is
//! computed for nothing.

#![forbid(unsafe_code)]

use std::path::Path;

use zeroize::Zeroizing;

use super::frames::{Verdict, Why};
use super::shadow::{self, Age};
use crate::account;
use crate::limits::PASSWORD_MIN_CHARACTERS;
use crate::ssh::crypto::Random;
use crate::ssh::crypto::password::{self, HashError};

/// What is known of the account before the password is looked at.
#[derive(Debug)]
pub(super) struct Found {
    hash: Zeroizing<Vec<u8>>,
    /// Set where no password can be right: then `hash` is a decoy.
    refused: Option<Why>,
    age: Age,
    /// Until it must be changed, where there are few.
    days_left: Option<i64>,
}

impl Found {
    /// Reads the hash of `name`; of nobody, a decoy.
    pub(super) fn read(shadow: &Path, name: Option<&[u8]>, seed: u64, today: i64) -> Self {
        let file = read_file(shadow);
        let mut found = match name {
            Some(name) => Self::of_account(&file, name, today),
            None => Self::refused(Why::NoPassword),
        };
        if found.refused.is_none() && !found.hash.is_empty() && !password::is_supported(&found.hash)
        {
            found.refused = Some(if is_elsewhere_a_hash(&found.hash) {
                Why::HashUnsupported
            } else {
                Why::NoPassword
            });
        }
        if found.refused.is_some() {
            found.hash = decoy(&file, seed);
        }
        found
    }

    fn of_account(file: &[u8], name: &[u8], today: i64) -> Self {
        let in_passwd = account::lookup(name).map(|account| account.password_field().to_vec());
        match (shadow::find(file, name), in_passwd) {
            // As passwd(5) says: the shadow file has it where passwd has an x, or nothing.
            (Some(Ok(entry)), Some(field)) if field == b"x" || field.is_empty() => Self {
                hash: Zeroizing::new(entry.hash.to_vec()),
                refused: None,
                age: entry.age(today),
                days_left: entry.few_days_left(today),
            },
            (Some(Err(shadow::Malformed)), Some(_)) => Self::refused(Why::LineMalformed),
            (_, Some(field)) if field != b"x" => Self {
                hash: Zeroizing::new(field),
                refused: None,
                age: Age::Good,
                days_left: None,
            },
            _ => Self::refused(Why::NoPassword),
        }
    }

    fn refused(why: Why) -> Self {
        Self {
            hash: Zeroizing::default(),
            refused: Some(why),
            age: Age::Good,
            days_left: None,
        }
    }

    /// Judges `given`, and hashes `new` where the password has expired and is to be changed.
    pub(super) fn judge(&self, given: &[u8], permit_empty: bool, new: Option<&[u8]>) -> Verdict {
        let matches = if self.hash.is_empty() {
            if !permit_empty || !given.is_empty() {
                // As much work as for any other account.
                let _ = std::hint::black_box(password::crypt(given, password::DECOY));
                return refused(Why::Empty);
            }
            Ok(true)
        } else {
            password::matches(given, &self.hash)
        };
        match (self.refused, matches) {
            (Some(why), _) => refused(why),
            // Whatever the hash is of, as OpenSSH's auth_password().
            (None, _) if given.is_empty() && !permit_empty => refused(Why::Empty),
            (None, Err(HashError::Unsupported)) => refused(Why::HashUnsupported),
            (None, Err(_)) => refused(Why::HashUnusable),
            (None, Ok(false)) => refused(Why::Wrong),
            (None, Ok(true)) if given.contains(&0) => refused(Why::Wrong),
            (None, Ok(true)) => match (self.age, new) {
                (Age::ExpiredForGood, _) => refused(Why::ExpiredForGood),
                (Age::Good, _) => Verdict::Matches {
                    days_left: self.days_left,
                },
                (Age::Expired, None) => Verdict::Expired,
                (Age::Expired, Some(new)) => self.hash_of(given, new),
            },
        }
    }

    fn hash_of(&self, old: &[u8], new: &[u8]) -> Verdict {
        if let Some(why) = unfit(old, new) {
            return Verdict::NewRefused { why: why.into() };
        }
        let like = if self.hash.is_empty() {
            password::DECOY
        } else {
            &self.hash
        };
        let hash = password::new_setting(like, &Random::system())
            .ok()
            .and_then(|setting| password::crypt(new, &setting).ok());
        match hash {
            Some(hash) => Verdict::Hashed { hash: hash.into() },
            None => Verdict::Failed {
                what: "the new password could not be hashed".into(),
            },
        }
    }
}

/// `$1$…` and others of that form, or the 13 characters of DES.
fn is_elsewhere_a_hash(hash: &[u8]) -> bool {
    let des = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
    hash.starts_with(b"$") || (hash.len() == 13 && hash.iter().all(des))
}

fn refused(why: Why) -> Verdict {
    Verdict::Refused { why }
}

/// Why a new password will not do.
fn unfit(old: &[u8], new: &[u8]) -> Option<&'static str> {
    let characters = String::from_utf8_lossy(new).chars().count();
    if new == old {
        Some("The new password is the old one.")
    } else if characters < PASSWORD_MIN_CHARACTERS {
        Some("The new password is too short: take at least 8 characters.")
    } else if new.iter().any(|byte| byte.is_ascii_control()) {
        Some("The new password has control characters in it.")
    } else {
        None
    }
}

/// The hash of one of the accounts here: an unknown name takes as long as one of them, always the
/// same, so that time tells no more about names than about kinds of hashes.
fn decoy(file: &[u8], seed: u64) -> Zeroizing<Vec<u8>> {
    let hashes: Vec<&[u8]> = shadow::lines(file)
        .filter_map(|line| shadow::parse(line).ok())
        .map(|entry| entry.hash)
        .filter(|hash| password::is_supported(hash))
        .collect();
    let count = u64::try_from(hashes.len()).unwrap_or(u64::MAX).max(1);
    let picked = usize::try_from(seed % count).ok();
    let hash = picked.and_then(|index| hashes.get(index));
    Zeroizing::new(hash.copied().unwrap_or(password::DECOY).to_vec())
}

fn read_file(path: &Path) -> Zeroizing<Vec<u8>> {
    // Where it cannot be read no account has a password.
    super::read_bounded(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(hash: &str, age: Age) -> Found {
        Found {
            hash: Zeroizing::new(hash.as_bytes().to_vec()),
            refused: None,
            age,
            days_left: None,
        }
    }

    const MATCHES: Verdict = Verdict::Matches { days_left: None };

    fn hash_of(password: &str) -> String {
        String::from_utf8(password::crypt(password.as_bytes(), b"$6$rounds=1000$salt$").unwrap())
            .unwrap()
    }

    #[test]
    fn a_right_password_counts_as_long_as_it_is_young() {
        let hash = hash_of("secret");
        let judge = |age, given: &str| found(&hash, age).judge(given.as_bytes(), false, None);
        assert_eq!(judge(Age::Good, "secret"), MATCHES);
        let told = Found {
            days_left: Some(3),
            ..found(&hash, Age::Good)
        };
        let days_left = Some(3);
        let verdict = told.judge(b"secret", false, None);
        assert_eq!(verdict, Verdict::Matches { days_left });
        assert_eq!(judge(Age::Good, "Secret"), refused(Why::Wrong));
        assert_eq!(judge(Age::Good, ""), refused(Why::Empty));
        assert_eq!(judge(Age::Expired, "secret"), Verdict::Expired);
        assert_eq!(judge(Age::Expired, "wrong"), refused(Why::Wrong));
        assert_eq!(
            judge(Age::ExpiredForGood, "secret"),
            refused(Why::ExpiredForGood)
        );
    }

    #[test]
    fn an_empty_hash_is_no_password_unless_permitted() {
        let judge = |permit, given: &[u8]| found("", Age::Good).judge(given, permit, None);
        assert_eq!(judge(false, b""), refused(Why::Empty));
        assert_eq!(judge(false, b"x"), refused(Why::Empty));
        assert_eq!(judge(true, b"x"), refused(Why::Empty));
        assert_eq!(judge(true, b""), MATCHES);
        // One that was hashed is as empty.
        let hashed = found(&hash_of(""), Age::Good);
        assert_eq!(hashed.judge(b"", false, None), refused(Why::Empty));
        assert_eq!(hashed.judge(b"", true, None), MATCHES);
        let other = found(&hash_of("secret"), Age::Good);
        assert_eq!(other.judge(b"", true, None), refused(Why::Wrong));
    }

    #[test]
    fn what_follows_a_nul_is_not_left_out() {
        let good = found(&hash_of("secret"), Age::Good);
        assert_eq!(good.judge(b"secret\0", false, None), refused(Why::Wrong));
        // bcrypt ends at the NUL, as its C code does.
        let hash = password::crypt(b"secret", b"$2b$04$abcdefghijklmnopqrstuu").unwrap();
        let good = found(std::str::from_utf8(&hash).unwrap(), Age::Good);
        assert_eq!(good.judge(b"secret", false, None), MATCHES);
        assert_eq!(
            good.judge(b"secret\0secret", false, None),
            refused(Why::Wrong)
        );
    }

    #[test]
    fn only_an_expired_password_is_changed_and_only_by_who_knows_it() {
        let hash = hash_of("secret");
        let judge =
            |age, given: &[u8], new: &[u8]| found(&hash, age).judge(given, false, Some(new));
        assert_eq!(judge(Age::Good, b"secret", b"another one"), MATCHES);
        assert_eq!(
            judge(Age::Expired, b"wrong", b"another one"),
            refused(Why::Wrong)
        );
        for new in [&b"secret"[..], b"short", b"with\nnewline", b""] {
            assert!(matches!(
                judge(Age::Expired, b"secret", new),
                Verdict::NewRefused { .. }
            ));
        }
        let Verdict::Hashed { hash } = judge(Age::Expired, b"secret", b"another one") else {
            panic!("not hashed");
        };
        assert!(hash.starts_with(b"$6$rounds=1000$"));
        assert_eq!(password::matches(b"another one", &hash), Ok(true));
    }

    #[test]
    fn an_unknown_name_looks_like_always_the_same_account() {
        let file = b"a:$6$a$x:::::::\nb:*:::::::\nc:$y$j9T$c$x:::::::\nd:$1$d$x:::::::\n";
        let kinds: Vec<_> = (0..4).map(|seed| decoy(file, seed).to_vec()).collect();
        assert_eq!(kinds[0], b"$6$a$x");
        assert_eq!(kinds[1], b"$y$j9T$c$x");
        assert_eq!((&kinds[2], &kinds[3]), (&kinds[0], &kinds[1]));
        assert_eq!(*decoy(b"", 7), password::DECOY);
    }

    #[test]
    fn nobody_and_accounts_without_a_password_get_a_decoy() {
        let directory = std::env::temp_dir().join(format!("agent-shadow-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("shadow");
        let write = |root: &str| {
            let text = format!("root:{root}:19000::::::\nother:$5$salt$hash:19000::::::\n");
            std::fs::write(&path, text).unwrap();
        };
        let why = |name: Option<&[u8]>| {
            let found = Found::read(&path, name, 0, 20000);
            assert!(password::is_supported(&found.hash), "no work for nobody");
            found.refused
        };
        write("*");
        assert_eq!(why(None), Some(Why::NoPassword));
        assert_eq!(why(Some(b"no-such-user-here")), Some(Why::NoPassword));
        assert_eq!(why(Some(b"root")), Some(Why::NoPassword));
        write("!$6$salt$hash");
        assert_eq!(why(Some(b"root")), Some(Why::NoPassword));
        write("$1$salt$hash");
        assert_eq!(why(Some(b"root")), Some(Why::HashUnsupported));
        write("abJnggxhB/yWI");
        assert_eq!(why(Some(b"root")), Some(Why::HashUnsupported));
        write("$6$salt$hash:never");
        assert_eq!(why(Some(b"root")), Some(Why::LineMalformed));
        write("$6$salt$hash");
        assert_eq!(why(Some(b"root")), None);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(why(Some(b"root")), Some(Why::NoPassword));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
