//! `scp -t`: files and directories come from the client.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::Options;
use super::stream::{Ended, PIECE_BYTES, Stream};
use crate::frame::FileOperation;
use crate::path::{file_type, stat};
use crate::sftp::transfer::write;
use crate::sys;
use crate::text::{c_string, parse_decimal, split};

/// Directories within directories.
const DEPTH_MAX: usize = 200;

/// A `C` or `D` record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Permission bits, setuid and its kin included.
    pub mode: u32,
    /// Bytes of the file.
    pub size: u64,
    /// What to call it; one component.
    pub name: Vec<u8>,
}

/// Receives everything into `target`.
pub fn receive_all(stream: &mut Stream, options: Options, target: &[u8]) -> Result<(), Ended> {
    if options.into_directory && !is_directory(target) {
        stream.complain_of(target, Errno::NOTDIR);
        return Err(Ended);
    }
    receive(stream, options, target, 0)
}

fn is_directory(path: &[u8]) -> bool {
    stat(path).is_ok_and(|stat| file_type(&stat) == FileType::Directory)
}

/// Receives until the end of the input (at depth 0) or of the directory.
fn receive(
    stream: &mut Stream,
    options: Options,
    target: &[u8],
    depth: usize,
) -> Result<(), Ended> {
    let into = is_directory(target);
    let mut times = None;
    stream.agree()?;
    loop {
        let letter = match stream.byte() {
            Ok(letter) => letter,
            Err(_) if depth == 0 => return Ok(()),
            Err(ended) => return Err(ended),
        };
        let line = stream.line()?;
        match letter {
            // The client could not send something; it told its user.
            1 => stream.note_complaint(),
            2 => {
                stream.note_complaint();
                return Err(Ended);
            }
            b'E' if depth > 0 => return stream.agree(),
            b'T' => {
                times = Some(parse_times(&line).ok_or(Ended).inspect_err(|_| {
                    stream.complain(&[b"protocol error: bad times"]);
                })?);
                stream.agree()?;
            }
            b'C' | b'D' => {
                let Some(record) = parse_record(&line) else {
                    stream.complain(&[b"protocol error: unexpected filename or mode"]);
                    return Err(Ended);
                };
                let path = if into {
                    [target, b"/", &record.name].concat()
                } else {
                    target.to_vec()
                };
                let times = times.take();
                if letter == b'C' {
                    receive_file(stream, options, &path, &record, times)?;
                } else {
                    receive_directory(stream, options, (&path, depth), &record, times)?;
                }
            }
            _ => {
                stream.complain(&[b"protocol error: expected control record"]);
                return Err(Ended);
            }
        }
    }
}

/// Modification and access, each with microseconds that nobody sends.
pub fn parse_times(line: &[u8]) -> Option<Timestamps> {
    let mut numbers = split(line, b' ').map(parse_decimal);
    let mut seconds = || {
        let seconds = i64::try_from(numbers.next()??).ok()?;
        numbers.next()??;
        Some(Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        })
    };
    let (modified, accessed) = (seconds()?, seconds()?);
    Some(Timestamps {
        last_access: accessed,
        last_modification: modified,
    })
}

/// `MODE SIZE NAME`. A name is one component and leads nowhere else.
pub fn parse_record(line: &[u8]) -> Option<Record> {
    let mut fields = line.splitn(3, |&byte| byte == b' ');
    let (mode, size, name) = (fields.next()?, fields.next()?, fields.next()?);
    let mut bits = 0;
    for &byte in mode {
        let digit = byte.wrapping_sub(b'0');
        bits = bits * 8 + u32::from(digit);
        if digit > 7 || bits > 0o7777 {
            return None;
        }
    }
    let is_name = !name.is_empty()
        && name != b"."
        && name != b".."
        && !name.contains(&b'/')
        && !name.contains(&0);
    (!mode.is_empty() && is_name).then_some(())?;
    Some(Record {
        mode: bits,
        size: parse_size(size)?,
        name: name.to_vec(),
    })
}

/// Sizes have 64 bits on boxes with 32 too.
fn parse_size(text: &[u8]) -> Option<u64> {
    let mut size: u64 = 0;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        size = size.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    (!text.is_empty()).then_some(size)
}

/// Without -p nobody gets setuid or setgid bits by a copy.
fn mode_bits(options: Options, record: &Record) -> u32 {
    if options.preserve {
        record.mode
    } else {
        record.mode & 0o777
    }
}

fn set_times(path: &[u8], times: Option<Timestamps>) -> Result<(), Errno> {
    match times {
        Some(times) => rustix::fs::utimensat(CWD, &*c_string(path)?, &times, AtFlags::empty()),
        None => Ok(()),
    }
}

