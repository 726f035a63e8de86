//! What a `net` is told of the configuration.

use std::sync::Arc;

use agent_helper::wire::Bytes;

use crate::config::{Options, SOFTWARE_VERSION};
use crate::frames::{ConnectionOptions, HostKeyPublic};
use crate::host_keys::HostKey;
use crate::limits::CHANNELS_PER_CONNECTION_MAX;
use crate::ssh::Setup;
use crate::ssh::crypto::public_key::KeyType;

/// The part of the configuration that a connection's thread works by.
pub(super) fn connection_options(
    options: &Options,
    host_keys: &[Arc<HostKey>],
) -> ConnectionOptions {
    ConnectionOptions {
        setup: Setup {
            server_version: version_line(&options.version_addendum).into(),
            kex: bytes(&options.kex_algorithms),
            host_keys: public_keys(&options.host_key_algorithms, host_keys),
            ciphers: bytes(&options.ciphers),
            macs: bytes(&options.macs),
            compression: options.compression,
            signature_algorithms: signature_algorithms(&options.pubkey_accepted_algorithms),
            rekey_bytes: options.rekey_bytes,
            rekey_s: options.rekey_s,
            max_channels: CHANNELS_PER_CONNECTION_MAX,
        },
        client_alive_interval_s: options.client_alive_interval_s,
        client_alive_count_max: options.client_alive_count_max,
        channel_timeouts: options
            .channel_timeouts
            .iter()
            .map(|(kind, seconds)| (kind.as_str().into(), *seconds))
            .collect(),
        unused_connection_s: options.unused_connection_s,
        tcp_keepalive: options.tcp_keepalive,
        max_sessions: options.max_sessions,
        tos: options.ip_qos,
        log_level: level_number(options.log_level),
    }
}

/// As `ConnectionOptions::log_level` has it.
pub(super) fn level_number(level: log::LevelFilter) -> u8 {
    match level {
        log::LevelFilter::Off => 0,
        log::LevelFilter::Error => 1,
        log::LevelFilter::Warn => 2,
        log::LevelFilter::Info => 3,
        log::LevelFilter::Debug => 4,
        log::LevelFilter::Trace => 5,
    }
}

/// RFC 4253 section 4.2: 253 characters without CR LF.
fn version_line(addendum: &str) -> Vec<u8> {
    let mut line = format!("SSH-2.0-{SOFTWARE_VERSION}");
    if !addendum.is_empty() {
        line.push(' ');
        line.push_str(addendum);
    }
    let mut line: Vec<u8> = line
        .bytes()
        .filter(|byte| (0x20..0x7f).contains(byte))
        .collect();
    line.truncate(253);
    line
}

fn bytes(names: &[String]) -> Vec<Bytes> {
    names.iter().map(|name| name.as_str().into()).collect()
}

/// What `server-sig-algs` announces: how clients may sign, with a key or for its certificate.
pub(super) fn signature_algorithms(accepted: &[String]) -> Vec<Bytes> {
    let mut algorithms: Vec<Bytes> = Vec::new();
    for name in accepted {
        let mut types = KeyType::ALL.into_iter();
        let plain = types.find_map(|key_type| key_type.signs_for(name.as_bytes()));
        let plain = Bytes::from(plain.unwrap_or(name));
        if !algorithms.contains(&plain) {
            algorithms.push(plain);
        }
    }
    algorithms
}

/// The public halves and their certificates in the order of HostKeyAlgorithms, each with the
/// algorithms that are listed.
fn public_keys(wanted: &[String], host_keys: &[Arc<HostKey>]) -> Vec<HostKeyPublic> {
    let mut keys: Vec<(usize, HostKeyPublic)> = Vec::new();
    let mut offered: Vec<(KeyType, bool)> = Vec::new();
    let mut further = Vec::new();
    for key in host_keys {
        let public = key.private.public();
        let key_type = public.key_type;
        let offer_of_key = offer(&public.blob, key_type.algorithms(), wanted);
        if offered.contains(&(key_type, false)) {
            // It takes the first one's place some day: clients learn it, and no exchange uses it.
            further.extend(offer_of_key.map(|(_, key)| HostKeyPublic {
                algorithms: Vec::new(),
                ..key
            }));
        } else {
            offered.push((key_type, false));
            keys.extend(offer_of_key);
        }
        if let Some(certificate) = &key.certificate
            && !offered.contains(&(key_type, true))
        {
            offered.push((key_type, true));
            keys.extend(offer(
                certificate,
                key_type.certificate_algorithms(),
                wanted,
            ));
        }
    }
    keys.sort_by_key(|(first, _)| *first);
    let keys = keys.into_iter().map(|(_, key)| key);
    keys.chain(further).collect()
}

/// A blob with those of its algorithms that are wanted, and the place of the first of them.
fn offer(
    blob: &[u8],
    served: impl Iterator<Item = &'static str> + Clone,
    wanted: &[String],
) -> Option<(usize, HostKeyPublic)> {
    let mut listed = wanted
        .iter()
        .enumerate()
        .filter(|(_, name)| served.clone().any(|known| known == name.as_str()))
        .peekable();
    let (first, _) = *listed.peek()?;
    let key = HostKeyPublic {
        blob: blob.to_vec().into(),
        algorithms: listed.map(|(_, name)| name.as_str().into()).collect(),
    };
    Some((first, key))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_version_line_is_one_printable_line_of_bounded_length() {
        assert!(version_line("").starts_with(b"SSH-2.0-OpenSSH_compatible_agent_"));
        assert!(version_line("Debian\r\nevil").ends_with(b" Debianevil"));
        assert_eq!(version_line(&"x".repeat(1000)).len(), 253);
    }

    #[test]
    fn how_to_sign_is_announced_once_for_keys_and_certificates() {
        let accepted = [
            "rsa-sha2-256-cert-v01@openssh.com",
            "ssh-ed25519",
            "ssh-ed25519-cert-v01@openssh.com",
            "sk-ssh-ed25519-cert-v01@openssh.com",
        ]
        .map(str::to_owned);
        let announced = signature_algorithms(&accepted);
        let wanted = ["rsa-sha2-256", "ssh-ed25519", "sk-ssh-ed25519@openssh.com"];
        assert_eq!(announced, wanted.map(Bytes::from));
    }

    #[test]
    fn levels_are_numbered_as_log_does() {
        for level in log::LevelFilter::iter() {
            assert_eq!(usize::from(level_number(level)), level as usize);
        }
    }
}
