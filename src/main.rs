//! The roles of the one executable, chosen by argv\[0\]: the launcher's titles, else the command line.

#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
mod start;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: agent::allocator::OneHeap = agent::allocator::OneHeap;

fn main() -> ExitCode {
    agent::fault::ends_the_process();
    agent::allocator::prepare();
    if let Some(status) = agent::memexec::run_as_helper(std::env::args_os()) {
        return status;
    }
    let title = std::env::args_os().next().unwrap_or_default();
    if title.as_encoded_bytes().starts_with(b"agent: net") {
        return agent::net::main();
    }
    if title.as_encoded_bytes() == b"agent: password" {
        return agent::password::main();
    }
    if title.as_encoded_bytes().starts_with(b"agent: resolve") {
        return agent::resolve::main();
    }
    if title.as_encoded_bytes() == b"agent: debug" {
        return agent::debug_http::main();
    }
    if title.as_encoded_bytes().starts_with(b"agent: end") {
        return agent::aftermath::main();
    }
    if title.as_encoded_bytes() == b"agent: name" {
        return agent::client_name::main();
    }
    agent::cli::main()
}
