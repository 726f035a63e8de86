//! KEXINIT: what we offer, what the client offers, what comes of it (RFC 4253 section 7.1).

use agent_helper::wire::Bytes;

use super::compression::{Compressed, DELAYED};
use super::crypto::cipher::{Cipher, Mac};
use super::crypto::kex::Kex;
use super::error::ProtocolError;
use super::message;
use super::setup::Setup;
use super::wire::{Reader, Writer};

/// Marker names; each only in the first KEXINIT (RFC 8308 section 2.1, OpenSSH PROTOCOL 1.9).
const EXT_INFO_CLIENT: &[u8] = b"ext-info-c";
const EXT_INFO_SERVER: &[u8] = b"ext-info-s";
const STRICT_CLIENT: &[u8] = b"kex-strict-c-v00@openssh.com";
const STRICT_SERVER: &[u8] = b"kex-strict-s-v00@openssh.com";

const COOKIE_BYTES: usize = 16;

/// A client's KEXINIT, its lists as they came.
#[derive(Debug, Clone, Copy)]
pub struct KexInit<'a> {
    kex: &'a [u8],
    host_key: &'a [u8],
    cipher_in: &'a [u8],
    cipher_out: &'a [u8],
    mac_in: &'a [u8],
    mac_out: &'a [u8],
    compression_in: &'a [u8],
    compression_out: &'a [u8],
    guess_follows: bool,
}

/// Cipher and MAC of one direction; an AEAD cipher has no MAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protection {
    /// The cipher.
    pub cipher: Cipher,
    /// The MAC.
    pub mac: Option<Mac>,
}

/// The outcome of a negotiation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Key exchange method.
    pub kex: Kex,
    /// The spelling of it that was agreed on.
    pub kex_name: Bytes,
    /// Signature algorithm of the host key.
    pub host_key_algorithm: Bytes,
    /// K_S.
    pub host_key: Bytes,
    /// From the client.
    pub incoming: Protection,
    /// To the client.
    pub outgoing: Protection,
    /// Where packets are compressed.
    pub compressed: Compressed,
    /// The client sent its first exchange message on a wrong guess: it is to be dropped.
    pub wrong_guess: bool,
}

/// What the markers in the first KEXINIT say about the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Markers {
    /// It wants EXT_INFO.
    pub ext_info: bool,
    /// It does strict KEX.
    pub strict: bool,
}

/// Our KEXINIT, message number included.
pub fn server_kexinit(setup: &Setup, cookie: [u8; COOKIE_BYTES], first: bool) -> Vec<u8> {
    let mut payload = Vec::with_capacity(1024);
    payload.put_u8(message::KEXINIT);
    payload.put_bytes(&cookie);
    let markers: &[&[u8]] = if first {
        &[EXT_INFO_SERVER, STRICT_SERVER]
    } else {
        &[]
    };
    payload.put_name_list(kex_names(setup).chain(markers.iter().copied()));
    payload.put_name_list(host_key_algorithms(setup).map(|(name, _)| name));
    payload.put_name_list(cipher_names(setup));
    payload.put_name_list(cipher_names(setup));
    payload.put_name_list(mac_names(setup));
    payload.put_name_list(mac_names(setup));
    payload.put_name_list(compression_names(setup));
    payload.put_name_list(compression_names(setup));
    payload.put_string(b"");
    payload.put_string(b"");
    payload.put_boolean(false);
    payload.put_u32(0);
    payload
}

impl<'a> KexInit<'a> {
    /// Decodes a payload, message number included.
    pub fn decode(payload: &'a [u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader::new(payload);
        reader.u8("message number")?;
        reader.bytes(COOKIE_BYTES, "cookie")?;
        let kex = reader.string("kex_algorithms")?;
        let host_key = reader.string("server_host_key_algorithms")?;
        let cipher_in = reader.string("encryption_algorithms_client_to_server")?;
        let cipher_out = reader.string("encryption_algorithms_server_to_client")?;
        let mac_in = reader.string("mac_algorithms_client_to_server")?;
        let mac_out = reader.string("mac_algorithms_server_to_client")?;
        let compression_in = reader.string("compression_algorithms_client_to_server")?;
        let compression_out = reader.string("compression_algorithms_server_to_client")?;
        reader.string("languages_client_to_server")?;
        reader.string("languages_server_to_client")?;
        let guess_follows = reader.boolean("first_kex_packet_follows")?;
        reader.u32("reserved")?;
        reader.finish(message::KEXINIT)?;
        Ok(Self {
            kex,
            host_key,
            cipher_in,
            cipher_out,
            mac_in,
            mac_out,
            compression_in,
            compression_out,
            guess_follows,
        })
    }

    /// The markers; they count in the first KEXINIT only.
    pub fn markers(&self) -> Markers {
        Markers {
            ext_info: names(self.kex).any(|name| name == EXT_INFO_CLIENT),
            strict: names(self.kex).any(|name| name == STRICT_CLIENT),
        }
    }

