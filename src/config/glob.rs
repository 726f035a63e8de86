//! File name patterns of `Include` (glob(7)): `*`, `?`, brackets and backslash, component by component.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// The files that `pattern`, an absolute path, names, sorted by their bytes. A pattern without
/// wildcards names its file whether or not that exists.
///
/// # Errors
///
/// A directory that is there and cannot be read: its files may restrict, so they must not be lost.
pub fn expand(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from("/")];
    for component in pattern.components() {
        let name = match component {
            Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
            Component::ParentDir => OsStr::new(".."),
            Component::Normal(name) => name,
        };
        found = if is_wild(name.as_bytes()) {
            let mut below = Vec::new();
            for directory in &found {
                below.extend(entries(directory, name.as_bytes())?);
            }
            below
        } else {
            let name = unescape(name.as_bytes());
            found
                .iter()
                .map(|directory| directory.join(OsStr::from_bytes(&name)))
                .collect()
        };
    }
    if pattern
        .components()
        .any(|part| is_wild(part.as_os_str().as_bytes()))
    {
        found.retain(|path| path.exists());
    }
    Ok(found)
}

/// Whether `pattern` has wildcards at all.
pub fn is_wild(pattern: &[u8]) -> bool {
    pattern
        .iter()
        .any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

fn entries(directory: &Path, pattern: &[u8]) -> io::Result<Vec<PathBuf>> {
    let listing = match fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => {
            let text = format!("cannot list {}: {error}", directory.display());
            return Err(io::Error::new(error.kind(), text));
        }
    };
    let mut found = Vec::new();
    for entry in listing {
        let name = entry?.file_name();
        let bytes = name.as_bytes();
        // A leading dot must be written out.
        if (bytes.first() != Some(&b'.') || pattern.first() == Some(&b'.'))
            && component_matches(bytes, pattern)
        {
            found.push(directory.join(&name));
        }
    }
    found.sort();
    Ok(found)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Whether one name matches one component of a pattern. Time is bounded as in
/// [`crate::pattern::matches_one`].
fn component_matches(name: &[u8], pattern: &[u8]) -> bool {
    let (mut name_left, mut pattern_left) = (name, pattern);
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let Some((b'*', behind)) = pattern_left.split_first() {
            retry = Some((name_left, behind));
            pattern_left = behind;
            continue;
        }
        match (name_left.split_first(), single(pattern_left)) {
            (None, None) if pattern_left.is_empty() => return true,
            (Some((&byte, name_behind)), Some((wanted, behind))) if wanted.admits(byte) => {
                name_left = name_behind;
                pattern_left = behind;
            }
            _ => match retry {
                Some((tried, behind)) if !tried.is_empty() => {
                    retry = Some((&tried[1..], behind));
                    name_left = &tried[1..];
                    pattern_left = behind;
                }
                _ => return false,
            },
        }
    }
}

/// What stands for one byte.
enum Single<'a> {
    Any,
    Byte(u8),
    Set { negated: bool, members: &'a [u8] },
}

impl Single<'_> {
    fn admits(&self, byte: u8) -> bool {
        match self {
            Self::Any => true,
            Self::Byte(wanted) => byte == *wanted,
            Self::Set { negated, members } => in_set(byte, members) != *negated,
        }
    }
}

/// The first item of a pattern that does not begin with `*`, and what is behind it.
fn single(pattern: &[u8]) -> Option<(Single<'_>, &[u8])> {
    let (&first, behind) = pattern.split_first()?;
    Some(match first {
        b'?' => (Single::Any, behind),
        b'\\' => match behind.split_first() {
            Some((&byte, behind)) => (Single::Byte(byte), behind),
            None => (Single::Byte(b'\\'), behind),
        },
        b'[' => bracket(behind).unwrap_or((Single::Byte(b'['), behind)),
        byte => (Single::Byte(byte), behind),
    })
}

/// A set behind its `[`; `None` where it is not closed, so that the bracket is an ordinary byte.
fn bracket(behind: &[u8]) -> Option<(Single<'_>, &[u8])> {
    let negated = matches!(behind.first(), Some(b'!' | b'^'));
    let members = &behind[usize::from(negated)..];
    // A `]` in the first place is a member.
    let length = 1 + members.get(1..)?.iter().position(|&byte| byte == b']')?;
    let (members, rest) = members.split_at(length);
    Some((Single::Set { negated, members }, &rest[1..]))
}

fn in_set(byte: u8, members: &[u8]) -> bool {
    let mut rest = members;
    loop {
        match rest {
            [low, b'-', high, behind @ ..] => {
                if (*low..=*high).contains(&byte) {
                    return true;
                }
                rest = behind;
            }
            [member, behind @ ..] => {
                if *member == byte {
                    return true;
                }
                rest = behind;
            }
            [] => return false,
        }
    }
}

fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        plain.push(if byte == b'\\' {
            *bytes.next().unwrap_or(&b'\\')
        } else {
            byte
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn components_match_as_in_glob() {
        for (name, pattern, expected) in [
            ("10-a.conf", "*.conf", true),
            ("10-a.conf~", "*.conf", false),
            ("a", "?", true),
            ("b", "[abc]", true),
            ("d", "[a-c]", false),
            ("d", "[!a-c]", true),
            ("]", "[]]", true),
            ("[x", "[x", true),
            ("*", r"\*", true),
            ("a", r"\*", false),
            ("", "*", true),
            ("", "", true),
            ("aab", "*ab", true),
        ] {
            assert_eq!(
                component_matches(name.as_bytes(), pattern.as_bytes()),
                expected,
                "{name} {pattern}"
            );
        }
    }

    #[test]
    fn files_come_sorted_without_hidden_ones() {
        let directory = std::env::temp_dir().join(format!("agent-glob-{}", std::process::id()));
        fs::create_dir_all(directory.join("d")).unwrap();
        for name in ["20.conf", "10.conf", ".05.conf", "30.txt"] {
            fs::write(directory.join("d").join(name), "").unwrap();
        }
        let found = expand(&directory.join("d*").join("*.conf")).unwrap();
        let names: Vec<_> = found
            .iter()
            .map(|path| path.file_name().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["10.conf", "20.conf"]);
        assert!(
            expand(&directory.join("absent").join("*.conf"))
                .unwrap()
                .is_empty()
        );
        fs::remove_dir_all(directory).unwrap();
    }
}
