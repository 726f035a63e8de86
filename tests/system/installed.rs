//! A server whose file can be replaced, and a session that can be asked whether it lives.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::Signal;

use crate::accounts::User;
use crate::clients::{self, Ran};
use crate::harness::World;
use crate::processes::{self, wait_for, wait_until};
use crate::server::{self, LIMIT, Server};

/// A server with a file of its own, which can be replaced.
pub struct Installed {
    pub server: Server,
    pub file: PathBuf,
    pub versions: AtomicUsize,
}

impl Installed {
    pub fn start(world: &World, lines: &[&str]) -> Self {
        Self::start_with(world, lines, |file| Command::new(file))
    }

    pub fn start_with(world: &World, lines: &[&str], command: impl Fn(&Path) -> Command) -> Self {
        let file = world.directory.join(format!("agent-{}", world.number()));
        copy(&server::agent_file(), &file, 0);
        let port = server::free_port();
        let server = Server::start_by(command(&file), world, port, lines, &world.log());
        server.wait_until_ready();
        Self {
            server,
            file,
            versions: AtomicUsize::new(1),
        }
    }

    /// Writes a new version beside the file.
    pub fn beside(&self) -> PathBuf {
        let number = self.versions.fetch_add(1, Ordering::Relaxed);
        let new = self.file.with_extension("new");
        copy(&server::agent_file(), &new, number);
        new
    }

    /// Puts a new version in the file's place.
    pub fn install(&self) {
        fs::rename(self.beside(), &self.file).unwrap();
    }

    pub fn debug(&self, words: &[&str]) -> Ran {
        let mut command = Command::new(server::agent_file());
        command.arg("-c").arg(&self.server.config).arg("debug");
        clients::run(command.args(words))
    }

    /// Installs a new version, has it take over, and sees that it did.
    pub fn upgrade(&self) {
        self.install();
        let said = self.debug(&["upgrade"]).success();
        assert!(said.starts_with("upgraded: agent "), "{said}");
        assert!(self.runs_the_installed_file());
        assert!(processes::is_alive(self.server.id()));
    }

    pub fn runs_the_installed_file(&self) -> bool {
        let running = fs::metadata(format!("/proc/{}/exe", self.server.id())).unwrap();
        running.ino() == fs::metadata(&self.file).unwrap().ino()
    }

    /// By signal: the log says when it is done.
    pub fn upgrade_by_signal(&self) {
        self.install();
        let before = self.count("upgraded: agent");
        self.server.signal(Signal::USR2);
        wait_until("the new program", LIMIT, || {
            self.count("upgraded: agent") > before
        });
        assert!(self.runs_the_installed_file());
    }

    pub fn count(&self, part: &str) -> usize {
        self.server.log_text().matches(part).count()
    }

    pub fn works_for(&self, user: &User) {
        let ran = clients::ssh_run(&self.server, user, "echo in");
        assert_eq!(ran.success(), "in\n");
    }

    pub fn keepers(&self) -> usize {
        self.server.processes("agent: monitor [draining]").len()
    }

    pub fn zombies(&self) -> Vec<u32> {
        let parent = format!(" Z {} ", self.server.id());
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|id: &u32| {
                let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
                stat.rsplit_once(')')
                    .is_some_and(|(_, rest)| rest.starts_with(&parent))
            })
            .collect()
    }
}

/// Copies a program, with so many bytes behind its end. Another process writes it: a process that this
/// one starts meanwhile for another case would have the file open for writing too, and what somebody
/// writes to is not executed.
pub fn copy(from: &Path, to: &Path, more: usize) {
    let script = r#"cp "$1" "$2" && head -c "$3" /dev/zero >>"$2""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(from).arg(to);
    clients::run(command.arg(more.to_string())).success();
}

/// A session whose echo can be asked for again and again.
pub struct Echo {
    pub running: Child,
    lines: BufReader<ChildStdout>,
}

impl Echo {
    pub fn start(server: &Server, user: &User) -> Self {
        let mut running = clients::ssh(server, user)
            .arg("exec cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(running.stdout.take().unwrap());
        let mut echo = Self { running, lines };
        echo.works("first");
        echo
    }

    pub fn works(&mut self, word: &str) {
        let mut line = String::new();
        writeln!(self.running.stdin.as_mut().unwrap(), "{word}").unwrap();
        self.lines.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }

    pub fn end(mut self) {
        drop(self.running.stdin.take());
        let status = wait_for("the session's end", LIMIT, || {
            self.running.try_wait().unwrap()
        });
        assert!(status.success(), "{status}");
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}
