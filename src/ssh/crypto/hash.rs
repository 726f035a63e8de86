//! Hashes of the key exchange and what is derived from them (RFC 4253 sections 7.2 and 8).

use ring::digest;
use zeroize::Zeroizing;

use crate::frames::Exchange;
use crate::ssh::wire::Writer;

/// The hash of a key exchange method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    pub fn digest(self, data: &[u8]) -> Vec<u8> {
        digest::digest(self.algorithm(), data).as_ref().to_vec()
    }

    /// H of the exchange; `host_key` is K_S, `server_version` V_S. `exchange.shared_secret` enters
    /// as it is.
    pub fn exchange(self, exchange: &Exchange, host_key: &[u8], server_version: &[u8]) -> Vec<u8> {
        let mut context = digest::Context::new(self.algorithm());
        let strings = [
            &exchange.client_version[..],
            server_version,
            &exchange.client_kexinit[..],
            &exchange.server_kexinit[..],
            host_key,
            &exchange.client_public[..],
            &exchange.server_public[..],
        ];
        let mut length = Vec::with_capacity(4);
        for string in strings {
            length.clear();
            length.put_u32(u32::try_from(string.len()).unwrap_or(u32::MAX));
            context.update(&length);
            context.update(string);
        }
        context.update(&exchange.shared_secret);
        context.finish().as_ref().to_vec()
    }

    /// RFC 4253 section 7.2: `letter` is A to F, `shared_secret` encoded as in the hash.
    pub fn derive(
        self,
        shared_secret: &[u8],
        h: &[u8],
        letter: u8,
        session_id: &[u8],
        len: usize,
    ) -> Zeroizing<Vec<u8>> {
        let digest_bytes = self.algorithm().output_len();
        // Room for all that is written: a growing vector would leave copies behind.
        let mut key = Zeroizing::new(Vec::with_capacity(len + digest_bytes));
        let mut seed = Zeroizing::new(Vec::with_capacity(1 + session_id.len()));
        seed.put_u8(letter);
        seed.put_bytes(session_id);
        self.extend(&mut key, shared_secret, h, &seed);
        while key.len() < len {
            let so_far = key.clone();
            self.extend(&mut key, shared_secret, h, &so_far);
        }
        // Vec::truncate leaves the bytes beyond its end; zeroize on drop clears the whole capacity.
        key.truncate(len);
        key
    }

    /// Appends HASH(K || H || `tail`).
    fn extend(self, key: &mut Vec<u8>, shared_secret: &[u8], h: &[u8], tail: &[u8]) {
        let mut context = digest::Context::new(self.algorithm());
        context.update(shared_secret);
        context.update(h);
        context.update(tail);
        key.extend_from_slice(context.finish().as_ref());
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }
}
