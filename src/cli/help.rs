//! What `--help` prints. Written out, since the argument parser is built without its own help for
//! size.

/// All commands.
const AGENT: &str = "\
An SSH server in one static file.

Usage: agent [-c FILE] COMMAND [OPTIONS]

Commands:
  serve     serve connections until SIGTERM
  check     check the configuration and the host keys (like sshd -t)
  keygen    make a key, or print a key's public half or fingerprint
  drain     end the running server with all its connections
  debug     look inside the running server, change its log level
  sftp-server
            serve files on standard input and output (like OpenSSH's)

Options:
  -c FILE     configuration in sshd_config(5) syntax; \"none\" for the defaults.
              Without it: as root /etc/agent/sshd_config, else
              /etc/ssh/sshd_config; as another user
              ~/.config/agent/sshd_config
  --version   print version and features
  --help      print this; agent COMMAND --help tells of the command's options
";

const SERVE: &str = "\
Usage: agent [-c FILE] serve [OPTIONS]

Serves connections until SIGTERM, in the foreground. As root for every account,
as another user for that user only, on port 2222. SIGHUP reads the
configuration again, SIGUSR2 lets a new version of this file take over,
SIGTERM ends the server and leaves open sessions alone.

Options:
  -p PORT            listen on this port, in place of the configuration's
  -o KEYWORD=VALUE   a line of configuration that wins over the file's;
                     may be repeated
  --inetd            serve the one connection on standard input and output
  --probe            prove that the server could start, and end: what an
                     upgrade asks of a new version
  --syslog           log to syslog, not to standard error. It is chosen without
                     this too when standard error is /dev/null
";

const CHECK: &str = "\
Usage: agent [-c FILE] check [OPTIONS]

Checks the configuration and the host keys. Mistakes and warnings go to standard
error; the exit code is 0 if a server would start.

Options:
  --dump             print the effective values (like sshd -T)
  -C SUBJECT         with --dump: the values for one connection, such as
                     user=NAME,addr=ADDRESS,host=NAME,laddr=ADDRESS,lport=PORT
  -o KEYWORD=VALUE   a line of configuration that wins over the file's;
                     may be repeated
";

const KEYGEN: &str = "\
Usage: agent [-c FILE] keygen [OPTIONS]

Makes a key pair in OpenSSH's format. A file that exists is never replaced.

Options:
  -t TYPE   ed25519 (the default), ecdsa or ecdsa-384
  -f FILE   the private key's file; the server's own key by default
  -C TEXT   comment
  -l        print the fingerprints of the keys in FILE (private, .pub or
            authorized_keys)
  -y        print the public half of the private key in FILE
";

const DRAIN: &str = "\
Usage: agent [-c FILE] drain

Ends the running server of this configuration, and all its connections.
";

const SFTP_SERVER: &str = "\
Usage: agent sftp-server [OPTIONS]

Serves files on standard input and output, with the rights of who runs it, in
the place of OpenSSH's sftp-server.

Options:
  -R             refuse everything that changes something
  -u MASK        umask for new files, octal
  -d DIRECTORY   directory to start in; %u is the user, %d the home directory
  -P REQUESTS    deny these requests, a list with commas
  -p REQUESTS    allow only these requests
  -l LEVEL       log level (QUIET to DEBUG3), ERROR by default
  -f FACILITY    syslog facility, AUTH by default
  -e             log to standard error
  -Q requests    list the names of requests
";

const DEBUG: &str = "\
Usage: agent [-c FILE] debug COMMAND

Asks the running server of this configuration, over its debug.sock.

Commands:
  get-log-level         print the level at which is logged
  set-log-level LEVEL   log at this level, everywhere, until SIGHUP or a restart:
                        TRACE, DEBUG, INFO, WARN or ERROR
  readyz                whether it accepts connections, and what it works with
  sessions              live connections
  close ID              end one of them
  drain                 accept no more, end with the last connection
  upgrade               let the program that the server's file holds now take over,
                        in the same process, without ending a session; proven
                        first, and if it fails the server goes on as it is
  log [--level LEVEL] [--follow]
                        the last lines of the log; with --follow those that come,
                        at a level of their own
  why [WHOM]            the last refusals, of this user or address
  penalties [clear [ADDRESS]]
                        penalised addresses; forget one, or all
  penalties set ADDRESS SECONDS
                        refuse this address for so long; 0: let it in
  profile [-s SECONDS] [-p PROCESS] [NAMES]
                        profiles for pprof, as a gzip tar on standard output:
                        heap, allocs, profile (CPU time), goroutine (where threads
                        are), threadcreate, mutex, block, trace (for
                        chrome://tracing), cmdline; of monitor, net, or a net by
                        its pid
  metrics               counters, in Prometheus' format

With --json, readyz, sessions, log, why and penalties print JSON.

Exit codes: 0; 1 the server refused; 2 this command line is wrong; 3 no server
answers; 4 no permission; 5 the server does not know this command.
";

/// How a command of `agent debug` is written.
pub fn debug_usage(command: &str) -> Option<&'static str> {
    let mut lines = DEBUG.lines().filter_map(|line| line.strip_prefix("  "));
    let usage = lines.find(|line| line.split(' ').next() == Some(command))?;
    // What it is for stands behind two blanks, or on the next line.
    usage.split("  ").next()
}

/// The text for the arguments of the process, if they ask for help.
pub fn asked(arguments: &[String]) -> Option<&'static str> {
    let first = arguments.first().map(String::as_str);
    let asks = |argument: &String| matches!(argument.as_str(), "--help" | "-h");
    if first != Some("help") && !arguments.iter().any(asks) {
        return None;
    }
    let command = arguments
        .iter()
        .find_map(|argument| match argument.as_str() {
            "serve" => Some(SERVE),
            "check" => Some(CHECK),
            "keygen" => Some(KEYGEN),
            "drain" => Some(DRAIN),
            "sftp-server" => Some(SFTP_SERVER),
            "debug" => Some(DEBUG),
            _ => None,
        });
    Some(command.unwrap_or(AGENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_is_for_the_command_that_is_named() {
        let asked = |words: &[&str]| {
            asked(
                &words
                    .iter()
                    .map(|&word| word.to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(asked(&["--help"]), Some(AGENT));
        assert_eq!(asked(&["serve", "-h"]), Some(SERVE));
        assert_eq!(asked(&["help", "keygen"]), Some(KEYGEN));
        assert_eq!(asked(&["-c", "x", "check", "--help"]), Some(CHECK));
        assert_eq!(asked(&["serve"]), None);
        assert_eq!(asked(&[]), None);
    }
}
