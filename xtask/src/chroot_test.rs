//! `cargo xtask chroot-test`: the static file alone in a root directory.
//!
//! The directory holds the agent, its configuration, a host key, passwd, one user's keys and a
//! static shell; there is no /proc and no /dev. A stock `ssh` must log in. For an architecture that
//! only an emulator runs here, what needs no second executable is proven.

use std::fs::{self, File};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::dist;
use crate::packages;
use crate::run::{self, Failure};
use crate::toolchain::Target;

/// A user that exists in the root directory only.
const USER: &str = "tester";
const USER_ID: u32 = 4242;
/// Generous: the machine may be busy.
const START_LIMIT_S: u64 = 20;

/// `cargo xtask chroot-test [--target TARGET]... | --file FILE`
pub fn main(arguments: &[String]) -> Result<(), Failure> {
    // A file that was built elsewhere, for this machine.
    if let [flag, file] = arguments
        && flag == "--file"
    {
        return test(Target::native()?, Path::new(file));
    }
    let mut targets = dist::parse_targets(arguments)?;
    if targets.is_empty() {
        targets.push(Target::native()?);
    }
    for target in targets {
        let built = dist::build(target)?;
        test(target, &built.file)?;
        println!("chroot-test {}: passed", target.name);
    }
    Ok(())
}

/// Proves `file` in a root directory of its own.
pub fn test(target: Target, file: &Path) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err("the chroot test needs root: sudo cargo xtask chroot-test".to_owned());
    }
    packages::install(packages::FOR_TESTS)?;
    let jail = Jail::new(file)?;
    if target.is_native() {
        return log_in(&jail);
    }
    packages::install(packages::FOR_EMULATION)?;
    emulate(target, &jail)
}

/// Proportional set size of the freshly started server, all its processes together.
pub fn idle_memory_kib(file: &Path) -> Result<u64, Failure> {
    let jail = Jail::new(file)?;
    let server = jail.serve()?;
    // The connection that proved readiness is over; give its end a moment to be worked off.
    std::thread::sleep(Duration::from_millis(500));
    let mut total = 0;
    for process in family(server.child.id()) {
        let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))
            .map_err(|error| format!("smaps_rollup of {process}: {error}"))?;
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .unwrap_or_default();
        total += line
            .trim()
            .trim_end_matches(" kB")
            .trim()
            .parse::<u64>()
            .unwrap_or(0);
    }
    Ok(total)
}