    /// The list that had nothing in common with ours, by its name in the error.
    pub fn unmatched(&self, setup: &Setup, list: &str) -> &'a [u8] {
        let fails = |theirs, ours: &mut dyn Iterator<Item = &[u8]>| {
            let ours: Vec<&[u8]> = ours.collect();
            !names(theirs).any(|name| ours.contains(&name))
        };
        match list {
            "key exchange method" => self.kex,
            "host key algorithm" => self.host_key,
            "cipher" if fails(self.cipher_in, &mut cipher_names(setup)) => self.cipher_in,
            "cipher" => self.cipher_out,
            "MAC" if fails(self.mac_in, &mut mac_names(setup)) => self.mac_in,
            "MAC" => self.mac_out,
            _ if fails(self.compression_in, &mut compression_names(setup)) => self.compression_in,
            _ => self.compression_out,
        }
    }

    /// Agrees on algorithms: of each list the first name of the client that is ours too.
    pub fn negotiate(&self, setup: &Setup) -> Result<Agreed, ProtocolError> {
        let kex_name = first_common(self.kex, kex_names(setup), "key exchange method")?;
        let kex = Kex::by_name(kex_name).ok_or(ProtocolError::NoCommonAlgorithm {
            list: "key exchange method",
        })?;
        let host_key_algorithm = first_common(
            self.host_key,
            host_key_algorithms(setup).map(|(name, _)| name),
            "host key algorithm",
        )?;
        let host_key = host_key_algorithms(setup)
            .find(|(name, _)| *name == host_key_algorithm)
            .map(|(_, blob)| blob.clone())
            .unwrap_or_default();
        let incoming = protection(setup, self.cipher_in, self.mac_in)?;
        let outgoing = protection(setup, self.cipher_out, self.mac_out)?;
        let compressed = Compressed {
            incoming: is_compressed(setup, self.compression_in)?,
            outgoing: is_compressed(setup, self.compression_out)?,
        };
        let same_first = names(self.kex).next() == kex_names(setup).next()
            && names(self.host_key).next() == host_key_algorithms(setup).map(|(n, _)| n).next();
        Ok(Agreed {
            kex,
            kex_name: kex_name.into(),
            host_key_algorithm: host_key_algorithm.into(),
            host_key,
            incoming,
            outgoing,
            compressed,
            wrong_guess: self.guess_follows && !same_first,
        })
    }
}

impl Agreed {
    /// The algorithms in words, for log lines. All names are ours.
    pub fn describe(&self) -> String {
        let direction = |protection: Protection, compressed| {
            let mut words = protection.cipher.name().to_owned();
            if let Some(mac) = protection.mac {
                words = format!("{words} {}", mac.name());
            }
            if compressed {
                words.push_str(" zlib@openssh.com");
            }
            words
        };
        let kex = String::from_utf8_lossy(&self.kex_name);
        let host_key = String::from_utf8_lossy(&self.host_key_algorithm);
        let incoming = direction(self.incoming, self.compressed.incoming);
        let outgoing = direction(self.outgoing, self.compressed.outgoing);
        if incoming == outgoing {
            return format!("{kex} {host_key} {incoming}");
        }
        format!("{kex} {host_key} in: {incoming} out: {outgoing}")
    }
}

fn protection(setup: &Setup, ciphers: &[u8], macs: &[u8]) -> Result<Protection, ProtocolError> {
    let list = "cipher";
    let name = first_common(ciphers, cipher_names(setup), list)?;
    let cipher = Cipher::by_name(name).ok_or(ProtocolError::NoCommonAlgorithm { list })?;
    if cipher.is_aead() {
        // The MAC list says nothing then (PROTOCOL 1.6 of OpenSSH, RFC 5647 section 5.1).
        return Ok(Protection { cipher, mac: None });
    }
    let list = "MAC";
    let name = first_common(macs, mac_names(setup), list)?;
    let mac = Mac::by_name(name).ok_or(ProtocolError::NoCommonAlgorithm { list })?;
    Ok(Protection {
        cipher,
        mac: Some(mac),
    })
}

fn is_compressed(setup: &Setup, theirs: &[u8]) -> Result<bool, ProtocolError> {
    let name = first_common(theirs, compression_names(setup), "compression")?;
    Ok(name == DELAYED)
}

fn first_common<'a, 's>(
    theirs: &'a [u8],
    ours: impl Iterator<Item = &'s [u8]>,
    list: &'static str,
) -> Result<&'a [u8], ProtocolError> {
    // Once, since their list may be as long as a packet.
    let ours: Vec<&[u8]> = ours.collect();
    names(theirs)
        .find(|name| ours.contains(name))
        .ok_or(ProtocolError::NoCommonAlgorithm { list })
}

fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
        .filter(|name| !name.is_empty())
}

// What the configuration names and this build does not have is not offered.

fn kex_names(setup: &Setup) -> impl Iterator<Item = &[u8]> {
    setup
        .kex
        .iter()
        .map(|name| &**name)
        .filter(|name| Kex::by_name(name).is_some())
}

fn cipher_names(setup: &Setup) -> impl Iterator<Item = &[u8]> {
    setup
        .ciphers
        .iter()
        .map(|name| &**name)
        .filter(|name| Cipher::by_name(name).is_some())
}

fn mac_names(setup: &Setup) -> impl Iterator<Item = &[u8]> {
    setup
        .macs
        .iter()
        .map(|name| &**name)
        .filter(|name| Mac::by_name(name).is_some())
}

fn compression_names(setup: &Setup) -> impl Iterator<Item = &[u8]> {
    let delayed = setup.compression.then_some(DELAYED);
    std::iter::once(&b"none"[..]).chain(delayed)
}

fn host_key_algorithms(setup: &Setup) -> impl Iterator<Item = (&[u8], &Bytes)> {
    setup
        .host_keys
        .iter()
        .flat_map(|key| key.algorithms.iter().map(move |name| (&**name, &key.blob)))
}
