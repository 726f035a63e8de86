//! Whoever looks must not be noticed: busy sessions beside a debug service that is asked for everything
//! at random. A short while each time; `cargo test --test debug -- --ignored soak` takes its ten
//! minutes, and a minute for each cipher.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::login::Logins;
use crate::server::{Server, wait};

const SESSIONS: usize = 20;
const CIPHERS: [&str; 6] = [
    "chacha20-poly1305@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
];

/// A sequence that is the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

/// What a process holds: descriptors, threads, anonymous KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    descriptors: usize,
    threads: u64,
    kib: u64,
}

fn held(pid: i32) -> Held {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let word = line.and_then(|line| line.split_whitespace().next());
        word.unwrap().parse().unwrap()
    };
    Held {
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
        threads: number("Threads:"),
        kib: number("RssAnon:"),
    }
}

/// The server's processes that serve.
fn processes(server: &Server) -> Vec<i32> {
    let mut all = vec![server.pid().as_raw_nonzero().get()];
    all.extend(server.children("agent: net"));
    let nets = server.children_that(|title| title.starts_with("agent: net ["));
    all.extend(nets);
    all
}

/// What is sent comes back, until it is over; gives how many blocks.
fn echo(session: &mut Child, over: &AtomicBool) -> u64 {
    let (mut input, mut output) = (
        session.stdin.take().unwrap(),
        session.stdout.take().unwrap(),
    );
    let mut blocks = 0;
    while !over.load(Ordering::Relaxed) {
        let block = vec![u8::try_from(blocks % 251).unwrap(); 16 * 1024];
        input.write_all(&block).unwrap();
        let mut back = vec![0; block.len()];
        output.read_exact(&mut back).unwrap();
        assert_eq!(back, block);
        blocks += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    drop(input);
    assert_eq!(output.read_to_end(&mut Vec::new()).unwrap(), 0);
    assert!(session.wait().unwrap().success());
    blocks
}

/// One request of any kind; some are broken, and some are left before the answer.
fn ask_anything(server: &Server, random: &mut Random) {
    const TARGETS: [&str; 24] = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/sessions",
        "/refusals",
        "/penalties",
        "/log-level",
        "/log?follow=no",
        "/log?level=debug",
        "/log?level=trace&format=json",
        "/debug/pprof/heap",
        "/debug/pprof/allocs",
        "/debug/pprof/threads",
        "/debug/pprof/threadcreate",
        "/debug/pprof/profile?seconds=1",
        "/debug/pprof/profile?seconds=1&process=monitor&hz=1000",
        "/debug/pprof/mutex?seconds=1",
        "/debug/pprof/block?seconds=1&process=monitor",
        "/debug/pprof/trace?seconds=1",
        "/debug/pprof/cmdline",
        "/debug/pprof/symbol",
        "/nothing",
        "/sessions/999999/close",
    ];
    let target = TARGETS[random.below(TARGETS.len())];
    let method = ["GET", "GET", "GET", "GET", "HEAD", "POST", "PUT"][random.below(7)];
    let body = ["", "debug", "info", "x"][random.below(4)];
    let mut request = format!(
        "{method} {target} HTTP/1.1\r\nHost: agent\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes();
    match random.below(8) {
        0 => request.truncate(random.below(request.len())),
        1 => {
            let at = random.below(request.len());
            request[at] ^= 0x80;
        }
        _ => {}
    }
    let mut stream = server.connect();
    let patience = Duration::from_millis(100 + 30 * random.below(100) as u64);
    stream.set_read_timeout(Some(patience)).unwrap();
    let _ = stream.write_all(&request);
    // A stream has no end, and half a request no answer: the time decides.
    let _ = stream.take(1024 * 1024).read_to_end(&mut Vec::new());
}

fn soak(time: Duration) {
    let logins = Logins::start(&["MaxStartups 100", "MaxSessions 100", "LogLevel ERROR"]);
    let server = &logins.server;
    let mut sessions: Vec<Child> = (0..SESSIONS)
        .map(|number| {
            let cipher = CIPHERS[number % CIPHERS.len()];
            let mut ssh = logins.ssh(&["-c", cipher]);
            ssh.arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped());
            ssh.spawn().unwrap()
        })
        .collect();
    let programs = || {
        server
            .get("/sessions")
            .text()
            .matches("\"programs\":1")
            .count()
    };
    wait("all sessions", || programs() == SESSIONS);
    let over = AtomicBool::new(false);
    let asked = AtomicU64::new(0);
    let mut before = Vec::new();
    let blocks: Vec<u64> = std::thread::scope(|scope| {
        let echoes: Vec<_> = sessions
            .iter_mut()
            .map(|session| scope.spawn(|| echo(session, &over)))
            .collect();
        // What is held after everything happened once is what may be held.
        let until = Instant::now() + time / 4;
        let end = Instant::now() + time;
        let askers: Vec<_> = (1..=4)
            .map(|seed| {
                let asked = &asked;
                scope.spawn(move || {
                    let mut random = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
                    while Instant::now() < end {
                        ask_anything(server, &mut random);
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        before = processes(server)
            .into_iter()
            .map(|pid| (pid, held(pid)))
            .collect();
        for asker in askers {
            asker.join().unwrap();
        }
        // Profiles and traces under way are over.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(programs(), SESSIONS, "none is lost");
        let after: Vec<_> = processes(server)
            .into_iter()
            .map(|pid| (pid, held(pid)))
            .collect();
        assert_eq!(before.len(), after.len(), "{before:?}, then {after:?}");
        for ((pid, before), (_, after)) in before.iter().zip(&after) {
            // A profile may have been under way at the first look.
            assert!(
                after.descriptors <= before.descriptors + 2,
                "{pid}: {before:?}, {after:?}"
            );
            assert!(
                after.threads <= before.threads + 1,
                "{pid}: {before:?}, {after:?}"
            );
            assert!(
                after.kib <= before.kib + 4096,
                "{pid}: {before:?}, {after:?}"
            );
        }
        over.store(true, Ordering::Relaxed);
        echoes
            .into_iter()
            .map(|echo| echo.join().unwrap())
            .collect()
    });
    let (asked, least) = (asked.into_inner(), blocks.iter().min().unwrap());
    println!(
        "{asked} requests; {least} to {} blocks a session",
        blocks.iter().max().unwrap()
    );
    assert!(*least > 0 && asked > 20);
    for line in server.log().lines() {
        let died = line.contains("net[") || line.contains("debug[");
        let is_bad = died && line.contains("is gone") || line.contains("fault");
        assert!(!is_bad, "{line}");
    }
}

#[test]
fn sessions_do_not_notice_a_soak_of_questions() {
    soak(Duration::from_secs(20));
}

#[test]
#[ignore = "ten minutes"]
fn sessions_do_not_notice_a_long_soak_of_questions() {
    soak(Duration::from_secs(600));
}

/// A profile of each cipher at the highest rate: assembly uses the frame pointer for anything.
fn sample_each_cipher(seconds: u32) {
    let logins = Logins::start(&[]);
    let server = &logins.server;
    for cipher in CIPHERS {
        let mut transfer = logins.transfer(cipher);
        let nets = processes(server);
        let query = format!("/debug/pprof/profile?seconds={seconds}&hz=1000");
        let answer = server.raw_for(
            format!("GET {query} HTTP/1.1\r\n\r\n").as_bytes(),
            Duration::from_secs(u64::from(seconds) + 30),
        );
        assert_eq!(answer.status, 200, "{cipher}");
        println!("{cipher}: {} bytes of profile", answer.body.len());
        assert!(answer.body.len() > 500, "{cipher}: samples");
        assert!(transfer.goes_on(), "{cipher}");
        assert_eq!(processes(server), nets, "{cipher}");
        drop(transfer);
        // One of a kind at a time, and a second between two.
        std::thread::sleep(Duration::from_secs(1));
        wait("its end", || server.get("/sessions").text() == "[]\n");
    }
}

#[test]
fn no_cipher_faults_under_the_sampler() {
    sample_each_cipher(2);
}

#[test]
#[ignore = "six minutes"]
fn no_cipher_faults_under_the_sampler_in_a_minute_each_soak() {
    sample_each_cipher(60);
}

#[test]
fn nothing_is_left_when_nobody_asks() {
    let server = Server::start(&[]);
    assert_eq!(server.get("/healthz").status, 200);
    assert_eq!(server.children("agent: debug").len(), 1);
    let asked = Instant::now();
    std::thread::sleep(Duration::from_secs(55));
    assert_eq!(
        server.children("agent: debug").len(),
        1,
        "it lives for a minute"
    );
    wait("the end of the process", || {
        server.children("agent: debug").is_empty()
    });
    assert!(asked.elapsed() >= Duration::from_secs(59));
    assert_eq!(server.get("/healthz").status, 200, "and comes again");
}
