//! Every limit that this program puts on what others send, each with its reason.

use std::time::Duration;

// The SSH protocol core.

/// A client's identification line, in bytes. RFC 4253 section 4.2 says 255; OpenSSH reads 8192.
pub const IDENT_BYTES: usize = 8192;
/// A packet without its tag, before authentication: what RFC 4253 section 6.1 asks for at least.
/// Strangers get no more, since each of them can make the server hold this much.
pub const PACKET_BYTES_BEFORE_AUTHENTICATION: usize = 35_000;
/// A packet without its tag, after authentication: OpenSSH's ceiling.
pub const PACKET_BYTES: usize = 256 * 1024;
/// Data in one packet of ours, in bytes: what OpenSSH sends, and what clients are tuned for.
pub const DATA_BYTES: usize = 32 * 1024;
/// Bytes of a client's list that had nothing in common with ours, for the log.
pub const UNMATCHED_OFFER_BYTES: usize = 400;
/// The inbox of a busy connection, in bytes: one read(2) takes several full packets.
pub const INBOX_BYTES: usize = 128 * 1024;
/// Channel data stops being taken while this many bytes wait for the socket.
pub const OUTBOX_DATA_BYTES: usize = 256 * 1024;
/// Input stops being handled while this many bytes wait for the socket: a peer that asks and does
/// not read its answers. Above [`OUTBOX_DATA_BYTES`], so that data alone never stops input.
pub const OUTBOX_BYTES: usize = 384 * 1024;
/// Messages held back while keys change, in bytes. What a correct peer can have under way when our
/// KEXINIT reaches it is far less.
pub const HELD_BYTES: usize = 128 * 1024;
/// Unanswered channel requests per channel and unanswered global requests per connection.
pub const UNANSWERED_REQUESTS: u32 = 256;
/// Global requests that wait for the helper's answer: with as many, the client is not read. Fewer
/// than [`UNANSWERED_REQUESTS`], which a client that is served never reaches.
pub const GLOBAL_REPLIES_WAITING: usize = 128;
/// Where the inbox of a new connection starts, in bytes: a whole login fits.
pub const INBOX_FIRST_BYTES: usize = 4096;
/// Bytes that a connection may have waiting on either side when it is handed over. A client that
/// sent or left unread more than this before it logged in is not one that logs in.
pub const FROZEN_BYTES: usize = 64 * 1024;

// The monitor.

/// Names beyond this are no account's: utmp holds 32 bytes, useradd(8) allows 32, some directories 256.
pub const USER_NAME_MAX_BYTES: usize = 256;
/// One entry of the account database; the largest seen in practice are groups of directories.
pub const ACCOUNT_BUFFER_MAX_BYTES: usize = 64 * 1024;
/// What a line of /etc/shadow takes, but for freak ones: the first buffer, which is wiped afterwards.
pub const SHADOW_LINE_BYTES: usize = 1500;
/// Supplementary groups: the kernel's NGROUPS_MAX.
pub const GROUPS_MAX: usize = 65536;

