//! The process that talks to the network: no rights, no files, a thread for each connection.
//!
//! Two kinds run this code: one for strangers, which accepts connections and serves them up to the
//! end of authentication, and one for each logged-in user, which takes accepted connections over.
//! Both are executed by the monitor, confine themselves before they start a thread or read a byte,
//! and ask the monitor (and, after login, the connection's helper) for everything that needs
//! rights. Nothing here holds a host key, opens a path, or writes a log.

mod acceptor;
mod banner;
mod client;
mod connection;
mod descriptors;
mod facts;
mod files;
mod forward_requests;
mod forwards;
mod helper_queue;
mod host_keys;
mod idle;
mod inherited;
mod logger;
mod mailbox;
mod memory;
mod monitor_link;
mod relay;
mod requests;
mod service;
mod session;
mod sessions;
mod streams;
mod threads;
mod timers;
mod tunnel;

use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::confine::{self, Confinement};
use crate::frames::NetToMonitor;
use inherited::Inherited;
use monitor_link::MonitorLink;
use threads::Threads;

/// The role's entry: serves until the monitor closes the link.
pub fn main() -> ExitCode {
    let Some(inherited) = Inherited::take() else {
        return ExitCode::FAILURE;
    };
    let link = Arc::new(MonitorLink::new(inherited.link));
    logger::install(Arc::clone(&link));
    raise_descriptor_limit();

    let confinement = Confinement {
        identity: inherited.identity,
        accepts: true,
        serves_http: false,
        has_files: inherited.serves_user,
    };
    let missing = match confine::confine(&confinement) {
        Ok(missing) => missing,
        Err(error) => {
            // The monitor gives up on this process; it learns why from the log line.
            log::error!("confinement failed: {error}");
            return ExitCode::FAILURE;
        }
    };
    let _registered = crate::profile::register();
    let threads = Arc::new(Threads::new(Arc::clone(&link)));
    let hello = NetToMonitor::Hello {
        build_id: crate::BUILD_ID,
        missing: missing.iter().map(|part| (*part).into()).collect(),
    };
    if link.send(0, &hello, &[]).is_err() {
        return ExitCode::FAILURE;
    }
    match acceptor::serve(inherited.listeners, &threads) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("link to the monitor: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Each connection costs several descriptors, so the soft limit goes as far as the hard one.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Failure leaves the limit as it was: accepting then pauses earlier.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}
