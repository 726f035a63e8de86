//! The frames between the helper and the two processes it serves: the monitor and the user's `net`.
//!
//! Sockets are `SOCK_SEQPACKET` pairs, read and written through [`crate::link::Link`]. What a frame
//! may carry as descriptors is said at each variant; anything else ends the helper or, at the
//! other end, its connection.

#![forbid(unsafe_code)]

use crate::forward_frame::{ForwardAnswer, ForwardRequest, Forwarding};
use crate::wire::{Bytes, Vec};
use crate::{wire_enum, wire_struct};

wire_struct! {
    /// Who a login is, out of the account database. Names and paths are bytes without NUL.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Identity {
        /// Numeric user id.
        pub uid: u32,
        /// Primary group id.
        pub gid: u32,
        /// Supplementary groups, the primary group included.
        pub groups: Vec<u32>,
        /// Login name as the account database spells it, never as the client did.
        pub name: Bytes,
        /// Home directory.
        pub home: Bytes,
        /// Login shell; never empty (`/bin/sh` where the database has none).
        pub shell: Bytes,
    }
}

wire_enum! {
    /// OnDisconnect: what becomes of that which a connection's sessions started.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum OnDisconnect {
        /// It lives on.
        #[default]
        0 => Leave,
        /// SIGHUP, once.
        1 => Hup,
        /// SIGHUP, and SIGKILL for what is left after a while.
        2 => Kill,
    }
}

wire_struct! {
    /// What one accepted login may do. The helper enforces it; `net` gets the same to answer early.
    #[derive(Debug, Clone, PartialEq, Eq, Default)]
    pub struct Policy {
        /// Who to become.
        pub identity: Identity,
        /// True where the helper runs as root and must become `identity`; false where the server
        /// runs as an ordinary user and the helper already is it.
        pub change_identity: bool,
        /// `USER@ADDR` for argv[0]: the name from the account database, the address from the monitor.
        pub title: Bytes,
        /// The environment every session starts with (USER, LOGNAME, HOME, PATH, SHELL, MAIL, TZ,
        /// SSH_CLIENT, SSH_CONNECTION), in order, before everything else.
        pub environment: Vec<(Bytes, Bytes)>,
        /// `SetEnv` of the configuration: overrides what the client sends.
        pub set_env: Vec<(Bytes, Bytes)>,
        /// `environment=` of the key line, already filtered by PermitUserEnvironment.
        pub key_environment: Vec<(Bytes, Bytes)>,
        /// `AcceptEnv` patterns for names in `env` requests.
        pub accept_env: Vec<Bytes>,
        /// Patterns of names that `~/.ssh/environment` may set (PermitUserEnvironment); empty: not read.
        pub user_environment: Vec<Bytes>,
        /// The command of `ForceCommand` or of `command=` in the key line.
        pub forced_command: Option<Bytes>,
        /// How the user logged in, a line for each method (ExposeAuthInfo); empty: not exposed.
        pub auth_info: Bytes,
        /// PermitTTY, less `no-pty` or `restrict`.
        pub permit_pty: bool,
        /// PermitUserRC, less `no-user-rc` or `restrict`, and not with `ForceCommand`.
        pub permit_user_rc: bool,
        /// Tell the monitor what is done to files by SFTP (SftpAudit).
        pub sftp_audit: bool,
        /// Print /etc/motd in login shells with a terminal.
        pub print_motd: bool,
        /// What login shells with a terminal print first: what ends soon, and the last login.
        pub greeting: Bytes,
        /// Text of /etc/nologin: each session prints it to stderr and exits 254.
        pub nologin: Option<Bytes>,
        /// `Subsystem` table: name, command line.
        pub subsystems: Vec<(Bytes, Bytes)>,
        /// Sessions open at once on this connection (MaxSessions).
        pub max_sessions: u32,
        /// RLIMIT_NOFILE (soft, hard) that the server was started with.
        pub nofile: (u64, u64),
        /// oom_score_adj that the server was started with, as text; sessions get it back.
        pub oom_score_adj: Option<Bytes>,
        /// The monitor opens terminals (it is root); otherwise the helper does.
        pub monitor_opens_terminals: bool,
        /// ChrootDirectory after token expansion.
        pub chroot: Option<Bytes>,
        /// File that asks for silence: the helper looks for `~/.hushlogin` itself, this is for the
        /// system-wide decision (login shell listed as quiet).
        pub quiet_login: bool,
        /// What may be forwarded.
        pub forwarding: Forwarding,
        /// What becomes of what its sessions started, when the connection ends.
        pub on_disconnect: OnDisconnect,
    }
}

