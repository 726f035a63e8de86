//! Files that go to the connection's `net`, which then reads and writes them by itself.
//!
//! It saves two copies and two changes of process for each request. Everything about it is an offer:
//! a file that `net` does not take, or was not given, is served here. What could block stays here:
//! FIFOs and devices (`net` also looks at the kind of file system), and so do appending writes, whose
//! place only the kernel knows.
#![forbid(unsafe_code)]

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::FileType;
use rustix::process::{Resource, getrlimit};

use super::tally::Tally;
use crate::frame::SessionToNet;
use crate::link::Link;
use crate::path::file_type;

/// The link to `net`, shared with the helper that forked this server: frames of one datagram do not
/// mix.
#[derive(Debug)]
pub struct Sharing {
    link: Link,
    session: u32,
    is_limited: bool,
    tally: Option<Tally>,
}

impl Sharing {
    /// For the session that `net` knows as `session`.
    pub fn new(link: Link, session: u32) -> Self {
        Self {
            link,
            session,
            // `net` has the limits of the server; one that it met would end it for all its clients.
            is_limited: getrlimit(Resource::Fsize).current.is_some(),
            tally: None,
        }
    }

    /// With a tally that `net` has too, if there can be one: where somebody wants to know how much
    /// was read and written, what cannot be counted is not shared.
    pub fn counted(mut self) -> Option<Self> {
        let tally = Tally::new().ok()?;
        let frame = SessionToNet::Tally {
            session: self.session,
        };
        self.link.send(0, &frame, &[tally.as_fd()], false).ok()?;
        self.tally = Some(tally);
        Some(self)
    }

    /// What `net` read and wrote of the file, since this was asked last.
    pub fn totals(&self, handle: u32) -> (u64, u64) {
        let tally = self.tally.as_ref();
        tally.map_or((0, 0), |tally| tally.take(handle))
    }

    /// Offers `file`, which the client calls `handle`. A full queue is no reason to wait.
    pub fn offer(&mut self, handle: u32, file: &OwnedFd) {
        let is_regular =
            rustix::fs::fstat(file).is_ok_and(|stat| file_type(&stat) == FileType::RegularFile);
        if !is_regular || self.is_limited {
            return;
        }
        let frame = SessionToNet::File {
            session: self.session,
            handle,
        };
        // Where that fails, the file is served here.
        let _ = self.link.send(0, &frame, &[file.as_fd()], false);
    }
}
