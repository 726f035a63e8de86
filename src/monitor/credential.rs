//! What a client presents to log in, a key or a certificate of one, and whether it is acceptable
//! whoever it is for.
//!
//! Decodes bytes of strangers as root; no system calls in here.

#![forbid(unsafe_code)]

use std::rc::Rc;

use super::key_lines::Certified;
use super::log as lines;
use super::verify::Check;
use crate::authorized_keys::KeyOptions;
use crate::config::Options;
use crate::config::options::PubkeyAuthOptions;
use crate::limits::KEY_BLOB_MAX_BYTES;
use crate::pattern;
use crate::ssh::auth::PublicKeyRequest;
use crate::ssh::crypto::base64;
use crate::ssh::crypto::certificate::{Certificate, CertificateOption, Kind};
use crate::ssh::crypto::public_key::{KeyType, Presence, PublicKey};
use crate::ssh::wire::Reader;

/// A key, or a certificate that is valid now. Whether its authority really signed it is looked at
/// once the authority turns out to be trusted: strangers' certificates cost no signature check.
#[derive(Debug, Clone)]
pub(super) enum Credential {
    Key(PublicKey),
    Certificate(Rc<Certified>),
}

/// Why a credential is not looked for: a reason code (docs/refusals.md) and words for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unacceptable {
    pub code: &'static str,
    pub words: &'static str,
}

/// The time by which certificates are judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub now_s: u64,
    /// CertificateClockFloor: a clock before it is wrong.
    pub floor_s: u64,
}

impl Credential {
    /// Judges the credential of a request: form, algorithm and sizes; of a certificate also its
    /// time, and that all it demands is understood.
    pub(super) fn accept(
        request: &PublicKeyRequest<'_>,
        options: &Options,
        clock: Clock,
    ) -> Result<Self, Unacceptable> {
        if request.key.len() > KEY_BLOB_MAX_BYTES {
            return Err(no("key-malformed", "its blob is too long"));
        }
        if !lists(&options.pubkey_accepted_algorithms, request.algorithm) {
            return Err(no(
                "key-algorithm",
                "its algorithm is not in PubkeyAcceptedAlgorithms",
            ));
        }
        if !Certificate::is_one(request.key) {
            let key = PublicKey::from_blob(request.key)
                .map_err(|_| no("key-malformed", "its blob is malformed"))?;
            let mut algorithms = key.key_type.algorithms();
            if !algorithms.any(|name| name.as_bytes() == request.algorithm) {
                return Err(no(
                    "key-algorithm",
                    "its algorithm is not one of its type's",
                ));
            }
            check_size(&key, options)?;
            return Ok(Self::Key(key));
        }
        let certificate = Certificate::parse(request.key)
            .map_err(|_| no("cert-malformed", "the certificate is malformed"))?;
        if certificate
            .key
            .key_type
            .signs_for(request.algorithm)
            .is_none()
        {
            return Err(no(
                "key-algorithm",
                "its algorithm is not one of its type's",
            ));
        }
        let rights = check_certificate(&certificate, options, clock)?;
        Ok(Self::Certificate(Rc::new(Certified {
            certificate,
            rights,
        })))
    }

    /// The key that signs.
    /// As the client sent it.
    pub(super) fn blob(&self) -> &[u8] {
        match self {
            Self::Key(key) => &key.blob,
            Self::Certificate(certified) => &certified.certificate.blob,
        }
    }

    pub(super) fn key(&self) -> &PublicKey {
        match self {
            Self::Key(key) => key,
            Self::Certificate(certified) => &certified.certificate.key,
        }
    }
}

impl Clock {
    pub(super) fn now(floor_s: u64) -> Self {
        Self {
            now_s: super::clock::now().as_secs(),
            floor_s,
        }
    }
}

/// A request's signature over `data`, by the key that must have made it.
pub(super) fn signature_of(
    request: &PublicKeyRequest<'_>,
    data: Vec<u8>,
    signature: &[u8],
) -> Result<Check, &'static str> {
    let key = match Certificate::parse(request.key) {
        Ok(certificate) => certificate.key,
        Err(_) => PublicKey::from_blob(request.key).map_err(|_| "key-malformed")?,
    };
    // A certificate's algorithm has a name of its own, its signature that of the key's.
    let algorithm = match key.key_type.signs_for(request.algorithm) {
        Some(name) => name.as_bytes(),
        None => request.algorithm,
    };
    Ok(Check {
        algorithm: algorithm.to_vec(),
        key,
        data,
        signature: signature.to_vec(),
    })
}

/// Whether a security key attests what the configuration, the key's line and its certificate ask.
pub(super) fn check_presence(
    presence: Option<Presence>,
    options: &[KeyOptions],
    always: PubkeyAuthOptions,
) -> Result<(), &'static str> {
    let Some(presence) = presence else {
        return Ok(());
    };
    let touch = always.touch_required || options.iter().any(|it| it.require_touch);
    let verify = always.verify_required || options.iter().any(|it| it.require_verify);
    if touch && !presence.touched {
        return Err("key-not-touched");
    }
    if verify && !presence.verified {
        return Err("key-user-not-verified");
    }
    Ok(())
}

