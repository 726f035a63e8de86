//! The command line: `agent serve`, `check`, `keygen`, `drain`, `debug`, `sftp-server`.
//!
//! Reads arguments, loads what the command needs and hands over. Every error says what happened,
//! where, and what to do next; nothing here is reachable from the network.

mod debug;
mod debug_client;
mod debug_log;
mod debug_profile;
mod help;
mod sshd_options;
mod welcome;

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use argh::FromArgs;
use rustix::process::geteuid;

use crate::config::{Config, Loaded, Options, Subject};
use crate::host_keys;
use crate::program::Program;
use crate::take_over::TakenOver;
use crate::{account, keygen, logging, monitor};

/// An SSH server in one static file. Start it by: agent serve
#[derive(FromArgs, Debug)]
struct Arguments {
    /// print version and features
    #[argh(switch)]
    version: bool,

    /// configuration file; "none" for the built-in defaults
    #[argh(option, short = 'c', arg_name = "file")]
    config: Option<PathBuf>,

    #[argh(subcommand)]
    command: Option<Command>,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Serve(Serve),
    Check(Check),
    Keygen(keygen::Keygen),
    Drain(Drain),
    Debug(Debug),
}

/// Serve connections until SIGTERM.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "serve")]
struct Serve {
    /// port to listen on, in place of the configuration's
    #[argh(option, short = 'p', arg_name = "port")]
    port: Vec<String>,

    /// a line of configuration that wins over the file's; may be repeated
    #[argh(option, short = 'o', arg_name = "keyword=value")]
    option: Vec<String>,

    /// serve the one connection on standard input and output
    #[argh(switch)]
    inetd: bool,

    /// prove that the server could start, and end
    #[argh(switch)]
    probe: bool,

    /// log to syslog, also in the foreground
    #[argh(switch)]
    syslog: bool,
}

/// Check the configuration and the host keys, as sshd -t does.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "check")]
struct Check {
    /// print the effective values, as sshd -T does
    #[argh(switch)]
    dump: bool,

    /// with --dump: values for one connection, user=NAME,addr=ADDRESS,host=NAME,laddr=ADDRESS,lport=PORT
    #[argh(option, short = 'C', arg_name = "subject")]
    connection: Vec<String>,

    /// a line of configuration that wins over the file's; may be repeated
    #[argh(option, short = 'o', arg_name = "keyword=value")]
    option: Vec<String>,
}

/// End the running server of this configuration, with all its connections.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "drain")]
struct Drain {}

/// Ask the running server of this configuration, or tell it something.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "debug")]
struct Debug {
    /// what to ask, with its own options
    #[argh(positional, greedy)]
    words: Vec<String>,
}

/// Entry point of the process in its role as a command.
pub fn main() -> ExitCode {
    if let Some(status) = sftp_server() {
        return status;
    }
    let arguments = match text_arguments() {
        Ok(arguments) => arguments,
        Err(status) => return status,
    };
    if let Some(text) = help::asked(&arguments) {
        return print(text);
    }
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let arguments = match Arguments::from_args(&["agent"], &words) {
        Ok(arguments) => arguments,
        Err(early) => {
            return match early.status {
                Ok(()) => print(&format!("{}\n", early.output.trim_end())),
                Err(()) => fail(&refusal(early.output.trim_end())),
            };
        }
    };
    if arguments.version {
        return print(&version());
    }
    let config = arguments.config.as_deref();
    match arguments.command {
        Some(Command::Serve(serve)) => run_serve(config, &serve),
        Some(Command::Check(check)) => run_check(config, &check),
        Some(Command::Keygen(command)) => keygen::run(config, &command),
        Some(Command::Drain(Drain {})) => run_drain(config),
        Some(Command::Debug(command)) => debug::run(config, &command.words),
        None => fail(
            "a command is missing: agent serve starts the server, agent --help lists the commands",
        ),
    }
}

/// What the parser says of a command line, and what to do next.
fn refusal(said: &str) -> String {
    let word = said.strip_prefix("Unrecognized argument: ");
    match word.and_then(sshd_options::instead) {
        Some(instead) => format!("{said}\n{instead}"),
        None => format!("{said}\nagent --help lists the commands"),
    }
}

