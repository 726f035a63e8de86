//! What a person reads who starts the server by hand: its configuration, and how to try it.

use std::io::{self, Write as _};

use rustix::process::geteuid;

use crate::account;
use crate::config::{Loaded, Options};

/// For a person who started it by hand.
pub(super) fn say_what_is_served(loaded: &Loaded) {
    let source = match &loaded.path {
        Some(path) => path.display().to_string(),
        None => "built-in defaults".to_owned(),
    };
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(io::stderr(), "agent {version}, configuration: {source}");
}

/// How such a person may try the server, once it listens.
pub(super) fn invitation_to(options: &Options) -> Option<String> {
    let mut text = format!("try it from another terminal: {}\n", invitation(options)?);
    if let Some(file) = missing_key_file(options) {
        text.push_str(&format!(
            "no key may log in yet; let yours in: \
             mkdir -p -m 700 ~/.ssh && cat ~/.ssh/id_ed25519.pub >> {file}\n"
        ));
    }
    Some(text)
}

/// The first key file of this process's user, where none of them exists.
fn missing_key_file(options: &Options) -> Option<String> {
    let home = std::env::home_dir()?;
    let plain: Vec<&String> = options
        .authorized_keys_files
        .iter()
        .filter(|file| !file.contains('%'))
        .collect();
    if plain.iter().any(|file| home.join(file).exists()) {
        return None;
    }
    plain
        .first()
        .map(|file| home.join(file).display().to_string())
}

/// The line to try a server with, for the user who runs it.
fn invitation(options: &Options) -> Option<String> {
    let account = account::by_uid(geteuid().as_raw())?;
    let name = String::from_utf8(account.name).ok()?;
    let address = options.listen.first()?;
    let host = match address.ip() {
        ip if ip.is_unspecified() || ip.is_loopback() => "localhost".to_owned(),
        ip => ip.to_string(),
    };
    let port = match address.port() {
        22 => String::new(),
        port => format!("-p {port} "),
    };
    Some(format!("ssh {port}{name}@{host}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_invitation_names_port_and_host() {
        let options = |text: &str| {
            Config::from_text(text.as_bytes(), true)
                .unwrap()
                .config
                .global()
        };
        assert!(invitation(&options("Port 22")).unwrap().starts_with("ssh "));
        assert!(!invitation(&options("Port 22")).unwrap().contains("-p"));
        let other = invitation(&options("Port 2222\nListenAddress 192.0.2.1")).unwrap();
        assert!(
            other.starts_with("ssh -p 2222 ") && other.ends_with("@192.0.2.1"),
            "{other}"
        );
    }
}
