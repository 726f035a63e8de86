//! Builds helper/ for the agent's own target, deflates it for embedding, and makes the build id.
//!
//! The helper is a workspace of its own with its own lock file and target directory: in the agent's
//! workspace rustix's `std` feature would leak into it, and a shared target directory deadlocks the
//! two cargos. `AGENT_HELPER_BIN` names a helper that was built elsewhere.
#![allow(clippy::unwrap_used)] // a build script's way to fail

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs};

use ring::digest::{Context, SHA256};

#[path = "src/image_filter.rs"]
mod image_filter;

/// Bytes of the build id.
const BUILD_ID_BYTES: usize = 16;

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap());
    // Naming one path switches off cargo's default of watching the whole package.
    for path in [
        "build.rs",
        "src",
        "helper/src",
        "helper/build.rs",
        "helper/discard.ld",
        "helper/Cargo.toml",
        "helper/Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    println!("cargo::rerun-if-env-changed=AGENT_HELPER_BIN");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");

    let mut identity = Context::new(&SHA256);
    identity.update(env::var("CARGO_PKG_VERSION").unwrap().as_bytes());
    for directory in ["src", "helper/src"] {
        digest_sources(&root.join(directory), &mut identity);
    }
    if env::var_os("CARGO_FEATURE_EMBED_HELPER").is_some() {
        let mut image = match env::var_os("AGENT_HELPER_BIN") {
            Some(path) => {
                println!("cargo::rerun-if-changed={}", Path::new(&path).display());
                fs::read(path).expect("AGENT_HELPER_BIN names the helper")
            }
            None => build(&root.join("helper"), &out.join("helper-target")),
        };
        let segments = Segments::of(&image);
        without_sections(&mut image, &segments);
        identity.update(&image);
        fs::write(out.join("helper.image"), &image).unwrap();
        if env::var("CARGO_CFG_TARGET_ARCH").unwrap() == "x86_64" {
            image = image_filter::sort(&image, segments.code.clone());
        }
        fs::write(out.join("helper.rs"), format!("{}_usize", image.len())).unwrap();
        fs::write(out.join("helper.z"), deflate(&image)).unwrap();
    }
    fs::write(out.join("built-s"), build_time_s().to_string()).unwrap();
    let digest = identity.finish();
    fs::write(out.join("build-id"), &digest.as_ref()[..BUILD_ID_BYTES]).unwrap();
}

/// Where things are in a program's file (elf(5)).
struct Segments {
    /// What is executed, in bytes of the file.
    code: Range<usize>,
    /// Where the last of them ends.
    end: usize,
    /// What the file's header says of sections: where they are; their size, their number, and where
    /// their names are.
    of_sections: [Range<usize>; 2],
}

impl Segments {
    fn of(image: &[u8]) -> Self {
        let is_64 = image[4] == 2;
        assert_eq!(image[5], 1, "little-endian");
        let number = |at: usize, bytes: usize| {
            let mut value = [0; 8];
            value[..bytes].copy_from_slice(&image[at..at + bytes]);
            usize::try_from(u64::from_le_bytes(value)).unwrap()
        };
        // Places in the file's header, and of flags, offset and size in a segment's.
        let (word, headers, sections, counts, (flags, offset, size)) = match is_64 {
            true => (8, 0x20, 0x28, 0x36, (0x04, 0x08, 0x20)),
            false => (4, 0x1c, 0x20, 0x2a, (0x18, 0x04, 0x10)),
        };
        let mut segments = Self {
            code: 0..0,
            end: 0,
            of_sections: [sections..sections + word, counts + 4..counts + 10],
        };
        for index in 0..number(counts + 2, 2) {
            let header = number(headers, word) + index * number(counts, 2);
            let start = number(header + offset, word);
            let end = start + number(header + size, word);
            segments.end = segments.end.max(end);
            let (is_loaded, is_executed) = (number(header, 4) == 1, number(header + flags, 4) & 1);
            if is_loaded && is_executed == 1 {
                segments.code = start..end;
            }
        }
        segments
    }
}

/// Cuts off what stands behind the last segment: section headers, which only debuggers and linkers read.
fn without_sections(image: &mut Vec<u8>, segments: &Segments) {
    assert!(segments.end <= image.len());
    image.truncate(segments.end);
    for field in &segments.of_sections {
        image[field.clone()].fill(0);
    }
}

