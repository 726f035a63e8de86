//! Refusals: each has a reason with a code that does not change, a line in the log, a place among
//! the last ones that are remembered, and a sentence that says what to change.
//!
//! docs/refusals.md shows the codes to users; a test holds the two together. The client is told none
//! of it.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::Monitor;
use super::ids::ConnectionKey;
use super::log as lines;
use crate::limits::{REFUSALS_REMEMBERED, REMEMBERED_NAME_BYTES};

/// Every reason, with what to do about it.
const REASONS: &[(&str, &str)] = &[
    (
        "unknown-user",
        "create the account, or spell the name as passwd does",
    ),
    (
        "not-the-servers-user",
        "log in as the user who runs the server, or run it as root",
    ),
    (
        "account-unreadable",
        "repair /etc/shadow, or free descriptors and memory",
    ),
    ("account-locked", "unlock the account: usermod -U NAME"),
    (
        "account-expired",
        "give the account a later date: chage -E DATE NAME",
    ),
    ("no-shell", "give the account a shell that exists: chsh"),
    (
        "shell-not-executable",
        "make the shell executable, or give the account another",
    ),
    ("deny-users", "take the user out of DenyUsers"),
    ("not-in-allow-users", "add the user to AllowUsers"),
    (
        "no-groups",
        "give the groups of the account names: AllowGroups and DenyGroups go by them",
    ),
    (
        "deny-groups",
        "take the group out of DenyGroups, or the user out of the group",
    ),
    (
        "not-in-allow-groups",
        "add one of the user's groups to AllowGroups",
    ),
    (
        "permit-root-login",
        "use another account, or change PermitRootLogin",
    ),
    (
        "bad-pattern",
        "correct the Allow and Deny lists: agent check names the mistake",
    ),
    (
        "method",
        "offer a method that is on and next: see AuthenticationMethods",
    ),
    (
        "password-wrong",
        "type the right one, or set it anew: passwd NAME",
    ),
    ("password-none", "set a password: passwd NAME"),
    (
        "password-empty",
        "set a password: passwd NAME; or PermitEmptyPasswords",
    ),
    (
        "password-hash",
        "set the password anew: its hash is of a kind that is not accepted",
    ),
    (
        "password-hash-unusable",
        "set the password anew: its hash is damaged, or wants too much memory",
    ),
    (
        "password-expired",
        "set it anew: it expired longer ago than the account's inactivity period",
    ),
    ("password-line", "correct the account's line in /etc/shadow"),
    (
        "password-not-changed",
        "choose another new password, or have it set: passwd NAME",
    ),
    (
        "password-unchecked",
        "see the line before: the password could not be looked at",
    ),
    (
        "password-answers",
        "use another client: it did not answer what it was asked",
    ),
    (
        "max-auth-tries",
        "offer one key: ssh -o IdentitiesOnly=yes -i KEY; or raise MaxAuthTries",
    ),
    (
        "max-logins-per-user",
        "end one of the user's logins, or raise MaxLoginsPerUser",
    ),
    ("login-grace-time", "raise LoginGraceTime for slow clients"),
    (
        "hand-over",
        "see the line before: the accepted login could not be started",
    ),
    (
        "penalty",
        "wait, or clear it, or list the address in PerSourcePenaltyExemptList",
    ),
    ("refuse-connection", "change RefuseConnection"),
    (
        "max-startups",
        "raise MaxStartups, or find who opens so many connections",
    ),
    (
        "per-source-max-startups",
        "raise PerSourceMaxStartups, or find who opens so many connections",
    ),
    (
        "descriptors",
        "raise the limit on open files of the server's process",
    ),
    ("key-unknown", "add the key to authorized_keys"),
    ("key-option-from", "change from= in the key's line"),
    (
        "key-option-expiry-time",
        "change expiry-time= in the key's line",
    ),
    (
        "key-line-malformed",
        "correct the key's line: the line before names file and option",
    ),
    ("strict-modes", "chmod go-w ~ ~/.ssh ~/.ssh/authorized_keys"),
    (
        "keys-unreadable",
        "see the line before: the key files could not be read",
    ),
    (
        "keys-command",
        "see the line before: AuthorizedKeysCommand failed",
    ),
    (
        "principals-command",
        "see the line before: AuthorizedPrincipalsCommand failed",
    ),
    (
        "key-algorithm",
        "use another key, or add its algorithm to PubkeyAcceptedAlgorithms",
    ),
    ("key-size", "make a longer key: ssh-keygen -t ed25519"),
    (
        "key-malformed",
        "use another client: what it sent is not a key",
    ),
    (
        "key-used-before",
        "offer another key for the second step of AuthenticationMethods",
    ),
    ("key-not-touched", "touch the security key"),
    (
        "key-user-not-verified",
        "make the key with ssh-keygen -O verify-required",
    ),
    (
        "signature",
        "look at the client's agent: it has another private key than it says",
    ),
    (
        "signature-unchecked",
        "look for a flood of logins: too many signatures waited to be looked at",
    ),
    ("host-bound", "find who stands between client and server"),
    ("revoked", "use another key: RevokedKeys has this one"),
    ("revoked-unreadable", "mend the file that RevokedKeys names"),
    (
        "cert-authority-unknown",
        "list the authority in TrustedUserCAKeys, or by cert-authority",
    ),
    (
        "cert-authority-unreadable",
        "mend the file that TrustedUserCAKeys names",
    ),
    (
        "cert-principal",
        "sign the certificate for this user: ssh-keygen -n NAME",
    ),
    (
        "cert-principals-line",
        "correct the line of principals that the line before names",
    ),
    (
        "cert-expired",
        "renew the certificate, and look at the clock",
    ),
    (
        "cert-not-yet-valid",
        "look at the clock, and at CertificateClockFloor",
    ),
    (
        "cert-source-address",
        "sign the certificate for this client's address",
    ),
    (
        "cert-critical-option",
        "sign the certificate without the option that is not known here",
    ),
    (
        "cert-force-command",
        "make the commands of certificate and key line equal",
    ),
    (
        "cert-signature-algorithm",
        "sign with an algorithm of CASignatureAlgorithms",
    ),
    (
        "deny-certificate-ids",
        "take the certificate's key id out of DenyCertificateIds",
    ),
    (
        "not-in-allow-certificate-ids",
        "add the certificate's key id to AllowCertificateIds",
    ),
    ("cert-type", "sign the certificate for users, without -h"),
    ("cert-malformed", "sign the certificate anew: it is damaged"),
    (
        "cert-signature",
        "find who made it up or changed it: the authority that it names did not sign it",
    ),
];

