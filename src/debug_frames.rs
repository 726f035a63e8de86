//! The frames between the monitor and the process of the debug service, in both directions.
//!
//! The header's connection number names a client of the service, in the order in which they were
//! accepted; 0 is the process itself. Each client asks one thing and gets one answer, but for
//! [`DebugToMonitor::Follow`]. The monitor looks at the client's socket itself to learn who it is,
//! and believes nothing else here.

#![forbid(unsafe_code)]

use agent_helper::wire::Bytes;
use agent_helper::wire_enum;

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
    }
}