/// As small as deflating gets (zlib), which takes a second.
fn deflate(image: &[u8]) -> Vec<u8> {
    let mut deflated = Vec::new();
    zopfli::compress(
        zopfli::Options::default(),
        zopfli::Format::Zlib,
        image,
        &mut deflated,
    )
    .unwrap();
    deflated
}

/// Seconds since 1970, now or as <https://reproducible-builds.org/specs/source-date-epoch/> has it.
fn build_time_s() -> u64 {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .expect("SOURCE_DATE_EPOCH is a number of seconds"),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
    }
}

/// Feeds names and contents of a source tree, in an order that does not depend on the disk.
fn digest_sources(directory: &Path, identity: &mut Context) {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            digest_sources(&path, identity);
        } else {
            identity.update(path.file_name().unwrap().as_encoded_bytes());
            identity.update(&fs::read(&path).unwrap());
        }
    }
}

fn build(directory: &Path, target_directory: &Path) -> Vec<u8> {
    let target = env::var("TARGET").unwrap();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap());
    cargo
        .current_dir(directory)
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--bin",
            "helper",
            "--target",
            &target,
        ])
        .arg("--target-dir")
        .arg(target_directory);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_outer_build_setting) {
            cargo.env_remove(&name);
        }
    }
    // Set rather than unset, so that flags of a config file (sanitizers, coverage) stay out too.
    let mut flags = vec![
        "-Crelocation-model=pie",
        // Tables of few jumps are larger than the comparisons that they replace.
        "-Cllvm-args=-min-jump-table-entries=10",
        // Dearer calls than LLVM's: what is shorter than a call and its moves goes in place of it.
        "-Cllvm-args=-inline-call-penalty=60",
        // Blocks of code in the order with the fewest jumps between, and no copies of their ends.
        "-Cllvm-args=-apply-ext-tsp-for-size=true",
        "-Cllvm-args=-disable-early-taildup",
        "-Cllvm-args=-tail-merge-size=2",
        // What is cheap is made anew where it is needed. Made ahead, it takes up a register that then is
        // saved and restored.
        "-Cllvm-args=-disable-machine-licm",
        "-Cllvm-args=-disable-constant-hoisting",
        "-Cllvm-args=-enable-pre=false",
        "-Cllvm-args=-enable-load-pre=false",
        "-Cllvm-args=-disable-lsr",
        "-Cllvm-args=-split-spill-mode=size",
    ];
    if target.contains("musl") {
        // Otherwise rustc puts musl's start files and -lc on the link line; this program has neither.
        flags.extend(["-Clink-self-contained=no", "-Ctarget-feature=-crt-static"]);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    cargo.env("RUSTC", env::var_os("RUSTC").unwrap());
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let name = target.to_uppercase().replace(['-', '.'], "_");
        cargo.env(format!("CARGO_TARGET_{name}_LINKER"), linker);
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "building the helper failed: {cargo:?}");
    fs::read(target_directory.join(target).join("release/helper")).unwrap()
}

/// What the outer cargo, clippy or coverage tool put into our environment for *this* package, and
/// what a build of another workspace must not inherit.
fn is_outer_build_setting(name: &str) -> bool {
    const PREFIXES: [&str; 5] = [
        "CARGO_FEATURE_",
        "CARGO_CFG_",
        "CARGO_PKG_",
        "CARGO_PROFILE_",
        "CARGO_BIN_",
    ];
    const NAMES: [&str; 26] = [
        "CARGO_BUILD_BUILD_DIR",
        "CARGO_BUILD_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "CARGO_BUILD_TARGET_DIR",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_MAKEFLAGS",
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_DIR",
        "CLIPPY_ARGS",
        "CLIPPY_CONF_DIR",
        "DEBUG",
        "HOST",
        "LLVM_PROFILE_FILE",
        "MAKEFLAGS",
        "MFLAGS",
        "NUM_JOBS",
        "OPT_LEVEL",
        "OUT_DIR",
        "PROFILE",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "RUSTFLAGS",
        "TARGET",
        "__CARGO_DEFAULT_LIB_METADATA",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || NAMES.contains(&name)
        || (name.starts_with("CARGO_TARGET_")
            && (name.ends_with("_RUSTFLAGS") || name.ends_with("_RUNNER")))
}
