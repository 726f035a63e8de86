//! `ssh-keygen` and `openssl`, and a directory of its own for each test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that lasts as long as this value.
pub struct Directory(PathBuf);

impl Directory {
    /// `name` must be the test's own.
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("vectors-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Writes a file as private as ssh-keygen asks for.
    pub fn write(&self, file: &str, content: &[u8]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(file);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    pub fn read(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.path(file)).unwrap()
    }

    /// Runs `ssh-keygen` or `openssl` here with arguments between spaces; its output. An argument
    /// `''` is an empty one.
    pub fn run(&self, command: &str) -> Vec<u8> {
        let mut words = command
            .split_whitespace()
            .map(|word| if word == "''" { "" } else { word });
        let program = words.next().unwrap();
        let output = Command::new(program)
            .args(words)
            .current_dir(&self.0)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap_or_else(|error| panic!("these tests need {program}: {error}"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {errors}");
        output.stdout
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The blob in a line of a public key file.
pub fn blob_of_line(line: &[u8]) -> Vec<u8> {
    let text = line.split(|byte| *byte == b' ').nth(1).unwrap();
    agent::ssh::crypto::base64::decode(text.trim_ascii())
        .unwrap()
        .to_vec()
}
