//! What the monitor and the one-shot password process say to each other: one request, one answer.

#![forbid(unsafe_code)]

use agent_helper::wire::Bytes;
use agent_helper::wire_enum;

wire_enum! {
    /// What the process is started for.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Request {
        /// Is this the account's password?
        1 => Check {
            /// The account; `None` for whoever cannot log in: the same work for nothing.
            name: Option<Bytes>,
            /// Picks the account whose kind of hash stands in where there is none; the same for each
            /// try of a name.
            seed: u64,
            /// What the client says it is.
            password: Bytes,
            /// An empty password may be right.
            permit_empty: bool,
            /// The password that is to replace an expired one.
            new_password: Option<Bytes>,
            /// Days since 1970.
            today: i64,
        },
        /// Write this hash into the shadow file.
        2 => Store {
            /// The account.
            name: Bytes,
            /// Its new hash.
            hash: Bytes,
            /// Days since 1970: when it was changed.
            today: i64,
        },
    }
}

wire_enum! {
    /// What came of it.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub enum Verdict {
        /// It is the password.
        1 => Matches {
            /// Days until it must be changed, where the user is to be told.
            days_left: Option<i64>,
        },
        /// It is not, or does not count.
        2 => Refused {
            /// For the log; the client learns nothing of it.
            why: Why,
        },
        /// It is the password, and has expired: it must be changed.
        3 => Expired,
        /// The old password is right, and this is the hash of the new one.
        4 => Hashed {
            /// As crypt(5) writes it.
            hash: Bytes,
        },
        /// The new password will not do.
        5 => NewRefused {
            /// For the user.
            why: Bytes,
        },
        /// The hash is in the file.
        6 => Stored,
        /// It could not be done.
        7 => Failed {
            /// What, where and why.
            what: Bytes,
        },
    }
}

wire_enum! {
    /// Why a password is refused.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Why {
        /// It is another one.
        1 => Wrong,
        /// The account has no password that could be given.
        2 => NoPassword,
        /// The account has an empty password, and PermitEmptyPasswords is off.
        3 => Empty,
        /// The hash is of a kind that is not computed here.
        4 => HashUnsupported,
        /// The hash is of a known kind and broken, or asks for too much memory.
        5 => HashUnusable,
        /// It expired longer ago than the account's inactivity period.
        6 => ExpiredForGood,
        /// The account's line in the shadow file has fields that are no numbers.
        7 => LineMalformed,
    }
}

impl Why {
    /// Its code in the log.
    pub fn code(self) -> &'static str {
        match self {
            Self::Wrong => "password-wrong",
            Self::NoPassword => "password-none",
            Self::Empty => "password-empty",
            Self::HashUnsupported => "password-hash",
            Self::HashUnusable => "password-hash-unusable",
            Self::ExpiredForGood => "password-expired",
            Self::LineMalformed => "password-line",
        }
    }
}
