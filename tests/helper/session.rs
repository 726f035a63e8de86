//! Sessions without a terminal: what runs, with what environment, and how it ends.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use agent_helper::frame::{Ending, HelperToMonitor, NetToSession, Program, SessionToNet};

use crate::harness::*;

#[test]
fn output_and_errors_come_apart_and_the_status_last() {
    let mut login = Login::new();
    let (output, errors, ending) = login.run("echo out; echo err >&2; exit 7");
    assert_eq!((output.as_str(), errors.as_str()), ("out\n", "err\n"));
    assert_eq!(ending, Ending::Exit { status: 7 });
}

#[test]
fn input_reaches_the_program_and_its_end_too() {
    let mut login = Login::new();
    let mut running = login.start(3, command("cat; echo end"), &[]);
    let mut input = running.input.take().unwrap();
    input.write_all(b"hello\n").unwrap();
    drop(input);
    assert_eq!(read_all(running.output.as_ref().unwrap()), "hello\nend\n");
    assert_eq!(login.ended(3), EXIT_0);
}

#[test]
fn a_signal_is_told_apart_from_a_status() {
    let mut login = Login::new();
    assert_eq!(
        login.run("kill -TERM $$").2,
        Ending::Signal {
            number: 15,
            core_dumped: false
        }
    );
    assert_eq!(login.run("exit 255").2, Ending::Exit { status: 255 });
}

#[test]
fn sessions_are_children_of_the_helper_and_have_nothing_else_open() {
    let mut login = Login::new();
    let helper = login.helper.pid.as_raw_pid();
    let script = "echo $PPID
        n=0; while [ $n -lt 300 ]; do [ -e /proc/$$/fd/$n ] && echo $n; n=$((n+1)); done
        while read line; do case $line in Sig[BI]*|Uid*|Groups*) echo $line;; esac; done </proc/$$/status
        ps -o sid= -p $$ | tr -d ' ' | sed s/^$$\\$/leader/";
    let (output, errors, _) = login.run(script);
    let expected = format!(
        "{helper}\n0\n1\n2\nUid: {UID} {UID} {UID} {UID}\nGroups: {GID} 64992 64993\nSigBlk: 0000000000000000\nSigIgn: 0000000000000000\nleader\n"
    );
    assert_eq!((output.as_str(), errors.as_str()), (expected.as_str(), ""));
}

#[test]
fn many_sessions_share_the_helper_as_their_parent() {
    let mut login = Login::new();
    let mut running: Vec<_> = (0..5)
        .map(|number| login.start(number, command("read x"), &[]))
        .collect();
    let helper = login.helper.pid.as_raw_pid().to_string();
    for session in &running {
        assert_eq!(status_of(session.pid, "PPid"), helper);
    }
    for session in &mut running {
        drop(session.input.take());
    }
    let mut ended: Vec<u32> = (0..5)
        .map(|_| match login.net.receive::<SessionToNet>().0 {
            SessionToNet::Ended { session, .. } => session,
            other => panic!("{other:?}"),
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, [0, 1, 2, 3, 4]);
}

#[test]
fn the_environment_is_exactly_the_one_of_sshd() {
    let mut login = Login::with(|policy| {
        policy.accept_env = vec!["LC_*".into(), "OWN".into()];
        policy.set_env = vec![
            ("SET".into(), "by config".into()),
            ("OWN".into(), "set".into()),
        ];
        policy.key_environment = vec![("KEY".into(), "by key".into())];
        policy.user_environment = vec!["FILE_*".into()];
    });
    login
        .home
        .write(".ssh/environment", "# comment\nFILE_A=by file\nOTHER=x\n");
    let environment = [
        ("LC_ALL", "C"),
        ("LD_PRELOAD", "/tmp/x.so"),
        ("OWN", "client"),
    ];
    let (output, errors, _) = login.run_program(
        Program::Command {
            line: "exec /usr/bin/env".into(),
        },
        &environment,
    );
    let home = login.home.0.display();
    let expected = format!(
        "LC_ALL=C\nOWN=set\nUSER=tester\nLOGNAME=tester\nHOME={home}\nPATH=/usr/bin:/bin\nSHELL=/bin/sh\nKEY=by key\nFILE_A=by file\nSET=by config\nSSH_CLIENT=192.0.2.7 40000 22\nSSH_CONNECTION=192.0.2.7 40000 192.0.2.1 22\nPWD={home}\n"
    );
    // The shell adds PWD.
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&output), sorted(&expected));
    assert_eq!(errors, "");
}

