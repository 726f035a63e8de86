//! Arguments of the server: those of OpenSSH's sftp-server(8), with `internal-sftp` in front.
#![forbid(unsafe_code)]

use alloc::vec::Vec;
use core::slice;

use super::request::Kind;
use crate::text::{split, word_position};

/// What the arguments say.
#[derive(Debug, Default)]
pub struct Options {
    /// -R: nothing may be changed.
    pub read_only: bool,
    /// -u.
    pub umask: Option<u32>,
    /// -d, tokens not yet expanded.
    pub start_directory: Option<Vec<u8>>,
    /// -l: 0 nothing, 1 errors, 3 what is done, 4 and 5 more.
    pub log_level: u8,
    /// -f: syslog's number.
    pub facility: Option<u8>,
    /// -e: log to standard error.
    pub log_to_stderr: bool,
    /// -P: bits by [`Kind`].
    denied: u32,
    /// -p: bits by [`Kind`].
    allowed: Option<u32>,
}

/// Why the server does not start.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal<'a> {
    /// -h.
    Help,
    /// -Q requests.
    Requests,
    /// What is wrong, and with which argument.
    Wrong(&'static str, &'a [u8]),
}

/// sftp-server(8)'s words for -h.
pub const USAGE: &[u8] =
    b"usage: sftp-server [-ehR] [-d start_directory] [-f log_facility] [-l log_level]\n\
\t[-P denied_requests] [-p allowed_requests] [-u umask]\n\
       sftp-server -Q requests\n";

/// syslog(3)'s facilities, and their numbers.
const FACILITIES: &[u8] =
    b"DAEMON USER AUTH LOCAL0 LOCAL1 LOCAL2 LOCAL3 LOCAL4 LOCAL5 LOCAL6 LOCAL7";
const FACILITY_NUMBERS: &[u8] = &[3, 1, 4, 16, 17, 18, 19, 20, 21, 22, 23];
/// OpenSSH's levels, and ours.
const LEVELS: &[u8] = b"QUIET FATAL ERROR INFO VERBOSE DEBUG DEBUG1 DEBUG2 DEBUG3";
const LEVEL_NUMBERS: &[u8] = &[0, 1, 1, 3, 3, 4, 4, 5, 5];
/// ERROR, as sftp-server(8).
const LEVEL_DEFAULT: u8 = 1;

impl Options {
    /// Reads the arguments behind the program's name.
    pub fn parse<'a>(arguments: &mut dyn Iterator<Item = &'a [u8]>) -> Result<Self, Refusal<'a>> {
        let mut options = Self {
            log_level: LEVEL_DEFAULT,
            ..Self::default()
        };
        let mut arguments = arguments.filter(|argument| !argument.is_empty());
        while let Some(argument) = arguments.next() {
            // ForceCommand keeps comments, a shell passes over them, and OpenSSH's server stops here.
            if argument.starts_with(b"#") {
                break;
            }
            let Some(letters) = argument.strip_prefix(b"-") else {
                return Err(Refusal::Wrong("not an option", argument));
            };
            if letters == b"-" {
                continue;
            }
            for (index, letter) in letters.iter().enumerate() {
                if options.take_switch(letter)? {
                    continue;
                }
                // The value is the rest of the argument, or the next one.
                let rest = argument.get(index + 2..).unwrap_or_default();
                let value = if rest.is_empty() {
                    arguments.next()
                } else {
                    Some(rest)
                };
                let value = value.ok_or(Refusal::Wrong("a value is missing", argument))?;
                options.take_value(*letter, value)?;
                break;
            }
        }
        Ok(options)
    }

    /// True where `letter` takes no value.
    fn take_switch<'a>(&mut self, letter: &'a u8) -> Result<bool, Refusal<'a>> {
        match letter {
            b'R' => self.read_only = true,
            b'e' => self.log_to_stderr = true,
            // OpenSSH ignores it, and so did its configurations.
            b'c' => {}
            b'h' => return Err(Refusal::Help),
            b'd' | b'f' | b'l' | b'P' | b'p' | b'Q' | b'u' => return Ok(false),
            letter => {
                let letter = slice::from_ref(letter);
                return Err(Refusal::Wrong("an unknown option", letter));
            }
        }
        Ok(true)
    }

    fn take_value<'a>(&mut self, letter: u8, value: &'a [u8]) -> Result<(), Refusal<'a>> {
        let wrong = |what| Refusal::Wrong(what, value);
        match letter {
            b'd' => self.start_directory = Some(value.to_vec()),
            b'u' => self.umask = Some(octal(value).ok_or_else(|| wrong("not an octal umask"))?),
            b'l' => {
                let level = named(LEVELS, LEVEL_NUMBERS, value);
                self.log_level = level.ok_or_else(|| wrong("no log level"))?;
            }
            b'f' => {
                let facility = named(FACILITIES, FACILITY_NUMBERS, value);
                self.facility = Some(facility.ok_or_else(|| wrong("no facility"))?);
            }
            b'P' => self.denied |= requests(value)?,
            b'p' => self.allowed = Some(self.allowed.unwrap_or(0) | requests(value)?),
            b'Q' if value == b"requests" => return Err(Refusal::Requests),
            _ => return Err(wrong("an unknown question")),
        }
        Ok(())
    }

    /// Whether requests of this kind are served at all.
    pub fn permits(&self, kind: Kind) -> bool {
        let bit = 1 << (kind as u32);
        !(self.read_only && kind.changes())
            && self.denied & bit == 0
            && self.allowed.is_none_or(|allowed| allowed & bit != 0)
    }
}

