//! System tests: stock clients against a whole server, as root, on loopback.
//!
//! The same cases run against Debian's sshd with SERVER_UNDER_TEST=sshd, so that the tests are
//! tested; cases about our own processes run for `agent` only. Each case has its own users, keys,
//! directory and server, all gone afterwards; cases run side by side. Nothing asserts times except
//! for generous upper bounds.
//!
//! Arguments: substrings of case names; `--list`; `--test-threads N`. The environment:
//! SERVER_UNDER_TEST (`agent`, `sshd`), AGENT_UNDER_TEST (another agent binary), TEST_PYTHON (a
//! Python with paramiko and asyncssh), TEST_NODE_MODULES (a directory with ssh2),
//! SYSTEM_TESTS_QUICK (leave out the long cases).

#![allow(clippy::unwrap_used, clippy::exit)]

mod accounts;
mod agents;
mod algorithms;
mod audit;
mod certificates;
mod clients;
mod compression;
mod configuration;
mod disconnect;
mod draining;
mod fail2ban;
mod file_clients;
mod file_faults;
mod files;
mod forwarding;
mod harness;
mod hostile;
mod housekeeping;
mod installed;
mod keys;
mod lifetime;
mod login;
mod modes;
mod mux;
mod overload;
mod passwords;
mod penalties;
mod processes;
mod pty;
mod server;
mod session;
mod terminal;
mod transfer;
mod tunnel;
mod upgrade;

fn main() {
    let cases = [
        agents::CASES,
        algorithms::CASES,
        audit::CASES,
        certificates::CASES,
        compression::CASES,
        configuration::CASES,
        disconnect::CASES,
        draining::CASES,
        fail2ban::CASES,
        file_clients::CASES,
        file_faults::CASES,
        files::CASES,
        forwarding::CASES,
        hostile::CASES,
        housekeeping::CASES,
        keys::CASES,
        lifetime::CASES,
        login::CASES,
        modes::CASES,
        mux::CASES,
        overload::CASES,
        passwords::CASES,
        penalties::CASES,
        session::CASES,
        terminal::CASES,
        transfer::CASES,
        tunnel::CASES,
        upgrade::CASES,
    ];
    std::process::exit(harness::run(&cases.concat()));
}
