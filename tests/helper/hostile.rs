//! A `net` that a client has taken over, and a monitor that is not ours: nothing is gained and
//! nobody else is disturbed.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use agent_helper::frame::{HelperToMonitor, MonitorToHelper, NetToSession, Program, SessionToNet};
use agent_helper::link::{CONTENT_MAX_BYTES, HEADER_BYTES, LinkError};
use agent_helper::wire::Wire;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{SendFlags, send};

use crate::harness::*;

#[test]
fn bytes_that_are_no_frame_end_the_helper_and_nothing_else() {
    let header = |total: u32, offset: u32| {
        [0x3146_6741_u32, 0, total, offset]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect::<Vec<u8>>()
    };
    let datagrams: Vec<Vec<u8>> = vec![
        b"x".to_vec(),
        vec![0; HEADER_BYTES],
        header(0, 0),
        header(5, 0),
        [header(1, 0), vec![200]].concat(),
        [header(2, 1), vec![1]].concat(),
        [header(u32::MAX, 0), vec![1]].concat(),
        [header(u32::MAX, u32::MAX), vec![1]].concat(),
        [header(4, 0), vec![2, 0, 0, 0]].concat(),
        [
            header(13, 0),
            vec![2, 0, 0, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0],
        ]
        .concat(),
        vec![0xff; HEADER_BYTES + CONTENT_MAX_BYTES],
        vec![0xff; HEADER_BYTES + CONTENT_MAX_BYTES + 1],
    ];
    for datagram in datagrams {
        let Login {
            mut helper,
            net,
            home: _home,
        } = Login::new();
        send(net.link.as_fd(), &datagram, SendFlags::empty()).unwrap();
        let status = helper.wait();
        assert_eq!(status.exit_status(), Some(1), "{:?}", datagram.get(..24));
    }
}

#[test]
fn a_descriptor_from_net_ends_the_helper() {
    let Login {
        mut helper,
        net,
        home: _home,
    } = Login::new();
    let file: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    net.send(&NetToSession::Close { session: 1 }, &[&file]);
    assert_eq!(helper.wait().exit_status(), Some(1));
}