#[test]
fn a_shell_is_a_login_shell() {
    let mut login = Login::new();
    let mut running = login.start(1, Program::Shell, &[]);
    let mut input = running.input.take().unwrap();
    input.write_all(b"echo $0; pwd; exit 3\n").unwrap();
    let output = read_all(running.output.as_ref().unwrap());
    assert_eq!(output, format!("-sh\n{}\n", login.home.0.display()));
    assert_eq!(login.ended(1), Ending::Exit { status: 3 });
}

#[test]
fn a_missing_home_is_a_message_and_the_root_directory() {
    let mut login = Login::with(|policy| policy.identity.home = "/does/not/exist".into());
    let (output, errors, ending) = login.run("pwd");
    assert_eq!(output, "/\n");
    assert_eq!(
        errors,
        "Could not chdir to home directory /does/not/exist: No such file or directory\n"
    );
    assert_eq!(ending, EXIT_0);
}

#[test]
fn a_missing_shell_is_a_message_and_status_1() {
    let mut login = Login::with(|policy| policy.identity.shell = "/bin/no-such-shell".into());
    let (_, errors, ending) = login.run("true");
    assert_eq!(errors, "/bin/no-such-shell: No such file or directory\n");
    assert_eq!(ending, Ending::Exit { status: 1 });
}

#[test]
fn nologin_prints_its_text_and_ends_with_254() {
    let mut login = Login::with(|policy| policy.nologin = Some("down for repairs\n".into()));
    let (output, errors, ending) = login.run("echo never");
    assert_eq!(
        (output.as_str(), errors.as_str()),
        ("", "down for repairs\n")
    );
    assert_eq!(ending, Ending::Exit { status: 254 });
}

#[test]
fn a_forced_command_takes_the_place_of_everything() {
    let forced = "echo forced; echo \"${SSH_ORIGINAL_COMMAND-none}\"";
    let mut login = Login::with(|policy| {
        policy.forced_command = Some(forced.into());
        policy.subsystems = vec![("sub".into(), "/usr/lib/sub --flag".into())];
    });
    for (program, original) in [
        (command("rm -rf /"), "rm -rf /"),
        (Program::Shell, "none"),
        (
            Program::Subsystem { name: "sub".into() },
            "/usr/lib/sub --flag",
        ),
    ] {
        let (output, ..) = login.run_program(program, &[("SSH_ORIGINAL_COMMAND", "forged")]);
        assert_eq!(output, format!("forced\n{original}\n"));
    }
}

/// A wrapper that is not there is no reason to serve more than it would.
#[test]
fn a_forced_command_that_is_missing_is_not_stood_in_for() {
    let forced = "/nonexistent/sftp-server -R";
    let mut login = Login::with(|policy| {
        policy.forced_command = Some(forced.into());
        policy.subsystems = vec![("sftp".into(), "internal-sftp".into())];
    });
    let sftp = Program::Subsystem {
        name: "sftp".into(),
    };
    let (output, _, ending) = login.run_program(sftp, &[]);
    assert_eq!(
        (output.as_str(), ending),
        ("", Ending::Exit { status: 127 })
    );
}

#[test]
fn subsystems_are_those_of_the_table() {
    let mut login = Login::with(|policy| {
        policy.subsystems = vec![
            ("echo".into(), "echo subsystem $0".into()),
            ("sftp".into(), "internal-sftp -f LOCAL0".into()),
        ];
    });
    let subsystem = |name: &str| Program::Subsystem { name: name.into() };
    let (output, _, ending) = login.run_program(subsystem("echo"), &[]);
    assert_eq!((output.as_str(), ending), ("subsystem sh\n", EXIT_0));
    for name in ["unknown", "", "ech"] {
        login.send_start(1, subsystem(name), &[]);
        let (answer, _) = login.net.receive::<SessionToNet>();
        assert_eq!(answer, SessionToNet::NotStarted { session: 1 }, "{name}");
    }
}

