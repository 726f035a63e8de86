//! When things go wrong or get large: a clear answer, nothing acknowledged that is not there, and
//! bounded memory.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::client::{self, Client, END_OF_FILE, OK};
use crate::twins::Place;

const NEW: u32 = 1 | 2 | 8;

#[test]
fn every_name_of_a_large_directory_is_told_once() {
    let place = Place::new("large");
    let count = 100_000;
    for number in 0..count {
        fs::File::create(place.0.join(format!("entry number {number}"))).unwrap();
    }
    let mut client = Client::start(&place.0, &[]);
    let mut names = client.list(&place.0).unwrap();
    assert_eq!(names.len(), count + 2);
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count + 2);
    let status = fs::read_to_string(format!("/proc/{}/status", client.server.id())).unwrap();
    let peak = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .unwrap();
    let kib: usize = peak.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 4096, "{peak}");
}

#[test]
fn offsets_beyond_4_gib_and_holes() {
    let place = Place::new("sparse");
    let file = place.0.join("file");
    let mut client = Client::start(&place.0, &[]);
    let handle = client.open(&file, NEW).unwrap();
    let far = (5 << 30) + 12_345;
    assert_eq!(client.write(&handle, far, b"far away"), OK);
    assert_eq!(client.read(&handle, far, 100).unwrap(), b"far away");
    assert_eq!(client.read(&handle, 1 << 32, 10).unwrap(), [0; 10]);
    assert_eq!(client.read(&handle, far + 8, 1), Err(END_OF_FILE));
    assert_eq!(client.read(&handle, 1 << 62, 1), Err(END_OF_FILE));
    let stat = fs::metadata(&file).unwrap();
    assert_eq!(stat.len(), far + 8);
    assert!(stat.blocks() < 100, "a hole takes no room");
}

/// As far as the limit goes the file is written, and what is beyond is refused; the server lives.
#[test]
fn a_file_that_may_not_grow_is_a_status() {
    let place = Place::new("limit");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 20; exec \"$0\" sftp-server"]);
    command.arg(env!("CARGO_BIN_EXE_agent"));
    let mut client = Client::start_by(command, &place.0);
    let handle = client.open(&place.0.join("file"), NEW).unwrap();
    assert_eq!(client.write(&handle, 0, &[1; 5000]), OK);
    assert_eq!(client.write(&handle, 5000, &[2; 60_000]), 4);
    assert_eq!(client.write(&handle, 0, &[3; 10]), OK);
    assert_eq!(client.close(&handle), OK);
    assert_eq!(client.finish(), Some(0));
}

/// A disk that is full, and one that is read-only.
#[test]
fn a_full_disk_and_a_read_only_one_are_a_status() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: mounting needs root");
        return;
    }
    let place = Place::new("full");
    let script = "mount -t tmpfs -o size=64k none . && cd \"$PWD\" && exec \"$0\" sftp-server";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_agent")]);
    let mut client = Client::start_by(command, &place.0);
    let handle = client.open(Path::new("file"), NEW).unwrap();
    let mut stored = 0_u64;
    let status = loop {
        match client.write(&handle, stored, &[7; 4096]) {
            OK => stored += 4096,
            status => break status,
        }
        assert!(stored < 1 << 20);
    };
    assert_eq!(status, 4);
    for offset in (0..stored).step_by(4096) {
        assert_eq!(client.read(&handle, offset, 4096).unwrap(), [7; 4096]);
    }
    assert_eq!(client.extended("fsync@openssh.com", &handle).status(), OK);
    assert_eq!(client.close(&handle), OK);
    assert_eq!(
        client
            .request(client::REMOVE, &client::string("file"))
            .status(),
        OK
    );
    drop(client);
    let script = "mount -t tmpfs -o ro none . && cd \"$PWD\" && exec \"$0\" sftp-server";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_agent")]);
    let mut client = Client::start_by(command, &place.0);
    assert_eq!(client.open(Path::new("file"), NEW), Err(4));
    let fields = [client::string("d"), vec![0; 4]].concat();
    assert_eq!(client.request(client::MKDIR, &fields).status(), 4);
}

