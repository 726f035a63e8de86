//! Reading a user's key files with the user's rights: a forked child that becomes the user, writes
//! what it finds to a pipe as [`KeyRecord`]s, and exits. The helper itself stays root meanwhile.
//!
//! Regular files only and no more than the limit of each: a FIFO, a device or an endless file in
//! somebody's home must not hold up or fill the server. Source: sshd_config(5) AuthorizedKeysFile.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::{Errno, read};

use crate::file_system::is_local;
use crate::frame::{Identity, KeyRecord};
use crate::identity::take_on;
use crate::output::write_all;
use crate::path::{canonical, check_strict_modes, file_type, open, stat};
use crate::sys;
use crate::text::printable;

/// Bytes read at once.
pub(crate) const CHUNK_BYTES: usize = 16 * 1024;
/// Exit status of a reader that could not become the user.
pub(crate) const STATUS_IDENTITY: i32 = 1;

/// Exit status of one that found the user's home directory on a local file system: who works there
/// waits for nobody.
pub(crate) const STATUS_HOME_IS_LOCAL: i32 = 2;

/// What to read, and as whom.
#[derive(Debug)]
pub struct Request<'a> {
    /// Whose rights.
    pub identity: &'a Identity,
    /// Become `identity` first.
    pub change_identity: bool,
    /// Absolute paths.
    pub files: &'a [crate::wire::Bytes],
    /// Check owners and modes.
    pub strict_modes: bool,
    /// Bytes of one file at most.
    pub limit_bytes: u32,
}

/// The reader, in a process of its own; never returns.
pub fn read_as_user(request: &Request<'_>, pipe: OwnedFd) -> ! {
    sys::reset_signals();
    let Ok([pipe]) = sys::keep_only([pipe]) else {
        sys::exit(STATUS_IDENTITY)
    };
    if take_on(request.identity, request.change_identity).is_err() {
        sys::exit(STATUS_IDENTITY);
    }
    let mut answer = Answer::new(pipe);
    // Nobody listens any more when this fails: the monitor gave up.
    let _ = send_files(request, &mut answer).and_then(|()| answer.flush());
    sys::exit(if answer.home_is_local {
        STATUS_HOME_IS_LOCAL
    } else {
        0
    })
}

fn send_files(request: &Request<'_>, answer: &mut Answer) -> Result<(), Errno> {
    for (index, path) in (0..).zip(request.files) {
        send_file(request, index, path, answer)?;
    }
    answer.send(
        KeyRecord {
            file: 0,
            status: KeyRecord::END,
            len: 0,
        },
        &[],
    )
}

/// Why a file is not read.
enum Refusal {
    Missing,
    Failed(Errno),
    Refused(Vec<u8>),
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            errno => Self::Failed(errno),
        }
    }
}

fn send_file(
    request: &Request<'_>,
    index: u32,
    path: &[u8],
    answer: &mut Answer,
) -> Result<(), Errno> {
    let record = |status, len| KeyRecord {
        file: index,
        status,
        len,
    };
    let (status, detail) = match open_key_file(request, path) {
        Ok(file) => {
            answer.home_is_local |= path.starts_with(&request.identity.home) && is_local(&file);
            return send_content(request, index, &file, answer);
        }
        Err(Refusal::Missing) => (KeyRecord::MISSING, Vec::new()),
        Err(Refusal::Failed(errno)) => (
            KeyRecord::FAILED,
            errno.raw_os_error().to_le_bytes().to_vec(),
        ),
        Err(Refusal::Refused(sentence)) => (KeyRecord::REFUSED, sentence),
    };
    answer.send(
        record(status, u32::try_from(detail.len()).unwrap_or(0)),
        &detail,
    )
}

fn open_key_file(request: &Request<'_>, path: &[u8]) -> Result<OwnedFd, Refusal> {
    let real = canonical(path)?;
    let not_regular =
        || Refusal::Refused([&printable(&real), b" is not a regular file".as_slice()].concat());
    // Asked before opening: the mere open of some devices does something.
    if file_type(&stat(&real)?) != FileType::RegularFile {
        return Err(not_regular());
    }
    // Nonblocking, should it have become a FIFO in between.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file = open(&real, flags)?;
    let opened = fstat(&file)?;
    if file_type(&opened) != FileType::RegularFile {
        return Err(not_regular());
    }
    if request.strict_modes {
        check_strict_modes(&opened, &real, request.identity.uid, &request.identity.home)
            .map_err(Refusal::Refused)?;
    }
    Ok(file)
}

fn send_content(
    request: &Request<'_>,
    index: u32,
    file: &OwnedFd,
    answer: &mut Answer,
) -> Result<(), Errno> {
    let record = |status, len| KeyRecord {
        file: index,
        status,
        len,
    };
    let mut left = usize::try_from(request.limit_bytes).unwrap_or(usize::MAX);
    let mut buffer = [0; CHUNK_BYTES];
    loop {
        // One byte more than allowed tells whether there is more.
        let wanted = left.saturating_add(1).min(CHUNK_BYTES);
        let filled = match read(file, buffer.get_mut(..wanted).unwrap_or_default()) {
            Ok(0) => return answer.send(record(KeyRecord::COMPLETE, 0), &[]),
            Ok(filled) => filled,
            Err(Errno::INTR) => continue,
            Err(errno) => {
                return answer.send(
                    record(KeyRecord::FAILED, 4),
                    &errno.raw_os_error().to_le_bytes(),
                );
            }
        };
        let piece = buffer.get(..filled.min(left)).unwrap_or_default();
        if !piece.is_empty() {
            answer.send(
                record(KeyRecord::CHUNK, u32::try_from(piece.len()).unwrap_or(0)),
                piece,
            )?;
        }
        if filled > left {
            return answer.send(record(KeyRecord::TRUNCATED, 0), &[]);
        }
        left -= filled;
    }
}

/// Records on their way to the monitor: few writes, so that it wakes up once for most users.
pub(crate) struct Answer {
    pipe: OwnedFd,
    waiting: Vec<u8>,
    home_is_local: bool,
}

/// What waits at most before it is written.
const WAITING_BYTES: usize = 2 * CHUNK_BYTES;

impl Answer {
    pub(crate) fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe,
            waiting: Vec::new(),
            home_is_local: false,
        }
    }

    pub(crate) fn send(&mut self, record: KeyRecord, content: &[u8]) -> Result<(), Errno> {
        for word in [record.file, record.status, record.len] {
            self.waiting.extend_from_slice(&word.to_le_bytes());
        }
        self.waiting.extend_from_slice(content);
        if self.waiting.len() < WAITING_BYTES {
            return Ok(());
        }
        self.flush()
    }

    /// Writes everything.
    pub(crate) fn flush(&mut self) -> Result<(), Errno> {
        write_all(self.pipe.as_fd(), &self.waiting)?;
        self.waiting.clear();
        Ok(())
    }
}
