//! `cargo xtask dist`: one static file for each architecture, its symbols in a file beside it.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::run::{self, Failure};
use crate::toolchain::{self, TARGETS, Target};

/// What a build left behind.
#[derive(Debug, Clone)]
pub struct Built {
    /// The stripped file.
    pub file: PathBuf,
    /// Symbols and line tables; matched by build id.
    pub symbols: PathBuf,
    /// Where cargo built: the helper's image is in there.
    pub directory: PathBuf,
}

/// `cargo xtask dist [--target TARGET]...`
pub fn main(arguments: &[String]) -> Result<(), Failure> {
    let mut targets = parse_targets(arguments)?;
    if targets.is_empty() {
        targets = TARGETS.to_vec();
    }
    let mut lines = Vec::new();
    for target in targets {
        let built = build(target)?;
        let bytes = fs::metadata(&built.file).map_or(0, |metadata| metadata.len());
        lines.push(format!("{:>9} bytes  {}", bytes, built.file.display()));
    }
    println!("{}", lines.join("\n"));
    Ok(())
}

/// Targets named by `--target NAME`.
pub fn parse_targets(arguments: &[String]) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match (word.as_str(), words.next()) {
            ("--target", Some(name)) => targets.push(Target::named(name)?),
            _ => return Err(format!("unexpected argument {word}")),
        }
    }
    Ok(targets)
}

/// Builds, separates the symbols, checks that the result is static.
pub fn build(target: Target) -> Result<Built, Failure> {
    let directory = run::target_directory().join("static");
    let mut cargo = toolchain::cargo_for(target)?;
    // The linker's build id ties the symbol file to the stripped one; frame pointers let the
    // agent's profiler walk its own stack.
    // Small forms of what only old processors run (AES without instructions for it) or what only a
    // password check does (SHA-crypt).
    let flags = "-Clink-arg=-Wl,--build-id -Cforce-frame-pointers=yes \
                 --cfg aes_backend_soft=\"compact\" --cfg sha2_backend=\"soft\" \
                 --cfg sha2_backend_soft=\"compact\"";
    cargo
        .args(["rustc", "--locked", "--profile", "dist", "--bin", "agent"])
        .args(["--target", target.triple])
        .arg("--target-dir")
        .arg(&directory)
        // The program itself is three lines: this is the level of link-time optimization. At the
        // profile's "s" no loop is unrolled there, and ChaCha20 and AES-CTR run at half their
        // speed; the library keeps what "s" made of it. Costs 28 KiB.
        .args(["--", "-Copt-level=3"])
        .args(target.start_arguments)
        .env("RUSTFLAGS", flags);
    // The build time is part of the program: the same sources must give the same file.
    if std::env::var_os("SOURCE_DATE_EPOCH").is_none() {
        let mut git = Command::new("git");
        git.args(["log", "-1", "--format=%ct"])
            .current_dir(run::root());
        if let Ok(committed) = run::output(&mut git) {
            cargo.env("SOURCE_DATE_EPOCH", committed.trim());
        }
    }
    run::run(&mut cargo)?;

    let whole = directory.join(target.triple).join("dist/agent");
    let output = run::target_directory().join("dist");
    fs::create_dir_all(&output).map_err(|error| format!("{}: {error}", output.display()))?;
    let file = output.join(format!("agent-{}-linux", target.name));
    let symbols = output.join(format!("agent-{}-linux.debug", target.name));
    run::run(
        target
            .binutil("objcopy")
            .arg("--only-keep-debug")
            .arg(&whole)
            .arg(&symbols),
    )?;
    run::run(target.binutil("strip").arg("-o").arg(&file).arg(&whole))?;
    check_static(target, &file)?;
    Ok(Built {
        file,
        symbols,
        directory,
    })
}

/// No interpreter and no needed library: it runs in an empty root directory. And at any address, so that
/// nobody knows where its code is.
fn check_static(target: Target, file: &PathBuf) -> Result<(), Failure> {
    let headers = run::output(target.binutil("readelf").args(["-lhdW"]).arg(file))?;
    for forbidden in ["INTERP", "(NEEDED)"] {
        if headers.contains(forbidden) {
            return Err(format!(
                "{}: has {forbidden}: not a static file",
                file.display()
            ));
        }
    }
    if !headers.contains("DYN (") || headers.contains("TEXTREL") {
        return Err(format!(
            "{}: cannot be mapped at any address",
            file.display()
        ));
    }
    Ok(())
}
