//! Profiles of the running server, read as pprof does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::login::Logins;
use crate::server::{Answer, Server, wait};

/// Unpacks what `tool` can read.
pub fn pipe_through(tool: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{tool}: {output:?}");
    output.stdout
}

/// A field of a protocol buffer.
#[derive(Debug, Clone, PartialEq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    unreachable!()
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            2 => {
                let len = usize::try_from(varint(&mut bytes)).unwrap();
                let (content, rest) = bytes.split_at(len);
                bytes = rest;
                Field::Bytes(content.to_vec())
            }
            other => panic!("wire type {other}"),
        };
        found.push((key >> 3, field));
    }
    found
}

struct Profile {
    /// Of the samples, each innermost first.
    stacks: Vec<Vec<u64>>,
    values: Vec<Vec<u64>>,
    strings: Vec<String>,
    mapping: (u64, u64),
}

fn read(gzipped: &[u8]) -> Profile {
    let all = fields(&pipe_through("gzip", &["-dc"], gzipped));
    let packed = |bytes: &[u8]| {
        let mut rest = bytes;
        let mut values = Vec::new();
        while !rest.is_empty() {
            values.push(varint(&mut rest));
        }
        values
    };
    let messages = |wanted: u64| -> Vec<Vec<(u64, Field)>> {
        all.iter()
            .filter(|(number, _)| *number == wanted)
            .map(|(_, field)| match field {
                Field::Bytes(bytes) => fields(bytes),
                Field::Number(_) => panic!("a number for a message"),
            })
            .collect()
    };
    let number = |message: &[(u64, Field)], wanted: u64| {
        message.iter().find_map(|(found, field)| match field {
            Field::Number(value) if *found == wanted => Some(*value),
            _ => None,
        })
    };
    let locations: std::collections::BTreeMap<u64, u64> = messages(4)
        .iter()
        .map(|it| (number(it, 1).unwrap(), number(it, 3).unwrap()))
        .collect();
    let (mut stacks, mut values) = (Vec::new(), Vec::new());
    for sample in messages(2) {
        for (field, content) in sample {
            let Field::Bytes(bytes) = content else {
                panic!()
            };
            match field {
                1 => stacks.push(packed(&bytes).iter().map(|id| locations[id]).collect()),
                2 => values.push(packed(&bytes)),
                _ => panic!("field {field} of a sample"),
            }
        }
    }
    let strings = all
        .iter()
        .filter(|(number, _)| *number == 6)
        .map(|(_, field)| match field {
            Field::Bytes(bytes) => String::from_utf8(bytes.clone()).unwrap(),
            Field::Number(_) => panic!(),
        })
        .collect();
    let mapping = messages(3).remove(0);
    Profile {
        stacks,
        values,
        strings,
        mapping: (number(&mapping, 2).unwrap(), number(&mapping, 3).unwrap()),
    }
}

/// The answer is no error; if it is, shows its words.
fn assert_good(answer: &Answer) {
    let body = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 200, "{body:?}");
}

#[test]
fn every_thread_shows_where_it_is() {
    let server = Server::start(&[]);
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.read_exact(&mut [0; 8]).unwrap();
        held.push(stream);
    }
    let answer = server.get("/debug/pprof/threads");
    assert_good(&answer);
    let profile = read(&answer.body);
    assert_eq!(profile.strings[0], "");
    assert!(profile.strings.contains(&"goroutine".to_owned()));
    let threads: u64 = profile.values.iter().map(|values| values[0]).sum();
    assert_eq!(threads, 4, "the acceptor and three connections");
    assert!(server.greets(), "net lives on");
    for stream in &held {
        assert!(stream.peer_addr().is_ok());
    }
    let made = server.get("/debug/pprof/threadcreate");
    assert_eq!(made.status, 200);
    let profile = read(&made.body);
    assert!(profile.strings.contains(&"threadcreate".to_owned()));
    let threads: u64 = profile.values.iter().map(|values| values[0]).sum();
    assert!(
        threads >= 4,
        "one for each of us, and of those before: {threads}"
    );
}