/// Connections of one monitor, before and after login: each takes up to four descriptors here, and
/// a table that anybody on the network can fill must end somewhere.
pub const CONNECTIONS_MAX: usize = 16 * 1024;
/// Descriptors of the monitor for one connection: socket (with --inetd two), helper, key pipe, session.
pub const DESCRIPTORS_PER_CONNECTION: usize = 4;
/// Descriptors that stay free for files, listeners and links while connections are refused.
pub const DESCRIPTORS_RESERVED: usize = 64;
/// Key readers at once: each is a process for as long as a disk needs; more would only queue there.
pub const KEY_READERS_MAX: usize = 16;
/// A key reader that takes longer reads from a dead network disk: the login fails.
pub const KEY_READ_TIME_MS: u64 = 1000;
/// Bytes of one key file: 10,000 lines with the longest keys in use; read for each login.
pub const KEY_FILE_MAX_BYTES: u32 = 8 * 1024 * 1024;
/// Bytes of all key files of one request: reading is bounded work for a file that a user controls.
pub const KEY_FILES_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Commands for keys and principals at once, apart from readers: each may wait for a directory.
pub const KEY_COMMANDS_MAX: usize = 16;
/// A command that takes longer has lost its directory; clients would not wait much longer either.
pub const KEY_COMMAND_TIME_MS: u64 = 30_000;
/// Bytes of a command's output: the keys of one user, or the principals.
pub const KEY_COMMAND_OUTPUT_MAX_BYTES: u32 = KEY_FILE_MAX_BYTES;
/// TrustedUserCAKeys: some 1,000 lines; read for each login with a certificate.
pub const AUTHORITIES_MAX_BYTES: u64 = 1024 * 1024;
/// RevokedKeys: some 400,000 fingerprints; read once for each key that would let its owner in.
pub const REVOKED_KEYS_MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Keys of which it is remembered what a list said: some 25 KiB.
pub const REVOKED_KEYS_REMEMBERED: usize = 256;
/// Such lists: one, and those of Match blocks.
pub const REVOKED_KEYS_FILES_MAX: usize = 4;
/// Lines about refused key lines in the log for one request; a file may hold thousands.
pub const KEY_LINE_REPORTS_MAX: usize = 5;
/// Bytes taken from a key reader's pipe at once: the monitor's other work waits no longer than that takes.
pub const KEY_CHUNK_BYTES: usize = 64 * 1024;
/// How long the answer to "would this key do" spares reading the files again for the signature that
/// follows; the client's agent may ask a person in between.
pub const KEY_ANSWER_LIFETIME_MS: u64 = 10_000;
/// "Would this key do" answered with yes, for one connection: against scanning for known keys.
pub const KEY_QUERIES_MAX: u32 = 15;
/// Authentication requests on one connection, whatever their outcome: `MaxAuthTries` counts
/// failures only.
pub const AUTH_REQUESTS_MAX: u32 = 64;
/// A request: OpenSSH's largest packet is 256 KiB, an RSA key of 16384 bits with signature 5 KiB.
pub const AUTH_REQUEST_MAX_BYTES: usize = 64 * 1024;
/// Key blob: RSA with 8192 bits takes 1,047 bytes; certificates up to some KiB.
pub const KEY_BLOB_MAX_BYTES: usize = 16 * 1024;

/// Answers in one keyboard-interactive response: OpenSSH's bound is 100, and nobody asks so much.
pub const INFO_RESPONSES_MAX: u32 = 8;
/// A password that a client gives: OpenSSH's bound. Hashing takes time by its length.
pub const PASSWORD_MAX_BYTES: usize = 1024;
/// A password that replaces an expired one: what NIST SP 800-63B section 3.1.1 asks for.
pub const PASSWORD_MIN_CHARACTERS: usize = 8;
/// Password checks at once, where memory allows: each is a process, and yescrypt takes 16 MiB.
pub const PASSWORD_CHECKS_MAX: usize = 8;
/// Memory of the machine for each check at once: a box of 128 MiB makes two.
pub const PASSWORD_CHECK_MEMORY_BYTES: u64 = 64 * 1024 * 1024;
/// CPU time of one check. Distributions' hashes take a tenth of a second on a small box.
pub const PASSWORD_CPU_TIME_S: u64 = 20;
/// How long the shadow file's lock is waited for; lckpwdf(3) waits 15 s.
pub const PASSWORD_LOCK_TIME_MS: u64 = 5_000;
/// The shadow file: some 100,000 accounts.
pub const SHADOW_FILE_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// KEXINIT payloads of the exchange hash: ours is 2 KiB, the longest known lists 4 KiB.
pub const KEXINIT_MAX_BYTES: usize = 64 * 1024;
/// Public values and shared secret of an exchange; the longest is sntrup761 with 1,190 bytes.
pub const KEX_VALUE_MAX_BYTES: usize = 8 * 1024;
/// Key exchanges on one connection in a burst; 10 GbE with `RekeyLimit 1M` needs a thousand a second.
pub const SIGNATURES_BURST: u32 = 1000;
/// Key exchanges per second on one connection in the long run.
pub const SIGNATURES_PER_SECOND: u32 = 1000;
/// Proofs of host keys on one connection: more than there are types.
pub const PROOFS_MAX: u32 = 16;
/// Signatures waiting for the worker, to be made or verified: each takes some milliseconds, and a
/// connection asks for one at a time.
pub const WORKER_QUEUE_MAX: usize = 1024;

/// Frozen connection: keys and up to one packet and one inbox of bytes not yet handled.
pub const FROZEN_MAX_BYTES: usize = 400 * 1024;

