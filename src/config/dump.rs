//! The effective values as text, in the manner of `sshd -T`: lower-case keyword, value.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use agent_helper::frame::OnDisconnect;

use super::lex;
use super::options::{
    HelperMode, Options, PermitRootLogin, PermitUserEnvironment, PubkeyAuthOptions,
};
use super::settings::Settings;
use super::value::AddressFamily;
use crate::local_time;

/// All implemented keywords, and what is in force of some others. `settings` serves for what [`Options`] has no need to keep.
pub fn dump(settings: &Settings, options: &Options) -> String {
    let mut out = Dump(String::new());
    out.listening(settings, options);
    out.algorithms(options);
    out.logins(options);
    out.sessions(options);
    out.logging(settings, options);
    out.own(settings, options);
    for (keyword, value) in FIXED {
        out.line(keyword, value);
    }
    out.0
}

/// What holds whatever the file says, and what auditors look for in the output of `sshd -T`.
const FIXED: [(&str, &str); 6] = [
    ("fingerprinthash", "SHA256"),
    ("gssapiauthentication", "no"),
    ("hostbasedauthentication", "no"),
    ("ignorerhosts", "yes"),
    ("kerberosauthentication", "no"),
    ("usepam", "no"),
];

struct Dump(String);

impl Dump {
    fn line(&mut self, keyword: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{keyword} {value}");
    }

    fn flag(&mut self, keyword: &str, value: bool) {
        self.line(keyword, if value { "yes" } else { "no" });
    }

    /// One line for each value, none for none.
    fn each<T: std::fmt::Display>(&mut self, keyword: &str, values: impl IntoIterator<Item = T>) {
        for value in values {
            self.line(keyword, value);
        }
    }

    fn path(&mut self, keyword: &str, path: Option<&PathBuf>) {
        match path {
            Some(path) => self.line(keyword, path.display()),
            None => self.line(keyword, "none"),
        }
    }

    fn command(&mut self, keyword: &str, words: Option<&Vec<String>>) {
        let line = words.map(|words| lex::join(words));
        self.line(keyword, line.as_deref().unwrap_or("none"));
    }

    fn listening(&mut self, settings: &Settings, options: &Options) {
        let mut ports: Vec<u16> = options
            .listen
            .iter()
            .map(std::net::SocketAddr::port)
            .collect();
        ports.dedup();
        let ports = if settings.ports.0.is_empty() {
            &ports
        } else {
            &settings.ports.0
        };
        self.each("port", ports);
        self.line(
            "addressfamily",
            match settings.address_family {
                None | Some(AddressFamily::Any) => "any",
                Some(AddressFamily::Inet) => "inet",
                Some(AddressFamily::Inet6) => "inet6",
            },
        );
        self.each("listenaddress", options.listen.iter().map(listen_text));
        self.each(
            "hostkey",
            options.host_key_files.iter().map(|path| path.display()),
        );
        self.each(
            "hostcertificate",
            options
                .host_certificate_files
                .iter()
                .map(|path| path.display()),
        );
        self.path("pidfile", options.pid_file.as_ref());
        self.line("logingracetime", options.login_grace_s);
        let (start, rate, full) = options.max_startups;
        self.line("maxstartups", format!("{start}:{rate}:{full}"));
        match options.per_source_max_startups {
            u32::MAX => self.line("persourcemaxstartups", "none"),
            limit => self.line("persourcemaxstartups", limit),
        }
        let (v4, v6) = options.per_source_net_block;
        self.line("persourcenetblocksize", format!("{v4}:{v6}"));
        match &options.per_source_penalties {
            Some(penalties) => self.line("persourcepenalties", penalties),
            None => self.line("persourcepenalties", "no"),
        }
        let exempt = options.per_source_penalty_exempt.as_str();
        self.line("persourcepenaltyexemptlist", or(exempt, "none"));
        self.flag("tcpkeepalive", options.tcp_keepalive);
        self.flag("usedns", options.use_dns);
        let addendum = options.version_addendum.as_str();
        self.line(
            "versionaddendum",
            if addendum.is_empty() {
                "none"
            } else {
                addendum
            },
        );
        self.line("clientaliveinterval", options.client_alive_interval_s);
        self.line("clientalivecountmax", options.client_alive_count_max);
        let timeouts: Vec<String> = options
            .channel_timeouts
            .iter()
            .map(|(kind, seconds)| format!("{kind}={seconds}"))
            .collect();
        self.line("channeltimeout", or(&timeouts.join(" "), "none"));
        match options.unused_connection_s {
            0 => self.line("unusedconnectiontimeout", "none"),
            seconds => self.line("unusedconnectiontimeout", seconds),
        }
        let (interactive, bulk) = options.ip_qos;
        self.line(
            "ipqos",
            format!("{} {}", traffic_class(interactive), traffic_class(bulk)),
        );
        self.line(
            "rekeylimit",
            format!("{} {}", options.rekey_bytes, options.rekey_s),
        );
    }

