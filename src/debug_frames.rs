//! The frames between the monitor and the process of the debug service, in both directions.
//!
//! The header's connection number names a client of the service, in the order in which they were
//! accepted; 0 is the process itself. Each client asks one thing and gets one answer, but for
//! [`DebugToMonitor::Follow`]. The monitor looks at the client's socket itself to learn who it is,
//! and believes nothing else here.

#![forbid(unsafe_code)]

use std::net::SocketAddr;

use agent_helper::wire::Bytes;
use agent_helper::{wire_enum, wire_struct};

wire_enum! {
    /// From the debug process to the monitor.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum DebugToMonitor {
        /// First frame, connection 0: proves one build.
        1 => Hello {
            /// The agent's build id.
            build_id: [u8; 16],
        },
        /// A client connected. Descriptor: its socket.
        2 => Client,
        /// The client is gone; its number means nothing any more.
        3 => Left,
        /// At which level is logged?
        4 => GetLogLevel,
        /// Log at this level, everywhere, until the configuration is read again.
        5 => SetLogLevel {
            /// 1 error to 5 trace.
            level: u8,
        },
        /// A line for the log about the debug process itself; connection 0.
        6 => Log {
            /// 1 error to 5 trace.
            level: u8,
            /// The line, escaped by the monitor.
            message: Bytes,
        },
        /// Is the server ready, and what does it work with?
        7 => GetReadiness,
        /// The live connections, from the one behind `after` on.
        8 => GetSessions {
            /// An id; 0: from the first.
            after: u64,
        },
        /// End this connection.
        9 => Close {
            /// Its id.
            id: u64,
        },
        /// Accept no more; end with the last connection.
        10 => Drain,
        /// All counters.
        11 => GetMetrics,
        /// The last refusals.
        12 => GetRefusals {
            /// Of this user or address only.
            whom: Option<Bytes>,
        },
        /// The penalties of now.
        13 => GetPenalties,
        /// Forget the penalty of this address, or all.
        14 => ClearPenalties {
            /// As text.
            address: Option<Bytes>,
        },
        /// Refuse connections from this address from now on, for so long.
        15 => SetPenalty {
            /// As text.
            address: Bytes,
            /// 0: let it in.
            seconds: u32,
        },
        /// Let the program that the server's file holds now take over.
        20 => Upgrade,
        /// Take a profile.
        16 => Profile {
            /// `profile::Kind`, by its number.
            kind: u8,
            /// Over this time; 0: the usual one.
            seconds: u32,
            /// `monitor`, `net`, or a process id.
            process: Option<Bytes>,
            /// Samples of CPU time per second; 0: the usual number.
            hz: u32,
        },
        /// Copies of log lines from now on.
        17 => Follow {
            /// 1 error to 5 trace; 0: those that are logged.
            level: u8,
            /// In their place the last ones, as they were logged.
            last: bool,
        },
        /// What connections and sessions go through from now on.
        18 => Trace {
            /// For so long; 0: the usual time.
            seconds: u32,
        },
        /// The command line of a process.
        19 => GetCommandLine {
            /// As for a profile.
            process: Option<Bytes>,
        },
    }
}

wire_struct! {
    /// A record of a log stream.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct LogLine {
        /// Microseconds since 1970.
        pub at_us: u64,
        /// 1 error to 5 trace.
        pub level: u8,
        /// It is in OpenSSH's words.
        pub login: bool,
        /// Lines that are missing before it.
        pub dropped: u64,
        /// One printable line.
        pub message: Bytes,
    }
}

wire_struct! {
    /// A record of a trace: a connection enters a phase, or a session of it begins or ends.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TraceEvent {
        /// Microseconds since the trace began.
        pub at_us: u64,
        /// The connection's id.
        pub connection: u64,
        /// What is meant where it is not the connection itself.
        pub part: Option<Bytes>,
        /// What begins; empty: it ends.
        pub name: Bytes,
        /// More about it; escaped.
        pub detail: Bytes,
        /// Events that are missing before it.
        pub dropped: u64,
    }
}

wire_struct! {
    /// What the server works with.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Readiness {
        /// Connections are accepted.
        pub ready: bool,
        /// It accepts no more and ends with its last connection.
        pub draining: bool,
        /// The monitor's process id.
        pub pid: u32,
        /// Seconds since 1970 at its start.
        pub started_s: u64,
        /// From where the helper is executed.
        pub helper_mode: Bytes,
        /// Better ways, and why they were not taken.
        pub helper_refusals: Vec<(Bytes, Bytes)>,
        /// The server's keys.
        pub host_keys: Vec<HostKeyFact>,
        /// Where it listens.
        pub listeners: Vec<SocketAddr>,
        /// Parts of the confinement that this kernel does not have.
        pub missing: Vec<Bytes>,
        /// Processes that keep connections from before an upgrade or a stop.
        pub keepers: Vec<u32>,
    }
}

