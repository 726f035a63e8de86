//! Bodies of the fuzz targets `certificate` and `revocation_list`: what must hold for every input.

use agent::ssh::crypto::certificate::Certificate;
use agent::ssh::crypto::public_key::PublicKey;
use agent::ssh::crypto::revocation_list::{self, Subject};

/// A certificate: what parses is bounded, is a key that stands by itself, and can be verified; and
/// no byte of a blob is of no account.
pub fn certificate(blob: &[u8]) {
    let Ok(certificate) = Certificate::parse(blob) else {
        return;
    };
    assert!(Certificate::is_one(blob));
    assert_eq!(certificate.blob, blob);
    let key = PublicKey::from_blob(&certificate.key.blob).expect("its key is a key");
    assert_eq!(key, certificate.key);
    assert!(
        PublicKey::from_blob(blob).is_err(),
        "a certificate is no key"
    );
    assert!(
        !Certificate::is_one(&certificate.authority.blob),
        "no chains"
    );
    let named: usize = certificate.principals.iter().map(Vec::len).sum();
    assert!(named + certificate.key_id.len() <= blob.len());
    for options in [&certificate.critical_options, &certificate.extensions] {
        assert!(options.is_sorted_by(|one, other| one.0 < other.0));
    }
    let _ = certificate.verify();
    let mut longer = blob.to_vec();
    longer.push(0);
    assert!(Certificate::parse(&longer).is_err());
}

/// A revocation list: reading it ends, and asking about another key changes nothing about whether
/// it can be read.
pub fn revocation_list(content: &[u8]) {
    let one = key(1);
    let other = key(2);
    let first = revocation_list::revokes(content, &Subject::key(&one));
    let second = revocation_list::revokes(content, &Subject::key(&other));
    assert_eq!(first.is_err(), second.is_err());
    if first.is_ok() {
        assert!(revocation_list::is_one(content));
    }
}

fn key(byte: u8) -> PublicKey {
    let mut blob = b"\0\0\0\x0bssh-ed25519\0\0\0\x20".to_vec();
    blob.extend([byte; 32]);
    PublicKey::from_blob(&blob).expect("a key")
}
