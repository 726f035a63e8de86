//! SSH_FXP_READDIR: entries with their attributes and long names, a bounded number at a time.
//!
//! Nothing is kept between two requests but the directory's own position. Source: getdents64(2),
//! draft-ietf-secsh-filexfer-02 section 6.7.
#![forbid(unsafe_code)]

use core::mem::MaybeUninit;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, RawDir, SeekFrom, Stat};
use rustix::io::Errno;

use super::attributes::Attributes;
use super::long_name::LongNames;
use super::packet::Replies;
use super::status::Status;

/// SSH_FXP_NAME.
const NAME: u8 = 104;
/// Entries in one reply, as OpenSSH. A name has 255 bytes at most, so a reply has 64 KiB at most.
const ENTRIES_MAX: usize = 100;
/// What the kernel gives at once: about as many entries as fit one reply.
const BUFFER_BYTES: usize = 4096;

/// Answers with the next entries of `directory`, or with the end.
pub fn reply_with_entries(
    directory: &OwnedFd,
    id: u32,
    names: &mut LongNames<'_>,
    replies: &mut Replies,
) {
    replies.begin(NAME, id);
    let count_at = replies.position();
    replies.u32(0);
    match put_entries(directory, names, replies) {
        Ok(0) => {
            replies.abandon();
            Status::EndOfFile.reply(id, replies);
        }
        Ok(count) => {
            replies.patch(count_at, count);
            replies.end();
        }
        Err(errno) => {
            replies.abandon();
            Status::from(errno).reply(id, replies);
        }
    }
}

fn put_entries(
    directory: &OwnedFd,
    names: &mut LongNames<'_>,
    replies: &mut Replies,
) -> Result<usize, Errno> {
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut count = 0;
    let mut position = None;
    while count < ENTRIES_MAX {
        let entry = match entries.next() {
            None => return Ok(count),
            Some(Ok(entry)) => entry,
            // A directory that was removed underneath has no entries any more.
            Some(Err(Errno::NOENT)) => return Ok(count),
            // What was read so far is told; the next request meets the error again.
            Some(Err(_)) if count > 0 => return Ok(count),
            Some(Err(errno)) => return Err(errno),
        };
        position = Some(entry.next_entry_cookie());
        // Gone since it was listed: not told, as OpenSSH.
        let name = entry.file_name();
        if let Ok(stat) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            put_entry(name.to_bytes(), &stat, names, replies);
            count += 1;
        }
    }
    // What the kernel gave beyond that is asked for again.
    if !entries.is_buffer_empty()
        && let Some(position) = position
    {
        rustix::fs::seek(directory, SeekFrom::Start(position))?;
    }
    Ok(count)
}

fn put_entry(name: &[u8], stat: &Stat, names: &mut LongNames<'_>, replies: &mut Replies) {
    replies.string(name);
    replies.string(&names.line(name, stat));
    Attributes::of(stat).encode(replies);
}

/// Answers with one name and no attributes: realpath, readlink, expand-path, home-directory.
pub fn reply_with_name(name: &[u8], id: u32, replies: &mut Replies) {
    replies.begin(NAME, id);
    replies.u32(1);
    replies.string(name);
    replies.string(name);
    Attributes::default().encode(replies);
    replies.end();
}
