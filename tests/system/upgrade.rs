//! Upgrades: another file takes over in the same process, and whoever is in stays in.
//!
//! The other file is the same program at another inode, with a byte behind its end.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::accounts::make_key;
use crate::clients::{self, Running};
use crate::forwarding::Tunnel;
use crate::harness::{Case, World};
use crate::installed::{Echo, Installed, copy};
use crate::processes::{self, wait_for, wait_until};
use crate::pty::Terminal;
use crate::server::{self, LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("upgrade::sessions_live_on", sessions_live_on).only_agent(),
    Case::new("upgrade::afterwards_all_works", afterwards_all_works).only_agent(),
    Case::new("upgrade::bad_files", bad_files).only_agent(),
    Case::new("upgrade::hanging_probe", hanging_probe)
        .only_agent()
        .long(),
    Case::new("upgrade::pushed_over_ssh", pushed_over_ssh).only_agent(),
    Case::new("upgrade::nobody_is_refused", nobody_is_refused).only_agent(),
    Case::new("upgrade::login_under_way", login_under_way).only_agent(),
    Case::new("upgrade::signals_at_once", signals_at_once).only_agent(),
    Case::new("upgrade::service_manager", service_manager).only_agent(),
    Case::new("upgrade::key_in_memory", key_in_memory).only_agent(),
];

/// Something that echoes behind a forward.
fn echo_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let _ = std::io::copy(&mut &stream, &mut &stream);
            });
        }
    });
    port
}

fn echoes(stream: &mut TcpStream, word: &[u8]) {
    stream.write_all(word).unwrap();
    let mut back = vec![0; word.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, word);
}