wire_enum! {
    /// Monitor to helper.
    #[expect(clippy::large_enum_variant, reason = "one at a time, on the stack of a login")]
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum MonitorToHelper {
        /// Fork a child that becomes `identity` for good, reads `files` and writes what it finds to
        /// the pipe that comes as the frame's only descriptor, in the form of [`KeyRecord`]. The
        /// child exits at the end; the helper stays root and answers [`HelperToMonitor::KeysRead`].
        1 => ReadKeys {
            /// Whose rights to read with (the decoy for a user that does not exist).
            identity: Identity,
            /// Become `identity` first (false without root).
            change_identity: bool,
            /// Absolute paths, tried in order.
            files: Vec<Bytes>,
            /// Check owners and modes up to the home directory (StrictModes).
            strict_modes: bool,
            /// Bytes of one file that are read at most.
            limit_bytes: u32,
        },
        /// The login is accepted: become the user, take the session socket (the frame's only
        /// descriptor), answer [`HelperToMonitor::Ready`] or [`HelperToMonitor::Failed`].
        2 => Accepted {
            /// What the login may do.
            policy: Policy,
        },
        /// A terminal for the request. Descriptors: master, slave.
        3 => Terminal {
            /// From [`HelperToMonitor::OpenTerminal`].
            session: u32,
            /// Path of the slave, for SSH_TTY.
            path: Bytes,
        },
        /// No terminal for the request.
        4 => NoTerminal {
            /// From [`HelperToMonitor::OpenTerminal`].
            session: u32,
        },
        /// Fork a child that becomes `identity` for good, runs a command and writes its output to
        /// the pipe that comes as the frame's only descriptor, as if it were file 0 of
        /// [`MonitorToHelper::ReadKeys`]. Answered like that one.
        6 => RunCommand {
            /// Whose rights to run with.
            identity: Identity,
            /// Become `identity` first (false without root).
            change_identity: bool,
            /// Absolute path, then arguments.
            arguments: Vec<Bytes>,
            /// Bytes of output that are read at most.
            limit_bytes: u32,
        },
        /// Log frames above this level are not wanted (1 error to 5 trace, 0 off).
        5 => SetLogLevel {
            /// The level.
            level: u8,
        },
        /// Descriptor: the helper's end of a link to a resolver
        /// ([`Lookup`](crate::forward_frame::Lookup)).
        7 => Resolver,
        /// There is no resolver to be had.
        8 => NoResolver,
    }
}

wire_enum! {
    /// Helper to monitor. After [`HelperToMonitor::Ready`] the sender is the user: nothing in these
    /// frames is believed, only acted on within the policy.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum HelperToMonitor {
        /// First frame: proves that both were built together.
        1 => Hello {
            /// The agent's build id.
            build_id: [u8; 16],
        },
        /// The key reader has exited; `ok` says whether it became the user and read.
        2 => KeysRead {
            /// False when the reader could not become the identity.
            ok: bool,
        },
        /// The helper is the user now and serves its session socket.
        3 => Ready,
        /// The helper could not become the user; it exits after this frame.
        4 => Failed {
            /// Which step failed: our own words.
            step: Bytes,
            /// errno of the step, 0 where there is none.
            errno: i32,
        },
        /// A session wants a terminal.
        5 => OpenTerminal {
            /// The session's number.
            session: u32,
        },
        /// A session began: command or shell runs.
        6 => SessionStarted {
            /// The session's number.
            session: u32,
            /// Process id.
            pid: u32,
        },
        /// A session ended, its terminal (if any) is free.
        7 => SessionEnded {
            /// The session's number.
            session: u32,
        },
        /// A log line; the monitor prefixes and escapes it.
        8 => Log {
            /// 1 error to 5 trace.
            level: u8,
            /// The line.
            message: Bytes,
        },
        /// There is a name to look up, and no resolver any more.
        9 => StartResolver,
        /// Something was done to a file by SFTP or the built-in scp, where the policy asks for that
        /// to be told.
        10 => FileEvent {
            /// What.
            event: FileEvent,
        },
    }
}

wire_enum! {
    /// What can be done to a file by SFTP or scp.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum FileOperation {
        1 => Open,
        2 => Close,
        3 => Remove,
        4 => Rename,
        5 => MakeDirectory,
        6 => RemoveDirectory,
        7 => SetAttributes,
        8 => SymbolicLink,
        9 => HardLink,
        10 => Copy,
    }
}

wire_struct! {
    /// What was done to a file, and how it went.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct FileEvent {
        /// What.
        pub operation: FileOperation,
        /// As the client named it; for links what they point to.
        pub path: Bytes,
        /// The second path: new name, or the link. Empty where there is none.
        pub second: Bytes,
        /// SSH_FX_ code.
        pub status: u32,
        /// Bytes that were read, at close.
        pub read_bytes: u64,
        /// Bytes that were written, at close.
        pub written_bytes: u64,
        /// By scp.
        pub is_scp: bool,
    }
}

wire_enum! {
    /// What a session runs.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Program {
        /// The login shell.
        1 => Shell,
        /// A command line, given to the shell with -c.
        2 => Command { line: Bytes, },
        /// A subsystem by name.
        3 => Subsystem { name: Bytes, },
    }
}

