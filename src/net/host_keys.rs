//! The server's host keys, told to a client that is logged in, and proven to be ours where it does
//! not know one (OpenSSH PROTOCOL 2.5, draft-miller-sshm-hostkey-update). The monitor signs, each
//! key once for a connection.

use crate::frames::HostKeyPublic;
use crate::ssh::crypto::certificate::Certificate;
use crate::ssh::wire::{Reader, Writer};

/// The keys and what was proven of them.
#[derive(Debug, Default)]
pub(super) struct HostKeys {
    keys: Vec<Key>,
    /// What the client asked for and waits for, in its order.
    asked: Vec<(usize, Option<Vec<u8>>)>,
}

#[derive(Debug)]
struct Key {
    blob: Vec<u8>,
    /// The monitor was asked to prove it.
    asked: bool,
}

/// How far an answer is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// More proofs are on their way.
    More,
    /// All are there: what the answer carries; nothing where one of them failed.
    Done(Vec<u8>),
}

impl HostKeys {
    /// Certificates are left out: they say themselves who vouches for them.
    pub(super) fn new(keys: &[HostKeyPublic]) -> Self {
        let mut host_keys = Self::default();
        for key in keys {
            let is_known = host_keys.keys.iter().any(|known| known.blob == *key.blob);
            if !is_known && !Certificate::is_one(&key.blob) {
                host_keys.keys.push(Key {
                    blob: key.blob.to_vec(),
                    asked: false,
                });
            }
        }
        host_keys
    }

    /// What hostkeys-00@openssh.com carries.
    pub(super) fn announcement(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        for key in &self.keys {
            fields.put_string(&key.blob);
        }
        fields
    }

    /// hostkeys-prove-00@openssh.com with these fields: the blobs to be proven. `None`: not all of
    /// them are ours, or one was asked for before.
    pub(super) fn ask(&mut self, fields: &[u8]) -> Option<Vec<Vec<u8>>> {
        if !self.asked.is_empty() {
            return None;
        }
        let mut indices = Vec::new();
        let mut reader = Reader::new(fields);
        while !reader.is_empty() {
            let blob = reader.string("host key").ok()?;
            let index = self.keys.iter().position(|key| key.blob == blob)?;
            if self.keys.get(index)?.asked || indices.contains(&index) {
                return None;
            }
            indices.push(index);
        }
        let mut blobs = Vec::new();
        for index in indices {
            let key = self.keys.get_mut(index)?;
            key.asked = true;
            blobs.push(key.blob.clone());
            self.asked.push((index, None));
        }
        (!blobs.is_empty()).then_some(blobs)
    }

    /// The monitor's proof for `blob`; `None`: nobody asked for it.
    pub(super) fn proved(&mut self, blob: &[u8], signature: &[u8]) -> Option<Progress> {
        let index = self.keys.iter().position(|key| key.blob == blob)?;
        let waiting =
            |(asked, proof): &&mut (usize, Option<Vec<u8>>)| *asked == index && proof.is_none();
        self.asked.iter_mut().find(waiting)?.1 = Some(signature.to_vec());
        if self.asked.iter().any(|(_, proof)| proof.is_none()) {
            return Some(Progress::More);
        }
        let mut proofs = Vec::new();
        for (_, proof) in std::mem::take(&mut self.asked) {
            let proof = proof.unwrap_or_default();
            if proof.is_empty() {
                return Some(Progress::Done(Vec::new()));
            }
            proofs.put_string(&proof);
        }
        Some(Progress::Done(proofs))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn keys() -> HostKeys {
        let key = |blob: &str| HostKeyPublic {
            blob: blob.into(),
            algorithms: Vec::new(),
        };
        let mut certificate = Vec::new();
        certificate.put_string(b"ssh-ed25519-cert-v01@openssh.com");
        let certificate = HostKeyPublic {
            blob: certificate.into(),
            algorithms: Vec::new(),
        };
        HostKeys::new(&[key("one"), key("two"), key("one"), certificate])
    }

    fn strings(values: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for value in values {
            bytes.put_string(value.as_bytes());
        }
        bytes
    }

    #[test]
    fn keys_are_announced_once_and_certificates_not() {
        assert_eq!(keys().announcement(), strings(&["one", "two"]));
    }

    #[test]
    fn proofs_come_in_the_order_of_the_question() {
        let mut keys = keys();
        let asked = keys.ask(&strings(&["two", "one"])).unwrap();
        assert_eq!(asked, [b"two", b"one"]);
        assert_eq!(keys.proved(b"one", b"1"), Some(Progress::More));
        let done = Progress::Done(strings(&["2", "1"]));
        assert_eq!(keys.proved(b"two", b"2"), Some(done));
        assert_eq!(keys.proved(b"two", b"2"), None, "nobody asked");
    }

    #[test]
    fn each_key_is_proven_once() {
        let mut keys = keys();
        assert!(keys.ask(&strings(&["one", "one"])).is_none());
        assert!(keys.ask(&strings(&["one"])).is_some());
        assert!(
            keys.ask(&strings(&["two"])).is_none(),
            "one question at a time"
        );
        assert!(keys.proved(b"one", b"1").is_some());
        assert!(keys.ask(&strings(&["one"])).is_none());
        assert!(keys.ask(&strings(&["two"])).is_some());
    }

    #[test]
    fn foreign_keys_no_keys_and_nonsense_are_refused() {
        for fields in [
            strings(&[]),
            strings(&["three"]),
            strings(&["one", "three"]),
            b"\0\0\0".to_vec(),
            b"\xff\xff\xff\xffone".to_vec(),
        ] {
            assert_eq!(keys().ask(&fields), None, "{fields:?}");
        }
    }

    #[test]
    fn a_key_that_does_not_sign_fails_the_answer() {
        let mut keys = keys();
        keys.ask(&strings(&["one", "two"])).unwrap();
        keys.proved(b"two", b"2").unwrap();
        let failed = Progress::Done(Vec::new());
        assert_eq!(keys.proved(b"one", b""), Some(failed));
    }
}
