//! Two directories with one history: one is changed through the server, its twin by system calls.
//! After every request both have the same outcome, and at the end they are the same.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::client::{self, Client};

/// A generator whose numbers a failure can be repeated with.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

pub struct Place(pub PathBuf);

impl Place {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("agent-sftp-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path.canonicalize().unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What OpenSSH's server answers for an errno.
fn code(result: &io::Result<()>) -> u32 {
    let Err(error) = result else { return 0 };
    match error.raw_os_error().unwrap() {
        libc::ENOENT | libc::ENOTDIR | libc::EBADF | libc::ELOOP => 2,
        libc::EPERM | libc::EACCES | libc::EFAULT => 3,
        libc::ENAMETOOLONG | libc::EINVAL => 5,
        libc::ENOSYS => 8,
        _ => 4,
    }
}

/// Names that meet each other often; one is hard to write and one too long.
fn name(numbers: &mut Numbers) -> PathBuf {
    let long = "x".repeat(256);
    let first = ["a", "b", "c", "d", "new\nline \u{1b}[31m", "l", &long][numbers.below(7)];
    let path = PathBuf::from(first);
    match numbers.below(3) {
        0 => path.join(["a", "b", "l"][numbers.below(3)]),
        _ => path,
    }
}

/// rename(2) that does not overwrite: what the twin must do for SSH_FXP_RENAME.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

fn step(numbers: &mut Numbers, client: &mut Client, ours: &Path, twin: &Path) {
    let (first, second) = (name(numbers), name(numbers));
    let (a, b) = (ours.join(&first), ours.join(&second));
    let (c, d) = (twin.join(&first), twin.join(&second));
    let both = [client::path(&a), client::path(&b)].concat();
    let what = numbers.below(13);
    let (found, wanted) = match what {
        0 => {
            let fields = [client::path(&a), vec![0, 0, 0, 4, 0, 0, 1, 0o355]].concat();
            let wanted = fs::create_dir(&c)
                .and_then(|()| fs::set_permissions(&c, fs::Permissions::from_mode(0o755)));
            (client.request(client::MKDIR, &fields).status(), wanted)
        }
        1 => {
            let found = client.request(client::RMDIR, &client::path(&a)).status();
            (found, fs::remove_dir(&c))
        }
        2 => {
            let found = client.request(client::REMOVE, &client::path(&a)).status();
            (found, fs::remove_file(&c))
        }
        3 => {
            let found = client.request(client::RENAME, &both).status();
            (found, rename_new(&c, &d))
        }
        4 => {
            let found = client.extended("posix-rename@openssh.com", &both).status();
            (found, fs::rename(&c, &d))
        }
        5 => {
            // The target comes first; it is relative, so that the twins stay alike.
            let fields = [client::path(&second), client::path(&a)].concat();
            let found = client.request(client::SYMLINK, &fields).status();
            (found, symlink(&second, &c))
        }
        6 => {
            let found = client.extended("hardlink@openssh.com", &both).status();
            (found, fs::hard_link(&c, &d))
        }
        7 => {
            let mode = [0o600_u32, 0o640, 0o755][numbers.below(3)];
            let fields = [
                client::path(&a),
                vec![0, 0, 0, 4],
                mode.to_be_bytes().to_vec(),
            ];
            let found = client.request(client::SETSTAT, &fields.concat()).status();
            (
                found,
                fs::set_permissions(&c, fs::Permissions::from_mode(mode)),
            )
        }
        8 => {
            let size = numbers.below(5000) as u64;
            let fields = [
                client::path(&a),
                vec![0, 0, 0, 1],
                size.to_be_bytes().to_vec(),
            ];
            let found = client.request(client::SETSTAT, &fields.concat()).status();
            let wanted = fs::OpenOptions::new()
                .write(true)
                .open(&c)
                .and_then(|file| file.set_len(size));
            (found, wanted)
        }
        9 | 10 => return write(numbers, client, &a, &c),
        11 => return look(client, &a, &c),
        _ => return list(client, &a, &c),
    };
    assert_eq!(
        found,
        code(&wanted),
        "{what} {first:?} {second:?}: {wanted:?}"
    );
}

/// Opens with any flags, writes, reads back.
fn write(numbers: &mut Numbers, client: &mut Client, ours: &Path, twin: &Path) {
    let flags = [2 | 8, 1 | 2 | 8, 2 | 8 | 16, 2 | 8 | 32, 1, 1 | 2][numbers.below(6)];
    let has = |bit: u32| flags & bit != 0;
    let wanted = fs::OpenOptions::new()
        .read(has(1))
        .write(has(2))
        .create(has(8))
        .truncate(has(16))
        .create_new(has(32))
        .open(twin);
    let found = client.open(ours, flags);
    let (handle, file) = match (found, wanted) {
        (Ok(handle), Ok(file)) => (handle, file),
        (Err(found), Err(error)) => return assert_eq!(found, code(&Err(error)), "{ours:?}"),
        (found, wanted) => panic!("open {ours:?} {flags}: {found:?}, {wanted:?}"),
    };
    let (offset, len) = (numbers.below(20_000) as u64, numbers.below(3000));
    let data: Vec<u8> = (0..len)
        .map(|_| u8::try_from(numbers.below(256)).unwrap())
        .collect();
    if has(2) {
        assert_eq!(client.write(&handle, offset, &data), 0);
        file.write_all_at(&data, offset).unwrap();
    }
    if has(1) && file.metadata().unwrap().is_file() {
        let mut there = vec![0; 40_000];
        let len = file.read_at(&mut there, offset / 2).unwrap();
        there.truncate(len);
        let found = client.read(&handle, offset / 2, 40_000);
        assert_eq!(found, if len == 0 { Err(1) } else { Ok(there) });
    }
    assert_eq!(client.close(&handle), 0);
    assert_ne!(client.close(&handle), 0);
}

/// stat, lstat, readlink, realpath.
fn look(client: &mut Client, ours: &Path, twin: &Path) {
    for (kind, wanted) in [
        (client::STAT, fs::metadata(twin)),
        (client::LSTAT, fs::symlink_metadata(twin)),
    ] {
        let mut answer = client.request(kind, &client::path(ours));
        match wanted {
            Ok(wanted) => {
                assert_eq!((answer.kind, answer.u32()), (client::ATTRS, 15));
                let size = answer.u64();
                assert!(wanted.is_dir() || size == wanted.len());
                let found = [answer.u32(), answer.u32(), answer.u32()];
                assert_eq!(found, [wanted.uid(), wanted.gid(), wanted.mode()]);
            }
            Err(error) => assert_eq!(answer.status(), code(&Err(error))),
        }
    }
    let mut answer = client.request(client::READLINK, &client::path(ours));
    match fs::read_link(twin) {
        Ok(target) => {
            assert_eq!((answer.kind, answer.u32()), (client::NAME, 1));
            assert_eq!(answer.string(), target.as_os_str().as_encoded_bytes());
        }
        Err(error) => assert_eq!(answer.status(), code(&Err(error))),
    }
    if let Ok(real) = fs::canonicalize(ours) {
        let mut answer = client.request(client::REALPATH, &client::path(ours));
        assert_eq!((answer.kind, answer.u32()), (client::NAME, 1));
        assert_eq!(answer.string(), real.as_os_str().as_encoded_bytes());
    }
}

fn list(client: &mut Client, ours: &Path, twin: &Path) {
    match (client.list(ours), fs::read_dir(twin)) {
        (Ok(mut found), Ok(entries)) => {
            let mut wanted: Vec<Vec<u8>> = entries
                .map(|entry| entry.unwrap().file_name().into_encoded_bytes())
                .chain([b".".to_vec(), b"..".to_vec()])
                .collect();
            found.sort();
            wanted.sort();
            assert_eq!(found, wanted);
        }
        (Err(found), Err(error)) => assert_eq!(found, code(&Err(error))),
        (found, wanted) => panic!("list {ours:?}: {found:?}, {wanted:?}"),
    }
}

/// Everything below a directory, as text.
fn tree(path: &Path, shown: &Path, out: &mut Vec<String>) {
    let mut entries: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap())
        .collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, shown) = (entry.path(), shown.join(entry.file_name()));
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = if stat.is_symlink() {
            format!("{:?}", fs::read_link(&path).unwrap())
        } else if stat.is_file() {
            format!("{:?}", fs::read(&path).unwrap())
        } else {
            String::new()
        };
        out.push(format!(
            "{shown:?} {:o} {} {content}",
            stat.mode(),
            if stat.is_dir() { 0 } else { stat.nlink() }
        ));
        if stat.is_dir() {
            tree(&path, &shown, out);
        }
    }
}

#[test]
fn twins_stay_alike() {
    let place = Place::new("twins");
    for seed in 1..=60_u64 {
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (ours, twin) = (
            place.0.join(format!("ours{seed}")),
            place.0.join(format!("twin{seed}")),
        );
        fs::create_dir(&ours).unwrap();
        fs::create_dir(&twin).unwrap();
        let mut client = Client::start(&place.0, &[]);
        for _ in 0..120 {
            step(&mut numbers, &mut client, &ours, &twin);
        }
        assert_eq!(client.finish(), Some(0));
        let (mut a, mut b) = (Vec::new(), Vec::new());
        tree(&ours, Path::new(""), &mut a);
        tree(&twin, Path::new(""), &mut b);
        assert_eq!(a, b, "seed {seed}");
    }
}
