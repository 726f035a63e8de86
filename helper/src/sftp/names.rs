//! Names of users and groups, out of `/etc/passwd` and `/etc/group` as the process sees them (in a
//! chroot its own).
//!
//! There is no C library here and so no name service: who is in another directory only shows as a
//! number. Source: passwd(5), group(5).
#![forbid(unsafe_code)]

use alloc::vec::Vec;

use crate::path::read_regular;
use crate::text::{parse_decimal, split};

/// A file beyond this is cut: some ten thousand accounts.
const FILE_MAX_BYTES: usize = 1024 * 1024;
/// Ids remembered of each kind: more owners in one directory are looked up again.
const REMEMBERED_MAX: usize = 64;

/// Columns of both files, and one of `/etc/passwd`.
const NAME: usize = 0;
const ID: usize = 2;
const HOME: usize = 5;

/// Which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    /// `/etc/passwd`.
    Users,
    /// `/etc/group`.
    Groups,
}

/// Looks names up, and remembers them for as long as the server runs.
#[derive(Debug)]
pub struct Names {
    database: Database,
    content: Option<Vec<u8>>,
    remembered: Vec<(u32, Option<Vec<u8>>)>,
}

impl Names {
    /// Nothing is read before the first question.
    pub fn new(database: Database) -> Self {
        Self {
            database,
            content: None,
            remembered: Vec::new(),
        }
    }

    /// The name of `id`.
    pub fn name(&mut self, id: u32) -> Option<&[u8]> {
        let known = self.remembered.iter().position(|(known, _)| *known == id);
        let index = match known {
            Some(index) => index,
            None => {
                let is_it = |text: &[u8]| parse_decimal(text) == Some(id as usize);
                let name = self.find(ID, &is_it, NAME).map(<[u8]>::to_vec);
                if self.remembered.len() >= REMEMBERED_MAX {
                    self.remembered.swap_remove(0);
                }
                self.remembered.push((id, name));
                self.remembered.len() - 1
            }
        };
        self.remembered.get(index)?.1.as_deref()
    }

    /// The home directory of the user called `name`.
    pub fn home(&mut self, name: &[u8]) -> Option<&[u8]> {
        self.find(NAME, &|text| text == name, HOME)
    }

    /// The field in column `wanted` of the first line whose field in column `known` is the one.
    fn find(
        &mut self,
        known: usize,
        is_it: &dyn Fn(&[u8]) -> bool,
        wanted: usize,
    ) -> Option<&[u8]> {
        let path: &[u8] = match self.database {
            Database::Users => b"/etc/passwd",
            Database::Groups => b"/etc/group",
        };
        let read = || read_regular(path, FILE_MAX_BYTES).unwrap_or_default();
        let content = self.content.get_or_insert_with(read);
        split(content, b'\n')
            .find(|line| field(line, known).is_some_and(is_it))
            .and_then(|line| field(line, wanted))
    }
}

#[inline(never)]
fn field(line: &[u8], column: usize) -> Option<&[u8]> {
    split(line, b':').nth(column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(content: &str) -> Names {
        Names {
            content: Some(content.into()),
            ..Names::new(Database::Users)
        }
    }

    #[test]
    fn names_and_homes_are_found_in_their_columns() {
        let mut names =
            users("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000:A,,:/home/alice:/bin/ash\n");
        assert_eq!(names.name(0), Some(b"root".as_slice()));
        assert_eq!(names.name(1000), Some(b"alice".as_slice()));
        assert_eq!(names.name(1001), None);
        assert_eq!(names.home(b"alice"), Some(b"/home/alice".as_slice()));
        assert_eq!(names.home(b"bob"), None);
    }

    #[test]
    fn broken_lines_are_nobody() {
        let mut names = users("\n:\nx\nx:y:\nx:y:z:\nbob:x:5\n");
        assert_eq!(names.name(5), Some(b"bob".as_slice()));
        assert_eq!(names.home(b"bob"), None);
        assert_eq!(names.name(0), None);
    }

    #[test]
    fn many_owners_are_still_told_right() {
        let content: alloc::string::String = (0..500)
            .map(|id| alloc::format!("u{id}:x:{id}:0::/:\n"))
            .collect();
        let mut names = users(&content);
        for id in (0..500).chain(0..500) {
            assert_eq!(names.name(id), Some(alloc::format!("u{id}").as_bytes()));
        }
        assert!(names.remembered.len() <= REMEMBERED_MAX);
    }

    #[test]
    fn the_machine_s_own_files_are_read() {
        assert_eq!(
            Names::new(Database::Users).name(0),
            Some(b"root".as_slice())
        );
        assert_eq!(
            Names::new(Database::Groups).name(0),
            Some(b"root".as_slice())
        );
    }
}
