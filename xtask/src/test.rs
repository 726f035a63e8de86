//! `cargo xtask test`: everything that must hold before a change lands.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::run::{self, Failure, Logged};
use crate::toolchain::Target;
use crate::{chroot_test, dist, packages, size_budget};

/// Areas in the order in which they run: quick ones and those that many mistakes hit come first.
const AREAS: [(&str, Work); 9] = [
    ("fmt", format_check),
    ("clippy", clippy),
    ("unit", unit),
    ("helper", helper),
    ("integration", integration),
    ("static", static_build),
    ("system", system),
    ("size", size),
    ("chroot", chroot),
];

/// What `--quick` leaves out.
const SLOW_AREAS: [&str; 3] = ["static", "size", "chroot"];

/// What an area does.
type Work = fn(&Plan) -> Result<Counts, Failure>;

struct Plan {
    quick: bool,
    logs: PathBuf,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
}

struct Finished {
    area: &'static str,
    outcome: Result<Counts, Failure>,
    time: Duration,
}

/// `cargo xtask test [--quick] [AREA...]`
pub fn main(arguments: &[String]) -> Result<(), Failure> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let named: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| *argument != "--quick")
        .collect();
    if let Some(unknown) = named
        .iter()
        .find(|name| !AREAS.iter().any(|(area, _)| area == *name))
    {
        return Err(format!("unknown area {unknown}"));
    }
    let chosen = |area: &str| {
        if named.is_empty() {
            !(quick && SLOW_AREAS.contains(&area))
        } else {
            named.contains(&area)
        }
    };

    let logs = run::target_directory().join("test-logs");
    let _ = fs::remove_dir_all(&logs);
    let plan = Plan { quick, logs };
    let mut finished = Vec::new();
    for (area, work) in AREAS.into_iter().filter(|(area, _)| chosen(area)) {
        println!("\n== {area}");
        let start = Instant::now();
        let outcome = work(&plan);
        if let Err(message) = &outcome {
            eprintln!("xtask: {area}: {message}");
        }
        finished.push(Finished {
            area,
            outcome,
            time: start.elapsed(),
        });
    }
    summarize(&plan, &finished)
}

fn summarize(plan: &Plan, finished: &[Finished]) -> Result<(), Failure> {
    println!(
        "\n{:<12} {:>7} {:>7} {:>8}  result",
        "area", "passed", "failed", "seconds"
    );
    let mut total = Counts::default();
    for step in finished {
        // An area that failed as a whole counts as one failure, so that the sum never hides it.
        let (counts, verdict) = match &step.outcome {
            Ok(counts) => (*counts, "ok"),
            Err(message) => (
                Counts {
                    failed: 1,
                    ..Counts::default()
                },
                message.lines().next().unwrap_or(""),
            ),
        };
        println!(
            "{:<12} {:>7} {:>7} {:>8.1}  {}",
            step.area,
            counts.passed,
            counts.failed,
            step.time.as_secs_f64(),
            if counts.failed > 0 && step.outcome.is_ok() {
                "FAILED"
            } else {
                verdict
            },
        );
        total.passed += counts.passed;
        total.failed += counts.failed;
        total.ignored += counts.ignored;
    }
    println!("logs: {}", plan.logs.display());
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed > 0 {
        return Err("not everything passed".to_owned());
    }
    Ok(())
}

/// Runs a step's command; a step without tests counts as one.
fn step(plan: &Plan, log: &str, command: &mut Command) -> Result<Counts, Failure> {
    let logged = run::logged(command, &plan.logs.join(log))?;
    let Logged {
        success,
        passed,
        failed,
        ignored,
    } = logged;
    if !success && failed == 0 {
        return Err(format!("{} failed", run::shown(command)));
    }
    if passed + failed == 0 {
        return Ok(Counts {
            passed: 1,
            ..Counts::default()
        });
    }
    Ok(Counts {
        passed,
        failed,
        ignored,
    })
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

/// Manifests of the workspaces besides the root's.
fn other_workspaces() -> Vec<PathBuf> {
    ["helper/Cargo.toml", "fuzz/Cargo.toml"]
        .into_iter()
        .map(|manifest| run::root().join(manifest))
        .filter(|manifest| manifest.exists())
        .collect()
}

fn format_check(plan: &Plan) -> Result<Counts, Failure> {
    let mut counts = step(
        plan,
        "fmt.log",
        run::cargo().args(["fmt", "--all", "--check"]),
    )?;
    for manifest in other_workspaces() {
        let mut cargo = run::cargo();
        cargo
            .args(["fmt", "--check", "--manifest-path"])
            .arg(manifest);
        counts = counts + step(plan, "fmt.log", &mut cargo)?;
    }
    Ok(counts)
}

fn clippy(plan: &Plan) -> Result<Counts, Failure> {
    let mut cargo = run::cargo();
    cargo.args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]);
    let counts = step(plan, "clippy.log", &mut cargo)?;
    let mut cargo = run::cargo();
    cargo
        .args(["clippy", "--locked", "--manifest-path"])
        .arg(run::root().join("helper/Cargo.toml"));
    cargo.args(["--lib", "--bins", "--", "-D", "warnings"]);
    Ok(counts + step(plan, "clippy.log", &mut cargo)?)
}

