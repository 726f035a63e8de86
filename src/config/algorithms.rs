//! Algorithm lists: `+`, `-`, `^` and wildcards over OpenSSH's names, of which we serve some.
//!
//! A name that OpenSSH knows and we do not serve is dropped with a warning, so that hardened
//! configurations carry over; a name that nobody knows is an error, as it is in sshd.

use crate::pattern::{Outcome, matches_list, matches_one};

/// The keywords that take such a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kex,
    Cipher,
    Mac,
    /// HostKeyAlgorithms.
    HostKey,
    /// PubkeyAcceptedAlgorithms.
    UserKey,
    /// CASignatureAlgorithms.
    Authority,
}

/// A list as it will be offered, and what of it was dropped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chosen {
    pub served: Vec<String>,
    /// Names known to OpenSSH that this server does not have.
    pub dropped: Vec<String>,
}

const KEX: &[&str] = &[
    "mlkem768x25519-sha256",
    #[cfg(feature = "sntrup761")]
    "sntrup761x25519-sha512",
    #[cfg(feature = "sntrup761")]
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
];
const CIPHERS: &[&str] = &[
    "chacha20-poly1305@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
];
const MACS: &[&str] = &[
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
];
/// OpenSSH's names beyond ours.
const OTHER_KEX: &[&str] = &[
    #[cfg(not(feature = "sntrup761"))]
    "sntrup761x25519-sha512",
    #[cfg(not(feature = "sntrup761"))]
    "sntrup761x25519-sha512@openssh.com",
    "mlkem768nistp256-sha256",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group-exchange-sha1",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group14-sha256",
    "diffie-hellman-group14-sha1",
    "diffie-hellman-group1-sha1",
];
const OTHER_CIPHERS: &[&str] = &[
    "aes128-cbc",
    "aes192-cbc",
    "aes256-cbc",
    "3des-cbc",
    "rijndael-cbc@lysator.liu.se",
];
const OTHER_MACS: &[&str] = &[
    "umac-64-etm@openssh.com",
    "umac-128-etm@openssh.com",
    "hmac-sha1-etm@openssh.com",
    "umac-64@openssh.com",
    "umac-128@openssh.com",
    "hmac-sha1",
    "hmac-sha1-96",
    "hmac-sha1-96-etm@openssh.com",
    "hmac-md5",
    "hmac-md5-96",
    "hmac-md5-etm@openssh.com",
    "hmac-md5-96-etm@openssh.com",
];
const ALL: &[Kind] = &[Kind::HostKey, Kind::UserKey, Kind::Authority];
/// A certificate is none to sign certificates with.
const KEYS: &[Kind] = &[Kind::HostKey, Kind::UserKey];
/// Verified only.
const SIGNERS: &[Kind] = &[Kind::UserKey, Kind::Authority];
const USERS: &[Kind] = &[Kind::UserKey];
const NOBODY: &[Kind] = &[];
/// All of OpenSSH's signature algorithms in its order, and which keywords serve them here.
const SIGNATURES: &[(&str, &[Kind])] = &[
    ("ssh-ed25519-cert-v01@openssh.com", KEYS),
    ("ecdsa-sha2-nistp256-cert-v01@openssh.com", KEYS),
    ("ecdsa-sha2-nistp384-cert-v01@openssh.com", KEYS),
    ("ecdsa-sha2-nistp521-cert-v01@openssh.com", USERS),
    ("sk-ssh-ed25519-cert-v01@openssh.com", USERS),
    ("sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", USERS),
    (
        "webauthn-sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
        USERS,
    ),
    ("rsa-sha2-512-cert-v01@openssh.com", KEYS),
    ("rsa-sha2-256-cert-v01@openssh.com", KEYS),
    ("ssh-rsa-cert-v01@openssh.com", NOBODY),
    ("ssh-dss-cert-v01@openssh.com", NOBODY),
    ("ssh-ed25519", ALL),
    ("ecdsa-sha2-nistp256", ALL),
    ("ecdsa-sha2-nistp384", ALL),
    ("ecdsa-sha2-nistp521", SIGNERS),
    ("sk-ssh-ed25519@openssh.com", SIGNERS),
    ("sk-ecdsa-sha2-nistp256@openssh.com", SIGNERS),
    ("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", USERS),
    ("ssh-mldsa44-ed25519@openssh.com", NOBODY),
    ("rsa-sha2-512", ALL),
    ("rsa-sha2-256", ALL),
    ("ssh-rsa", NOBODY),
    ("ssh-dss", NOBODY),
];

