//! What /proc says of a confined process.

use std::collections::BTreeMap;
use std::fs;

use super::launched::{Net, confined_id, is_root};

pub fn status(pid: u32) -> BTreeMap<String, String> {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[test]
fn nothing_that_this_kernel_has_is_missing() {
    let net = Net::start();
    assert_eq!(net.missing, Vec::<String>::new());
}

#[test]
fn ids_capabilities_and_ways_back_are_gone() {
    let net = Net::start();
    let status = status(net.pid());
    let id = confined_id();
    let four = format!("{id}\t{id}\t{id}\t{id}");
    assert_eq!(status["Uid"], four);
    if is_root() {
        assert_eq!(status["Gid"], four);
        assert_eq!(status["Groups"], "");
        assert_eq!(status["CapBnd"], "0000000000000000");
    }
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status[set], "0000000000000000", "{set}");
    }
    assert_eq!(status["NoNewPrivs"], "1");
    // A filter, and both of ours.
    assert_eq!(status["Seccomp"], "2");
    assert_eq!(status["Seccomp_filters"], "2");
    assert_eq!(status["Threads"], "1");
}

#[test]
fn its_root_is_empty() {
    if !is_root() {
        eprintln!("skipped: only root may look into a process that is not dumpable");
        return;
    }
    let net = Net::start();
    let entries: Vec<_> = fs::read_dir(format!("/proc/{}/root/", net.pid()))
        .unwrap()
        .collect();
    assert!(entries.is_empty(), "{entries:?}");
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", net.pid())).unwrap();
    assert_eq!(mounts.lines().count(), 1, "{mounts}");
    assert!(mounts.contains(" / / ro,nosuid,nodev,noexec"), "{mounts}");
    let cwd = fs::read_link(format!("/proc/{}/cwd", net.pid())).unwrap();
    assert_eq!(cwd.to_str(), Some("/"));
}

#[test]
fn it_holds_the_link_its_listeners_and_nothing_else() {
    if !is_root() {
        eprintln!("skipped: only root may look into a process that is not dumpable");
        return;
    }
    let net = Net::start();
    // Three times nothing, two sockets, and the eventfd by which threads say that they ended.
    let expected = [
        "/dev/null",
        "/dev/null",
        "/dev/null",
        "anon_inode",
        "socket",
        "socket",
    ];
    let open = || {
        let mut open: Vec<String> = fs::read_dir(format!("/proc/{}/fd", net.pid()))
            .unwrap()
            .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
            .map(|target| target.to_str().unwrap().to_owned())
            .map(|target| target.split(':').next().unwrap().to_owned())
            .collect();
        open.sort();
        open
    };
    // The eventfd comes after the word that the process is ready.
    for _ in 0..100 {
        if open().len() >= expected.len() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(open(), expected);
}
