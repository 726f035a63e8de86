//! Every keyword of OpenSSH 10's sshd_config, those of distributions' patches, and our own: what it
//! means to this server.
//!
//! One table. docs/config.md shows it to users, and a test holds the two together.

use super::forwarding::Forward;

/// What a keyword is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Implemented; [`super::settings`] takes the value.
    Set(Keyword),
    /// About something that is not served: the value changes nothing. Warned once, except for the
    /// values in `quiet`, which ask for what holds anyway.
    Unserved { quiet: Quiet, why: &'static str },
    /// Restricts in a way that is not implemented: an error, except for the values in `met`.
    Restricts {
        met: &'static [&'static str],
        advice: &'static str,
    },
    /// OpenSSH itself ignores it by now, with a warning.
    Deprecated,
    /// OpenSSH itself ignores it, silently.
    Ignored,
}

/// Which values of a keyword need no warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// Any: it can only restrict what is not served.
    Always,
    /// `no`, of a keyword that takes `yes`, `no` and the like.
    Off,
    /// These, in any case.
    Values(&'static [&'static str]),
}

/// The keywords that are implemented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyword {
    AcceptEnv,
    Accounting,
    AddressFamily,
    AllowCertificateIds,
    AllowGroups,
    AllowUsers,
    AuthenticationMethods,
    AuthorizedKeysCommand,
    AuthorizedKeysCommandUser,
    AuthorizedKeysFile,
    AuthorizedPrincipalsCommand,
    AuthorizedPrincipalsCommandUser,
    AuthorizedPrincipalsFile,
    Banner,
    CaSignatureAlgorithms,
    CertificateClockFloor,
    ChannelTimeout,
    ChrootDirectory,
    Ciphers,
    ClientAliveCountMax,
    ClientAliveInterval,
    Compression,
    DataDir,
    DebugAllowGroups,
    DebugAllowUsers,
    DebugProfileMaxSeconds,
    DebugService,
    DenyCertificateIds,
    DenyGroups,
    DenyUsers,
    ExposeAuthInfo,
    ForceCommand,
    Forwarding(Forward),
    HelperMode,
    SftpAudit,
    HostCertificate,
    HostKey,
    HostKeyAlgorithms,
    HostKeyDir,
    Include,
    IpQos,
    KbdInteractiveAuthentication,
    KexAlgorithms,
    ListenAddress,
    LogLevel,
    LoginGraceTime,
    Macs,
    Match,
    MaxAuthTries,
    MaxLoginsPerUser,
    MaxSessions,
    OnDisconnect,
    MaxStartups,
    PasswordAuthentication,
    PerSourceMaxStartups,
    PerSourceNetBlockSize,
    PerSourcePenalties,
    PerSourcePenaltyExemptList,
    PermitEmptyPasswords,
    PermitRootLogin,
    PermitTty,
    PermitUserEnvironment,
    PermitUserRc,
    PidFile,
    Port,
    PrintLastLog,
    PrintMotd,
    PrivsepUser,
    PubkeyAcceptedAlgorithms,
    PubkeyAuthOptions,
    PubkeyAuthentication,
    RefuseConnection,
    RekeyLimit,
    RequiredRsaSize,
    RevokedKeys,
    SetEnv,
    StrictModes,
    Subsystem,
    SyslogFacility,
    TcpKeepAlive,
    TrustedUserCaKeys,
    UnusedConnectionTimeout,
    UseDns,
    VersionAddendum,
}

/// A row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// As sshd_config(5) spells it.
    pub name: &'static str,
    /// May stand under `Match`.
    pub in_match: bool,
    pub class: Class,
}

/// Finds a keyword, in any case.
pub fn find(name: &str) -> Option<&'static Entry> {
    TABLE
        .iter()
        .find(|entry| entry.name.eq_ignore_ascii_case(name))
}

const NO: Quiet = Quiet::Off;
const NONE: Quiet = Quiet::Values(&["none"]);
const NO_HOSTBASED: &str = "host-based logins are not offered";
const NO_KERBEROS: &str = "Kerberos and GSSAPI logins are not offered";

const fn set(name: &'static str, keyword: Keyword) -> Entry {
    Entry {
        name,
        in_match: false,
        class: Class::Set(keyword),
    }
}

const fn set_in_match(name: &'static str, keyword: Keyword) -> Entry {
    Entry {
        name,
        in_match: true,
        class: Class::Set(keyword),
    }
}

const fn unserved(name: &'static str, quiet: Quiet, why: &'static str) -> Entry {
    Entry {
        name,
        in_match: true,
        class: Class::Unserved { quiet, why },
    }
}

