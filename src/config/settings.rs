//! The values that a stretch of configuration sets, and how stretches combine.
//!
//! Within the main part, and among the `Match` blocks that hold, the first value of a keyword wins
//! and lists grow; what matching blocks set replaces what the main part set. That is OpenSSH's way.

use std::path::PathBuf;

use agent_helper::frame::OnDisconnect;

use super::algorithms::{Chosen, Kind};
use super::condition;
use super::forwarding::{self, ForwardSettings};
use super::keywords::Keyword;
use super::lex::Line;
use super::logins;
use super::methods;
use super::options::{
    HelperMode, LogLevel, PermitRootLogin, PermitUserEnvironment, PubkeyAuthOptions,
};
use super::penalties::{self, Penalties};
use super::subsystems::{self, Subsystems};
use super::value::{self, AddressFamily, ListenAddress, Parsed};

/// A list to which every line adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Growing<T>(pub Vec<T>);

/// How what an earlier stretch set meets what a later one sets.
pub trait Combine {
    /// Both stretches hold at the same level: takes what `later` sets and this does not; growing
    /// lists take all of it.
    fn keep_first(&mut self, later: &Self);
    /// `over` comes from `Match` blocks: takes all that it sets.
    fn replace_by(&mut self, over: &Self);
}

macro_rules! settings {
    ($name:ident { $($field:ident: $kind:ty,)* }) => {
        /// Values that were set; each as [`super::options::Options`] explains it.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct $name {
            $(pub $field: $kind,)*
        }

        impl $crate::config::settings::Combine for $name {
            fn keep_first(&mut self, later: &Self) {
                $(self.$field.keep_first(&later.$field);)*
            }

            fn replace_by(&mut self, over: &Self) {
                $(self.$field.replace_by(&over.$field);)*
            }
        }
    };
}
pub(super) use settings;