#[test]
fn a_directory_that_was_removed_underneath() {
    let place = Place::new("gone");
    let inside = place.0.join("inside");
    fs::create_dir(&inside).unwrap();
    let mut client = Client::start(&inside, &[]);
    let handle = client.open_directory(&inside).unwrap();
    fs::remove_dir(&inside).unwrap();
    let answer = client.request(client::READDIR, &handle);
    assert_eq!(answer.status(), END_OF_FILE);
    assert_eq!(
        client
            .request(client::REALPATH, &client::string("."))
            .status(),
        2
    );
    assert_eq!(client.open(Path::new("x"), NEW), Err(2));
    assert_eq!(client.close(&handle), OK);
}

#[test]
fn handles_run_out_with_a_status_and_come_back() {
    let place = Place::new("handles");
    fs::write(place.0.join("file"), "x").unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 40; exec \"$0\" sftp-server"]);
    command.arg(env!("CARGO_BIN_EXE_agent"));
    let mut client = Client::start_by(command, &place.0);
    let mut limits = client.extended("limits@openssh.com", &[]);
    let (packet, read, write, handles) = (limits.u64(), limits.u64(), limits.u64(), limits.u64());
    assert_eq!(
        (packet, read, write, handles),
        (262_144, 261_120, 261_120, 33)
    );
    let mut open = Vec::new();
    let status = loop {
        match client.open(Path::new("file"), 1) {
            Ok(handle) => open.push(handle),
            Err(status) => break status,
        }
    };
    assert_eq!(status, 4);
    assert!(open.len() >= 33, "{}", open.len());
    for handle in &open {
        assert_eq!(client.close(handle), OK);
    }
    assert!(client.open(Path::new("file"), 1).is_ok());
}

