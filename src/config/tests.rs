//! What configurations mean, as sshd_config(5) says it.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;

use super::options::{LogLevel, PermitRootLogin, PermitUserEnvironment};
use super::*;

fn loaded(text: &str) -> Loaded {
    match Config::from_text(text.as_bytes(), true) {
        Ok(loaded) => loaded,
        Err(errors) => panic!("{text}: {errors:?}"),
    }
}

fn global(text: &str) -> Options {
    loaded(text).config.global()
}

fn errors(text: &str) -> Vec<String> {
    match Config::from_text(text.as_bytes(), true) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

fn alice<'a>() -> Subject<'a> {
    Subject {
        user: Some("alice"),
        groups: &[],
        invalid_user: false,
        address: "192.0.2.7".parse().unwrap(),
        host: None,
        local_address: "198.51.100.1".parse().unwrap(),
        local_port: 22,
    }
}

/// A directory of its own for a test that needs files; removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("agent-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_a_match_block_accepts_may_be_offered() {
    let text = b"PubkeyAcceptedAlgorithms ssh-ed25519\nMatch User a\nPubkeyAcceptedAlgorithms rsa-sha2-512\n";
    let config = Config::from_text(text, true).unwrap().config;
    let all = config.user_key_algorithms(&config.global());
    assert_eq!(all, ["ssh-ed25519", "rsa-sha2-512"]);
}

#[test]
fn nothing_set_means_opensshs_defaults() {
    let options = global("");
    let listen: Vec<String> = options.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["0.0.0.0:22", "[::]:22"]);
    assert_eq!(options.permit_root_login, PermitRootLogin::ProhibitPassword);
    assert_eq!(options.max_startups, (10, 30, 100));
    assert_eq!(options.login_grace_s, 120);
    assert_eq!(options.log_level, LogLevel::Info);
    assert!(options.host_keys_are_default);
    assert!(options.permit_tty && options.strict_modes && options.pubkey_authentication);
}

#[test]
fn an_ordinary_user_gets_a_port_and_keys_of_their_own() {
    let options = Config::from_text(b"", false).unwrap().config.global();
    assert!(options.listen.iter().all(|address| address.port() == 2222));
    assert_eq!(options.host_key_files, Vec::<PathBuf>::new());
    assert!(!options.host_key_dir.starts_with("/etc"));
}

#[test]
fn the_first_value_wins_and_lists_grow() {
    let options = global(
        "PermitRootLogin no\nPermitRootLogin yes\nPort 22\nPort 2222\nListenAddress 127.0.0.1\n\
         AllowUsers a b\nallowusers c\nAcceptEnv LANG\nAcceptEnv LC_*\n\
         SetEnv A=1 B=2\nSetEnv C=3\nHostKey /a\nHostKey /b\n\
         AuthorizedKeysFile one two\nAuthorizedKeysFile three\n",
    );
    assert_eq!(options.permit_root_login, PermitRootLogin::No);
    assert_eq!(options.listen.len(), 2);
    assert_eq!(options.allow_users, ["a", "b", "c"]);
    assert_eq!(options.accept_env, [b"LANG".to_vec(), b"LC_*".to_vec()]);
    assert_eq!(
        options.set_env.len(),
        2,
        "only the first SetEnv line counts"
    );
    assert_eq!(
        options.host_key_files,
        [PathBuf::from("/a"), PathBuf::from("/b")]
    );
    assert!(!options.host_keys_are_default);
    assert_eq!(options.authorized_keys_files, ["one", "two"]);
}

#[test]
fn syntax_takes_every_form_that_sshd_takes() {
    let options = global(
        "  PERMITTTY=no   # why\nForceCommand  echo \"a b\" 'c' # d\nBanner = \"/etc/my banner\"\n\
         subsystem sftp /usr/lib/sftp-server -l \"a b\"\nLoginGraceTime 1m30\nMaxStartups 5\n",
    );
    assert!(!options.permit_tty);
    assert_eq!(
        options.force_command.as_deref(),
        Some(&b"echo \"a b\" 'c' # d"[..])
    );
    assert_eq!(options.banner, Some(PathBuf::from("/etc/my banner")));
    assert_eq!(
        options.subsystems,
        [(
            "sftp".to_owned(),
            b"/usr/lib/sftp-server -l \"a b\"".to_vec()
        )]
    );
    assert_eq!(options.login_grace_s, 90);
    assert_eq!(options.max_startups, (5, 30, 5));
}

