//! The effective values of all keywords, with OpenSSH's defaults.

use std::net::SocketAddr;
use std::path::PathBuf;

use agent_helper::frame::OnDisconnect;

use super::algorithms::Kind;
use super::forwarding::ForwardOptions;
use super::penalties::{self, DEFAULT_EXEMPT, Penalties};
use super::settings::Settings;

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

/// PubkeyAuthOptions: what every security key must attest, whatever its line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PubkeyAuthOptions {
    pub touch_required: bool,
    pub verify_required: bool,
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
    /// `u32::MAX`: no limit of its own.
    pub per_source_max_startups: u32,
    /// PerSourceNetBlockSize, IPv4 and IPv6 prefix lengths.
    pub per_source_net_block: (u8, u8),
    /// `None`: nobody is penalised.
    pub per_source_penalties: Option<Penalties>,
    /// Addresses that are never penalised; may be empty.
    pub per_source_penalty_exempt: String,
    pub privsep_user: Option<String>,
    pub helper_mode: HelperMode,
    pub sftp_audit: bool,
    pub syslog_facility: Option<String>,
    pub use_dns: bool,
    pub tcp_keepalive: bool,
    pub version_addendum: String,
    pub ciphers: Vec<String>,
    pub macs: Vec<String>,
    pub kex_algorithms: Vec<String>,
    /// Offered, to begin after authentication.
    pub compression: bool,
    pub host_key_algorithms: Vec<String>,
    pub host_certificate_files: Vec<PathBuf>,
    /// Unix time; 0: none.
    pub certificate_clock_floor_s: u64,
    pub accounting: bool,
    // May stand in Match.
    pub log_level: LogLevel,
    pub accept_env: Vec<Vec<u8>>,
    pub set_env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Command and arguments, their tokens not expanded yet.
    pub authorized_keys_command: Option<Vec<String>>,
    pub authorized_keys_command_user: Option<String>,
    pub authorized_keys_files: Vec<String>,
    pub authorized_principals_command: Option<Vec<String>>,
    pub authorized_principals_command_user: Option<String>,
    pub authorized_principals_file: Option<String>,
    pub banner: Option<PathBuf>,
    pub ca_signature_algorithms: Vec<String>,
    pub client_alive_interval_s: u32,
    pub client_alive_count_max: u32,
    pub channel_timeouts: Vec<(String, u32)>,
    pub unused_connection_s: u32,
    pub expose_auth_info: bool,
    pub force_command: Option<Vec<u8>>,
    pub chroot_directory: Option<String>,
    pub ip_qos: (u8, u8),
    pub kbd_interactive_authentication: bool,
    pub max_auth_tries: u32,
    /// `u32::MAX`: no limit.
    pub max_logins_per_user: u32,
    pub max_sessions: u32,
    pub on_disconnect: OnDisconnect,
    pub password_authentication: bool,
    pub permit_empty_passwords: bool,
    pub permit_root_login: PermitRootLogin,
    pub permit_tty: bool,
    pub permit_user_environment: PermitUserEnvironment,
    pub permit_user_rc: bool,
    pub print_motd: bool,
    pub print_last_log: bool,
    pub pubkey_authentication: bool,
    pub pubkey_auth_options: PubkeyAuthOptions,
    pub pubkey_accepted_algorithms: Vec<String>,
    pub refuse_connection: bool,
    pub rekey_bytes: u64,
    pub rekey_s: u32,
    pub required_rsa_bits: u32,
    pub revoked_keys: Option<PathBuf>,
    pub strict_modes: bool,
    pub allow_users: Vec<String>,
    pub deny_users: Vec<String>,
    pub allow_groups: Vec<String>,
    pub deny_groups: Vec<String>,
    /// Patterns for key ids of certificates.
    pub allow_certificate_ids: Vec<String>,
    pub deny_certificate_ids: Vec<String>,
    pub trusted_user_ca_keys: Option<PathBuf>,
    pub subsystems: Vec<(String, Vec<u8>)>,
    pub authentication_methods: Vec<Vec<String>>,
    pub forwarding: ForwardOptions,
    pub debug: DebugOptions,
}

/// The debug service: not part of serving anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DebugOptions {
    pub service: bool,
    /// Patterns; both lists empty: root and the server's own user only.
    pub allow_users: Vec<String>,
    pub allow_groups: Vec<String>,
    /// DebugProfileMaxSeconds.
    pub profile_max_s: u32,
}