impl Kind {
    /// What this build serves, in the order of the default offer.
    pub fn served(self) -> Vec<&'static str> {
        match self {
            Self::Kex => KEX.to_vec(),
            Self::Cipher => CIPHERS.to_vec(),
            Self::Mac => MACS.to_vec(),
            Self::HostKey | Self::UserKey | Self::Authority => {
                signatures(|kinds| kinds.contains(&self))
            }
        }
    }

    /// Names that OpenSSH knows; those that are served may be among them.
    fn known(self) -> Vec<&'static str> {
        match self {
            Self::Kex => OTHER_KEX.to_vec(),
            Self::Cipher => OTHER_CIPHERS.to_vec(),
            Self::Mac => OTHER_MACS.to_vec(),
            Self::HostKey | Self::UserKey | Self::Authority => signatures(|_| true),
        }
    }

    /// The default offer.
    pub fn default_list(self) -> Vec<String> {
        self.served().into_iter().map(str::to_owned).collect()
    }

    /// Applies a list as it stands in the configuration.
    ///
    /// # Errors
    ///
    /// A phrase that names what is unknown, or says that nothing is left.
    pub fn choose(self, list: &str) -> Result<Chosen, String> {
        let defaults = self.default_list();
        let chosen = match list.split_at_checked(1) {
            Some(("+", names)) => self.expand(&defaults, names, &[])?,
            Some(("^", names)) => self.expand(&[], names, &defaults)?,
            Some(("-", patterns)) => Chosen {
                served: without(&defaults, patterns),
                dropped: Vec::new(),
            },
            _ => self.expand(&[], list, &[])?,
        };
        // Of users' keys none at all is safe, and a Match block may add some.
        let is_of_users = matches!(self, Self::UserKey | Self::Authority);
        if chosen.served.is_empty() && (!is_of_users || chosen.dropped.is_empty()) {
            return Err(format!(
                "nothing of \"{list}\" is served here; served are {}",
                self.served().join(",")
            ));
        }
        Ok(chosen)
    }

    /// `before`, then the names of `list`, then `after`, each once.
    fn expand(self, before: &[String], list: &str, after: &[String]) -> Result<Chosen, String> {
        let mut chosen = Chosen {
            served: before.to_vec(),
            dropped: Vec::new(),
        };
        for name in list.split(',') {
            let served = self.matching(name, &self.served());
            let mut others = self.matching(name, &self.known());
            others.retain(|name| !served.contains(name));
            if served.is_empty() && others.is_empty() {
                return Err(format!(
                    "\"{name}\" is not an algorithm that OpenSSH or this server knows; served are {}",
                    self.served().join(",")
                ));
            }
            add_new(&mut chosen.served, served);
            add_new(&mut chosen.dropped, others);
        }
        add_new(&mut chosen.served, after.to_vec());
        Ok(chosen)
    }

    /// Wildcards are OpenSSH's for signature algorithms only.
    fn matching(self, name: &str, names: &[&str]) -> Vec<String> {
        let wild = !matches!(self, Self::Kex | Self::Cipher | Self::Mac);
        let matches =
            |known: &str| known == name || (wild && matches_one(known.as_bytes(), name.as_bytes()));
        names
            .iter()
            .filter(|known| matches(known))
            .map(|&known| known.to_owned())
            .collect()
    }
}

fn signatures(is_wanted: impl Fn(&[Kind]) -> bool) -> Vec<&'static str> {
    let wanted = SIGNATURES.iter().filter(|(_, kinds)| is_wanted(kinds));
    wanted.map(|(name, _)| *name).collect()
}

