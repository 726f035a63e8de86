//! What a server hands to the program that takes its place in an upgrade.
//!
//! The two are different builds, so this is the one interface here that has a version: text in an
//! environment variable, a word and its values on each line, with the numbers of the descriptors that
//! stay open. A line that a newer program adds is passed over by an older one. A program says in its
//! probe that it understands the format; another is not let near the server.
//!
//! ```text
//! format 1
//! image 9                                        this program's own file
//! program /usr/sbin/agent                        where to look for the next
//! listener 4 | handed-over-listener 4            the second: of a service manager
//! debug-socket 6 123456 /run/agent/debug.sock    with the inode of its file
//! host-key 8 /etc/agent/ssh_host_ed25519_key     one that no disk took, as a file of its own
//! pid-file /run/agent.pid, mark /run/agent/monitor.12
//! ```
//!
//! Live connections are not handed over: a keeper has them, with the program that they began with.
//! Penalties, counters, the last refusals and a log level that was asked for are forgotten, as in a
//! restart.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;
use rustix::io::{FdFlags, fcntl_setfd};
use zeroize::Zeroizing;

use crate::host_keys::HostKey;
use crate::inherited::take_descriptor;
use crate::launch::FIRST_DESCRIPTOR;
use crate::limits::{HOST_KEY_FILE_MAX_BYTES, TAKE_OVER_MAX_BYTES};
use crate::ssh::crypto::Random;
use crate::ssh::crypto::private_key::PrivateKey;

/// The variable that holds it.
const VARIABLE: &str = "AGENT_TAKE_OVER";
/// Variables of the service manager about descriptors that are not where they were any more; they
/// name our process id, and the new program has the same.
const OUTDATED: &[&str] = &["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
const FORMAT: &str = "format 1";
/// The line of a successful probe that says: what is written here, I understand.
pub const PROOF: &str = "can take over: format 1";

/// What is handed over, line by line.
#[derive(Debug, Default)]
pub struct HandOver<'a> {
    lines: Vec<Line<'a>>,
}

#[derive(Debug)]
struct Line<'a> {
    word: &'static str,
    descriptor: Option<BorrowedFd<'a>>,
    rest: Vec<u8>,
}

impl<'a> HandOver<'a> {
    /// A descriptor, and what more there is to say of it.
    pub fn descriptor(&mut self, word: &'static str, descriptor: BorrowedFd<'a>, rest: &[u8]) {
        self.lines.push(Line {
            word,
            descriptor: Some(descriptor),
            rest: rest.to_vec(),
        });
    }

    /// A path.
    pub fn path(&mut self, word: &'static str, path: &Path) {
        self.lines.push(Line {
            word,
            descriptor: None,
            rest: path.as_os_str().as_bytes().to_vec(),
        });
    }

    /// All that has to stay open, in order.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'a>> {
        self.lines.iter().filter_map(|it| it.descriptor).collect()
    }

    /// The environment for the new program: ours, and this. `number`: of the descriptor that is the
    /// how-many-th of all.
    ///
    /// # Errors
    ///
    /// What cannot be written down.
    pub fn environment(
        &self,
        number: impl Fn(usize, BorrowedFd<'_>) -> i32,
    ) -> Result<Vec<CString>, String> {
        let mut text = Vec::from(FORMAT);
        let mut index = 0;
        for line in &self.lines {
            if line.rest.iter().any(|byte| matches!(byte, b'\n' | 0)) {
                return Err(format!("a path ({}) with a line break in it", line.word));
            }
            text.push(b'\n');
            text.extend_from_slice(line.word.as_bytes());
            if let Some(descriptor) = line.descriptor {
                text.extend_from_slice(format!(" {}", number(index, descriptor)).as_bytes());
                index += 1;
            }
            if !line.rest.is_empty() {
                text.push(b' ');
                text.extend_from_slice(&line.rest);
            }
        }
        if text.len() > TAKE_OVER_MAX_BYTES {
            return Err("more to hand over than fits".to_owned());
        }
        let entry = [VARIABLE.as_bytes(), b"=", &text].concat();
        let own = std::env::vars_os().filter(|(name, _)| {
            name != VARIABLE && !OUTDATED.iter().any(|outdated| name == outdated)
        });
        let own = own.map(|(name, value)| [name.as_bytes(), b"=", &value.into_vec()].concat());
        Ok(own
            .chain([entry])
            .filter_map(|entry| CString::new(entry).ok())
            .collect())
    }
}

