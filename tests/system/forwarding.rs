//! Forwarding with stock clients: ports and sockets, on connections of their own and shared.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;

use crate::accounts::User;
use crate::clients;
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::{LIMIT, Server, free_port};

pub const CASES: &[Case] = &[
    Case::new("forwarding::local_both_ways", local_both_ways),
    Case::new("forwarding::remote_both_ways", remote_both_ways),
    Case::new("forwarding::half_close", half_close),
    Case::new("forwarding::reasons", reasons),
    Case::new("forwarding::names", names),
    Case::new("forwarding::jump", jump),
    Case::new("forwarding::socks", socks),
    Case::new("forwarding::unix_local", unix_local),
    Case::new("forwarding::unix_remote", unix_remote),
    Case::new("forwarding::configured_away", configured_away),
    Case::new("forwarding::keys", keys),
    Case::new("forwarding::gateway_ports", gateway_ports),
    Case::new("forwarding::shared_connection", shared_connection),
    Case::new("forwarding::far_end_never_reads", far_end_never_reads),
    Case::new("forwarding::many_channels", many_channels),
    Case::new(
        "forwarding::forced_command_and_sockets",
        forced_command_and_sockets,
    )
    .only_agent(),
];

/// A client without a command; ended when dropped.
pub struct Tunnel(pub Child);

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `ssh -N` with `arguments`.
fn tunnel(server: &Server, user: &User, arguments: &[&str]) -> Tunnel {
    let mut ssh = clients::ssh(server, user);
    ssh.args(["-o", "ExitOnForwardFailure=yes", "-N"]);
    ssh.args(arguments);
    ssh.stdin(Stdio::null()).stdout(Stdio::null());
    Tunnel(ssh.spawn().unwrap())
}

/// A service that sends back what it gets, and at the end how much that was.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || echo_one(stream.unwrap()));
        }
    });
    port
}

fn echo_one(mut stream: TcpStream) {
    let mut buffer = vec![0; 64 * 1024];
    let mut total = 0;
    while let Ok(len @ 1..) = stream.read(&mut buffer) {
        total += len;
        if stream.write_all(&buffer[..len]).is_err() {
            return;
        }
    }
    let _ = stream.write_all(format!("#{total}").as_bytes());
}

pub fn connect(port: u16) -> TcpStream {
    let mut stream = None;
    wait_until("the port to listen", LIMIT, || {
        stream = TcpStream::connect(("127.0.0.1", port)).ok();
        stream.is_some()
    });
    let stream = stream.unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// Sends `data`, ends, and gives what comes back.
fn round(port: u16, data: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    let mut sender = stream.try_clone().unwrap();
    let copy = data.to_vec();
    let sending = thread::spawn(move || {
        let _ = sender.write_all(&copy);
        let _ = sender.shutdown(Shutdown::Write);
    });
    let mut back = Vec::new();
    let _ = stream.read_to_end(&mut back);
    sending.join().unwrap();
    back
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|n| u8::try_from((n * 7 + n / 251) % 256).unwrap())
        .collect()
}

fn assert_echo(port: u16, len: usize) {
    let data = pattern(len);
    let expected = [&data[..], format!("#{len}").as_bytes()].concat();
    assert!(
        round(port, &data) == expected,
        "{len} bytes did not come back whole"
    );
}

fn local_both_ways(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let (port, service) = (free_port(), echo());
    let _tunnel = tunnel(
        &server,
        &user,
        &["-L", &format!("{port}:127.0.0.1:{service}")],
    );
    assert_echo(port, 3);
    assert_echo(port, 20_000_000);
}

fn remote_both_ways(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let (port, service) = (free_port(), echo());
    let tunnel = tunnel(
        &server,
        &user,
        &["-R", &format!("{port}:127.0.0.1:{service}")],
    );
    assert_echo(port, 3);
    assert_echo(port, 20_000_000);
    drop(tunnel);
    wait_until("the listener to go", LIMIT, || {
        TcpStream::connect(("127.0.0.1", port)).is_err()
    });
}

