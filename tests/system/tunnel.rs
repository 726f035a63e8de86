//! Tunnel devices (`ssh -w`): who may have which, and that packets pass as OpenSSH frames them.

use std::fs;
use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;

use crate::accounts::User;
use crate::clients::{self, Running};
use crate::harness::{Case, World};
use crate::overload;
use crate::processes::wait_until;
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("tunnel::refused_unless_permitted", refused_unless_permitted),
    Case::new("tunnel::modes_and_numbers", modes_and_numbers),
    Case::new(
        "tunnel::a_user_has_the_rights_of_the_user",
        rights_of_the_user,
    ),
    Case::new("tunnel::packets_are_framed_as_openssh_does", framing),
    Case::new("tunnel::stock_client", stock_client),
];

fn require_device() {
    assert!(
        Path::new("/dev/net/tun").exists(),
        "these tests need tunnel devices: modprobe tun; mkdir -p /dev/net; mknod /dev/net/tun c 10 200"
    );
}

/// A server that lets root in with the user's key, under `options` of the key line.
fn server_for_root(world: &World, user: &User, options: &str, lines: &[&str]) -> Server {
    let keys = world.directory.join(format!("keys-{}", world.number()));
    fs::write(&keys, format!("{options}{}\n", user.public_key())).unwrap();
    let file = format!("AuthorizedKeysFile {}", keys.display());
    let lines = [&[file.as_str(), "PermitRootLogin yes"], lines].concat();
    world.server(&lines)
}

/// Opens tunnels, each of a mode and a number; how the server answers each, by root.
fn answers(server: &Server, user: &User, wishes: &[(u32, u32)]) -> String {
    let program = format!(
        r#"
begin_echo()
for number, (mode, unit) in enumerate({wishes:?}):
    say(90, "tun@openssh.com", number + 1, 1 << 21, 1 << 15, mode, unit)
    kind, body = hear()
    print(kind, word(body, 1) if kind == 92 else "")
echo()
"#
    );
    overload::run_as(server, "root", &user.key, &program)
}

const ANY: u32 = 0x7fff_ffff;

fn refused_unless_permitted(world: &World) {
    let user = world.user();
    let mut refusing = vec![&[][..], &["PermitTunnel no"]];
    // OpenSSH's DisableForwarding covers them since 10.0.
    if world.is_agent() {
        refusing.push(&["PermitTunnel yes", "DisableForwarding yes"]);
    }
    for lines in refusing {
        let server = server_for_root(world, &user, "", lines);
        let out = answers(&server, &user, &[(1, ANY), (2, ANY)]);
        assert_eq!(out, "92 2\n92 2\n", "{lines:?}");
    }
    // And restrict since 10.4.
    if world.is_agent() {
        for options in ["restrict ", "restrict,tunnel=\"any\" "] {
            let server = server_for_root(world, &user, options, &["PermitTunnel yes"]);
            assert_eq!(answers(&server, &user, &[(1, ANY)]), "92 2\n", "{options}");
        }
    }
}

fn modes_and_numbers(world: &World) {
    require_device();
    let user = world.user();
    let unit = 1000 + std::process::id() % 1_000_000;
    let server = server_for_root(world, &user, "", &["PermitTunnel point-to-point"]);
    let out = answers(&server, &user, &[(1, ANY), (2, ANY), (3, ANY), (1, unit)]);
    assert_eq!(out, "91 \n92 2\n92 2\n91 \n");
    let server = server_for_root(world, &user, "", &["PermitTunnel ethernet"]);
    assert_eq!(
        answers(&server, &user, &[(2, ANY), (1, ANY)]),
        "91 \n92 2\n"
    );
    let options = format!("tunnel=\"{unit}\" ");
    let server = server_for_root(world, &user, &options, &["PermitTunnel yes"]);
    // Free again as soon as the connection before has ended.
    wait_until("the device to be free", LIMIT, || {
        answers(&server, &user, &[(1, unit + 1), (1, ANY)]) == "92 2\n91 \n"
    });
}

/// The kernel decides what a user may open.
fn rights_of_the_user(world: &World) {
    require_device();
    let user = world.user();
    let server = world.server(&["PermitTunnel yes"]);
    let program = format!(
        "begin_echo()\nsay(90, 'tun@openssh.com', 1, 1 << 21, 1 << 15, 1, {ANY})\nprint(hear()[0])\necho()\n"
    );
    let out = overload::run_as(&server, &user.name, &user.key, &program);
    assert_eq!(out, "92\n");
}

