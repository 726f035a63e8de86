//! What a session's process does between the fork and the exec of the user's shell.
//!
//! It is the user already. It writes to the session's own stdout and stderr, as sshd does; it never
//! returns. Source: sshd(8) LOGIN PROCESS and SSHRC.

use alloc::ffi::CString;
use alloc::vec::Vec;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::{Errno, read, write};
use rustix::process::{
    Pid, Signal, chdir, ioctl_tiocsctty, set_parent_process_death_signal, setsid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::display::Display;
use crate::environment::{Environment, SessionVariables, build};
use crate::frame::Policy;
use crate::link::Link;
use crate::output::write_all;
use crate::path::{open, read_regular, stat};
use crate::scp;
use crate::sftp::log::{Log, Sink};
use crate::sftp::{self, server::Account, sharing::Sharing};
use crate::sys::{self, Execution, Forked};
use crate::text::{c_string, c_strings, decimal};
use crate::wire::Bytes;

/// Exit status where `/etc/nologin` bars the login.
const STATUS_NOLOGIN: i32 = 254;
/// Exit status where the shell cannot be executed.
const STATUS_FAILED: i32 = 1;
/// sshd's words where `internal-sftp` is forced.
const SFTP_ONLY: &[u8] = b"This service allows sftp connections only.\n";
/// The longest name of a shell behind the dash.
const SHELL_NAME_MAX_BYTES: usize = 254;
/// Bytes of `~/.ssh/environment` at most: its lines are bounded too.
const ENVIRONMENT_FILE_MAX_BYTES: usize = 64 * 1024;

/// What to run.
#[derive(Debug)]
pub struct Program<'a> {
    /// The login's policy.
    pub policy: &'a Policy,
    /// `net`'s number of the session.
    pub session: u32,
    /// What to become.
    pub task: Task<'a>,
    /// What the client asked for, where `command` is forced.
    pub original_command: Option<&'a [u8]>,
    /// Path for SSH_USER_AUTH.
    pub auth_info: Option<&'a [u8]>,
    /// Subsystems have no `~/.ssh/rc`.
    pub is_subsystem: bool,
    /// `env` requests.
    pub environment: &'a [(Bytes, Bytes)],
    /// TERM and path of the terminal.
    pub terminal: Option<(&'a [u8], &'a [u8])>,
    /// For X11 clients.
    pub display: Option<&'a Display>,
}

/// What a session's process becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task<'a> {
    /// The login shell.
    Shell,
    /// A command line, for the shell to run.
    Command(&'a [u8]),
    /// The built-in SFTP server, with these arguments.
    Sftp(&'a [u8]),
    /// A word that only SFTP is served here, to who asked for something else.
    SftpOnly,
}

/// Descriptors 0 to 2 of the session.
#[derive(Debug)]
pub enum Standard {
    /// All three are the terminal's slave.
    Terminal(OwnedFd),
    /// The reading end of stdin, the writing ends of stdout and stderr.
    Pipes(OwnedFd, OwnedFd, OwnedFd),
}

/// A program that needs nothing done before it but what its own process can do with what is ready
/// here, for [`sys::spawn`].
#[derive(Debug)]
pub struct Prepared {
    home: CString,
    shell: CString,
    arguments: Vec<CString>,
    environment: Environment,
}

impl Prepared {
    /// `None`: it needs more. Looks into the home directory, so that this must be on a local file
    /// system: nothing else of the connection goes on meanwhile.
    pub fn new(program: &Program<'_>) -> Option<Self> {
        let policy = program.policy;
        let line = match program.task {
            Task::Command(line) if !scp::is_asked_for(line) => Some(line),
            Task::Shell => None,
            _ => return None,
        };
        let home = &*policy.identity.home;
        if program.terminal.is_some()
            || program.display.is_some()
            || policy.nologin.is_some()
            || policy.chroot.is_some()
            || !policy.user_environment.is_empty()
            || startup_file(program).is_some()
        {
            return None;
        }
        // Complaints are about a file, and there is none.
        let (environment, _) = environment(program, None);
        let shell = &*policy.identity.shell;
        Some(Self {
            home: c_string(home).ok()?,
            shell: c_string(shell).ok()?,
            arguments: shell_arguments(shell, line).ok()?,
            environment,
        })
    }

    /// Starts it.
    pub fn spawn(&self, standard: &Standard) -> Result<Pid, Errno> {
        let environment = self.environment.entries();
        let start = Start {
            standard,
            program: self,
            execution: Execution::new(&self.shell, &self.arguments, environment),
        };
        sys::spawn(Start::run, &start)
    }
}

/// What the process of a [`Prepared`] program sees.
struct Start<'a> {
    standard: &'a Standard,
    program: &'a Prepared,
    execution: Execution<'a>,
}