/// Each direction ends by itself, through both kinds of forward.
fn half_close(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let service = listener.local_addr().unwrap().port();
    for flag in ["-L", "-R"] {
        let port = free_port();
        let _tunnel = tunnel(
            &server,
            &user,
            &[flag, &format!("{port}:127.0.0.1:{service}")],
        );
        // The client ends first, the service answers afterwards.
        let mut near = connect(port);
        let (mut far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(LIMIT)).unwrap();
        near.write_all(b"question").unwrap();
        near.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut far), "question");
        far.write_all(b"answer").unwrap();
        drop(far);
        assert_eq!(read_to_end(&mut near), "answer");
        // The service ends first, the client goes on.
        let mut near = connect(port);
        let (mut far, _) = listener.accept().unwrap();
        far.set_read_timeout(Some(LIMIT)).unwrap();
        far.write_all(b"greeting").unwrap();
        far.shutdown(Shutdown::Write).unwrap();
        assert_eq!(read_to_end(&mut near), "greeting");
        near.write_all(b"thanks").unwrap();
        drop(near);
        assert_eq!(read_to_end(&mut far), "thanks");
    }
}

fn read_to_end(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Runs `ssh -W`; gives what came back and what the client complained of.
fn through(server: &Server, user: &User, target: &str, options: &[&str]) -> (String, String) {
    let mut ssh = clients::talkative(&clients::ssh(server, user));
    ssh.args(options).args(["-W", target]);
    ssh.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = ssh.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(b"ping");
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The client is told why, in sshd's words.
fn reasons(world: &World) {
    let user = world.user();
    let server = world.server(&["PermitOpen 127.0.0.1:* nowhere.invalid:*"]);
    let service = echo();
    let (out, _) = through(&server, &user, &format!("127.0.0.1:{service}"), &[]);
    assert_eq!(out, "ping#4");
    for (target, reason) in [
        (
            format!("127.0.0.1:{}", free_port()),
            "connect failed: Connection refused",
        ),
        (
            format!("127.0.0.9:{service}"),
            "administratively prohibited: open failed",
        ),
        ("nowhere.invalid:1".to_owned(), "connect failed: "),
    ] {
        let (out, err) = through(&server, &user, &target, &[]);
        assert_eq!(out, "");
        assert!(err.contains(reason), "{target}: {err}");
    }
}

/// A name that nobody answers for holds no other channel up.
fn names(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let (port, service) = (free_port(), echo());
    let _tunnel = tunnel(
        &server,
        &user,
        &["-L", &format!("{port}:localhost:{service}")],
    );
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert_echo(port, 1000));
        }
    });
}

fn jump(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let hop = clients::ssh(&server, &user);
    let words: Vec<&str> = hop.get_args().map(|word| word.to_str().unwrap()).collect();
    let option = format!("ProxyCommand=ssh {} -W 127.0.0.1:%p", words.join(" "));
    let mut ssh = clients::ssh(&server, &user);
    ssh.args(["-o", &option, "echo jumped"]);
    let output = ssh.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "jumped\n");
}

fn socks(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let (port, service) = (free_port(), echo());
    let _tunnel = tunnel(&server, &user, &["-D", &port.to_string()]);
    let mut stream = connect(port);
    // SOCKS 5 without authentication, to a name (RFC 1928).
    stream.write_all(&[5, 1, 0]).unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [5, 0]);
    let name = b"localhost";
    let mut request = vec![5, 1, 0, 3, 9];
    request.extend(name);
    request.extend(service.to_be_bytes());
    stream.write_all(&request).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[1], 0, "granted");
    stream.write_all(b"ping").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut stream), "ping#4");
}

/// The service sees the user's credentials, not root's.
fn unix_local(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let path = user.home.join("service");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let seen = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let credentials = sockopt::socket_peercred(&stream).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        stream.write_all(text.to_uppercase().as_bytes()).unwrap();
        credentials.uid.as_raw()
    });
    let port = free_port();
    let _tunnel = tunnel(
        &server,
        &user,
        &["-L", &format!("{port}:{}", path.display())],
    );
    assert_eq!(round(port, b"hello"), b"HELLO");
    assert_eq!(seen.join().unwrap(), user.id);
}