impl Options {
    /// The values of `settings`, with OpenSSH's defaults for all that is not set.
    pub(super) fn new(settings: &Settings, listen: &[SocketAddr], as_root: bool) -> Self {
        let set = settings.clone();
        let data_dir = set.data_dir.unwrap_or_else(|| default_data_dir(as_root));
        let host_keys_are_default = set.host_key_files.0.is_empty();
        Self {
            listen: listen.to_vec(),
            host_key_files: if host_keys_are_default {
                default_host_keys(as_root)
            } else {
                set.host_key_files.0
            },
            host_keys_are_default,
            host_key_dir: set
                .host_key_dir
                .unwrap_or_else(|| default_host_key_dir(as_root)),
            pid_file: set
                .pid_file
                .unwrap_or_else(|| Some(data_dir.join("agent.pid"))),
            data_dir,
            login_grace_s: set.login_grace_s.unwrap_or(120),
            max_startups: set.max_startups.unwrap_or((10, 30, 100)),
            per_source_max_startups: set.per_source_max_startups.unwrap_or(u32::MAX),
            per_source_penalty_exempt: set.per_source_penalty_exempt.unwrap_or_else(|| {
                let asked_for = set.per_source_penalties.is_some();
                if asked_for { "" } else { DEFAULT_EXEMPT }.to_owned()
            }),
            per_source_penalties: set.per_source_penalties.unwrap_or(Some(penalties::DEFAULT)),
            per_source_net_block: set.per_source_net_block.unwrap_or((32, 128)),
            privsep_user: set.privsep_user.flatten(),
            sftp_audit: set.sftp_audit.unwrap_or(false),
            helper_mode: set.helper_mode.unwrap_or(HelperMode::Auto),
            syslog_facility: Some(set.syslog_facility.unwrap_or("AUTH").to_owned()),
            use_dns: set.use_dns.unwrap_or(false),
            tcp_keepalive: set.tcp_keepalive.unwrap_or(true),
            version_addendum: set.version_addendum.unwrap_or_default(),
            ciphers: set.ciphers.unwrap_or_else(|| Kind::Cipher.default_list()),
            macs: set.macs.unwrap_or_else(|| Kind::Mac.default_list()),
            kex_algorithms: set
                .kex_algorithms
                .unwrap_or_else(|| Kind::Kex.default_list()),
            compression: set.compression.unwrap_or(true),
            host_key_algorithms: set
                .host_key_algorithms
                .unwrap_or_else(|| Kind::HostKey.default_list()),
            host_certificate_files: set.host_certificate_files.0,
            certificate_clock_floor_s: set.certificate_clock_floor_s.unwrap_or(crate::BUILT_S),
            accounting: set.accounting.unwrap_or(true),
            log_level: set.log_level.map_or(LogLevel::Info, |(level, _)| level),
            accept_env: set
                .accept_env
                .0
                .into_iter()
                .map(String::into_bytes)
                .collect(),
            set_env: set
                .set_env
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name.into_bytes(), value.into_bytes()))
                .collect(),
            authorized_keys_command: set.authorized_keys_command.flatten(),
            authorized_keys_command_user: set.authorized_keys_command_user.flatten(),
            authorized_principals_command: set.authorized_principals_command.flatten(),
            authorized_principals_command_user: set.authorized_principals_command_user.flatten(),
            authorized_principals_file: set.authorized_principals_file.flatten(),
            authorized_keys_files: set.authorized_keys_files.unwrap_or_else(|| {
                vec![
                    ".ssh/authorized_keys".to_owned(),
                    ".ssh/authorized_keys2".to_owned(),
                ]
            }),
            banner: set.banner.flatten(),
            ca_signature_algorithms: set
                .ca_signature_algorithms
                .unwrap_or_else(|| Kind::Authority.default_list()),
            client_alive_interval_s: set.client_alive_interval_s.unwrap_or(0),
            client_alive_count_max: set.client_alive_count_max.unwrap_or(3),
            channel_timeouts: set.channel_timeouts.unwrap_or_default(),
            unused_connection_s: set.unused_connection_s.unwrap_or(0),
            expose_auth_info: set.expose_auth_info.unwrap_or(false),
            force_command: set.force_command.flatten().map(String::into_bytes),
            chroot_directory: set.chroot_directory.flatten(),
            ip_qos: set.ip_qos.unwrap_or((0xb8, 0)),
            kbd_interactive_authentication: set.kbd_interactive_authentication.unwrap_or(true),
            max_auth_tries: set.max_auth_tries.unwrap_or(6),
            max_logins_per_user: set.max_logins_per_user.unwrap_or(u32::MAX),
            max_sessions: set.max_sessions.unwrap_or(10),
            on_disconnect: set.on_disconnect.unwrap_or_default(),
            password_authentication: set.password_authentication.unwrap_or(true),
            permit_empty_passwords: set.permit_empty_passwords.unwrap_or(false),
            permit_root_login: set
                .permit_root_login
                .unwrap_or(PermitRootLogin::ProhibitPassword),
            permit_tty: set.permit_tty.unwrap_or(true),
            permit_user_environment: set
                .permit_user_environment
                .unwrap_or(PermitUserEnvironment::No),
            permit_user_rc: set.permit_user_rc.unwrap_or(true),
            print_motd: set.print_motd.unwrap_or(true),
            print_last_log: set.print_last_log.unwrap_or(true),
            pubkey_authentication: set.pubkey_authentication.unwrap_or(true),
            pubkey_accepted_algorithms: set
                .pubkey_accepted_algorithms
                .unwrap_or_else(|| Kind::UserKey.default_list()),
            pubkey_auth_options: set.pubkey_auth_options.unwrap_or_default(),
            refuse_connection: set.refuse_connection.unwrap_or(false),
            rekey_bytes: set.rekey_limit.map_or(0, |(bytes, _)| bytes),
            rekey_s: set.rekey_limit.map_or(0, |(_, seconds)| seconds),
            required_rsa_bits: set.required_rsa_bits.unwrap_or(DEFAULT_RSA_BITS),
            revoked_keys: set.revoked_keys.flatten(),
            trusted_user_ca_keys: set.trusted_user_ca_keys.flatten(),
            strict_modes: set.strict_modes.unwrap_or(true),
            allow_users: set.allow_users.0,
            deny_users: set.deny_users.0,
            allow_groups: set.allow_groups.0,
            deny_groups: set.deny_groups.0,
            allow_certificate_ids: set.allow_certificate_ids.0,
            deny_certificate_ids: set.deny_certificate_ids.0,
            subsystems: set.subsystems.effective(),
            authentication_methods: set.authentication_methods.unwrap_or_default(),
            forwarding: ForwardOptions::new(settings),
            debug: DebugOptions {
                service: set.debug_service.unwrap_or(true),
                allow_users: set.debug_allow_users.0,
                allow_groups: set.debug_allow_groups.0,
                profile_max_s: set.debug_profile_max_s.unwrap_or(300),
            },
        }
    }
}