settings! { Settings {
    accept_env: Growing<String>,
    accounting: Option<bool>,
    address_family: Option<AddressFamily>,
    allow_certificate_ids: Growing<String>,
    allow_groups: Growing<String>,
    allow_users: Growing<String>,
    authentication_methods: Option<Vec<Vec<String>>>,
    authorized_keys_command: Option<Option<Vec<String>>>,
    authorized_keys_command_user: Option<Option<String>>,
    authorized_keys_files: Option<Vec<String>>,
    authorized_principals_command: Option<Option<Vec<String>>>,
    authorized_principals_command_user: Option<Option<String>>,
    authorized_principals_file: Option<Option<String>>,
    banner: Option<Option<PathBuf>>,
    ca_signature_algorithms: Option<Vec<String>>,
    certificate_clock_floor_s: Option<u64>,
    channel_timeouts: Option<Vec<(String, u32)>>,
    chroot_directory: Option<Option<String>>,
    ciphers: Option<Vec<String>>,
    client_alive_count_max: Option<u32>,
    client_alive_interval_s: Option<u32>,
    compression: Option<bool>,
    data_dir: Option<PathBuf>,
    debug_allow_groups: Growing<String>,
    debug_allow_users: Growing<String>,
    debug_profile_max_s: Option<u32>,
    debug_service: Option<bool>,
    deny_certificate_ids: Growing<String>,
    deny_groups: Growing<String>,
    deny_users: Growing<String>,
    expose_auth_info: Option<bool>,
    force_command: Option<Option<String>>,
    forwarding: ForwardSettings,
    helper_mode: Option<HelperMode>,
    sftp_audit: Option<bool>,
    host_certificate_files: Growing<PathBuf>,
    host_key_algorithms: Option<Vec<String>>,
    host_key_dir: Option<PathBuf>,
    host_key_files: Growing<PathBuf>,
    ip_qos: Option<(u8, u8)>,
    kbd_interactive_authentication: Option<bool>,
    kex_algorithms: Option<Vec<String>>,
    listen_addresses: Growing<ListenAddress>,
    log_level: Option<(LogLevel, &'static str)>,
    login_grace_s: Option<u32>,
    macs: Option<Vec<String>>,
    max_auth_tries: Option<u32>,
    max_logins_per_user: Option<u32>,
    max_sessions: Option<u32>,
    max_startups: Option<(u32, u32, u32)>,
    on_disconnect: Option<OnDisconnect>,
    password_authentication: Option<bool>,
    per_source_max_startups: Option<u32>,
    per_source_net_block: Option<(u8, u8)>,
    per_source_penalties: Option<Option<Penalties>>,
    per_source_penalty_exempt: Option<String>,
    permit_empty_passwords: Option<bool>,
    permit_root_login: Option<PermitRootLogin>,
    permit_tty: Option<bool>,
    permit_user_environment: Option<PermitUserEnvironment>,
    permit_user_rc: Option<bool>,
    pid_file: Option<Option<PathBuf>>,
    ports: Growing<u16>,
    print_last_log: Option<bool>,
    print_motd: Option<bool>,
    privsep_user: Option<Option<String>>,
    pubkey_accepted_algorithms: Option<Vec<String>>,
    pubkey_auth_options: Option<PubkeyAuthOptions>,
    pubkey_authentication: Option<bool>,
    refuse_connection: Option<bool>,
    rekey_limit: Option<(u64, u32)>,
    required_rsa_bits: Option<u32>,
    revoked_keys: Option<Option<PathBuf>>,
    set_env: Option<Vec<(String, String)>>,
    strict_modes: Option<bool>,
    subsystems: Subsystems,
    syslog_facility: Option<&'static str>,
    tcp_keepalive: Option<bool>,
    trusted_user_ca_keys: Option<Option<PathBuf>>,
    unused_connection_s: Option<u32>,
    use_dns: Option<bool>,
    version_addendum: Option<String>,
}}

impl<T> Default for Growing<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone> Combine for Option<T> {
    fn keep_first(&mut self, later: &Self) {
        if self.is_none() {
            self.clone_from(later);
        }
    }

    fn replace_by(&mut self, over: &Self) {
        if over.is_some() {
            self.clone_from(over);
        }
    }
}

impl<T: Clone> Combine for Growing<T> {
    fn keep_first(&mut self, later: &Self) {
        self.0.extend_from_slice(&later.0);
    }

    fn replace_by(&mut self, over: &Self) {
        if !over.0.is_empty() {
            self.0.clone_from(&over.0);
        }
    }
}

/// Reads one line's value for `keyword`. What deserves a warning goes to `warn`.
///
/// # Errors
///
/// A phrase that says what is wrong with the value.
pub fn apply(
    settings: &mut Settings,
    keyword: Keyword,
    line: &Line<'_>,
    warn: &mut dyn FnMut(String),
) -> Parsed<()> {
    let mut one = Settings::default();
    set(&mut one, keyword, line, warn)?;
    settings.keep_first(&one);
    Ok(())
}

fn set(
    to: &mut Settings,
    keyword: Keyword,
    line: &Line<'_>,
    warn: &mut dyn FnMut(String),
) -> Parsed<()> {
    let most = u32::try_from(i32::MAX).unwrap_or(u32::MAX);
    match keyword {
        Keyword::AcceptEnv => to.accept_env.0 = accept_env(line)?,
        Keyword::Accounting => to.accounting = Some(value::yes_no(single(line)?)?),
        Keyword::AddressFamily => to.address_family = Some(address_family(single(line)?)?),
        Keyword::AllowCertificateIds => {
            to.allow_certificate_ids.0 = several(line)?.to_vec();
        }
        Keyword::AllowGroups => to.allow_groups.0 = several(line)?.to_vec(),
        Keyword::AllowUsers => to.allow_users.0 = user_patterns(line)?,
        Keyword::AuthenticationMethods => {
            to.authentication_methods = Some(methods::parse(line, warn)?);
        }
        Keyword::AuthorizedKeysFile => {
            to.authorized_keys_files = Some(authorized_keys_files(line)?);
        }
        Keyword::AuthorizedKeysCommand => {
            to.authorized_keys_command = Some(logins::command(line, logins::KEYS_TOKENS)?);
        }
        Keyword::AuthorizedKeysCommandUser => {
            to.authorized_keys_command_user = Some(logins::command_user(single(line)?)?);
        }
        Keyword::AuthorizedPrincipalsCommand => {
            to.authorized_principals_command =
                Some(logins::command(line, logins::PRINCIPALS_TOKENS)?);
        }
        Keyword::AuthorizedPrincipalsCommandUser => {
            to.authorized_principals_command_user = Some(logins::command_user(single(line)?)?);
        }
        Keyword::AuthorizedPrincipalsFile => {
            to.authorized_principals_file = Some(logins::principals_file(single(line)?)?);
        }
        Keyword::Banner => to.banner = Some(path_or_none(single(line)?)?),
        Keyword::CaSignatureAlgorithms => {
            to.ca_signature_algorithms = Some(algorithms(Kind::Authority, line, warn)?);
        }
        Keyword::CertificateClockFloor => {
            to.certificate_clock_floor_s = Some(logins::clock_floor(single(line)?)?);
        }
        Keyword::ChannelTimeout => {
            to.channel_timeouts = Some(value::channel_timeouts(several(line)?)?)
        }
        Keyword::ChrootDirectory => to.chroot_directory = Some(chroot_directory(single(line)?)?),
        Keyword::Ciphers => to.ciphers = Some(algorithms(Kind::Cipher, line, warn)?),
        Keyword::ClientAliveCountMax => {
            to.client_alive_count_max = Some(value::number(single(line)?, 0, most)?);
        }
        Keyword::ClientAliveInterval => {
            to.client_alive_interval_s = Some(value::seconds(single(line)?)?);
        }
        Keyword::Compression => to.compression = Some(compression(single(line)?)?),
        Keyword::DataDir => to.data_dir = Some(absolute(single(line)?)?),
        Keyword::DebugAllowGroups => to.debug_allow_groups.0 = several(line)?.to_vec(),
        Keyword::DebugAllowUsers => to.debug_allow_users.0 = several(line)?.to_vec(),
        Keyword::DebugProfileMaxSeconds => {
            to.debug_profile_max_s = Some(value::number(single(line)?, 1, 86_400)?);
        }
        Keyword::DebugService => to.debug_service = Some(value::yes_no(single(line)?)?),
        Keyword::DenyCertificateIds => {
            to.deny_certificate_ids.0 = several(line)?.to_vec();
        }
        Keyword::DenyGroups => to.deny_groups.0 = several(line)?.to_vec(),
        Keyword::DenyUsers => to.deny_users.0 = user_patterns(line)?,
        Keyword::ExposeAuthInfo => to.expose_auth_info = Some(value::yes_no(single(line)?)?),
        Keyword::ForceCommand => {
            to.force_command = Some(value::none_or(rest_of_line(line)?).map(str::to_owned));
        }
        Keyword::Forwarding(keyword) => forwarding::set(&mut to.forwarding, keyword, line)?,
        Keyword::SftpAudit => to.sftp_audit = Some(value::yes_no(single(line)?)?),
        Keyword::HelperMode => to.helper_mode = Some(helper_mode(single(line)?)?),
        Keyword::HostCertificate => {
            to.host_certificate_files.0 = path_or_none(single(line)?)?.into_iter().collect();
        }
        Keyword::HostKey => to.host_key_files.0 = vec![absolute(single(line)?)?],
        Keyword::HostKeyAlgorithms => {
            to.host_key_algorithms = Some(algorithms(Kind::HostKey, line, warn)?);
        }
        Keyword::HostKeyDir => to.host_key_dir = Some(absolute(single(line)?)?),
        Keyword::IpQos => to.ip_qos = Some(ip_qos(line, warn)?),
        Keyword::KbdInteractiveAuthentication => {
            to.kbd_interactive_authentication = Some(value::yes_no(single(line)?)?);
        }
        Keyword::KexAlgorithms => to.kex_algorithms = Some(algorithms(Kind::Kex, line, warn)?),
        Keyword::ListenAddress => to.listen_addresses.0 = vec![listen_address(line)?],
        Keyword::LogLevel => to.log_level = Some(log_level(single(line)?)?),
        Keyword::LoginGraceTime => to.login_grace_s = Some(value::seconds(single(line)?)?),
        Keyword::Macs => to.macs = Some(algorithms(Kind::Mac, line, warn)?),
        Keyword::MaxAuthTries => {
            to.max_auth_tries = Some(value::number(single(line)?, 1, most)?);
        }
        Keyword::MaxLoginsPerUser => {
            to.max_logins_per_user = Some(match value::none_or(single(line)?) {
                None => u32::MAX,
                Some(limit) => value::number(limit, 1, most)?,
            });
        }
        Keyword::MaxSessions => to.max_sessions = Some(value::number(single(line)?, 0, most)?),
        Keyword::MaxStartups => to.max_startups = Some(value::max_startups(single(line)?)?),
        Keyword::OnDisconnect => to.on_disconnect = Some(on_disconnect(single(line)?)?),
        Keyword::PasswordAuthentication => {
            to.password_authentication = Some(value::yes_no(single(line)?)?);
        }
        Keyword::PerSourceMaxStartups => {
            to.per_source_max_startups = Some(match value::none_or(single(line)?) {
                None => u32::MAX,
                Some(limit) => value::number(limit, 0, most)?,
            });
        }
        Keyword::PerSourceNetBlockSize => {
            to.per_source_net_block = Some(value::net_block(single(line)?)?);
        }
        Keyword::PerSourcePenalties => {
            to.per_source_penalties = Some(penalties::parse(several(line)?)?);
        }
        Keyword::PerSourcePenaltyExemptList => {
            let list = value::none_or(single(line)?).unwrap_or_default();
            to.per_source_penalty_exempt = Some(match list {
                "" => String::new(),
                list => condition::address_list(list.to_owned())?,
            });
        }
        Keyword::PermitEmptyPasswords => {
            to.permit_empty_passwords = Some(value::yes_no(single(line)?)?);
        }
        Keyword::PermitRootLogin => to.permit_root_login = Some(permit_root_login(single(line)?)?),
        Keyword::PermitTty => to.permit_tty = Some(value::yes_no(single(line)?)?),
        Keyword::PermitUserEnvironment => {
            to.permit_user_environment = Some(permit_user_environment(single(line)?));
        }
        Keyword::PermitUserRc => to.permit_user_rc = Some(value::yes_no(single(line)?)?),
        Keyword::PidFile => to.pid_file = Some(path_or_none(single(line)?)?),
        Keyword::Port => to.ports.0 = vec![value::port(single(line)?)?],
        Keyword::PrintLastLog => to.print_last_log = Some(value::yes_no(single(line)?)?),
        Keyword::PrintMotd => to.print_motd = Some(value::yes_no(single(line)?)?),
        Keyword::PrivsepUser => {
            to.privsep_user = Some(value::none_or(single(line)?).map(str::to_owned));
        }
        Keyword::PubkeyAcceptedAlgorithms => {
            to.pubkey_accepted_algorithms = Some(algorithms(Kind::UserKey, line, warn)?);
        }
        Keyword::PubkeyAuthOptions => {
            to.pubkey_auth_options = Some(logins::pubkey_auth_options(several(line)?)?);
        }
        Keyword::PubkeyAuthentication => {
            to.pubkey_authentication = Some(value::yes_no(single(line)?)?);
        }
        Keyword::RefuseConnection => {
            to.refuse_connection = Some(value::yes_no(single(line)?)?);
        }
        Keyword::RekeyLimit => to.rekey_limit = Some(rekey_limit(line)?),
        Keyword::RequiredRsaSize => {
            to.required_rsa_bits = Some(value::number(single(line)?, 0, 16384)?);
        }
        Keyword::RevokedKeys => to.revoked_keys = Some(path_or_none(single(line)?)?),
        Keyword::SetEnv => to.set_env = Some(set_env(line)?),
        Keyword::StrictModes => to.strict_modes = Some(value::yes_no(single(line)?)?),
        Keyword::Subsystem => to.subsystems.0 = vec![subsystems::parse(line)?],
        Keyword::SyslogFacility => to.syslog_facility = Some(syslog_facility(single(line)?)?),
        Keyword::TcpKeepAlive => to.tcp_keepalive = Some(value::yes_no(single(line)?)?),
        Keyword::TrustedUserCaKeys => {
            to.trusted_user_ca_keys = Some(path_or_none(single(line)?)?);
        }
        Keyword::UnusedConnectionTimeout => {
            let time = value::none_or(single(line)?);
            to.unused_connection_s = Some(time.map_or(Ok(0), value::seconds)?);
        }
        Keyword::UseDns => to.use_dns = Some(value::yes_no(single(line)?)?),
        Keyword::VersionAddendum => to.version_addendum = Some(version_addendum(line)?),
        Keyword::Include | Keyword::Match => {
            unreachable!("invariant: the reader takes Include and Match itself")
        }
    }
    Ok(())
}

/// The line's only argument.
pub(super) fn single<'a>(line: &'a Line<'_>) -> Parsed<&'a str> {
    match line.arguments.as_slice() {
        [argument] if !argument.is_empty() => Ok(argument),
        [] | [_] => Err("has no value".to_owned()),
        [_, more, ..] => Err(format!("takes one value, and \"{more}\" is a second")),
    }
}

/// The line's arguments, at least one and none empty.
pub(super) fn several<'a>(line: &'a Line<'_>) -> Parsed<&'a [String]> {
    if line.arguments.is_empty() {
        return Err("has no value".to_owned());
    }
    if line.arguments.iter().any(String::is_empty) {
        return Err("has an empty value".to_owned());
    }
    Ok(&line.arguments)
}

/// Everything behind the keyword, as it stands.
fn rest_of_line<'a>(line: &Line<'a>) -> Parsed<&'a str> {
    if line.rest.is_empty() {
        Err("has no value".to_owned())
    } else {
        Ok(line.rest)
    }
}

