//! Proofs of host keys that a client does not know yet (OpenSSH PROTOCOL 2.5,
//! draft-miller-sshm-hostkey-update): a signature in a shape of its own, once for each key.

use super::Monitor;
use super::ids::ConnectionKey;
use super::worker::{Job, Purpose, Signed, ToSign};
use crate::frames::ToNet;
use crate::ssh::crypto::CryptoError;
use crate::ssh::crypto::public_key::KeyType;
use crate::ssh::wire::Writer;

/// Where RSA was not what the exchange was signed with.
const RSA_ALGORITHM: &[u8] = b"rsa-sha2-512";

impl Monitor {
    /// Proves that the key with that blob is ours. What is signed names the connection and is no
    /// exchange hash, whatever `net` says.
    pub(super) fn prove(&mut self, key: ConnectionKey, blob: &[u8]) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let host_keys = &connection.generation.host_keys;
        let Some(host_key) = host_keys
            .iter()
            .find(|key| key.private.public().blob == blob)
        else {
            return self.attack(key, "a proof of a host key that is not ours");
        };
        if connection.proven.iter().any(|proven| proven == blob) {
            return self.attack(key, "a second proof of a host key");
        }
        connection.proven.push(blob.to_vec());
        let host_key = std::sync::Arc::clone(host_key);
        let mut data = Vec::new();
        data.put_string(b"hostkeys-prove-00@openssh.com");
        data.put_string(&connection.session_id);
        data.put_string(blob);
        let public = host_key.private.public();
        let is_rsa = public.key_type == KeyType::Rsa;
        let algorithm = match connection.signs_with.as_slice() {
            negotiated if is_rsa && negotiated.starts_with(b"rsa-") => negotiated.to_vec(),
            _ if is_rsa => RSA_ALGORITHM.to_vec(),
            _ => public.key_type.name().as_bytes().to_vec(),
        };
        let purpose = Purpose::Proof(blob.to_vec());
        if is_rsa {
            let job = ToSign {
                connection: key,
                purpose,
                key: host_key,
                algorithm,
                data,
            };
            if !self.worker.submit(Job::Sign(job)) {
                self.cut_off(key);
            }
            return;
        }
        let signature = host_key.private.sign(&algorithm, &data, &self.host.random);
        self.signed(Signed {
            connection: key,
            purpose,
            signature,
        });
    }

    /// A proof is made.
    pub(super) fn proved(
        &mut self,
        key: ConnectionKey,
        blob: Vec<u8>,
        signature: Result<Vec<u8>, CryptoError>,
    ) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let (net, number) = (connection.net, connection.number);
        let signature = signature.unwrap_or_else(|error| {
            log::error!("a host key does not sign: {error:?}");
            Vec::new()
        });
        let frame = ToNet::Proof {
            key: blob.into(),
            signature: signature.into(),
        };
        self.nets.send(&self.poller, net, number, &frame, &[]);
    }
}