const fn unserved_global(name: &'static str, quiet: Quiet, why: &'static str) -> Entry {
    Entry {
        name,
        in_match: false,
        class: Class::Unserved { quiet, why },
    }
}

const fn restricts(
    name: &'static str,
    met: &'static [&'static str],
    advice: &'static str,
) -> Entry {
    Entry {
        name,
        in_match: true,
        class: Class::Restricts { met, advice },
    }
}

const fn deprecated(name: &'static str) -> Entry {
    Entry {
        name,
        in_match: true,
        class: Class::Deprecated,
    }
}

/// In alphabetical order, our own at the end.
pub const TABLE: &[Entry] = &[
    set_in_match("AcceptEnv", Keyword::AcceptEnv),
    set("AddressFamily", Keyword::AddressFamily),
    set_in_match(
        "AllowAgentForwarding",
        Keyword::Forwarding(Forward::AllowAgentForwarding),
    ),
    set_in_match("AllowGroups", Keyword::AllowGroups),
    set_in_match(
        "AllowStreamLocalForwarding",
        Keyword::Forwarding(Forward::AllowStreamLocalForwarding),
    ),
    set_in_match(
        "AllowTcpForwarding",
        Keyword::Forwarding(Forward::AllowTcpForwarding),
    ),
    set_in_match("AllowUsers", Keyword::AllowUsers),
    set_in_match("AuthenticationMethods", Keyword::AuthenticationMethods),
    set_in_match("AuthorizedKeysCommand", Keyword::AuthorizedKeysCommand),
    set_in_match(
        "AuthorizedKeysCommandUser",
        Keyword::AuthorizedKeysCommandUser,
    ),
    set_in_match("AuthorizedKeysFile", Keyword::AuthorizedKeysFile),
    set_in_match(
        "AuthorizedPrincipalsCommand",
        Keyword::AuthorizedPrincipalsCommand,
    ),
    set_in_match(
        "AuthorizedPrincipalsCommandUser",
        Keyword::AuthorizedPrincipalsCommandUser,
    ),
    set_in_match(
        "AuthorizedPrincipalsFile",
        Keyword::AuthorizedPrincipalsFile,
    ),
    set_in_match("Banner", Keyword::Banner),
    set_in_match("CASignatureAlgorithms", Keyword::CaSignatureAlgorithms),
    set_in_match("ChannelTimeout", Keyword::ChannelTimeout),
    set_in_match("ChrootDirectory", Keyword::ChrootDirectory),
    set("Ciphers", Keyword::Ciphers),
    set_in_match("ClientAliveCountMax", Keyword::ClientAliveCountMax),
    set_in_match("ClientAliveInterval", Keyword::ClientAliveInterval),
    set("Compression", Keyword::Compression),
    set_in_match("DenyGroups", Keyword::DenyGroups),
    set_in_match("DenyUsers", Keyword::DenyUsers),
    set_in_match(
        "DisableForwarding",
        Keyword::Forwarding(Forward::DisableForwarding),
    ),
    set_in_match("ExposeAuthInfo", Keyword::ExposeAuthInfo),
    unserved_global(
        "FingerprintHash",
        Quiet::Values(&["sha256"]),
        "fingerprints are logged as SHA256",
    ),
    set_in_match("ForceCommand", Keyword::ForceCommand),
    set_in_match("GatewayPorts", Keyword::Forwarding(Forward::GatewayPorts)),
    unserved("GSSAPIAuthentication", NO, NO_KERBEROS),
    unserved_global("GSSAPICleanupCredentials", Quiet::Always, NO_KERBEROS),
    unserved_global("GSSAPIDelegateCredentials", Quiet::Always, NO_KERBEROS),
    unserved("GSSAPIEnablek5users", Quiet::Always, NO_KERBEROS),
    unserved_global("GSSAPIKexAlgorithms", Quiet::Always, NO_KERBEROS),
    unserved_global("GSSAPIKeyExchange", NO, NO_KERBEROS),
    unserved_global("GSSAPIStoreCredentialsOnRekey", Quiet::Always, NO_KERBEROS),
    unserved_global("GSSAPIStrictAcceptorCheck", Quiet::Always, NO_KERBEROS),
    unserved("HostbasedAcceptedAlgorithms", Quiet::Always, NO_HOSTBASED),
    unserved("HostbasedAcceptedKeyTypes", Quiet::Always, NO_HOSTBASED),
    unserved("HostbasedAuthentication", NO, NO_HOSTBASED),
    unserved(
        "HostbasedUsesNameFromPacketOnly",
        Quiet::Always,
        NO_HOSTBASED,
    ),
    set("HostCertificate", Keyword::HostCertificate),
    set("HostKey", Keyword::HostKey),
    unserved_global(
        "HostKeyAgent",
        NONE,
        "host keys are read from files, not from an agent",
    ),
    set("HostKeyAlgorithms", Keyword::HostKeyAlgorithms),
    unserved("IgnoreRhosts", Quiet::Always, NO_HOSTBASED),
    unserved_global("IgnoreUserKnownHosts", Quiet::Always, NO_HOSTBASED),
    set_in_match("Include", Keyword::Include),
    set_in_match("IPQoS", Keyword::IpQos),
    set_in_match(
        "KbdInteractiveAuthentication",
        Keyword::KbdInteractiveAuthentication,
    ),
    set(
        "ChallengeResponseAuthentication",
        Keyword::KbdInteractiveAuthentication,
    ),
    set("SkeyAuthentication", Keyword::KbdInteractiveAuthentication),
    unserved("KerberosAuthentication", NO, NO_KERBEROS),
    unserved_global("KerberosGetAFSToken", Quiet::Always, NO_KERBEROS),
    unserved_global("KerberosOrLocalPasswd", Quiet::Always, NO_KERBEROS),
    unserved_global("KerberosTicketCleanup", Quiet::Always, NO_KERBEROS),
    unserved_global("KerberosUniqueCCache", Quiet::Always, NO_KERBEROS),
    unserved("KerberosUseKuserok", Quiet::Always, NO_KERBEROS),
    unserved_global("KerberosTgtPassing", Quiet::Always, NO_KERBEROS),
    unserved_global("AFSTokenPassing", Quiet::Always, NO_KERBEROS),
    set("KexAlgorithms", Keyword::KexAlgorithms),
    set("ListenAddress", Keyword::ListenAddress),
    set("LoginGraceTime", Keyword::LoginGraceTime),
    set_in_match("LogLevel", Keyword::LogLevel),
    unserved(
        "LogVerbose",
        NONE,
        "single source files are not logged apart; raise LogLevel",
    ),
    set("MACs", Keyword::Macs),
    set_in_match("Match", Keyword::Match),
    set_in_match("MaxAuthTries", Keyword::MaxAuthTries),
    set_in_match("MaxSessions", Keyword::MaxSessions),
    set("MaxStartups", Keyword::MaxStartups),
    unserved_global("ModuliFile", Quiet::Always, "group exchange is not served"),
    set_in_match("PasswordAuthentication", Keyword::PasswordAuthentication),
    set_in_match("PermitEmptyPasswords", Keyword::PermitEmptyPasswords),
    set_in_match("PermitListen", Keyword::Forwarding(Forward::PermitListen)),
    set_in_match("PermitOpen", Keyword::Forwarding(Forward::PermitOpen)),
    set_in_match("PermitRootLogin", Keyword::PermitRootLogin),
    set_in_match("PermitTTY", Keyword::PermitTty),
    set_in_match("PermitTunnel", Keyword::Forwarding(Forward::PermitTunnel)),
    set_in_match("PermitUserEnvironment", Keyword::PermitUserEnvironment),
    set_in_match("PermitUserRC", Keyword::PermitUserRc),
    set("PerSourceMaxStartups", Keyword::PerSourceMaxStartups),
    set("PerSourceNetBlockSize", Keyword::PerSourceNetBlockSize),
    set("PerSourcePenalties", Keyword::PerSourcePenalties),
    set(
        "PerSourcePenaltyExemptList",
        Keyword::PerSourcePenaltyExemptList,
    ),
    set("PidFile", Keyword::PidFile),
    set("Port", Keyword::Port),
    set("PrintLastLog", Keyword::PrintLastLog),
    set("PrintMotd", Keyword::PrintMotd),
    set_in_match(
        "PubkeyAcceptedAlgorithms",
        Keyword::PubkeyAcceptedAlgorithms,
    ),
    set_in_match("PubkeyAcceptedKeyTypes", Keyword::PubkeyAcceptedAlgorithms),
    set_in_match("PubkeyAuthentication", Keyword::PubkeyAuthentication),
    set("DSAAuthentication", Keyword::PubkeyAuthentication),
    set_in_match("PubkeyAuthOptions", Keyword::PubkeyAuthOptions),
    restricts(
        "RDomain",
        &["none"],
        "sessions are not moved to a routing domain; remove the line",
    ),
    set_in_match("RefuseConnection", Keyword::RefuseConnection),
    set_in_match("RekeyLimit", Keyword::RekeyLimit),
    set_in_match("RequiredRSASize", Keyword::RequiredRsaSize),
    set_in_match("RSAMinSize", Keyword::RequiredRsaSize),
    set_in_match("RevokedKeys", Keyword::RevokedKeys),
    unserved_global(
        "SecurityKeyProvider",
        Quiet::Always,
        "the server's own keys are not in security keys",
    ),
    set_in_match("SetEnv", Keyword::SetEnv),
    unserved_global("SshdAuthPath", Quiet::Always, "this server is one file"),
    unserved_global("SshdSessionPath", Quiet::Always, "this server is one file"),
    set_in_match(
        "StreamLocalBindMask",
        Keyword::Forwarding(Forward::StreamLocalBindMask),
    ),
    set_in_match(
        "StreamLocalBindUnlink",
        Keyword::Forwarding(Forward::StreamLocalBindUnlink),
    ),
    set("StrictModes", Keyword::StrictModes),
    set_in_match("Subsystem", Keyword::Subsystem),
    set("SyslogFacility", Keyword::SyslogFacility),
    set("TCPKeepAlive", Keyword::TcpKeepAlive),
    set("KeepAlive", Keyword::TcpKeepAlive),
    set_in_match("TrustedUserCAKeys", Keyword::TrustedUserCaKeys),
    set_in_match("UnusedConnectionTimeout", Keyword::UnusedConnectionTimeout),
    set("UseDNS", Keyword::UseDns),
    unserved_global(
        "UsePAM",
        NO,
        "PAM is not used: passwords are checked against /etc/shadow, accounts by passwd and shadow",
    ),
    set("VersionAddendum", Keyword::VersionAddendum),
    set_in_match(
        "X11DisplayOffset",
        Keyword::Forwarding(Forward::X11DisplayOffset),
    ),
    set_in_match("X11Forwarding", Keyword::Forwarding(Forward::X11Forwarding)),
    set_in_match(
        "X11UseLocalhost",
        Keyword::Forwarding(Forward::X11UseLocalhost),
    ),
    set("XAuthLocation", Keyword::Forwarding(Forward::XAuthLocation)),
    // Debian's and Fedora's patches.
    unserved_global(
        "DebianBanner",
        Quiet::Always,
        "the identification line says nothing of the distribution; see VersionAddendum",
    ),
    unserved_global("ShowPatchLevel", Quiet::Always, "see VersionAddendum"),
    // Left behind by OpenSSH.
    deprecated("AuthorizedKeysFile2"),
    deprecated("CheckMail"),
    set("HostDSAKey", Keyword::HostKey),
    deprecated("KeyRegenerationInterval"),
    deprecated("PAMAuthenticationViaKbdInt"),
    Entry {
        name: "Protocol",
        in_match: false,
        class: Class::Ignored,
    },
    deprecated("ReverseMappingCheck"),
    deprecated("RhostsAuthentication"),
    deprecated("RhostsRSAAuthentication"),
    deprecated("RSAAuthentication"),
    deprecated("ServerKeyBits"),
    deprecated("UseLogin"),
    deprecated("UsePrivilegeSeparation"),
    deprecated("VerifyReverseMapping"),
    // Our own.
    set("Accounting", Keyword::Accounting),
    set_in_match(
        "AgentSocketPath",
        Keyword::Forwarding(Forward::AgentSocketPath),
    ),
    set_in_match("AllowCertificateIds", Keyword::AllowCertificateIds),
    set("CertificateClockFloor", Keyword::CertificateClockFloor),
    set("DataDir", Keyword::DataDir),
    set("DebugAllowGroups", Keyword::DebugAllowGroups),
    set("DebugAllowUsers", Keyword::DebugAllowUsers),
    set("DebugProfileMaxSeconds", Keyword::DebugProfileMaxSeconds),
    set("DebugService", Keyword::DebugService),
    set_in_match("DenyCertificateIds", Keyword::DenyCertificateIds),
    set("HelperMode", Keyword::HelperMode),
    set("HostKeyDir", Keyword::HostKeyDir),
    set_in_match("MaxLoginsPerUser", Keyword::MaxLoginsPerUser),
    set_in_match("OnDisconnect", Keyword::OnDisconnect),
    set("PrivsepUser", Keyword::PrivsepUser),
    set_in_match("SftpAudit", Keyword::SftpAudit),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_stands_in_the_table_once() {
        for (index, entry) in TABLE.iter().enumerate() {
            let again = TABLE[index + 1..]
                .iter()
                .find(|other| other.name.eq_ignore_ascii_case(entry.name));
            assert!(again.is_none(), "{} stands twice", entry.name);
        }
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert!(find("permitROOTlogin").is_some());
        assert!(find("NoSuchKeyword").is_none());
        assert!(find("").is_none());
    }
}
