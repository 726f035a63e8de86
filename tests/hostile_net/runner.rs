//! Runs the tests one after the other, as `cargo test` expects it: names, a filter, an exit code.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

pub type Test = (&'static str, fn());

pub fn run(groups: &[&[Test]]) -> ExitCode {
    let mut filter = None;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => {
                for (name, _) in groups.concat() {
                    println!("{name}: test");
                }
                return ExitCode::SUCCESS;
            }
            // Options of the usual harness, with and without a value.
            "--test-threads" | "--color" | "--format" => drop(arguments.next()),
            option if option.starts_with('-') => {}
            name => filter = Some(name.to_owned()),
        }
    }
    let mut failed = Vec::new();
    let mut count = 0;
    for (name, test) in groups.concat() {
        if filter
            .as_ref()
            .is_some_and(|filter| !name.contains(filter.as_str()))
        {
            continue;
        }
        count += 1;
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    println!(
        "\ntest result: {count} run, {} failed {failed:?}",
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
