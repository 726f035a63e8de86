//! Runs cases side by side, each with a world of its own, and says what came of them.

use std::collections::VecDeque;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use crate::accounts::{self, User};
use crate::server::{self, Kind, Server};

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub run: fn(&World),
    /// Only against this server: a case about our own processes.
    pub only: Option<Kind>,
    /// Takes more than some ten seconds.
    pub long: bool,
    /// Only against the file that is shipped (AGENT_UNDER_TEST): it measures what depends on that.
    pub shipped: bool,
    /// Nothing else runs meanwhile: it measures, or takes a share of the machine.
    pub alone: bool,
    /// Only where this path exists.
    pub needs: Option<&'static str>,
}

impl Case {
    pub const fn new(name: &'static str, run: fn(&World)) -> Self {
        Self {
            name,
            run,
            only: None,
            long: false,
            shipped: false,
            alone: false,
            needs: None,
        }
    }

    pub const fn needs(mut self, path: &'static str) -> Self {
        self.needs = Some(path);
        self
    }

    pub const fn only_agent(mut self) -> Self {
        self.only = Some(Kind::Agent);
        self
    }

    pub const fn long(mut self) -> Self {
        self.long = true;
        self
    }

    pub const fn shipped(mut self) -> Self {
        self.shipped = true;
        self
    }

    pub const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }
}

/// What a case has to itself: a directory, users, servers.
pub struct World {
    pub kind: Kind,
    /// Root's, readable by all.
    pub directory: PathBuf,
    host_keys: PathBuf,
    /// Logs of the servers that were started, for the report of a failure.
    logs: Mutex<Vec<PathBuf>>,
    numbers: AtomicUsize,
}

impl World {
    fn new(kind: Kind, base: &Path, name: &str) -> Self {
        let directory = base.join(name.replace("::", "-"));
        fs::create_dir_all(&directory).unwrap();
        Self {
            kind,
            directory,
            host_keys: base.join("host-keys"),
            logs: Mutex::new(Vec::new()),
            numbers: AtomicUsize::new(0),
        }
    }

    /// A new account with a home directory, a key pair, and that key authorized.
    pub fn user(&self) -> User {
        User::create(&self.directory)
    }

    /// Starts the server under test with `lines` in its configuration.
    pub fn server(&self, lines: &[&str]) -> Server {
        Server::start(self, lines, &self.log())
    }

    /// Where a server that the case starts itself logs: its lines are shown if the case fails.
    pub fn log(&self) -> PathBuf {
        let log = self.directory.join(format!("server-{}.log", self.number()));
        self.logs.lock().unwrap().push(log.clone());
        log
    }

    /// Host keys, one of each type, shared by all cases: `ed25519`, `ecdsa256`, `ecdsa384`, `rsa`.
    pub fn host_key(&self, name: &str) -> PathBuf {
        self.host_keys.join(name)
    }

    /// The agent's file where every user may execute it: a checkout may be root's alone.
    pub fn agent_for_all(&self) -> PathBuf {
        let file = self.directory.join("agent-for-all");
        if !file.exists() {
            fs::copy(server::agent_file(), &file).unwrap();
        }
        file
    }

    /// A number that was not given out before, for names of files.
    pub fn number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// The same world where servers are sshd: for what of ours runs below it.
    pub fn reference(&self) -> Self {
        Self {
            kind: Kind::Sshd,
            directory: self.directory.clone(),
            host_keys: self.host_keys.clone(),
            logs: Mutex::new(Vec::new()),
            // Not the numbers of files that are there.
            numbers: AtomicUsize::new(1000),
        }
    }

    pub fn is_agent(&self) -> bool {
        self.kind == Kind::Agent
    }

    fn shown_logs(&self) -> String {
        let mut text = String::new();
        for log in self.logs.lock().unwrap().iter() {
            let content = fs::read(log).unwrap_or_default();
            let start = content.len().saturating_sub(6000);
            text.push_str(&format!("--- {}\n", log.display()));
            text.push_str(&String::from_utf8_lossy(&content[start..]));
        }
        text
    }
}

