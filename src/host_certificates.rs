//! Certificates of the host's keys (HostCertificate): found, checked, given to their keys.
//!
//! One that cannot be used is a warning, as with sshd: its key is offered by itself, which clients
//! that trust the authority alone refuse. So nothing is granted that was not meant.

use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::host_keys::HostKey;
use crate::limits::HOST_CERTIFICATE_MAX_BYTES;
use crate::ssh::crypto::base64;
use crate::ssh::crypto::certificate::{Certificate, Kind};

/// Gives each key the certificate that is for it; says in the log which files are of no use.
pub fn attach<'a>(keys: impl Iterator<Item = &'a mut HostKey>, files: &[PathBuf]) {
    let mut keys: Vec<&mut HostKey> = keys.collect();
    for path in files {
        if let Err(why) = attach_one(&mut keys, path) {
            log::warn!("host certificate {}: {why}", path.display());
        }
    }
}

fn attach_one(keys: &mut [&mut HostKey], path: &Path) -> Result<(), &'static str> {
    let text = read(path).map_err(|_| "it cannot be read; it must be a regular file")?;
    let certificate = parse(&text).ok_or(
        "it holds no certificate that is served here; HostCertificate names a -cert.pub file",
    )?;
    if certificate.verify().is_err() {
        return Err("its authority's signature is wrong; have it signed anew");
    }
    if certificate.kind != Kind::Host {
        return Err("it is a user's certificate; have it signed with ssh-keygen -h");
    }
    let key = keys
        .iter_mut()
        .find(|key| *key.private.public() == certificate.key)
        .ok_or("none of the host keys is the one that it is for; name that key with HostKey")?;
    key.certificate = Some(certificate.blob);
    Ok(())
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        // A FIFO in its place must not hold the start up.
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(HOST_CERTIFICATE_MAX_BYTES)
        .read_to_end(&mut text)?;
    Ok(text)
}

/// The first line that is not a comment: type, base64, comment.
fn parse(text: &[u8]) -> Option<Certificate> {
    let line = text
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty() && !line.starts_with(b"#"))?;
    let encoded = line
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty())
        .nth(1)?;
    Certificate::parse(&base64::decode(encoded)?).ok()
}
