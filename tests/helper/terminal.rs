//! Sessions with a terminal, from the helper itself and from the monitor.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use agent_helper::frame::{
    Ending, HelperToMonitor, MonitorToHelper, NetToSession, Program, SessionToNet,
};
use agent_helper::terminal;

use crate::harness::*;

/// A shell that prints no prompt.
fn quiet(login: &Login) {
    login.home.write(".profile", "PS1=; stty -echo\n");
    login.home.write(".hushlogin", "");
}

#[test]
fn a_shell_controls_its_terminal() {
    let mut login = Login::new();
    quiet(&login);
    // ECHO off, IUTF8 on.
    let modes = [53, 0, 0, 0, 0, 42, 0, 0, 0, 1, 0];
    let mut master = login.terminal(1, &modes).expect("a terminal");
    let running = login.start(1, Program::Shell, &[]);
    assert!(
        running.input.is_none() && running.output.is_none(),
        "no pipes with a terminal"
    );
    master
        .write_all(b"echo $TERM $SSH_TTY; tty; stty size; stty -a | grep -o iutf8; ls -l /proc/self/fd/0 | grep -c pts; ps -o tpgid= -p $$ | sed \"s/ *$$/foreground/\"; exit 5\n")
        .unwrap();
    let text = read_all(&master);
    let lines: Vec<&str> = text.lines().collect();
    let tty = lines.get(1).copied().unwrap_or_default();
    assert!(tty.starts_with("/dev/pts/"), "{text}");
    assert_eq!(lines[0], format!("vt100 {tty}"));
    assert_eq!(lines[2..5], ["24 80", "iutf8", "1"], "{text}");
    assert_eq!(login.ended(1), Ending::Exit { status: 5 });
}

#[test]
fn control_c_and_signals_reach_the_foreground() {
    let mut login = Login::new();
    let mut master = login.terminal(1, &[]).expect("a terminal");
    // A shell with job control puts its jobs into groups of their own.
    login.start(
        1,
        command("set -m; trap 'echo shell' TERM; sleep 100; echo after; read x"),
        &[],
    );
    eventually("the job in front", || {
        rustix::termios::tcgetpgrp(&master).is_ok_and(|group| {
            std::fs::read_to_string(format!("/proc/{}/comm", group.as_raw_pid()))
                .is_ok_and(|name| name == "sleep\n")
        })
    });
    login.net.send(
        &NetToSession::Signal {
            session: 1,
            name: "TERM".into(),
        },
        &[],
    );
    let text = read_until(&master, |text| text.contains("after"));
    assert!(
        !text.contains("shell"),
        "the job got it, not the shell: {text}"
    );
    master.write_all(b"\x03").unwrap();
    assert_eq!(
        login.ended(1),
        Ending::Signal {
            number: 2,
            core_dumped: false
        }
    );
}

#[test]
fn closing_the_master_hangs_up() {
    let mut login = Login::new();
    let master = login.terminal(1, &[]).expect("a terminal");
    let running = login.start(1, command("exec sleep 100"), &[]);
    let name = format!("/proc/{}/comm", running.pid.as_raw_pid());
    eventually("the program", || {
        std::fs::read_to_string(&name).is_ok_and(|name| name == "sleep\n")
    });
    drop(master);
    assert_eq!(
        login.ended(1),
        Ending::Signal {
            number: 1,
            core_dumped: false
        }
    );
}

/// Session 7 wants a terminal.
fn wish_for_terminal(login: &mut Login) {
    let wish = NetToSession::OpenTerminal {
        session: 7,
        term: "xterm".into(),
        size: [0; 16],
        modes: Vec::new().into(),
    };
    login.net.send(&wish, &[]);
}

/// The helper asks the monitor for it; gives the session as it calls it there.
fn monitor_is_asked(login: &mut Login) -> u32 {
    let (asked, _) = login.helper.monitor.receive::<HelperToMonitor>();
    let HelperToMonitor::OpenTerminal { session } = asked else {
        panic!("{asked:?}")
    };
    session
}

#[test]
fn the_monitors_terminal_is_used_where_it_opens_them() {
    let mut login = Login::with(|policy| policy.monitor_opens_terminals = true);
    wish_for_terminal(&mut login);
    // A start that does not wait for the answer is kept until it is there.
    login.send_start(7, command("tty; echo $TERM $SSH_TTY"), &[]);
    let session = monitor_is_asked(&mut login);
    let opened = terminal::open().expect("a terminal");
    // As the monitor does.
    let path = String::from_utf8(opened.path.clone()).unwrap();
    std::os::unix::fs::chown(&path, Some(UID), Some(GID)).unwrap();
    login.helper.monitor.send(
        &MonitorToHelper::Terminal {
            session,
            path: path.as_str().into(),
        },
        &[&opened.master, &opened.slave],
    );
    drop(opened);
    let (answer, mut descriptors) = login.net.receive::<SessionToNet>();
    assert_eq!(answer, SessionToNet::TerminalOpened { session: 7 });
    let master = File::from(descriptors.pop().unwrap());
    login.started(7);
    let text = read_all(&master);
    assert_eq!(text.replace('\r', ""), format!("{path}\nxterm {path}\n"));
    assert_eq!(login.ended(7), EXIT_0);
}