/// Frames of the monitor that wait for room in a link, in bytes: two of the largest hand-overs and
/// some. A `net` that leaves more untaken is stuck.
pub const OUTBOX_MAX_BYTES: usize = 4 * 1024 * 1024;
/// The same in number, since each may hold descriptors.
pub const OUTBOX_FRAMES_MAX: usize = 4096;
/// A connection that was told to end and did not is cut off after this time.
pub const ENDING_TIME_MS: u64 = 5_000;

/// Log lines of one `net` or helper in a burst.
pub const LOG_LINES_BURST: u32 = 200;
/// Log lines of one `net` or helper per second in the long run.
pub const LOG_LINES_PER_SECOND: u32 = 20;
/// Bytes of a log line of another process.
pub const LOG_LINE_MAX_BYTES: usize = 1024;
/// Lines about what one user does to files, in bytes at once: some 50,000 lines, what copying 20,000
/// files makes.
pub const FILE_LOG_BURST_BYTES: u32 = 8 * 1024 * 1024;
/// The same per second in the long run: some 1,500 lines. With the burst, trees of 100,000 files go as
/// fast as clients go that wait for each answer.
pub const FILE_LOG_BYTES_PER_SECOND: u32 = 256 * 1024;
/// How long whoever is beyond that is not listened to: then some hundred lines are written at once.
pub const FILE_LOG_PAUSE_MS: u64 = 50;
/// How long, once a connection is over, what it did to files may still be told. It takes a millisecond,
/// unless there was a flood; what is not done by then is not done.
pub const FAREWELL_TIME_MS: u64 = 30_000;
/// Bytes of a peer's text (version, disconnect message) in one log line.
pub const PEER_TEXT_MAX_BYTES: usize = 200;

/// Channels of one connection: beyond what any client of sessions opens, small enough for a table.
pub const CHANNELS_PER_CONNECTION_MAX: u32 = 1024;
/// Terminals of one connection: MaxSessions bounds them too, but that may be set to anything.
pub const TERMINALS_PER_CONNECTION_MAX: usize = 64;
/// Sessions with records on one connection.
pub const SESSIONS_PER_CONNECTION_MAX: usize = 1024;

/// How long the name of a client is looked up (UseDNS): what resolvers take for one server.
pub const CLIENT_NAME_TIME_MS: u64 = 10_000;
/// Such look-ups at once.
pub const CLIENT_NAMES_MAX: usize = 16;
/// Refusals that are remembered for whoever asks why: a day of mistakes, minutes of an attack.
pub const REFUSALS_REMEMBERED: usize = 128;
/// Bytes of a name that is remembered with a refusal; accounts' names are shorter.
pub const REMEMBERED_NAME_BYTES: usize = 64;

/// Bytes of the file that `Banner` names: OpenSSH's limit.
pub const BANNER_MAX_BYTES: u64 = 1024 * 1024;
/// Bytes of it in one frame: few frames, each well below the largest.
pub const BANNER_FRAME_BYTES: usize = 256 * 1024;
/// Bytes of it in one message: clients' packets have 35,000 bytes at least (RFC 4253 section 6.1).
pub const BANNER_PIECE_BYTES: usize = 32 * 1024;
/// Bytes of /etc/nologin.
pub const NOLOGIN_MAX_BYTES: u64 = 8 * 1024;

/// Frames taken from one link before others get their turn.
pub const FRAMES_PER_TURN: usize = 64;
/// A user's `net` without connections ends after this time.
pub const IDLE_NET_LIFETIME_MS: u64 = 60_000;
/// How long a helper may take, when its connection is over, before something must be left of it that
/// others than it have to end: one with nothing left is gone in a millisecond.
pub const AFTERMATH_DELAY_MS: u64 = 100;
/// Processes that end what is left, at once; each lives for ten seconds at most. Others wait, and
/// their helpers with them.
pub const AFTERMATHS_AT_ONCE: usize = 32;
/// Of these, for one user: nobody's logins make others wait.
pub const AFTERMATHS_OF_ONE_USER: usize = 4;
/// Of one user's connections that are over, how many may wait for such a process: each is a helper
/// and a descriptor. What more there is stays, but for its helper.
pub const AFTERMATHS_WAITING: usize = 32;
/// Users' `net`s that were started on the expectation of a login; each may be for nothing.
pub const EXPECTED_NETS_MAX: usize = 8;
/// The first new start of a `net` that died is immediate; dying again soon doubles up to this.
pub const RESTART_DELAY_MAX_MS: u64 = 5_000;
/// A `net` that lived this long counts as having started well.
pub const RESTART_GOOD_MS: u64 = 10_000;
/// A `net` or helper that has not said hello by then is broken.
pub const HELLO_TIME_MS: u64 = 10_000;
/// Waits this long, at most, for a descriptor to become free before accepting is tried again.
pub const ACCEPT_PAUSE_MS: u64 = 500;
/// The floor of the answer to a failed login, as OpenSSH's MIN_FAIL_DELAY_SECONDS.
pub const FAILURE_FLOOR_US: u64 = 5_000;
/// Work that took longer than this is not padded any more, as OpenSSH's MAX_FAIL_DELAY_SECONDS.
pub const FAILURE_CEILING_US: u64 = 5_000_000;

