//! `agent debug log`: the last lines of the server's log, or those that come, at a level of one's own.

use std::io::{self, Write};
use std::process::ExitCode;

use super::debug_client::{Failure, NO_SERVER, REFUSED, Service, USAGE};

/// Runs the command.
pub(super) fn run(service: &Service, words: &[&str], accept: &str) -> Result<ExitCode, Failure> {
    let usage = |what: String| Failure::new(USAGE, format!("{what}; agent debug --help"));
    let mut follow = false;
    let mut level = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--follow" | "-f" => follow = true,
            "--level" | "-l" => {
                let named = words.next().copied();
                level = Some(named.ok_or_else(|| usage("--level takes a level".to_owned()))?);
            }
            other => return Err(usage(format!("log {other}: no such option"))),
        }
    }
    let mut target = format!("/log?follow={}", if follow { "yes" } else { "no" });
    if accept == super::debug::JSON {
        target.push_str("&format=json");
    }
    if let Some(level) = level {
        target.push_str(&format!("&level={}", super::debug::escaped(level)));
    }
    let mut lines = service.begin("GET", &target, "", accept, 0)?;
    if follow {
        lines.wait_for_ever();
    }
    while let Some(piece) = lines.next()? {
        let written = io::stdout()
            .write_all(&piece)
            .and_then(|()| io::stdout().flush());
        match written {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            Err(error) => {
                return Err(Failure::new(
                    REFUSED,
                    format!("standard output cannot be written ({error})"),
                ));
            }
        }
    }
    if follow {
        return Err(Failure::new(
            NO_SERVER,
            "the log ended: the server, or its debug service, did",
        ));
    }
    Ok(ExitCode::SUCCESS)
}