/// `agent sftp-server`, whose options are not ours to read: they are those of OpenSSH's program.
fn sftp_server() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next()? != "sftp-server" {
        return None;
    }
    let arguments: Vec<std::ffi::OsString> = arguments.collect();
    if arguments.iter().any(|argument| argument == "--help") {
        return None;
    }
    let mut options = arguments.iter().map(|argument| argument.as_encoded_bytes());
    let status = agent_helper::sftp::serve_alone(&mut options);
    Some(u8::try_from(status).map_or(ExitCode::FAILURE, Into::into))
}

/// Says on stderr what went wrong, and fails.
pub(crate) fn fail(what: &str) -> ExitCode {
    // Nobody may be there to read it; the exit code stays.
    let _ = writeln!(io::stderr(), "agent: {what}");
    ExitCode::FAILURE
}

/// Writes to stdout; a reader that left is no failure of ours.
pub(crate) fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => fail(&format!("standard output cannot be written ({error})")),
    }
}

/// Loads the configuration, or says on stderr all that is wrong with it.
pub(crate) fn load(
    path: Option<&Path>,
    overrides: &[(String, String)],
    as_root: bool,
) -> Result<Loaded, ExitCode> {
    Config::load(path, overrides, as_root).map_err(|errors| {
        for error in &errors {
            fail(&error.to_string());
        }
        match errors.len() {
            1 => fail("the configuration has a mistake; nothing was started"),
            count => fail(&format!(
                "the configuration has {count} mistakes; nothing was started"
            )),
        }
    })
}

fn run_serve(path: Option<&Path>, serve: &Serve) -> ExitCode {
    /// EX_TEMPFAIL of sysexits.h: a service manager that does not start a server again whose
    /// configuration is wrong (status 1) does start one again that failed in an upgrade.
    const START_AGAIN: u8 = 75;
    let taken = match TakenOver::from_environment() {
        Ok(taken) => taken,
        Err(what) => return fail(&what),
    };
    let is_upgrade = taken.is_some() && !serve.probe;
    match serve_or_prove(path, serve, taken) {
        ExitCode::FAILURE if is_upgrade => ExitCode::from(START_AGAIN),
        status => status,
    }
}

