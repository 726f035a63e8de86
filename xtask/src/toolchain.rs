//! Compilers for static musl files: rustup's where it has the target, else Debian's.
//!
//! Debian has no std for musl; xtask/musl/install-std.sh compiles one from Debian's source package
//! into a sysroot of our own, once for each version of compiler and recipe.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::packages;
use crate::run::{self, Failure};

/// An architecture that is shipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Name on the command line and of the file.
    pub name: &'static str,
    pub triple: &'static str,
    /// Debian's name of the architecture, and of musl's and gcc's directories and tools.
    debian: &'static str,
    musl_triplet: &'static str,
    gcc: &'static str,
    /// Prefix of binutils.
    binutils: &'static str,
    /// Runs a file of this architecture elsewhere.
    pub emulator: &'static str,
    /// Of the linker: relocations packed, and src/start.rs, which applies them. binutils packs them for few
    /// architectures.
    pub start_arguments: &'static [&'static str],
    /// Whether rustc makes static programs for it that can be mapped anywhere.
    has_static_pie: bool,
}

pub const TARGETS: [Target; 3] = [
    Target {
        name: "x86_64",
        triple: "x86_64-unknown-linux-musl",
        debian: "amd64",
        musl_triplet: "x86_64-linux-musl",
        gcc: "x86_64-linux-gnu-gcc",
        binutils: "x86_64-linux-gnu-",
        emulator: "qemu-x86_64-static",
        start_arguments: &[
            "-Clink-arg=-Wl,-z,pack-relative-relocs",
            "-Clink-arg=-Wl,--entry=agent_start",
        ],
        has_static_pie: true,
    },
    Target {
        name: "aarch64",
        triple: "aarch64-unknown-linux-musl",
        debian: "arm64",
        musl_triplet: "aarch64-linux-musl",
        gcc: "aarch64-linux-gnu-gcc",
        binutils: "aarch64-linux-gnu-",
        emulator: "qemu-aarch64-static",
        start_arguments: &[],
        has_static_pie: false,
    },
    Target {
        name: "armv7",
        triple: "armv7-unknown-linux-musleabihf",
        debian: "armhf",
        musl_triplet: "arm-linux-musleabihf",
        gcc: "arm-linux-gnueabihf-gcc",
        binutils: "arm-linux-gnueabihf-",
        emulator: "qemu-arm-static",
        start_arguments: &[],
        has_static_pie: false,
    },
];

impl Target {
    pub fn named(name: &str) -> Result<Self, Failure> {
        TARGETS
            .into_iter()
            .find(|target| target.name == name || target.triple == name)
            .ok_or_else(|| format!("unknown target {name}: x86_64, aarch64, armv7"))
    }

    /// The machine's own, where it is one of ours.
    pub fn native() -> Result<Self, Failure> {
        Self::named(match std::env::consts::ARCH {
            "arm" => "armv7",
            other => other,
        })
    }

    pub fn is_native(self) -> bool {
        Self::native().is_ok_and(|native| native == self)
    }

    /// A tool of binutils for this architecture.
    pub fn binutil(self, tool: &str) -> Command {
        Command::new(format!("{}{tool}", self.binutils))
    }

    /// As part of environment variables that cargo and cc read.
    fn upper(self) -> String {
        self.triple.to_uppercase().replace('-', "_")
    }
}

/// A cargo that can build for `target`: environment set, arguments still to come.
pub fn cargo_for(target: Target) -> Result<Command, Failure> {
    packages::install(packages::FOR_STATIC)?;
    if !target.is_native() {
        packages::install(packages::FOR_CROSS)?;
    }
    let cache = run::cache_directory();
    fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;

    let mut cargo = if rustup_has(target) {
        run::cargo()
    } else {
        let rustc = debian_rustc(target, &cache)?;
        let mut cargo = Command::new("/usr/bin/cargo");
        cargo.current_dir(run::root()).env("RUSTC", rustc);
        // Whatever rustup and the cargo that runs this have set is about another compiler.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let other_compilers = text.starts_with("RUSTUP_")
                || (text.starts_with("CARGO") && text != "CARGO_HOME" && !text.contains("_NET_"))
                || text == "LD_LIBRARY_PATH"
                || text == "RUSTC_WORKSPACE_WRAPPER"
                || text == "RUSTFLAGS";
            if other_compilers {
                cargo.env_remove(&name);
            }
        }
        cargo
    };
    let linker = match target.has_static_pie {
        true => PathBuf::from(target.gcc),
        false => pie_linker(target, &cache)?,
    };
    cargo.env(format!("CARGO_TARGET_{}_LINKER", target.upper()), linker);
    if !target.is_native() {
        let wrapper = c_compiler(target, &cache)?;
        let key = target.triple.replace('-', "_");
        cargo.env(format!("CC_{key}"), wrapper);
        cargo.env(format!("AR_{key}"), format!("{}ar", target.binutils));
    }
    Ok(cargo)
}

