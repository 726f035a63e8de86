//! Profiles of a bulk transfer, read by `go tool pprof`, with the names of this build.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::login::Logins;
use crate::packages::need;
use crate::server::agent;

/// `-top` of a profile: functions, with the share of all that they and what they call have, in percent.
fn top(file: &str) -> Vec<(String, f64)> {
    let output = Command::new("go")
        .args([
            "tool",
            "pprof",
            "-top",
            "-cum",
            "-nodecount=500",
            "-nodefraction=0",
        ])
        .arg(agent())
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let mut lines = text.lines().skip_while(|line| !line.contains("flat%"));
    assert!(lines.next().is_some(), "{output:?}");
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let share = words[4].trim_end_matches('%').parse().unwrap();
            (words[5..].join(" "), share)
        })
        .collect()
}

fn need_pprof() {
    need(
        "golang-go",
        Command::new("go").args(["tool", "pprof", "-h"]),
    );
}

/// Puts a profile into a file that pprof can read.
fn saved(logins: &Logins, name: &str, query: &str) -> PathBuf {
    let answer = logins.server.get(&format!("/debug/pprof/{name}?{query}"));
    assert_eq!(
        answer.status,
        200,
        "{:?}",
        String::from_utf8_lossy(&answer.body)
    );
    let path = logins.server.directory.join(format!("{name}.pprof"));
    fs::write(&path, &answer.body).unwrap();
    path
}

fn share(found: &[(String, f64)], function: &str) -> f64 {
    let found_it = found.iter().find(|(name, _)| name == function);
    found_it
        .unwrap_or_else(|| panic!("no {function} in {found:?}"))
        .1
}

#[test]
fn pprof_finds_what_a_transfer_computes_and_allocates() {
    need_pprof();
    let logins = Logins::start(&[]);
    let mut transfer = logins.transfer("chacha20-poly1305@openssh.com");
    // Few samples: pprof of that Go takes its time for each address of a build with all its symbols.
    let cpu = saved(&logins, "profile", "seconds=2&hz=10");
    let found = top(cpu.to_str().unwrap());
    assert!(share(&found, "serve_user") > 80.0, "{found:?}");
    // Where the processor has what it takes, the cipher is Rust, which has names.
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        assert!(
            share(&found, "try_apply_keystream_inout") > 5.0,
            "{found:?}"
        );
    }
    assert!(
        share(&found, "pump") > 20.0,
        "what copies from the program to the client"
    );

    let allocs = saved(&logins, "allocs", "");
    let found = top(allocs.to_str().unwrap());
    assert!(share(&found, "serve_user") > 20.0, "{found:?}");
    assert!(share(&found, "pump") > 1.0, "its buffers: {found:?}");
    assert!(transfer.goes_on());
}

#[test]
fn pprof_reads_each_of_them() {
    need_pprof();
    let logins = Logins::start(&[]);
    let _transfer = logins.transfer("aes256-gcm@openssh.com");
    for process in ["net", "monitor"] {
        for (name, unit) in [
            ("heap", "inuse_space"),
            ("allocs", "alloc_space"),
            ("mutex", "delay"),
            ("block", "delay"),
            ("threadcreate", "threadcreate"),
            ("goroutine", "goroutine"),
            ("profile", "cpu"),
        ] {
            let path = saved(&logins, name, &format!("seconds=1&process={process}"));
            let output = Command::new("go")
                .args(["tool", "pprof", "-raw", "-symbolize=none"])
                .arg(&path)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "{name} of {process}: {output:?}");
            assert!(text.contains(unit), "{name} of {process}: {text}");
            assert!(text.contains("Mappings"), "{name} of {process}: {text}");
        }
        // One of a kind at a time, and a second between two.
        std::thread::sleep(Duration::from_millis(1500));
    }
}

/// pprof speaks HTTP over TCP only: this passes it on, for a few connections.
fn pass_on(listener: TcpListener, socket: PathBuf) {
    for client in listener.incoming() {
        let (mut client, mut server) = (client.unwrap(), UnixStream::connect(&socket).unwrap());
        std::thread::spawn(move || {
            let mut to_server = server.try_clone().unwrap();
            let mut from_client = client.try_clone().unwrap();
            std::thread::spawn(move || copy(&mut from_client, &mut to_server));
            copy(&mut server, &mut client);
            let _ = client.shutdown(std::net::Shutdown::Both);
        });
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) {
    let _ = std::io::copy(from, to);
}

#[test]
fn pprof_fetches_by_itself() {
    need_pprof();
    let logins = Logins::start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let socket = logins.server.socket();
    std::thread::spawn(move || pass_on(listener, socket));
    assert!(TcpStream::connect(address).is_ok());
    for target in ["heap", "profile?seconds=1", "goroutine"] {
        let output = Command::new("go")
            .args(["tool", "pprof", "-top", "-symbolize=remote"])
            .arg(format!("http://{address}/debug/pprof/{target}"))
            .env("PPROF_TMPDIR", &logins.server.directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{target}: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("flat%"), "{target}: {output:?}");
    }
}
