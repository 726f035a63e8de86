//! One client's requests, answered one after the other in the order in which they came.
//!
//! OpenSSH's server does the same, and clients count on it: a WRITE takes effect before the FSTAT
//! that follows it. Pipelining pays all the same, since the client does not wait for answers.
//! Nothing that a request says makes the server hold more than one packet and one reply.
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::OFlags;

use super::change;
use super::directory::reply_with_entries;
use super::handles::{Form, Handles, Open};
use super::log::Log;
use super::long_name::{LongNames, decimal_u64};
use super::names::{Database, Names};
use super::options::Options;
use super::packet::{Fields, Malformed, Replies};
use super::questions::real_path;
use super::request::{Decoded, HandleName, Kind, Request, decode};
use super::sharing::Sharing;
use super::status::Status;
use super::transfer::{self, Copy};
use super::zone::Zone;
use crate::frame::FileOperation;
use crate::sys;
use crate::text::c_string;

/// The only version that this server speaks, and that clients in use ask for.
const VERSION: u32 = 3;
const INIT: u8 = 1;
const VERSION_REPLY: u8 = 2;
const HANDLE: u8 = 102;
const DATA: u8 = 103;

/// A packet without its length, as OpenSSH.
pub const PACKET_MAX_BYTES: usize = 256 * 1024;
/// Data in one READ or WRITE: a packet with room for the other fields.
pub const DATA_MAX_BYTES: u32 = 255 * 1024;

/// The stream cannot go on: what it carries is no SFTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken(pub &'static str);

/// Who is served.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// The user's name.
    pub name: Vec<u8>,
    /// The user's home directory.
    pub home: Vec<u8>,
}

/// The server.
#[derive(Debug)]
pub struct Server {
    options: Options,
    pub(super) account: Account,
    log: Log,
    handles: Handles,
    pub(super) users: Names,
    pub(super) groups: Names,
    zone: Option<Zone>,
    pub(super) replies: Replies,
    is_initialised: bool,
    sharing: Option<Sharing>,
}

impl Server {
    /// A server without open files.
    pub fn new(options: Options, account: Account, log: Log, sharing: Option<Sharing>) -> Self {
        // Who may not read or write here must not do so elsewhere.
        let serves = [Kind::Read, Kind::Write].map(|kind| options.permits(kind));
        let sharing = sharing.filter(|_| serves == [true; 2]);
        Self {
            options,
            account,
            log,
            handles: Handles::default(),
            users: Names::new(Database::Users),
            groups: Names::new(Database::Groups),
            zone: None,
            replies: Replies::default(),
            is_initialised: false,
            sharing,
        }
    }

    /// Replies that wait to be written.
    pub fn replies(&mut self) -> &mut Replies {
        &mut self.replies
    }

    /// The log.
    pub fn log(&mut self) -> &mut Log {
        &mut self.log
    }

    /// Answers one packet, without its length. `client` is where the client's bytes come from.
    pub fn serve(&mut self, packet: &[u8], client: BorrowedFd<'_>) -> Result<(), Broken> {
        if let Some((&INIT, version)) = packet.split_first() {
            return self.init(version);
        }
        if !self.is_initialised {
            return Err(Broken("a request before the version"));
        }
        let Decoded { id, kind, request } =
            decode(packet).map_err(|Malformed| Broken("a packet without a number"))?;
        let Some(kind) = kind else {
            self.status(id, Status::Unsupported);
            return Ok(());
        };
        match request {
            Err(Malformed) => {
                self.log
                    .line(1, &[b"a request is cut short: ", kind.name()]);
                self.status(id, Status::BadMessage);
            }
            Ok(request) if !self.options.permits(kind) => {
                self.log.line(3, &[b"Refusing ", kind.name(), b" request"]);
                self.tell_refusal(kind, &request);
                self.status(id, Status::PermissionDenied);
            }
            Ok(request) => self.answer(id, kind, &request, client),
        }
        Ok(())
    }

    /// An attempt is worth an event too.
    fn tell_refusal(&mut self, kind: Kind, request: &Request<'_>) {
        let operation = match kind {
            Kind::Open => Some(FileOperation::Open),
            // Of a file that was opened, as is told.
            Kind::FsetStat => None,
            kind => operation_of(kind),
        };
        if let Some(operation) = operation {
            let paths = (request.first, request.second);
            self.log
                .event(operation, paths, Status::PermissionDenied, (0, 0));
        }
    }

