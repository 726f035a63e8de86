//! OnDisconnect: what becomes of that which sessions started, when their connection ends.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::accounts::{User, run};
use crate::clients::{self, Running};
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("disconnect::leave_never_adopts", leave_never_adopts),
    Case::new("disconnect::leave_leaves", leave_leaves),
    Case::new("disconnect::kill_ends_daemons", kill_ends_daemons).only_agent(),
    Case::new("disconnect::kill_gives_time", kill_gives_time).only_agent(),
    Case::new("disconnect::hup_asks_once", hup_asks_once).only_agent(),
    Case::new("disconnect::other_users_too", other_users_too).only_agent(),
    Case::new("disconnect::in_a_chroot", in_a_chroot).only_agent(),
    Case::new("disconnect::others_are_left_alone", others_are_left_alone).only_agent(),
    Case::new("disconnect::for_some", for_some).only_agent(),
    Case::new("disconnect::is_part_of_a_login", is_part_of_a_login).only_agent(),
    Case::new("disconnect::a_tree_that_grows", a_tree_that_grows).only_agent(),
    Case::new("disconnect::a_stopped_helper", a_stopped_helper).only_agent(),
    Case::new("disconnect::without_a_first_thread", without_a_first_thread).only_agent(),
];

/// A double fork into a session of its own, deaf to SIGHUP, as daemons are.
fn daemon(seconds: u32) -> String {
    format!("(setsid sh -c \"trap '' HUP; sleep {seconds} & wait\" </dev/null >/dev/null 2>&1 &)")
}

/// Runs `line` in a session that lasts until its client is killed; then kills it.
fn run_and_kill_client(server: &Server, user: &User, line: &str, started: impl Fn() -> bool) {
    let mut ssh = clients::ssh(server, user);
    let mut running = Running::start_open(ssh.arg(format!("{line}; exec sleep 9731")));
    wait_until("what the session starts", LIMIT, started);
    wait_until("the session", LIMIT, || {
        user.processes("sleep 9731").len() == 1
    });
    running.child.kill().unwrap();
}

/// The recipe `ps --ppid=$PPID` shows the sessions of the connection, and no daemon of theirs.
fn leave_never_adopts(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let line = format!(
        "{}; sleep 1; ps --no-headers -o pid --ppid=$PPID | grep -v $$ | wc -l",
        daemon(9701)
    );
    assert_eq!(clients::ssh_run(&server, &user, &line).success(), "0\n");
    assert_eq!(user.processes("sleep 9701").len(), 2, "sh and sleep");
}

