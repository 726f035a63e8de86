//! `agent debug`: the debug service's commands. What they print is for people on a terminal and for
//! scripts with `--json`; every failure says what to do.

use std::path::Path;
use std::process::ExitCode;

use rustix::process::geteuid;

use super::debug_client::{Failure, Service, USAGE};
use super::{load, print};

/// Runs the command that `words` are.
pub(super) fn run(config: Option<&Path>, words: &[String]) -> ExitCode {
    let loaded = match load(config, &[], geteuid().is_root()) {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    let service = Service::of(&loaded.config.global());
    match dispatch(&service, words) {
        Ok(status) => status,
        Err(failure) => failure.report(),
    }
}

fn dispatch(service: &Service, words: &[String]) -> Result<ExitCode, Failure> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["get-log-level"] => show(service.ask("GET", "/log-level", "", 0)?),
        ["set-log-level", level] => show(service.ask("PUT", "/log-level", level, 0)?),
        _ => Err(usage(words.first().copied())),
    }
}

fn show(text: Vec<u8>) -> Result<ExitCode, Failure> {
    Ok(print(&String::from_utf8_lossy(&text)))
}

fn usage(command: Option<&str>) -> Failure {
    let what = match command {
        None => "a command is missing".to_owned(),
        Some(command) => format!("debug {command}: no such command, or not with these words"),
    };
    Failure::new(USAGE, format!("{what}; agent debug --help lists them"))
}
