//! Every limit that the helper puts on what others ask for, each with its reason.

// The end of a connection, with OnDisconnect.

/// How long what its sessions started may take to end by itself, once asked: what dpkg, databases
/// and editors need to leave their files in order.
pub const DESCENDANTS_GRACE_MS: u64 = 5_000;
/// How long it may take to die, with what it starts meanwhile: what does not is in the kernel's
/// hands, or multiplies faster than it can be looked for.
pub const DESCENDANTS_END_MS: u64 = 5_000;
/// Between two looks for what is left.
pub const DESCENDANTS_PAUSE_MS: u64 = 50;

// Sessions.

/// A program that ends sooner is no news for the monitor.
pub const TELL_AFTER_MS: u64 = 50;

// Forwarding.

/// Connections of one login that are being made, names under way included: each may hold two or
/// three sockets. A browser behind `ssh -D` opens some dozens at once.
pub const CONNECTS_MAX: usize = 128;
/// A connection that was not made in this time is given up: the kernel would try for over two
/// minutes, and the client's program has long lost patience.
pub const CONNECT_TIME_MS: u64 = 60_000;
/// How long one address may take before the next is tried beside it (RFC 8305 section 8).
pub const CONNECT_STAGGER_MS: u64 = 250;
/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 16;
/// A name that nobody could resolve in this time has no address: resolv.conf(5) with two servers
/// and two attempts of 2.5 seconds.
pub const LOOKUP_TIME_MS: u64 = 10_000;
/// Connections of one user that a link to agents goes back through.
pub const AGENT_LINKS_MAX: u32 = 64;
/// Tunnel devices that sessions are told of: an environment must not grow with what a client asks.
pub const TUNNELS_NAMED_MAX: usize = 16;
/// Displays that are tried (OpenSSH's MAX_DISPLAYS).
pub const DISPLAYS_MAX: u32 = 1000;
/// Bytes of an X11 protocol name or cookie: MIT-MAGIC-COOKIE-1 has 32 digits, XDM's 48.
pub const X11_FIELD_MAX_BYTES: usize = 256;
/// Listeners with a file of one login; ports cost `net` a descriptor and us nothing.
pub const UNIX_LISTENERS_MAX: usize = 64;
/// Addresses that one listener binds: what a frame carries.
pub const LISTEN_ADDRESSES_MAX: usize = crate::link::DESCRIPTORS_MAX;
/// Connections that wait to be accepted (OpenSSH's SSH_LISTEN_BACKLOG).
pub const LISTEN_BACKLOG: i32 = 128;
/// A helper that had nothing to do for this long gives its stack's pages back.
pub const REST_AFTER_MS: u64 = 300;
