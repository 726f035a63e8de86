//! What developers of `agent` run, as `cargo xtask COMMAND`: tests, size gate, release builds.
//!
//! Nothing here is part of the product. It installs what it needs from Debian's packages and the
//! language registries where it may, and otherwise names the command to run.

mod budget_file;
mod chroot_test;
mod dist;
mod packages;
mod run;
mod size_budget;
mod test;
mod toolchain;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask COMMAND

  test [--quick] [AREA...]     install what tests need, run them all, print a table
                               areas: fmt clippy unit integration helper system static size chroot
                               --quick leaves out the static builds and the long system tests
  size-budget [--record]       hold helper and agent against size-budget.toml
  dist [--target TARGET]...    build the static files into target/dist
                               targets: x86_64 aarch64 armv7 (default: all)
  chroot-test [--target T | --file F]
                               log in to the static file alone in a root directory
  setup                        only install what tests and release builds need
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let outcome = match arguments.first().map(String::as_str) {
        Some("test") => test::main(rest),
        Some("size-budget") => size_budget::main(rest),
        Some("dist") => dist::main(rest),
        Some("chroot-test") => chroot_test::main(rest),
        Some("setup") => packages::set_up(),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            Ok(())
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