wire_struct! {
    /// A host key.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct HostKeyFact {
        /// Its type.
        pub name: Bytes,
        /// Where it is, or should be.
        pub path: Bytes,
        /// It survives a restart.
        pub persisted: bool,
    }
}

wire_struct! {
    /// A live connection.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct SessionFact {
        /// Names it for `Close`; never used twice.
        pub id: u64,
        /// Who is logged in, or tries to; escaped.
        pub user: Bytes,
        /// Where it stands.
        pub phase: Bytes,
        /// The client's end.
        pub address: Bytes,
        /// Its port.
        pub port: u16,
        /// Seconds since 1970.
        pub since_s: u64,
        /// Channels that are open.
        pub channels: u32,
        /// Programs that run.
        pub programs: u32,
        /// Bytes from the client.
        pub received: u64,
        /// Bytes to the client.
        pub sent: u64,
        /// The helper's process; 0: none.
        pub helper_pid: u32,
        /// Key exchange, ciphers and so on.
        pub algorithms: Bytes,
        /// The client's own word about itself; escaped.
        pub client: Bytes,
    }
}

wire_struct! {
    /// One number of a metric.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Sample {
        /// Which metric: an index into `metrics::FAMILIES`.
        pub family: u8,
        /// Values of its labels.
        pub labels: Vec<Bytes>,
        /// The number; of times, microseconds.
        pub value: u64,
    }
}

wire_struct! {
    /// How long something took, how often.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct HistogramFact {
        /// Which metric.
        pub family: u8,
        /// How many took no longer than each of the bounds, each for itself; the last: longer.
        pub counts: Vec<u64>,
        /// All together.
        pub sum_us: u64,
    }
}

wire_struct! {
    /// A refusal.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct RefusalFact {
        /// Seconds since 1970.
        pub at_s: i64,
        /// Escaped; empty: nobody was named.
        pub user: Bytes,
        /// The client's address.
        pub address: Bytes,
        /// Its port.
        pub port: u16,
        /// The stable code.
        pub reason: Bytes,
        /// What to do.
        pub advice: Bytes,
    }
}

wire_struct! {
    /// A penalty.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct PenaltyFact {
        /// First address of the block.
        pub address: Bytes,
        /// For what.
        pub offence: Bytes,
        /// Its connections are refused; else it only adds up.
        pub active: bool,
        /// Until then, in seconds from now.
        pub left_s: u64,
    }
}

wire_enum! {
    /// From the monitor to the debug process.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum MonitorToDebug {
        /// Whether the client may use the service.
        1 => Judged {
            /// It may.
            permitted: bool,
        },
        /// At which level is logged.
        2 => LogLevel {
            /// 0 off to 5 trace.
            level: u8,
        },
        /// To `GetReadiness`.
        3 => Readiness {
            /// All of it.
            readiness: Readiness,
        },
        /// To `GetSessions`.
        4 => Sessions {
            /// In order of their ids.
            sessions: Vec<SessionFact>,
            /// There are more behind the last of these.
            more: bool,
        },
        /// It is done.
        5 => Done {
            /// To how many connections or penalties.
            count: u32,
        },
        /// To `GetMetrics`.
        6 => Metrics {
            /// Counters and gauges.
            samples: Vec<Sample>,
            /// Times.
            histograms: Vec<HistogramFact>,
        },
        /// To `GetRefusals`.
        7 => Refusals {
            /// The newest first.
            refusals: Vec<RefusalFact>,
        },
        /// To `GetPenalties`.
        8 => Penalties {
            /// In order of their addresses.
            penalties: Vec<PenaltyFact>,
        },
        /// It is on its way. Descriptor: the pipe that it comes through.
        10 => Profiling,
        /// Another one is under way.
        11 => Busy {
            /// For so long.
            seconds: u32,
        },
        /// What was asked for comes from now on. Descriptor: the socket of its records.
        12 => Following {
            /// For so long; 0: until it ends.
            seconds: u32,
        },
        /// To `GetCommandLine`.
        13 => CommandLine {
            /// Arguments, with a NUL behind each.
            words: Bytes,
        },
        /// A new program is proven and takes over: this link ends when it has.
        20 => Upgrading {
            /// What it said of itself.
            what: Bytes,
        },
        /// What was asked makes no sense, or cannot be done.
        9 => Invalid {
            /// Why.
            what: Bytes,
        },
    }
}