/// A terminal, a transfer and a forward, through two upgrades.
fn sessions_live_on(world: &World) {
    const STREAM: &str = "for i in $(seq 60); do seq 1 300000; sleep 0.1; done";
    let user = world.user();
    let installed = Installed::start(world, &[]);
    let server = &installed.server;

    let mut terminal = Terminal::start(clients::ssh(server, &user).arg("-tt"), 80, 24);
    terminal.send("stty -echo; PS1=; echo one $((40+2))\n");
    terminal.expect("one 42");
    let mut ssh = clients::ssh(server, &user);
    let mut bulk = Command::new("sh");
    bulk.args(["-c", r#""$@" | sha256sum"#, "sh"])
        .arg(ssh.get_program())
        .args(ssh.arg(STREAM).get_args());
    let bulk = Running::start(&mut bulk, Vec::new());
    let port = server::free_port();
    let mut ssh = clients::ssh(server, &user);
    ssh.args(["-o", "ExitOnForwardFailure=yes", "-N", "-L"])
        .arg(format!("{port}:127.0.0.1:{}", echo_server()))
        .stdin(Stdio::null());
    let _tunnel = Tunnel(ssh.spawn().unwrap());
    let mut forwarded = wait_for("the forward", LIMIT, || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    forwarded.set_read_timeout(Some(LIMIT)).unwrap();
    echoes(&mut forwarded, b"before");

    installed.upgrade();
    echoes(&mut forwarded, b"between");
    terminal.send("echo two $((40+3))\n");
    terminal.expect("two 43");
    let mut second = Echo::start(server, &user);
    installed.upgrade_by_signal();
    echoes(&mut forwarded, b"after");
    terminal.send("echo three $((40+4)); exit\n");
    terminal.expect("three 44");
    second.works("from the second program to the third");
    assert_eq!(installed.keepers(), 2);
    let ready = installed.debug(&["readyz"]).success();
    assert_eq!(ready.matches("keeper ").count(), 2, "{ready}");
    // New channels of an old connection too.
    let mut again = TcpStream::connect(("127.0.0.1", port)).unwrap();
    again.set_read_timeout(Some(LIMIT)).unwrap();
    echoes(&mut again, b"a new channel");
    installed.works_for(&user);

    let wanted =
        clients::run(Command::new("sh").args(["-c", &format!("{{ {STREAM}; }} | sha256sum")]));
    assert_eq!(bulk.wait().success(), wanted.success());
    second.end();
    drop(_tunnel);
    wait_until("the keepers to end", LIMIT, || installed.keepers() == 0);
    wait_until("all children to be collected", LIMIT, || {
        installed.zombies().is_empty()
    });
    installed.works_for(&user);
}

/// What a server can do, it can do after an upgrade.
fn afterwards_all_works(world: &World) {
    let user = world.user();
    let pid_file = world.directory.join("agent.pid");
    let pid_line = format!("PidFile {}", pid_file.display());
    let installed = Installed::start(world, &[&pid_line]);
    let pid = || fs::read_to_string(&pid_file).unwrap_or_default();
    let own = format!("{}\n", installed.server.id());
    let mut old = Echo::start(&installed.server, &user);
    let limits = |id: u32| fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
    let session_limit = || clients::ssh_run(&installed.server, &user, "ulimit -n").success();
    let score =
        || clients::ssh_run(&installed.server, &user, "cat /proc/self/oom_score_adj").success();
    let before = (limits(installed.server.id()), session_limit(), score());

    installed.upgrade();
    assert_eq!(
        before,
        (limits(installed.server.id()), session_limit(), score())
    );
    assert_eq!(pid(), own);
    // Only its own connections are listed: the keeper has the others.
    assert!(
        !installed
            .debug(&["sessions"])
            .success()
            .contains(&user.name)
    );
    let mut new = Echo::start(&installed.server, &user);
    let listed = installed.debug(&["sessions"]).success();
    assert_eq!(listed.matches(&user.name).count(), 1, "{listed}");
    assert_eq!(
        installed.debug(&["set-log-level", "debug"]).success(),
        "DEBUG\n"
    );

    installed
        .server
        .reload(world, &[&pid_line, "ForceCommand echo forced"]);
    wait_until("the new configuration", LIMIT, || {
        clients::ssh_run(&installed.server, &user, "x").out() == "forced\n"
    });
    installed.upgrade();
    assert_eq!(
        clients::ssh_run(&installed.server, &user, "x").out(),
        "forced\n"
    );
    assert_eq!(pid(), own);
    old.works("still");
    new.works("still");

    // A socket for the debug service that the configuration moves, and a pid file that it drops.
    let moved = world.directory.join("moved");
    let lines = format!("DataDir {}", moved.display());
    fs::write(
        &installed.server.config,
        server::configuration(world, installed.server.port, &[&lines]),
    )
    .unwrap();
    installed.install();
    installed.server.signal(Signal::USR2);
    wait_until("the moved socket", LIMIT, || {
        moved.join("debug.sock").exists()
    });
    wait_until("the old files to go", LIMIT, || {
        let old = world
            .directory
            .join(format!("data-{}", installed.server.port));
        !old.join("debug.sock").exists()
            && !old
                .join(format!("monitor.{}", installed.server.id()))
                .exists()
            && !pid_file.exists()
    });
    installed.works_for(&user);
    assert!(installed.debug(&["readyz"]).success().contains("yes"));

    let mut server = installed.server;
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let again = TcpListener::bind(server.address());
    assert!(again.is_ok(), "the port is not free: {again:?}");
    assert!(!moved.join("debug.sock").exists());
    old.works("to the end");
    new.works("to the end");
    old.end();
    new.end();
}

/// Whatever is wrong with the file, the server goes on and says why.
fn bad_files(world: &World) {
    let user = world.user();
    let installed = Installed::start(world, &[]);
    let mut echo = Echo::start(&installed.server, &user);
    let inode = || {
        fs::metadata(format!("/proc/{}/exe", installed.server.id()))
            .unwrap()
            .ino()
    };
    let before = inode();
    let good = fs::read(server::agent_file()).unwrap();
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    const MACHINE: usize = 18; // e_machine of elf(5)
    let program = |path: &str| fs::read(path).unwrap();
    let files: [(&str, Vec<u8>, u32, &str); 8] = [
        ("empty", Vec::new(), 0o755, "no ELF header"),
        (
            "a script",
            b"#!/bin/sh\nexit 0\n".to_vec(),
            0o755,
            "no ELF header",
        ),
        (
            "cut off",
            good[..good.len() - 1].to_vec(),
            0o755,
            "is cut off",
        ),
        ("its head", good[..4096].to_vec(), 0o755, "is cut off"),
        (
            "of another machine",
            changed(MACHINE, good[MACHINE] ^ 0xff),
            0o755,
            "another kind of machine",
        ),
        ("one that fails", program("/bin/false"), 0o755, "status 1"),
        ("no agent", program("/bin/true"), 0o755, "cannot take over"),
        ("open to others", good.clone(), 0o777, "chmod go-w"),
    ];
    let refused = |what: &str, reason: &str| {
        let ran = installed.debug(&["upgrade"]);
        assert_eq!(ran.code(), Some(1), "{what}: {} {}", ran.out(), ran.err());
        let said = ran.err();
        assert!(said.contains("goes on as it is"), "{what}: {said}");
        assert!(said.contains(reason), "{what}: {said}");
        assert_eq!(inode(), before, "{what}");
        installed.works_for(&user);
    };
    for (what, content, mode, reason) in files {
        let (written, new) = (
            installed.file.with_extension("written"),
            installed.file.with_extension("new"),
        );
        fs::write(&written, content).unwrap();
        copy(&written, &new, 0);
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).unwrap();
        fs::rename(&new, &installed.file).unwrap();
        refused(what, reason);
        echo.works(what);
    }
    fs::remove_file(&installed.file).unwrap();
    refused("none", "put the new file there");

    // A good file, and a configuration that it does not take.
    installed.install();
    let config = fs::read(&installed.server.config).unwrap();
    fs::write(
        &installed.server.config,
        [&config[..], b"Port nonsense\n"].concat(),
    )
    .unwrap();
    installed.server.signal(Signal::USR2);
    installed.server.wait_for_log(&["Port", "nonsense"]);
    installed
        .server
        .wait_for_log(&["goes on as it is", "failed its probe"]);
    fs::write(&installed.server.config, &config).unwrap();
    // A host key that is not one.
    let broken = world.directory.join("broken-key");
    fs::write(&broken, "nonsense").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o600)).unwrap();
    let line = format!("HostKey {}\n", broken.display());
    fs::write(
        &installed.server.config,
        [line.as_bytes(), &config].concat(),
    )
    .unwrap();
    refused("a broken host key", "broken-key");
    fs::write(&installed.server.config, &config).unwrap();
    assert_eq!(inode(), before);
    assert_eq!(installed.keepers(), 0);

    installed.upgrade();
    echo.works("at last");
    echo.end();
    installed.works_for(&user);
}

