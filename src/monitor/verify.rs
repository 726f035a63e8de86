//! Signatures of strangers: verified at once where that is quick, by the worker where it takes a
//! millisecond or two, so that a flood of them holds up nobody else's login.
//!
//! Only a key that would let its owner in, or an authority that is trusted, makes the monitor look at
//! a signature at all.

#![forbid(unsafe_code)]

use super::Monitor;
use super::connection::{AcceptedKey, Connection, Step};
use super::credential;
use super::ids::ConnectionKey;
use super::methods::Way;
use super::worker::Job;
use crate::ssh::crypto::CryptoError;
use crate::ssh::crypto::public_key::{Presence, PublicKey};

/// A signature to be looked at.
#[derive(Debug)]
pub(super) struct Check {
    pub key: PublicKey,
    pub algorithm: Vec<u8>,
    pub data: Vec<u8>,
    pub signature: Vec<u8>,
}

pub(super) type Verdict = Result<Option<Presence>, CryptoError>;

/// What hangs on a signature.
#[derive(Debug)]
pub(super) enum Hangs {
    /// The step of a login by key: it is the request's.
    Request(Box<AcceptedKey>),
    /// Whether a certificate counts: it is the authority's.
    Certificate,
}

impl Check {
    pub(super) fn verdict(&self) -> Verdict {
        self.key
            .verify(&self.algorithm, &self.data, &self.signature)
    }
}

impl Monitor {
    /// Has a signature looked at. The request waits for it, as it does for key files.
    pub(super) fn verify(&mut self, key: ConnectionKey, check: Check, hangs: Hangs) {
        if !check.key.is_slow() {
            return self.judged_signature(key, hangs, &check.verdict());
        }
        let attempt = self.connections.get_mut(&key).and_then(Connection::attempt);
        let Some(pending) = attempt.and_then(|attempt| attempt.pending.as_mut()) else {
            return;
        };
        pending.step = Step::Verifying { hangs };
        if !self.worker.submit(Job::Verify(key, check)) {
            self.refuse_request(key, Some("signature-unchecked"));
        }
    }

    /// The worker looked at the signature of a connection, which may have ended meanwhile.
    pub(super) fn verified(&mut self, key: ConnectionKey, verdict: &Verdict) {
        self.speak_of(key);
        let attempt = self.connections.get_mut(&key).and_then(Connection::attempt);
        let Some(pending) = attempt.and_then(|attempt| attempt.pending.as_mut()) else {
            return;
        };
        match std::mem::replace(&mut pending.step, Step::Queued) {
            Step::Verifying { hangs } => self.judged_signature(key, hangs, verdict),
            other => pending.step = other,
        }
    }

    fn judged_signature(&mut self, key: ConnectionKey, hangs: Hangs, verdict: &Verdict) {
        match hangs {
            Hangs::Request(accepted) => self.request_signed(key, *accepted, verdict),
            Hangs::Certificate => self.certificate_signed(key, verdict.is_ok()),
        }
    }

    /// The last thing that a login by key hangs on.
    fn request_signed(&mut self, key: ConnectionKey, accepted: AcceptedKey, verdict: &Verdict) {
        let Some(attempt) = self.connections.get_mut(&key).and_then(Connection::attempt) else {
            return;
        };
        let always = attempt.options.pubkey_auth_options;
        let permitted = match verdict {
            Ok(presence) => credential::check_presence(*presence, &accepted.options, always),
            Err(_) => Err("signature"),
        };
        match permitted {
            Ok(()) => self.method_done(key, Way::PublicKey, Some(accepted)),
            Err(reason) => self.refuse_request(key, Some(reason)),
        }
    }
}
