//! Peers that are not clients: garbage, silence, floods. A fresh login works all the while.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::accounts::User;
use crate::clients;
use crate::harness::{Case, World};
use crate::processes::wait_until;
use crate::server::{LIMIT, Server};

pub const CASES: &[Case] = &[
    Case::new("hostile::garbage", garbage),
    Case::new("hostile::no_banner", no_banner),
    Case::new("hostile::endless_banner", endless_banner),
    Case::new("hostile::byte_at_a_time", byte_at_a_time),
    Case::new("hostile::broken_packets", broken_packets),
    Case::new("hostile::reset_at_every_point", reset_at_every_point),
    Case::new("hostile::thousand_connections", thousand_connections)
        .long()
        .alone()
        .shipped(),
    Case::new("hostile::memory_after_sessions", memory_after_sessions)
        .long()
        .alone()
        .shipped(),
];

fn still_works(server: &Server, user: &User) {
    assert_eq!(clients::ssh_run(server, user, "echo in").success(), "in\n");
}

/// Reads until the server closes; what it said.
fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

fn garbage(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    for start in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-1.5-old\r\n",
        b"SSH-\r\n",
        b"\0\0\0\0\0\0\0\0\n",
        b"SSH-2.0\r\n",
    ] {
        let mut stream = server.connect();
        stream.write_all(start).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        rest(&mut stream);
    }
    still_works(&server, &user);
}

/// Connections that say nothing take no turn of anybody else's.
fn no_banner(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxStartups 100:30:200"]);
    let silent: Vec<TcpStream> = (0..60).map(|_| server.connect()).collect();
    still_works(&server, &user);
    drop(silent);
    still_works(&server, &user);
}

fn endless_banner(world: &World) {
    let user = world.user();
    let server = world.server(&[]);
    for line in [vec![b'x'; 300_000], [&b"line\r\n"[..]; 60_000].concat()] {
        let mut stream = server.connect();
        // It is cut off before all of it is taken, or the rest is thrown away.
        let _ = stream.write_all(&line);
        let _ = stream.shutdown(Shutdown::Write);
        let answer = rest(&mut stream);
        assert!(answer.len() < 10_000);
    }
    still_works(&server, &user);
}

/// Slowloris: many connections that send one byte from time to time.
fn byte_at_a_time(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxStartups 100:30:200", "LoginGraceTime 60"]);
    let mut slow: Vec<TcpStream> = (0..40).map(|_| server.connect()).collect();
    for byte in b"SSH-2.0-slow client\r\n" {
        for stream in &mut slow {
            stream.write_all(&[*byte]).unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    still_works(&server, &user);
    // They were taken for clients: key exchange has begun.
    for stream in &mut slow {
        let mut bytes = [0; 600];
        assert!(stream.read(&mut bytes).unwrap() > 8);
    }
}

/// What follows a proper version line and is no packet ends that connection only.
fn broken_packets(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxStartups 100:30:200"]);
    let packets: [&[u8]; 8] = [
        &[0xff; 64],
        &[0; 64],
        // Length 1, 4 GiB, 35,001, padding longer than the packet.
        &[0, 0, 0, 1, 0],
        &[0xff, 0xff, 0xff, 0xff, 4],
        &[0, 0, 0x88, 0xb9, 4],
        &[0, 0, 0, 12, 200, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        // KEXINIT of nothing, and NEWKEYS before any exchange.
        &[0, 0, 0, 12, 10, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0, 0, 0, 12, 10, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ];
    for packet in packets {
        let mut stream = server.connect();
        stream.write_all(b"SSH-2.0-broken\r\n").unwrap();
        stream.write_all(packet).unwrap();
        let _ = stream.shutdown(Shutdown::Write);
        rest(&mut stream);
    }
    still_works(&server, &user);
}

fn reset_at_every_point(world: &World) {
    let user = world.user();
    let server = world.server(&["MaxStartups 100:30:200"]);
    let hello = b"SSH-2.0-reset\r\n\0\0\0\x0c\x0a\x14";
    for length in 0..hello.len() {
        let mut stream = server.connect();
        stream.write_all(&hello[..length]).unwrap();
        // Closing with unread bytes sends a reset.
        drop(stream);
    }
    still_works(&server, &user);
}

/// A thousand that never log in: a login works beside them, and memory comes back.
fn thousand_connections(world: &World) {
    let user = world.user();
    let server = world.server(&[
        "MaxStartups 2000:100:3000",
        "LoginGraceTime 120",
        "LogLevel ERROR",
    ]);
    still_works(&server, &user);
    settle(&server);
    let idle = server.memory_kib();
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..1000 {
        let mut stream = server.connect();
        stream.write_all(b"SSH-2.0-one of many\r\n").unwrap();
        streams.push(stream);
    }
    still_works(&server, &user);
    drop(streams);
    if world.is_agent() {
        // What allocators keep of a thousand connections is an amount, not a share of what idles.
        let kept = (idle / 10).max(512);
        wait_until("memory to come back", LIMIT, || {
            server.memory_kib() <= idle + kept
        });
    }
    still_works(&server, &user);
}

/// Lets users' net processes and the like reach their steady state.
fn settle(server: &Server) {
    let mut last = server.memory_kib();
    for _ in 0..50 {
        std::thread::sleep(Duration::from_millis(100));
        let now = server.memory_kib();
        if now == last {
            return;
        }
        last = now;
    }
}

fn memory_after_sessions(world: &World) {
    let user = world.user();
    let server = world.server(&["LogLevel ERROR"]);
    for _ in 0..5 {
        still_works(&server, &user);
    }
    settle(&server);
    let idle = server.memory_kib();
    for _ in 0..20 {
        let running: Vec<_> = (0..10)
            .map(|_| {
                let mut ssh = clients::ssh(&server, &user);
                clients::Running::start(ssh.arg("head -c 100000 /dev/zero"), Vec::new())
            })
            .collect();
        for session in running {
            assert_eq!(session.wait().success().len(), 100_000);
        }
    }
    if world.is_agent() {
        wait_until("memory to come back", LIMIT, || {
            server.memory_kib() <= idle + idle / 10
        });
    }
}
