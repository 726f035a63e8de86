//! What the process can still do that ends what connections left behind (OnDisconnect).

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use agent::launch::{Launch, launch};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use super::launched::{TEST_ID, is_root};
use super::proc::status;

/// Somebody else, whose processes it is to end.
const THEIR_ID: u32 = 64_392;

#[test]
fn it_can_signal_and_nothing_else() {
    if !is_root() {
        eprintln!("skipped: the process is there for root only");
        return;
    }
    let mut helper = Command::new("sh")
        .args(["-c", "trap '' HUP; sleep 60 & echo; wait"])
        .uid(THEIR_ID)
        .gid(THEIR_ID)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut started = helper.stdout.take().unwrap();
    started.read_exact(&mut [0]).unwrap();
    let pid = Pid::from_child(&helper);
    let opened = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    let image = File::open(env!("CARGO_BIN_EXE_agent")).unwrap();
    let [number, uid] = [pid.as_raw_pid().unsigned_abs(), THEIR_ID + 1]
        .map(|number| CString::new(number.to_string()).unwrap());
    let begun = Instant::now();
    let launched = launch(&Launch {
        environment: &["AGENT_UID", "AGENT_GID"]
            .map(|name| CString::new(format!("{name}={TEST_ID}")).unwrap()),
        descriptors: &[opened.as_fd()],
        ..Launch::new(
            image.as_fd(),
            &[c"agent: end [test]", &number, &uid, c"kill", c"others"],
        )
    })
    .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let status = status(launched.pid.as_raw_pid().unsigned_abs());
    let four = format!("{TEST_ID}\t{TEST_ID}\t{TEST_ID}\t{TEST_ID}");
    assert_eq!((&status["Uid"], &status["Gid"]), (&four, &four));
    // CAP_KILL; where others' processes are hidden, CAP_SYS_PTRACE.
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    let to_see = u64::from(mounts.contains("hidepid="));
    let kept = format!("{:016x}", 1 << 5 | to_see << 19);
    assert_eq!((&status["CapEff"], &status["CapPrm"]), (&kept, &kept));
    for set in ["CapInh", "CapBnd", "CapAmb"] {
        assert_eq!(status[set], "0".repeat(16), "{set}");
    }
    assert_eq!(status["Groups"], "");
    assert_eq!(status["NoNewPrivs"], "1");
    assert_eq!(status["Seccomp"], "2");
    let (_, ended) = waitpid(Some(launched.pid), WaitOptions::empty())
        .unwrap()
        .unwrap();
    assert_eq!(ended.exit_status(), Some(0), "{ended:?}");
    // The child was made to end after its time, and whoever waited for it with it.
    assert!(begun.elapsed() >= Duration::from_secs(5));
    helper.wait().unwrap();
    assert_eq!(started.read(&mut [0]).unwrap(), 0);
}