/// A list of names of requests. A name that is none is an error: in a list of what is denied, a
/// slip of the pen would permit.
fn requests(list: &[u8]) -> Result<u32, Refusal<'_>> {
    let mut bits = 0;
    for name in split(list, b',').filter(|name| !name.is_empty()) {
        let (kind, _) = Kind::all()
            .find(|(_, known)| *known == name)
            .ok_or(Refusal::Wrong("an unknown request", name))?;
        bits |= 1 << (kind as u32);
    }
    Ok(bits)
}

/// The number at the place of `name` among `names`, in any case.
fn named(names: &[u8], numbers: &[u8], name: &[u8]) -> Option<u8> {
    let index = word_position(names, &name.to_ascii_uppercase())?;
    numbers.get(index).copied()
}

fn octal(text: &[u8]) -> Option<u32> {
    let mut number = 0;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 7 || number > 0o777 {
            return None;
        }
        number = number * 8 + u32::from(digit);
    }
    (!text.is_empty() && number <= 0o777).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, Refusal<'_>> {
        Options::parse(&mut line.as_bytes().split(|&byte| byte == b' '))
    }

    #[test]
    fn a_comment_ends_the_options() {
        let options = parse("-R # -u 077 no shell for them").expect("options");
        assert!(options.read_only && options.umask.is_none());
        assert!(parse("# no shell for them").is_ok());
        assert!(parse("no # comment").is_err());
        assert!(parse("-d #1").is_ok_and(|it| it.start_directory == Some(b"#1".to_vec())));
    }

    #[test]
    fn the_options_of_sftp_server() {
        let options = parse("-R -u 077 -d /up/%u -l verbose -fLOCAL7 -e").expect("options");
        assert!(options.read_only && options.log_to_stderr);
        assert_eq!(options.umask, Some(0o77));
        assert_eq!(
            options.start_directory.as_deref(),
            Some(b"/up/%u".as_slice())
        );
        assert_eq!((options.log_level, options.facility), (3, Some(23)));
        let plain = parse("").expect("options");
        assert_eq!((plain.log_level, plain.facility), (1, None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, argument) in [
            ("-u 999", "999"),
            ("-u 01000", "01000"),
            ("-l loud", "loud"),
            ("-f MAIL", "MAIL"),
            ("-P open,mkdri", "mkdri"),
            ("-x", "x"),
            ("-d", "-d"),
            ("word", "word"),
        ] {
            match parse(line).expect_err(line) {
                Refusal::Wrong(_, found) => assert_eq!(found, argument.as_bytes(), "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
        assert_eq!(parse("-Q requests").expect_err("a list"), Refusal::Requests);
        assert_eq!(parse("-h").expect_err("help"), Refusal::Help);
    }

    #[test]
    fn read_only_denied_and_allowed_add_up() {
        let permits = |line: &str, kind| parse(line).expect("options").permits(kind);
        assert!(permits("", Kind::Remove));
        assert!(!permits("-R", Kind::Remove) && !permits("-R", Kind::CopyData));
        assert!(permits("-R", Kind::Open) && permits("-R", Kind::Read));
        assert!(!permits("-P remove,statvfs", Kind::Remove));
        assert!(!permits("-P remove,statvfs", Kind::StatVfs));
        assert!(permits("-P remove", Kind::Rename));
        assert!(permits("-p open,close,read", Kind::Read));
        assert!(!permits("-p open,close,read", Kind::Write));
        assert!(!permits("-p read -P read", Kind::Read));
    }
}
