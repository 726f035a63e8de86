//! Profiles of the running server, read as pprof does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::server::Server;

/// Unpacks what `tool` can read.
fn pipe_through(tool: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
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
    assert_eq!(
        answer.status,
        200,
        "{:?}",
        String::from_utf8_lossy(&answer.body)
    );
    let profile = read(&answer.body);
    assert_eq!(profile.strings[0], "");
    assert!(profile.strings.contains(&"goroutine".to_owned()));
    let threads: u64 = profile.values.iter().map(|values| values[0]).sum();
    assert_eq!(threads, 4, "the acceptor and three connections");
    assert!(server.greets(), "net lives on");
    for stream in &held {
        assert!(stream.peer_addr().is_ok());
    }
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
    assert_eq!(
        answer.status,
        200,
        "{:?}",
        String::from_utf8_lossy(&answer.body)
    );
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
    let wrong = server.command(&["profile", "heat"]);
    assert_eq!(wrong.status.code(), Some(2));
}