impl Start<'_> {
    fn run(&self) -> ! {
        if connect(self.standard).is_err() {
            sys::exit(STATUS_FAILED);
        }
        sys::close_from(3);
        sys::reset_signals();
        let Prepared { home, shell, .. } = self.program;
        if let Err(errno) = chdir(&**home) {
            say_no_home(home.to_bytes(), errno);
        }
        let errno = self.execution.run();
        say_not_executed(shell.to_bytes(), errno);
        sys::exit(STATUS_FAILED)
    }
}

/// Becomes `program`; for a forked child. `links` are to the monitor and to `net`, for what serves
/// files here.
pub fn run(program: &Program<'_>, standard: &Standard, links: Option<[OwnedFd; 2]>) -> ! {
    if connect(standard).is_err() {
        sys::exit(STATUS_FAILED);
    }
    let links = match links {
        Some(links) => match sys::keep_only(links) {
            Ok(links) => Some(links),
            // Without them nothing would tell the monitor what is done to files.
            Err(errno) => {
                say(sys::standard_error(), &[b"sftp: ", &reason(errno), b"\n"]);
                sys::exit(STATUS_FAILED)
            }
        },
        None => {
            sys::close_from(3);
            None
        }
    };
    sys::reset_signals();
    let policy = program.policy;
    let home = &*policy.identity.home;
    if program.terminal.is_some() && program.task == Task::Shell {
        greet(policy, home);
    }
    if let Some(text) = &policy.nologin {
        say(sys::standard_error(), &[text]);
        sys::exit(STATUS_NOLOGIN);
    }
    let file = if policy.user_environment.is_empty() {
        None
    } else {
        read_regular(
            &join(home, b"/.ssh/environment"),
            ENVIRONMENT_FILE_MAX_BYTES,
        )
    };
    let (environment, complaints) = environment(program, file.as_deref());
    say(sys::standard_error(), &[&complaints]);
    if let Err(errno) = c_string(home).and_then(|home| chdir(&*home))
        && policy.chroot.is_none()
    {
        say_no_home(home, errno);
    }
    run_startup_file(program, environment.entries());
    match program.task {
        Task::Sftp(arguments) => serve_sftp(program, arguments, links),
        Task::SftpOnly => {
            say(sys::standard_output(), &[SFTP_ONLY]);
            sys::exit(STATUS_FAILED)
        }
        Task::Shell => execute_shell(program, None, environment.entries()),
        Task::Command(line) => {
            serve_scp(program, line, environment.entries(), links);
            execute_shell(program, Some(line), environment.entries())
        }
    }
}

fn environment(program: &Program<'_>, file: Option<&[u8]>) -> (Environment, Vec<u8>) {
    build(
        program.policy,
        &SessionVariables {
            client: program.environment,
            terminal: program.terminal,
            display: program.display.map(|display| &*display.name),
            original_command: program.original_command,
            auth_info: program.auth_info,
            file,
        },
    )
}

fn say_no_home(home: &[u8], errno: Errno) {
    let what = b"Could not chdir to home directory ";
    say(
        sys::standard_error(),
        &[what, home, b": ", &reason(errno), b"\n"],
    );
}

fn say_not_executed(shell: &[u8], errno: Errno) {
    say(
        sys::standard_error(),
        &[shell, b": ", &reason(errno), b"\n"],
    );
}

/// Where a client asks for the server's side of scp and there is no such program: it is here.
fn serve_scp(
    program: &Program<'_>,
    line: &[u8],
    environment: &[CString],
    links: Option<[OwnedFd; 2]>,
) {
    let shell = &*program.policy.identity.shell;
    if program.terminal.is_none()
        && scp::is_asked_for(line)
        && !scp::has_program(environment)
        && let Ok(path) = c_string(shell)
    {
        sys::block_write_signals();
        let log = Log {
            sink: Sink::Monitor,
            level: 0,
            monitor: links.map(|[monitor, _]| Link::new(monitor)),
            audit: program.policy.sftp_audit,
            is_scp: true,
        };
        let shell = (&path, last_component(shell));
        sys::exit(scp::serve(shell, line, environment, log))
    }
}

