//! The frames between the monitor and a `net` process, in both directions.
//!
//! They travel over [`agent_helper::link::Link`]; the header's connection number is the one that
//! the frame is about (0: the whole process). Strangers' `net` numbers its own connections from 1;
//! in a user's `net` the monitor numbers them, in [`ToNet::Adopt`]. The monitor believes nothing
//! here: `monitor::permit` says which frame is allowed in which phase and how often.

#![forbid(unsafe_code)]

use agent_helper::wire::Bytes;
use agent_helper::{wire_enum, wire_struct};

use crate::ssh::Setup;

wire_struct! {
    /// Host key as `net` needs it: public only (rule 7 of the design).
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct HostKeyPublic {
        /// Public key blob, K_S (RFC 4253 section 6.6).
        pub blob: Bytes,
        /// Signature algorithms that this key serves, in order of preference.
        pub algorithms: Vec<Bytes>,
    }
}

wire_struct! {
    /// What a connection thread needs to know beyond the protocol core's [`Setup`].
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct ConnectionOptions {
        /// For the core: algorithms, host keys, rekey limits, version line.
        pub setup: Setup,
        /// ClientAliveInterval in seconds; 0: off.
        pub client_alive_interval_s: u32,
        /// ClientAliveCountMax.
        pub client_alive_count_max: u32,
        /// ChannelTimeout: patterns of types and seconds.
        pub channel_timeouts: Vec<(Bytes, u32)>,
        /// UnusedConnectionTimeout in seconds; 0: off.
        pub unused_connection_s: u32,
        /// TCPKeepAlive.
        pub tcp_keepalive: bool,
        /// MaxSessions.
        pub max_sessions: u32,
        /// IPQoS for interactive and bulk traffic (DSCP shifted into the TOS byte); 0: leave.
        pub tos: (u8, u8),
        /// LogLevel as `log::LevelFilter` number (0 off to 5 trace).
        pub log_level: u8,
    }
}

wire_struct! {
    /// A live connection as its `net` knows it.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct ConnectionReport {
        /// Its number.
        pub number: u32,
        /// Bytes from the peer.
        pub received: u64,
        /// Bytes to the peer.
        pub sent: u64,
        /// Channels that are open.
        pub channels: u32,
        /// Key exchanges after the first.
        pub rekeys: u32,
        /// In words.
        pub algorithms: Bytes,
    }
}

wire_enum! {
    /// From `net` to the monitor.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum NetToMonitor {
        /// First frame of a `net`: connection 0. Proves one build, and says which parts of the
        /// confinement took and which the kernel does not have.
        1 => Hello {
            /// The agent's build id.
            build_id: [u8; 16],
            /// For `/readyz` and one warning in the log: parts missing in this kernel.
            missing: Vec<Bytes>,
        },
        /// A stranger connected. Descriptor: the accepted socket.
        2 => Accept,
        /// A cookie for a key re-exchange, please.
        3 => Cookie,
        /// Sign an exchange (RFC 4253 section 8).
        4 => Sign {
            /// What goes into the exchange hash.
            exchange: Exchange,
        },
        /// SSH_MSG_USERAUTH_REQUEST, the payload behind the message number, unparsed.
        5 => Auth {
            /// The request.
            request: Bytes,
        },
        /// The frozen connection, after [`ToNet::AuthSuccess`].
        6 => Frozen {
            /// `ssh::Frozen`, encoded; for the user's `net` only, never decoded by the monitor.
            state: Bytes,
        },
        /// The connection ended.
        7 => Closed {
            /// Why, for the log: our own words, or the peer's, marked; escaped by the monitor.
            reason: CloseReason,
            /// Free text; for `ByPeer` the peer's own message.
            detail: Bytes,
            /// Bytes received from and sent to the peer.
            bytes: (u64, u64),
        },
        /// A log line about this connection.
        8 => Log {
            /// 1 error to 5 trace.
            level: u8,
            /// The line, escaped by the monitor.
            message: Bytes,
        },
        /// The accepting thread could not accept: out of descriptors or memory.
        9 => AcceptPaused {
            /// errno.
            errno: i32,
        },
        /// Prove that this host key is ours (hostkeys-prove-00@openssh.com).
        12 => Prove {
            /// The key's blob.
            key: Bytes,
        },
        /// What the peer said of itself; once, after the version exchange.
        10 => ClientVersion {
            /// V_C.
            version: Bytes,
        },
        /// SSH_MSG_USERAUTH_INFO_RESPONSE to [`ToNet::AuthInfoRequest`], the payload behind the
        /// message number, unparsed.
        11 => AuthResponse {
            /// The response.
            response: Bytes,
        },
        /// A part of the answer to [`ToNet::Report`]; connection 0.
        13 => Report {
            /// Some of the connections.
            connections: Vec<ConnectionReport>,
            /// The rest of them.
            last: bool,
        },
    }
}

impl NetToMonitor {
    /// What is to be wiped as soon as it was used: what may hold a password, the secret of a key
    /// exchange, and the keys of a connection that is handed over.
    pub fn secret(&mut self) -> Option<&mut Bytes> {
        match self {
            Self::Sign { exchange } => Some(&mut exchange.shared_secret),
            Self::Auth { request: secret }
            | Self::AuthResponse { response: secret }
            | Self::Frozen { state: secret } => Some(secret),
            _ => None,
        }
    }
}

