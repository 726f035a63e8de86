//! Running AuthorizedKeysCommand and AuthorizedPrincipalsCommand: a forked child that becomes the
//! command's user, runs it, and passes its output on as [`KeyRecord`]s, as if it were a file.
//!
//! Output counts only if the command succeeds; the last record says so. The command sees no
//! descriptor of ours, nothing of our environment, and is a process group of its own, so that the
//! helper can end it with all it started. Source: sshd_config(5) AuthorizedKeysCommand.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::setpgid;
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::frame::{Identity, KeyRecord};
use crate::identity::take_on;
use crate::keys::{Answer, CHUNK_BYTES, STATUS_IDENTITY};
use crate::path::{canonical, check_strict_modes, file_type, open, stat};
use crate::sys::{self, Forked};
use crate::text::{c_strings, decimal, printable};
use crate::wire::Bytes;

/// PATH of the command, as sshd's.
const PATH: &[u8] = b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exit status where the command cannot be executed, as of shells.
const STATUS_NOT_EXECUTED: i32 = 127;

/// What to run, and as whom.
#[derive(Debug)]
pub struct Request<'a> {
    /// Whose rights.
    pub identity: &'a Identity,
    /// Become `identity` first.
    pub change_identity: bool,
    /// Absolute path, then arguments.
    pub arguments: &'a [Bytes],
    /// Bytes of output at most.
    pub limit_bytes: u32,
}

/// The one who runs the command, in a process of its own; never returns.
pub fn run_as_user(request: &Request<'_>, pipe: OwnedFd) -> ! {
    sys::reset_signals();
    let _ = setpgid(None, None);
    let Ok([pipe]) = sys::keep_only([pipe]) else {
        sys::exit(STATUS_IDENTITY)
    };
    if take_on(request.identity, request.change_identity).is_err() {
        sys::exit(STATUS_IDENTITY);
    }
    let mut answer = Answer::new(pipe);
    let sent = match run(request, &mut answer) {
        Ok(()) => answer.send(record(KeyRecord::COMPLETE, 0), &[]),
        Err(Failure::Monitor(errno)) => Err(errno),
        Err(Failure::Command(sentence)) => {
            let length = u32::try_from(sentence.len()).unwrap_or(0);
            answer.send(record(KeyRecord::REFUSED, length), &sentence)
        }
    };
    // Nobody listens any more when this fails: the monitor gave up.
    let _ = sent
        .and_then(|()| answer.send(record(KeyRecord::END, 0), &[]))
        .and_then(|()| answer.flush());
    sys::exit(0)
}

enum Failure {
    /// The monitor listens no more.
    Monitor(Errno),
    /// A sentence about the command.
    Command(Vec<u8>),
}

fn record(status: u32, len: u32) -> KeyRecord {
    KeyRecord {
        file: 0,
        status,
        len,
    }
}

fn run(request: &Request<'_>, answer: &mut Answer) -> Result<(), Failure> {
    let path = request.arguments.first().map_or(&b""[..], |path| path);
    let failed = |why: &[u8]| Failure::Command([&printable(path), b" ".as_slice(), why].concat());
    check_path(request, path).map_err(|why| failed(&why))?;
    let (output, input) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|_| failed(b"has no pipe to write to"))?;
    let child = match sys::fork() {
        Ok(Forked::Child) => become_command(request, &input),
        Ok(Forked::Parent(child)) => child,
        Err(_) => return Err(failed(b"could not be started")),
    };
    drop(input);
    let passed_on = pass_on(request, &output, answer);
    // What it writes past the limit meets a closed pipe.
    drop(output);
    let Some(status) = sys::await_child(child) else {
        return Err(failed(b"was lost"));
    };
    passed_on?;
    match status.exit_status() {
        Some(0) => Ok(()),
        Some(status) => {
            let digits = decimal(status.unsigned_abs());
            Err(failed(&[b"failed, status ", digits.as_slice()].concat()))
        }
        None => Err(failed(b"was ended by a signal")),
    }
}

/// A command that others than root can replace would let them in as anybody.
fn check_path(request: &Request<'_>, path: &[u8]) -> Result<(), Vec<u8>> {
    let found = canonical(path).and_then(|real| Ok((stat(&real)?, real)));
    let (found, real) = found.map_err(|_| b"does not exist or is not reachable".to_vec())?;
    if file_type(&found) != FileType::RegularFile {
        return Err(b"is not a regular file".to_vec());
    }
    // Without root there is one user, whose files these are.
    let owner = if request.change_identity {
        0
    } else {
        request.identity.uid
    };
    check_strict_modes(&found, &real, owner, b"/")
        .map_err(|why| [b"is not safe: ".as_slice(), &why].concat())
}

/// Sends the output as it comes, up to the limit.
fn pass_on(request: &Request<'_>, output: &OwnedFd, answer: &mut Answer) -> Result<(), Failure> {
    let mut left = usize::try_from(request.limit_bytes).unwrap_or(usize::MAX);
    let mut buffer = [0; CHUNK_BYTES];
    loop {
        let filled = match read(output, buffer.as_mut_slice()) {
            Ok(0) => return Ok(()),
            Ok(filled) => filled,
            Err(Errno::INTR) => continue,
            Err(_) => return Err(Failure::Command(b"its output could not be read".to_vec())),
        };
        if filled > left {
            return Err(Failure::Command(b"the command writes too much".to_vec()));
        }
        left -= filled;
        let piece = buffer.get(..filled).unwrap_or_default();
        let length = u32::try_from(filled).unwrap_or(0);
        answer
            .send(record(KeyRecord::CHUNK, length), piece)
            .map_err(Failure::Monitor)?;
    }
}

fn become_command(request: &Request<'_>, output: &OwnedFd) -> ! {
    let connected = open(b"/dev/null", OFlags::RDWR).and_then(|null| {
        dup2_stdin(&null)?;
        dup2_stdout(output)?;
        dup2_stderr(&null)
    });
    let words: Vec<&[u8]> = request.arguments.iter().map(|word| &**word).collect();
    let arguments = c_strings(&words);
    let identity = request.identity;
    let environment = c_strings(&[
        PATH,
        &[b"USER=", &*identity.name].concat(),
        &[b"LOGNAME=", &*identity.name].concat(),
        &[b"HOME=", &*identity.home].concat(),
    ]);
    if let (Ok(()), Ok(arguments), Ok(environment)) = (connected, arguments, environment)
        && let Some(path) = arguments.first()
    {
        sys::close_from(3);
        sys::execute(path, &arguments, &environment);
    }
    sys::exit(STATUS_NOT_EXECUTED)
}