    fn init(&mut self, version: &[u8]) -> Result<(), Broken> {
        let version = Fields::new(version)
            .u32()
            .map_err(|Malformed| Broken("no version"))?;
        let number = decimal_u64(version.into());
        self.log.line(4, &[b"client version ", &number]);
        self.is_initialised = true;
        self.replies.begin_without_id(VERSION_REPLY);
        self.replies.u32(VERSION);
        for (kind, name) in Kind::all() {
            if let Some((domain, version)) = kind.extension()
                && self.options.permits(kind)
            {
                self.replies.string(&[name, domain].concat());
                self.replies.string(version);
            }
        }
        self.replies.end();
        Ok(())
    }

    fn answer(&mut self, id: u32, kind: Kind, request: &Request<'_>, client: BorrowedFd<'_>) {
        if let Some(operation) = operation_of(kind) {
            return self.change(id, kind, operation, request);
        }
        let path = request.first;
        match kind {
            Kind::Open => self.open(id, request),
            Kind::Close => self.close(id, request.handle),
            Kind::Read => self.read(id, request),
            Kind::Write => self.write(id, request),
            Kind::Lstat => {
                let found = c_string(path).and_then(|path| rustix::fs::lstat(&*path));
                self.attributes(id, found);
            }
            Kind::Stat => self.attributes(id, crate::path::stat(path)),
            Kind::OpenDirectory => self.open_directory(id, path),
            Kind::RealPath => self.name(id, real_path(path)),
            Kind::ExpandPath => {
                let expanded = self.expand(path);
                self.name(id, expanded.and_then(|path| real_path(&path)));
            }
            Kind::HomeDirectory => match self.home_of(path) {
                Some(home) => self.name(id, Ok(home)),
                None => self.status(id, Status::Failure),
            },
            Kind::ReadLink => self.name(id, crate::path::read_link(path)),
            Kind::StatVfs => {
                let found = c_string(path).and_then(|path| rustix::fs::statvfs(&*path));
                self.file_system(id, found);
            }
            Kind::CopyData => self.copy(id, request, client),
            Kind::UsersGroupsById => self.names_of_ids(id, request.first, request.second),
            Kind::Limits => self.limits(id),
            _ => self.answer_handle(id, kind, request.handle),
        }
    }

    /// Does what changes something by name, and tells how it went.
    fn change(&mut self, id: u32, kind: Kind, operation: FileOperation, request: &Request<'_>) {
        let &Request {
            first,
            second,
            handle,
            ref attributes,
            ..
        } = request;
        let mut opened = Vec::new();
        let result = match kind {
            Kind::FsetStat => {
                let Some(open) = self.handles.file(handle) else {
                    return self.status(id, Status::Failure);
                };
                opened.clone_from(&open.path);
                change::set_open(open.descriptor.as_fd(), attributes)
            }
            Kind::SetStat => change::set(first, attributes),
            Kind::LsetStat => change::set_link(first, attributes),
            Kind::MakeDirectory => change::make_directory(first, attributes),
            Kind::Remove => crate::path::remove(first),
            Kind::RemoveDirectory => change::remove_directory(first),
            Kind::Rename => change::rename(first, second),
            Kind::PosixRename => change::rename_over(first, second),
            Kind::HardLink => change::make_hard_link(first, second),
            _ => change::make_symbolic_link(first, second),
        };
        let path = if opened.is_empty() { first } else { &opened };
        // The words are OpenSSH's.
        let (label, place): (&[u8], &[u8]) = match operation {
            FileOperation::SetAttributes => (b"set", b" \""),
            _ if second.is_empty() => (kind.name(), b" name \""),
            _ => (kind.name(), b" old \""),
        };
        let behind: [&[u8]; 2] = match second {
            b"" => [b"\"", b""],
            _ => [b"\" new \"", b"\""],
        };
        let line: [&[u8]; 6] = [label, place, path, behind[0], second, behind[1]];
        self.log.line(3, &line);
        let status = Status::from(result);
        self.log.event(operation, (path, second), status, (0, 0));
        self.status(id, status);
    }