/// A path; sshd takes relative ones from its working directory, so do we.
pub(super) fn absolute(text: &str) -> Parsed<PathBuf> {
    let home = || std::env::home_dir().unwrap_or_default();
    let path = match text.strip_prefix("~/") {
        Some(below) => home().join(below),
        None => PathBuf::from(text),
    };
    std::path::absolute(&path).map_err(|error| format!("\"{text}\" is no path ({error})"))
}

/// A path with tokens: as in sshd, `~` is the home of whoever runs the server, `%h` the account's.
pub(super) fn own_home(path: &str) -> String {
    match (path.strip_prefix('~'), std::env::home_dir()) {
        (Some(below), Some(home)) if below.starts_with('/') => {
            let home = home.to_string_lossy().replace('%', "%%");
            format!("{home}{below}")
        }
        _ => path.to_owned(),
    }
}

fn path_or_none(text: &str) -> Parsed<Option<PathBuf>> {
    value::none_or(text).map(absolute).transpose()
}

fn accept_env(line: &Line<'_>) -> Parsed<Vec<String>> {
    let patterns = several(line)?;
    match patterns.iter().find(|pattern| pattern.contains('=')) {
        Some(pattern) => Err(format!("\"{pattern}\" is not a name or a pattern of names")),
        None => Ok(patterns.to_vec()),
    }
}

