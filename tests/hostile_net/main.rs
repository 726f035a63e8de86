//! A compromised `net`, or helper, against the real monitor.
//!
//! The monitor executes its own file in every role, and here its own file is this one: started as
//! `agent serve` it is the real server, as `agent: net` it gives its link to the test (or is the
//! real net, where the test did not ask for it), and the test says on that link whatever it likes.
//! What is proved: it gains nobody, nothing, and disturbs no other connection.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

mod certificates;
mod client;
mod floods;
mod forwards;
mod helper_frames;
mod lines;
mod methods;
mod one_shots;
mod permit;
mod puppet;
mod restricted;
mod runner;
mod signing;
mod slow_signatures;
mod sockets;
mod timing;
mod world;

use std::process::ExitCode;

fn main() -> ExitCode {
    let title = std::env::args_os().next().unwrap_or_default();
    let title = title.as_encoded_bytes();
    if title.starts_with(b"agent: net") {
        return puppet::net();
    }
    if title.starts_with(b"agent-helper") {
        return puppet::helper();
    }
    if title.starts_with(b"agent: resolve") {
        return agent::resolve::main();
    }
    if title == b"agent: password" {
        return puppet::one_shot(puppet::PASSWORDS, agent::password::main);
    }
    if title == b"agent: name" {
        return puppet::one_shot(puppet::NAMES, agent::client_name::main);
    }
    if std::env::var_os(world::SERVER).is_some() {
        return agent::cli::main();
    }
    if std::env::args().any(|argument| argument == "--timing") {
        timing::report();
        return ExitCode::SUCCESS;
    }
    runner::run(&[
        permit::TESTS,
        signing::TESTS,
        certificates::TESTS,
        sockets::TESTS,
        lines::TESTS,
        methods::TESTS,
        one_shots::TESTS,
        floods::TESTS,
        slow_signatures::TESTS,
        restricted::TESTS,
        forwards::TESTS,
        helper_frames::TESTS,
    ])
}