fn receive_directory(
    stream: &mut Stream,
    options: Options,
    (path, depth): (&[u8], usize),
    record: &Record,
    times: Option<Timestamps>,
) -> Result<(), Ended> {
    if !options.recursive {
        stream.complain(&[b"received directory without -r"]);
        return Err(Ended);
    }
    if depth >= DEPTH_MAX {
        stream.complain(&[path, b": too many directories within each other"]);
        return Err(Ended);
    }
    let bits = mode_bits(options, record);
    let existed = is_directory(path);
    let made = c_string(path).and_then(|path| match existed {
        true => Ok(()),
        false => rustix::fs::mkdir(&*path, Mode::from_raw_mode(bits | 0o700)),
    });
    if !existed {
        stream.tell(FileOperation::MakeDirectory, path, made, (0, 0));
    }
    if let Err(errno) = made {
        stream.complain_of(path, errno);
        return Err(Ended);
    }
    receive(stream, options, path, depth + 1)?;
    let set = set_times(path, times).and_then(|()| match existed && !options.preserve {
        true => Ok(()),
        false => rustix::fs::chmod(
            &*c_string(path)?,
            Mode::from_raw_mode(masked(options, bits)),
        ),
    });
    if let Err(errno) = set {
        stream.complain_of(path, errno);
    }
    Ok(())
}

/// What chmod(2) must set where creation would have obeyed the umask.
fn masked(options: Options, bits: u32) -> u32 {
    if options.preserve {
        return bits;
    }
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    bits & !mask.as_raw_mode()
}

fn receive_file(
    stream: &mut Stream,
    options: Options,
    path: &[u8],
    record: &Record,
    times: Option<Timestamps>,
) -> Result<(), Ended> {
    let bits = mode_bits(options, record);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOCTTY;
    let existed = stat(path).is_ok();
    let opened = c_string(path).and_then(|path| {
        let mode = Mode::from_raw_mode(bits | 0o200);
        rustix::fs::open(&*path, flags | OFlags::NONBLOCK | OFlags::LARGEFILE, mode)
    });
    let outcome = opened.as_ref().map(drop).map_err(|errno| *errno);
    stream.tell(FileOperation::Open, path, outcome, (0, 0));
    let file = match opened {
        Ok(file) => file,
        Err(errno) => {
            stream.complain_of(path, errno);
            return Ok(());
        }
    };
    stream.agree()?;
    let (written, copied) = copy(stream, &file, record.size);
    let outcome = copied.as_ref().map_or(Err(Errno::IO), |result| *result);
    stream.tell(FileOperation::Close, path, outcome, (0, written));
    let mut result = copied?;
    let is_regular =
        rustix::fs::fstat(&file).is_ok_and(|stat| file_type(&stat) == FileType::RegularFile);
    if is_regular {
        result = result.and(rustix::fs::ftruncate(&file, record.size));
    }
    if options.preserve || (!existed && bits & 0o200 == 0) {
        let mode = Mode::from_raw_mode(masked(options, bits));
        result = result.and(rustix::fs::fchmod(&file, mode));
    }
    result = result.and(sys::close(file));
    let sent_well = stream.response()?;
    if sent_well {
        result = result.and(set_times(path, times));
    }
    if options.preserve {
        stream.tell(FileOperation::SetAttributes, path, result, (0, 0));
    }
    match result {
        Ok(()) => stream.agree(),
        Err(errno) => {
            stream.complain_of(path, errno);
            Ok(())
        }
    }
}

/// Takes all that was announced, also when the disk is full; gives how much was written, and the first
/// error.
fn copy(stream: &mut Stream, file: &OwnedFd, size: u64) -> (u64, Result<Result<(), Errno>, Ended>) {
    let mut result = Ok(());
    let (mut done, mut written) = (0, 0);
    while done < size {
        let left = usize::try_from(size - done).unwrap_or(PIECE_BYTES);
        let piece = match stream.take(left.min(PIECE_BYTES)) {
            Ok(piece) => piece,
            Err(ended) => return (written, Err(ended)),
        };
        if result.is_ok() {
            let more;
            (more, result) = write(file, piece, done);
            written += more as u64;
        }
        done += piece.len() as u64;
    }
    (written, Ok(result))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_name_one_file_here_and_no_other() {
        let record = parse_record(b"0644 5000000000 a file").expect("a record");
        assert_eq!((record.mode, record.size), (0o644, 5_000_000_000));
        assert_eq!(record.name, b"a file");
        for line in [
            "0644 1 ..",
            "0644 1 .",
            "0644 1 a/b",
            "0644 1 /etc/x",
            "0644 1 ",
            "0644 1",
            "0648 1 a",
            "77777 1 a",
            " 1 a",
            "0644 -1 a",
            "0644 99999999999999999999 a",
            "0644 x a",
        ] {
            assert!(parse_record(line.as_bytes()).is_none(), "{line}");
        }
    }

    #[test]
    fn times_have_four_numbers() {
        let times = parse_times(b"1100000000 0 1000000000 0").expect("times");
        assert_eq!(times.last_modification.tv_sec, 1_100_000_000);
        assert_eq!(times.last_access.tv_sec, 1_000_000_000);
        assert!(parse_times(b"1 0 2").is_none() && parse_times(b"a 0 1 0").is_none());
    }

    #[test]
    fn setuid_bits_need_preservation() {
        let record = parse_record(b"6755 0 a").expect("a record");
        assert_eq!(mode_bits(Options::default(), &record), 0o755);
        let preserve = Options {
            preserve: true,
            ..Options::default()
        };
        assert_eq!(mode_bits(preserve, &record), 0o6755);
    }
}