fn set_env(line: &Line<'_>) -> Parsed<Vec<(String, String)>> {
    let mut variables: Vec<(String, String)> = Vec::new();
    for argument in several(line)? {
        match argument.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                if !variables.iter().any(|(known, _)| known == name) {
                    variables.push((name.to_owned(), value.to_owned()));
                }
            }
            _ => return Err(format!("\"{argument}\" is not NAME=VALUE")),
        }
    }
    Ok(variables)
}

fn address_family(text: &str) -> Parsed<AddressFamily> {
    value::one_of(
        text,
        &[
            ("any", AddressFamily::Any),
            ("inet", AddressFamily::Inet),
            ("inet6", AddressFamily::Inet6),
        ],
    )
}

/// AllowUsers and DenyUsers: the part behind `@` may be a CIDR, which must be a good one.
fn user_patterns(line: &Line<'_>) -> Parsed<Vec<String>> {
    let patterns = several(line)?;
    for pattern in patterns {
        if let Some((_, from)) = pattern.rsplit_once('@') {
            condition::address_list(from.to_owned())?;
        }
    }
    Ok(patterns.to_vec())
}

fn authorized_keys_files(line: &Line<'_>) -> Parsed<Vec<String>> {
    let files = several(line)?;
    let none = files
        .iter()
        .filter(|file| value::none_or(file).is_none())
        .count();
    match (none, files.len()) {
        (0, _) => {
            for file in files {
                tokens(file, "%hHuU")?;
            }
            Ok(files.iter().map(|file| own_home(file)).collect())
        }
        (1, 1) => Ok(Vec::new()),
        _ => Err("\"none\" stands alone".to_owned()),
    }
}

