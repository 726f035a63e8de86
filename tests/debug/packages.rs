//! Tools of Debian that tests need. Without one there is no test, and that is a failure.

use std::process::Command;

/// Runs a tool's command that proves that it is there; as root installs its package first, where it is
/// not.
pub fn need(package: &str, proof: &mut Command) {
    let is_there = |proof: &mut Command| proof.output().is_ok_and(|it| it.status.success());
    if is_there(proof) {
        return;
    }
    let install = ["install", "-y", "-qq", "--no-install-recommends", package];
    if rustix::process::geteuid().is_root() {
        let _ = Command::new("apt-get").args(["update", "-qq"]).status();
        let _ = Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(install)
            .status();
    }
    assert!(
        is_there(proof),
        "{proof:?} does not work; as root, run: apt-get {}",
        install.join(" ")
    );
}

/// Debian's Python, for which Debian's modules are.
pub fn python() -> Command {
    Command::new("/usr/bin/python3")
}
