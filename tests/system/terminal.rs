//! Sessions with a terminal, driven through a real one.

use std::time::Duration;

use crate::clients;
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::pty::Terminal;
use crate::server::LIMIT;

pub const CASES: &[Case] = &[
    Case::new("terminal::login_shell", login_shell),
    Case::new("terminal::exit_codes", exit_codes),
    Case::new("terminal::window_size", window_size),
    Case::new("terminal::interrupt", interrupt),
    Case::new("terminal::modes", modes),
    Case::new("terminal::type_and_device", type_and_device),
    Case::new("terminal::job_in_background", job_in_background),
    Case::new("terminal::hangup", hangup),
    Case::new("terminal::permit_tty_no", permit_tty_no),
    Case::new("terminal::large_output", large_output),
];

fn interactive(world: &World) -> (crate::server::Server, crate::accounts::User, Terminal) {
    let user = world.user();
    let server = world.server(&[]);
    let terminal = Terminal::start(&clients::ssh(&server, &user), 93, 31);
    terminal.expect("$ ");
    (server, user, terminal)
}

fn login_shell(world: &World) {
    let (_server, user, mut terminal) = interactive(world);
    terminal.send("echo \"[$0] [$USER] [$(pwd)]\"\n");
    terminal.expect(&format!("[-sh] [{}] [{}]", user.name, user.home.display()));
    // Ctrl-D ends it.
    terminal.send("\u{4}");
    assert_eq!(terminal.wait(), Some(0));
}

fn exit_codes(world: &World) {
    for code in [0, 1, 77, 255] {
        let (_server, _user, mut terminal) = interactive(world);
        terminal.send(&format!("exit {code}\n"));
        assert_eq!(terminal.wait(), Some(code));
    }
}

fn window_size(world: &World) {
    let (_server, _user, mut terminal) = interactive(world);
    terminal.send("stty size\n");
    terminal.expect("31 93");
    terminal.send("trap 'echo now:$(stty size)' WINCH; echo re''ady\n");
    terminal.expect("ready");
    terminal.resize(120, 44);
    // The shell runs its trap after the next command.
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("\n");
    terminal.expect("now:44 120");
}

/// Ctrl-C ends the foreground command, not the session; Ctrl-Z and Ctrl-\ go through likewise.
fn interrupt(world: &World) {
    let (_server, _user, mut terminal) = interactive(world);
    // The job says so itself: a shell that was interrupted while it starts one may forget that.
    terminal.send("sh -c 'echo st\"\"arted; exec sleep 1000'\n");
    terminal.expect("started");
    terminal.send("\u{3}");
    terminal.send("echo status:$?\n");
    terminal.expect("status:130");
    terminal.send("sh -c 'echo ag\"\"ain; exec sleep 1000'\n");
    terminal.expect("again");
    terminal.send("\u{1c}");
    terminal.send("echo status:$?\n");
    terminal.expect("status:131");
    terminal.send("exit 5\n");
    assert_eq!(terminal.wait(), Some(5));
}

/// The modes of the client's terminal hold on the server's: erase character, echo, speeds.
fn modes(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let remote = clients::ssh(&server, &user);
    // The client reads the modes of its terminal: another erase character, and no IXON.
    let mut shell = std::process::Command::new("sh");
    let mut line = String::from("stty erase ^H -ixon; exec ssh -tt");
    for argument in remote.get_args() {
        line.push_str(&format!(" '{}'", argument.to_str().unwrap()));
    }
    line.push_str(" 'stty -a; tty'");
    shell
        .args(["-c", &line])
        .env("TERM", "dumb")
        .env_remove("SSH_AUTH_SOCK");
    let mut terminal = Terminal::start(&shell, 80, 24);
    assert_eq!(terminal.wait(), Some(0), "{}", terminal.screen());
    terminal.expect("/dev/pts/");
    let screen = terminal.screen();
    assert!(screen.contains("erase = ^H"), "{screen}");
    assert!(screen.contains("-ixon"), "{screen}");
    assert!(screen.contains(" echo "), "{screen}");
}

fn type_and_device(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let mut ssh = clients::ssh(&server, &user);
    ssh.env("TERM", "xterm-256color").arg("-tt");
    ssh.arg("echo $TERM; tty; echo $SSH_TTY; stat -c '%U %G %a' $SSH_TTY; ps -o tty= -p $$; echo the-end");
    let mut terminal = Terminal::start(&ssh, 80, 24);
    assert_eq!(terminal.wait(), Some(0));
    terminal.expect("the-end");
    let screen = terminal.screen();
    let lines: Vec<&str> = screen.lines().map(str::trim).collect();
    assert_eq!(lines[0], "xterm-256color", "{screen}");
    assert!(lines[1].starts_with("/dev/pts/"), "{screen}");
    assert_eq!(lines[1], lines[2], "SSH_TTY is the terminal: {screen}");
    assert_eq!(lines[3], format!("{} tty 620", user.name), "{screen}");
    assert_eq!(
        format!("/dev/{}", lines[4]),
        lines[1],
        "it is the controlling one: {screen}"
    );
}

/// The session ends with its leader; what was left in the background is hung up.
fn job_in_background(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let mut ssh = clients::ssh(&server, &user);
    ssh.args(["-tt", "sleep 600 & echo hi"]);
    let mut terminal = Terminal::start(&ssh, 80, 24);
    assert_eq!(terminal.wait(), Some(0));
    terminal.expect("hi");
    // An interactive shell's job keeps running only if it is protected from the hangup.
    let mut ssh = clients::ssh(&server, &user);
    ssh.args([
        "-tt",
        "nohup sleep 601 >/dev/null 2>&1 & sleep 0.2; echo ho",
    ]);
    let mut terminal = Terminal::start(&ssh, 80, 24);
    assert_eq!(terminal.wait(), Some(0));
    terminal.expect("ho");
    assert_eq!(user.processes("sleep 601").len(), 1);
}

/// When the client is killed, the terminal hangs up and its shell ends.
fn hangup(world: &World) {
    let (_server, user, mut terminal) = interactive(world);
    terminal.send("echo on''line; cat\n");
    terminal.expect("online");
    wait_until("cat to run", LIMIT, || user.processes("cat").len() == 1);
    terminal.close();
    wait_until("the user's processes to end", LIMIT, || {
        user.processes("").is_empty()
    });
}

fn permit_tty_no(world: &World) {
    let user = world.user();
    let server = world.server(&["PermitTTY no"]);
    let mut ssh = clients::talkative(&clients::ssh(&server, &user));
    let ran = clients::run(ssh.args(["-tt", "tty"]));
    assert!(
        ran.err().contains("PTY allocation request failed"),
        "{}",
        ran.err()
    );
    assert_eq!(
        clients::run(clients::ssh(&server, &user).arg("tty")).out(),
        "not a tty\n"
    );
}

/// Nothing is lost at the end of a session: the last bytes come before its exit status.
fn large_output(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    for _ in 0..5 {
        let mut ssh = clients::ssh(&server, &user);
        ssh.args(["-tt", "seq 1 20000; echo the-end"]);
        let out = clients::run(&mut ssh).success();
        assert!(
            out.ends_with("20000\r\nthe-end\r\n"),
            "ends with {:?}",
            &out[out.len() - 20..]
        );
        assert_eq!(out.lines().count(), 20001);
    }
}
