//! What a child finds: arguments, descriptors, signals, and nothing else.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use super::*;

fn shell() -> File {
    File::open("/bin/sh").unwrap()
}

/// What `script` writes to its descriptor 3; `more` become 4, 5 …
fn output_of(script: &str, more: &[BorrowedFd<'_>], stdio: Stdio<'_>) -> (String, i32) {
    let (mut reader, writer) = io::pipe().unwrap();
    let script = CString::new(script).unwrap();
    let descriptors: Vec<BorrowedFd<'_>> = [writer.as_fd()]
        .into_iter()
        .chain(more.iter().copied())
        .collect();
    let image = shell();
    let launched = launch(&Launch {
        environment: &[c"PATH=/usr/bin:/bin".to_owned()],
        descriptors: &descriptors,
        stdio,
        ..Launch::new(image.as_fd(), &[c"sh", c"-c", &script])
    })
    .unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let (_, status) = rustix::process::waitpid(Some(launched.pid), WaitOptions::empty())
        .unwrap()
        .unwrap();
    (text, status.exit_status().unwrap_or(-1))
}

#[test]
fn runs_with_arguments_environment_and_its_exit_status() {
    let (text, status) = output_of("echo $0 $PATH $HOME >&3; exit 7", &[], Stdio::Null);
    assert_eq!(text, "sh /usr/bin:/bin\n");
    assert_eq!(status, 7);
}

#[test]
fn nothing_but_the_given_descriptors_is_open() {
    let (text, _) = output_of(
        "n=0; while [ $n -lt 99 ]; do [ -e /proc/$$/fd/$n ] && echo $n >&3; n=$((n+1)); done
         readlink /proc/$$/fd/0 /proc/$$/fd/2 >&3",
        &[],
        Stdio::Null,
    );
    assert_eq!(text, "0\n1\n2\n3\n/dev/null\n/dev/null\n");
}

#[test]
fn descriptors_arrive_in_the_order_given() {
    let (first_reader, mut first) = io::pipe().unwrap();
    let (second_reader, mut second) = io::pipe().unwrap();
    first.write_all(b"one\n").unwrap();
    second.write_all(b"two\n").unwrap();
    let (text, _) = output_of(
        "read a <&4; read b <&5; echo $a $b >&3",
        &[second_reader.as_fd(), first_reader.as_fd()],
        Stdio::Null,
    );
    assert_eq!(text, "two one\n");
}

#[test]
fn output_and_errors_can_lead_to_one_place() {
    let (mut reader, writer) = io::pipe().unwrap();
    let stdio = Stdio::Output(writer.as_fd());
    let (text, status) = output_of("echo said; read x || echo wrong >&2; exit 3", &[], stdio);
    assert_eq!((text.as_str(), status), ("", 3));
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "said\nwrong\n");
}

#[test]
fn a_failed_exec_is_an_errno_and_leaves_no_child() {
    let directory = File::open("/").unwrap();
    let error = launch(&Launch::new(directory.as_fd(), &[c"x"])).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    let text = File::open("/etc/passwd").unwrap();
    let error = launch(&Launch::new(text.as_fd(), &[c"x"])).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
}

#[test]
fn signals_are_blocked_for_nobody_afterwards_and_default_in_the_child() {
    let state = || {
        std::fs::read_to_string("/proc/thread-self/status")
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("SigBlk"))
            .collect::<String>()
    };
    let before = state();
    let (text, _) = output_of(
        "while read line; do case $line in SigBlk*|SigIgn*) echo $line;; esac; done </proc/$$/status >&3",
        &[],
        Stdio::Null,
    );
    assert_eq!(text, "SigBlk: 0000000000000000\nSigIgn: 0000000000000000\n");
    assert_eq!(state(), before);
}

#[test]
fn gives_a_pidfd_and_a_session_of_its_own() {
    let image = shell();
    let launched = launch(&Launch {
        new_session: true,
        ..Launch::new(image.as_fd(), &[c"sh", c"-c", c"kill -TERM $$"])
    })
    .unwrap();
    assert!(launched.pidfd.is_some(), "this kernel has pidfds");
    let (_, status) = rustix::process::waitpid(Some(launched.pid), WaitOptions::empty())
        .unwrap()
        .unwrap();
    assert_eq!(status.terminating_signal(), Some(libc::SIGTERM));
}

#[test]
fn kernels_without_close_range_lose_their_descriptors_too() {
    // SAFETY: the child makes system calls only, on its own descriptor table, and exits.
    let child = unsafe {
        let child = libc::fork();
        if child == 0 {
            let kept = libc::open(c"/dev/null".as_ptr(), libc::O_RDONLY);
            let from = libc::fcntl(kept, libc::F_DUPFD, 300);
            // More than one buffer of directory entries, with gaps.
            for number in (from..from + 200).step_by(3) {
                libc::dup2(kept, number);
            }
            let mut good = close_listed(from) && libc::fcntl(kept, libc::F_GETFD) >= 0;
            for number in from..from + 200 {
                good &= libc::fcntl(number, libc::F_GETFD) == -1;
            }
            libc::_exit(if good { 0 } else { 1 });
        }
        Pid::from_raw(child).unwrap()
    };
    let (_, status) = rustix::process::waitpid(Some(child), WaitOptions::empty())
        .unwrap()
        .unwrap();
    assert_eq!(status.exit_status(), Some(0));
}

#[test]
fn many_threads_launch_at_once() {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let (text, status) = output_of("echo here >&3", &[], Stdio::Null);
                    assert_eq!((text.as_str(), status), ("here\n", 0));
                }
            });
        }
    });
}