#[test]
fn none_takes_a_setting_away() {
    let options = global(
        "Banner none\nForceCommand none\nChrootDirectory none\nPidFile none\nVersionAddendum none\n\
         AuthorizedKeysFile none\nPerSourceMaxStartups none\nRekeyLimit default none\n",
    );
    assert_eq!(options.banner, None);
    assert_eq!(options.force_command, None);
    assert_eq!(options.chroot_directory, None);
    assert_eq!(options.pid_file, None);
    assert_eq!(options.version_addendum, "");
    assert!(options.authorized_keys_files.is_empty());
    assert_eq!(options.per_source_max_startups, u32::MAX);
    assert_eq!((options.rekey_bytes, options.rekey_s), (0, 0));
}

#[test]
fn every_mistake_is_reported_at_once_with_its_line() {
    let found = errors(
        "PermitRootLogin maybe\nMaxAuthTries many\n\nCiphers rot13\nClientAliveInterval -5x\n\
         NoSuchKeyword yes\nPort\nPort 22 23\nBanner \"unclosed\nRDomain vrf0\n\
         AuthenticationMethods publickey,hostbased\n",
    );
    let lines: Vec<&str> = found
        .iter()
        .map(|text| text.split(':').next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [1, 2, 4, 5, 6, 7, 8, 9, 10, 11].map(|line| format!("text line {line}"))
    );
    assert!(found[0].contains("PermitRootLogin") && found[0].contains("prohibit-password"));
}

#[test]
fn a_misspelt_keyword_gets_a_hint() {
    assert!(errors("PermitRootLogn no")[0].contains("did you mean PermitRootLogin?"));
    assert!(!errors("Colour blue")[0].contains("did you mean"));
}

#[test]
fn what_is_not_served_warns_once_unless_it_asks_for_nothing() {
    let text = "UsePAM yes\nUsePAM yes\nPermitTunnel yes\nGSSAPIAuthentication yes\n\
                X11UseLocalhost no\nX11Forwarding yes\nUseLogin no\n\
                KbdInteractiveAuthentication no\nProtocol 2\nPerSourcePenalties no\n\
                HostKeyAgent /run/agent\nRDomain none\n";
    let warnings = loaded(text).warnings;
    assert_eq!(warnings.len(), 4, "{warnings:?}");
    for (warning, keyword) in
        warnings
            .iter()
            .zip(["UsePAM", "GSSAPIAuthentication", "UseLogin", "HostKeyAgent"])
    {
        assert!(warning.contains(keyword), "{warning}");
    }
}

#[test]
fn a_slip_in_what_is_not_served_is_found_all_the_same() {
    for text in [
        "X11Forwarding maybe",
        "PasswordAuthentication yes no",
        "UsePAM",
        "PermitOpen",
        "PermitOpen localhost",
        "PermitListen 0",
        "GatewayPorts maybe",
        "StreamLocalBindMask 8",
        "AllowTcpForwarding both",
        "PermitTunnel layer3",
    ] {
        assert_eq!(errors(text).len(), 1, "{text}");
    }
    assert_eq!(loaded("FingerprintHash md5").warnings.len(), 1);
    let penalties = "PerSourcePenalties crash:90s authfail:5s";
    assert!(loaded(penalties).warnings.is_empty());
}

#[test]
fn match_blocks_replace_global_values_and_the_first_match_wins() {
    let config = loaded(
        "ForceCommand global\nAllowUsers everybody\nSubsystem a one\n\
         Match User alice\n  ForceCommand first\n  Subsystem b two\n  Subsystem a three\n\
         Match Address 192.0.2.0/24\n  ForceCommand second\n  PermitTTY no\n  AllowUsers alice\n\
         Match User bob\n  X11Forwarding no\n  PermitTTY yes\n",
    )
    .config;
    let options = config.effective(&alice());
    assert_eq!(options.force_command.as_deref(), Some(&b"first"[..]));
    assert!(!options.permit_tty);
    assert_eq!(options.allow_users, ["alice"]);
    assert_eq!(
        options.subsystems,
        [
            ("a".to_owned(), b"three".to_vec()),
            ("b".to_owned(), b"two".to_vec()),
            ("sftp".to_owned(), b"internal-sftp".to_vec())
        ]
    );
    assert_eq!(
        config.global().force_command.as_deref(),
        Some(&b"global"[..])
    );
    let stranger = Subject {
        user: None,
        ..alice()
    };
    assert_eq!(
        config.effective(&stranger).force_command.as_deref(),
        Some(&b"second"[..])
    );
}

#[test]
fn match_all_ends_a_block_and_holds_globally_too() {
    let config = loaded(
        "Banner /a\nMatch User bob\nBanner /b\nMatch all\nBanner /c\nPort 2022\nPermitTTY no\n",
    )
    .config;
    let global = config.global();
    assert_eq!(global.banner, Some(PathBuf::from("/a")));
    assert!(!global.permit_tty);
    assert_eq!(global.listen[0].port(), 2022);
    assert_eq!(config.effective(&alice()).banner, Some(PathBuf::from("/c")));
}

