//! What a client can ask for: SFTP version 3 (draft-ietf-secsh-filexfer-02 section 6) and the
//! extensions of OpenSSH (its PROTOCOL, section 4), decoded without a copy.
#![forbid(unsafe_code)]

use super::attributes::Attributes;
use super::packet::{Fields, Malformed};
use crate::text::split;

/// The kinds of request, in the order of [`KINDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// SSH_FXP_OPEN.
    Open,
    /// SSH_FXP_CLOSE.
    Close,
    /// SSH_FXP_READ.
    Read,
    /// SSH_FXP_WRITE.
    Write,
    /// SSH_FXP_LSTAT.
    Lstat,
    /// SSH_FXP_FSTAT.
    Fstat,
    /// SSH_FXP_SETSTAT.
    SetStat,
    /// SSH_FXP_FSETSTAT.
    FsetStat,
    /// SSH_FXP_OPENDIR.
    OpenDirectory,
    /// SSH_FXP_READDIR.
    ReadDirectory,
    /// SSH_FXP_REMOVE.
    Remove,
    /// SSH_FXP_MKDIR.
    MakeDirectory,
    /// SSH_FXP_RMDIR.
    RemoveDirectory,
    /// SSH_FXP_REALPATH.
    RealPath,
    /// SSH_FXP_STAT.
    Stat,
    /// SSH_FXP_RENAME.
    Rename,
    /// SSH_FXP_READLINK.
    ReadLink,
    /// SSH_FXP_SYMLINK.
    SymbolicLink,
    /// posix-rename@openssh.com.
    PosixRename,
    /// statvfs@openssh.com.
    StatVfs,
    /// fstatvfs@openssh.com.
    FstatVfs,
    /// hardlink@openssh.com.
    HardLink,
    /// fsync@openssh.com.
    Fsync,
    /// lsetstat@openssh.com.
    LsetStat,
    /// limits@openssh.com.
    Limits,
    /// expand-path@openssh.com.
    ExpandPath,
    /// copy-data.
    CopyData,
    /// home-directory.
    HomeDirectory,
    /// users-groups-by-id@openssh.com.
    UsersGroupsById,
}

/// All kinds. The first have the numbers from 3; extensions are offered in this order.
const KINDS: [Kind; 29] = [
    Kind::Open,
    Kind::Close,
    Kind::Read,
    Kind::Write,
    Kind::Lstat,
    Kind::Fstat,
    Kind::SetStat,
    Kind::FsetStat,
    Kind::OpenDirectory,
    Kind::ReadDirectory,
    Kind::Remove,
    Kind::MakeDirectory,
    Kind::RemoveDirectory,
    Kind::RealPath,
    Kind::Stat,
    Kind::Rename,
    Kind::ReadLink,
    Kind::SymbolicLink,
    Kind::PosixRename,
    Kind::StatVfs,
    Kind::FstatVfs,
    Kind::HardLink,
    Kind::Fsync,
    Kind::LsetStat,
    Kind::Limits,
    Kind::ExpandPath,
    Kind::CopyData,
    Kind::HomeDirectory,
    Kind::UsersGroupsById,
];
/// Their names in deny and allow lists. One text: a table of texts is four times as large.
const NAMES: &[u8] = b"open close read write lstat fstat setstat fsetstat opendir readdir remove \
    mkdir rmdir realpath stat rename readlink symlink posix-rename statvfs fstatvfs hardlink fsync \
    lsetstat limits expand-path copy-data home-directory users-groups-by-id";
/// What follows the name of most extensions.
const DOMAIN: &[u8] = b"@openssh.com";

impl Kind {
    /// All kinds with their names in deny and allow lists.
    #[inline(never)]
    pub fn all() -> AllKinds {
        AllKinds {
            kinds: &KINDS,
            names: NAMES,
        }
    }