/// As OpenSSH logs what was presented: `ED25519 SHA256:…`, for a certificate also its id, serial
/// number and authority. Empty where it is malformed.
pub(super) fn describe(blob: &[u8]) -> String {
    let key_text = |key: &PublicKey, suffix: &str| {
        format!(
            "{}{suffix} {}",
            key.key_type.short_name(),
            key.fingerprint()
        )
    };
    if let Ok(certificate) = Certificate::parse(blob) {
        return format!(
            "{} ID {} (serial {}) CA {}",
            key_text(&certificate.key, "-CERT"),
            // Anybody can write a certificate: what it says of itself is a peer's text.
            lines::user_text(&certificate.key_id),
            certificate.serial,
            key_text(&certificate.authority, ""),
        );
    }
    PublicKey::from_blob(blob).map_or_else(|_| String::new(), |key| key_text(&key, ""))
}

/// A public key or certificate as files have it: type and base64.
pub(super) fn public_text(blob: &[u8]) -> String {
    let name = Reader::new(blob).string("key type").unwrap_or_default();
    format!("{} {}", String::from_utf8_lossy(name), base64::encode(blob))
}

fn check_certificate(
    certificate: &Certificate,
    options: &Options,
    clock: Clock,
) -> Result<KeyOptions, Unacceptable> {
    check_size(&certificate.key, options)?;
    check_size(&certificate.authority, options)?;
    if !lists(
        &options.ca_signature_algorithms,
        certificate.signature_algorithm(),
    ) {
        return Err(no(
            "cert-signature-algorithm",
            "its authority signed with an algorithm that is not in CASignatureAlgorithms",
        ));
    }
    if certificate.kind != Kind::User {
        return Err(no("cert-type", "it is a certificate for a host"));
    }
    check_id(&certificate.key_id, options)?;
    if certificate.principals.is_empty() {
        return Err(no(
            "cert-principal",
            "it is for nobody: it names no principals",
        ));
    }
    if certificate.valid_after_s > clock.now_s.max(clock.floor_s) {
        return Err(no("cert-not-yet-valid", "it is not valid yet"));
    }
    if clock.now_s.max(clock.floor_s) >= certificate.valid_before_s {
        return Err(no("cert-expired", "it has expired"));
    }
    if certificate.valid_after_s > clock.now_s {
        log::info!(
            "the clock stands before a certificate's first second and before \
             CertificateClockFloor, by which it is judged instead; set the clock"
        );
    }
    rights(certificate)
}

fn check_size(key: &PublicKey, options: &Options) -> Result<(), Unacceptable> {
    if key.key_type == KeyType::Rsa && key.bits() < options.required_rsa_bits {
        return Err(no(
            "key-size",
            "its RSA key is shorter than RequiredRSASize",
        ));
    }
    Ok(())
}

/// AllowCertificateIds and DenyCertificateIds.
fn check_id(id: &[u8], options: &Options) -> Result<(), Unacceptable> {
    let listed = |patterns: &[String]| {
        patterns
            .iter()
            .any(|wanted| pattern::matches_one(id, wanted.as_bytes()))
    };
    if listed(&options.deny_certificate_ids) {
        return Err(no(
            "deny-certificate-ids",
            "its key id is listed in DenyCertificateIds",
        ));
    }
    if !options.allow_certificate_ids.is_empty() && !listed(&options.allow_certificate_ids) {
        return Err(no(
            "not-in-allow-certificate-ids",
            "its key id is not listed in AllowCertificateIds",
        ));
    }
    Ok(())
}

/// What a certificate permits: nothing that none of its extensions names.
fn rights(certificate: &Certificate) -> Result<KeyOptions, Unacceptable> {
    let malformed = || no("cert-malformed", "one of its options is malformed");
    let mut rights = KeyOptions::none();
    for option in &certificate.critical_options {
        match option.0.as_slice() {
            b"force-command" => rights.command = Some(text(option).ok_or_else(malformed)?.to_vec()),
            b"source-address" => {
                let list = text(option)
                    .and_then(|list| std::str::from_utf8(list).ok())
                    .filter(|list| pattern::is_cidr_list(list))
                    .ok_or_else(malformed)?;
                rights.source_address = Some(list.to_owned());
            }
            b"verify-required" if option.1.is_empty() => rights.require_verify = true,
            _ => {
                return Err(no(
                    "cert-critical-option",
                    "it has a critical option that is not known here",
                ));
            }
        }
    }
    for (name, data) in &certificate.extensions {
        let right = match name.as_slice() {
            b"permit-pty" => &mut rights.permits.pty,
            b"permit-user-rc" => &mut rights.permits.user_rc,
            b"permit-port-forwarding" => {
                // There is no extension for tunnels; OpenSSH asks for none.
                rights.permits.tunnel = true;
                &mut rights.permits.port_forwarding
            }
            b"permit-agent-forwarding" => &mut rights.permits.agent_forwarding,
            b"permit-X11-forwarding" => &mut rights.permits.x11_forwarding,
            b"no-touch-required" if data.is_empty() => {
                rights.require_touch = false;
                continue;
            }
            // What is not known permits nothing.
            _ => continue,
        };
        if !data.is_empty() {
            return Err(malformed());
        }
        *right = true;
    }
    Ok(rights)
}

/// The string within an option's data.
fn text(option: &CertificateOption) -> Option<&[u8]> {
    let mut reader = Reader::new(&option.1);
    let text = reader.string("option").ok()?;
    reader.is_empty().then_some(text)
}

fn lists(names: &[String], name: &[u8]) -> bool {
    names.iter().any(|known| known.as_bytes() == name)
}

fn no(code: &'static str, words: &'static str) -> Unacceptable {
    Unacceptable { code, words }
}