/// What to do about a reason.
pub(super) fn advice(reason: &str) -> Option<&'static str> {
    let row = REASONS.iter().find(|(code, _)| *code == reason);
    row.map(|(_, advice)| *advice)
}

/// Somebody who was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Seconds since 1970.
    pub at_s: i64,
    /// As the client spells it, cut; not said yet where there is none.
    pub user: Option<Vec<u8>>,
    pub address: IpAddr,
    pub port: u16,
    pub reason: &'static str,
}

/// The last refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    recent: VecDeque<Record>,
}

impl Refusals {
    fn remember(&mut self, record: Record) {
        if self.recent.len() >= REFUSALS_REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(record);
    }
}

/// For whoever looks at a running server.
impl Refusals {
    /// The last refusals, the latest first: of a user, from an address, or all.
    pub(super) fn about<'a>(&'a self, whom: Option<&'a str>) -> impl Iterator<Item = &'a Record> {
        let address: Option<IpAddr> = whom.and_then(|whom| whom.parse().ok());
        self.recent.iter().rev().filter(move |record| match whom {
            None => true,
            Some(whom) => {
                address == Some(record.address) || record.user.as_deref() == Some(whom.as_bytes())
            }
        })
    }
}

impl Monitor {
    /// Says and remembers that a connection was refused, under the name that it gave.
    pub(super) fn refused(
        &mut self,
        key: ConnectionKey,
        user: Option<&[u8]>,
        reason: &'static str,
    ) {
        let Some(connection) = self.connections.get(&key) else {
            return;
        };
        log::info!("{}", lines::fields("refused", user, connection, reason));
        let peer = connection.peer();
        self.remember_refusal(user, (peer.ip(), peer.port()), reason);
    }

    /// Remembers a refusal that was logged already.
    pub(super) fn remember_refusal(
        &mut self,
        user: Option<&[u8]>,
        (address, port): (IpAddr, u16),
        reason: &'static str,
    ) {
        self.counters.refusal(reason);
        debug_assert!(advice(reason).is_some(), "{reason} has no advice");
        let cut = |name: &[u8]| name.get(..REMEMBERED_NAME_BYTES).unwrap_or(name).to_vec();
        self.refusals.remember(Record {
            at_s: super::now_s(),
            user: user.map(cut),
            address: address.to_canonical(),
            port,
            reason,
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn record(user: Option<&str>, last: u8, reason: &'static str) -> Record {
        Record {
            at_s: 0,
            user: user.map(|user| user.as_bytes().to_vec()),
            address: [192, 0, 2, last].into(),
            port: 50022,
            reason,
        }
    }

    #[test]
    fn each_reason_stands_once_with_a_sentence() {
        for (index, (code, advice)) in REASONS.iter().enumerate() {
            assert!(!advice.is_empty() && advice.len() < 100, "{code}");
            let form = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
            assert!(code.bytes().all(form), "{code}");
            assert!(
                REASONS[index + 1..].iter().all(|(other, _)| other != code),
                "{code}"
            );
        }
        assert_eq!(advice("no-such-reason"), None);
    }

    #[test]
    fn the_last_ones_are_remembered_by_user_and_address() {
        let mut refusals = Refusals::default();
        refusals.remember(record(Some("al"), 1, "key-unknown"));
        refusals.remember(record(Some("bo"), 2, "password-wrong"));
        refusals.remember(record(None, 1, "penalty"));
        let reasons = |whom| {
            let about = refusals.about(whom);
            about.map(|record| record.reason).collect::<Vec<_>>()
        };
        assert_eq!(reasons(None), ["penalty", "password-wrong", "key-unknown"]);
        assert_eq!(reasons(Some("al")), ["key-unknown"]);
        assert_eq!(reasons(Some("192.0.2.1")), ["penalty", "key-unknown"]);
        assert!(reasons(Some("carol")).is_empty());
    }

    #[test]
    fn a_flood_of_refusals_is_forgotten_from_its_beginning() {
        let mut refusals = Refusals::default();
        refusals.remember(record(Some("first"), 1, "method"));
        for _ in 0..REFUSALS_REMEMBERED {
            refusals.remember(record(Some("flood"), 2, "method"));
        }
        assert_eq!(refusals.about(None).count(), REFUSALS_REMEMBERED);
        assert_eq!(refusals.about(Some("first")).count(), 0);
    }
}
