//! Answers to questions: attributes, names, limits, paths. Nothing here changes anything.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;
use rustix::process::getcwd;

use super::attributes::Attributes;
use super::directory::reply_with_name;
use super::handles;
use super::packet::Fields;
use super::server::{DATA_MAX_BYTES, PACKET_MAX_BYTES, Server};
use crate::path::resolve;

const ATTRIBUTES: u8 = 105;
const EXTENDED_REPLY: u8 = 201;
/// Names in one answer to users-groups-by-id, in bytes: what comes beyond is told as unknown.
const NAMES_MAX_BYTES: usize = 128 * 1024;

impl Server {
    pub(super) fn attributes(&mut self, id: u32, found: Result<rustix::fs::Stat, Errno>) {
        match found {
            Ok(stat) => {
                self.replies.begin(ATTRIBUTES, id);
                Attributes::of(&stat).encode(&mut self.replies);
                self.replies.end();
            }
            Err(errno) => self.status(id, errno.into()),
        }
    }

    pub(super) fn name(&mut self, id: u32, found: Result<Vec<u8>, Errno>) {
        match found {
            Ok(name) => reply_with_name(&name, id, &mut self.replies),
            Err(errno) => self.status(id, errno.into()),
        }
    }

    pub(super) fn file_system(&mut self, id: u32, found: Result<rustix::fs::StatVfs, Errno>) {
        let found = match found {
            Ok(found) => found,
            Err(errno) => return self.status(id, errno.into()),
        };
        let flags = found.f_flag & (StatVfsMountFlags::RDONLY | StatVfsMountFlags::NOSUID);
        self.replies.begin(EXTENDED_REPLY, id);
        for number in [
            found.f_bsize,
            found.f_frsize,
            found.f_blocks,
            found.f_bfree,
            found.f_bavail,
            found.f_files,
            found.f_ffree,
            found.f_favail,
            found.f_fsid,
            flags.bits(),
            found.f_namemax,
        ] {
            self.replies.u64(number);
        }
        self.replies.end();
    }

    pub(super) fn limits(&mut self, id: u32) {
        self.replies.begin(EXTENDED_REPLY, id);
        for number in [
            PACKET_MAX_BYTES as u64,
            DATA_MAX_BYTES.into(),
            DATA_MAX_BYTES.into(),
            handles::limit(),
        ] {
            self.replies.u64(number);
        }
        self.replies.end();
    }

    pub(super) fn names_of_ids(&mut self, id: u32, users: &[u8], groups: &[u8]) {
        self.replies.begin(EXTENDED_REPLY, id);
        for (ids, names) in [(users, &mut self.users), (groups, &mut self.groups)] {
            let start = self.replies.position();
            self.replies.u32(0);
            let mut ids = Fields::new(ids);
            while let Ok(id) = ids.u32() {
                let name = if self.replies.packet_bytes() < NAMES_MAX_BYTES {
                    names.name(id)
                } else {
                    None
                };
                self.replies.string(name.unwrap_or_default());
            }
            let len = self.replies.position().saturating_sub(start + 4);
            self.replies.patch(start, len);
        }
        self.replies.end();
    }

    /// The home directory of `user`; an empty name is the user's own.
    pub(super) fn home_of(&mut self, user: &[u8]) -> Option<Vec<u8>> {
        if user.is_empty() || user == self.account.name {
            return Some(self.account.home.clone());
        }
        self.users.home(user).map(<[u8]>::to_vec)
    }

    /// `~`, `~/…` are the starting directory and what is in it, `~user` that user's home.
    pub(super) fn expand(&mut self, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let Some(rest) = path.strip_prefix(b"~") else {
            return Ok(path.to_vec());
        };
        let end = rest
            .iter()
            .position(|&byte| byte == b'/')
            .unwrap_or(rest.len());
        let (user, rest) = rest.split_at(end);
        if user.is_empty() {
            let inside = rest.strip_prefix(b"/").unwrap_or(rest);
            return Ok([b"./".as_slice(), inside].concat());
        }
        let home = self.home_of(user).ok_or(Errno::NOENT)?;
        Ok([&home, rest].concat())
    }
}

/// The absolute path without links; the last component need not exist.
pub(super) fn real_path(path: &[u8]) -> Result<Vec<u8>, Errno> {
    if path.contains(&0) {
        return Err(Errno::INVAL);
    }
    if path.first() == Some(&b'/') {
        return resolve(path, true);
    }
    let here = getcwd(Vec::new())?;
    // The kernel marks a directory outside the root with a text in front.
    if here.to_bytes().first() != Some(&b'/') {
        return Err(Errno::NOENT);
    }
    resolve(&[here.to_bytes(), b"/", path].concat(), true)
}