/// A new program that hangs is given up, and the server serves meanwhile; whoever asks a second time
/// hears the same.
fn hanging_probe(world: &World) {
    // The shell takes our arguments for a command to run: the configuration, which is a script too.
    const WAITS_FOR_EVER: &str = "#!/usr/bin/tail -f";
    let user = world.user();
    let installed = Installed::start(world, &[WAITS_FOR_EVER]);
    let config = &installed.server.config;
    fs::set_permissions(config, fs::Permissions::from_mode(0o755)).unwrap();
    let new = installed.file.with_extension("new");
    copy(Path::new("/bin/sh"), &new, 0);
    fs::rename(&new, &installed.file).unwrap();
    let probes = || {
        let config = config.display().to_string();
        let all = processes::family(installed.server.id()).into_iter();
        all.filter(|it| it.command.starts_with("/usr/bin/tail") && it.command.contains(&config))
            .count()
    };
    thread::scope(|scope| {
        let first = scope.spawn(|| installed.debug(&["upgrade"]));
        let second = scope.spawn(|| installed.debug(&["upgrade"]));
        wait_until("the probe", LIMIT, || probes() == 1);
        installed.works_for(&user);
        installed.server.signal(Signal::HUP);
        installed.works_for(&user);
        for ran in [first.join().unwrap(), second.join().unwrap()] {
            assert_eq!(ran.code(), Some(1), "{}", ran.out());
            assert!(ran.err().contains("within 15 s"), "{}", ran.err());
        }
    });
    wait_until("the probe to be gone", LIMIT, || probes() == 0);
    installed.works_for(&user);
    // A stop does not wait for one.
    let asked = installed.count("proving");
    installed.server.signal(Signal::USR2);
    wait_until("another probe", LIMIT, || {
        installed.count("proving") > asked && probes() == 1
    });
    let mut server = installed.server;
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let left = processes::all();
    let config = server.config.display().to_string();
    assert!(
        !left.iter().any(|it| it.command.contains(&config)),
        "{left:?}"
    );
}