#[test]
fn without_a_terminal_from_the_monitor_the_program_still_runs() {
    let mut login = Login::with(|policy| policy.monitor_opens_terminals = true);
    wish_for_terminal(&mut login);
    let session = monitor_is_asked(&mut login);
    login
        .helper
        .monitor
        .send(&MonitorToHelper::NoTerminal { session }, &[]);
    assert_eq!(
        login.net.receive::<SessionToNet>().0,
        SessionToNet::NoTerminal { session: 7 }
    );
    let running = login.start(7, command("tty"), &[]);
    drop(running.input);
    assert_eq!(read_all(running.output.as_ref().unwrap()), "not a tty\n");
}

#[test]
fn a_session_closed_before_its_terminal_came_is_told_to_the_monitor() {
    let mut login = Login::with(|policy| policy.monitor_opens_terminals = true);
    wish_for_terminal(&mut login);
    login.net.send(&NetToSession::Close { session: 7 }, &[]);
    let session = monitor_is_asked(&mut login);
    let opened = terminal::open().expect("a terminal");
    let reader = OwnedFd::from(File::from(opened.master).try_clone().unwrap());
    login.helper.monitor.send(
        &MonitorToHelper::Terminal {
            session,
            path: "/dev/pts/0".into(),
        },
        &[&reader, &opened.slave],
    );
    let (answer, _) = login.helper.monitor.receive::<HelperToMonitor>();
    assert_eq!(answer, HelperToMonitor::SessionEnded { session });
}

#[test]
fn the_monitors_greeting_and_the_message_of_the_day_greet_a_login_shell_only() {
    let line = "Last login: Sun Nov 22 02:29:00 2026 from 192.0.2.9";
    let mut login = Login::with(|policy| {
        policy.greeting = format!("{line}\r\n").as_str().into();
        policy.print_motd = true;
    });
    let motd = std::fs::read_to_string("/etc/motd").unwrap_or_default();
    let greeting = |login: &mut Login, session: u32, program: Program| {
        let mut master = login
            .terminal(session, &[53, 0, 0, 0, 0, 0])
            .expect("a terminal");
        login.start(session, program, &[]);
        master.write_all(b"exit\n").unwrap();
        let text = read_all(&master).replace('\r', "");
        assert_eq!(login.ended(session), EXIT_0);
        text
    };
    let text = greeting(&mut login, 1, Program::Shell);
    assert!(text.starts_with(&format!("{line}\n{motd}")), "{text}");
    assert_eq!(
        greeting(&mut login, 2, command("true")),
        "",
        "not for a command"
    );
    login.home.write(".hushlogin", "");
    let text = greeting(&mut login, 3, Program::Shell);
    assert!(!text.contains(line), "{text}");
}

#[test]
fn no_terminal_where_the_policy_permits_none() {
    let mut login = Login::with(|policy| policy.permit_pty = false);
    assert!(login.terminal(1, &[]).is_none());
    assert_eq!(login.run("tty").0, "not a tty\n");
}

/// Otherwise the monitor would keep the terminal and its number among its own until the connection
/// ends.
#[test]
fn a_terminal_whose_program_could_not_be_started_is_given_back() {
    let mut login = Login::with(|policy| policy.monitor_opens_terminals = true);
    wish_for_terminal(&mut login);
    let session = monitor_is_asked(&mut login);
    let opened = terminal::open().expect("a terminal");
    login.helper.monitor.send(
        &MonitorToHelper::Terminal {
            session,
            path: "/dev/pts/0".into(),
        },
        &[&opened.master, &opened.slave],
    );
    let (answer, _) = login.net.receive::<SessionToNet>();
    assert_eq!(answer, SessionToNet::TerminalOpened { session: 7 });
    // The user has as many processes as may be, and can say so.
    let (_, errors, _) = login.run("prlimit --pid $PPID --nproc=0:");
    assert_eq!(errors, "");
    login.send_start(7, command("tty"), &[]);
    let (answer, _) = login.net.receive::<SessionToNet>();
    assert_eq!(answer, SessionToNet::NotStarted { session: 7 });
    loop {
        match login.helper.monitor.receive::<HelperToMonitor>().0 {
            HelperToMonitor::Log { level: 1, .. } => break,
            // Of the other session, should it have taken long.
            HelperToMonitor::SessionStarted { session: other, .. }
            | HelperToMonitor::SessionEnded { session: other }
                if other != session => {}
            other => panic!("{other:?}"),
        }
    }
    let (ended, _) = login.helper.monitor.receive::<HelperToMonitor>();
    assert_eq!(ended, HelperToMonitor::SessionEnded { session });
}