// The net processes.

/// Listening sockets of one `net`: Port and ListenAddress lines of any sane configuration.
pub const LISTENERS_MAX: i32 = 256;

/// Frames of the monitor that wait for one connection's thread: it owes one answer at a time, with
/// the longest banner before it, and may add a word or two of its own (disconnect, log level).
pub const MAILBOX_FRAMES_MAX: usize = 12;

/// Stack of a connection's thread in bytes. The post-quantum exchanges and unoptimised builds need
/// the most; pages that are not touched cost nothing.
pub const CONNECTION_STACK_BYTES: usize = 512 * 1024;

/// How long accepting rests when descriptors or memory ran out and nobody says that some are free.
pub const ACCEPT_RETRY_MS: u32 = 1000;

/// Frames that wait for a helper; while there are as many, the connection's input rests.
pub const HELPER_QUEUE_FRAMES_MAX: usize = 16;

/// `env` requests that one channel may make (OpenSSH's bound).
pub const ENVIRONMENT_MAX_ENTRIES: usize = 128;
/// Bytes of names and values in them, all together: what execve takes for one string.
pub const ENVIRONMENT_MAX_BYTES: usize = 128 * 1024;

/// Answers that one channel may wait for.
pub const CHANNEL_ANSWERS_MAX: usize = 128;

/// Our receive window of a channel in bytes (OpenSSH's): 2 MiB at 50 ms is 40 MB/s. What a program
/// or a far end does not take waits here in full.
pub const FORWARD_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Channels that get the whole window; further ones of the connection get a narrow one.
pub const WIDE_CHANNELS: usize = 16;
/// A window that is enough on a local network. With [`CHANNELS_PER_CONNECTION_MAX`] it holds what
/// one connection can leave here untaken below 100 MiB.
pub const NARROW_WINDOW_BYTES: u32 = 64 * 1024;
/// Names that one resolver looks up at once; each holds a thread until servers answered.
pub const LOOKUPS_AT_ONCE: usize = 8;
/// Stack of such a thread: getaddrinfo of both C libraries keeps some tens of KiB on it.
pub const LOOKUP_STACK_BYTES: usize = 256 * 1024;
/// A resolver without names ends after this time: a browser behind `ssh -D` asks more often.
pub const RESOLVER_LIFETIME_S: i64 = 60;
/// Resolvers started for one connection in a burst, and per second in the long run: one that lives
/// is used again, so more than a few have ended before their time.
pub const RESOLVERS_BURST: u32 = 5;
pub const RESOLVERS_PER_SECOND: u32 = 1;
/// Terminals for one connection in a burst, and per second in the long run: each is written into the
/// records of logins, at its start and at its end.
pub const TERMINALS_BURST: u32 = 128;
pub const TERMINALS_PER_SECOND: u32 = 10;
/// Largest data packet on a channel that carries a socket (OpenSSH's CHAN_TCP_PACKET_DEFAULT).
pub const FORWARD_PACKET_BYTES: u32 = 32 * 1024;
/// Window and largest packet of a channel to the client's agent, whose messages have 256 KiB at most
/// and some KiB as a rule (OpenSSH's CHAN_X11_WINDOW_DEFAULT and CHAN_X11_PACKET_DEFAULT).
pub const AGENT_WINDOW_BYTES: u32 = 64 * 1024;
pub const AGENT_PACKET_BYTES: u32 = 16 * 1024;
/// The largest packet of a tunnel device: that of IP.
pub const TUNNEL_PACKET_BYTES: usize = 64 * 1024;
/// Listeners of one connection: each holds up to three descriptors.
pub const LISTENERS_PER_CONNECTION: usize = 128;
/// Channels that the client was offered and has not answered for: with as many, listeners rest and
/// the kernel keeps who connects.
pub const OFFERS_MAX: usize = 64;
/// Connections taken from one listener before others get their turn.
pub const ACCEPTS_PER_TURN: usize = 8;
/// Largest data packet that we take (RFC 4253 section 6.1, OpenSSH's CHAN_SES_PACKET_DEFAULT).
pub const SESSION_PACKET_BYTES: u32 = 32 * 1024;

