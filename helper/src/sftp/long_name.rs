//! A line of `ls -l`: what clients show to people, and what some of them take apart again.
//!
//! The form is that of OpenSSH's sftp-server to the byte. Source: ls(1p), "Long Format".
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use rustix::fs::{FileType, Stat};

use super::names::Names;
use super::zone::{Zone, date};
use crate::path::file_type;
use crate::text::decimal;

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];
/// Half a year: what is older shows its year in place of the hour.
const RECENT_S: i64 = 365 * 24 * 60 * 60 / 2;

/// What a line is made with.
#[derive(Debug)]
pub struct LongNames<'a> {
    /// Names of owners.
    pub users: &'a mut Names,
    /// Names of groups.
    pub groups: &'a mut Names,
    /// For dates.
    pub zone: &'a Zone,
    /// Now, in seconds since 1970.
    pub now: i64,
}

impl LongNames<'_> {
    /// The line for `name`.
    pub fn line(&mut self, name: &[u8], stat: &Stat) -> Vec<u8> {
        let mut line = Vec::with_capacity(64 + name.len());
        line.extend_from_slice(&mode_text(stat));
        line.extend_from_slice(b"  ");
        let links = u32::try_from(stat.st_nlink).unwrap_or(u32::MAX);
        right(&mut line, 3, &decimal(links));
        line.push(b' ');
        owner(&mut line, self.users, stat.st_uid);
        owner(&mut line, self.groups, stat.st_gid);
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        right(&mut line, 8, &decimal_u64(size));
        line.push(b' ');
        self.put_date(&mut line, stat.st_mtime);
        line.push(b' ');
        line.extend_from_slice(name);
        line
    }

    fn put_date(&self, line: &mut Vec<u8>, time: i64) {
        let (year, month, day, hour, minute) = date(time.saturating_add(self.zone.offset(time)));
        line.extend_from_slice(MONTHS.get(month).copied().unwrap_or(b"???"));
        line.push(b' ');
        right(line, 2, &decimal(day));
        line.push(b' ');
        if time <= self.now && time > self.now.saturating_sub(RECENT_S) {
            two_digits(line, hour);
            line.push(b':');
            two_digits(line, minute);
        } else {
            let year = decimal_u64(u64::try_from(year).unwrap_or(0));
            right(line, 5, &year);
        }
    }
}

fn owner(line: &mut Vec<u8>, names: &mut Names, id: u32) {
    let start = line.len();
    match names.name(id) {
        Some(name) => line.extend_from_slice(name),
        None => line.extend_from_slice(&decimal(id)),
    }
    while line.len() < start + 8 {
        line.push(b' ');
    }
    line.push(b' ');
}

fn right(line: &mut Vec<u8>, width: usize, text: &[u8]) {
    for _ in text.len()..width {
        line.push(b' ');
    }
    line.extend_from_slice(text);
}

fn two_digits(line: &mut Vec<u8>, number: u32) {
    if number < 10 {
        line.push(b'0');
    }
    line.extend_from_slice(&decimal(number));
}

/// `number` in decimal digits.
pub fn decimal_u64(number: u64) -> Vec<u8> {
    const BILLION: u64 = 1_000_000_000;
    match u32::try_from(number) {
        Ok(number) => decimal(number),
        Err(_) => {
            let mut text = decimal_u64(number / BILLION);
            let low = decimal(u32::try_from(number % BILLION).unwrap_or(0));
            text.extend(core::iter::repeat_n(
                b'0',
                9_usize.saturating_sub(low.len()),
            ));
            text.extend_from_slice(&low);
            text
        }
    }
}

/// `drwxr-xr-x`.
fn mode_text(stat: &Stat) -> [u8; 10] {
    let mode = stat.st_mode;
    let kind = match file_type(stat) {
        FileType::Directory => b'd',
        FileType::Symlink => b'l',
        FileType::RegularFile => b'-',
        FileType::CharacterDevice => b'c',
        FileType::BlockDevice => b'b',
        FileType::Fifo => b'p',
        FileType::Socket => b's',
        FileType::Unknown => b'?',
    };
    let mut text = [kind; 10];
    let mut bit = 0o400;
    for (place, letter) in text.iter_mut().skip(1).zip(b"rwxrwxrwx") {
        *place = if mode & bit == 0 { b'-' } else { *letter };
        bit >>= 1;
    }
    for (place, bit, executable, other) in [
        (3, 0o4000, b's', b'S'),
        (6, 0o2000, b's', b'S'),
        (9, 0o1000, b't', b'T'),
    ] {
        if mode & bit != 0
            && let Some(place) = text.get_mut(place)
        {
            *place = if *place == b'x' { executable } else { other };
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sftp::names::Database;

    #[test]
    fn numbers_of_any_length() {
        for number in [
            0,
            9,
            4_294_967_296,
            10_000_000_000,
            1_000_000_001_000_000_002,
            u64::MAX,
        ] {
            assert_eq!(decimal_u64(number), alloc::format!("{number}").into_bytes());
        }
    }

    #[test]
    fn a_line_has_the_form_of_ls() {
        let mut stat = rustix::fs::stat(c"/").expect("a root directory");
        stat.st_mode = 0o104_755;
        stat.st_nlink = 2;
        stat.st_uid = 0;
        stat.st_gid = 4_000_000_000;
        stat.st_size = 5 << 30;
        stat.st_mtime = 1_700_000_000;
        let zone = Zone::default();
        let line = |now| {
            let (mut users, mut groups) =
                (Names::new(Database::Users), Names::new(Database::Groups));
            let mut names = LongNames {
                users: &mut users,
                groups: &mut groups,
                zone: &zone,
                now,
            };
            alloc::string::String::from_utf8(names.line(b"a file", &stat)).expect("text")
        };
        assert_eq!(
            line(1_700_000_100),
            "-rwsr-xr-x    2 root     4000000000 5368709120 Nov 14 22:13 a file"
        );
        assert_eq!(
            line(1_800_000_000),
            "-rwsr-xr-x    2 root     4000000000 5368709120 Nov 14  2023 a file"
        );
        assert_eq!(
            line(1_600_000_000),
            line(1_800_000_000),
            "the future shows its year"
        );
    }
}