#[test]
fn what_was_allocated_is_shown_beside_what_is_in_use() {
    let logins = Logins::start(&[]);
    let server = &logins.server;
    let _transfer = logins.transfer("aes128-ctr");
    for (name, first) in [("allocs", "alloc_space"), ("heap", "inuse_space")] {
        let answer = server.get(&format!("/debug/pprof/{name}"));
        assert_eq!(answer.status, 200);
        let profile = read(&answer.body);
        assert!(profile.strings.contains(&first.to_owned()));
        let sum = |value: usize| -> u64 { profile.values.iter().map(|it| it[value]).sum() };
        assert!(sum(1) >= sum(3), "{:?}", profile.values);
        assert!(sum(1) >= 512 * 1024, "{:?}", profile.values);
    }
}

#[test]
fn waits_are_timed_while_somebody_looks() {
    let server = Server::start(&["DebugProfileMaxSeconds 5"]);
    let answers = std::thread::scope(|scope| {
        let profiles: Vec<_> = ["block", "mutex"]
            .into_iter()
            .map(|name| {
                let target = format!("/debug/pprof/{name}?seconds=2");
                let server = &server;
                scope.spawn(move || server.get(&target))
            })
            .collect();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.get("/debug/pprof/block?seconds=1").status, 429);
        for _ in 0..30 {
            assert!(server.greets());
        }
        profiles
            .into_iter()
            .map(|it| it.join().unwrap())
            .collect::<Vec<_>>()
    });
    for answer in &answers {
        assert_good(answer);
        let profile = read(&answer.body);
        assert!(profile.strings.contains(&"contentions".to_owned()));
        assert!(profile.strings.contains(&"delay".to_owned()));
    }
    // A connection waits for the monitor's first word, unless that is there before it looks.
    let block = read(&answers[0].body);
    let waits: u64 = block.values.iter().map(|values| values[0]).sum();
    let time: u64 = block.values.iter().map(|values| values[1]).sum();
    assert!(waits > 0 && time > 0, "{:?}", block.values);
}

#[test]
fn a_trace_shows_phases_and_sessions() {
    let logins = Logins::start(&[]);
    let server = &logins.server;
    let mut held = logins.ssh(&[]).arg("sleep 60").spawn().unwrap();
    wait("a session", || {
        server.get("/sessions").text().contains("\"programs\":1")
    });
    let text = std::thread::scope(|scope| {
        let trace = scope.spawn(|| server.get("/debug/pprof/trace?seconds=3"));
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(server.get("/debug/pprof/trace").status, 429);
        logins.visit();
        let answer = trace.join().unwrap();
        assert_eq!(answer.status, 200);
        answer.text()
    });
    let _ = held.kill();
    let _ = held.wait();
    let checked = pipe_through(
        "python3",
        &[
            "-c",
            "import json, sys\n\
             events = json.load(sys.stdin)['traceEvents']\n\
             depth = {}\n\
             for event in events:\n    \
                 step = {'B': 1, 'E': -1}.get(event['ph'], 0)\n    \
                 depth[event['tid']] = depth.get(event['tid'], 0) + step\n    \
                 assert depth[event['tid']] in (0, 1), event\n\
             assert not any(depth.values()), depth\n\
             print(len({event['tid'] for event in events}))\n\
             print(sorted({event['name'] for event in events}))",
        ],
        text.as_bytes(),
    );
    let checked = String::from_utf8(checked).unwrap();
    assert!(
        checked.starts_with("2\n"),
        "two connections: {checked} {text}"
    );
    for name in [
        "key exchange",
        "authentication",
        "login",
        "logged in",
        "keys are read",
        "session",
    ] {
        assert!(checked.contains(name), "{name} in {checked}");
    }
    assert_eq!(server.get("/debug/pprof/trace?seconds=301").status, 422);
    let again = server.get("/debug/pprof/trace?seconds=1");
    assert_eq!(again.status, 200, "the one before is over");
}

#[test]
fn a_trace_that_nobody_reads_is_over() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream
        .write_all(b"GET /debug/pprof/trace?seconds=60 HTTP/1.1\r\n\r\n")
        .unwrap();
    stream.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(server.get("/debug/pprof/trace?seconds=1").status, 429);
    drop(stream);
    wait("room for another", || {
        server.get("/debug/pprof/trace?seconds=1").status == 200
    });
}