/// Files of one SFTP session that `net` reads and writes itself; more are served by the helper. Clients
/// have up to some ten open at once.
pub const FILES_PER_SESSION_MAX: usize = 64;
/// Answers to WRITEs that wait for the channel, in bytes: while there are as many, no more is written.
pub const FILE_REPLIES_BYTES: usize = 64 * 1024;

/// Somebody types on a channel where no more than this comes from the client at once, and no more is
/// on its way back.
pub const INTERACTIVE_DATA_BYTES: usize = 256;
/// How long a channel counts as interactive after such data.
pub const INTERACTIVE_FOR: Duration = Duration::from_secs(1);
/// Bytes that a channel may have in flight while another one is interactive: more than OpenSSH's
/// client takes before it grants more, and half a millisecond of its work.
pub const SHARED_FLIGHT_BYTES: u32 = 128 * 1024;
/// How long a client that is near may take to grant more.
pub const SHARED_LONG_WAIT: Duration = Duration::from_millis(5);
/// So many longer waits in a row, and the client is not near.
pub const SHARED_LONG_WAITS: u16 = 6;
/// So many shorter ones, and it is.
pub const SHARED_SHORT_WAITS: u16 = 256;

/// How long the end of a program's output waits for the program's own end.
pub const END_TOGETHER_MS: u32 = 2;

/// Packets of one channel in one turn of the loop: none holds the others up for longer. While
/// somebody types on another channel it is one.
pub const PACKETS_PER_TURN: usize = 8;

/// Size of the pipes between a program and us, once more passes than fits into the kernel's 64 KiB:
/// fewer wake-ups. The kernel counts them against the user, so a refusal is no error.
pub const PIPE_BYTES: usize = 256 * 1024;

/// How long a last message may take to leave.
pub const LAST_WORDS_MS: u32 = 2000;
/// How long we wait for a peer to end its side, so that closing does not destroy the last message
/// on its way (a reset would).
pub const LINGER_MS: u32 = 500;

/// Stack below the caller that survives giving it back: what the call that does so pushes itself.
pub const STACK_KEPT_BYTES: usize = 1024;
/// Allocations from this size on are mappings of their own.
pub const OWN_MAPPING_BYTES: usize = 2 * 1024;
/// Freed buffers that are kept for the next of the same length: a connection at work has about four
/// kinds, and few are at work at the same moment.
pub const KEPT_BUFFERS: usize = 16;
/// Larger freed buffers go back at once.
pub const KEPT_BUFFER_BYTES: usize = 64 * 1024;
/// A connection without traffic for this long gives its buffers back.
pub const IDLE_RELEASE_MS: u32 = 300;

// Configuration.

/// One configuration file: a thousand times the stock one.
pub const CONFIG_FILE_MAX_BYTES: u64 = 1024 * 1024;
/// Files that one configuration may consist of: more is a loop of includes, or a wrong pattern.
pub const CONFIG_FILES_MAX: usize = 512;
/// Includes within includes: OpenSSH's limit.
pub const CONFIG_INCLUDE_DEPTH_MAX: usize = 16;
/// A line of authorized_keys: OpenSSH's limit, room for an RSA key of 16384 bits and its options.
pub const KEY_LINE_MAX_BYTES: usize = 8 * 1024;

// Logging.

/// Bytes of one name or message of a peer in a log line; names of accounts are shorter.
pub const LOGGED_BYTES_MAX: usize = 512;
/// Of a path in the audit of files its start, and its end with any printable name: two and who it
/// was fit into a line.
pub const LOGGED_PATH_HEAD_BYTES: usize = 300;
/// See [`LOGGED_PATH_HEAD_BYTES`].
pub const LOGGED_PATH_TAIL_BYTES: usize = 500;
/// A log line: within what every syslogd takes (RFC 5424 section 6.1 recommends 2048).
pub const LOG_OUTPUT_MAX_BYTES: usize = 2000;

