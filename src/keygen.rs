//! `agent keygen`: makes key pairs, prints public halves and fingerprints.
//!
//! For boxes without ssh-keygen. Files are OpenSSH's; a file that exists is never replaced.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use argh::FromArgs;
use rustix::process::geteuid;

use crate::authorized_keys::{self, KeyLine};
use crate::cli::{fail, load, print};
use crate::config::value;
use crate::host_keys;
use crate::limits;
use crate::logging::escape;
use crate::ssh::crypto::Random;
use crate::ssh::crypto::private_key::PrivateKey;
use crate::ssh::crypto::public_key::{KeyType, PublicKey};

/// Make a key, or print a key's public half or fingerprint.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "keygen")]
pub struct Keygen {
    /// ed25519 (the default), ecdsa, or ecdsa-384
    #[argh(option, short = 't', arg_name = "type")]
    key_type: Option<String>,

    /// the key's file; the server's own key by default
    #[argh(option, short = 'f', arg_name = "file")]
    file: Option<PathBuf>,

    /// comment for a new key
    #[argh(option, short = 'C', arg_name = "text")]
    comment: Option<String>,

    /// print the fingerprints of the keys in the file
    #[argh(switch, short = 'l')]
    fingerprint: bool,

    /// print the public half of the key in the file
    #[argh(switch, short = 'y')]
    public: bool,
}

/// Runs the command; `config` says where the server's own key is.
pub fn run(config: Option<&Path>, command: &Keygen) -> ExitCode {
    let key_type = match key_type(command.key_type.as_deref()) {
        Ok(key_type) => key_type,
        Err(what) => return fail(&what),
    };
    let path = match &command.file {
        Some(path) => path.clone(),
        None => match load(config, &[], geteuid().is_root()) {
            Ok(loaded) => {
                let kind = if key_type == KeyType::Ed25519 {
                    "ed25519"
                } else {
                    "ecdsa"
                };
                loaded
                    .config
                    .global()
                    .host_key_dir
                    .join(format!("ssh_host_{kind}_key"))
            }
            Err(status) => return status,
        },
    };
    let outcome = match (command.fingerprint, command.public) {
        (true, true) => Err("-l and -y are two different questions; ask one".to_owned()),
        (true, false) => fingerprints(&path),
        (false, true) => public_half(&path),
        (false, false) => make(&path, key_type, command.comment.as_deref()),
    };
    match outcome {
        Ok(text) => print(&text),
        Err(what) => fail(&what),
    }
}

fn key_type(name: Option<&str>) -> Result<KeyType, String> {
    match name {
        None => Ok(KeyType::Ed25519),
        Some(name) if name.eq_ignore_ascii_case("rsa") => Err(
            "RSA keys are not made here, since no generator that is known to be safe is built in; \
             use ed25519, or make the key elsewhere: ssh-keygen -t rsa -b 3072"
                .to_owned(),
        ),
        Some(name) => value::one_of(
            name,
            &[
                ("ed25519", KeyType::Ed25519),
                ("ecdsa", KeyType::EcdsaP256),
                ("ecdsa-256", KeyType::EcdsaP256),
                ("ecdsa-384", KeyType::EcdsaP384),
            ],
        )
        .map_err(|what| format!("-t: {what}")),
    }
}

fn make(path: &Path, key_type: KeyType, comment: Option<&str>) -> Result<String, String> {
    let comment = comment.unwrap_or("agent");
    if comment.chars().any(char::is_control) {
        return Err("-C: a comment is one line of text".to_owned());
    }
    let key = PrivateKey::generate(key_type, &Random::system())
        .map_err(|_| "no key could be made: the system's random source failed".to_owned())?;
    host_keys::write_file(path, &key, comment).map_err(|error| {
        let path = path.display();
        match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!(
                    "{path} exists and is not replaced; move it away, or choose another name by -f"
                )
            }
            io::ErrorKind::NotFound => {
                format!("{path} cannot be written: its directory does not exist; make it first")
            }
            _ => format!("{path} cannot be written ({error})"),
        }
    })?;
    Ok(format!(
        "{}: private key\n{}.pub: public key\n{}",
        path.display(),
        path.display(),
        fingerprint_line(key.public(), comment)
    ))
}