    #[inline(never)]
    pub(super) fn status(&mut self, id: u32, status: Status) {
        if !matches!(status, Status::Ok | Status::EndOfFile) {
            self.log
                .line(4, &[b"sent status ", status.text().as_bytes()]);
        }
        status.reply(id, &mut self.replies);
    }

    fn open(&mut self, id: u32, request: &Request<'_>) {
        let &Request {
            first: path,
            flags,
            ref attributes,
            ..
        } = request;
        if self.log.wants(3) {
            let line: [&[u8]; 5] = [b"open \"", path, b"\" flags", &flags_text(flags), b""];
            self.log.line(3, &line);
        }
        match transfer::open(path, flags, attributes, self.options.read_only) {
            Ok(descriptor) => {
                self.log
                    .event(FileOperation::Open, (path, b""), Status::Ok, (0, 0));
                let form = Form::File {
                    appends: transfer::appends(flags),
                };
                self.give_handle(id, path, descriptor, form);
            }
            Err(errno) => {
                let status = Status::from(errno);
                self.log
                    .event(FileOperation::Open, (path, b""), status, (0, 0));
                self.status(id, status);
            }
        }
    }

    fn give_handle(&mut self, id: u32, path: &[u8], descriptor: rustix::fd::OwnedFd, form: Form) {
        let name = self.handles.add(Open {
            name: 0,
            descriptor,
            path: path.to_vec(),
            form,
            read_bytes: 0,
            written_bytes: 0,
        });
        let Some(name) = name else {
            self.log.line(1, &[b"too many open files"]);
            return self.status(id, Status::Failure);
        };
        if let (Form::File { appends: false }, Some(sharing), Some(open)) =
            (form, &mut self.sharing, self.handles.get(Some(name)))
        {
            sharing.offer(name, &open.descriptor);
        }
        self.replies.begin(HANDLE, id);
        self.replies.string(&name.to_be_bytes());
        self.replies.end();
    }

    fn close(&mut self, id: u32, handle: HandleName) {
        match self.handles.remove(handle) {
            Some(open) => {
                let status = self.end(b"close", open);
                self.status(id, status);
            }
            // As OpenSSH, which has no better word for it.
            None => self.status(id, Status::NoSuchFile),
        }
    }

    /// Closes what was taken out of the table, and tells.
    fn end(&mut self, label: &[u8], open: Open) -> Status {
        let status = Status::from(sys::close(open.descriptor));
        let path = &open.path;
        if open.form == Form::Directory {
            self.log.line(3, &[label, b"dir \"", path, b"\""]);
            return status;
        }
        let sharing = self.sharing.as_ref();
        let theirs = sharing.map_or((0, 0), |sharing| sharing.totals(open.name));
        let bytes = (
            open.read_bytes.saturating_add(theirs.0),
            open.written_bytes.saturating_add(theirs.1),
        );
        self.log
            .event(FileOperation::Close, (path, b""), status, bytes);
        let (read, written) = (decimal_u64(bytes.0), decimal_u64(bytes.1));
        let line: [&[u8]; 7] = [
            label,
            b" \"",
            path,
            b"\" bytes read ",
            &read,
            b" written ",
            &written,
        ];
        self.log.line(3, &line);
        status
    }

    /// Closes what the client left open.
    pub fn finish(&mut self) {
        while let Some(open) = self.handles.remove_any() {
            self.end(b"forced close", open);
        }
    }

    fn read(&mut self, id: u32, request: &Request<'_>) {
        let Some(open) = self.handles.file(request.handle) else {
            return self.status(id, Status::Failure);
        };
        let length = usize::try_from(request.length.min(DATA_MAX_BYTES.into())).unwrap_or(0);
        self.replies.begin(DATA, id);
        let result = self.replies.string_from(length, |place| {
            transfer::read(&open.descriptor, place, request.offset)
        });
        match result {
            Ok(0) if length > 0 => {
                self.replies.abandon();
                self.status(id, Status::EndOfFile);
            }
            Ok(len) => {
                open.read_bytes += len as u64;
                self.replies.end();
            }
            Err(errno) => {
                self.replies.abandon();
                self.status(id, errno.into());
            }
        }
    }