fn leave_leaves(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    run_and_kill_client(&server, &user, &daemon(9702), || {
        user.processes("sleep 9702").len() == 2
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(user.processes("sleep 9702").len(), 2);
    assert_eq!(user.processes("sleep 9731").len(), 1);
}

fn kill_ends_daemons(world: &World) {
    let user = world.user();
    let server = world.server(&["OnDisconnect kill"]);
    run_and_kill_client(&server, &user, &daemon(9703), || {
        user.processes("sleep 9703").len() == 2
    });
    wait_until("everything to end", LIMIT, || user.processes("").is_empty());
    // Also where the client goes in peace.
    clients::ssh_run(&server, &user, &daemon(9704)).success();
    wait_until("everything to end", LIMIT, || user.processes("").is_empty());
    // And nobody else is in the way of a login.
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
}

/// The user may stop the helper, and it stays no longer for that.
fn a_stopped_helper(world: &World) {
    let user = world.user();
    for way in ["hup", "kill"] {
        let server = world.server(&[&format!("OnDisconnect {way}")]);
        run_and_kill_client(&server, &user, "kill -STOP $PPID", || {
            user.processes("sleep 9731").len() == 1
        });
        wait_until("the helper to end", LIMIT, || {
            server.processes("agent-helper: ").is_empty()
        });
        wait_until("everything to end", LIMIT, || user.processes("").is_empty());
    }
}

/// The kernel shows such a process as one that has ended.
fn without_a_first_thread(world: &World) {
    let user = world.user();
    let server = world.server(&["OnDisconnect kill"]);
    let program = "import ctypes, threading, time\n\
                   threading.Thread(target=time.sleep, args=(9712,)).start()\n\
                   open(\"ready\", \"w\").close()\n\
                   ctypes.CDLL(None).pthread_exit(None)";
    let line = format!("(setsid python3 -c '{program}' </dev/null >/dev/null 2>&1 &)");
    run_and_kill_client(&server, &user, &line, || user.home.join("ready").exists());
    wait_until("everything to end", LIMIT, || user.processes("").is_empty());
}

/// SIGHUP first: what ends by itself leaves its files in order.
fn kill_gives_time(world: &World) {
    let user = world.user();
    let server = world.server(&["OnDisconnect kill"]);
    let line = "(setsid sh -c 'trap \"sleep 1; echo done >said; exit\" HUP; while :; do sleep 0.1; done' \
                </dev/null >/dev/null 2>&1 & echo $! >ready)";
    run_and_kill_client(&server, &user, line, || user.home.join("ready").exists());
    wait_until("everything to end", LIMIT, || user.processes("").is_empty());
    let said = std::fs::read_to_string(user.home.join("said"));
    assert_eq!(said.expect("time for a last word"), "done\n");
}

fn hup_asks_once(world: &World) {
    let user = world.user();
    let server = world.server(&["OnDisconnect hup"]);
    let counting = "(setsid sh -c 'trap \"echo hup >>said\" HUP; while :; do sleep 0.1; done' \
                    </dev/null >/dev/null 2>&1 & echo $! >ready)";
    let line = format!("{counting}; (setsid sleep 9705 </dev/null >/dev/null 2>&1 &)");
    run_and_kill_client(&server, &user, &line, || {
        user.home.join("ready").exists() && user.processes("sleep 9705").len() == 1
    });
    wait_until("who does not mind SIGHUP to end", LIMIT, || {
        user.processes("sleep 9705").is_empty() && user.processes("sleep 9731").is_empty()
    });
    let said = || std::fs::read_to_string(user.home.join("said")).unwrap_or_default();
    wait_until("the other to be asked", LIMIT, || !said().is_empty());
    wait_until("the helper to go", LIMIT, || {
        server.processes("agent-helper: ").is_empty()
    });
    assert_eq!(said(), "hup\n");
    assert_eq!(user.processes("trap").len(), 1, "who does mind lives on");
}

/// Who changed its user is out of the helper's reach, and not out of the monitor's.
fn other_users_too(world: &World) {
    let (user, other) = (world.user(), world.user());
    let server = world.server(&["OnDisconnect kill"]);
    let tool = world.directory.join("become");
    // A setuid program that becomes the other user for good, as sudo does.
    let source = world.directory.join("become.c");
    std::fs::write(
        &source,
        format!(
            "#include <unistd.h>\nint main(int c, char **v) {{ if (setresgid({g}, {g}, {g}) || \
             setresuid({u}, {u}, {u})) return 1; execvp(v[1], v + 1); return 2; }}\n",
            u = other.id,
            g = other.group_id
        ),
    )
    .unwrap();
    let mut compiler = Command::new("cc");
    compiler.arg("-o").arg(&tool).arg(&source);
    clients::run(&mut compiler).success();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let line = format!(
        "(setsid {} sh -c \"trap '' HUP; sleep 9706 & wait\" </dev/null >/dev/null 2>&1 &)",
        tool.display()
    );
    run_and_kill_client(&server, &user, &line, || {
        other.processes("sleep 9706").len() == 2
    });
    wait_until("everything to end", LIMIT, || {
        user.processes("").is_empty() && other.processes("").is_empty()
    });
    wait_until("the process that ends things to go", LIMIT, || {
        server.processes("agent: end").is_empty()
    });
}

/// A directory to be a root, with what the case runs and nothing else.
fn small_root(world: &World) -> PathBuf {
    let root = world.directory.join("root");
    let copy = |path: &str| {
        let to = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap();
    };
    for program in ["/bin/sh", "/usr/bin/setsid", "/usr/bin/sleep"] {
        copy(program);
        let libraries = clients::run(Command::new("ldd").arg(program)).success();
        let paths = libraries.split_whitespace();
        paths.filter(|word| word.starts_with('/')).for_each(copy);
    }
    std::fs::create_dir_all(root.join("dev")).unwrap();
    run(Command::new("mknod")
        .arg(root.join("dev/null"))
        .args(["c", "1", "3", "--mode=666"]));
    root
}

/// A chroot has no /proc: the tree is seen from outside.
fn in_a_chroot(world: &World) {
    let user = world.user();
    let root = small_root(world);
    let server = world.server(&[
        "OnDisconnect kill",
        &format!("ChrootDirectory {}", root.display()),
    ]);
    let line = "(setsid sh -c \"trap '' HUP; sleep 9707 & wait\" </dev/null >/dev/null 2>&1 &)";
    clients::ssh_run(&server, &user, line).success();
    wait_until("everything to end", LIMIT, || user.processes("").is_empty());
}

/// Only this connection's, and only what is below its helper.
fn others_are_left_alone(world: &World) {
    let user = world.user();
    let server = world.server(&["OnDisconnect kill"]);
    let mut own = Command::new("setpriv")
        .args([
            "--reuid",
            &user.id.to_string(),
            "--clear-groups",
            "sleep",
            "9708",
        ])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let mut ssh = clients::ssh(&server, &user);
    let other = Running::start_open(ssh.arg("cat; echo still here"));
    wait_until("the other session", LIMIT, || {
        user.processes("cat").len() >= 2
    });
    run_and_kill_client(&server, &user, &daemon(9709), || {
        user.processes("sleep 9709").len() == 2
    });
    wait_until("its own to end", LIMIT, || {
        user.processes("sleep 9709").is_empty() && user.processes("sleep 9731").is_empty()
    });
    assert!(own.try_wait().unwrap().is_none(), "not of this connection");
    assert_eq!(other.wait().success(), "still here\n");
    let _ = own.kill();
    let _ = own.wait();
}

fn for_some(world: &World) {
    let (alice, bob) = (world.user(), world.user());
    let server = world.server(&[&format!("Match User {}", alice.name), "OnDisconnect kill"]);
    for user in [&alice, &bob] {
        clients::ssh_run(&server, user, &daemon(9710)).success();
    }
    wait_until("hers to end", LIMIT, || alice.processes("").is_empty());
    assert_eq!(bob.processes("sleep 9710").len(), 2);
}

/// Who may log in once has not logged out before what that left has ended.
fn is_part_of_a_login(world: &World) {
    let user = world.user();
    let server = world.server(&["OnDisconnect kill", "MaxLoginsPerUser 1"]);
    run_and_kill_client(&server, &user, &daemon(9713), || {
        user.processes("sleep 9713").len() == 2
    });
    server.wait_for_log(&["event=end", &user.name]);
    let ssh = clients::ssh(&server, &user);
    let refused = clients::run(clients::talkative(&ssh).arg("echo in"));
    assert!(refused.err().contains("as often as"), "{}", refused.err());
    wait_until("a login again", LIMIT, || {
        clients::ssh_run(&server, &user, "echo in").out() == "in\n"
    });
    assert!(user.processes("sleep 9713").is_empty());
    // Who leaves nothing behind can come back at once.
    assert_eq!(
        clients::ssh_run(&server, &user, "echo in").success(),
        "in\n"
    );
}

/// What keeps on forking is no faster than who looks for it.
fn a_tree_that_grows(world: &World) {
    let user = world.user();
    let server = world.server(&["OnDisconnect kill"]);
    let line = "cat >grow <<'E'\ntrap '' HUP\nsleep 0.05\n[ $(date +%s) -lt $1 ] && (setsid sh ./grow $1 &)\nE\n\
                (setsid sh ./grow $(($(date +%s) + 60)) </dev/null >/dev/null 2>&1 &)";
    run_and_kill_client(&server, &user, line, || !user.processes("grow").is_empty());
    // Between two of its generations there may be none to be seen.
    wait_until("everything to end", LIMIT, || {
        (0..20).all(|_| {
            std::thread::sleep(Duration::from_millis(10));
            user.processes("").is_empty()
        })
    });
}