#[test]
fn global_keywords_cannot_stand_under_match() {
    let found = errors("Match User bob\nPort 22\nCiphers aes128-ctr\nPermitTTY no\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("line 2") && found[0].contains("Match"));
}

#[test]
fn includes_are_read_in_place_and_conditions_nest() {
    let directory = Directory::new("include");
    directory.write("d/10.conf", "SetEnv A=ten\nMatch User bob\nPermitTTY no\n");
    directory.write("d/20.conf", "SetEnv A=twenty\nMaxSessions 3\n");
    directory.write(
        "alice.conf",
        "ForceCommand included\nMatch Address 10.0.0.0/8\nBanner /never\n",
    );
    let main = directory.write(
        "sshd_config",
        "Include d/*.conf\nMaxSessions 4\nMatch User alice\nInclude alice.conf\nPermitUserRC no\n",
    );
    let config = Config::load(Some(&main), &[], false).unwrap().config;
    let global = config.global();
    assert_eq!(global.set_env, [(b"A".to_vec(), b"ten".to_vec())]);
    assert_eq!(
        global.max_sessions, 3,
        "a Match in an included file ends with the file"
    );
    assert_eq!(global.force_command, None);
    let options = config.effective(&alice());
    assert_eq!(options.force_command.as_deref(), Some(&b"included"[..]));
    assert_eq!(options.banner, None, "both conditions must hold");
    assert!(
        !options.permit_user_rc,
        "behind the include the block goes on"
    );
    let elsewhere = Subject {
        user: Some("bob"),
        address: "10.1.2.3".parse().unwrap(),
        ..alice()
    };
    assert_eq!(config.effective(&elsewhere).banner, None);
    assert!(!config.effective(&elsewhere).permit_tty);
}

#[test]
fn an_include_of_itself_ends_in_an_error() {
    let directory = Directory::new("loop");
    let main = directory.write("sshd_config", "Include sshd_config\n");
    let found = Config::load(Some(&main), &[], false).unwrap_err();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].message.contains("16 deep"));
    let wide = directory.write("wide", "Include wide wide\n");
    let found = Config::load(Some(&wide), &[], false).unwrap_err();
    assert!(found.len() < 600, "bounded: {}", found.len());
}

#[test]
fn a_missing_file_is_an_error_and_a_missing_include_a_warning() {
    let directory = Directory::new("missing");
    let absent = directory.0.join("absent");
    assert!(Config::load(Some(&absent), &[], false).is_err());
    let main = directory.write("sshd_config", "Include absent.conf\nInclude d/*.conf\n");
    let loaded = Config::load(Some(&main), &[], false).unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
}

#[test]
fn the_command_line_wins_over_the_file() {
    let directory = Directory::new("overrides");
    let main = directory.write(
        "sshd_config",
        "Port 22\nPort 23\nPermitTTY yes\nAllowUsers bob\n",
    );
    let overrides = [("Port", "2022"), ("permittty", "no"), ("AllowUsers", "eve")]
        .map(|(keyword, value)| (keyword.to_owned(), value.to_owned()));
    let options = Config::load(Some(&main), &overrides, false)
        .unwrap()
        .config
        .global();
    assert!(options.listen.iter().all(|address| address.port() == 2022));
    assert!(!options.permit_tty);
    assert_eq!(options.allow_users, ["eve", "bob"]);
    for (keyword, value) in [
        ("Match", "all"),
        ("Port", "x"),
        ("Nonsense", "1"),
        ("Port", "1\nPort 2"),
        ("#", "x"),
    ] {
        let overrides = [(keyword.to_owned(), value.to_owned())];
        let found = Config::load(Some(&main), &overrides, false).unwrap_err();
        assert!(found[0].place == "command line", "{keyword}: {found:?}");
    }
}

#[test]
fn log_levels_map_to_ours() {
    for (name, level) in [
        ("QUIET", LogLevel::Off),
        ("fatal", LogLevel::Error),
        ("INFO", LogLevel::Info),
        ("VERBOSE", LogLevel::Debug),
        ("DEBUG", LogLevel::Debug),
        ("DEBUG3", LogLevel::Trace),
    ] {
        assert_eq!(
            global(&format!("LogLevel {name}")).log_level,
            level,
            "{name}"
        );
    }
}

#[test]
fn authentication_methods_keep_the_chains_that_can_be_gone_through() {
    assert!(
        global("AuthenticationMethods any")
            .authentication_methods
            .is_empty()
    );
    let both = loaded("AuthenticationMethods publickey,password hostbased");
    assert_eq!(
        both.config.global().authentication_methods,
        [["publickey", "password"]]
    );
    assert_eq!(both.warnings.len(), 1);
    assert!(
        loaded("AuthenticationMethods publickey,keyboard-interactive:pam none")
            .warnings
            .is_empty()
    );
    for text in ["hostbased", "any publickey", "publickey,", "pubkey"] {
        assert!(
            !errors(&format!("AuthenticationMethods {text}")).is_empty(),
            "{text}"
        );
    }
}