/// What was taken over.
#[derive(Debug, Default)]
pub struct TakenOver {
    /// Our own file, for all roles.
    pub image: Option<OwnedFd>,
    /// Where to look for the next program.
    pub program: Option<PathBuf>,
    /// Sockets that listen; true: a service manager opened it.
    pub listeners: Vec<(OwnedFd, bool)>,
    pub debug_socket: Option<DebugSocketFile>,
    /// Keys that no disk took.
    pub host_keys: Vec<HostKey>,
    /// Files that the program before left, for where ours are others.
    pub pid_file: Option<PathBuf>,
    pub mark: Option<PathBuf>,
}

/// The debug service's socket and its name.
#[derive(Debug)]
pub struct DebugSocketFile {
    pub listener: OwnedFd,
    pub inode: u64,
    pub path: PathBuf,
}

impl TakenOver {
    /// What the environment says that was handed to this process; `None`: nothing was. To be asked
    /// once.
    ///
    /// # Errors
    ///
    /// What cannot be understood, or is not there.
    pub fn from_environment() -> Result<Option<Self>, String> {
        let Some(text) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let mut numbers = BTreeSet::new();
        read(text.as_bytes(), |number| {
            let is_first_use = number >= FIRST_DESCRIPTOR && numbers.insert(number);
            let descriptor = is_first_use.then(|| take_descriptor(number)).flatten()?;
            fcntl_setfd(&descriptor, FdFlags::CLOEXEC).ok()?;
            Some(descriptor)
        })
        .map(Some)
        .map_err(|what| format!("{VARIABLE}: {what}; it is for upgrades only: unset it"))
    }
}

/// `take`: the descriptor of a number, once.
fn read(text: &[u8], mut take: impl FnMut(i32) -> Option<OwnedFd>) -> Result<TakenOver, String> {
    let mut taken = TakenOver::default();
    let mut lines = text.split(|byte| *byte == b'\n');
    if text.len() > TAKE_OVER_MAX_BYTES || lines.next() != Some(FORMAT.as_bytes()) {
        return Err("of another format".to_owned());
    }
    for line in lines {
        let (word, rest) = cut(line);
        let path = || Some(PathBuf::from(OsStr::from_bytes(rest)));
        let mut descriptor = || {
            let (number, rest) = cut(rest);
            let number = std::str::from_utf8(number).ok()?.parse().ok()?;
            Some((take(number)?, rest))
        };
        let absent = || format!("a descriptor of \"{}\" is not there", line.escape_ascii());
        match word {
            b"image" => taken.image = Some(descriptor().ok_or_else(absent)?.0),
            b"program" => taken.program = path(),
            b"pid-file" => taken.pid_file = path(),
            b"mark" => taken.mark = path(),
            b"listener" | b"handed-over-listener" => {
                let of_manager = word == b"handed-over-listener";
                let (socket, _) = descriptor().ok_or_else(absent)?;
                taken.listeners.push((socket, of_manager));
            }
            b"debug-socket" => {
                let (listener, rest) = descriptor().ok_or_else(absent)?;
                let (inode, path) = cut(rest);
                let inode = std::str::from_utf8(inode)
                    .ok()
                    .and_then(|it| it.parse().ok());
                taken.debug_socket = Some(DebugSocketFile {
                    listener,
                    inode: inode.ok_or("a socket without an inode")?,
                    path: PathBuf::from(OsStr::from_bytes(path)),
                });
            }
            b"host-key" => {
                let (file, path) = descriptor().ok_or_else(absent)?;
                let key = host_key(file, OsStr::from_bytes(path).into());
                taken.host_keys.push(key.ok_or("a host key that is none")?);
            }
            // Of a later version.
            _ => {}
        }
    }
    if taken.image.is_none() || taken.listeners.is_empty() {
        return Err("without a program or without a socket that listens".to_owned());
    }
    Ok(taken)
}

/// The first word, and what follows the blank behind it.
fn cut(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| *byte == b' ');
    let (word, rest) = line.split_at(end.unwrap_or(line.len()));
    (word, rest.get(1..).unwrap_or_default())
}

/// A key as a file that has no name and ends with its readers.
pub fn host_key_file(key: &HostKey) -> std::io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL;
    let file = match rustix::fs::memfd_create(c"host-key", flags) {
        // Before 6.3 there is no such flag.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(c"host-key", MemfdFlags::CLOEXEC),
        other => other,
    }?;
    let mut file = File::from(file);
    file.write_all(&key.private.to_file("", &Random::system()))?;
    Ok(file.into())
}