/// The file server is a fork of the helper, and says so before it starts; what it opens as the user
/// comes to `net`.
#[test]
fn the_file_server_hands_over_what_it_opens() {
    use std::io::{Read, Write};
    let mut login = Login::with(|policy| {
        policy.subsystems = vec![("sftp".into(), "internal-sftp".into())];
    });
    login.home.write("file", "content");
    let sftp = Program::Subsystem {
        name: "sftp".into(),
    };
    login.send_start(1, sftp, &[]);
    let (first, _) = login.net.receive::<SessionToNet>();
    assert_eq!(first, SessionToNet::ServesFiles { session: 1 });
    let (started, mut ends) = login.net.receive::<SessionToNet>();
    assert!(matches!(started, SessionToNet::Started { session: 1, .. }));
    let mut output = fs::File::from(ends.remove(1));
    let mut input = fs::File::from(ends.remove(0));
    input.write_all(b"\0\0\0\x05\x01\0\0\0\x03").unwrap();
    let open = b"\0\0\0\x15\x03\0\0\0\x09\0\0\0\x04file\0\0\0\x01\0\0\0\0";
    input.write_all(open).unwrap();
    let (file, mut descriptors) = login.net.receive::<SessionToNet>();
    assert!(
        matches!(file, SessionToNet::File { session: 1, .. }),
        "{file:?}"
    );
    let mut content = String::new();
    let mut file = fs::File::from(descriptors.remove(0));
    file.read_to_string(&mut content).unwrap();
    assert_eq!(content, "content");
    assert!(file.write_all(b"x").is_err(), "opened for reading");
    drop(input);
    let mut replies = Vec::new();
    output.read_to_end(&mut replies).unwrap();
    assert_eq!(replies[4], 2, "VERSION");
    let (ended, _) = login.net.receive::<SessionToNet>();
    assert_eq!(
        ended,
        SessionToNet::Ended {
            session: 1,
            ending: EXIT_0
        }
    );
}

#[test]
fn the_users_rc_runs_first_and_not_for_subsystems() {
    let mut login = Login::with(|policy| {
        policy.subsystems = vec![("echo".into(), "echo subsystem".into())];
    });
    login
        .home
        .write(".ssh/rc", "echo rc in $HOME; read x || echo no input");
    let (output, ..) = login.run("echo program");
    let home = login.home.0.display();
    assert_eq!(output, format!("rc in {home}\nno input\nprogram\n"));
    let (output, ..) = login.run_program(
        Program::Subsystem {
            name: "echo".into(),
        },
        &[],
    );
    assert_eq!(output, "subsystem\n");
    let mut login = Login::with(|policy| policy.permit_user_rc = false);
    login.home.write(".ssh/rc", "echo rc");
    assert_eq!(login.run("echo program").0, "program\n");
}

#[test]
fn signals_of_the_client_reach_the_whole_group() {
    let mut login = Login::new();
    let running = login.start(1, command("sleep 100; echo not reached"), &[]);
    // The child of the shell is in the same group.
    let children = format!("/proc/{0}/task/{0}/children", running.pid.as_raw_pid());
    eventually("a child", || {
        fs::read_to_string(&children).is_ok_and(|text| !text.is_empty())
    });
    login.net.send(
        &NetToSession::Signal {
            session: 1,
            name: "NOPE".into(),
        },
        &[],
    );
    login.net.send(
        &NetToSession::Signal {
            session: 9,
            name: "KILL".into(),
        },
        &[],
    );
    login.net.send(
        &NetToSession::Signal {
            session: 1,
            name: "TERM".into(),
        },
        &[],
    );
    assert_eq!(
        login.ended(1),
        Ending::Signal {
            number: 15,
            core_dumped: false
        }
    );
    assert_eq!(read_all(running.output.as_ref().unwrap()), "");
}

#[test]
fn a_forced_command_takes_no_signals() {
    let mut login = Login::with(|policy| policy.forced_command = Some("read x; echo done".into()));
    let mut running = login.start(1, Program::Shell, &[]);
    login.net.send(
        &NetToSession::Signal {
            session: 1,
            name: "KILL".into(),
        },
        &[],
    );
    // Answered in order: this round trip shows that the signal was looked at.
    login.send_start(1, Program::Shell, &[]);
    assert_eq!(
        login.net.receive::<SessionToNet>().0,
        SessionToNet::NotStarted { session: 1 }
    );
    drop(running.input.take());
    assert_eq!(read_all(running.output.as_ref().unwrap()), "done\n");
    assert_eq!(login.ended(1), EXIT_0);
}

#[test]
fn no_more_sessions_than_the_policy_says_closed_ones_included() {
    let mut login = Login::with(|policy| policy.max_sessions = 2);
    let mut first = login.start(1, command("read x"), &[]);
    let _second = login.start(2, command("read x"), &[]);
    login.net.send(&NetToSession::Close { session: 1 }, &[]);
    login.send_start(3, command("true"), &[]);
    assert_eq!(
        login.net.receive::<SessionToNet>().0,
        SessionToNet::NotStarted { session: 3 }
    );
    drop(first.input.take());
    eventually("room for a session", || {
        login.send_start(4, command("true"), &[]);
        matches!(
            login.net.receive::<SessionToNet>().0,
            SessionToNet::Started { session: 4, .. }
        )
    });
    let mut none = Login::with(|policy| policy.max_sessions = 0);
    none.send_start(1, Program::Shell, &[]);
    assert_eq!(
        none.net.receive::<SessionToNet>().0,
        SessionToNet::NotStarted { session: 1 }
    );
}

