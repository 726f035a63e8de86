//! Whether a directory is ours alone: what is kept there decides who may log in, or who we are.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Links on one way: the kernel's own limit (path_resolution(7)).
const LINKS_MAX: usize = 40;

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Checks that `directory` and all above it belong to root or to this process's user and that
/// nobody else can write there. Above the last component a sticky directory of root's will do, as
/// /tmp is: nobody else can rename what we own in it.
///
/// # Errors
///
/// A sentence that names the component and what to do.
pub fn check(directory: &Path) -> Result<(), String> {
    check_way(directory)
}

/// Opens a file that is there, for reading: every directory and link on the way is opened by its name
/// in the one before and checked as that, so that what was checked is what is gone through. A sticky
/// directory of root's will do everywhere; the file itself is the caller's to check.
///
/// # Errors
///
/// As [`check`].
pub fn open(path: &Path) -> Result<File, String> {
    let top = || {
        openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map(|top| (top, PathBuf::from("/")))
            .map_err(|errno| format!("/ cannot be opened ({errno})"))
    };
    // Directories from the root to where we are.
    let mut way = vec![top()?];
    let mut names = names_of(path);
    let mut links = 0;
    while let Some(name) = names.pop() {
        if name == ".." {
            way.truncate(way.len().saturating_sub(1).max(1));
            continue;
        }
        let Some((directory, place)) = way.last() else {
            break;
        };
        let place = place.join(&name);
        let cannot = |errno: Errno| format!("{}: cannot be opened ({errno})", place.display());
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(directory, &name, flags | OFlags::PATH, Mode::empty());
        let opened = File::from(opened.map_err(cannot)?);
        let found = opened
            .metadata()
            .map_err(|error| format!("{} cannot be looked at ({error})", place.display()))?;
        if found.is_symlink() {
            check_owner(&found, &place)?;
            links += 1;
            if links > LINKS_MAX {
                return Err(format!("{}: too many links", path.display()));
            }
            let target = readlinkat(&opened, "", Vec::new()).map_err(cannot)?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                way.truncate(1);
            }
            names.extend(names_of(&target));
        } else if found.is_dir() {
            check_directory(&found, &place, true)?;
            way.push((opened.into(), place));
        } else if names.is_empty() {
            let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY;
            let file = openat(directory, &name, flags, Mode::empty()).map_err(cannot)?;
            return Ok(file.into());
        } else {
            return Err(format!("{} is not a directory", place.display()));
        }
    }
    Err(format!("{}: is not a regular file", path.display()))
}

/// The components of a path, the first one last.
fn names_of(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    let mut names: Vec<_> = names.collect();
    names.reverse();
    names
}

fn check_way(directory: &Path) -> Result<(), String> {
    let real = fs::canonicalize(directory).map_err(|error| {
        format!(
            "{} cannot be resolved ({error}); check that it exists",
            directory.display()
        )
    })?;
    let mut component = Some(real.as_path());
    while let Some(path) = component {
        let found = fs::metadata(path)
            .map_err(|error| format!("{} cannot be looked at ({error})", path.display()))?;
        check_directory(&found, path, path != real)?;
        component = path.parent();
    }
    Ok(())
}

/// Makes `directory`, readable by others if `public`, with all that is missing above it, and checks
/// it.
///
/// # Errors
///
/// A sentence as from [`check`].
pub fn create(directory: &Path, public: bool) -> Result<(), String> {
    let mode = if public { 0o755 } else { 0o700 };
    let mut built = PathBuf::new();
    for component in directory.components() {
        built.push(component);
        if matches!(
            component,
            Component::RootDir | Component::ParentDir | Component::CurDir
        ) {
            continue;
        }
        match fs::create_dir(&built) {
            // Apart from mkdir(2), so that the umask does not count.
            Ok(()) => fs::set_permissions(&built, fs::Permissions::from_mode(mode)),
            Err(_) if built.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| format!("directory {} cannot be made ({error})", built.display()))?;
    }
    check(directory)
}

/// Of a file, a directory or a link.
///
/// # Errors
///
/// It is neither root's nor our user's.
pub fn check_owner(found: &Metadata, path: &Path) -> Result<(), String> {
    let owner = found.uid();
    if owner == 0 || owner == geteuid().as_raw() {
        return Ok(());
    }
    Err(format!(
        "{} belongs to user {owner}, who could change it; make it root's: chown -h root {}",
        path.display(),
        path.display()
    ))
}

fn check_directory(found: &Metadata, path: &Path, may_be_sticky: bool) -> Result<(), String> {
    if !found.is_dir() {
        return Err(format!("{} is not a directory", path.display()));
    }
    check_owner(found, path)?;
    let mode = found.mode();
    let sticky = may_be_sticky && found.uid() == 0 && mode & STICKY != 0;
    if mode & WRITABLE_BY_OTHERS != 0 && !sticky {
        return Err(format!(
            "{} can be written by others (mode {:04o}), who could replace what is in it: chmod go-w {}",
            path.display(),
            mode & 0o7777,
            path.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn directories_of_others_or_open_to_others_are_refused() {
        let top = std::env::temp_dir().join(format!("agent-trusted-{}", std::process::id()));
        let below = top.join("a/b");
        create(&below, false).unwrap();
        assert_eq!(fs::metadata(&below).unwrap().mode() & 0o7777, 0o700);
        assert_eq!(create(&below, false), Ok(()), "again");
        fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o775)).unwrap();
        assert!(check(&below).unwrap_err().contains("chmod go-w"));
        fs::set_permissions(top.join("a"), fs::Permissions::from_mode(0o1777)).unwrap();
        if geteuid().is_root() {
            assert_eq!(check(&below), Ok(()), "sticky and root's");
            std::os::unix::fs::chown(top.join("a"), Some(12345), None).unwrap();
            assert!(check(&below).unwrap_err().contains("user 12345"));
        }
        assert!(
            check(&top.join("a")).is_err(),
            "the last component must be closed"
        );
        assert!(check(&top.join("absent")).is_err());
        fs::remove_dir_all(&top).unwrap();
    }
}