#[test]
fn any_frame_in_any_order_is_answered_or_refused() {
    let mut login = Login::with(|policy| {
        policy.max_sessions = 3;
        policy.forced_command = Some("exec sleep 100".into());
    });
    // A generator of our own, so that a failure can be repeated.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..2000 {
        let session = [0, 1, 2, u32::MAX][next(4) as usize];
        let frame = match next(5) {
            0 => NetToSession::OpenTerminal {
                session,
                term: vec![b'a'; next(400) as usize].into(),
                size: [next(256) as u8; 16],
                modes: (0..next(40))
                    .map(|_| next(256) as u8)
                    .collect::<Vec<u8>>()
                    .into(),
            },
            1 => NetToSession::Start {
                session,
                program: match next(3) {
                    0 => Program::Shell,
                    1 => Program::Command {
                        line: vec![0; next(10) as usize].into(),
                    },
                    _ => Program::Subsystem { name: "x".into() },
                },
                environment: vec![("A=B\0".into(), "\0".into())],
            },
            2 => NetToSession::Signal {
                session,
                name: "KILL".into(),
            },
            3 => NetToSession::Break { session },
            _ => NetToSession::Close { session },
        };
        // Answers are taken whenever there are some, or both queues fill.
        while let Err(error) = login.net.link.send(0, &frame, &[], false) {
            assert_eq!(
                error,
                LinkError::System(rustix::io::Errno::AGAIN),
                "{:?}",
                frame.kind()
            );
            drain(&mut login.net);
            drain(&mut login.helper.monitor);
        }
        drain(&mut login.net);
        drain(&mut login.helper.monitor);
    }
    assert!(login.helper.lives());
    let helper = login.helper.pid.as_raw_pid();
    let children =
        std::fs::read_to_string(format!("/proc/{helper}/task/{helper}/children")).unwrap();
    assert!(children.split_whitespace().count() <= 3, "{children}");
    let descriptors = std::fs::read_dir(format!("/proc/{helper}/fd"))
        .unwrap()
        .count();
    assert!(descriptors <= 6 + 3, "{descriptors} descriptors");
    for pid in children.split_whitespace() {
        let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// Takes what is there.
fn drain(end: &mut End) {
    let nothing = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    loop {
        let mut polled = [PollFd::new(&end.link, PollFlags::IN)];
        match poll(&mut polled, Some(&nothing)) {
            Ok(0) => return,
            _ => drop(end.receive_raw().expect("the helper lives")),
        }
    }
}

#[test]
fn a_restricted_key_gains_nothing_from_any_request() {
    let mut login = Login::with(|policy| {
        policy.forced_command = Some("echo forced".into());
        policy.permit_pty = false;
        policy.permit_user_rc = false;
        policy.subsystems = vec![("sftp".into(), "/bin/cat /etc/hostname".into())];
    });
    login.home.write(".ssh/rc", "echo rc");
    login.home.write(".ssh/environment", "FROM_FILE=1\n");
    let environment = [
        ("LD_PRELOAD", "x"),
        ("BASH_ENV", "x"),
        ("ENV", "x"),
        ("PATH", "/tmp"),
    ];
    for program in [
        Program::Shell,
        command("id"),
        Program::Subsystem {
            name: "sftp".into(),
        },
    ] {
        let (output, errors, ending) = login.run_program(program, &environment);
        assert_eq!(
            (output.as_str(), errors.as_str(), ending),
            ("forced\n", "", EXIT_0)
        );
    }
    assert!(login.terminal(5, &[]).is_none());
}

#[test]
fn a_net_that_takes_no_frames_does_not_hold_the_helper_past_the_monitors_end() {
    let Login {
        mut helper,
        net,
        home: _home,
    } = Login::new();
    // Each is refused, and the answers are never read.
    for _ in 0..5000 {
        let frame = NetToSession::Start {
            session: 1,
            program: Program::Subsystem { name: "x".into() },
            environment: vec![],
        };
        match net.link.send(0, &frame, &[], false) {
            Ok(()) => {}
            Err(_) => break,
        }
    }
    helper.monitor = End::new(pair().0);
    assert_eq!(helper.wait().exit_status(), Some(0));
}

#[test]
fn frames_of_the_monitor_out_of_turn_end_the_helper() {
    require_root();
    let home = Home::new();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let read_keys = MonitorToHelper::ReadKeys {
        identity: identity(&home),
        change_identity: true,
        files: vec![],
        strict_modes: true,
        limit_bytes: 1,
    };
    let terminal = MonitorToHelper::Terminal {
        session: 1,
        path: "/dev/pts/0".into(),
    };
    let accepted = MonitorToHelper::Accepted {
        policy: policy(&home),
    };
    // Before the login: no terminals, and no frame without its descriptors or with more.
    for (frame, count) in [
        (&terminal, 2),
        (&MonitorToHelper::NoTerminal { session: 1 }, 0),
        (&read_keys, 0),
        (&read_keys, 2),
        (&accepted, 0),
        (&accepted, 3),
        (&MonitorToHelper::SetLogLevel { level: 1 }, 1),
    ] {
        let mut helper = Helper::start();
        let descriptors: Vec<OwnedFd> = (0..count).map(|_| null()).collect();
        helper
            .monitor
            .send(frame, &descriptors.iter().collect::<Vec<_>>());
        assert_eq!(
            helper.wait().exit_status(),
            Some(1),
            "{:?} {count}",
            frame.kind()
        );
    }
    // After it: never again as root's reader, and no second login.
    for frame in [&read_keys, &accepted] {
        let mut login = Login::new();
        login.helper.monitor.send(frame, &[&null()]);
        assert_eq!(
            login.helper.wait().exit_status(),
            Some(1),
            "{:?}",
            frame.kind()
        );
    }
}

#[test]
fn an_answer_to_no_question_is_dropped() {
    let mut login = Login::new();
    let pair = agent_helper::terminal::open().unwrap();
    login.helper.monitor.send(
        &MonitorToHelper::Terminal {
            session: 99,
            path: "/dev/pts/0".into(),
        },
        &[&pair.master, &pair.slave],
    );
    let (answer, _) = login.helper.monitor.receive::<HelperToMonitor>();
    assert_eq!(answer, HelperToMonitor::SessionEnded { session: 99 });
    assert_eq!(login.run("echo fine").0, "fine\n");
}

#[test]
fn a_number_may_come_again_after_its_end() {
    let mut login = Login::new();
    let running = login.start(1, command("exec sleep 100"), &[]);
    login.net.send(&NetToSession::Close { session: 1 }, &[]);
    // The old process lives; the number is another session's now.
    assert_eq!(login.run("echo second").0, "second\n");
    rustix::process::kill_process(running.pid, rustix::process::Signal::KILL).unwrap();
    // Nothing is said of it to net: the next answer belongs to the next request.
    login.send_start(
        1,
        Program::Subsystem {
            name: "none".into(),
        },
        &[],
    );
    assert_eq!(
        login.net.receive::<SessionToNet>().0,
        SessionToNet::NotStarted { session: 1 }
    );
}

#[test]
fn every_truncation_of_every_frame_is_refused_without_a_panic() {
    let home = Home(std::path::PathBuf::from("/nonexistent/home"));
    let frame = MonitorToHelper::Accepted {
        policy: policy(&home),
    }
    .to_wire();
    for len in 0..frame.len() {
        assert!(MonitorToHelper::from_wire(&frame[..len]).is_err(), "{len}");
    }
    let mut longer = frame.clone();
    longer.push(0);
    assert!(MonitorToHelper::from_wire(&longer).is_err());
}