fn unix_remote(world: &World) {
    let user = world.user();
    let server = world.server(&["StreamLocalBindMask 0117", "StreamLocalBindUnlink yes"]);
    let path = user.home.join("listening");
    let service = echo();
    let forward = format!("{}:127.0.0.1:{service}", path.display());
    for _ in 0..2 {
        let tunnel = tunnel(&server, &user, &["-R", &forward]);
        let connected = || std::os::unix::net::UnixStream::connect(&path);
        wait_until("the socket to listen", LIMIT, || connected().is_ok());
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (user.id, 0o660));
        let mut stream = connected().unwrap();
        stream.write_all(b"ping").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ping#4");
        drop(tunnel);
        wait_until("the listener to go", LIMIT, || connected().is_err());
    }
}

fn refuses_local(server: &Server, user: &User, service: u16) -> bool {
    let (out, err) = through(server, user, &format!("127.0.0.1:{service}"), &[]);
    let refused = err.contains("administratively prohibited");
    assert_eq!(out.is_empty(), refused, "{out} {err}");
    refused
}

fn refuses_remote(server: &Server, user: &User, place: &str) -> bool {
    let mut tunnel = tunnel(server, user, &["-R", &format!("{place}:127.0.0.1:1")]);
    let port: u16 = place.rsplit(':').next().unwrap().parse().unwrap();
    let mut ended = false;
    wait_until("a listener or a refusal", LIMIT, || {
        ended = tunnel.0.try_wait().unwrap().is_some();
        ended || TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    ended
}

fn configured_away(world: &World) {
    let user = world.user();
    let service = echo();
    let listed = free_port();
    let listen = format!("PermitListen 127.0.0.1:{listed}");
    for (line, local, remote) in [
        ("AllowTcpForwarding no", true, true),
        ("AllowTcpForwarding local", false, true),
        ("AllowTcpForwarding remote", true, false),
        ("DisableForwarding yes", true, true),
        ("PermitOpen none", true, false),
        ("PermitListen none", false, true),
        (listen.as_str(), false, true),
    ] {
        let server = world.server(&[line]);
        assert_eq!(refuses_local(&server, &user, service), local, "{line}");
        let place = format!("127.0.0.1:{}", free_port());
        assert_eq!(refuses_remote(&server, &user, &place), remote, "{line}");
        if line == listen {
            assert!(!refuses_remote(
                &server,
                &user,
                &format!("127.0.0.1:{listed}")
            ));
        }
    }
}

fn authorize_with(user: &User, options: &str) {
    user.authorize(&format!("{options} {}\n", user.public_key()));
}

fn keys(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let service = echo();
    let listed = free_port();
    let open = format!("permitopen=\"127.0.0.1:{service}\"");
    let elsewhere = "permitopen=\"127.0.0.1:1\"";
    let listen = format!("restrict,port-forwarding,permitlisten=\"127.0.0.1:{listed}\"");
    for (options, local, remote) in [
        ("no-port-forwarding", true, true),
        ("restrict", true, true),
        ("restrict,port-forwarding", false, false),
        (open.as_str(), false, false),
        (elsewhere, true, false),
        (listen.as_str(), false, true),
    ] {
        authorize_with(&user, options);
        assert_eq!(refuses_local(&server, &user, service), local, "{options}");
        let place = format!("127.0.0.1:{}", free_port());
        assert_eq!(refuses_remote(&server, &user, &place), remote, "{options}");
    }
}

/// Addresses in LISTEN state at a port, as /proc/net/tcp has them.
fn bound(port: u16) -> Vec<String> {
    let text = fs::read_to_string("/proc/net/tcp").unwrap();
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (address, at) = words[1].split_once(':')?;
            let is_it = words[3] == "0A" && u16::from_str_radix(at, 16) == Ok(port);
            is_it.then(|| address.to_owned())
        })
        .collect()
}

fn gateway_ports(world: &World) {
    let user = world.user();
    const LOOPBACK: &str = "0100007F";
    const ALL: &str = "00000000";
    for (line, asked, expected) in [
        ("GatewayPorts no", "0.0.0.0", LOOPBACK),
        ("GatewayPorts yes", "127.0.0.1", ALL),
        ("GatewayPorts clientspecified", "0.0.0.0", ALL),
        ("GatewayPorts clientspecified", "127.0.0.1", LOOPBACK),
    ] {
        let server = world.server(&[line]);
        let (port, service) = (free_port(), echo());
        let forward = format!("{asked}:{port}:127.0.0.1:{service}");
        let _tunnel = tunnel(&server, &user, &["-R", &forward]);
        assert_echo(port, 10);
        assert_eq!(bound(port), [expected], "{line} {asked}");
    }
}

