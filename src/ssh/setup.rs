//! What the core is told at its start: algorithm lists, host keys, limits.

use agent_helper::wire::Bytes;
use agent_helper::wire_struct;

use crate::frames::HostKeyPublic;

wire_struct! {
    /// Everything that the core needs to know of the configuration.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Setup {
        /// Our identification line without CR LF, at most 253 bytes (RFC 4253 section 4.2).
        pub server_version: Bytes,
        /// KexAlgorithms in our order, without the marker names (ext-info-s, kex-strict).
        pub kex: Vec<Bytes>,
        /// Host keys; their algorithms, in order, make the server_host_key_algorithms list.
        pub host_keys: Vec<HostKeyPublic>,
        /// Ciphers, both directions.
        pub ciphers: Vec<Bytes>,
        /// MACs, both directions.
        pub macs: Vec<Bytes>,
        /// Whether `zlib@openssh.com` is offered behind `none`, both directions.
        pub compression: bool,
        /// PubkeyAcceptedAlgorithms, for `server-sig-algs`.
        pub signature_algorithms: Vec<Bytes>,
        /// RekeyLimit in bytes; 0: the cipher's default (protocol-facts: 2^32 blocks, or 1 GiB for
        /// block sizes below 16).
        pub rekey_bytes: u64,
        /// RekeyLimit in seconds; 0: off. The driver holds the clock and calls `Core::rekey`.
        pub rekey_s: u32,
        /// Channels open at once.
        pub max_channels: u32,
    }
}