/// No exec: this process has the code, and nothing of anybody else's.
fn serve_sftp(program: &Program<'_>, arguments: &[u8], links: Option<[OwnedFd; 2]>) -> ! {
    let policy = program.policy;
    let _ = rustix::thread::set_name(c"sftp");
    // A server that waits for a device or a FIFO does not see its client leave.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    let account = Account {
        name: policy.identity.name.to_vec(),
        home: policy.identity.home.to_vec(),
    };
    let (monitor, sharing) = match links {
        Some([monitor, net]) => {
            let sharing = Sharing::new(Link::new(net), program.session);
            let sharing = program.terminal.is_none().then_some(sharing);
            (Some(Link::new(monitor)), sharing)
        }
        None => (None, None),
    };
    sys::exit(sftp::serve_session(sftp::Session {
        arguments,
        account,
        monitor,
        sharing,
        audit: policy.sftp_audit,
    }))
}

fn connect(standard: &Standard) -> Result<(), Errno> {
    setsid()?;
    match standard {
        Standard::Terminal(slave) => {
            ioctl_tiocsctty(slave)?;
            dup2_stdin(slave)?;
            dup2_stdout(slave)?;
            dup2_stderr(slave)
        }
        Standard::Pipes(input, output, errors) => {
            dup2_stdin(input)?;
            dup2_stdout(output)?;
            dup2_stderr(errors)
        }
    }
}

/// What the monitor has to say and the message of the day, for a login shell with a terminal.
fn greet(policy: &Policy, home: &[u8]) {
    if policy.quiet_login || stat(&join(home, b"/.hushlogin")).is_ok() {
        return;
    }
    say(sys::standard_output(), &[&policy.greeting]);
    if policy.print_motd
        && let Ok(file) = open(b"/etc/motd", OFlags::RDONLY)
    {
        let mut buffer = [0; 2048];
        while let Ok(filled @ 1..) = read(&file, buffer.as_mut_slice()) {
            let piece = buffer.get(..filled).unwrap_or_default();
            say(sys::standard_output(), &[piece]);
        }
    }
}

/// What to run first, and how.
enum StartupFile {
    /// `~/.ssh/rc`, at this path.
    Own(Vec<u8>),
    /// `/etc/ssh/sshrc`.
    OfAll,
}

fn startup_file(program: &Program<'_>) -> Option<StartupFile> {
    let own = join(&program.policy.identity.home, b"/.ssh/rc");
    let honoured = !program.is_subsystem && program.policy.permit_user_rc;
    if honoured && stat(&own).is_ok() {
        Some(StartupFile::Own(own))
    } else {
        stat(b"/etc/ssh/sshrc")
            .is_ok()
            .then_some(StartupFile::OfAll)
    }
}

/// Runs `~/.ssh/rc`, else `/etc/ssh/sshrc`, to its end before the session's program. With a display
/// it reads the cookie, as with sshd; without one of these files xauth does.
fn run_startup_file(program: &Program<'_>, environment: &[CString]) {
    let mut input = program.display.map(|display| &*display.secrets);
    let shell = &*program.policy.identity.shell;
    let line;
    let by_shell: [&[u8]; 3];
    let (path, arguments): (&[u8], &[&[u8]]) = match (startup_file(program), program.display) {
        (Some(StartupFile::Own(own)), _) => {
            line = [b"/bin/sh '".as_slice(), &quoted(&own), b"'"].concat();
            by_shell = [last_component(shell), b"-c", &line];
            (shell, &by_shell)
        }
        (Some(StartupFile::OfAll), _) => (b"/bin/sh", &[b"sh", b"/etc/ssh/sshrc"]),
        (None, Some(display)) => {
            input = Some(&display.commands);
            (&display.xauth, &[b"xauth", b"-q", b"-"])
        }
        (None, None) => return,
    };
    let (Ok(path), Ok(arguments)) = (c_string(path), c_strings(arguments)) else {
        return;
    };
    match sys::fork() {
        Ok(Forked::Child) => {
            // What comes from the client is the program's. A pipe holds more than is written here.
            if let Ok((reader, writer)) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            {
                let _ = write(&writer, input.unwrap_or_default());
                let _ = dup2_stdin(&reader);
            }
            sys::execute(&path, &arguments, environment);
            sys::exit(127)
        }
        Ok(Forked::Parent(child)) => {
            sys::await_child(child);
        }
        Err(errno) => {
            let reason = reason(errno);
            let text: [&[u8]; 5] = [b"Could not run ", path.to_bytes(), b": ", &reason, b"\n"];
            say(sys::standard_error(), &text);
        }
    }
}