    /// Name in deny and allow lists.
    #[inline(never)]
    pub fn name(self) -> &'static [u8] {
        let is_it = |entry: &(Self, _)| entry.0 == self;
        Self::all().find(is_it).map_or(b"", |(_, name)| name)
    }

    /// Changes something. SSH_FXP_OPEN does not count: its flags decide.
    pub fn changes(self) -> bool {
        matches!(
            self,
            Self::Write
                | Self::SetStat
                | Self::FsetStat
                | Self::Remove
                | Self::MakeDirectory
                | Self::RemoveDirectory
                | Self::Rename
                | Self::SymbolicLink
                | Self::PosixRename
                | Self::HardLink
                | Self::Fsync
                | Self::LsetStat
                | Self::CopyData
        )
    }

    /// What follows the name in the offer, and the version; `None`: no extension.
    #[inline(never)]
    pub fn extension(self) -> Option<(&'static [u8], &'static [u8])> {
        match self {
            _ if (self as u8) < Self::PosixRename as u8 => None,
            Self::StatVfs | Self::FstatVfs => Some((DOMAIN, b"2")),
            Self::CopyData | Self::HomeDirectory => Some((b"", b"1")),
            _ => Some((DOMAIN, b"1")),
        }
    }
}

/// See [`Kind::all`]. Iterators of the library would be inlined wherever it is used.
#[derive(Debug)]
pub struct AllKinds {
    kinds: &'static [Kind],
    names: &'static [u8],
}

impl Iterator for AllKinds {
    type Item = (Kind, &'static [u8]);

    #[inline(never)]
    fn next(&mut self) -> Option<Self::Item> {
        let (&kind, kinds) = self.kinds.split_first()?;
        let end = self.names.iter().position(|&byte| byte == b' ');
        let (name, rest) = self.names.split_at(end.unwrap_or(self.names.len()));
        self.kinds = kinds;
        self.names = rest.get(1..).unwrap_or_default();
        Some((kind, name))
    }
}

/// Number of SSH_FXP_OPEN, the first of the requests.
const FIRST_NUMBER: u8 = 3;
/// Number of SSH_FXP_SYMLINK, the last without a name.
const LAST_NUMBER: u8 = 20;
/// SSH_FXP_EXTENDED.
const EXTENDED: u8 = 200;

/// A client's name for an open file. Anything but four bytes names nothing.
pub type HandleName = Option<u32>;

/// The fields of a request; those that its kind does not have are empty. Paths are bytes as they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// A path, of two the first: the old name, or what a link points to. For others: the data of a
    /// WRITE, a user's name, packed user ids.
    pub first: &'a [u8],
    /// The new name or the link; packed group ids.
    pub second: &'a [u8],
    /// An open file or directory.
    pub handle: HandleName,
    /// Where copy-data writes.
    pub to: HandleName,
    /// Where reading or writing begins.
    pub offset: u64,
    /// Where the writing of copy-data begins.
    pub to_offset: u64,
    /// Bytes to read or copy; copy-data takes 0 for up to the end.
    pub length: u64,
    /// SSH_FXF_ flags.
    pub flags: u32,
    /// What to set.
    pub attributes: Attributes,
}

/// What stands behind the number, in the order of [`KINDS`]: a letter for each field, see [`body`].
const SHAPES: &[u8] =
    b"pfa h hon hop p h pa ha p h p pa p p p pq p pq pq p h pq h pa - p holte p ij";

/// A request's number, what it is (`None`: nothing that we know) and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// The client's number for the answer.
    pub id: u32,
    /// Its kind.
    pub kind: Option<Kind>,
    /// Its fields.
    pub request: Result<Request<'a>, Malformed>,
}

/// Decodes a packet other than SSH_FXP_INIT. An error: not even a number to answer to.
pub fn decode<'a>(packet: &'a [u8]) -> Result<Decoded<'a>, Malformed> {
    let mut fields = Fields::new(packet);
    let number = fields.byte()?;
    let id = fields.u32()?;
    let kind = match number {
        FIRST_NUMBER..=LAST_NUMBER => KINDS.get(usize::from(number - FIRST_NUMBER)).copied(),
        EXTENDED => match fields.string() {
            Ok(name) => extension(name),
            Err(malformed) => {
                return Ok(Decoded {
                    id,
                    kind: None,
                    request: Err(malformed),
                });
            }
        },
        _ => None,
    };
    Ok(Decoded {
        id,
        kind,
        request: kind.map_or_else(|| Ok(Request::default()), |kind| body(kind, &mut fields)),
    })
}

fn extension(full_name: &[u8]) -> Option<Kind> {
    let is_it = |&(kind, name): &(Kind, &[u8])| {
        let domain = kind.extension().map(|(domain, _)| domain);
        domain.is_some() && full_name.strip_prefix(name) == domain
    };
    Kind::all().find(is_it).map(|(kind, _)| kind)
}

