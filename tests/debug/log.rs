//! The log, followed while the server runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::login::Logins;
use crate::server::{LIMIT, Server, agent, debug_command, wait};

/// A stream whose head was read.
struct Stream(BufReader<UnixStream>);

impl Stream {
    fn open(server: &Server, query: &str) -> Self {
        let mut stream = server.connect();
        let request = format!("GET /log?{query} HTTP/1.1\r\nHost: agent\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut stream = Self(BufReader::new(stream));
        assert_eq!(stream.line(), "HTTP/1.1 200 OK\r\n");
        while stream.line() != "\r\n" {}
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line
    }

    /// The first line with these words.
    fn find(&mut self, words: &str) -> String {
        loop {
            let line = self.line();
            assert!(!line.is_empty(), "the end came before {words}");
            if line.contains(words) {
                return line;
            }
        }
    }
}

fn lines_of(server: &Server, words: &str) -> usize {
    server.log().lines().filter(|it| it.contains(words)).count()
}

#[test]
fn a_stream_has_a_level_of_its_own() {
    let logins = Logins::start(&[]);
    let server = &logins.server;
    let mut stream = Stream::open(server, "level=trace");
    logins.visit();
    // Of the monitor, of net and of the helper.
    let debug = stream.find("Connection from 127.0.0.1");
    assert!(debug.contains(" DEBUG agent: "), "{debug}");
    let accepted = stream.find("Accepted publickey for ");
    assert!(accepted.contains("Z INFO  sshd: "), "{accepted}");
    stream.find("Disconnected from");
    server.wait_for_log("event=end user=\"");
    assert_eq!(lines_of(server, "Connection from"), 0, "{}", server.log());
    assert_eq!(lines_of(server, "debug:"), 0, "{}", server.log());
    assert_eq!(server.get("/log-level").text(), "INFO\n");
}

#[test]
fn processes_tell_no_more_than_somebody_wants() {
    let logins = Logins::start(&[]);
    let server = &logins.server;
    // Children learn of a level by a frame each: both ways are seen by what they say.
    let mut first = Stream::open(server, "level=debug");
    let mut held = logins.ssh(&[]).arg("sleep 60").spawn().unwrap();
    first.find("runs as process");
    drop(first);
    server.wait_for_log("the log is followed at DEBUG by ");
    let mut second = Stream::open(server, "level=info");
    logins.visit();
    let mut seen = String::new();
    loop {
        let line = second.line();
        seen.push_str(&line);
        if line.contains("event=end") {
            break;
        }
    }
    assert!(!seen.contains("DEBUG"), "{seen}");
    let _ = held.kill();
    let _ = held.wait();
}

#[test]
fn json_is_one_object_a_line() {
    let server = Server::start(&[]);
    let mut stream = Stream::open(&server, "level=debug&format=json");
    assert_eq!(server.put("/log-level", "warn").status, 200);
    let line = stream.find("log level WARN");
    assert!(line.starts_with("{\"time\":\"20"), "{line}");
    assert!(
        line.contains("\"level\":\"INFO\",\"program\":\"agent\",\"message\":\"debug service: "),
        "{line}"
    );
    assert!(line.ends_with("\"}\n"), "{line}");
    assert!(server.greets());
    stream.find("Connection from");
    assert_eq!(lines_of(&server, "Connection from"), 0);
}

#[test]
fn one_that_does_not_read_loses_lines_and_holds_nobody_up() {
    let server = Server::start(&["MaxStartups 1000", "PerSourcePenalties no"]);
    let mut stream = Stream::open(&server, "level=trace");
    // More lines than all buffers on the way hold.
    let visits = 2500;
    for _ in 0..visits {
        assert!(server.greets());
    }
    assert_eq!(server.get("/healthz").status, 200);
    // What was lost is said when there is room again.
    let reader = std::thread::spawn(move || {
        stream.find("lines are missing here");
    });
    let until = Instant::now() + LIMIT;
    while !reader.is_finished() && Instant::now() < until {
        assert!(server.greets());
    }
    assert!(
        reader.is_finished(),
        "nothing is said after {visits} visits"
    );
    reader.join().unwrap();
}

#[test]
fn streams_are_bounded_in_number_and_in_nobodys_way() {
    let server = Server::start(&[]);
    let streams: Vec<Stream> = (0..8)
        .map(|_| Stream::open(&server, "level=debug"))
        .collect();
    let refused = server.get("/log?level=debug");
    assert_eq!(refused.status, 429);
    assert!(refused.head.contains("Retry-After: "), "{}", refused.head);
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.get("/debug/pprof/heap").status, 200);
    drop(streams);
    wait("room for another", || {
        let mut stream = server.connect();
        stream
            .write_all(b"GET /log?level=info HTTP/1.1\r\n\r\n")
            .unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        status == *b"HTTP/1.1 200"
    });
}

#[test]
fn the_last_lines_are_kept() {
    let server = Server::start(&[]);
    for _ in 0..3 {
        server.put("/log-level", "info");
    }
    let answer = server.get("/log?follow=no");
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.text().matches("log level INFO by order of").count(),
        3
    );
    assert_eq!(server.get("/log?follow=no&level=error").text(), "");
    for wrong in ["level=loud", "format=xml", "follow=perhaps"] {
        assert_eq!(server.get(&format!("/log?{wrong}")).status, 422, "{wrong}");
    }
    let head = server.raw(b"HEAD /log HTTP/1.1\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[test]
fn the_command_follows_until_it_is_ended_or_the_server_is() {
    let server = Server::start(&[]);
    server.put("/log-level", "info");
    let last = debug_command(&server.config, &["log"]);
    assert!(last.status.success());
    let text = String::from_utf8(last.stdout).unwrap();
    assert!(
        text.contains("INFO  agent: debug service: log level INFO"),
        "{text}"
    );

    let mut follower = Command::new(agent())
        .arg("-c")
        .arg(&server.config)
        .args(["debug", "log", "--follow", "--level", "debug", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    server.wait_for_log("the log is followed at DEBUG");
    assert!(server.greets());
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let found = lines.find(|line| line.as_ref().unwrap().contains("Connection from"));
    assert!(found.unwrap().unwrap().starts_with('{'));
    std::thread::sleep(Duration::from_millis(100));
    assert!(follower.try_wait().unwrap().is_none());
    drop(server);
    let status = follower.wait().unwrap();
    assert_eq!(status.code(), Some(3));
    let mut errors = String::new();
    follower
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert!(errors.contains("the log ended"), "{errors}");

    let server = Server::start(&[]);
    for words in [&["log", "--level"][..], &["log", "--loud"]] {
        assert_eq!(debug_command(&server.config, words).status.code(), Some(2));
    }
    let wrong = debug_command(&server.config, &["log", "--level", "loud"]);
    assert_eq!(wrong.status.code(), Some(1));
}