/// Runs the cases that the arguments choose; the process's exit status.
pub fn run(cases: &[Case]) -> i32 {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut threads = 4;
    let mut filters = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => {
                cases
                    .iter()
                    .for_each(|case| println!("{}: test", case.name));
                return 0;
            }
            "--test-threads" => threads = words.next().unwrap().parse().unwrap(),
            // Of cargo test's other options none applies.
            option if option.starts_with("--") => {}
            filter => filters.push(filter),
        }
    }
    let kind = Kind::from_environment();
    let quick = std::env::var_os("SYSTEM_TESTS_QUICK").is_some();
    let chosen: Vec<Case> = cases
        .iter()
        .filter(|case| case.only.is_none_or(|only| only == kind))
        .filter(|case| !(quick && case.long))
        .filter(|case| {
            filters.is_empty() || filters.iter().any(|filter| case.name.contains(*filter))
        })
        .copied()
        .collect();
    let shipped = kind == Kind::Sshd || std::env::var_os("AGENT_UNDER_TEST").is_some();
    let missing = |case: &Case| match case.needs {
        _ if case.shipped && !shipped => Some("the shipped file in AGENT_UNDER_TEST"),
        Some(path) if !Path::new(path).exists() => Some(path),
        _ => None,
    };
    let (ignored, chosen): (Vec<Case>, Vec<Case>) =
        chosen.into_iter().partition(|case| missing(case).is_some());
    println!("\nrunning {} tests against {}", chosen.len(), kind.name());
    if chosen.is_empty() {
        println!("\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
        return 0;
    }
    for case in &ignored {
        let needed = missing(case).unwrap_or_default();
        println!("test {} ... ignored, needs {needed}", case.name);
    }
    server::require_root();
    accounts::remove_leftovers();
    let base = PathBuf::from(format!("/var/lib/agent-system-{}", std::process::id()));
    // Not under /tmp: key files and chroots must lie where only root may write.
    let _ = fs::remove_dir_all(&base);
    fs::create_dir_all(&base).unwrap();
    server::make_host_keys(&base.join("host-keys"));

    let (alone, together): (Vec<Case>, Vec<Case>) = chosen.iter().partition(|case| case.alone);
    let mut failures = run_side_by_side(&together, threads, kind, &base);
    failures.extend(run_side_by_side(&alone, 1, kind, &base));

    for (name, report) in &failures {
        println!("\n---- {name}\n{report}");
    }
    if failures.is_empty() {
        let _ = fs::remove_dir_all(&base);
    } else {
        let names: Vec<&str> = failures.iter().map(|(name, _)| *name).collect();
        println!("\nfailures:\n    {}", names.join("\n    "));
        println!("files are kept in {}", base.display());
    }
    println!(
        "\ntest result: {}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out",
        if failures.is_empty() { "ok" } else { "FAILED" },
        chosen.len() - failures.len(),
        failures.len(),
        ignored.len(),
        cases.len() - chosen.len() - ignored.len(),
    );
    i32::from(!failures.is_empty())
}

type Failures = Vec<(&'static str, String)>;

fn run_side_by_side(cases: &[Case], threads: usize, kind: Kind, base: &Path) -> Failures {
    let queue: Arc<Mutex<VecDeque<Case>>> = Arc::new(Mutex::new(cases.iter().copied().collect()));
    let failures: Arc<Mutex<Failures>> = Arc::default();
    let workers: Vec<_> = (0..threads.min(cases.len()))
        .map(|_| {
            let queue = Arc::clone(&queue);
            let failures = Arc::clone(&failures);
            let base = base.to_path_buf();
            thread::spawn(move || {
                loop {
                    let Some(case) = queue.lock().unwrap().pop_front() else {
                        break;
                    };
                    if let Err(report) = run_one(case, kind, &base) {
                        failures.lock().unwrap().push((case.name, report));
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    std::mem::take(&mut failures.lock().unwrap())
}

fn run_one(case: Case, kind: Kind, base: &Path) -> Result<(), String> {
    let start = Instant::now();
    let world = World::new(kind, base, case.name);
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| (case.run)(&world)));
    let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
    println!(
        "test {} ... {verdict} ({:.1} s)",
        case.name,
        start.elapsed().as_secs_f64()
    );
    match outcome {
        Ok(()) => {
            let _ = fs::remove_dir_all(&world.directory);
            Ok(())
        }
        Err(payload) => {
            let message = payload
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| payload.downcast_ref::<&str>().copied())
                .unwrap_or("panic");
            Err(format!("{message}\n{}", world.shown_logs()))
        }
    }
}