/// A process and its descendants.
fn family(parent: u32) -> Vec<u32> {
    let mut members = vec![parent];
    let mut next = 0;
    while let Some(&member) = members.get(next) {
        let path = format!("/proc/{member}/task/{member}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        members.extend(
            children
                .split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
        next += 1;
    }
    members
}

/// The root directory; removed at the end.
struct Jail {
    directory: PathBuf,
    /// Client's side, outside of the root directory.
    outside: PathBuf,
    port: u16,
}

struct Server {
    child: Child,
    log: PathBuf,
}

impl Jail {
    fn new(file: &Path) -> Result<Self, Failure> {
        let base = PathBuf::from(format!("/tmp/agent-chroot-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        let jail = Self {
            directory: base.join("root"),
            outside: base,
            port: free_port()?,
        };
        jail.fill(file)
            .map_err(|error| format!("{}: {error}", jail.directory.display()))?;
        let host_key = jail.directory.join("etc/agent/ssh_host_ed25519_key");
        keygen(&host_key)?;
        fs::remove_file(host_key.with_extension("pub")).map_err(|error| error.to_string())?;
        let client_key = jail.outside.join("client_key");
        keygen(&client_key)?;
        jail.authorize(&client_key.with_extension("pub"))
            .map_err(|error| error.to_string())?;
        Ok(jail)
    }

    fn fill(&self, file: &Path) -> std::io::Result<()> {
        for directory in ["etc/agent", "bin", "home"] {
            fs::create_dir_all(self.directory.join(directory))?;
        }
        fs::set_permissions(&self.outside, fs::Permissions::from_mode(0o755))?;
        fs::copy(file, self.directory.join("agent"))?;
        fs::copy("/bin/busybox", self.directory.join("bin/sh"))?;
        fs::write(
            self.directory.join("etc/passwd"),
            format!("{USER}:x:{USER_ID}:{USER_ID}::/home/{USER}:/bin/sh\n"),
        )?;
        fs::write(
            self.directory.join("etc/agent/sshd_config"),
            format!(
                "Port {}\nListenAddress 127.0.0.1\nHostKey /etc/agent/ssh_host_ed25519_key\n\
                 LogLevel DEBUG\n",
                self.port
            ),
        )
    }

    fn authorize(&self, public_key: &Path) -> std::io::Result<()> {
        let home = self.directory.join("home").join(USER);
        let ssh = home.join(".ssh");
        fs::create_dir_all(&ssh)?;
        let keys = ssh.join("authorized_keys");
        fs::copy(public_key, &keys)?;
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o600))?;
        for path in [&home, &ssh, &keys] {
            chown(path, Some(USER_ID), Some(USER_ID))?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("/usr/sbin/chroot");
        command.arg(&self.directory).arg(program).env_clear();
        command
    }

    fn serve(&self) -> Result<Server, Failure> {
        let log = self.outside.join("server.log");
        let stderr = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let child = self
            .command("/agent")
            .args(["-c", "/etc/agent/sshd_config", "serve"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .map_err(|error| format!("chroot: {error}"))?;
        let mut server = Server { child, log };
        let deadline = Instant::now() + Duration::from_secs(START_LIMIT_S);
        while !answers(self.port) {
            let ended = server.child.try_wait().is_ok_and(|status| status.is_some());
            if ended || Instant::now() > deadline {
                return Err(format!(
                    "the server does not answer; its log:\n{}",
                    server.log()
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn ssh(&self) -> Command {
        let mut command = Command::new("ssh");
        command
            .args([
                "-F",
                "none",
                "-o",
                "BatchMode=yes",
                "-o",
                "IdentitiesOnly=yes",
            ])
            .args(["-o", "StrictHostKeyChecking=no", "-o", "LogLevel=ERROR"])
            .args(["-o", "IdentityAgent=none", "-o", "ConnectTimeout=20"])
            .arg("-o")
            .arg(format!(
                "UserKnownHostsFile={}",
                self.outside.join("known_hosts").display()
            ))
            .arg("-i")
            .arg(self.outside.join("client_key"))
            .args(["-p", &self.port.to_string(), &format!("{USER}@127.0.0.1")]);
        command
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.outside);
    }
}

impl Server {
    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(process) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn keygen(path: &Path) -> Result<(), Failure> {
    run::output(
        Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
            .arg(path),
    )
    .map(drop)
}

fn free_port() -> Result<u16, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| error.to_string())?;
    listener
        .local_addr()
        .map(|address| address.port())
        .map_err(|error| error.to_string())
}

/// The server says its version.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else {
        return false;
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut start = [0; 8];
    stream.read_exact(&mut start).is_ok() && start == *b"SSH-2.0-"
}

fn log_in(jail: &Jail) -> Result<(), Failure> {
    let server = jail.serve()?;
    let checked = check_logins(jail);
    checked.map_err(|error| format!("{error}; the server's log:\n{}", server.log()))
}

fn check_logins(jail: &Jail) -> Result<(), Failure> {
    // A command, its output streams apart, its exit status.
    let output = jail
        .ssh()
        .arg("echo out $((6 * 7)); echo err >&2; exit 3")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("ssh: {error}"))?;
    expect("exec: output", &output.stdout, b"out 42\n")?;
    expect("exec: errors", &output.stderr, b"err\n")?;
    if output.status.code() != Some(3) {
        return Err(format!("exec: {} instead of status 3", output.status));
    }
    // A login shell that reads its commands from the client.
    let script = jail.outside.join("script");
    fs::write(&script, "echo $0 $USER $HOME; pwd; exit 4\n").map_err(|error| error.to_string())?;
    let input = File::open(&script).map_err(|error| error.to_string())?;
    let output = jail
        .ssh()
        .stdin(input)
        .output()
        .map_err(|error| format!("ssh: {error}"))?;
    expect(
        "shell",
        &output.stdout,
        format!("-sh {USER} /home/{USER}\n/home/{USER}\n").as_bytes(),
    )?;
    if output.status.code() != Some(4) {
        return Err(format!("shell: {} instead of status 4", output.status));
    }
    Ok(())
}

fn expect(what: &str, actual: &[u8], wanted: &[u8]) -> Result<(), Failure> {
    if actual == wanted {
        return Ok(());
    }
    let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
    Err(format!(
        "{what}: got \"{}\", expected \"{}\"",
        shown(actual),
        shown(wanted)
    ))
}

/// What one process alone can show: it starts, reads its configuration, makes keys.
fn emulate(target: Target, jail: &Jail) -> Result<(), Failure> {
    let emulator = Path::new("/usr/bin").join(target.emulator);
    let inside = jail.directory.join("emulator");
    fs::copy(&emulator, &inside).map_err(|error| format!("{}: {error}", emulator.display()))?;
    let runs: [&[&str]; 3] = [
        &["--version"],
        &["-c", "/etc/agent/sshd_config", "check"],
        &["keygen", "-t", "ed25519", "-f", "/home/new_key"],
    ];
    for arguments in runs {
        let mut command = jail.command("/emulator");
        run::run(command.arg("/agent").args(arguments))?;
    }
    let made = jail.directory.join("home/new_key");
    run::output(Command::new("ssh-keygen").arg("-l").arg("-f").arg(&made)).map(drop)
}
