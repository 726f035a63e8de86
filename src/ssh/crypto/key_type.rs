//! Types of keys: their names in blobs, in certificates, in log lines, and what they sign with.
//!
//! One table; a new type is a row in it and a form of material in `public_key`. Sources: RFC 4253
//! section 6.6, RFC 5656, RFC 8332, RFC 8709, draft-miller-ssh-cert, OpenSSH PROTOCOL.u2f.

use super::webauthn;

/// A key type by the name in its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyType {
    Ed25519,
    EcdsaP256,
    EcdsaP384,
    /// Keys of users and authorities only: nothing here signs with it.
    EcdsaP521,
    Rsa,
    /// Ed25519 in a security key.
    SkEd25519,
    /// ECDSA over P-256 in a security key.
    SkEcdsaP256,
}

/// What a type is called.
struct Names {
    key: &'static str,
    certificate: &'static str,
    /// In OpenSSH's log lines; certificates have `-CERT` behind it.
    short: &'static str,
    /// Signature algorithms in order of preference, each with its name for certificates.
    algorithms: &'static [(&'static str, &'static str)],
}

impl KeyType {
    pub const ALL: [Self; 7] = [
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Rsa,
        Self::SkEd25519,
        Self::SkEcdsaP256,
    ];

    fn names(self) -> &'static Names {
        match self {
            Self::Ed25519 => &Names {
                key: "ssh-ed25519",
                certificate: "ssh-ed25519-cert-v01@openssh.com",
                short: "ED25519",
                algorithms: &[("ssh-ed25519", "ssh-ed25519-cert-v01@openssh.com")],
            },
            Self::EcdsaP256 => &Names {
                key: "ecdsa-sha2-nistp256",
                certificate: "ecdsa-sha2-nistp256-cert-v01@openssh.com",
                short: "ECDSA",
                algorithms: &[(
                    "ecdsa-sha2-nistp256",
                    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
                )],
            },
            Self::EcdsaP384 => &Names {
                key: "ecdsa-sha2-nistp384",
                certificate: "ecdsa-sha2-nistp384-cert-v01@openssh.com",
                short: "ECDSA",
                algorithms: &[(
                    "ecdsa-sha2-nistp384",
                    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
                )],
            },
            Self::EcdsaP521 => &Names {
                key: "ecdsa-sha2-nistp521",
                certificate: "ecdsa-sha2-nistp521-cert-v01@openssh.com",
                short: "ECDSA",
                algorithms: &[(
                    "ecdsa-sha2-nistp521",
                    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
                )],
            },
            Self::Rsa => &Names {
                key: "ssh-rsa",
                certificate: "ssh-rsa-cert-v01@openssh.com",
                short: "RSA",
                algorithms: &[
                    ("rsa-sha2-512", "rsa-sha2-512-cert-v01@openssh.com"),
                    ("rsa-sha2-256", "rsa-sha2-256-cert-v01@openssh.com"),
                ],
            },
            Self::SkEd25519 => &Names {
                key: "sk-ssh-ed25519@openssh.com",
                certificate: "sk-ssh-ed25519-cert-v01@openssh.com",
                short: "ED25519-SK",
                algorithms: &[(
                    "sk-ssh-ed25519@openssh.com",
                    "sk-ssh-ed25519-cert-v01@openssh.com",
                )],
            },
            Self::SkEcdsaP256 => &Names {
                key: "sk-ecdsa-sha2-nistp256@openssh.com",
                certificate: "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
                short: "ECDSA-SK",
                algorithms: &[
                    (
                        "sk-ecdsa-sha2-nistp256@openssh.com",
                        "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
                    ),
                    (
                        webauthn::ALGORITHM,
                        "webauthn-sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
                    ),
                ],
            },
        }
    }

    /// As in the blob and in key files: `ssh-ed25519`, `ecdsa-sha2-nistp256`, `ssh-rsa` …
    pub fn name(self) -> &'static str {
        self.names().key
    }

    /// As in the blob of a certificate.
    pub fn certificate_name(self) -> &'static str {
        self.names().certificate
    }

    pub fn by_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|key_type| key_type.name().as_bytes() == name)
    }

    pub fn by_certificate_name(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|key_type| key_type.certificate_name().as_bytes() == name)
    }

    /// As OpenSSH's log lines say it: ED25519, ECDSA, RSA.
    pub fn short_name(self) -> &'static str {
        self.names().short
    }

    /// Signature algorithms for this type, in order of preference: RSA gives rsa-sha2-512,
    /// rsa-sha2-256.
    pub fn algorithms(self) -> impl Iterator<Item = &'static str> + Clone {
        self.names().algorithms.iter().map(|(plain, _)| *plain)
    }

    /// The same for a certificate of such a key.
    pub fn certificate_algorithms(self) -> impl Iterator<Item = &'static str> + Clone {
        self.names().algorithms.iter().map(|(_, name)| *name)
    }

    /// What signs for a certificate that is presented with `algorithm`.
    pub fn signs_for(self, algorithm: &[u8]) -> Option<&'static str> {
        let mut algorithms = self.names().algorithms.iter();
        algorithms
            .find(|(_, certificate)| certificate.as_bytes() == algorithm)
            .map(|(plain, _)| *plain)
    }

    /// Whether the private key is in a device that asks its user.
    pub fn is_security_key(self) -> bool {
        matches!(self, Self::SkEd25519 | Self::SkEcdsaP256)
    }
}
