//! System calls that fail, by strace's hand: what a client is told, and what is there afterwards.
//!
//! Quotas, disks that break and servers of network file systems that are gone show in these calls; no
//! test can count on having one.

use std::path::Path;
use std::process::Command;

use crate::client::{self, Client, OK};
use crate::twins::Place;

const READ_WRITE_CREATE: u32 = 1 | 2 | 8;
const NO_SUCH_FILE: u32 = 2;
const FAILURE: u32 = 4;

/// A server whose system calls on `file` fail as `fault` says, in the words of strace(1).
fn server_with(fault: &str, place: &Place, file: &Path) -> Client {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null"]);
    command.arg("-e").arg(format!("inject={fault}"));
    command.arg("-P").arg(file);
    command.args([env!("CARGO_BIN_EXE_agent"), "sftp-server"]);
    Client::start_by(command, &place.0)
}

#[test]
fn a_quota_ends_in_the_middle() {
    let place = Place::new("quota");
    let file = place.0.join("file");
    let mut client = server_with("pwrite64:error=EDQUOT:when=3+", &place, &file);
    let handle = client.open(&file, READ_WRITE_CREATE).unwrap();
    assert_eq!(client.write(&handle, 0, &[1; 1000]), OK);
    assert_eq!(client.write(&handle, 1000, &[2; 1000]), OK);
    assert_eq!(client.write(&handle, 2000, &[3; 1000]), FAILURE);
    assert_eq!(client.close(&handle), OK);
    // What was acknowledged is there, and nothing else.
    let stored = std::fs::read(&file).unwrap();
    assert_eq!(stored, [[1; 1000], [2; 1000]].concat());
}

#[test]
fn what_cannot_be_read_is_no_end_of_file() {
    let place = Place::new("unreadable");
    let file = place.0.join("file");
    std::fs::write(&file, [7; 5000]).unwrap();
    let mut client = server_with("pread64:error=EIO:when=2", &place, &file);
    let handle = client.open(&file, 1).unwrap();
    assert_eq!(client.read(&handle, 0, 1000).unwrap(), [7; 1000]);
    assert_eq!(client.read(&handle, 1000, 1000), Err(FAILURE));
    assert_eq!(client.read(&handle, 1000, 1000).unwrap(), [7; 1000]);
}

#[test]
fn fsync_is_one() {
    let place = Place::new("fsync");
    let file = place.0.join("file");
    let mut client = server_with("fsync:error=EIO:when=1", &place, &file);
    let handle = client.open(&file, READ_WRITE_CREATE).unwrap();
    assert_eq!(client.write(&handle, 0, b"text"), OK);
    let mut fsync = || client.extended("fsync@openssh.com", &handle).status();
    assert_eq!(fsync(), FAILURE);
    assert_eq!(fsync(), OK);
}

#[test]
fn a_close_tells_what_was_not_stored() {
    let place = Place::new("close");
    let file = place.0.join("file");
    let mut client = server_with("close:error=EDQUOT", &place, &file);
    let handle = client.open(&file, READ_WRITE_CREATE).unwrap();
    assert_eq!(client.write(&handle, 0, b"text"), OK);
    assert_eq!(client.close(&handle), FAILURE);
    assert_eq!(
        client.close(&handle),
        NO_SUCH_FILE,
        "it is closed all the same"
    );
    assert_eq!(
        client
            .request(client::REMOVE, &client::path(&file))
            .status(),
        OK
    );
}