/// RequiredRSASize where none is set. OpenSSH takes 1024 bits, which have not been enough since
/// about 2010 (NIST SP 800-131A); 2048 is what its own ssh-keygen made even before that.
const DEFAULT_RSA_BITS: u32 = 2048;

fn default_data_dir(as_root: bool) -> PathBuf {
    if as_root {
        return PathBuf::from("/run/agent");
    }
    match absolute_variable("XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("agent"),
        None => default_host_key_dir(false),
    }
}

fn default_host_key_dir(as_root: bool) -> PathBuf {
    if as_root {
        return PathBuf::from("/etc/agent");
    }
    match user_directory("XDG_STATE_HOME", ".local/state") {
        Some(state) => state.join("agent"),
        // No home: the directory's checks decide whether it will do.
        None => std::env::temp_dir().join(format!("agent-{}", rustix::process::getuid().as_raw())),
    }
}

/// OpenSSH's keys where they exist; an ordinary user cannot read them and has none here.
fn default_host_keys(as_root: bool) -> Vec<PathBuf> {
    if !as_root {
        return Vec::new();
    }
    ["ed25519", "ecdsa", "rsa"]
        .map(|kind| PathBuf::from(format!("/etc/ssh/ssh_host_{kind}_key")))
        .to_vec()
}

/// A directory of the XDG base directory specification: the variable, or below the home.
pub(super) fn user_directory(variable: &str, below_home: &str) -> Option<PathBuf> {
    absolute_variable(variable)
        .or_else(|| Some(std::env::home_dir()?.join(below_home)).filter(|path| path.is_absolute()))
}

fn absolute_variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
}
