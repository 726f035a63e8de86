//! Which file an upgrade executes, and whether root may.
//!
//! It is the path that this server was started by, as the service manager or the shell wrote it, with
//! symbolic links as they are now: packages replace the file by rename, other installations switch a
//! link. The path is noted once, at the first start, and handed from program to program; neither a
//! client nor `net`, a user or the debug service has a word in it. The file is opened once, and what
//! was opened is what is proven and executed, whatever happens to the name meanwhile. Nothing here
//! needs /proc.
//!
//! The file, every directory on the way to it and every link must belong to root or to the server's
//! own user, and nobody else may be able to write there.
//!
//! Sources: getauxval(3) AT_EXECFN; execveat(2) on what that reads after an exec by descriptor.

#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use crate::trusted_path;

/// How this server was started, to be started so again.
#[derive(Debug, Clone)]
pub struct Program {
    /// `None`: nobody knows it, since it was started by descriptor and its name is gone.
    pub path: Option<PathBuf>,
    /// All of them, argv\[0\] included.
    pub arguments: Vec<CString>,
}

impl Program {
    /// Of this process. To be asked before its title is changed, which overwrites the arguments.
    /// `handed_down`: the path that an earlier program in this process was started by.
    pub fn of_this_process(handed_down: Option<PathBuf>) -> Self {
        let arguments = std::env::args_os()
            .filter_map(|argument| CString::new(argument.into_vec()).ok())
            .collect();
        Self {
            path: handed_down.or_else(own_path),
            arguments,
        }
    }
}