fn chroot_directory(text: &str) -> Parsed<Option<String>> {
    let Some(path) = value::none_or(text) else {
        return Ok(None);
    };
    tokens(path, "%huU")?;
    if path.starts_with('/') || path.starts_with("%h") {
        Ok(Some(path.to_owned()))
    } else {
        Err(format!("\"{path}\" is not an absolute path"))
    }
}

/// Checks that every `%` stands before one of `known`.
pub(super) fn tokens(text: &str, known: &str) -> Parsed<()> {
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c != '%' {
            continue;
        }
        match rest.next() {
            Some(token) if known.contains(token) => {}
            _ => {
                let all: Vec<String> = known.chars().map(|token| format!("%{token}")).collect();
                return Err(format!(
                    "\"{text}\" has a % that is none of {}",
                    all.join(" ")
                ));
            }
        }
    }
    Ok(())
}

fn algorithms(kind: Kind, line: &Line<'_>, warn: &mut dyn FnMut(String)) -> Parsed<Vec<String>> {
    let Chosen { served, dropped } = kind.choose(single(line)?)?;
    let names = dropped.join(", ");
    if served.is_empty() {
        warn(format!(
            "nothing of {names} is served: no key lets anybody in by this line"
        ));
    } else if !dropped.is_empty() {
        warn(format!("not served and left out: {names}"));
    }
    Ok(served)
}

