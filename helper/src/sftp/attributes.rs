//! File attributes as SFTP version 3 has them (draft-ietf-secsh-filexfer-02 section 5).
#![forbid(unsafe_code)]

use rustix::fs::{Stat, Timespec, Timestamps};

use super::packet::{Fields, Malformed, Replies};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 0x8000_0000;

/// What a request sets, or a reply tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Bytes.
    pub size: Option<u64>,
    /// User and group id.
    pub owner: Option<(u32, u32)>,
    /// Type and permission bits, as st_mode.
    pub permissions: Option<u32>,
    /// Seconds of last access and modification.
    pub times: Option<(u32, u32)>,
}

impl Attributes {
    /// Takes attributes off a request. Extended ones are stepped over: none is defined.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let flags = fields.u32()?;
        let has = |flag: u32| flags & flag != 0;
        let mut attributes = Self::default();
        if has(SIZE) {
            attributes.size = Some(fields.u64()?);
        }
        if has(OWNER) {
            attributes.owner = Some((fields.u32()?, fields.u32()?));
        }
        if has(PERMISSIONS) {
            attributes.permissions = Some(fields.u32()?);
        }
        if has(TIMES) {
            attributes.times = Some((fields.u32()?, fields.u32()?));
        }
        if has(EXTENDED) {
            for _ in 0..fields.u32()? {
                fields.string()?;
                fields.string()?;
            }
        }
        Ok(attributes)
    }

    /// Everything that version 3 can tell of a file.
    pub fn of(stat: &Stat) -> Self {
        Self {
            size: Some(u64::try_from(stat.st_size).unwrap_or(0)),
            owner: Some((stat.st_uid, stat.st_gid)),
            permissions: Some(stat.st_mode),
            times: Some((seconds(stat.st_atime), seconds(stat.st_mtime))),
        }
    }

    /// Appends them to a reply.
    pub fn encode(&self, replies: &mut Replies) {
        let flag = |is_there: bool, flag: u32| if is_there { flag } else { 0 };
        replies.u32(
            flag(self.size.is_some(), SIZE)
                | flag(self.owner.is_some(), OWNER)
                | flag(self.permissions.is_some(), PERMISSIONS)
                | flag(self.times.is_some(), TIMES),
        );
        if let Some(size) = self.size {
            replies.u64(size);
        }
        if let Some((user, group)) = self.owner {
            replies.u32(user);
            replies.u32(group);
        }
        if let Some(permissions) = self.permissions {
            replies.u32(permissions);
        }
        if let Some((accessed, modified)) = self.times {
            replies.u32(accessed);
            replies.u32(modified);
        }
    }

    /// The times as the kernel takes them.
    pub fn timestamps(&self) -> Option<Timestamps> {
        let at = |seconds: u32| Timespec {
            tv_sec: i64::from(seconds),
            tv_nsec: 0,
        };
        self.times.map(|(accessed, modified)| Timestamps {
            last_access: at(accessed),
            last_modification: at(modified),
        })
    }
}

/// Seconds since 1970 in 32 bits: what is before that or after 2106 shows as the nearest that fits.
fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_go_both_ways() {
        let attributes = Attributes {
            size: Some(5 << 32),
            owner: Some((1, 2)),
            permissions: Some(0o100_644),
            times: Some((3, u32::MAX)),
        };
        for attributes in [attributes, Attributes::default()] {
            let mut replies = Replies::default();
            attributes.encode(&mut replies);
            let mut fields = Fields::new(replies.bytes());
            assert_eq!(Attributes::decode(&mut fields), Ok(attributes));
            assert!(fields.is_empty());
        }
    }

    #[test]
    fn extended_attributes_are_stepped_over_and_bounded() {
        let mut replies = Replies::default();
        replies.u32(EXTENDED | PERMISSIONS);
        replies.u32(0o600);
        replies.u32(2);
        for text in ["name", "value", "other", ""] {
            replies.string(text.as_bytes());
        }
        let mut fields = Fields::new(replies.bytes());
        let found = Attributes::decode(&mut fields).expect("attributes");
        assert_eq!(found.permissions, Some(0o600));
        assert!(fields.is_empty());
        let lie = [0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Attributes::decode(&mut Fields::new(&lie)), Err(Malformed));
    }

    #[test]
    fn times_that_do_not_fit_show_as_the_nearest() {
        assert_eq!(seconds(-5), 0);
        assert_eq!(seconds(1 << 40), u32::MAX);
        assert_eq!(seconds(1_700_000_000), 1_700_000_000);
    }
}
