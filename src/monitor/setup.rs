//! What a `net` is told of the configuration.

use std::sync::Arc;

use agent_helper::wire::Bytes;

use crate::config::{Options, SOFTWARE_VERSION};
use crate::frames::{ConnectionOptions, HostKeyPublic};
use crate::host_keys::HostKey;
use crate::limits::CHANNELS_PER_CONNECTION_MAX;
use crate::ssh::Setup;

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
            signature_algorithms: bytes(&options.pubkey_accepted_algorithms),
            rekey_bytes: options.rekey_bytes,
            rekey_s: options.rekey_s,
            max_channels: CHANNELS_PER_CONNECTION_MAX,
        },
        client_alive_interval_s: options.client_alive_interval_s,
        client_alive_count_max: options.client_alive_count_max,
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

/// The public halves in the order of HostKeyAlgorithms, each with the algorithms that are listed.
fn public_keys(wanted: &[String], host_keys: &[Arc<HostKey>]) -> Vec<HostKeyPublic> {
    let mut keys: Vec<(usize, HostKeyPublic)> = host_keys
        .iter()
        .filter_map(|key| {
            let public = key.private.public();
            let served = public.key_type.algorithms();
            let listed: Vec<(usize, &str)> = wanted
                .iter()
                .enumerate()
                .filter(|(_, name)| served.contains(&name.as_str()))
                .map(|(place, name)| (place, name.as_str()))
                .collect();
            let first = listed.first()?.0;
            let algorithms = listed.into_iter().map(|(_, name)| name.into()).collect();
            Some((
                first,
                HostKeyPublic {
                    blob: public.blob.clone().into(),
                    algorithms,
                },
            ))
        })
        .collect();
    keys.sort_by_key(|(first, _)| *first);
    keys.into_iter().map(|(_, key)| key).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_version_line_is_one_printable_line_of_bounded_length() {
        assert!(version_line("").starts_with(b"SSH-2.0-agent_"));
        assert!(version_line("Debian\r\nevil").ends_with(b" Debianevil"));
        assert_eq!(version_line(&"x".repeat(1000)).len(), 253);
    }

    #[test]
    fn levels_are_numbered_as_log_does() {
        for level in log::LevelFilter::iter() {
            assert_eq!(usize::from(level_number(level)), level as usize);
        }
    }
}