/// For between single quotes of a shell.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        match byte {
            b'\'' => out.extend_from_slice(b"'\\''"),
            byte => out.push(byte),
        }
    }
    out
}

fn execute_shell(program: &Program<'_>, command: Option<&[u8]>, environment: &[CString]) -> ! {
    let shell = &*program.policy.identity.shell;
    let errno = match (c_string(shell), shell_arguments(shell, command)) {
        (Ok(path), Ok(arguments)) => sys::execute(&path, &arguments, environment),
        (Err(errno), _) | (_, Err(errno)) => errno,
    };
    say_not_executed(shell, errno);
    sys::exit(STATUS_FAILED)
}

/// What the shell is called with: as a login shell, or to run a command.
fn shell_arguments(shell: &[u8], command: Option<&[u8]>) -> Result<Vec<CString>, Errno> {
    let name = last_component(shell);
    if name.len() > SHELL_NAME_MAX_BYTES {
        return Err(Errno::INVAL);
    }
    match command {
        None => c_strings(&[&[b"-", name].concat()]),
        Some(command) => c_strings(&[name, b"-c", command]),
    }
}

fn last_component(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

fn join(home: &[u8], name: &[u8]) -> Vec<u8> {
    // In `/` the name's own slash is enough.
    let home = if home == b"/" { b"" } else { home };
    [home, name].concat()
}

/// Writes to the session; who closed it does not want to know.
fn say(to: BorrowedFd<'_>, parts: &[&[u8]]) {
    let _ = write_all(to, &parts.concat());
}

/// The system's words for the errors that a user can meet here.
pub(crate) fn reason(errno: Errno) -> Vec<u8> {
    let text: &[u8] = match errno {
        Errno::NOENT => b"No such file or directory",
        Errno::ACCESS => b"Permission denied",
        Errno::PERM => b"Operation not permitted",
        Errno::NOTDIR => b"Not a directory",
        Errno::LOOP => b"Too many levels of symbolic links",
        Errno::NAMETOOLONG => b"File name too long",
        Errno::TOOBIG => b"Argument list too long",
        Errno::NOEXEC => b"Exec format error",
        Errno::MFILE => b"Too many open files",
        Errno::NOMEM => b"Cannot allocate memory",
        Errno::AGAIN => b"Resource temporarily unavailable",
        Errno::IO => b"Input/output error",
        Errno::INVAL => b"Invalid argument",
        Errno::ISDIR => b"Is a directory",
        Errno::NOSPC => b"No space left on device",
        Errno::ROFS => b"Read-only file system",
        Errno::DQUOT => b"Disk quota exceeded",
        Errno::EXIST => b"File exists",
        errno => {
            let number = decimal(errno.raw_os_error().unsigned_abs());
            return [b"error ".as_slice(), &number].concat();
        }
    };
    text.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_below_the_home_directory() {
        assert_eq!(join(b"/home/a", b"/.ssh/rc"), b"/home/a/.ssh/rc");
        assert_eq!(join(b"/", b"/.ssh/rc"), b"/.ssh/rc");
    }

    #[test]
    fn a_quote_in_a_path_stays_in_its_word() {
        assert_eq!(
            quoted(b"/home/o'neill/.ssh/rc"),
            b"/home/o'\\''neill/.ssh/rc"
        );
    }

    #[test]
    fn shells_are_named_by_their_last_component() {
        assert_eq!(last_component(b"/usr/bin/fish"), b"fish");
        assert_eq!(last_component(b"sh"), b"sh");
    }
}