wire_struct! {
    /// Inputs of the exchange hash. Bounded by the frame; read by the monitor.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Exchange {
        /// Name of the key exchange method: picks hash and shapes.
        pub kex: Bytes,
        /// Negotiated signature algorithm: picks the host key.
        pub host_key_algorithm: Bytes,
        /// Client's identification line without CR LF.
        pub client_version: Bytes,
        /// Payload of the client's KEXINIT, message number included.
        pub client_kexinit: Bytes,
        /// Payload of ours; must hold the cookie that the monitor made for this exchange.
        pub server_kexinit: Bytes,
        /// Q_C.
        pub client_public: Bytes,
        /// Q_S.
        pub server_public: Bytes,
        /// K, encoded as it enters the hash (mpint or string, with its length).
        pub shared_secret: Bytes,
    }
}

wire_enum! {
    /// Why a connection ended.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum CloseReason {
        /// The peer closed the TCP connection.
        1 => Eof,
        /// SSH_MSG_DISCONNECT from the peer with this code.
        2 => ByPeer { code: u32, },
        /// The peer broke the protocol; we sent SSH_MSG_DISCONNECT with this code.
        3 => Protocol { code: u32, },
        /// An input or output error on the socket.
        4 => Io { errno: i32, },
        /// The client stopped answering (ClientAliveCountMax).
        5 => Timeout,
        /// The monitor or an administrator ended it.
        6 => Ended,
        /// No algorithms in common.
        7 => NoCommonAlgorithm,
        /// The helper went away.
        8 => HelperGone,
        /// A fault of ours: a caught panic.
        9 => Fault,
    }
}

wire_enum! {
    /// From the monitor to `net`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum ToNet {
        /// The connection may go on.
        1 => Accepted {
            /// For the first KEXINIT.
            cookie: [u8; 16],
            /// Address-dependent configuration.
            options: ConnectionOptions,
        },
        /// The connection is refused: send `text` (may be empty) and close.
        2 => Refused {
            /// A line before the version exchange, as OpenSSH sends it.
            text: Bytes,
        },
        /// For a key re-exchange.
        3 => Cookie {
            /// 16 random bytes.
            cookie: [u8; 16],
        },
        /// The signature blob over the exchange hash.
        4 => Signature {
            /// RFC 4253 section 6.6.
            blob: Bytes,
        },
        /// SSH_MSG_USERAUTH_FAILURE.
        5 => AuthFailure {
            /// Methods that can continue.
            methods: Vec<Bytes>,
            /// Partial success.
            partial: bool,
        },
        /// SSH_MSG_USERAUTH_PK_OK.
        6 => AuthPublicKeyOk {
            /// Algorithm name of the request.
            algorithm: Bytes,
            /// Key blob of the request.
            key: Bytes,
        },
        /// The login is accepted: freeze the connection and send [`NetToMonitor::Frozen`].
        7 => AuthSuccess,
        /// End the connection with SSH_MSG_DISCONNECT.
        8 => Disconnect {
            /// RFC 4253 section 11.1.
            reason: u32,
            /// For the peer.
            message: Bytes,
        },
        /// To a user's `net`: take this connection over and say SUCCESS. Descriptors: the client's
        /// socket (with --inetd: input, then output), then the helper's session socket.
        9 => Adopt {
            /// `ssh::Frozen`, encoded.
            state: Bytes,
            /// Configuration that the connection began with.
            options: ConnectionOptions,
            /// To answer the client early; the helper enforces it.
            policy: agent_helper::frame::Policy,
        },
        /// To strangers' `net` with --inetd: serve this one connection, under the header's number.
        /// Descriptors: input, output. No `Accept` comes from `net`; `Accepted` follows at once.
        10 => Serve,
        /// Connection 0: log level of the whole process (0 off to 5 trace).
        11 => SetLogLevel {
            /// The level.
            level: u8,
            /// It counts for every connection, whatever their own levels are.
            forced: bool,
            /// Lines up to this level are followed: they are wanted too (0: none are).
            followed: u8,
        },
        /// The user's keys may sign by these, where it is not as [`ToNet::Accepted`] said. Comes
        /// before the first answer.
        20 => SignatureAlgorithms {
            /// As `Setup::signature_algorithms`.
            names: Vec<Bytes>,
        },
        /// To [`NetToMonitor::Prove`].
        17 => Proof {
            /// The key's blob.
            key: Bytes,
            /// The signature blob; empty where there is none.
            signature: Bytes,
        },
        /// Connection 0: accept no more; end when the last connection ends.
        12 => StopAccepting,
        /// Accept again after [`NetToMonitor::AcceptPaused`]: a descriptor became free.
        13 => ResumeAccepting,
        /// SSH_MSG_USERAUTH_PASSWD_CHANGEREQ.
        14 => AuthPasswordChange {
            /// For the user.
            prompt: Bytes,
        },
        /// SSH_MSG_USERAUTH_INFO_REQUEST: nothing that is typed is echoed.
        15 => AuthInfoRequest {
            /// For the user.
            instruction: Bytes,
            /// What is asked.
            prompts: Vec<Bytes>,
        },
        /// SSH_MSG_USERAUTH_BANNER, or a part of it, before an answer.
        16 => Banner {
            /// For the user; of any length that a frame can have.
            text: Bytes,
        },
        /// Connection 0: what about your connections?
        18 => Report,
        /// Connection 0: take a profile. Descriptor: the pipe that it goes into.
        19 => Profile {
            /// `profile::Kind`, by its number.
            kind: u8,
            /// Over this time.
            seconds: u32,
            /// Samples of CPU time per second; 0: the usual number.
            hz: u32,
        },
    }
}