fn host_key(file: OwnedFd, path: PathBuf) -> Option<HostKey> {
    let mut file = File::from(file);
    file.rewind().ok()?;
    let mut text = Zeroizing::new(Vec::with_capacity(HOST_KEY_FILE_MAX_BYTES));
    let limit = u64::try_from(HOST_KEY_FILE_MAX_BYTES).ok()?;
    file.take(limit).read_to_end(&mut text).ok()?;
    Some(HostKey {
        private: PrivateKey::from_file(&text, &Random::system()).ok()?,
        path,
        persisted: false,
        certificate: None,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ssh::crypto::public_key::KeyType;
    use std::os::fd::{AsFd as _, AsRawFd as _};

    fn null() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    /// The variable's value, for descriptors numbered from 3 on.
    fn text_of(hand_over: &HandOver<'_>) -> Vec<u8> {
        let number = |index, _: BorrowedFd<'_>| 3 + i32::try_from(index).unwrap();
        let environment = hand_over.environment(number).unwrap();
        let prefix = format!("{VARIABLE}=");
        let mut own = environment
            .iter()
            .filter_map(|entry| entry.as_bytes().strip_prefix(prefix.as_bytes()));
        let text = own.next().unwrap().to_vec();
        assert!(own.next().is_none());
        text
    }

    #[test]
    fn what_is_handed_over_is_taken() {
        let private = PrivateKey::generate(KeyType::Ed25519, &Random::system()).unwrap();
        let key = HostKey {
            private,
            path: "/etc/a b/key".into(),
            persisted: false,
            certificate: None,
        };
        let descriptors = [null(), null(), null(), null(), host_key_file(&key).unwrap()];
        let mut hand_over = HandOver::default();
        hand_over.descriptor("image", descriptors[0].as_fd(), b"");
        hand_over.path("program", Path::new("/usr/sbin/agent"));
        hand_over.descriptor("listener", descriptors[1].as_fd(), b"");
        hand_over.descriptor("handed-over-listener", descriptors[2].as_fd(), b"");
        hand_over.descriptor("debug-socket", descriptors[3].as_fd(), b"77 /run/a b/x");
        hand_over.descriptor("host-key", descriptors[4].as_fd(), b"/etc/a b/key");
        hand_over.path("pid-file", Path::new("/run/agent.pid"));
        hand_over.path("of-a-later-version", Path::new("x"));
        assert_eq!(hand_over.descriptors().len(), 5);
        let text = text_of(&hand_over);
        // Twice: the probe reads the same files before the program does.
        for _ in 0..2 {
            let taken = read(&text, |number| {
                let index = usize::try_from(number - 3).unwrap();
                descriptors[index].try_clone().ok()
            })
            .unwrap();
            assert_eq!(taken.program, Some("/usr/sbin/agent".into()));
            assert_eq!(taken.pid_file, Some("/run/agent.pid".into()));
            assert_eq!(taken.mark, None);
            let listeners: Vec<bool> = taken.listeners.iter().map(|(_, of)| *of).collect();
            assert_eq!(listeners, [false, true]);
            let socket = taken.debug_socket.unwrap();
            assert_eq!((socket.inode, socket.path), (77, "/run/a b/x".into()));
            assert_eq!(taken.host_keys.len(), 1);
            assert_eq!(taken.host_keys[0].private.public(), key.private.public());
            assert_eq!(taken.host_keys[0].path, key.path);
        }
    }

    #[test]
    fn the_environment_is_ours_without_what_is_outdated() {
        let mut hand_over = HandOver::default();
        hand_over.path("program", Path::new("/a\nb"));
        assert!(hand_over.environment(|_, _| 3).is_err());
        let hand_over = HandOver::default();
        let environment = hand_over
            .environment(|_, descriptor| descriptor.as_raw_fd())
            .unwrap();
        let has = |start: &str| {
            environment
                .iter()
                .any(|entry| entry.as_bytes().starts_with(start.as_bytes()))
        };
        assert!(has("PATH=") && !has("LISTEN_"));
    }

    #[test]
    fn nonsense_is_refused() {
        let good = "format 1\nimage 3\nlistener 4";
        let take = |_| Some(null());
        assert!(read(good.as_bytes(), take).is_ok());
        for bad in [
            "",
            "format 2\nimage 3\nlistener 4",
            "format 1",
            "format 1\nimage 3",
            "format 1\nlistener 3",
            "format 1\nimage x\nlistener 4",
            "format 1\nimage\nlistener 4",
            "format 1\nimage 3\nlistener 4\ndebug-socket 5",
            "format 1\nimage 3\nlistener 4\nhost-key 5 /dev/null",
        ] {
            assert!(read(bad.as_bytes(), take).is_err(), "{bad}");
        }
        assert!(read(good.as_bytes(), |_| None).is_err());
        let long = format!("{good}\nx {}", "y".repeat(TAKE_OVER_MAX_BYTES));
        assert!(read(long.as_bytes(), take).is_err());
    }
}