#[test]
fn names_are_bytes() {
    let place = Place::new("bytes");
    let mut client = Client::start(&place.0, &[]);
    for name in [
        &b"new\nline"[..],
        b"\xff\xfe\x80",
        b" ",
        b"-dash",
        b"\x1b[31m",
        &[b'x'; 255],
    ] {
        let path = place.0.join(std::ffi::OsStr::from_bytes(name));
        let handle = client.open(&path, NEW).unwrap();
        assert_eq!(client.close(&handle), OK);
        assert!(
            client
                .list(&place.0)
                .unwrap()
                .iter()
                .any(|found| found == name)
        );
        assert_eq!(
            client
                .request(client::REMOVE, &client::path(&path))
                .status(),
            OK
        );
    }
    let nul = [
        client::string(b"a\0b"),
        NEW.to_be_bytes().to_vec(),
        vec![0; 4],
    ]
    .concat();
    assert_eq!(client.request(client::OPEN, &nul).status(), 5);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

/// What is copied onto itself would be read where it is written.
#[test]
fn copies_between_names_of_one_file_are_refused() {
    let place = Place::new("copy");
    let (file, link, other) = (
        place.0.join("file"),
        place.0.join("link"),
        place.0.join("other"),
    );
    fs::write(&file, vec![9; 300_000]).unwrap();
    fs::hard_link(&file, &link).unwrap();
    let mut client = Client::start(&place.0, &[]);
    let from = client.open(&file, 1).unwrap();
    let to_link = client.open(&link, 2).unwrap();
    let to = client.open(&other, 2 | 8).unwrap();
    let zero = [0; 16];
    let mut copy = |from: &[u8], to: &[u8]| {
        let fields = [from, &zero[..], to, &zero[..8]].concat();
        client.extended("copy-data", &fields).status()
    };
    assert_eq!(copy(&from, &from), 4);
    assert_eq!(copy(&from, &to_link), 4);
    assert_eq!(copy(&from, &to), OK);
    assert_eq!(fs::read(&other).unwrap(), vec![9; 300_000]);
    assert_eq!(fs::metadata(&file).unwrap().len(), 300_000);
}

/// A copy without an end stops when its client is gone.
#[test]
fn an_endless_copy_ends_with_its_client() {
    let place = Place::new("endless");
    let mut client = Client::start(&place.0, &[]);
    let from = client.open(Path::new("/dev/zero"), 1).unwrap();
    let to = client.open(Path::new("/dev/null"), 2).unwrap();
    let fields = [&from, &[0; 16][..], &to, &[0; 8]].concat();
    client.ask(
        client::EXTENDED,
        &[&client::string("copy-data"), &fields[..]].concat(),
    );
    std::thread::sleep(Duration::from_millis(50));
    drop(client.server.stdin.take());
    drop(client.server.stdout.take());
    let since = Instant::now();
    while client.server.try_wait().unwrap().is_none() {
        assert!(since.elapsed() < Duration::from_secs(20), "it copies on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Thousands of requests before the first answer is looked at.
#[test]
fn requests_that_are_not_waited_for_are_all_answered_in_order() {
    let place = Place::new("pipeline");
    let file = place.0.join("file");
    fs::write(&file, vec![1; 100_000]).unwrap();
    let mut client = Client::start(&place.0, &[]);
    let handle = client.open(&file, NEW).unwrap();
    let ids: Vec<u32> = (0..500_u64)
        .map(|number| {
            let fields = [&handle, &number.to_be_bytes()[..], &10_u32.to_be_bytes()].concat();
            client.ask(client::READ, &fields)
        })
        .collect();
    for id in ids {
        let mut answer = client.answer(id);
        assert_eq!(answer.string(), [1; 10]);
    }
}

#[test]
fn what_is_no_sftp_ends_the_server() {
    let place = Place::new("broken");
    for garbage in [
        &[0xff; 8][..],
        &[0, 0, 0, 0],
        &[0, 4, 0, 1, 3],
        &[0, 0, 0, 2, 3, 0],
    ] {
        let mut client = Client::start(&place.0, &[]);
        use std::io::Write;
        client
            .server
            .stdin
            .as_mut()
            .unwrap()
            .write_all(garbage)
            .unwrap();
        assert_eq!(client.finish(), Some(11), "{garbage:?}");
    }
    let mut client = Client::start(&place.0, &[]);
    // Cut short, but with a number to answer to.
    assert_eq!(
        client.request(client::OPEN, &[0, 0, 0, 9, b'x']).status(),
        5
    );
    assert_eq!(client.request(99, &[]).status(), 8);
    assert_eq!(client.extended("none@example.org", &[]).status(), 8);
    assert_eq!(client.finish(), Some(0));
}

#[test]
fn read_only_offers_and_does_nothing_that_changes() {
    let place = Place::new("readonly");
    let file = place.0.join("file");
    fs::write(&file, "kept").unwrap();
    let mut client = Client::start(&place.0, &["-R"]);
    for flags in [2, 1 | 2, 1 | 8, 1 | 16, 2 | 4] {
        assert_eq!(client.open(&file, flags), Err(3), "{flags}");
    }
    let two = [client::path(&file), client::path(&place.0.join("x"))].concat();
    for kind in [client::RENAME, client::SYMLINK] {
        assert_eq!(client.request(kind, &two).status(), 3);
    }
    for name in ["posix-rename@openssh.com", "hardlink@openssh.com"] {
        assert_eq!(client.extended(name, &two).status(), 3);
    }
    let handle = client.open(&file, 1).unwrap();
    assert_eq!(client.read(&handle, 0, 10).unwrap(), b"kept");
    assert_eq!(client.write(&handle, 0, b"x"), 3);
    assert_eq!(client.extended("fsync@openssh.com", &handle).status(), 3);
    let kept = fs::File::open(&file).unwrap();
    let mut content = [0; 4];
    kept.read_exact_at(&mut content, 0).unwrap();
    assert_eq!((&content, kept.metadata().unwrap().nlink()), (b"kept", 1));
}
