//! Logins with the stock client, as the user who runs the tests.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::server::{Server, directory, wait};

/// A server that lets us in, and our key.
pub struct Logins {
    pub server: Server,
    key: PathBuf,
    user: String,
}

impl Logins {
    pub fn start(lines: &[&str]) -> Self {
        let directory = directory();
        let key = directory.join("id");
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(&key)
            .status();
        assert!(made.expect("ssh-keygen is needed").success());
        let keys = directory.join("authorized_keys");
        fs::copy(directory.join("id.pub"), &keys).unwrap();
        let named = format!("AuthorizedKeysFile {}", keys.display());
        let lines: Vec<&str> = [named.as_str(), "StrictModes no"]
            .into_iter()
            .chain(lines.iter().copied())
            .collect();
        let server = Server::launch(&directory, &lines);
        wait("the debug socket", || server.socket().exists());
        let output = Command::new("id").arg("-un").output().unwrap();
        Self {
            server,
            key,
            user: String::from_utf8(output.stdout).unwrap().trim().to_owned(),
        }
    }

    /// `ssh` to the server, with these options in front.
    pub fn ssh(&self, options: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(["-F", "none", "-o", "StrictHostKeyChecking=no"])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"])
            .args(["-o", "LogLevel=ERROR", "-i"])
            .arg(&self.key)
            .args(["-p", &self.server.port.to_string()])
            .args(options)
            .arg(format!("{}@127.0.0.1", self.user))
            .stdin(Stdio::null());
        command
    }

    /// Logs in once.
    pub fn visit(&self) {
        let output = self.ssh(&[]).arg("true").output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Sends and receives without an end, with this cipher.
    pub fn transfer(&self, cipher: &str) -> Transfer {
        let child = self
            .ssh(&["-c", cipher])
            .arg("dd if=/dev/zero bs=64k 2>/dev/null")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let transfer = Transfer(child);
        wait("a transfer", || {
            let text = self.server.get("/sessions").text();
            let sent = text.split("\"sent_bytes\":").nth(1).unwrap_or("0,");
            let sent: u64 = sent.split(',').next().unwrap().parse().unwrap();
            sent > 1_000_000
        });
        transfer
    }
}

pub struct Transfer(Child);

impl Transfer {
    pub fn goes_on(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