/// The connection that brings the new version sees it take over, and goes on.
fn pushed_over_ssh(world: &World) {
    let key = world.directory.join("push");
    make_key(&key, &["-t", "ed25519"]);
    let keys = world.directory.join("push-keys");
    fs::copy(key.with_extension("pub"), &keys).unwrap();
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600)).unwrap();
    let installed = Installed::start(
        world,
        &[
            "PermitRootLogin yes",
            &format!("AuthorizedKeysFile {}", keys.display()),
        ],
    );
    let server = &installed.server;
    let control = world.directory.join("control");
    let mut master = clients::ssh_as(server, "root", &key);
    master
        .args(["-M", "-N", "-S"])
        .arg(&control)
        .stdin(Stdio::null());
    let mut master = Tunnel(master.spawn().unwrap());
    wait_until("the connection", LIMIT, || control.exists());
    let over = |remote: &str| {
        let mut ssh = clients::ssh_as(server, "root", &key);
        clients::run(ssh.arg("-S").arg(&control).arg(remote))
    };
    let here = world.directory.join("here");
    fs::create_dir(&here).unwrap();
    let new = here.join("agent");
    fs::rename(installed.beside(), &new).unwrap();
    let target = installed.file.with_extension("pushed");
    let mut scp = Command::new("scp");
    scp.args(["-F", "none", "-o"])
        .arg(format!("ControlPath={}", control.display()))
        .arg(&new)
        .arg(format!("root@127.0.0.1:{}", target.display()));
    clients::run(&mut scp).success();
    let (target, file) = (target.display(), installed.file.display());
    let order = format!(
        "mv {target} {file} && {} -c {} debug upgrade",
        server::agent_file().display(),
        server.config.display()
    );
    let said = over(&order).success();
    assert!(said.starts_with("upgraded: agent "), "{said}");
    assert!(installed.runs_the_installed_file());
    assert_eq!(
        over("echo the same connection").success(),
        "the same connection\n"
    );
    assert!(master.0.try_wait().unwrap().is_none());
    let mut ssh = clients::ssh_as(server, "root", &key);
    assert_eq!(clients::run(ssh.arg("echo another")).success(), "another\n");
}

/// Connections and logins come all the time, and all are served.
fn nobody_is_refused(world: &World) {
    let user = world.user();
    let installed = Installed::start(world, &["MaxStartups 500", "PerSourcePenalties no"]);
    let over = AtomicBool::new(false);
    let (greeted, logged_in) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(server::reads_version(installed.server.port), "refused");
                    greeted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                installed.works_for(&user);
                logged_in.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..4 {
            if round % 2 == 0 {
                installed.upgrade_by_signal();
            } else {
                installed.upgrade();
            }
            // A reload is no other matter: the old net's last connections are served too.
            installed.server.signal(Signal::HUP);
            thread::sleep(Duration::from_millis(300));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(greeted.load(Ordering::Relaxed) > 20, "{greeted:?}");
    assert!(logged_in.load(Ordering::Relaxed) > 1, "{logged_in:?}");
    wait_until("the keepers to end", LIMIT, || installed.keepers() == 0);
}

/// Who is between the key exchange and the login is let in by the program that began it.
fn login_under_way(world: &World) {
    const CLIENT: &str = r#"
import sys, paramiko
name, key, port = sys.argv[1:4]
client = paramiko.Transport(("127.0.0.1", int(port)))
client.start_client(timeout=30)
print("exchanged", flush=True)
sys.stdin.readline()
client.auth_publickey(name, paramiko.Ed25519Key.from_private_key_file(key))
channel = client.open_session()
channel.exec_command("echo in")
print(channel.makefile().read().decode(), end="", flush=True)
"#;
    let user = world.user();
    let installed = Installed::start(world, &[]);
    let mut client = Command::new(clients::python())
        .args(["-c", CLIENT, &user.name])
        .arg(&user.key)
        .arg(installed.server.port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "exchanged");
    installed.upgrade();
    assert_eq!(installed.keepers(), 1);
    client.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "in");
    drop(client.stdin.take());
    client.wait().unwrap();
    wait_until("the keeper to end", LIMIT, || installed.keepers() == 0);
}

