//! Debian packages and clients in Python and JavaScript that tests and release builds need.
//!
//! As root they are installed; otherwise the command to run is named, and that is a failure: a test
//! that cannot run is not a test that passed.

use std::fs;
use std::process::Command;

use crate::run::{self, Failure};

/// For tests/system, tests/helper and tests/debug: clients, the reference server, account tools, readers
/// of profiles and metrics.
pub const FOR_TESTS: &[&str] = &[
    "borgbackup",
    "busybox-static",
    "curl",
    "dropbear-bin",
    "fail2ban",
    "fuse3",
    "gcc",
    "git",
    "golang-go",
    "lftp",
    "libc6-dev",
    "openssh-client",
    "openssh-server",
    "passwd",
    "procps",
    "putty-tools",
    "python3",
    "python3-prometheus-client",
    "python3-venv",
    "rclone",
    "rsync",
    "sshfs",
    "strace",
    "util-linux",
];

/// For static files of the machine's own architecture.
pub const FOR_STATIC: &[&str] = &[
    "binutils",
    "cargo-web",
    "gcc",
    "libc6-dev",
    "musl-tools",
    "rust-web-src",
    "rustc-web",
];

/// For static files of the other architectures, and to run them.
pub const FOR_CROSS: &[&str] = &["gcc-aarch64-linux-gnu", "gcc-arm-linux-gnueabihf"];

/// Runs files of other architectures.
pub const FOR_EMULATION: &[&str] = &["qemu-user-static"];

/// Python clients, by exact version: what they negotiate, or find fault with, decides what is tested.
const PYTHON_CLIENTS: &[&str] = &["asyncssh==2.24.1", "paramiko==5.1.0", "ssh-audit==3.9.0"];

/// Clients for node, by exact version.
const NODE_CLIENTS: &[&str] = &["ssh2@1.17.0"];

/// `cargo xtask setup`
pub fn set_up() -> Result<(), Failure> {
    install(FOR_TESTS)?;
    install(FOR_STATIC)?;
    install(FOR_CROSS)?;
    install(FOR_EMULATION)?;
    python_clients()?;
    node_clients().map(drop)
}

/// Makes sure that all `packages` are installed.
pub fn install(packages: &[&str]) -> Result<(), Failure> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !is_installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let command = format!(
        "apt-get install -y --no-install-recommends {}",
        missing.join(" ")
    );
    if !rustix::process::geteuid().is_root() {
        return Err(format!("packages are missing; as root, run: {command}"));
    }
    // A new machine has no package lists; one that has them needs no second look.
    if apt_get(&["install", "-y", "--no-install-recommends"], &missing).is_ok() {
        return Ok(());
    }
    apt_get(&["update"], &[])?;
    apt_get(&["install", "-y", "--no-install-recommends"], &missing)
        .map_err(|error| format!("{error}; tried: {command}"))
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn apt_get(options: &[&str], packages: &[&str]) -> Result<(), Failure> {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .arg("-qq")
        .args(options)
        .args(packages);
    // Packages of servers must not start them here.
    let policy = ServicePolicy::deny();
    let outcome = run::run(&mut command);
    drop(policy);
    outcome
}

/// While it lives, packages that are installed start no services (Debian's policy-rc.d).
struct ServicePolicy {
    written: bool,
}

const SERVICE_POLICY: &str = "/usr/sbin/policy-rc.d";

impl ServicePolicy {
    fn deny() -> Self {
        if fs::exists(SERVICE_POLICY).unwrap_or(true) {
            return Self { written: false };
        }
        let written = fs::write(SERVICE_POLICY, "#!/bin/sh\nexit 101\n").is_ok()
            && Command::new("chmod")
                .args(["755", SERVICE_POLICY])
                .status()
                .is_ok_and(|status| status.success());
        Self { written }
    }
}

impl Drop for ServicePolicy {
    fn drop(&mut self) {
        if self.written {
            let _ = fs::remove_file(SERVICE_POLICY);
        }
    }
}

/// A Python that has paramiko and asyncssh, with ssh-audit beside it.
pub fn python_clients() -> Result<std::path::PathBuf, Failure> {
    let directory = run::cache_directory().join("python-clients");
    let python = directory.join("bin/python3");
    let stamp = directory.join("installed");
    let wanted = PYTHON_CLIENTS.join(" ");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    let _ = fs::remove_dir_all(&directory);
    run::run(
        Command::new("/usr/bin/python3")
            .args(["-m", "venv"])
            .arg(&directory),
    )?;
    run::run(
        Command::new(&python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(PYTHON_CLIENTS),
    )?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(python)
}

/// A directory of node modules that has ssh2.
pub fn node_clients() -> Result<std::path::PathBuf, Failure> {
    let directory = run::cache_directory().join("node-clients");
    let modules = directory.join("node_modules");
    let stamp = directory.join("installed");
    let wanted = NODE_CLIENTS.join(" ");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(modules);
    }
    // Other packages of node than Debian's bring npm with them, and cannot be beside Debian's.
    if Command::new("npm").arg("--version").output().is_err() {
        install(&["nodejs", "npm"])?;
    }
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    // Of what it could compile it needs nothing.
    run::run(
        Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund"])
            .args(["--ignore-scripts", "--omit=optional", "--prefix"])
            .arg(&directory)
            .args(NODE_CLIENTS),
    )?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(modules)
}