/// Two addresses that nobody else here uses.
fn addresses(first: u8) -> (String, String) {
    let id = std::process::id();
    let net = format!("10.{}.{}", 64 + id / 250 % 150, id % 250);
    (format!("{net}.{first}"), format!("{net}.{}", first + 1))
}

/// The test plays the client's end of the tunnel, and sends a datagram back to where it came from.
fn framing(world: &World) {
    require_device();
    let user = world.user();
    let server = server_for_root(world, &user, "", &["PermitTunnel yes"]);
    let (here, there) = addresses(1);
    let program = format!(
        r#"
begin_echo()
import socket
say(90, "tun@openssh.com", 1, 1 << 21, 1 << 15, 1, {ANY})
device = word(hear_no(91), 1)
say(90, "session", 2, 1 << 21, 1 << 15)
shell = word(hear_no(91), 1)
say(98, shell, "exec", True, "ip addr add {here} peer {there} dev $SSH_TUNNEL && ip link set up $SSH_TUNNEL; echo $?")
while hear()[0] != 97: pass
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.settimeout(20)
datagrams.sendto(b"there and back", ("{there}", 4000))
while True:
    body = hear_no(94)
    packet = body[8:]
    # The kernel may have things of its own to say there.
    if word(body, 0) == 1 and packet[:4] == b"\0\0\0\2" and packet[-14:] == b"there and back": break
ip = packet[4:]
assert int.from_bytes(ip[2:4], "big") == len(ip)
back = bytearray(ip)
back[12:16], back[16:20] = ip[16:20], ip[12:16]
back[20:22], back[22:24] = ip[22:24], ip[20:22]
back[26:28] = bytes(2)
say(94, device, b"\0\0\0\2" + bytes(back))
print(datagrams.recv(100).decode())
# What is no packet does no harm, nor do others than promised.
for junk in (b"", b"\0", b"\0\0\0\2", b"\0\0\0\x18" + bytes(40), bytes(30000)): say(94, device, junk)
echo()
say(97, device)
hear_no(97)
echo()
"#
    );
    let out = overload::run_as(&server, "root", &user.key, &program);
    assert_eq!(out, "there and back\n");
}

/// A client of another network reaches this one through its tunnel, and is reached.
fn stock_client(world: &World) {
    require_device();
    let user = world.user();
    let server = server_for_root(world, &user, "", &["PermitTunnel yes"]);
    let (here, there) = addresses(3);
    let proxy = format!(
        "nsenter --net=/proc/{}/ns/net {} -c '{}' {}",
        std::process::id(),
        clients::python().display(),
        "import socket, sys, threading, os\n\
         s = socket.create_connection((\"127.0.0.1\", int(sys.argv[1])))\n\
         def up():\n \
          while d := os.read(0, 65536): s.sendall(d)\n\
         threading.Thread(target=up, daemon=True).start()\n\
         while d := s.recv(65536): os.write(1, d)"
            .replace('"', "\\\""),
        server.port
    );
    let proxy_file = world.directory.join("proxy");
    fs::write(
        &proxy_file,
        format!("#!/bin/sh\nexec {}\n", proxy.replace("\\\"", "\"")),
    )
    .unwrap();
    let mut client = Command::new("unshare");
    client
        .arg("--net")
        .arg("ssh")
        .args(clients::ssh_options(&user.key));
    client.args(["-o", &format!("ProxyCommand=sh {}", proxy_file.display())]);
    client.args(["-o", "PermitLocalCommand=yes", "-o"]);
    client.arg(format!(
        "LocalCommand=ip addr add {there} peer {here} dev %T && ip link set up %T"
    ));
    client.args([
        "-o",
        "ExitOnForwardFailure=yes",
        "-w",
        "any:any",
        "-l",
        "root",
        "tunnelled",
    ]);
    client.arg(format!(
        "ip addr add {here} peer {there} dev $SSH_TUNNEL && ip link set up $SSH_TUNNEL && echo up; cat"
    ));
    let running = Running::start_open(&mut client);
    // Nobody listens there: the other kernel says so, through the tunnel and back.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket
        .set_read_timeout(Some(std::time::Duration::from_millis(200)))
        .unwrap();
    wait_until("an answer through the tunnel", LIMIT, || {
        let sent = socket
            .connect((there.as_str(), 4000))
            .and_then(|()| socket.send(b"anybody?"));
        let answer = sent.and_then(|_| socket.recv(&mut [0; 8]));
        answer.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    // It would stay as long as the tunnel does.
    drop(running);
}