fn unit(plan: &Plan) -> Result<Counts, Failure> {
    let mut cargo = run::cargo();
    cargo.args([
        "test",
        "--locked",
        "--workspace",
        "--lib",
        "--bins",
        "--no-fail-fast",
    ]);
    step(plan, "unit.log", &mut cargo)
}

fn helper(plan: &Plan) -> Result<Counts, Failure> {
    let mut cargo = run::cargo();
    cargo.args([
        "test",
        "--locked",
        "--lib",
        "--no-fail-fast",
        "--manifest-path",
    ]);
    cargo.arg(run::root().join("helper/Cargo.toml"));
    step(plan, "helper.log", &mut cargo)
}

/// All of tests/ but tests/system.
fn integration(plan: &Plan) -> Result<Counts, Failure> {
    packages::install(packages::FOR_TESTS)?;
    let directory = run::root().join("tests");
    let entries = fs::read_dir(&directory).map_err(|error| error.to_string())?;
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let name = path.file_stem()?.to_str()?.to_owned();
            let is_test = path.join("main.rs").exists()
                || path.extension().is_some_and(|extension| extension == "rs");
            (is_test && name != "system").then_some(name)
        })
        .collect();
    names.sort();
    let mut cargo = run::cargo();
    cargo.args(["test", "--locked", "--package", "agent", "--no-fail-fast"]);
    for name in &names {
        cargo.args(["--test", name]);
    }
    step(plan, "integration.log", &mut cargo)
}

fn system(plan: &Plan) -> Result<Counts, Failure> {
    packages::install(packages::FOR_TESTS)?;
    let python = packages::python_clients()?;
    let modules = packages::node_clients()?;
    let mut cargo = run::cargo();
    cargo.args([
        "test",
        "--locked",
        "--package",
        "agent",
        "--test",
        "system",
        "--no-fail-fast",
    ]);
    cargo.env("TEST_PYTHON", python);
    cargo.env("TEST_NODE_MODULES", modules);
    if plan.quick {
        cargo.env("SYSTEM_TESTS_QUICK", "1");
        return step(plan, "system.log", &mut cargo);
    }
    // What ships is what is tested; the other areas test builds with all checks on.
    let file = dist::build(Target::native()?)?.file;
    cargo.env("AGENT_UNDER_TEST", &file);
    let counts = step(plan, "system.log", &mut cargo)?;
    // Its process has a filter of system calls of its own. Names of functions, this file has not.
    let mut cargo = run::cargo();
    cargo
        .args(["test", "--locked", "--package", "agent", "--test", "debug"])
        .args(["--no-fail-fast", "--", "--skip", "pprof_finds"])
        .env("AGENT_UNDER_TEST", &file);
    Ok(counts + step(plan, "system.log", &mut cargo)?)
}

fn static_build(_: &Plan) -> Result<Counts, Failure> {
    for name in ["x86_64", "aarch64"] {
        dist::build(Target::named(name)?)?;
    }
    Ok(Counts {
        passed: 2,
        ..Counts::default()
    })
}

fn size(_: &Plan) -> Result<Counts, Failure> {
    size_budget::main(&[])?;
    Ok(Counts {
        passed: 1,
        ..Counts::default()
    })
}

fn chroot(_: &Plan) -> Result<Counts, Failure> {
    let mut counts = Counts::default();
    for name in ["x86_64", "aarch64"] {
        let target = Target::named(name)?;
        let built = dist::build(target)?;
        chroot_test::test(target, &built.file)?;
        println!("chroot test {name}: passed");
        counts.passed += 1;
    }
    Ok(counts)
}
