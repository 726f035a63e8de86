//! The effective values of all keywords, with OpenSSH's defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

/// PermitRootLogin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermitRootLogin {
    Yes,
    No,
    ProhibitPassword,
    ForcedCommandsOnly,
}

/// HelperMode: where the helper is executed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HelperMode {
    Auto,
    Memfd,
    File,
    OwnExecutable,
}

/// PermitUserEnvironment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PermitUserEnvironment {
    No,
    Yes,
    Patterns(Vec<Vec<u8>>),
}

/// One log level of LogLevel; DEBUG2 and DEBUG3 are TRACE here.
pub use log::LevelFilter as LogLevel;

/// Every keyword that is implemented, as it holds for one connection (after Match) or globally.
///
/// Lists are in the configuration's order. Durations are seconds; 0 is off unless said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are sshd_config's yes/no keywords"
)]
pub struct Options {
    // Global only.
    pub listen: Vec<SocketAddr>,
    pub host_key_files: Vec<PathBuf>,
    /// False where HostKey lines were given: then a missing file is an error and none is made.
    pub host_keys_are_default: bool,
    pub host_key_dir: PathBuf,
    pub data_dir: PathBuf,
    pub pid_file: Option<PathBuf>,
    pub login_grace_s: u32,
    /// MaxStartups start:rate:full.
    pub max_startups: (u32, u32, u32),
    pub per_source_max_startups: u32,
    /// PerSourceNetBlockSize, IPv4 and IPv6 prefix lengths.
    pub per_source_net_block: (u8, u8),
    pub privsep_user: Option<String>,
    pub helper_mode: HelperMode,
    pub syslog_facility: Option<String>,
    pub use_dns: bool,
    pub tcp_keepalive: bool,
    pub version_addendum: String,
    pub ciphers: Vec<String>,
    pub macs: Vec<String>,
    pub kex_algorithms: Vec<String>,
    pub host_key_algorithms: Vec<String>,
    pub accounting: bool,
    // May stand in Match.
    pub log_level: LogLevel,
    pub accept_env: Vec<Vec<u8>>,
    pub set_env: Vec<(Vec<u8>, Vec<u8>)>,
    pub authorized_keys_files: Vec<String>,
    pub banner: Option<PathBuf>,
    pub client_alive_interval_s: u32,
    pub client_alive_count_max: u32,
    pub force_command: Option<Vec<u8>>,
    pub chroot_directory: Option<String>,
    pub ip_qos: (u8, u8),
    pub max_auth_tries: u32,
    pub max_sessions: u32,
    pub permit_root_login: PermitRootLogin,
    pub permit_tty: bool,
    pub permit_user_environment: PermitUserEnvironment,
    pub permit_user_rc: bool,
    pub print_motd: bool,
    pub print_last_log: bool,
    pub pubkey_authentication: bool,
    pub pubkey_accepted_algorithms: Vec<String>,
    pub rekey_bytes: u64,
    pub rekey_s: u32,
    pub required_rsa_bits: u32,
    pub strict_modes: bool,
    pub allow_users: Vec<String>,
    pub deny_users: Vec<String>,
    pub allow_groups: Vec<String>,
    pub deny_groups: Vec<String>,
    pub subsystems: Vec<(String, Vec<u8>)>,
    pub authentication_methods: Vec<Vec<String>>,
}