    fn algorithms(&mut self, options: &Options) {
        self.line("ciphers", options.ciphers.join(","));
        self.line("macs", options.macs.join(","));
        self.line("kexalgorithms", options.kex_algorithms.join(","));
        self.flag("compression", options.compression);
        self.line("hostkeyalgorithms", options.host_key_algorithms.join(","));
        self.line(
            "pubkeyacceptedalgorithms",
            options.pubkey_accepted_algorithms.join(","),
        );
        self.line(
            "casignaturealgorithms",
            options.ca_signature_algorithms.join(","),
        );
        self.line("requiredrsasize", options.required_rsa_bits);
    }

    fn logins(&mut self, options: &Options) {
        self.line(
            "permitrootlogin",
            match options.permit_root_login {
                PermitRootLogin::Yes => "yes",
                PermitRootLogin::No => "no",
                PermitRootLogin::ProhibitPassword => "without-password",
                PermitRootLogin::ForcedCommandsOnly => "forced-commands-only",
            },
        );
        self.flag("pubkeyauthentication", options.pubkey_authentication);
        self.flag("passwordauthentication", options.password_authentication);
        self.flag(
            "kbdinteractiveauthentication",
            options.kbd_interactive_authentication,
        );
        self.flag("permitemptypasswords", options.permit_empty_passwords);
        let chains: Vec<String> = options
            .authentication_methods
            .iter()
            .map(|chain| chain.join(","))
            .collect();
        self.line("authenticationmethods", or(&chains.join(" "), "any"));
        self.line(
            "authorizedkeysfile",
            or(&options.authorized_keys_files.join(" "), "none"),
        );
        self.command(
            "authorizedkeyscommand",
            options.authorized_keys_command.as_ref(),
        );
        let user = options.authorized_keys_command_user.as_deref();
        self.line("authorizedkeyscommanduser", user.unwrap_or("none"));
        self.path("trustedusercakeys", options.trusted_user_ca_keys.as_ref());
        let file = options.authorized_principals_file.as_deref();
        self.line("authorizedprincipalsfile", file.unwrap_or("none"));
        self.command(
            "authorizedprincipalscommand",
            options.authorized_principals_command.as_ref(),
        );
        let user = options.authorized_principals_command_user.as_deref();
        self.line("authorizedprincipalscommanduser", user.unwrap_or("none"));
        self.path("revokedkeys", options.revoked_keys.as_ref());
        let PubkeyAuthOptions {
            touch_required,
            verify_required,
        } = options.pubkey_auth_options;
        self.line(
            "pubkeyauthoptions",
            match (touch_required, verify_required) {
                (false, false) => "none",
                (true, false) => "touch-required",
                (false, true) => "verify-required",
                (true, true) => "touch-required verify-required",
            },
        );
        self.flag("exposeauthinfo", options.expose_auth_info);
        self.flag("strictmodes", options.strict_modes);
        self.line("maxauthtries", options.max_auth_tries);
        self.flag("refuseconnection", options.refuse_connection);
        self.each("allowusers", &options.allow_users);
        self.each("denyusers", &options.deny_users);
        self.each("allowgroups", &options.allow_groups);
        self.each("denygroups", &options.deny_groups);
    }

