//! Whether a directory is ours alone: what is kept there decides who may log in, or who we are.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::process::geteuid;

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
    check_way(directory, true)
}

/// As [`check`], for where something is that exists and belongs to us: a sticky directory will do for
/// that, too.
///
/// # Errors
///
/// As [`check`].
pub fn check_around(directory: &Path) -> Result<(), String> {
    check_way(directory, false)
}

fn check_way(directory: &Path, is_for_new: bool) -> Result<(), String> {
    let real = fs::canonicalize(directory).map_err(|error| {
        format!(
            "{} cannot be resolved ({error}); check that it exists",
            directory.display()
        )
    })?;
    let mut component = Some(real.as_path());
    while let Some(path) = component {
        check_one(path, is_for_new && path == real)?;
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

fn check_one(path: &Path, is_last: bool) -> Result<(), String> {
    let metadata = fs::metadata(path)
        .map_err(|error| format!("{} cannot be looked at ({error})", path.display()))?;
    if !metadata.is_dir() {
        return Err(format!("{} is not a directory", path.display()));
    }
    let (owner, own) = (metadata.uid(), geteuid().as_raw());
    if owner != 0 && owner != own {
        return Err(format!(
            "{} belongs to user {owner}, who could replace what is in it; \
             make it root's: chown root {}",
            path.display(),
            path.display()
        ));
    }
    let mode = metadata.mode();
    let sticky = !is_last && owner == 0 && mode & STICKY != 0;
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
        assert_eq!(
            check_around(&std::env::temp_dir()).is_ok(),
            fs::metadata(std::env::temp_dir()).unwrap().uid() == 0
        );
        assert!(check(&top.join("absent")).is_err());
        fs::remove_dir_all(&top).unwrap();
    }
}
