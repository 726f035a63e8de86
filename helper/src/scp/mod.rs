//! The old scp protocol, for boxes without a program called `scp`: what `scp -t` and `scp -f` do.
//!
//! Clients of OpenSSH before 9, and others with `-O`, run that command on the server. What they pass
//! is a line for the user's shell, with quotes, tildes and wildcards in it, so the shell takes it
//! apart (see [`words`]) and the rest happens here. Source: OpenSSH's scp.c; there is no standard.
#![forbid(unsafe_code)]

pub mod sink;
mod source;
mod stream;

use alloc::ffi::CString;
use alloc::vec::Vec;

use rustix::io::read;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::WaitStatus;

use crate::path::stat;
use crate::sftp::log::Log;
use crate::sys::{self, Forked};
use crate::text::{c_strings, split};
use stream::Stream;

/// Words of a command line, all together.
const WORDS_MAX_BYTES: usize = 256 * 1024;
/// Bytes of a path in a message or a record.
const NAME_MAX_BYTES: usize = 4096;
/// What the shell does in place of a program called scp: tell its arguments.
const TELL_WORDS: &[u8] = b"scp() { printf '%s\\000' \"$@\" >&3; }\n";
const STATUS_NOT_FOUND: i32 = 127;

/// What an `scp` on the server is asked for.
#[derive(Debug, Default, Clone, Copy)]
pub struct Options {
    /// -t.
    to_here: bool,
    /// -f.
    from_here: bool,
    /// -r.
    recursive: bool,
    /// -p.
    preserve: bool,
    /// -d.
    into_directory: bool,
}

/// Whether `line` asks for the server's side of scp.
pub fn is_asked_for(line: &[u8]) -> bool {
    let mut words = split(line, b' ');
    words.next() == Some(b"scp")
        && words
            .take_while(|word| word.starts_with(b"-"))
            .any(|word| !word.starts_with(b"--") && (word.contains(&b't') || word.contains(&b'f')))
}

/// Whether a program called scp is in the PATH of `environment`.
pub fn has_program(environment: &[CString]) -> bool {
    let path = environment
        .iter()
        .find_map(|entry| entry.to_bytes().strip_prefix(b"PATH="));
    split(path.unwrap_or_default(), b':')
        .any(|directory| stat(&[directory, b"/scp"].concat()).is_ok())
}

/// Serves `line` on standard input and output; gives the exit status. The shell is a path and what
/// it is called.
pub fn serve(shell: (&CString, &[u8]), line: &[u8], environment: &[CString], log: Log) -> i32 {
    let words = match words(shell, line, environment) {
        Ok(words) => words,
        Err(status) => return status,
    };
    let mut stream = Stream::new(log);
    let (options, paths) = match options(&words) {
        Some(parsed) => parsed,
        None => {
            stream.complain(&[b"usage: scp [-pr] [-d] -t target | -f source ..."]);
            return 1;
        }
    };
    let ended = if options.from_here {
        source::send_all(&mut stream, options, &paths)
    } else if let [target] = paths.as_slice() {
        sink::receive_all(&mut stream, options, target)
    } else {
        stream.complain(&[b"ambiguous target"]);
        return 1;
    };
    i32::from(ended.is_err() || stream.has_complained())
}

/// The arguments of the command line, as the user's shell understands them, with NULs between; or its
/// exit status.
fn words(
    (shell, name): (&CString, &[u8]),
    line: &[u8],
    environment: &[CString],
) -> Result<Vec<u8>, i32> {
    let failed = |_| STATUS_NOT_FOUND;
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
    let script = [TELL_WORDS, line].concat();
    let arguments = c_strings(&[name, b"-c", &script]).map_err(failed)?;
    let child = match sys::fork().map_err(failed)? {
        Forked::Child => {
            // Descriptor 3, without close-on-exec.
            let told = sys::keep_only([writer]).and_then(|[writer]| {
                rustix::io::fcntl_setfd(&writer, rustix::io::FdFlags::empty())?;
                Ok(writer)
            });
            if told.is_ok() {
                sys::execute(shell, &arguments, environment);
            }
            sys::exit(STATUS_NOT_FOUND)
        }
        Forked::Parent(child) => child,
    };
    drop(writer);
    let mut told = Vec::new();
    let mut piece = [0; 4096];
    while told.len() < WORDS_MAX_BYTES
        && let Ok(filled @ 1..) = read(&reader, piece.as_mut_slice())
    {
        told.extend_from_slice(piece.get(..filled).unwrap_or_default());
    }
    drop(reader);
    let status = sys::await_child(child).and_then(WaitStatus::exit_status);
    let status = status.unwrap_or(STATUS_NOT_FOUND);
    if status != 0 || told.pop() != Some(0) {
        return Err(status);
    }
    Ok(told)
}

fn options(words: &[u8]) -> Option<(Options, Vec<&[u8]>)> {
    let mut options = Options::default();
    let mut words = split(words, 0);
    let mut paths = Vec::new();
    for word in words.by_ref() {
        match word.strip_prefix(b"-") {
            Some(b"-") => break,
            Some(letters) if !letters.is_empty() && paths.is_empty() => {
                for letter in letters {
                    match letter {
                        b't' => options.to_here = true,
                        b'f' => options.from_here = true,
                        b'r' => options.recursive = true,
                        b'p' => options.preserve = true,
                        b'd' => options.into_directory = true,
                        // Talkative, quiet: nobody would read it.
                        b'v' | b'q' => {}
                        _ => return None,
                    }
                }
            }
            _ => paths.push(word),
        }
    }
    paths.extend(words);
    (options.to_here != options.from_here && !paths.is_empty()).then_some((options, paths))
}

/// The last component of a path; `/` for the root directory.
fn last_component(path: &[u8]) -> &[u8] {
    let mut path = path;
    while path.len() > 1
        && let Some(shorter) = path.strip_suffix(b"/")
    {
        path = shorter;
    }
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) if path.len() > 1 => path.get(slash + 1..).unwrap_or(path),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<(Options, usize)> {
        options(line.replace(' ', "\0").as_bytes()).map(|(options, paths)| (options, paths.len()))
    }

    #[test]
    fn options_are_those_of_clients() {
        let (options, paths) = parse("-r -p -d -t dir").expect("options");
        assert!(options.recursive && options.preserve && options.into_directory);
        assert!(options.to_here && !options.from_here);
        assert_eq!(paths, 1);
        assert_eq!(parse("-vf -- -a b").map(|(_, paths)| paths), Some(2));
        for line in ["-t", "a b", "-t -f x", "-x -t a"] {
            assert!(parse(line).is_none(), "{line}");
        }
    }

    #[test]
    fn only_the_server_s_side_is_wanted_and_only_without_a_program() {
        let path = |text| [CString::new(text).expect("text")];
        assert!(!has_program(&path("PATH=/nonexistent")));
        assert!(!has_program(&path("HOME=/bin")));
        for line in ["scp -t x", "scp -r -p -d -t -- x", "scp -v -f 'a b'"] {
            assert!(is_asked_for(line.as_bytes()), "{line}");
        }
        for line in [
            "scp a b",
            "scp",
            "scpx -t a",
            "echo scp -t",
            "scp host:-t x",
        ] {
            assert!(!is_asked_for(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn names_are_last_components() {
        for (path, name) in [
            ("/a/b", "b"),
            ("a/", "a"),
            ("/", "/"),
            ("//", "/"),
            ("x", "x"),
        ] {
            assert_eq!(last_component(path.as_bytes()), name.as_bytes());
        }
    }
}