/// Signals that come together: one upgrade after the other, and a stop is a stop.
fn signals_at_once(world: &World) {
    let user = world.user();
    let installed = Installed::start(world, &[]);
    let mut echo = Echo::start(&installed.server, &user);
    for signals in [
        &[Signal::USR2, Signal::USR2][..],
        &[Signal::USR2, Signal::HUP],
        &[Signal::HUP, Signal::USR2, Signal::USR2],
    ] {
        let before = installed.count("upgraded: agent");
        installed.install();
        for signal in signals {
            installed.server.signal(*signal);
        }
        wait_until("the new program", LIMIT, || {
            installed.count("upgraded: agent") > before
        });
        // In the middle of its start.
        installed.server.signal(Signal::HUP);
        installed.server.signal(Signal::USR2);
        wait_until("another", LIMIT, || {
            installed.count("upgraded: agent") > before + 1
        });
        installed.works_for(&user);
        echo.works("still");
        assert!(installed.runs_the_installed_file());
    }
    // The keeper has nothing to be upgraded, and does not end.
    let keeper = installed.server.processes("agent: monitor [draining]");
    assert_eq!(keeper.len(), 1);
    for signal in [Signal::USR2, Signal::HUP, Signal::TERM] {
        processes::kill(keeper[0].id, signal);
    }
    echo.works("in the keeper");
    installed.works_for(&user);

    let mut server = installed.server;
    server.signal(Signal::USR2);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(TcpListener::bind(server.address()).is_ok());
    let probes = processes::all();
    let config = server.config.display().to_string();
    let is_probe = |it: &&processes::Process| it.command.contains(&config);
    assert!(probes.iter().find(is_probe).is_none());
    echo.works("to the end");
    // To the keeper alone: what it keeps ends.
    processes::kill(keeper[0].id, Signal::USR1);
    let status = wait_for("the end of the session", LIMIT, || {
        echo.running.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(255));
}

/// A service manager sees one service that reloads, and its sockets stay.
fn service_manager(world: &World) {
    let user = world.user();
    let name = format!("agent-upgrade-test-{}", std::process::id());
    let notices = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    notices.set_read_timeout(Some(LIMIT)).unwrap();
    let hear = || {
        let mut buffer = [0; 256];
        let len = notices.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let installed = {
        let file = world.directory.join("managed");
        copy(&server::agent_file(), &file, 0);
        // Numbers of descriptors may have two digits, which dash does not take.
        let mut command = Command::new("bash");
        let socket = std::os::fd::AsRawFd::as_raw_fd(&listener);
        command
            .args([
                "-c",
                &format!(r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&{socket}"#),
            ])
            .arg(&file)
            .env("NOTIFY_SOCKET", format!("@{name}"));
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
        // The configuration names another port: what was handed over counts.
        let other = server::free_port();
        let mut server = Server::start_by(command, world, other, &[], &world.log());
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC).unwrap();
        server.port = port;
        Installed {
            server,
            file,
            versions: AtomicUsize::new(1),
        }
    };
    drop(listener);
    let ready = format!("READY=1\nMAINPID={}\n", installed.server.id());
    assert_eq!(hear(), ready);
    let mut echo = Echo::start(&installed.server, &user);
    for _ in 0..2 {
        installed.upgrade();
        assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(hear(), ready);
        installed.works_for(&user);
        installed.server.signal(Signal::HUP);
        assert!(hear().starts_with("RELOADING=1\n"));
        assert_eq!(hear(), ready);
        installed.works_for(&user);
    }
    echo.works("still");
    installed.server.signal(Signal::TERM);
    assert_eq!(hear(), "STOPPING=1\n");
    echo.end();
}

/// A box without a disk for keys has one in memory: clients meet the same after an upgrade.
fn key_in_memory(world: &World) {
    let port = server::free_port();
    let config = world.directory.join("memory-config");
    let data = world.directory.join("memory-data");
    fs::write(
        &config,
        format!(
            "Port {port}\nListenAddress 127.0.0.1\nPidFile none\nDataDir {}\nHostKeyDir /proc/none\n",
            data.display()
        ),
    )
    .unwrap();
    let file = world.directory.join("memory-agent");
    copy(&server::agent_file(), &file, 0);
    // Nothing in /etc/ssh for this process: no key of the machine's is found.
    let mut child = Command::new("unshare")
        .args(["-m", "sh", "-c"])
        .arg(r#"mount -t tmpfs none /etc/ssh; test ! -d /etc/agent || mount -t tmpfs none /etc/agent; exec "$0" "$@""#)
        .arg(&file)
        .arg("-c")
        .arg(&config)
        .arg("serve")
        .stdin(Stdio::null())
        .stderr(File::create(world.log()).unwrap())
        .spawn()
        .unwrap();
    let ended = |child: &mut std::process::Child| {
        processes::kill(child.id(), Signal::TERM);
        let _ = child.wait();
    };
    let key = || {
        let mut scan = Command::new("ssh-keyscan");
        scan.args(["-t", "ed25519", "-p", &port.to_string(), "127.0.0.1"]);
        clients::run(&mut scan).out()
    };
    wait_until("the server", LIMIT, || server::reads_version(port));
    let before = key();
    let mut debug = Command::new(&file);
    debug.arg("-c").arg(&config).args(["debug", "upgrade"]);
    for _ in 0..2 {
        let upgraded = clients::run(&mut debug);
        if upgraded.code() != Some(0) || key() != before || before.is_empty() {
            ended(&mut child);
            panic!("{before:?} {} {}", upgraded.out(), upgraded.err());
        }
    }
    ended(&mut child);
}