/// A control master, and commands through it.
fn master(server: &Server, user: &User, socket: &Path) -> Tunnel {
    let mut ssh = clients::ssh(server, user);
    ssh.args(["-M", "-S", socket.to_str().unwrap(), "-N"]);
    let master = Tunnel(ssh.stdin(Stdio::null()).spawn().unwrap());
    wait_until("the control socket", LIMIT, || socket.exists());
    master
}

fn control(socket: &Path, arguments: &[&str]) -> (bool, String) {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "/dev/null", "-S", socket.to_str().unwrap()]);
    let output = ssh.args(arguments).arg("127.0.0.1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success(), text)
}

/// Forwards come and go on a connection that others use.
fn shared_connection(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let socket = user.home.join("c");
    let _master = master(&server, &user, &socket);
    let service = echo();
    let (port, target) = (free_port(), format!("127.0.0.1:{service}"));
    for flag in ["-L", "-R"] {
        let forward = format!("127.0.0.1:{port}:{target}");
        for _ in 0..3 {
            assert!(control(&socket, &["-O", "forward", flag, &forward]).0);
            assert_echo(port, 100_000);
            assert!(control(&socket, &["-O", "cancel", flag, &forward]).0);
            wait_until("the listener to go", LIMIT, || {
                TcpStream::connect(("127.0.0.1", port)).is_err()
            });
        }
    }
    let chosen = format!("0:{target}");
    let (made, text) = control(&socket, &["-O", "forward", "-R", &chosen]);
    let chosen: u16 = text.parse().unwrap();
    assert!(made && chosen > 1023);
    assert_echo(chosen, 10);
    assert!(control(&socket, &["-O", "check"]).0);
    assert!(control(&socket, &["-O", "exit"]).0);
}

/// Of many forwards whose far ends take nothing, none holds up the others, or a session.
fn far_end_never_reads(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxSessions 20"]);
    let socket = user.home.join("c");
    let _master = master(&server, &user, &socket);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_port = silent.local_addr().unwrap().port();
    let (stuck, port, service) = (free_port(), free_port(), echo());
    for (from, to) in [(stuck, silent_port), (port, service)] {
        let forward = format!("{from}:127.0.0.1:{to}");
        assert!(control(&socket, &["-O", "forward", "-L", &forward]).0);
    }
    let held: Vec<TcpStream> = (0..30)
        .map(|_| {
            let mut stream = connect(stuck);
            stream.set_nonblocking(true).unwrap();
            while let Ok(1..) = stream.write(&[0; 64 * 1024]) {}
            stream
        })
        .collect();
    assert_echo(port, 5_000_000);
    let mut ssh = clients::ssh(&server, &user);
    ssh.args(["-S", socket.to_str().unwrap(), "echo alive"]);
    assert_eq!(ssh.output().unwrap().stdout, b"alive\n");
    drop(held);
}

/// Hundreds of connections at once through one forward.
fn many_channels(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    let service = echo();
    for flag in ["-L", "-R"] {
        let port = free_port();
        let _tunnel = tunnel(
            &server,
            &user,
            &[flag, &format!("{port}:127.0.0.1:{service}")],
        );
        let mut streams: Vec<TcpStream> = (0..300).map(|_| connect(port)).collect();
        for (number, stream) in streams.iter_mut().enumerate() {
            stream.write_all(format!("{number:04}").as_bytes()).unwrap();
        }
        for (number, stream) in streams.iter_mut().enumerate() {
            let mut back = [0; 4];
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back[..], *format!("{number:04}").as_bytes());
        }
    }
}

/// A socket is no way around the one command that a key is for.
fn forced_command_and_sockets(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    authorize_with(&user, "command=\"echo forced\"");
    let path = user.home.join("service");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
    let port = free_port();
    let _tunnel = tunnel(
        &server,
        &user,
        &["-L", &format!("{port}:{}", path.display())],
    );
    assert_eq!(round(port, b"x"), b"");
    thread::sleep(Duration::from_millis(50));
    assert!(
        !refuses_local(&server, &user, echo()),
        "ports are another matter"
    );
}