// Host keys.

/// A private key file: RSA with 16384 bits takes 13 KiB.
pub const HOST_KEY_FILE_MAX_BYTES: usize = 64 * 1024;

/// A host certificate: RSA with 8192 bits, signed by the same, takes 7 KiB.
pub const HOST_CERTIFICATE_MAX_BYTES: u64 = 64 * 1024;

// Upgrade.

/// How long a new program may take to prove that it would serve. It takes a tenth of a second; a slow
/// box that loads large keys, and tries ways to execute the helper that do not work, some seconds.
pub const PROBE_TIME_MS: u64 = 15_000;
/// What of its output is kept: complaints about a configuration, a line each.
pub const PROBE_OUTPUT_MAX_BYTES: usize = 4096;
/// What is handed over, as text: `LISTENERS_MAX` lines of some 30 bytes, and a few paths.
pub const TAKE_OVER_MAX_BYTES: usize = 32 * 1024;
/// How long `agent debug upgrade` waits for the new program to be ready once it has taken over.
pub const UPGRADE_READY_TIME_MS: u64 = 20_000;
/// How long after it was told to accept no more a `net` may say that it accepted something: it hears
/// of that within a turn, and this process may be held up.
pub const RETIRED_NET_ACCEPTS_MS: u64 = 10_000;
/// How long a server that is to stop and serves nobody waits for what was accepted last, before it
/// leaves that to another process: a `net` hears of the stop and ends within a millisecond.
pub const LAST_ACCEPTS_MS: u64 = 250;
/// How long a `net` that accepts no more may take to end with its last connection.
pub const RETIRED_NET_TIME_MS: u64 = 2_000;

// The helper's image.

/// How long the helper may take to say that it can be executed, in milliseconds. It takes a fifth of
/// one; a product that inspects every new program may take its time.
pub const HELPER_SELF_TEST_MS: u64 = 3000;

// The debug service.

/// Connections in one frame of a `net` about all of them, and sessions in one of the monitor: some
/// 200 bytes each.
pub const REPORTS_PER_FRAME: usize = 500;
/// How long a `net` may take to tell about its connections before the answer does without.
pub const REPORT_TIME_MS: u64 = 2_000;