fn add_new(list: &mut Vec<String>, names: Vec<String>) {
    for name in names {
        if !list.contains(&name) {
            list.push(name);
        }
    }
}

fn without(names: &[String], patterns: &str) -> Vec<String> {
    let kept = |name: &&String| matches_list(name.as_bytes(), patterns.as_bytes()) == Outcome::No;
    names.iter().filter(kept).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ssh::crypto::public_key::KeyType;

    #[test]
    fn a_plain_list_keeps_its_order_and_drops_what_is_not_served() {
        let chosen = Kind::Cipher
            .choose("aes256-ctr,aes128-cbc,aes128-ctr")
            .unwrap();
        assert_eq!(chosen.served, ["aes256-ctr", "aes128-ctr"]);
        assert_eq!(chosen.dropped, ["aes128-cbc"]);
    }

    #[test]
    fn plus_adds_minus_removes_and_caret_moves_to_the_front() {
        let plus = Kind::Mac.choose("+hmac-sha1,hmac-sha2-256").unwrap();
        assert_eq!(plus.served, Kind::Mac.default_list());
        assert_eq!(plus.dropped, ["hmac-sha1"]);
        let minus = Kind::Cipher.choose("-aes*").unwrap();
        assert_eq!(minus.served, ["chacha20-poly1305@openssh.com"]);
        let caret = Kind::Cipher.choose("^aes256-ctr").unwrap();
        assert_eq!(caret.served[0], "aes256-ctr");
        assert_eq!(caret.served.len(), Kind::Cipher.served().len());
    }

    #[test]
    fn wildcards_name_signature_algorithms() {
        let chosen = Kind::UserKey
            .choose("rsa-sha2-*,ssh-ed25519*,ssh-dss")
            .unwrap();
        assert_eq!(
            chosen.served,
            [
                "rsa-sha2-512-cert-v01@openssh.com",
                "rsa-sha2-256-cert-v01@openssh.com",
                "rsa-sha2-512",
                "rsa-sha2-256",
                "ssh-ed25519-cert-v01@openssh.com",
                "ssh-ed25519",
            ]
        );
        assert_eq!(chosen.dropped, ["ssh-dss"]);
        assert!(Kind::Cipher.choose("aes*").is_err());
    }

    #[test]
    fn each_keyword_serves_what_can_stand_there() {
        let authority = Kind::Authority.choose("ssh-ed25519*").unwrap();
        assert_eq!(authority.served, ["ssh-ed25519"]);
        assert_eq!(authority.dropped, ["ssh-ed25519-cert-v01@openssh.com"]);
        let host = Kind::HostKey.choose("*ed25519*").unwrap();
        assert!(host.served.iter().all(|name| !name.starts_with("sk-")));
        let mut of_types: Vec<&str> = KeyType::ALL
            .into_iter()
            .flat_map(|it| it.algorithms().chain(it.certificate_algorithms()))
            .collect();
        let mut served = Kind::UserKey.served();
        of_types.sort_unstable();
        served.sort_unstable();
        assert_eq!(served, of_types);
        let minus = Kind::UserKey.choose("-*cert*,*sk-*").unwrap();
        assert_eq!(minus.served.len(), 6);
    }

    #[test]
    fn users_may_be_left_without_a_key_that_is_served() {
        let chosen = Kind::UserKey.choose("ssh-dss,ssh-rsa").unwrap();
        assert!(chosen.served.is_empty());
        assert_eq!(chosen.dropped, ["ssh-dss", "ssh-rsa"]);
    }

    #[test]
    fn unknown_names_and_empty_results_are_errors() {
        for (kind, list) in [
            (Kind::Cipher, "rot13"),
            (Kind::Cipher, ""),
            (Kind::Cipher, "aes256-ctr,"),
            (Kind::Cipher, "aes128-cbc"),
            (Kind::Cipher, "-*"),
            (Kind::HostKey, "ssh-rsa"),
            (Kind::UserKey, "-*"),
            (Kind::UserKey, "+"),
            (Kind::Kex, "^nonsense"),
        ] {
            assert!(kind.choose(list).is_err(), "{kind:?} {list:?}");
        }
    }
}
