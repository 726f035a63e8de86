//! What a running monitor leaves in the file system: its mark in DataDir, and the pid file.
//!
//! The mark is a file `monitor.PID` with a lock on it. `agent drain` asks the kernel who holds the
//! lock, so a stale file or a reused process id means nothing.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, Pid, Signal, fcntl_getlk, kill_process};

/// Removed when the monitor ends.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    locked: File,
}

impl Mark {
    /// Leaves a mark for this process. Without one the server works; `agent drain` does not find it.
    pub(super) fn leave(data_dir: &Path, as_root: bool) -> Option<Self> {
        let made = make_directory(data_dir, as_root).and_then(|()| Self::make(data_dir));
        made.inspect_err(|error| {
            log::warn!(
                "{}: {error}; `agent drain` will not find this server",
                data_dir.display()
            );
        })
        .ok()
    }

    fn make(data_dir: &Path) -> std::io::Result<Self> {
        let path = data_dir.join(format!("monitor.{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let file = OpenOptions::new()
            .write(true)
            .read(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { path, locked: file })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The server accepts no more: another may have its place.
    pub(super) fn note_drain(&self) {
        let mut file = &self.locked;
        if let Err(error) = file.write_all(&DRAINING) {
            log::debug!("{}: {error}", self.path.display());
        }
    }

    /// Another process took over: the file is not ours any more.
    pub(super) fn forget(self) {
        std::mem::forget(self);
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Makes DataDir; an existing one must belong to us or root and be closed to others.
pub(super) fn make_directory(path: &Path, as_root: bool) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(if as_root { 0o755 } else { 0o700 });
    builder.create(path)?;
    let own = rustix::process::geteuid().as_raw();
    for component in path.ancestors() {
        let found = std::fs::metadata(if component.as_os_str().is_empty() {
            Path::new(".")
        } else {
            component
        })?;
        let trusted = found.uid() == 0 || found.uid() == own;
        // A sticky directory (/tmp) lets nobody replace what another made.
        let closed = found.mode() & 0o022 == 0 || found.mode() & 0o1000 != 0;
        if !trusted || !closed {
            return Err(std::io::Error::other(format!(
                "others may write to {}",
                component.display()
            )));
        }
    }
    Ok(())
}

/// Ends all servers that left a mark in `data_dir`; gives how many there were.
pub(super) fn signal_all(data_dir: &Path) -> std::io::Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(data_dir)?.flatten() {
        if !entry.file_name().to_string_lossy().starts_with("monitor.") {
            continue;
        }
        let file = open_mark(&entry.path())?;
        match holder(&file) {
            Some(pid) => {
                kill_process(pid, Signal::USR1)?;
                count += 1;
            }
            // Left behind by a crash.
            None => drop(std::fs::remove_file(entry.path())),
        }
    }
    Ok(count)
}

/// Whether the servers that left marks in `data_dir`, other than this one, accept no more: all, and
/// there is one.
pub(super) fn others_drain(data_dir: &Path) -> bool {
    let others = others(data_dir);
    !others.is_empty() && others.iter().all(|(_, drains)| *drains)
}

/// The processes that keep connections from before a stop or an upgrade of a server in `data_dir`.
pub(super) fn keepers(data_dir: &Path) -> Vec<u32> {
    let others = others(data_dir).into_iter();
    others
        .filter(|(_, drains)| *drains)
        .map(|(pid, _)| pid.as_raw_nonzero().get().unsigned_abs())
        .collect()
}

/// Who else left a mark and lives, and whether it drains.
fn others(data_dir: &Path) -> Vec<(Pid, bool)> {
    let own = format!("monitor.{}", std::process::id());
    let marks = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    marks
        .filter_map(|entry| {
            let name = entry.file_name();
            // Our own is not looked at: closing it would give its lock back.
            if !name.as_encoded_bytes().starts_with(b"monitor.") || name == *own {
                return None;
            }
            let file = open_mark(&entry.path()).ok()?;
            let pid = holder(&file)?;
            let mut note = [0; DRAINING.len()];
            let drains = file.read_exact_at(&mut note, 0).is_ok() && note == DRAINING;
            Some((pid, drains))
        })
        .collect()
}

/// In the mark of a server that accepts no more.
const DRAINING: [u8; 9] = *b"draining\n";

fn open_mark(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)
}

fn holder(file: &File) -> Option<Pid> {
    fcntl_getlk(file, &Flock::from(FlockType::WriteLock))
        .ok()?
        .and_then(|lock| lock.pid)
}

/// Writes the pid file: a new file, renamed, so that nobody reads half a number.
pub(super) fn write_pid_file(path: &Path) {
    let beside = path.with_extension(format!("{}.new", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&beside)
        .and_then(|mut file| writeln!(file, "{}", std::process::id()))
        .and_then(|()| std::fs::rename(&beside, path));
    if let Err(error) = written {
        let _ = std::fs::remove_file(&beside);
        log::warn!(
            "{}: the pid file could not be written: {error}",
            path.display()
        );
    }
}

/// Removes the pid file, if it is still ours.
pub(super) fn remove_pid_file(path: &Path) {
    let ours = std::process::id().to_string();
    if std::fs::read_to_string(path).is_ok_and(|text| text.trim() == ours) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("agent-rundir-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_mark_is_there_while_its_owner_lives() {
        let directory = directory("mark");
        let mark = Mark::leave(&directory, false).unwrap();
        let path = directory.join(format!("monitor.{}", std::process::id()));
        assert!(path.exists());
        // A process does not conflict with itself: nobody else holds the lock.
        assert_eq!(
            holder(
                &OpenOptions::new()
                    .write(true)
                    .read(true)
                    .open(&path)
                    .unwrap()
            ),
            None
        );
        drop(mark);
        assert!(!path.exists());
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn what_a_crash_left_is_removed_and_signals_nobody() {
        let directory = directory("stale");
        make_directory(&directory, false).unwrap();
        std::fs::write(directory.join("monitor.1"), b"").unwrap();
        assert_eq!(signal_all(&directory).unwrap(), 0);
        assert!(!directory.join("monitor.1").exists());
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn servers_that_drain_give_way_and_others_do_not() {
        let directory = directory("drain");
        make_directory(&directory, false).unwrap();
        assert!(!others_drain(&directory), "there is none");
        // Another process holds the lock of this mark.
        let path = directory.join("monitor.other");
        std::fs::write(&path, b"").unwrap();
        let script = "import fcntl,sys; f=open(sys.argv[1],'r+'); fcntl.lockf(f,fcntl.LOCK_EX); \
                      print(flush=True); sys.stdin.read()";
        let mut other = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 1];
        std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut line).unwrap();
        assert!(!others_drain(&directory), "it serves");
        std::fs::write(&path, DRAINING).unwrap();
        assert!(others_drain(&directory));
        assert_eq!(keepers(&directory), [other.id()]);
        let own = Mark::leave(&directory, false).unwrap();
        assert!(others_drain(&directory), "we are no other");
        own.note_drain();
        assert_eq!(std::fs::read(own.path()).unwrap(), DRAINING);
        drop(other.stdin.take());
        other.wait().unwrap();
        assert!(!others_drain(&directory), "it is gone");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = directory("open");
        make_directory(&directory, false).unwrap();
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(make_directory(&directory, false).is_err());
        std::fs::remove_dir(&directory).unwrap();
    }

    #[test]
    fn the_pid_file_holds_our_number_and_goes_with_us() {
        let directory = directory("pid");
        make_directory(&directory, false).unwrap();
        let path = directory.join("agent.pid");
        write_pid_file(&path);
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{}\n", std::process::id())
        );
        remove_pid_file(&path);
        assert!(!path.exists());
        std::fs::write(&path, "1\n").unwrap();
        remove_pid_file(&path);
        assert!(path.exists());
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