fn helper_mode(text: &str) -> Parsed<HelperMode> {
    value::one_of(
        text,
        &[
            ("auto", HelperMode::Auto),
            ("memfd", HelperMode::Memfd),
            ("file", HelperMode::File),
            ("self", HelperMode::OwnExecutable),
        ],
    )
}

fn on_disconnect(text: &str) -> Parsed<OnDisconnect> {
    value::one_of(
        text,
        &[
            ("leave", OnDisconnect::Leave),
            ("hup", OnDisconnect::Hup),
            ("kill", OnDisconnect::Kill),
        ],
    )
}

fn ip_qos(line: &Line<'_>, warn: &mut dyn FnMut(String)) -> Parsed<(u8, u8)> {
    let classes = several(line)?;
    let mut read = |text: &String| -> Parsed<u8> {
        let (class, old) = value::traffic_class(text)?;
        if old {
            warn(format!(
                "\"{text}\" is an old type of service, which is left to the system"
            ));
        }
        Ok(class)
    };
    match classes {
        [both] => read(both).map(|class| (class, class)),
        [interactive, bulk] => Ok((read(interactive)?, read(bulk)?)),
        _ => Err("takes one or two traffic classes".to_owned()),
    }
}

fn listen_address(line: &Line<'_>) -> Parsed<ListenAddress> {
    match several(line)? {
        [address] => value::listen_address(address),
        [_, word, ..] if word == "rdomain" => Err("routing domains are not served: the address \
                                                   would be bound in all. Remove the line"
            .to_owned()),
        [_, more, ..] => Err(format!("takes one address, and \"{more}\" is a second")),
        [] => Err("has no value".to_owned()),
    }
}