#[test]
fn a_background_job_keeps_the_pipes_and_outlives_the_helper() {
    let mut login = Login::new();
    let running = login.start(1, command("sleep 3 & echo $!"), &[]);
    let output = running.output.as_ref().unwrap();
    let line = read_until(output, |text| text.ends_with('\n'));
    assert_eq!(login.ended(1), EXIT_0);
    let job = rustix::process::Pid::from_raw(line.trim().parse().unwrap()).unwrap();
    // The end of the connection ends the helper and leaves the job alone.
    let Login {
        mut helper,
        net,
        home: _home,
    } = login;
    drop(net);
    assert_eq!(helper.wait().exit_status(), Some(0));
    assert!(
        rustix::process::test_kill_process(job).is_ok(),
        "the job is gone"
    );
    assert_eq!(read_all(output), "");
}

#[test]
fn the_monitors_end_ends_the_helper_too() {
    let login = Login::new();
    let Login {
        mut helper,
        mut net,
        home: _home,
    } = login;
    helper.monitor = End::new(pair().0);
    assert_eq!(helper.wait().exit_status(), Some(0));
    assert!(net.is_closed());
}

#[test]
fn the_monitor_hears_of_starts_and_ends_under_numbers_of_the_helpers_own() {
    let mut login = Login::new();
    for command in ["sleep 0.3", "true", "sleep 0.3"] {
        // What ends at once is no news.
        login.run(command);
    }
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(match login.helper.monitor.receive::<HelperToMonitor>().0 {
            HelperToMonitor::SessionStarted { session, .. } => ("started", session),
            HelperToMonitor::SessionEnded { session } => ("ended", session),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!(
        heard,
        [("started", 1), ("ended", 1), ("started", 3), ("ended", 3)]
    );
}

#[test]
fn a_program_is_the_same_where_its_process_starts_as_a_copy() {
    let look = "env | grep -vE '^(HOME|PWD)' | sort; pwd | wc -l; ls /proc/self/fd | wc -l; \
                grep -E 'Sig(Blk|Ign|Cgt)|^(Uid|Gid|Groups)' /proc/self/status; ps -o sid=,pgid= $$ | wc -l; \
                [ $(ps -o sid= $$) = $$ ] && echo leads";
    let (copied, errors, ending) = Login::unseen().run(look);
    assert!(copied.ends_with("leads\n"), "{copied} {errors}");
    assert_eq!((errors.as_str(), ending), ("", Ending::Exit { status: 0 }));
    let (started, errors, ending) = Login::new().run(look);
    assert_eq!((errors.as_str(), ending), ("", Ending::Exit { status: 0 }));
    assert_eq!(started, copied);
}

#[test]
fn programs_leave_nothing_behind_in_the_helper() {
    let mut login = Login::new();
    let status = format!("/proc/{}/statm", login.helper.pid);
    let pages = || fs::read_to_string(&status).unwrap();
    let mut last = String::new();
    for round in 0..3 {
        for _ in 0..200 {
            login.run("true");
        }
        // What the heap once grew to it may keep.
        if round > 0 {
            let size = |text: &str| text.split(' ').next().unwrap().to_owned();
            assert_eq!(size(&pages()), size(&last), "pages");
        }
        last = pages();
    }
}

#[test]
fn a_shell_that_is_not_there_is_told_to_the_client() {
    let mut login = Login::with(|policy| policy.identity.shell = "/nonexistent/sh".into());
    let (_, errors, ending) = login.run("true");
    assert_eq!(errors, "/nonexistent/sh: No such file or directory\n");
    assert_eq!(ending, Ending::Exit { status: 1 });
}

#[test]
fn a_command_longer_than_a_packet_arrives_whole() {
    let mut login = Login::new();
    let (output, ..) = login.run(&format!("echo {} | wc -c", "x".repeat(100_000)));
    assert_eq!(output.trim(), "100001");
    // Beyond what the kernel takes for one argument: the shell cannot start, and says so.
    let (_, errors, ending) = login.run(&format!("echo {}", "x".repeat(200_000)));
    assert_eq!(errors, "/bin/sh: Argument list too long\n");
    assert_eq!(ending, Ending::Exit { status: 1 });
}

#[test]
fn a_shell_script_as_a_login_shell_works() {
    let mut login = Login::with(|policy| {
        policy.identity.shell = format!("{}/shell", String::from_utf8_lossy(&policy.identity.home))
            .as_str()
            .into();
    });
    let path = login
        .home
        .write("shell", "#!/bin/sh\necho script $0 \"$@\"\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let (output, ..) = login.run("a b");
    assert_eq!(output, format!("script {} -c a b\n", path.display()));
}
