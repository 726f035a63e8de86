//! What brings tiny_http down when it meets it, each followed by a request that must be served, by the
//! same process.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::server::{Answer, Server, answer, wait};

const GOOD: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: agent\r\n\r\n";

/// Runs `attack` against a server and then asks for something sensible.
fn survives(attack: impl FnOnce(&Server)) {
    let server = Server::start(&[]);
    assert_eq!(server.raw(GOOD).status, 200);
    let before = server.children("agent: debug");
    assert_eq!(before.len(), 1);
    attack(&server);
    let asked = Instant::now();
    let Answer { status, body, .. } = server.raw(GOOD);
    assert_eq!((status, body.as_slice()), (200, b"ok\n".as_slice()));
    assert!(
        asked.elapsed() < Duration::from_secs(5),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(
        server.children("agent: debug"),
        before,
        "the process lives on"
    );
    assert!(server.greets(), "the ssh side does not notice");
}

#[test]
fn a_content_length_beyond_all_memory() {
    survives(|server| {
        let head = "PUT /log-level HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\nx";
        assert_eq!(server.raw(head.as_bytes()).status, 413);
    });
}

#[test]
fn fifty_megabytes_of_header() {
    survives(|server| {
        let header = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'x'; 50_000_000]].concat();
        assert_eq!(server.raw(&header).status, 431);
        let pid = server.children("agent: debug")[0];
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        let resident_kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert!(resident_kib < 30_000, "{resident_kib} KiB");
    });
}

#[test]
fn fifty_half_open_requests() {
    let mut held = Vec::new();
    survives(|server| {
        for _ in 0..50 {
            let mut stream = server.connect();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHo").unwrap();
            held.push(stream);
        }
    });
}

#[test]
fn half_open_requests_are_ended_after_their_time() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHo").unwrap();
    let begun = Instant::now();
    assert_eq!(answer(stream).status, 408);
    assert!(
        begun.elapsed() >= Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn more_connections_than_descriptors() {
    let mut held = Vec::new();
    survives(|server| {
        for _ in 0..300 {
            held.push(server.connect());
        }
    });
}

#[test]
fn thirty_slow_clients_that_keep_their_connections() {
    let mut held = Vec::new();
    survives(|server| {
        for _ in 0..30 {
            let mut stream = server.connect();
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nConnection: keep-alive\r\n\r\n")
                .unwrap();
            held.push(stream);
        }
        for stream in held.split_off(20) {
            assert_eq!(answer(stream).status, 200, "each of them is served");
        }
    });
}

#[test]
fn two_requests_in_one_and_bytes_that_are_no_request() {
    survives(|server| {
        assert_eq!(server.raw(&[GOOD, GOOD].concat()).status, 200);
        for (bytes, status) in [
            (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".as_slice(), 400),
            (b"PUT /log-level HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 411),
            (b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n", 417),
            (b"GET / HTTP/9.9\r\n\r\n", 505),
            (b"BREW /coffee HTTP/1.1\r\n\r\n", 405),
        ] {
            assert_eq!(server.raw(bytes).status, status, "{bytes:?}");
        }
    });
}

#[test]
fn a_process_that_dies_is_replaced() {
    let server = Server::start(&[]);
    assert_eq!(server.raw(GOOD).status, 200);
    let first = server.children("agent: debug");
    let pid = rustix::process::Pid::from_raw(first[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    wait("the end of the process", || {
        server.children("agent: debug") != first
    });
    assert_eq!(server.raw(GOOD).status, 200);
    server.wait_for_log("killed by signal 9");
}