#[test]
fn pprof_learns_that_there_are_no_names() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/debug/pprof/symbol").text(), "num_symbols: 0\n");
    let addresses = vec!["0x401000"; 5000].join("+");
    let answer = server.with_body("POST", "/debug/pprof/symbol", &addresses);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "num_symbols: 0\n")
    );
    let own = server.get("/debug/pprof/cmdline");
    let words: Vec<&[u8]> = own.body.split(|byte| *byte == 0).collect();
    assert_eq!(words[words.len() - 2], b"serve", "{words:?}");
    let net = server.get("/debug/pprof/cmdline?process=net");
    assert_eq!(net.body, b"agent: net\0");
    assert_eq!(server.get("/debug/pprof/cmdline?process=1").status, 422);
}

#[test]
fn the_monitor_shows_where_its_time_goes() {
    let server = Server::start(&[]);
    let asked = Instant::now();
    let work = std::thread::spawn({
        let address = ("127.0.0.1", server.port);
        move || {
            while asked.elapsed() < Duration::from_secs(2) {
                let Ok(mut stream) = TcpStream::connect(address) else {
                    continue;
                };
                let _ = stream.read_exact(&mut [0; 8]);
            }
        }
    });
    let answer = server.get("/debug/pprof/profile?seconds=2&process=monitor");
    work.join().unwrap();
    assert_good(&answer);
    assert!(asked.elapsed() >= Duration::from_secs(2));
    let profile = read(&answer.body);
    assert!(!profile.stacks.is_empty(), "it used CPU time");
    assert!(profile.strings.contains(&"nanoseconds".to_owned()));
    let (start, end) = profile.mapping;
    let inside = |address: &u64| (start..end).contains(address);
    assert!(
        profile.stacks.iter().flatten().any(inside),
        "addresses of the program"
    );
    assert!(server.greets());
}

#[test]
fn one_profile_of_a_kind_at_a_time_and_none_without_end() {
    let server = Server::start(&["DebugProfileMaxSeconds 5"]);
    assert_eq!(server.get("/debug/pprof/profile?seconds=6").status, 422);
    assert_eq!(server.get("/debug/pprof/profile?seconds=x").status, 422);
    assert_eq!(server.get("/debug/pprof/profile?process=1").status, 422);
    assert_eq!(server.get("/debug/pprof/profile?hz=1001").status, 422);
    assert_eq!(server.get("/debug/pprof/flame").status, 404);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| server.get("/debug/pprof/profile?seconds=3"));
        std::thread::sleep(Duration::from_secs(1));
        let second = server.get("/debug/pprof/profile?seconds=1");
        assert_eq!(second.status, 429);
        assert!(second.head.contains("Retry-After: "), "{}", second.head);
        assert_eq!(
            server.get("/healthz").status,
            200,
            "quick requests go through"
        );
        assert_eq!(first.join().unwrap().status, 200);
    });
}

#[test]
fn the_command_writes_an_archive() {
    let server = Server::start(&[]);
    let output = server.command(&["profile", "-s", "1"]);
    assert!(output.status.success(), "{output:?}");
    let names = pipe_through("tar", &["tzf", "-"], &output.stdout);
    assert_eq!(
        String::from_utf8(names).unwrap(),
        "heap.pprof\nprofile.pprof\ngoroutine.pprof\n"
    );
    let goroutine = pipe_through("tar", &["xzOf", "-", "goroutine.pprof"], &output.stdout);
    assert!(!read(&goroutine).stacks.is_empty());
    let all = "allocs,mutex,block,threadcreate,trace,cmdline,threads";
    let output = server.command(&["profile", "-s", "1", "-p", "monitor", all]);
    assert!(output.status.success(), "{output:?}");
    let names = pipe_through("tar", &["tzf", "-"], &output.stdout);
    assert_eq!(names.iter().filter(|byte| **byte == b'\n').count(), 7);
    let wrong = server.command(&["profile", "heat"]);
    assert_eq!(wrong.status.code(), Some(2));
}
