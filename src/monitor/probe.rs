//! `serve --probe`: would this file, with this configuration, serve here, and take a running server's
//! place? Says so on standard output, and else what is in the way. Changes nothing.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent_helper::wire::Wire;

use super::host::Host;
use super::listeners::{Listener, for_addresses};
use super::log::peer_text;
use super::nets::Nets;
use super::poller::Poller;
use crate::cli::print;
use crate::config::Options;
use crate::frames::NetToMonitor;
use crate::host_keys;
use crate::limits::HELLO_TIME_MS;
use crate::take_over::{PROOF, TakenOver};

/// Proves what a start would need. `taken`: what the running server would hand over.
pub fn probe(options: &Options, as_root: bool, taken: Option<TakenOver>) -> ExitCode {
    match prove(options, as_root, taken.unwrap_or_default()) {
        Ok(what) => {
            let build: String = crate::BUILD_ID
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            print(&format!(
                "agent {} (build {build}): {what}\n{PROOF}\n",
                env!("CARGO_PKG_VERSION")
            ))
        }
        Err(errors) => {
            for error in errors {
                log::error!("{error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn prove(options: &Options, as_root: bool, taken: TakenOver) -> Result<String, Vec<String>> {
    let one = |error: String| vec![error];
    let keys = host_keys::find(options)?.len().max(taken.host_keys.len());
    let host = Host::new(as_root, taken.image).map_err(|error| one(error.to_string()))?;
    prove_listeners(options, taken.listeners)?;
    prove_net(&host, options).map_err(one)?;
    let helper = host
        .prepare_helper(options)
        .map_err(|error| one(error.to_string()))?;
    let keys = match keys {
        0 => "a host key to be made".to_owned(),
        keys => format!("{keys} host keys"),
    };
    Ok(format!(
        "configuration good, {keys}, helper from {}, net confined",
        helper.mode()
    ))
}

/// As a start: one address will do. Without a server to take over from, its port may be in use.
fn prove_listeners(options: &Options, taken: Vec<(OwnedFd, bool)>) -> Result<(), Vec<String>> {
    if taken.is_empty() {
        return Ok(());
    }
    let taken: Vec<Listener> = taken.into_iter().filter_map(Listener::taken_over).collect();
    let (sockets, errors) = for_addresses(&options.listen, &taken);
    if sockets.is_empty() {
        return Err(errors.into_iter().map(|(_, error)| error).collect());
    }
    Ok(())
}

/// Starts a `net`, which confines itself and says hello, or why not.
fn prove_net(host: &Host, options: &Options) -> Result<(), String> {
    let text = |error: std::io::Error| format!("net could not be started: {error}");
    let mut poller = Poller::new().map_err(|error| text(error.into()))?;
    let mut nets = Nets::default();
    let id = nets
        .start_strangers(host, &poller, host.net_ids(options), &[])
        .map_err(text)?;
    let until = Instant::now() + Duration::from_millis(HELLO_TIME_MS);
    let mut ready = Vec::new();
    let mut why = String::new();
    let outcome = loop {
        poller.wait(
            Some(until.saturating_duration_since(Instant::now())),
            &mut ready,
        );
        match nets
            .receive(id)
            .map(|frame| NetToMonitor::from_wire(&frame.content))
        {
            Some(Ok(NetToMonitor::Hello { build_id, .. })) if build_id == crate::BUILD_ID => {
                break Ok(());
            }
            Some(Ok(NetToMonitor::Log { message, .. })) => why = peer_text(&message),
            Some(_) => break Err("net said something else than hello".to_owned()),
            None if !nets.take_doomed().is_empty() => break Err(format!("net ended early: {why}")),
            None if Instant::now() >= until => break Err(format!("net never said hello {why}")),
            None => {}
        }
    };
    if let Some(net) = nets.get(id) {
        net.kill();
    }
    outcome
}
