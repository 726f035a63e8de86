//! How a request went, as a client is told (draft-ietf-secsh-filexfer-02 section 7).
#![forbid(unsafe_code)]

use rustix::io::Errno;

use super::packet::Replies;

/// SSH_FXP_STATUS.
const STATUS: u8 = 101;

/// SSH_FX_ codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Nothing more to read.
    EndOfFile = 1,
    /// A name leads nowhere.
    NoSuchFile = 2,
    /// Not for this user.
    PermissionDenied = 3,
    /// Anything that has no code of its own.
    Failure = 4,
    /// The request makes no sense.
    BadMessage = 5,
    /// Nothing that this server knows.
    Unsupported = 8,
}

impl Status {
    /// OpenSSH's words, with which clients' users are familiar.
    pub fn text(self) -> &'static str {
        match self {
            Self::Ok => "Success",
            Self::EndOfFile => "End of file",
            Self::NoSuchFile => "No such file",
            Self::PermissionDenied => "Permission denied",
            Self::Failure => "Failure",
            Self::BadMessage => "Bad message",
            Self::Unsupported => "Operation unsupported",
        }
    }

    /// Appends the reply. All three fields: version-3 clients such as WinSCP expect them.
    pub fn reply(self, id: u32, replies: &mut Replies) {
        replies.begin(STATUS, id);
        replies.u32(self as u32);
        replies.string(self.text().as_bytes());
        replies.string(b"");
        replies.end();
    }
}

impl From<Errno> for Status {
    /// OpenSSH's mapping (errno_to_portable).
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP => Self::NoSuchFile,
            Errno::PERM | Errno::ACCESS | Errno::FAULT => Self::PermissionDenied,
            Errno::NAMETOOLONG | Errno::INVAL => Self::BadMessage,
            Errno::NOSYS => Self::Unsupported,
            _ => Self::Failure,
        }
    }
}

impl From<Result<(), Errno>> for Status {
    fn from(result: Result<(), Errno>) -> Self {
        match result {
            Ok(()) => Self::Ok,
            Err(errno) => errno.into(),
        }
    }
}
