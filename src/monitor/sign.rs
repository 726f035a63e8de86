//! Signing key exchanges: only what holds the monitor's own cookie, only as an exchange hash.
//!
//! A compromised `net` must not get a signature over anything else: not over an authentication, not
//! over another exchange, not over one that was recorded. So the monitor computes the hash itself,
//! with its own K_S and V_S, over an I_S that holds a cookie it made and that is used up here.

use std::sync::Arc;

use super::Monitor;
use super::connection::Connection;
use super::ids::ConnectionKey;
use super::permit::Stage;
use super::worker::{Done, Job, Purpose, Signed, ToSign};
use crate::frames::{Exchange, ToNet};
use crate::host_keys::HostKey;
use crate::limits::{IDENT_BYTES, KEX_VALUE_MAX_BYTES, KEXINIT_MAX_BYTES};
use crate::ssh::crypto::kex::Kex;
use crate::ssh::crypto::public_key::KeyType;
use crate::ssh::message;

/// Where the cookie is in SSH_MSG_KEXINIT (RFC 4253 section 7.1).
const COOKIE: std::ops::Range<usize> = 1..17;

impl Monitor {
    /// A cookie for a key re-exchange.
    pub(super) fn cookie(&mut self, key: ConnectionKey) {
        let Some(cookie) = self.host.random_bytes() else {
            log::error!("the system gives no random bytes");
            return self.cut_off(key);
        };
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if connection.cookie.is_some() || connection.signing {
            return self.attack(key, "a second request for a cookie");
        }
        connection.cookie = Some(cookie);
        let (net, number) = (connection.net, connection.number);
        self.nets
            .send(&self.poller, net, number, &ToNet::Cookie { cookie }, &[]);
    }

    /// Signs an exchange.
    pub(super) fn sign(&mut self, key: ConnectionKey, exchange: &Exchange) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let cookie = connection.cookie.take();
        let Checked {
            host_key,
            offered,
            exchange_hash,
        } = match check(connection, cookie, exchange) {
            Ok(checked) => checked,
            Err(why) => return self.attack(key, why),
        };
        if connection.session_id.is_empty() {
            connection.session_id.clone_from(&exchange_hash);
            connection.host_key = offered;
            self.counters.handshakes.note(connection.started.elapsed());
            connection.permit.enter(Stage::Exchanged);
            super::trace::phase(key, connection);
        }
        let key_type = host_key.private.public().key_type;
        let algorithm: &[u8] = match key_type.signs_for(&exchange.host_key_algorithm) {
            Some(plain) => plain.as_bytes(),
            None => &exchange.host_key_algorithm,
        };
        connection.signs_with = algorithm.to_vec();
        let purpose = Purpose::Exchange;
        if key_type == KeyType::Rsa {
            connection.signing = true;
            let job = ToSign {
                connection: key,
                purpose,
                key: host_key,
                algorithm: algorithm.to_vec(),
                data: exchange_hash,
            };
            if !self.worker.submit(Job::Sign(job)) {
                self.cut_off(key);
            }
            return;
        }
        let signature = host_key
            .private
            .sign(algorithm, &exchange_hash, &self.host.random);
        self.signed(Signed {
            connection: key,
            purpose,
            signature,
        });
    }

    /// The worker did something.
    pub(super) fn worked(&mut self, done: Done) {
        match done {
            Done::Signed(signed) => self.signed(signed),
            Done::Verified(key, verdict) => self.verified(key, &verdict),
        }
    }

    /// A signature is made: to the connection, if it is still there.
    pub(super) fn signed(&mut self, done: Signed) {
        if let Purpose::Proof(blob) = done.purpose {
            return self.proved(done.connection, blob, done.signature);
        }
        let Some(connection) = self.connections.get_mut(&done.connection) else {
            return;
        };
        connection.signing = false;
        let (net, number) = (connection.net, connection.number);
        match done.signature {
            Ok(blob) => {
                let frame = ToNet::Signature { blob: blob.into() };
                self.nets.send(&self.poller, net, number, &frame, &[]);
            }
            Err(error) => {
                log::error!("a host key does not sign: {error:?}");
                self.cut_off(done.connection);
            }
        }
    }
}

/// What a request that is in order comes to.
struct Checked {
    host_key: Arc<HostKey>,
    /// K_S as it was offered: the key's blob, or its certificate.
    offered: Vec<u8>,
    /// What is to be signed.
    exchange_hash: Vec<u8>,
}

/// Judges a request.
fn check(
    connection: &Connection,
    cookie: Option<[u8; 16]>,
    exchange: &Exchange,
) -> Result<Checked, &'static str> {
    let cookie = cookie.ok_or("an exchange without a cookie to its name")?;
    check_sizes(exchange)?;
    let kexinit = &exchange.server_kexinit;
    if kexinit.first() != Some(&message::KEXINIT) || kexinit.get(COOKIE) != Some(&cookie[..]) {
        return Err("an exchange with a foreign cookie");
    }
    let setup = &connection.options.setup;
    if !setup.kex.contains(&exchange.kex) {
        return Err("an exchange by a method that was not offered");
    }
    let kex = Kex::by_name(&exchange.kex).ok_or("an exchange by an unknown method")?;
    let offered = setup
        .host_keys
        .iter()
        .find(|key| key.algorithms.contains(&exchange.host_key_algorithm))
        .ok_or("an exchange with a signature algorithm that was not offered")?;
    let host_key = connection
        .generation
        .host_keys
        .iter()
        .find(|key| {
            key.private.public().blob == offered.blob.0
                || key.certificate.as_ref() == Some(&offered.blob.0)
        })
        .ok_or("an exchange with a host key that is not ours")?;
    let hash = kex
        .hash()
        .exchange(exchange, &offered.blob, &setup.server_version);
    Ok(Checked {
        host_key: Arc::clone(host_key),
        offered: offered.blob.to_vec(),
        exchange_hash: hash,
    })
}

fn check_sizes(exchange: &Exchange) -> Result<(), &'static str> {
    let kexinits = [&exchange.client_kexinit, &exchange.server_kexinit];
    let values = [
        &exchange.client_public,
        &exchange.server_public,
        &exchange.shared_secret,
    ];
    let fits = exchange.client_version.len() <= IDENT_BYTES
        && kexinits
            .iter()
            .all(|payload| payload.len() <= KEXINIT_MAX_BYTES)
        && values
            .iter()
            .all(|value| value.len() <= KEX_VALUE_MAX_BYTES);
    if fits {
        Ok(())
    } else {
        Err("an exchange with an impossible length")
    }
}