fn log_level(text: &str) -> Parsed<(LogLevel, &'static str)> {
    const NAMES: &[(&str, &str)] = &[
        ("QUIET", "QUIET"),
        ("FATAL", "FATAL"),
        ("ERROR", "ERROR"),
        ("INFO", "INFO"),
        ("VERBOSE", "VERBOSE"),
        ("DEBUG", "DEBUG"),
        ("DEBUG1", "DEBUG"),
        ("DEBUG2", "DEBUG2"),
        ("DEBUG3", "DEBUG3"),
    ];
    Ok((value::log_level(text)?, value::one_of(text, NAMES)?))
}

fn compression(text: &str) -> Parsed<bool> {
    // Never before authentication: `yes` means `delayed` in OpenSSH too.
    value::one_of(text, &[("yes", true), ("delayed", true), ("no", false)])
}

fn permit_root_login(text: &str) -> Parsed<PermitRootLogin> {
    value::one_of(
        text,
        &[
            ("yes", PermitRootLogin::Yes),
            ("no", PermitRootLogin::No),
            ("prohibit-password", PermitRootLogin::ProhibitPassword),
            ("without-password", PermitRootLogin::ProhibitPassword),
            ("forced-commands-only", PermitRootLogin::ForcedCommandsOnly),
        ],
    )
}

fn permit_user_environment(text: &str) -> PermitUserEnvironment {
    match value::yes_no(text) {
        Ok(true) => PermitUserEnvironment::Yes,
        Ok(false) => PermitUserEnvironment::No,
        Err(_) => PermitUserEnvironment::Patterns(
            text.split(',')
                .map(|pattern| pattern.as_bytes().to_vec())
                .collect(),
        ),
    }
}

/// RekeyLimit: bytes (0 for the cipher's own limit) and seconds (0 for none).
fn rekey_limit(line: &Line<'_>) -> Parsed<(u64, u32)> {
    let (size, time) = match several(line)? {
        [size] => (size, None),
        [size, time] => (size, Some(time)),
        _ => return Err("takes a size and a time".to_owned()),
    };
    let limit_bytes = match size.as_str() {
        "default" => 0,
        text => value::bytes(text)?,
    };
    if (1..16).contains(&limit_bytes) {
        return Err(format!("\"{size}\" is too small, 16 bytes are the least"));
    }
    let limit_s = match time.map(String::as_str) {
        None | Some("none") => 0,
        Some(text) => value::seconds(text)?,
    };
    Ok((limit_bytes, limit_s))
}

fn syslog_facility(text: &str) -> Parsed<&'static str> {
    let names: Vec<(&str, &'static str)> = value::FACILITIES
        .iter()
        .map(|&(name, _)| (name, name))
        .collect();
    value::one_of(text, &names)
}

/// Names of clients are not looked up yet: what is written for names matches nobody then.
fn version_addendum(line: &Line<'_>) -> Parsed<String> {
    let text = value::none_or(rest_of_line(line)?).unwrap_or("");
    // The identification line must stay one line of at most 255 bytes (RFC 4253 section 4.2).
    if text.len() > 200 || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err("takes up to 200 printable ASCII characters".to_owned());
    }
    Ok(text.to_owned())
}