    fn write(&mut self, id: u32, request: &Request<'_>) {
        let Some(open) = self.handles.file(request.handle) else {
            return self.status(id, Status::Failure);
        };
        // The kernel ignores the offset of such writes, but not an impossible one.
        let appends = open.form == Form::File { appends: true };
        let offset = if appends { 0 } else { request.offset };
        let (written, result) = transfer::write(&open.descriptor, request.first, offset);
        open.written_bytes += written as u64;
        self.status(id, result.into());
    }

    fn open_directory(&mut self, id: u32, path: &[u8]) {
        self.log.line(3, &[b"opendir \"", path, b"\""]);
        match crate::path::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK) {
            Ok(descriptor) => self.give_handle(id, path, descriptor, Form::Directory),
            Err(errno) => self.status(id, errno.into()),
        }
    }

    fn answer_handle(&mut self, id: u32, kind: Kind, handle: HandleName) {
        let Some(open) = self.handles.get(handle) else {
            // OpenSSH has two words for it.
            let is_fsync = kind == Kind::Fsync;
            let status = if is_fsync {
                Status::NoSuchFile
            } else {
                Status::Failure
            };
            return self.status(id, status);
        };
        match kind {
            Kind::Fstat => {
                let found = rustix::fs::fstat(&open.descriptor);
                self.attributes(id, found);
            }
            Kind::FstatVfs => {
                let found = rustix::fs::fstatvfs(&open.descriptor);
                self.file_system(id, found);
            }
            Kind::Fsync => {
                let result = rustix::fs::fsync(&open.descriptor);
                self.log.line(3, &[b"fsync \"", &open.path, b"\""]);
                self.status(id, result.into());
            }
            _ if open.form != Form::Directory => self.status(id, Status::Failure),
            _ => {
                let mut names = LongNames {
                    users: &mut self.users,
                    groups: &mut self.groups,
                    zone: self.zone.get_or_insert_with(Zone::of_machine),
                    now: i64::try_from(sys::realtime_s()).unwrap_or(0),
                };
                reply_with_entries(&open.descriptor, id, &mut names, &mut self.replies);
            }
        }
    }

    fn copy(&mut self, id: u32, request: &Request<'_>, client: BorrowedFd<'_>) {
        let Some([source, target]) = self.handles.two_files(request.handle, request.to) else {
            // One handle for both, or a handle that is none.
            return self.status(id, Status::Failure);
        };
        let paths = (source.path.as_slice(), target.path.as_slice());
        let line: [&[u8]; 5] = [b"copy-data \"", paths.0, b"\" to \"", paths.1, b"\""];
        self.log.line(3, &line);
        let (status, copied) = Copy {
            from: &source.descriptor,
            from_offset: request.offset,
            length: request.length,
            to: &target.descriptor,
            to_offset: request.to_offset,
            client,
        }
        .run();
        self.log
            .event(FileOperation::Copy, paths, status, (copied, copied));
        source.read_bytes += copied;
        target.written_bytes += copied;
        self.status(id, status);
    }
}

/// What a request that changes something by name is in the audit; `None` for all others.
#[inline(never)]
fn operation_of(kind: Kind) -> Option<FileOperation> {
    Some(match kind {
        Kind::SetStat | Kind::LsetStat | Kind::FsetStat => FileOperation::SetAttributes,
        Kind::Remove => FileOperation::Remove,
        Kind::MakeDirectory => FileOperation::MakeDirectory,
        Kind::RemoveDirectory => FileOperation::RemoveDirectory,
        Kind::Rename | Kind::PosixRename => FileOperation::Rename,
        Kind::SymbolicLink => FileOperation::SymbolicLink,
        Kind::HardLink => FileOperation::HardLink,
        _ => return None,
    })
}

/// SSH_FXF_ flags in OpenSSH's words.
fn flags_text(flags: u32) -> Vec<u8> {
    const NAMES: [&[u8]; 6] = [
        b"READ",
        b"WRITE",
        b"APPEND",
        b"CREATE",
        b"TRUNCATE",
        b"EXCL",
    ];
    let mut text = Vec::new();
    for (index, name) in NAMES.iter().enumerate() {
        if flags & (1 << index) != 0 {
            text.push(if text.is_empty() { b' ' } else { b',' });
            text.extend_from_slice(name);
        }
    }
    text
}