wire_enum! {
    /// The user's `net` to the helper, on the session socket. Numbers of sessions are `net`'s
    /// choice; one lives from its first frame to [`SessionToNet::Ended`] or [`NetToSession::Close`].
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum NetToSession {
        /// pty-req (RFC 4254 section 6.2).
        1 => OpenTerminal {
            /// The session.
            session: u32,
            /// TERM.
            term: Bytes,
            /// Columns, rows, width and height in pixels as `pty-req` has them: four big-endian
            /// `u32`. Zeroes are ignored.
            size: [u8; 16],
            /// Encoded terminal modes (RFC 4254 section 8), bounded by the helper.
            modes: Bytes,
        },
        /// shell, exec or subsystem, with the `env` requests that came before it.
        2 => Start {
            /// The session.
            session: u32,
            /// What to run.
            program: Program,
            /// Accepted `env` requests in order; the helper filters by the policy again.
            environment: Vec<(Bytes, Bytes)>,
        },
        /// RFC 4254 section 6.9: to the foreground process group, or the session's own group.
        3 => Signal {
            /// The session.
            session: u32,
            /// Name without SIG.
            name: Bytes,
        },
        /// RFC 4335. Answered with success where there is a terminal; a pseudo-terminal has no line
        /// to hold low, so nothing follows from it.
        4 => Break {
            /// The session.
            session: u32,
        },
        /// The channel is closed: the session's number is free again, and its process is on its own.
        /// `net` has closed the master, which hangs the terminal up.
        5 => Close {
            /// The session.
            session: u32,
        },
        /// About forwarding.
        6 => Forward {
            /// What is asked.
            request: ForwardRequest,
        },
    }
}

wire_enum! {
    /// How a session's process ended.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Ending {
        /// exit(3) with this status.
        1 => Exit { status: u32, },
        /// Killed by a signal (Linux number), with or without a core file.
        2 => Signal { number: u8, core_dumped: bool, },
    }
}

wire_enum! {
    /// The helper to the user's `net`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum SessionToNet {
        /// The terminal is there. Descriptor: its master.
        1 => TerminalOpened {
            /// The session.
            session: u32,
        },
        /// There will be no terminal for this session.
        2 => NoTerminal {
            /// The session.
            session: u32,
        },
        /// The program runs. Descriptors: with a terminal none; without: the write end of stdin,
        /// the read end of stdout, the read end of stderr.
        3 => Started {
            /// The session.
            session: u32,
            /// Process id, for log lines.
            pid: u32,
        },
        /// The policy or the system refused to start the program.
        4 => NotStarted {
            /// The session.
            session: u32,
        },
        /// The session's first process ended. Its descendants may still hold the pipes.
        5 => Ended {
            /// The session.
            session: u32,
            /// How.
            ending: Ending,
        },
        /// The program that is being started is our SFTP server: it may hand over files, and answers
        /// each request with one packet, in order. Comes before [`SessionToNet::Started`].
        7 => ServesFiles {
            /// The session.
            session: u32,
        },
        /// A file that the SFTP server opened as the user, to be read and written by `net` itself.
        /// Descriptor: the file.
        8 => File {
            /// The session.
            session: u32,
            /// What the client calls it, as a big-endian number.
            handle: u32,
        },
        /// Where `net` notes what it read and wrote of such files. Descriptor: a file in memory, see
        /// [`tally`](crate::sftp::tally). Comes before the first of them, if at all.
        9 => Tally {
            /// The session.
            session: u32,
        },
        /// About forwarding; descriptors as [`ForwardAnswer`] says.
        6 => Forward {
            /// The answer.
            answer: ForwardAnswer,
        },
    }
}

/// What the key reader writes to its pipe, for each file in order: a header of 12 bytes, then
/// `len` bytes of content, and at the very end a header with status [`KeyRecord::END`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRecord {
    /// Index into `files`.
    pub file: u32,
    /// [`KeyRecord::CHUNK`] (more bytes of the file follow in this record), or why the file ended.
    pub status: u32,
    /// Bytes of content behind this header; for [`KeyRecord::REFUSED`] a sentence why.
    pub len: u32,
}

impl KeyRecord {
    /// A piece of the file follows.
    pub const CHUNK: u32 = 0;
    /// The file was read to its end (or to the limit: [`Self::TRUNCATED`]).
    pub const COMPLETE: u32 = 1;
    /// There is no such file.
    pub const MISSING: u32 = 2;
    /// StrictModes or the file's type forbids reading it; a sentence follows.
    pub const REFUSED: u32 = 3;
    /// An input or output error; the errno follows as 4 bytes.
    pub const FAILED: u32 = 4;
    /// More than the limit was there.
    pub const TRUNCATED: u32 = 5;
    /// Nothing follows.
    pub const END: u32 = 6;
    /// Bytes of the header on the pipe, three little-endian u32.
    pub const HEADER_BYTES: usize = 12;
}
