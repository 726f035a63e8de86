//! `agent debug profile`: fetches profiles and writes them as a gzip tar.
//!
//! Source: POSIX.1-1988, the ustar format.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use super::debug_client::{Failure, REFUSED, Service, USAGE};
use crate::profile::gzip;

const DEFAULT_NAMES: &str = "heap,profile,goroutine";
const KNOWN: &[&str] = &[
    "heap",
    "profile",
    "goroutine",
    "threads",
    "allocs",
    "mutex",
    "block",
    "threadcreate",
    "trace",
    "cmdline",
];
const BLOCK_BYTES: usize = 512;

/// What to fetch.
struct Wanted<'a> {
    seconds: u32,
    process: Option<&'a str>,
    names: Vec<&'a str>,
}

/// Runs the command.
pub(super) fn run(service: &Service, words: &[&str]) -> Result<ExitCode, Failure> {
    let wanted = parse(words)?;
    if io::stdout().is_terminal() {
        return Err(Failure::new(
            USAGE,
            "a profile is not for a terminal; write it to a file: agent debug profile > profile.tar.gz",
        ));
    }
    let mut archive = Vec::new();
    for name in &wanted.names {
        let progress = io::stderr().is_terminal();
        if progress {
            let _ = writeln!(io::stderr(), "{name} …");
        }
        let mut target = format!("/debug/pprof/{name}?seconds={}", wanted.seconds);
        if let Some(process) = wanted.process {
            target.push_str(&format!("&process={}", super::debug::escaped(process)));
        }
        let content = service
            .begin("GET", &target, "", "*/*", wanted.seconds)?
            .whole()?;
        append(&mut archive, &format!("{name}.pprof"), &content);
    }
    // Two empty blocks are the end.
    archive.resize(archive.len() + 2 * BLOCK_BYTES, 0);
    match io::stdout().write_all(&gzip(&archive)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::new(
            REFUSED,
            format!("standard output cannot be written ({error})"),
        )),
    }
}

fn parse<'a>(words: &[&'a str]) -> Result<Wanted<'a>, Failure> {
    let usage = |what: String| Failure::new(USAGE, format!("{what}; agent debug --help"));
    let mut wanted = Wanted {
        seconds: 0,
        process: None,
        names: DEFAULT_NAMES.split(',').collect(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-s" => {
                let seconds = words.next().and_then(|text| text.parse().ok());
                wanted.seconds = seconds.ok_or_else(|| usage("-s takes seconds".to_owned()))?;
            }
            "-p" => {
                let process = words.next().copied();
                wanted.process = Some(process.ok_or_else(|| usage("-p takes a process".into()))?);
            }
            names => {
                wanted.names = names.split(',').collect();
                if let Some(name) = wanted.names.iter().find(|name| !KNOWN.contains(name)) {
                    return Err(usage(format!(
                        "\"{name}\" is no profile: there are {}",
                        KNOWN.join(", ")
                    )));
                }
            }
        }
    }
    Ok(wanted)
}

/// One file of the archive.
fn append(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut header = [0_u8; BLOCK_BYTES];
    let mut field = |at: usize, text: &str| {
        let bytes = text.as_bytes();
        header[at..at + bytes.len()].copy_from_slice(bytes);
    };
    field(0, name);
    field(100, "0000600\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", content.len()));
    field(136, &format!("{now_s:011o}\0"));
    // The sum is made as if its own field were blank.
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive.extend_from_slice(&header);
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
}
