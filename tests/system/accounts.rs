//! Throw-away accounts: made for a case, removed with everything of theirs at its end.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Start of all names, so that a later run finds what an interrupted one left.
const PREFIX: &str = "agtest";

/// useradd and userdel lock passwd and fail where it is locked.
static PASSWD: Mutex<()> = Mutex::new(());
static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// An account with the private key whose public half its authorized_keys holds.
pub struct User {
    pub name: String,
    pub id: u32,
    pub group_id: u32,
    pub home: PathBuf,
    /// Private key, OpenSSH's format, outside of the home directory.
    pub key: PathBuf,
}

impl User {
    pub fn create(directory: &Path) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}x{number}", std::process::id());
        let home = PathBuf::from("/home").join(&name);
        {
            let _lock = PASSWD
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            // The password field "*" admits keys, where useradd's "!" would lock the account.
            run(Command::new("/usr/sbin/useradd")
                .args(["--create-home", "--shell", "/bin/sh", "--password", "*"])
                .args(["--key", "MAIL_DIR=/dev/null", "--no-log-init", "--home-dir"])
                .arg(&home)
                .arg(&name));
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let line = passwd
            .lines()
            .find(|line| line.starts_with(&format!("{name}:")))
            .unwrap();
        let fields: Vec<&str> = line.split(':').collect();
        let key = directory.join(format!("{name}.key"));
        make_key(&key, &["-t", "ed25519"]);
        let user = Self {
            id: fields[2].parse().unwrap(),
            group_id: fields[3].parse().unwrap(),
            name,
            home,
            key,
        };
        user.authorize(&fs::read_to_string(user.key.with_extension("key.pub")).unwrap());
        user
    }

    /// The public key line.
    pub fn public_key(&self) -> String {
        fs::read_to_string(self.key.with_extension("key.pub"))
            .unwrap()
            .trim()
            .to_owned()
    }

    /// Replaces authorized_keys.
    pub fn authorize(&self, lines: &str) {
        self.write(".ssh/authorized_keys", lines);
    }

    /// Writes a file of the user's in the home directory.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.home.join(name);
        let parent = path.parent().unwrap();
        if !parent.exists() {
            fs::create_dir_all(parent).unwrap();
            fs::set_permissions(parent, fs::Permissions::from_mode(0o700)).unwrap();
            chown(parent, Some(self.id), Some(self.group_id)).unwrap();
        }
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&path, Some(self.id), Some(self.group_id)).unwrap();
        path
    }

    /// Process ids of the user's processes whose command line contains `part`.
    pub fn processes(&self, part: &str) -> Vec<u32> {
        crate::processes::all()
            .into_iter()
            .filter(|process| process.uid == self.id && process.command.contains(part))
            .map(|process| process.id)
            .collect()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        remove(&self.name, self.id);
    }
}

/// Removes accounts of runs that were interrupted.
pub fn remove_leftovers() {
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    for line in passwd.lines() {
        let Some(rest) = line.strip_prefix(PREFIX) else {
            continue;
        };
        let process = rest.split('x').next().unwrap_or_default();
        if fs::exists(format!("/proc/{process}")).unwrap_or(false) {
            continue;
        }
        let fields: Vec<&str> = line.split(':').collect();
        remove(fields[0], fields[2].parse().unwrap());
    }
}

fn remove(name: &str, id: u32) {
    // By uid, so that nobody else's process can be meant.
    for process in crate::processes::all()
        .into_iter()
        .filter(|process| process.uid == id)
    {
        crate::processes::kill(process.id, rustix::process::Signal::KILL);
    }
    let _lock = PASSWD
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let _ = Command::new("/usr/sbin/userdel")
        .args(["--force", "--remove", name])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// A key pair without a passphrase.
pub fn make_key(path: &Path, kind: &[&str]) {
    run(Command::new("ssh-keygen")
        .args(["-q", "-N", "", "-C", "test"])
        .args(kind)
        .arg("-f")
        .arg(path));
}

/// Runs a command that must succeed.
pub fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Writes the password field.
pub fn set_hash(user: &User, hash: &str) {
    let _lock = PASSWD
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    run(Command::new("/usr/sbin/usermod").args(["--password", hash, &user.name]));
}

/// Changes the dates of the shadow file.
pub fn set_age(user: &User, arguments: &[&str]) {
    let _lock = PASSWD
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    run(Command::new("/usr/bin/chage")
        .args(arguments)
        .arg(&user.name));
}

/// Changes the login shell.
pub fn set_shell(user: &User, shell: &str) {
    let _lock = PASSWD
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    run(Command::new("/usr/sbin/usermod").args(["--shell", shell, &user.name]));
}