fn own_path() -> Option<PathBuf> {
    let given = Path::new(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
    let by_descriptor = given.starts_with("/dev/fd") || given.starts_with("/proc");
    if given.as_os_str().is_empty() || by_descriptor {
        return fs::read_link("/proc/self/exe")
            .ok()
            .filter(|path| path.exists());
    }
    let path = std::env::current_dir().map_or_else(|_| given.to_owned(), |here| here.join(given));
    // Without the "." of "./agent".
    Some(path.components().collect())
}

/// Opens the file at `path` for being executed as this process.
///
/// # Errors
///
/// A sentence that says what is in the way and what to do.
pub fn open(path: &Path) -> Result<OwnedFd, String> {
    let file = trusted_path::open(path).map_err(|what| {
        let hint = if path.exists() {
            ""
        } else {
            "; put the new file there"
        };
        format!("{what}{hint}")
    })?;
    check_file(&file, path)?;
    Ok(file.into())
}

fn check_file(file: &File, path: &Path) -> Result<(), String> {
    let found = file
        .metadata()
        .map_err(|error| format!("{} cannot be looked at ({error})", path.display()))?;
    trusted_path::check_owner(&found, path)?;
    check_content(file, &found).map_err(|what| format!("{}: {what}", path.display()))
}

fn check_content(file: &File, found: &fs::Metadata) -> Result<(), String> {
    if !found.is_file() {
        return Err("is not a regular file".to_owned());
    }
    if found.mode() & 0o022 != 0 {
        return Err(format!(
            "can be written by others (mode {:04o}), who could change it: chmod go-w FILE",
            found.mode() & 0o7777
        ));
    }
    if found.mode() & 0o111 == 0 {
        return Err("is not executable: chmod 755 FILE".to_owned());
    }
    let end = elf_end(file).ok_or("is no program (it has no ELF header); was it copied whole?")?;
    if found.len() < end {
        return Err(format!(
            "is cut off, {} of {end} bytes are there; copy it again (is the disk full?)",
            found.len()
        ));
    }
    Ok(())
}

/// Where a program ends by its own word: its probe would run although pages that it does not use are
/// missing. The table of sections is what linkers write last. `None`: it is no ELF file for this kind
/// of processor, or what it says of itself makes no sense.
fn elf_end(file: &File) -> Option<u64> {
    /// As elf(5) has them: e_shoff, e_shentsize, e_shnum.
    const LAYOUT: [usize; 3] = match size_of::<usize>() {
        8 => [0x28, 0x3a, 0x3c],
        _ => [0x20, 0x2e, 0x30],
    };
    const CLASS: u8 = if size_of::<usize>() == 8 { 2 } else { 1 };
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).ok()?;
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    if head[4] != CLASS {
        // The kernel says what it is not.
        return Some(0);
    }
    let small = |at: usize| Some(u16::from_ne_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let [offset, size, count] = LAYOUT;
    let word = head.get(offset..offset + size_of::<usize>())?;
    let start = u64::try_from(usize::from_ne_bytes(word.try_into().ok()?)).ok()?;
    start.checked_add(u64::from(small(size)?) * u64::from(small(count)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn directory(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("agent-program-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn program(path: &Path, mode: u32) {
        // Whole, and one of ours: this test.
        fs::copy("/proc/self/exe", path).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_path_of_this_test_is_known() {
        let known = Program::of_this_process(None);
        let path = known.path.unwrap();
        assert!(path.is_absolute() && path.is_file(), "{path:?}");
        let first = std::env::args_os().next().unwrap();
        assert_eq!(known.arguments[0].as_bytes(), first.as_bytes());
        let other = Program::of_this_process(Some("/sbin/other".into()));
        assert_eq!(other.path, Some("/sbin/other".into()));
    }

    #[test]
    fn a_link_leads_where_it_leads_now() {
        let directory = directory("link");
        let link = directory.join("agent");
        for version in ["1", "2"] {
            program(&directory.join(version), 0o755);
            let _ = fs::remove_file(&link);
            symlink(version, &link).unwrap();
            let opened = File::from(open(&link).unwrap()).metadata().unwrap().ino();
            assert_eq!(opened, fs::metadata(directory.join(version)).unwrap().ino());
        }
        symlink("loop", directory.join("loop")).unwrap();
        assert!(open(&directory.join("loop")).unwrap_err().contains("links"));
        fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_others_could_have_changed_is_not_executed() {
        let directory = directory("trust");
        let path = directory.join("agent");
        let refusal = |path: &Path| open(path).unwrap_err();
        assert!(refusal(&path).contains("put the new file there"));
        program(&path, 0o775);
        assert!(refusal(&path).contains("chmod go-w"));
        program(&path, 0o644);
        assert!(refusal(&path).contains("chmod 755"));
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(refusal(&path).contains("no ELF header"));
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        program(&path, 0o755);
        assert!(refusal(&path).contains("can be written by others"));
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(open(&path).is_ok());
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len - 1).unwrap();
        let said = refusal(&path);
        assert!(
            said.contains(&format!("{} of {len} bytes", len - 1)),
            "{said}"
        );
        file.set_len(len + 1).unwrap();
        assert!(open(&path).is_ok(), "more does no harm");
        file.set_len(40).unwrap();
        assert!(refusal(&path).contains("no ELF header"));
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        // A link in a good place to a file in a bad one.
        let good = self::directory("good");
        symlink(&path, good.join("agent")).unwrap();
        assert!(refusal(&good.join("agent")).contains("can be written by others"));
        fs::create_dir(good.join("directory")).unwrap();
        assert!(refusal(&good.join("directory")).contains("regular file"));
        fs::remove_dir_all(&directory).unwrap();
        fs::remove_dir_all(&good).unwrap();
        if rustix::process::geteuid().is_root() {
            let directory = self::directory("owner");
            let path = directory.join("agent");
            program(&path, 0o755);
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            assert!(refusal(&path).contains("user 12345"));
            program(&path, 0o755);
            std::os::unix::fs::chown(&path, Some(0), None).unwrap();
            // Nobody can take our file out of a sticky directory of root's; a link there may be theirs.
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o1777)).unwrap();
            assert!(open(&path).is_ok());
            let link = directory.join("link");
            symlink(&path, &link).unwrap();
            assert!(open(&link).is_ok());
            std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
            assert!(refusal(&link).contains("user 12345"));
            fs::remove_dir_all(&directory).unwrap();
        }
    }

    #[test]
    fn links_on_the_way_count_too() {
        let directory = directory("way");
        let place = directory.join("versions/1");
        fs::create_dir_all(&place).unwrap();
        for made in [&place, &directory.join("versions")] {
            fs::set_permissions(made, fs::Permissions::from_mode(0o755)).unwrap();
        }
        program(&place.join("agent"), 0o755);
        let link = directory.join("current");
        symlink("versions/../versions/1", &link).unwrap();
        let path = link.join("agent");
        assert!(open(&path).is_ok());
        assert!(open(&directory.join("../").join(&path)).is_ok());
        assert!(open(&link).unwrap_err().contains("regular file"));
        assert!(open(&path.join("more")).is_err());
        if rustix::process::geteuid().is_root() {
            // Whoever owns it could have it lead to any other file of root's.
            std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
            let said = open(&path).unwrap_err();
            assert!(said.contains("current belongs to user 12345"), "{said}");
        }
        fs::remove_dir_all(&directory).unwrap();
    }
}