    fn sessions(&mut self, options: &Options) {
        self.path("banner", options.banner.as_ref());
        self.line("maxsessions", options.max_sessions);
        match options.max_logins_per_user {
            u32::MAX => self.line("maxloginsperuser", "none"),
            limit => self.line("maxloginsperuser", limit),
        }
        let command = options
            .force_command
            .as_deref()
            .map(String::from_utf8_lossy);
        self.line("forcecommand", command.as_deref().unwrap_or("none"));
        self.line(
            "chrootdirectory",
            options.chroot_directory.as_deref().unwrap_or("none"),
        );
        self.flag("permittty", options.permit_tty);
        self.flag("permituserrc", options.permit_user_rc);
        match &options.permit_user_environment {
            PermitUserEnvironment::No => self.flag("permituserenvironment", false),
            PermitUserEnvironment::Yes => self.flag("permituserenvironment", true),
            PermitUserEnvironment::Patterns(patterns) => {
                self.line("permituserenvironment", lossy(patterns).join(","));
            }
        }
        self.each("acceptenv", lossy(&options.accept_env));
        self.each(
            "setenv",
            options.set_env.iter().map(|(name, value)| {
                format!(
                    "{}={}",
                    String::from_utf8_lossy(name),
                    String::from_utf8_lossy(value)
                )
            }),
        );
        self.each(
            "subsystem",
            options
                .subsystems
                .iter()
                .map(|(name, command)| format!("{name} {}", String::from_utf8_lossy(command))),
        );
        options
            .forwarding
            .dump(|keyword, value| self.line(keyword, value));
        self.flag("printmotd", options.print_motd);
        self.flag("printlastlog", options.print_last_log);
    }

    fn logging(&mut self, settings: &Settings, options: &Options) {
        self.line(
            "loglevel",
            settings.log_level.map_or("INFO", |(_, name)| name),
        );
        self.line(
            "syslogfacility",
            options.syslog_facility.as_deref().unwrap_or("AUTH"),
        );
    }

    fn own(&mut self, settings: &Settings, options: &Options) {
        self.flag("accounting", options.accounting);
        self.line(
            "certificateclockfloor",
            match options.certificate_clock_floor_s {
                0 => "none".to_owned(),
                floor_s => clock_text(floor_s),
            },
        );
        self.path("datadir", Some(&options.data_dir));
        self.path("hostkeydir", Some(&options.host_key_dir));
        self.line(
            "helpermode",
            match options.helper_mode {
                HelperMode::Auto => "auto",
                HelperMode::Memfd => "memfd",
                HelperMode::File => "file",
                HelperMode::OwnExecutable => "self",
            },
        );
        self.line(
            "ondisconnect",
            match options.on_disconnect {
                OnDisconnect::Leave => "leave",
                OnDisconnect::Hup => "hup",
                OnDisconnect::Kill => "kill",
            },
        );
        self.line(
            "privsepuser",
            options.privsep_user.as_deref().unwrap_or("none"),
        );
        self.each("allowcertificateids", &options.allow_certificate_ids);
        self.each("denycertificateids", &options.deny_certificate_ids);
        self.flag("sftpaudit", options.sftp_audit);
        self.flag("debugservice", settings.debug_service.unwrap_or(true));
        self.each("debugallowusers", &settings.debug_allow_users.0);
        self.each("debugallowgroups", &settings.debug_allow_groups.0);
        self.line("debugprofilemaxseconds", options.debug.profile_max_s);
    }
}

/// A second as CertificateClockFloor takes it, in local time.
fn clock_text(unix_s: u64) -> String {
    let civil = i64::try_from(unix_s).ok().and_then(local_time::to_local);
    civil.map_or_else(String::new, |civil| {
        format!(
            "{:04}{:02}{:02}{:02}{:02}{:02}",
            civil.year, civil.month, civil.day, civil.hour, civil.minute, civil.second
        )
    })
}

/// As sshd writes addresses: always with a port, IPv6 in brackets.
fn listen_text(address: &std::net::SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(v4) => format!("{v4}:{}", address.port()),
        IpAddr::V6(v6) => format!("[{v6}]:{}", address.port()),
    }
}

fn traffic_class(class: u8) -> String {
    match class {
        0 => "none".to_owned(),
        0xb8 => "ef".to_owned(),
        0x04 => "le".to_owned(),
        class if class & 0x1f == 0 => format!("cs{}", class >> 5),
        class if class & 0x07 == 0 && (1..=4).contains(&(class >> 5)) => {
            format!("af{}{}", class >> 5, (class >> 3) & 3)
        }
        class => format!("0x{class:02x}"),
    }
}

fn lossy(list: &[Vec<u8>]) -> Vec<String> {
    list.iter()
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .collect()
}

fn or<'a>(text: &'a str, empty: &'a str) -> &'a str {
    if text.is_empty() { empty } else { text }
}
