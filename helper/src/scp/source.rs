//! `scp -f`: files and directories go to the client.
#![forbid(unsafe_code)]

use alloc::vec;
use alloc::vec::Vec;
use core::mem::MaybeUninit;

use rustix::fd::OwnedFd;
use rustix::fs::{FileType, OFlags, RawDir, Stat};
use rustix::io::{Errno, read, retry_on_intr};

use super::stream::{Ended, PIECE_BYTES, Stream};
use super::{Options, last_component};
use crate::frame::FileOperation;
use crate::path::{file_type, open, stat};
use crate::sftp::long_name::decimal_u64;

/// Directories within directories: each holds a descriptor and a page of names.
const DEPTH_MAX: usize = 200;

/// Sends everything that `paths` name.
pub fn send_all(stream: &mut Stream, options: Options, paths: &[&[u8]]) -> Result<(), Ended> {
    stream.response()?;
    for path in paths {
        send(stream, options, path, 0)?;
    }
    Ok(())
}

fn send(stream: &mut Stream, options: Options, path: &[u8], depth: usize) -> Result<(), Ended> {
    // A FIFO without a writer must not hold everything up.
    let found = stat(path).and_then(|stat| match file_type(&stat) {
        FileType::RegularFile => Ok((open(path, OFlags::RDONLY | OFlags::NONBLOCK)?, stat)),
        FileType::Directory if options.recursive => {
            Ok((open(path, OFlags::RDONLY | OFlags::DIRECTORY)?, stat))
        }
        _ => Err(Errno::INVAL),
    });
    match found {
        Ok((directory, stat)) if file_type(&stat) == FileType::Directory => {
            send_directory(stream, options, (path, depth), &directory, &stat)
        }
        Ok((file, stat)) => {
            stream.tell(FileOperation::Open, path, Ok(()), (0, 0));
            let mut sent = 0;
            let ended = send_file(stream, options, (path, &file), &stat, &mut sent);
            let outcome = ended.as_ref().map_or(Err(Errno::IO), |result| *result);
            stream.tell(FileOperation::Close, path, outcome, (sent, 0));
            ended.map(drop)
        }
        Err(Errno::INVAL) => {
            stream.complain(&[path, b": not a regular file"]);
            Ok(())
        }
        Err(errno) => {
            stream.tell(FileOperation::Open, path, Err(errno), (0, 0));
            stream.complain_of(path, errno);
            Ok(())
        }
    }
}

/// A record of two numbers and a name; true: the client wants it.
fn announce(
    stream: &mut Stream,
    options: Options,
    letter: u8,
    path: &[u8],
    (stat, size): (&Stat, u64),
) -> Result<bool, Ended> {
    if options.preserve {
        let seconds = |time: i64| decimal_u64(u64::try_from(time).unwrap_or(0));
        let (modified, accessed) = (seconds(stat.st_mtime), seconds(stat.st_atime));
        stream.put(&[b"T", modified.as_slice(), b" 0 ", &accessed, b" 0\n"].concat())?;
        if !stream.response()? {
            return Ok(false);
        }
    }
    let digit = |shift: u32| b'0' + u8::try_from(stat.st_mode >> shift & 7).unwrap_or(0);
    let mode = [letter, digit(9), digit(6), digit(3), digit(0), b' '];
    // A line end in a name would end the record.
    let name: Vec<u8> = last_component(path)
        .iter()
        .map(|&byte| if byte == b'\n' { b'?' } else { byte })
        .collect();
    stream.put(&[mode.as_slice(), &decimal_u64(size), b" ", &name, b"\n"].concat())?;
    stream.response()
}

/// Counts what was `sent`; gives how reading went.
fn send_file(
    stream: &mut Stream,
    options: Options,
    (path, file): (&[u8], &OwnedFd),
    stat: &Stat,
    sent: &mut u64,
) -> Result<Result<(), Errno>, Ended> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    if !announce(stream, options, b'C', path, (stat, size))? {
        return Ok(Ok(()));
    }
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = size;
    let mut failure = None;
    while left > 0 {
        let wanted = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        let place = piece.get_mut(..wanted).unwrap_or_default();
        let filled = match failure {
            None => retry_on_intr(|| read(file, &mut *place)),
            Some(_) => Ok(0),
        };
        let filled = match filled {
            Ok(0) | Err(_) => {
                // What was announced must come; what it is worth is said behind it.
                failure.get_or_insert(filled.err().unwrap_or(Errno::IO));
                place.fill(0);
                wanted
            }
            Ok(filled) => filled,
        };
        stream.put(place.get(..filled).unwrap_or_default())?;
        left -= filled as u64;
        if failure.is_none() {
            *sent += filled as u64;
        }
    }
    match failure {
        None => stream.agree()?,
        Some(errno) => stream.complain_of(path, errno),
    }
    stream.response()?;
    Ok(failure.map_or(Ok(()), Err))
}

fn send_directory(
    stream: &mut Stream,
    options: Options,
    (path, depth): (&[u8], usize),
    directory: &OwnedFd,
    stat: &Stat,
) -> Result<(), Ended> {
    if depth >= DEPTH_MAX {
        stream.complain(&[path, b": too many directories within each other"]);
        return Ok(());
    }
    if !announce(stream, options, b'D', path, (stat, 0))? {
        return Ok(());
    }
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(directory, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            send(stream, options, &[path, b"/", name].concat(), depth + 1)?;
        }
    }
    stream.put(b"E\n")?;
    stream.response().map(drop)
}