/// A linker for targets of which rustc thinks that a static program has to have a fixed address: it has
/// not, with the start files of one that has none. (gcc's -static-pie is not known on all of them.)
fn pie_linker(target: Target, cache: &Path) -> Result<PathBuf, Failure> {
    let script = format!(
        r#"#!/bin/sh
for argument do
    shift
    case $argument in
    */self-contained/crt1.o) argument=${{argument%crt1.o}}rcrt1.o ;;
    */self-contained/crtbegin.o | */self-contained/crtend.o) argument=${{argument%.o}}S.o ;;
    -no-pie) argument=-Wl,-pie,--no-dynamic-linker,-z,text ;;
    esac
    set -- "$@" "$argument"
done
exec {} "$@"
"#,
        target.gcc
    );
    let path = cache.join(format!("{}-musl-link", target.name));
    write_script(&path, &script)?;
    Ok(path)
}

fn rustup_has(target: Target) -> bool {
    Command::new("rustup")
        .args(["target", "list", "--installed"])
        .output()
        .is_ok_and(|output| {
            String::from_utf8_lossy(&output.stdout)
                .lines()
                .any(|line| line == target.triple)
        })
}

/// Debian's rustc, with a sysroot that has `target`.
fn debian_rustc(target: Target, cache: &Path) -> Result<PathBuf, Failure> {
    let recipe = run::root().join("xtask/musl");
    let version = run::output(Command::new("/usr/bin/rustc").arg("-vV"))?;
    let directory = cache.join(format!("rust-{:016x}", digest(&recipe, &version)?));
    let sysroot = directory.join("sysroot");

    if !sysroot.join("lib/rustlib").join(target.triple).is_dir() {
        let musl = if target.is_native() {
            PathBuf::from("/usr")
        } else {
            musl_of(target, cache)?
        };
        println!(
            "compiling std for {} (once for each compiler)",
            target.triple
        );
        run::run(
            Command::new(recipe.join("install-std.sh"))
                .arg(target.triple)
                .arg(&sysroot)
                .arg(musl),
        )?;
    }
    let rustc = directory.join("rustc");
    let script = format!(
        "#!/bin/sh\nexec /usr/bin/rustc --sysroot '{}' \"$@\"\n",
        sysroot.display()
    );
    write_script(&rustc, &script)?;
    Ok(rustc)
}

fn digest(recipe: &Path, version: &str) -> Result<u64, Failure> {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    for file in ["install-std.sh", "unwind_shim.c"] {
        let path = recipe.join(file);
        fs::read(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?
            .hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Where Debian's musl-dev for a foreign architecture is unpacked.
fn musl_of(target: Target, cache: &Path) -> Result<PathBuf, Failure> {
    let directory = cache.join(format!("musl-{}", target.debian));
    let prefix = directory.join("usr");
    if !prefix
        .join("lib")
        .join(target.musl_triplet)
        .join("libc.a")
        .exists()
    {
        let mut fetch = Command::new(run::root().join("xtask/musl/fetch-musl.sh"));
        run::run(fetch.arg(&directory).arg(target.debian))?;
    }
    Ok(prefix)
}

/// A C compiler for crates with C in them that sees musl's headers instead of glibc's.
fn c_compiler(target: Target, cache: &Path) -> Result<PathBuf, Failure> {
    let musl = musl_of(target, cache)?;
    let own = run::output(Command::new(target.gcc).arg("-print-file-name=include"))?;
    let script = format!(
        "#!/bin/sh\nexec {} \"$@\" -nostdinc -isystem '{}' -isystem '{}'\n",
        target.gcc,
        musl.join("include").join(target.musl_triplet).display(),
        own.trim(),
    );
    let path = cache.join(format!("{}-musl-gcc", target.name));
    write_script(&path, &script)?;
    Ok(path)
}

fn write_script(path: &Path, text: &str) -> Result<(), Failure> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let failed = |error| format!("{}: {error}", path.display());
    // By rename: another checkout may be executing the present one.
    let new = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&new, text).map_err(failed)?;
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}
