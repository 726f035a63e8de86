//! The one-shot process that looks at one password and ends: `agent: password`.
//!
//! The monitor starts it as root with a socket as descriptor 3 and one request in it. It reads what
//! the shadow file says of the account, gives up all rights, and only then looks at the password
//! and computes: a memory-hard hash costs neither the monitor's memory nor its time, and what a
//! stranger typed is processed where nothing can be won. A hash that is to replace an expired one
//! is written by a second such process, which sees no password.

pub mod frames;
pub mod shadow;

mod check;
mod store;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;

use agent_helper::link::{Assembly, Link};
use agent_helper::wire::Wire;
use rustix::process::{Resource, Rlimit, setrlimit};
use zeroize::{Zeroize, Zeroizing};

use crate::confine::{self, Confinement};
use crate::inherited::take_descriptor;
use crate::launch::FIRST_DESCRIPTOR;
use crate::limits::{PASSWORD_CPU_TIME_S, SHADOW_FILE_MAX_BYTES};
use check::Found;
use frames::{Request, Verdict};
use store::Places;

const SHADOW: &str = "/etc/shadow";
const LOCK: &str = "/etc/.pwd.lock";

/// The shadow file, to be wiped when it is dropped.
///
/// # Errors
///
/// It cannot be read.
pub fn read_shadow() -> io::Result<Zeroizing<Vec<u8>>> {
    read_bounded(Path::new(SHADOW))
}

/// As much of a file as a shadow file may have.
fn read_bounded(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = Zeroizing::default();
    File::open(path)?
        .take(SHADOW_FILE_MAX_BYTES)
        .read_to_end(&mut file)?;
    Ok(file)
}

/// The role's entry.
pub fn main() -> ExitCode {
    let (Some(socket), Some(identity)) = (
        take_descriptor(FIRST_DESCRIPTOR),
        confine::Identity::from_environment(),
    ) else {
        return ExitCode::FAILURE;
    };
    let link = Link::new(socket);
    let mut assembly = Assembly::default();
    let Ok(Some(mut received)) = link.receive(&mut assembly, true) else {
        return ExitCode::FAILURE;
    };
    // A hash may ask for any time; whoever waits for it has a grace time to keep.
    let _ = setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(PASSWORD_CPU_TIME_S),
            maximum: Some(PASSWORD_CPU_TIME_S),
        },
    );
    let request = Request::from_wire(&received.content);
    received.content.zeroize();
    let verdict = match request {
        Ok(request) => answer(request, identity),
        Err(error) => failed(error.to_string()),
    };
    match link.send(0, &verdict, &[], true) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(request: Request, identity: confine::Identity) -> Verdict {
    let shadow = Path::new(SHADOW);
    match request {
        Request::Check {
            name,
            seed,
            mut password,
            permit_empty,
            mut new_password,
            today,
        } => {
            let found = Found::read(shadow, name.as_deref(), seed, today);
            let confinement = Confinement {
                identity: Some(identity),
                accepts: false,
                serves_http: false,
                has_files: false,
            };
            if let Err(error) = confine::confine(&confinement) {
                return failed(format!("confinement failed: {error}"));
            }
            let verdict = found.judge(&password, permit_empty, new_password.as_deref());
            password.0.zeroize();
            if let Some(new) = &mut new_password {
                new.0.zeroize();
            }
            verdict
        }
        Request::Store { name, hash, today } => {
            let places = Places {
                shadow,
                lock: Path::new(LOCK),
            };
            match store::store(places, &name, &hash, today) {
                Ok(()) => Verdict::Stored,
                Err(what) => failed(what),
            }
        }
    }
}

fn failed(what: impl AsRef<str>) -> Verdict {
    Verdict::Failed {
        what: what.as_ref().into(),
    }
}