/// Clients of the debug service at once, those that have not said what they want included: far more
/// than people look, and each costs a descriptor in two processes.
pub const DEBUG_CLIENTS_MAX: usize = 64;
/// Clients that the kernel keeps until its process is there.
pub const DEBUG_BACKLOG: i32 = 64;
/// Lines about refused clients in a burst; one a second in the long run.
pub const DEBUG_REFUSAL_LINES_BURST: u32 = 10;
/// Accounts of clients that are looked up at once, and per second in the long run: others than these
/// may not use the service.
pub const DEBUG_LOOKUPS_BURST: u32 = 20;
pub const DEBUG_LOOKUPS_PER_SECOND: u32 = 5;
/// How many of them are remembered, and for how long: who asks again and again is looked up seldom.
pub const DEBUG_PEERS_KEPT: usize = 32;
pub const DEBUG_PEERS_KEPT_MS: u64 = 5_000;
/// The same before requests are passed on: one less than the monitor's bound is reached never.
pub const DEBUG_HTTP_CLIENTS_MAX: usize = 48;
/// Requests that are answered at once: what tiny_http serves without fail is as many connections as
/// its pool has threads.
pub const DEBUG_REQUESTS_AT_ONCE: usize = 4;
/// Questions of the debug service that wait for an answer in the monitor, those of requests that were
/// given up included.
pub const DEBUG_QUESTIONS_MAX: usize = 16;
/// Requests at once that may take long (profiles): one place stays for quick ones.
pub const DEBUG_SLOW_REQUESTS_MAX: usize = 3;
/// Line and fields of a request; curl and browsers send a few hundred bytes.
pub const DEBUG_HEAD_MAX_BYTES: usize = 8 * 1024;
/// Path and query of a request.
pub const DEBUG_TARGET_MAX_BYTES: usize = 1024;
/// Body of a request: a word.
pub const DEBUG_BODY_MAX_BYTES: usize = 1024;
/// Body with the addresses of a profile, which nobody looks at: `go tool pprof` sends all of them.
pub const DEBUG_SYMBOLS_MAX_BYTES: usize = 256 * 1024;
/// How long a request may take to arrive whole: it comes over a socket of the same machine.
pub const DEBUG_HEAD_TIME_MS: u64 = 5_000;
/// How long a client may leave an answer unread; for each piece, so that no profile is cut short.
pub const DEBUG_WRITE_TIME_MS: u64 = 30_000;
/// After a refusal: how long, and how many bytes, a client may still send without losing the answer.
pub const DEBUG_DRAIN_TIME_MS: u64 = 1_000;
pub const DEBUG_DRAIN_BYTES: usize = 1024 * 1024;
/// How long accepting rests without descriptors.
pub const DEBUG_ACCEPT_REST_MS: u64 = 100;
/// The debug service's process ends when nobody asked for this long.
pub const DEBUG_LIFETIME_MS: u64 = 60_000;
/// How long it stays for answers under way when the monitor has gone.
pub const DEBUG_FINISH_TIME_MS: u64 = 2_000;
/// Its address space: profiles of a large process have some MiB; stacks are counted too.
pub const DEBUG_MEMORY_BYTES: u64 = 256 * 1024 * 1024;
/// Its descriptors: two for each client, few others.
pub const DEBUG_DESCRIPTORS_MAX: u64 = 160;
/// How long the monitor's answer is waited for: it answers within its turn.
pub const DEBUG_ANSWER_TIME_MS: u64 = 10_000;
/// Connections that one answer lists.
pub const SESSIONS_SHOWN_MAX: usize = 20_000;
/// Who may follow the log at once: each costs a thread there, and the monitor a record for each line.
pub const LOG_STREAMS_MAX: usize = 8;
/// Stack of such a thread, which formats lines.
pub const STREAM_STACK_BYTES: usize = 256 * 1024;
/// The last log lines in the monitor's memory: a hundred or so.
pub const LOG_KEPT_BYTES: usize = 16 * 1024;
/// Begun phases and sessions in one trace: of more only the beginnings are shown.
pub const TRACE_OPEN_MAX: usize = 20_000;
/// Frames that wait for one client's thread.
pub const DEBUG_ANSWERS_MAX: usize = 1024;
/// `agent debug`: how long the server may be silent, and how much it may say.
pub const CLIENT_TIME_MS: u64 = 15_000;
pub const CLIENT_RESPONSE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Samples of CPU time per second and thread: below 1 % of it is spent on them.
pub const PROFILE_HZ: u32 = 100;
/// The most that may be asked for.
pub const PROFILE_MAX_HZ: u32 = 1000;
/// Addresses of one sample.
pub const PROFILE_DEPTH: usize = 64;
/// Addresses of all samples: 300 s of a busy thread with 30 each. Untouched, they cost nothing.
pub const PROFILE_WORDS: usize = 1024 * 1024;
/// How long a thread may take to look where it is: one that waits in the kernel does so at once.
pub const THREAD_STACKS_TIME_MS: u64 = 500;
/// Bytes of one profile; the monitor's own goes into a pipe that holds as much.
pub const PROFILE_MAX_BYTES: usize = 1024 * 1024;
/// What a profile of CPU time takes where nobody says how long.
pub const PROFILE_DEFAULT_S: u32 = 10;
/// Bytes that a thread allocates between two samples of the heap: a sample costs a microsecond.
pub const HEAP_SAMPLE_BYTES: usize = 512 * 1024;
/// Addresses of one of them.
pub const HEAP_SAMPLE_DEPTH: usize = 30;
/// Different stacks that are known to have allocated, a word and 33 more each; and how many places
/// one is looked for at.
pub const HEAP_STACKS_MAX: usize = 512;
pub const STACK_PROBES_MAX: usize = 16;
/// Different stacks that waited for a lock, or for something else, during a profile.
pub const WAIT_STACKS_MAX: usize = 128;
/// Different stacks that made threads: there are three such places.
pub const SPAWN_STACKS_MAX: usize = 16;
/// Addresses of the stacks of all threads at one moment: 2000 with 30 each.
pub const THREAD_STACKS_WORDS: usize = 64 * 1024;
/// Blocks that are sampled at once: 128 MiB in use.
pub const HEAP_SAMPLES_MAX: usize = 256;
