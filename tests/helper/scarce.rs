//! The file server where descriptors run short: with all its links, or not at all.

use std::fs::{self, File};
use std::io::{Read, Write};

use agent_helper::frame::{FileOperation, HelperToMonitor, Program, SessionToNet};
use rustix::process::Pid;

use crate::harness::*;

const VERSION_AND_MKDIR: &[u8] =
    b"\0\0\0\x05\x01\0\0\0\x03\0\0\0\x0e\x0e\0\0\0\x01\0\0\0\x01d\0\0\0\0";

fn descriptors(pid: Pid) -> Vec<u32> {
    let entries = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_pid())).unwrap();
    let mut numbers: Vec<u32> = entries
        .map(|entry| {
            entry
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}

/// Starts the server with room for `spare` more descriptors in the helper; true: it served.
fn serves_with(spare: usize) -> bool {
    let mut login = Login::with(|policy| {
        policy.subsystems = vec![("sftp".into(), "internal-sftp".into())];
        policy.sftp_audit = true;
    });
    let helper = login.helper.pid;
    let limit = descriptors(helper).len() + spare;
    // As a user can.
    let (_, errors, _) = login.run(&format!("prlimit --pid $PPID --nofile={limit}:"));
    assert_eq!(errors, "");
    let sftp = Program::Subsystem {
        name: "sftp".into(),
    };
    login.send_start(1, sftp, &[]);
    let (first, _) = login.net.receive::<SessionToNet>();
    assert_eq!(first, SessionToNet::ServesFiles { session: 1 });
    let (answer, ends) = loop {
        let (frame, descriptors) = login.net.receive::<SessionToNet>();
        if frame != (SessionToNet::Tally { session: 1 }) {
            break (frame, descriptors);
        }
    };
    let SessionToNet::Started { pid, .. } = answer else {
        assert_eq!(answer, SessionToNet::NotStarted { session: 1 });
        return false;
    };
    let mut ends = ends.into_iter().map(File::from);
    let (mut input, mut output) = (ends.next().unwrap(), ends.next().unwrap());
    // It may be gone already.
    let _ = input.write_all(VERSION_AND_MKDIR);
    let mut version = [0; 5];
    let answered = output.read_exact(&mut version).is_ok();
    if answered {
        let pid = Pid::from_raw(pid.cast_signed()).unwrap();
        let all = [0, 1, 2, 3, 4, 5];
        // Without a tally nothing is shared; the log has its link in any case.
        let open = descriptors(pid);
        let known = [&all[..], &all[..4]].contains(&&*open);
        assert!(known, "{open:?} with {spare} to spare");
    }
    drop(input);
    let _ = output.read_to_end(&mut Vec::new());
    login.ended(1);
    let made = login.home.0.join("d").exists();
    assert_eq!(made, answered, "with {spare} to spare");
    if made {
        let event = loop {
            if let (HelperToMonitor::FileEvent { event }, _) = login.helper.monitor.receive() {
                break event;
            }
        };
        assert_eq!(event.operation, FileOperation::MakeDirectory);
    }
    made
}

#[test]
fn without_its_links_it_serves_nothing() {
    let served: Vec<bool> = (0..16).map(serves_with).collect();
    assert!(!served[0] && served[15], "{served:?}");
}
