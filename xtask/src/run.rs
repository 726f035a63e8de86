//! Runs commands: output is streamed to the terminal and kept in a log under target/.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

/// What went wrong, for people.
pub type Failure = String;

/// The repository.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("invariant: xtask/ is inside the repository")
        .to_path_buf()
}

/// Where everything that is built goes.
pub fn target_directory() -> PathBuf {
    root().join("target")
}

/// What several checkouts share: the sysroot for musl, the Python clients.
pub fn cache_directory() -> PathBuf {
    let from = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    from("AGENT_XTASK_CACHE")
        .or_else(|| from("XDG_CACHE_HOME").map(|cache| cache.join("agent-xtask")))
        .or_else(|| from("HOME").map(|home| home.join(".cache/agent-xtask")))
        .unwrap_or_else(|| target_directory().join("xtask-cache"))
}

/// `cargo` of the toolchain that runs this, in the repository.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Standard output of a command that must succeed.
pub fn output(command: &mut Command) -> Result<String, Failure> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {}: {error}", shown(command)))?;
    if !output.status.success() {
        return Err(format!("{} failed: {}", shown(command), output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command with its output on the terminal; its failure is an error.
pub fn run(command: &mut Command) -> Result<(), Failure> {
    println!("+ {}", shown(command));
    let status = command
        .status()
        .map_err(|error| format!("cannot run {}: {error}", shown(command)))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} failed: {status}", shown(command)))
    }
}

/// What a logged command came to.
#[derive(Debug, Default)]
pub struct Logged {
    pub success: bool,
    /// Sums over the `test result:` lines of cargo test.
    pub passed: u64,
    pub failed: u64,
    pub ignored: u64,
}

/// Runs a command, streams its output, appends it to `log`, and counts test results in it.
pub fn logged(command: &mut Command, log: &Path) -> Result<Logged, Failure> {
    println!("+ {}", shown(command));
    let directory = log.parent().expect("invariant: logs have a directory");
    fs::create_dir_all(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .map_err(|error| format!("{}: {error}", log.display()))?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run {}: {error}", shown(command)))?;

    let sink = Arc::new(Mutex::new((file, Logged::default())));
    let streams: [Option<Box<dyn Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    let readers: Vec<_> = streams
        .into_iter()
        .flatten()
        .map(|stream| {
            let sink = Arc::clone(&sink);
            thread::spawn(move || copy_lines(stream, &sink))
        })
        .collect();
    for reader in readers {
        let _ = reader.join();
    }
    let status = child.wait().map_err(|error| format!("wait: {error}"))?;
    let mut guard = sink
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut result = std::mem::take(&mut guard.1);
    result.success = status.success();
    Ok(result)
}

fn copy_lines(stream: Box<dyn Read + Send>, sink: &Mutex<(File, Logged)>) {
    let mut lines = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
        let mut guard = sink
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = io::stdout().lock().write_all(&line);
        let _ = guard.0.write_all(&line);
        guard.1.count(&String::from_utf8_lossy(&line));
        line.clear();
    }
}

impl Logged {
    /// `test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; ...`
    fn count(&mut self, line: &str) {
        let Some(result) = line.trim().strip_prefix("test result: ") else {
            return;
        };
        let counts = result.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split("; ") {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (words.next(), words.next()) else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

/// The command as somebody would type it.
pub fn shown(command: &Command) -> String {
    let mut text = Path::new(command.get_program()).file_name().map_or_else(
        || command.get_program().to_string_lossy().into_owned(),
        |name| name.to_string_lossy().into_owned(),
    );
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::Logged;

    #[test]
    fn test_results_are_summed() {
        let mut logged = Logged::default();
        logged.count("test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out");
        logged.count("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered");
        logged.count("test tests::x ... ok");
        assert_eq!((logged.passed, logged.failed, logged.ignored), (13, 2, 3));
    }
}
