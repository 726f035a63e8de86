//! The role `debug`: answers HTTP requests on the debug service's socket, for as long as somebody asks.
//!
//! tiny_http speaks the protocol and [`routes`] answers; neither ever meets a client. tiny_http trusts
//! what it reads (one Content-Length ends the process, half a request holds a thread for ever, EMFILE
//! ends its listener), so there is a fence around it: [`acceptor`] takes clients that the monitor has
//! let in, with bounds on their number, bytes and time, [`head`] decides what a request is, and
//! [`relay`] writes it anew into one of a few connections that were made before the process was
//! confined. The name of tiny_http's own listener is gone by then: nobody can reach it. What goes
//! wrong all the same ends this process, which holds nothing; the monitor starts the next.

mod acceptor;
pub mod head;
mod json;
mod questions;
mod relay;
mod routes;
mod streams;
mod tables;
mod views;

use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent_helper::link::Link;
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};

use crate::confine::{self, Confinement, Identity};
use crate::debug_frames::DebugToMonitor;
use crate::inherited::take_descriptor;
use crate::launch::FIRST_DESCRIPTOR;
use crate::limits::{
    DEBUG_DESCRIPTORS_MAX, DEBUG_FINISH_TIME_MS, DEBUG_MEMORY_BYTES, DEBUG_REQUESTS_AT_ONCE,
};
use questions::Monitor;
use relay::Queue;

/// The role's entry: serves until nobody has asked for a while, or the monitor closes the link.
pub fn main() -> ExitCode {
    let (Some(link), Some(listener), Some(data_dir)) = (
        take_descriptor(FIRST_DESCRIPTOR),
        take_descriptor(FIRST_DESCRIPTOR + 1),
        std::env::var_os("AGENT_DATA_DIR"),
    ) else {
        return ExitCode::FAILURE;
    };
    let monitor = Arc::new(Monitor::new(Link::new(link)));
    match serve(&monitor, listener, PathBuf::from(data_dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            monitor.log(log::Level::Error, &what);
            ExitCode::FAILURE
        }
    }
}

fn serve(monitor: &Arc<Monitor>, listener: OwnedFd, data_dir: PathBuf) -> Result<(), String> {
    let (inner, connections) =
        connect_inside(data_dir).map_err(|error| format!("no inner connection: {error}"))?;
    limit_resources();
    let confinement = Confinement {
        identity: Identity::from_environment(),
        accepts: true,
        serves_http: true,
        has_files: false,
    };
    confine::confine(&confinement).map_err(|error| format!("confinement failed: {error}"))?;
    let hello = DebugToMonitor::Hello {
        build_id: crate::BUILD_ID,
    };
    if monitor.tell(0, &hello, &[]).is_err() {
        return Ok(());
    }
    let server =
        tiny_http::Server::from_listener(inner, None).map_err(|error| error.to_string())?;
    let server = Arc::new(server);
    let queue = Arc::new(Queue::new().map_err(|error| error.to_string())?);
    for connection in connections {
        let (queue, monitor) = (Arc::clone(&queue), Arc::clone(monitor));
        start(move || relay::work(&connection, &queue, &monitor))?;
    }
    for _ in 0..DEBUG_REQUESTS_AT_ONCE {
        let (server, monitor) = (Arc::clone(&server), Arc::clone(monitor));
        start(move || routes::work(&server, &monitor))?;
    }
    let served = acceptor::run(&listener, monitor, &queue);
    // Who waits for an answer learns that the monitor is gone, or has become another program.
    monitor.end();
    queue.finish(Duration::from_millis(DEBUG_FINISH_TIME_MS));
    served
}

fn start(work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    std::thread::Builder::new()
        .spawn(work)
        .map(drop)
        .map_err(|error| format!("no thread: {error}"))
}

/// tiny_http's listener and all the connections that it will ever have. Its name is one that only
/// this user can connect to, and exists for this moment.
fn connect_inside(data_dir: PathBuf) -> std::io::Result<(UnixListener, Vec<UnixStream>)> {
    let path = data_dir.join(format!(".debug.{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let before = umask(Mode::RWXG | Mode::RWXO);
    let listener = UnixListener::bind(&path);
    umask(before);
    let listener = listener?;
    // tiny_http serves each of as many connections as its pool has threads, and of more not all.
    let connections = (0..DEBUG_REQUESTS_AT_ONCE)
        .map(|_| UnixStream::connect(&path))
        .collect::<Result<_, _>>();
    std::fs::remove_file(&path)?;
    Ok((listener, connections?))
}

/// What goes wrong in here stays small.
fn limit_resources() {
    for (resource, most) in [
        (Resource::As, DEBUG_MEMORY_BYTES),
        (Resource::Nofile, DEBUG_DESCRIPTORS_MAX),
    ] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        // Lower limits of the system stay.
        let _ = setrlimit(resource, limit);
    }
}
