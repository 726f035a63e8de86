//! Every limit that this program puts on what others send, each with its reason.

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
/// SSH_MSG_PING data, in bytes: the answer is as long as the question.
pub const PING_BYTES: usize = 32 * 1024;