/// Takes the fields of `kind`. One loop for all of them is a third of the code of a branch for each.
fn body<'a>(kind: Kind, fields: &mut Fields<'a>) -> Result<Request<'a>, Malformed> {
    let mut request = Request::default();
    let mut shapes = split(SHAPES, b' ');
    for letter in shapes.nth(kind as usize).unwrap_or_default() {
        match letter {
            b'p' => request.first = fields.string()?,
            b'q' => request.second = fields.string()?,
            b'i' => request.first = ids(fields)?,
            b'j' => request.second = ids(fields)?,
            b'h' => request.handle = handle(fields)?,
            b't' => request.to = handle(fields)?,
            b'o' => request.offset = fields.u64()?,
            b'e' => request.to_offset = fields.u64()?,
            b'l' => request.length = fields.u64()?,
            b'n' => request.length = fields.u32()?.into(),
            b'f' => request.flags = fields.u32()?,
            b'a' => request.attributes = Attributes::decode(fields)?,
            _ => {}
        }
    }
    Ok(request)
}

fn handle(fields: &mut Fields<'_>) -> Result<HandleName, Malformed> {
    let name = fields.string()?;
    Ok(name.try_into().ok().map(u32::from_be_bytes))
}

fn ids<'a>(fields: &mut Fields<'a>) -> Result<&'a [u8], Malformed> {
    let packed = fields.string()?;
    if packed.len().is_multiple_of(4) {
        Ok(packed)
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sftp::packet::Replies;

    #[test]
    fn numbers_and_names_find_their_kind() {
        for (number, kind) in [
            (3, Kind::Open),
            (6, Kind::Write),
            (12, Kind::ReadDirectory),
            (17, Kind::Stat),
            (20, Kind::SymbolicLink),
        ] {
            let packet = [number, 0, 0, 0, 9];
            let decoded = decode(&packet).expect("a number");
            assert_eq!((decoded.id, decoded.kind), (9, Some(kind)));
            assert_eq!(decoded.request, Err(Malformed));
        }
        for number in [0, 2, 21, 101, 201, 255] {
            assert_eq!(decode(&[number, 0, 0, 0, 9]).expect("a number").kind, None);
        }
        assert_eq!(decode(&[3, 0, 0]), Err(Malformed));
        assert_eq!(extension(b"copy-data"), Some(Kind::CopyData));
        assert_eq!(extension(b"posix-rename"), None);
    }

    #[test]
    fn a_write_is_decoded_in_place() {
        let mut packet = Replies::default();
        packet.begin(6, 77);
        packet.string(&[0, 1, 2, 3]);
        packet.u64(1 << 40);
        packet.string(b"data");
        let decoded = decode(&packet.bytes()[4..]).expect("a number");
        assert_eq!(
            decoded.request,
            Ok(Request {
                handle: Some(0x0001_0203),
                offset: 1 << 40,
                first: b"data",
                ..Request::default()
            })
        );
    }

    #[test]
    fn a_handle_of_another_length_names_nothing() {
        let mut packet = Replies::default();
        packet.begin(4, 1);
        packet.string(b"bogus-handle");
        let decoded = decode(&packet.bytes()[4..]).expect("a number");
        assert_eq!(decoded.request, Ok(Request::default()));
    }

    #[test]
    fn each_kind_stands_at_its_number() {
        assert_eq!(Kind::all().count(), KINDS.len());
        assert_eq!(split(SHAPES, b' ').count(), KINDS.len());
        for (index, (kind, name)) in Kind::all().enumerate() {
            assert_eq!(kind as usize, index);
            assert_eq!(kind.name(), name);
            assert_eq!(kind.extension().is_some(), index >= 18, "{kind:?}");
        }
        assert_eq!(Kind::UsersGroupsById.name(), b"users-groups-by-id");
        assert_eq!(Kind::MakeDirectory.name(), b"mkdir");
        assert_eq!(extension(b"statvfs@openssh.com"), Some(Kind::StatVfs));
        for name in ["statvfs", "copy-data@openssh.com", "stat@openssh.com", ""] {
            assert_eq!(extension(name.as_bytes()), None, "{name}");
        }
    }
}
