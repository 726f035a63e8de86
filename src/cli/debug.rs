//! `agent debug`: the debug service's commands. What they print is for people, and with `--json` for
//! programs; every failure says what to do.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::geteuid;

use super::debug_client::{Failure, REFUSED, Service, USAGE};
use super::{help, print};
use crate::config::Config;
use crate::limits::{PROBE_TIME_MS, UPGRADE_READY_TIME_MS};

const TABLE: &str = "text/plain";
pub(super) const JSON: &str = "application/json";

/// Runs the command that `words` are.
pub(super) fn run(config: Option<&Path>, words: &[String]) -> ExitCode {
    let loaded = match Config::load(config, &[], geteuid().is_root()) {
        Ok(loaded) => loaded,
        Err(errors) => {
            for error in &errors {
                super::fail(&error.to_string());
            }
            let what = "where the server is, its configuration says: mend it, or name it with -c";
            return Failure::new(REFUSED, what).report();
        }
    };
    let service = Service::of(&loaded.config.global());
    match dispatch(&service, words) {
        Ok(status) => status,
        Err(failure) => failure.report(),
    }
}

fn dispatch(service: &Service, words: &[String]) -> Result<ExitCode, Failure> {
    let is_json = |word: &&str| *word == "--json";
    let accept = match words.iter().any(|word| is_json(&word.as_str())) {
        true => JSON,
        false => TABLE,
    };
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| !is_json(word))
        .collect();
    let get = |target: &str| service.ask("GET", target, "", accept);
    let post = |target: &str| service.ask("POST", target, "", accept);
    match words.as_slice() {
        ["get-log-level"] => show(get("/log-level")?),
        ["set-log-level", level] => show(service.ask("PUT", "/log-level", level, accept)?),
        ["profile", words @ ..] => super::debug_profile::run(service, words),
        ["log", words @ ..] => super::debug_log::run(service, words, accept),
        ["readyz"] => ready(service, accept),
        ["metrics"] => show(get("/metrics")?),
        ["sessions"] => show(get("/sessions")?),
        ["close", id] if is_number(id) => {
            post(&format!("/sessions/{id}/close"))?;
            Ok(print(&format!("connection {id} is told to end\n")))
        }
        ["drain"] => {
            let left = post("/drain")?;
            let left = String::from_utf8_lossy(&left);
            Ok(print(&format!(
                "no more connections are accepted; the server ends with the last one, {} are left\n",
                left.trim()
            )))
        }
        ["upgrade"] => upgrade(service),
        ["why"] => show(get("/refusals")?),
        ["why", whom] => show(get(&format!("/refusals?for={}", escaped(whom)))?),
        ["penalties"] => show(get("/penalties")?),
        ["penalties", "clear"] => cleared(&post("/penalties/clear")?),
        ["penalties", "clear", address] => {
            let target = format!("/penalties/clear?address={}", escaped(address));
            cleared(&post(&target)?)
        }
        ["penalties", "set", address, seconds] if is_number(seconds) => {
            let address = escaped(address);
            post(&format!(
                "/penalties/set?address={address}&seconds={seconds}"
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(usage(words.first().copied())),
    }
}

fn show(text: Vec<u8>) -> Result<ExitCode, Failure> {
    Ok(print(&String::from_utf8_lossy(&text)))
}

/// A server that is not ready answers all the same; scripts look at the exit code.
fn ready(service: &Service, accept: &str) -> Result<ExitCode, Failure> {
    match service.ask("GET", "/readyz", "", accept) {
        Ok(text) => show(text),
        Err(failure) if failure.status == REFUSED => {
            print(&format!("{}\n", failure.what));
            Ok(ExitCode::from(REFUSED))
        }
        Err(failure) => Err(failure),
    }
}

/// Has the new program take over, and looks whether it serves.
fn upgrade(service: &Service) -> Result<ExitCode, Failure> {
    let extra_s = u32::try_from(PROBE_TIME_MS / 1000).unwrap_or_default();
    let new = service
        .begin("POST", "/upgrade", "", TABLE, extra_s)?
        .whole()?;
    let until = Instant::now() + Duration::from_millis(UPGRADE_READY_TIME_MS);
    loop {
        // From here on only the new program can answer.
        match service.ask("GET", "/readyz", "", TABLE) {
            Ok(_) => {
                let new = String::from_utf8_lossy(&new);
                return Ok(print(&format!("upgraded: {new}")));
            }
            Err(_) if !service.is_enabled() => {
                let new = String::from_utf8_lossy(&new);
                return Ok(print(&format!(
                    "upgraded, and without a debug service (\"DebugService no\") from now on: {new}"
                )));
            }
            Err(failure) if Instant::now() >= until => {
                let what = format!(
                    "the new program has taken over and is not ready: {}",
                    failure.what
                );
                return Err(Failure::new(failure.status, what));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn cleared(count: &[u8]) -> Result<ExitCode, Failure> {
    let count = String::from_utf8_lossy(count);
    Ok(print(&format!("{} penalties are cleared\n", count.trim())))
}

fn is_number(text: &str) -> bool {
    text.parse::<u64>().is_ok()
}

/// Fit for a query (RFC 3986 section 2.1).
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._:".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn usage(command: Option<&str>) -> Failure {
    let what = match command {
        None => "a command is missing".to_owned(),
        Some(command) => match help::debug_usage(command) {
            Some(usage) => format!("write: agent debug {usage}"),
            None => format!("debug {command}: no such command"),
        },
    };
    Failure::new(USAGE, format!("{what}; agent debug --help lists them"))
}