#[test]
fn patterns_for_environments_and_users_are_checked() {
    assert_eq!(
        global("PermitUserEnvironment LANG,LC_*").permit_user_environment,
        PermitUserEnvironment::Patterns(vec![b"LANG".to_vec(), b"LC_*".to_vec()])
    );
    assert!(errors("AllowUsers a@10.0.0.1/8").len() == 1);
    assert!(errors("AcceptEnv A=B").len() == 1);
    assert!(errors("SetEnv A").len() == 1);
    assert!(errors("AuthorizedKeysFile /keys/%q").len() == 1);
    assert!(errors("AuthorizedKeysFile /keys/%").len() == 1);
    assert!(errors("ChrootDirectory jail").len() == 1);
    assert!(errors("VersionAddendum caf\u{e9}").len() == 1);
}

#[test]
fn files_that_are_no_text_are_errors_of_their_lines() {
    assert_eq!(
        Config::from_text(b"# caf\xe9\nPort 22\n", true).map(|_| ()),
        Ok(())
    );
    let found = Config::from_text(b"Port 22\nBanner /caf\xe9\nPort\0 22\n", true).unwrap_err();
    assert_eq!(found.len(), 2);
}

#[test]
fn the_dump_of_a_configuration_gives_the_same_configuration() {
    let text = "Port 2022\nListenAddress 127.0.0.1\nPermitRootLogin forced-commands-only\n\
                AllowUsers a b@10.0.0.0/8\nAcceptEnv LANG LC_*\nSetEnv A=1\nBanner /etc/issue\n\
                MaxStartups 5:50:20\nIPQoS af21 cs1\nRekeyLimit 1M 1h\nSubsystem sftp /x/sftp -l 1\n\
                Ciphers aes128-ctr\nLogLevel DEBUG2\nAuthorizedKeysFile /k/%u\nHostKey /a\n\
                AuthenticationMethods publickey,publickey\nPermitUserEnvironment LC_*\nPidFile none\n";
    let config = loaded(text).config;
    let dump = config.dump(None);
    assert_eq!(loaded(&dump).config.global(), config.global(), "{dump}");
    let plain = loaded("").config;
    let dump = plain
        .dump(None)
        .replace("hostkey /etc/ssh", "#hostkey /etc/ssh");
    assert_eq!(loaded(&dump).config.global(), plain.global(), "{dump}");
}

#[test]
fn a_dump_says_what_is_in_force_of_keywords_that_are_not_served() {
    let found = loaded("UsePAM yes\nGSSAPIAuthentication yes\nHostbasedAuthentication yes\n");
    let dump = found.config.dump(None);
    for line in [
        "usepam no\n",
        "gssapiauthentication no\n",
        "hostbasedauthentication no\n",
    ] {
        assert!(dump.contains(line), "{line}");
    }
    assert_eq!(loaded(&dump).warnings, Vec::<String>::new());
}

#[test]
fn tilde_is_the_home_of_whoever_runs_the_server() {
    let home = std::env::home_dir().unwrap();
    let home = home.to_str().unwrap();
    let options = global(
        "AuthorizedKeysFile ~/keys/%u ~other/keys a~/b\nAuthorizedPrincipalsFile ~/p\nHostKey ~/h\n",
    );
    let first = format!("{home}/keys/%u");
    assert_eq!(
        options.authorized_keys_files,
        [first.as_str(), "~other/keys", "a~/b"]
    );
    let principals = format!("{home}/p");
    assert_eq!(options.authorized_principals_file, Some(principals));
    assert_eq!(options.host_key_files, [PathBuf::from(home).join("h")]);
}

#[test]
fn groups_are_asked_for_only_where_something_depends_on_them() {
    for (text, asked) in [
        ("", false),
        ("AllowUsers root\nMatch User a\nBanner none\n", false),
        ("AllowGroups wheel\n", true),
        ("Match Group wheel\nBanner none\n", true),
        ("Match User a\nDenyGroups x\n", true),
    ] {
        assert_eq!(loaded(text).config.asks_for_groups(), asked, "{text}");
    }
}

#[test]
fn files_are_served_unless_a_line_says_otherwise() {
    let own = |text: &str| global(text).subsystems;
    let built_in = [("sftp".to_owned(), b"internal-sftp".to_vec())];
    assert_eq!(own(""), built_in);
    assert_eq!(own("Subsystem sftp none"), []);
    let other = [("sftp".to_owned(), b"/x/sftp-server".to_vec())];
    assert_eq!(own("Subsystem sftp /x/sftp-server"), other);
}