fn serve_or_prove(path: Option<&Path>, serve: &Serve, mut taken: Option<TakenOver>) -> ExitCode {
    let as_root = geteuid().is_root();
    let overrides = match overrides(&serve.port, &serve.option) {
        Ok(overrides) => overrides,
        Err(what) => return fail(&what),
    };
    let handed_down = taken.as_mut().and_then(|taken| taken.program.take());
    let program = Program::of_this_process(handed_down);
    let loaded = match load(path, &overrides, as_root) {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    let options = loaded.config.global();
    let destination = destination(serve, &options);
    logging::init(destination.clone(), options.log_level);
    for warning in loaded.warnings.iter().chain(&monitor::complaints(&options)) {
        log::warn!("{warning}");
    }
    if serve.probe {
        return monitor::probe(&options, as_root, taken);
    }
    let in_memory: Vec<_> = taken
        .iter_mut()
        .flat_map(|taken| taken.host_keys.drain(..))
        .map(Arc::new)
        .collect();
    let host_keys = match host_keys::load_again(&options, as_root, &in_memory) {
        Ok(host_keys) => host_keys,
        Err(errors) => return log_all(&errors),
    };
    // A service manager has no use for it.
    let by_hand =
        destination == logging::Destination::Stderr && std::env::var_os("NOTIFY_SOCKET").is_none();
    let welcome = (by_hand && !serve.inetd && taken.is_none()).then(|| {
        welcome::say_what_is_served(&loaded);
        welcome::invitation_to(&options)
    });
    monitor::serve(monitor::Start {
        loaded,
        host_keys,
        config_path: path.map(Path::to_owned),
        overrides,
        inetd: serve.inetd,
        as_root,
        program,
        taken,
        welcome: welcome.flatten(),
    })
}

fn run_check(path: Option<&Path>, check: &Check) -> ExitCode {
    let as_root = geteuid().is_root();
    let overrides = match overrides(&[], &check.option) {
        Ok(overrides) => overrides,
        Err(what) => return fail(&what),
    };
    let loaded = match load(path, &overrides, as_root) {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    let options = loaded.config.global();
    for warning in loaded.warnings.iter().chain(&monitor::complaints(&options)) {
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    if let Err(errors) = host_keys::find(&options) {
        for error in &errors {
            fail(error);
        }
        return ExitCode::FAILURE;
    }
    if !check.dump {
        return ExitCode::SUCCESS;
    }
    if check.connection.is_empty() {
        return print(&loaded.config.dump(None));
    }
    match Connection::parse(&check.connection.join(",")) {
        Ok(connection) => print(&loaded.config.dump(Some(&connection.subject()))),
        Err(what) => fail(&what),
    }
}

fn run_drain(path: Option<&Path>) -> ExitCode {
    match load(path, &[], geteuid().is_root()) {
        Ok(loaded) => {
            logging::init(
                logging::Destination::Stderr,
                loaded.config.global().log_level,
            );
            monitor::drain(&loaded.config)
        }
        Err(status) => status,
    }
}

fn log_all(errors: &[String]) -> ExitCode {
    for error in errors {
        log::error!("{error}");
    }
    ExitCode::FAILURE
}

/// `-p` and `-o` as configuration lines. The port comes first, so that it wins over `-o Port=`.
fn overrides(ports: &[String], options: &[String]) -> Result<Vec<(String, String)>, String> {
    let mut overrides: Vec<(String, String)> = ports
        .iter()
        .map(|port| ("Port".to_owned(), port.clone()))
        .collect();
    for option in options {
        let (keyword, value) = option
            .split_once(['=', ' '])
            .ok_or_else(|| format!("-o {option}: write KEYWORD=VALUE"))?;
        overrides.push((keyword.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(overrides)
}

/// stderr, unless nobody can read it: then syslog, as for a server that an init script started.
fn destination(serve: &Serve, options: &Options) -> logging::Destination {
    // Of a probe, who asked for it reads the errors.
    let is_unread = serve.syslog || is_null(&io::stderr()) || (serve.inetd && is_connection());
    if is_unread && !serve.probe {
        let facility = options
            .syslog_facility
            .clone()
            .unwrap_or_else(|| "AUTH".to_owned());
        logging::Destination::Syslog { facility }
    } else {
        logging::Destination::Stderr
    }
}

fn is_null(file: &impl std::os::fd::AsFd) -> bool {
    const NULL_DEVICE: (u32, u32) = (1, 3);
    rustix::fs::fstat(file).is_ok_and(|found| {
        rustix::fs::FileType::from_raw_mode(found.st_mode).is_char_device()
            && (
                rustix::fs::major(found.st_rdev),
                rustix::fs::minor(found.st_rdev),
            ) == NULL_DEVICE
    })
}

/// inetd(8) gives the connection as stderr too; a line there would break the protocol.
fn is_connection() -> bool {
    let (input, error) = (
        rustix::fs::fstat(io::stdin()),
        rustix::fs::fstat(io::stderr()),
    );
    matches!((input, error), (Ok(input), Ok(error))
        if (input.st_dev, input.st_ino) == (error.st_dev, error.st_ino))
}

/// `-C` of `check --dump`.
#[derive(Debug)]
struct Connection {
    user: Option<String>,
    groups: Vec<String>,
    invalid_user: bool,
    address: IpAddr,
    host: Option<String>,
    local_address: IpAddr,
    local_port: u16,
}

impl Connection {
    fn parse(text: &str) -> Result<Self, String> {
        let unspecified = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let mut connection = Self {
            user: None,
            groups: Vec::new(),
            invalid_user: false,
            address: unspecified,
            host: None,
            local_address: unspecified,
            local_port: 22,
        };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let wrong =
                || format!("-C {part}: write user=, host=, addr=, laddr=, lport= or invalid-user");
            match name {
                "user" => connection.user = Some(value.to_owned()),
                "host" => connection.host = Some(value.to_owned()),
                "addr" => connection.address = value.parse().map_err(|_| wrong())?,
                "laddr" => connection.local_address = value.parse().map_err(|_| wrong())?,
                "lport" => connection.local_port = value.parse().map_err(|_| wrong())?,
                "invalid-user" => connection.invalid_user = true,
                // sshd takes it; no connection is in a routing domain here.
                "rdomain" => {}
                _ => return Err(wrong()),
            }
        }
        if let Some(user) = &connection.user {
            match account::lookup(user.as_bytes()) {
                Some(account) => connection.groups = account::group_names(&account.groups()),
                None => connection.invalid_user = true,
            }
        }
        Ok(connection)
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            user: self.user.as_deref(),
            groups: &self.groups,
            invalid_user: self.invalid_user,
            address: self.address,
            host: self.host.as_deref(),
            local_address: self.local_address,
            local_port: self.local_port,
        }
    }
}

/// The arguments as text, `-c FILE` moved to the front (it may stand behind the command too) and
/// `-oKEY=VALUE` cut in two, as users of ssh write them.
fn text_arguments() -> Result<Vec<String>, ExitCode> {
    let mut front = Vec::new();
    let mut rest = Vec::new();
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let Ok(argument) = argument.into_string() else {
            return Err(fail("an argument is not UTF-8; write it in UTF-8"));
        };
        match argument.as_bytes() {
            [b'-', b'c'] => {
                front.push(argument);
                match arguments.next().map(std::ffi::OsString::into_string) {
                    Some(Ok(value)) => front.push(value),
                    _ => return Err(fail("-c: the name of a file is missing or not UTF-8")),
                }
            }
            [b'-', letter, _, ..] if b"opcCft".contains(letter) => {
                let (option, value) = argument.split_at(2);
                let side = if *letter == b'c' {
                    &mut front
                } else {
                    &mut rest
                };
                side.push(option.to_owned());
                side.push(value.to_owned());
            }
            _ => rest.push(argument),
        }
    }
    front.append(&mut rest);
    Ok(front)
}

fn version() -> String {
    let mut features = Vec::new();
    for (name, enabled) in [
        ("embed-helper", cfg!(feature = "embed-helper")),
        ("sntrup761", cfg!(feature = "sntrup761")),
    ] {
        features.push(format!("{}{name}", if enabled { '+' } else { '-' }));
    }
    let libc = if cfg!(target_env = "musl") {
        "musl"
    } else {
        "gnu"
    };
    let build: String = crate::BUILD_ID
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!(
        "agent {} ({}-{libc}, {}, build {build})\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::ARCH,
        features.join(" ")
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn options_become_configuration_lines_with_the_port_first() {
        let options = ["PermitTTY=no", "Banner /etc/issue", "SetEnv=A=b c"].map(str::to_owned);
        let found = overrides(&["2022".to_owned()], &options).unwrap();
        let text: Vec<String> = found.iter().map(|(k, v)| format!("{k} {v}")).collect();
        assert_eq!(
            text,
            [
                "Port 2022",
                "PermitTTY no",
                "Banner /etc/issue",
                "SetEnv A=b c"
            ]
        );
        assert!(overrides(&[], &["PermitTTY".to_owned()]).is_err());
    }

    #[test]
    fn a_connection_is_described_as_to_sshd() {
        let connection =
            Connection::parse("user=root,addr=192.0.2.1,host=box,laddr=::1,lport=2022").unwrap();
        let subject = connection.subject();
        assert_eq!(subject.user, Some("root"));
        assert!(!subject.invalid_user && !subject.groups.is_empty());
        assert_eq!(subject.local_port, 2022);
        assert!(
            Connection::parse("user=no such account")
                .unwrap()
                .invalid_user
        );
        for bad in ["addr=x", "lport=99999", "colour=blue"] {
            assert!(Connection::parse(bad).is_err(), "{bad}");
        }
    }
}