fn public_half(path: &Path) -> Result<String, String> {
    let key = host_keys::read_file(path)?;
    Ok(host_keys::public_line(key.public(), ""))
}

/// Of a private key, or of each line of a `.pub` or authorized_keys file.
fn fingerprints(path: &Path) -> Result<String, String> {
    let text = read(path)?;
    if let Ok(key) = PrivateKey::from_file(&text, &Random::system()) {
        return Ok(fingerprint_line(key.public(), "no comment"));
    }
    let mut lines = authorized_keys::Lines::new();
    let mut out = String::new();
    let mut each = |_: u32, line: Result<&[u8], authorized_keys::LineError>| {
        if let Ok(Some(key)) = line.and_then(authorized_keys::parse_line) {
            out.push_str(&key_line_fingerprint(&key));
        }
    };
    lines.push(&text, &mut each);
    lines.finish(&mut each);
    if out.is_empty() {
        return Err(format!(
            "{} holds no key of a type that is served",
            path.display()
        ));
    }
    Ok(out)
}

fn key_line_fingerprint(key: &KeyLine) -> String {
    let comment = if key.comment.is_empty() {
        &b"no comment"[..]
    } else {
        &key.comment
    };
    match PublicKey::from_blob(&key.blob) {
        Ok(public) => fingerprint_line(&public, &escape(comment)),
        Err(_) => String::new(),
    }
}

/// As ssh-keygen -l prints it.
fn fingerprint_line(public: &PublicKey, comment: &str) -> String {
    let kind = public.key_type.short_name();
    format!(
        "{} {} {comment} ({kind})\n",
        public.bits(),
        public.fingerprint()
    )
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, String> {
    let cannot = |error: io::Error| format!("{} cannot be read ({error})", path.display());
    let metadata = fs::metadata(path).map_err(cannot)?;
    if metadata.len() > u64::from(limits::KEY_FILE_MAX_BYTES) {
        return Err(format!("{} is too long for a key file", path.display()));
    }
    fs::read(path).map(zeroize::Zeroizing::new).map_err(cannot)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn keys_are_made_printed_and_never_replaced() {
        let directory = std::env::temp_dir().join(format!("agent-keygen-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for name in ["ed25519", "ECDSA", "ecdsa-384"] {
            let path = directory.join(name);
            let report = make(&path, key_type(Some(name)).unwrap(), Some("a b")).unwrap();
            let public = fs::read_to_string(directory.join(format!("{name}.pub"))).unwrap();
            assert!(
                public.starts_with(public_half(&path).unwrap().trim_end()),
                "{public}"
            );
            let of_public = fingerprints(&directory.join(format!("{name}.pub"))).unwrap();
            assert!(report.ends_with(&of_public), "{report} {of_public}");
            assert_eq!(
                of_public.replace("a b", "no comment"),
                fingerprints(&path).unwrap()
            );
            assert!(
                make(&path, KeyType::Ed25519, None)
                    .unwrap_err()
                    .contains("not replaced")
            );
        }
        assert!(
            make(&directory.join("a/b"), KeyType::Ed25519, None)
                .unwrap_err()
                .contains("directory")
        );
        assert!(make(&directory.join("c"), KeyType::Ed25519, Some("a\nb")).is_err());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn rsa_says_where_to_get_a_key() {
        assert!(
            key_type(Some("rsa"))
                .unwrap_err()
                .contains("ssh-keygen -t rsa")
        );
        assert!(key_type(Some("dsa")).unwrap_err().contains("ed25519"));
    }
}
