//! What a login's policy makes of a client's request: which program is executed, if any.
#![forbid(unsafe_code)]

use rustix::io::Errno;

use crate::frame::{Policy, Program};
use crate::program::Task;

/// What the policy makes of a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    /// What to become.
    pub task: Task<'a>,
    /// What the client asked for, where something else is forced.
    pub original_command: Option<&'a [u8]>,
    /// Subsystems have no startup files.
    pub is_subsystem: bool,
    /// The client may send signals.
    pub takes_signals: bool,
}

/// What is executed, by the policy alone; `None`: nothing.
#[inline(never)]
pub fn decide<'a>(policy: &'a Policy, program: &'a Program) -> Option<Decision<'a>> {
    let (asked, is_subsystem) = match program {
        Program::Shell => (None, false),
        Program::Command { line } => (Some(&**line), false),
        Program::Subsystem { name } => {
            let entry = policy.subsystems.iter().find(|entry| entry.0 == *name);
            match entry {
                Some((_, line)) => (Some(&**line), true),
                None => return None,
            }
        }
    };
    let Some(forced) = policy.forced_command.as_deref() else {
        return Some(Decision {
            task: match asked {
                None => Task::Shell,
                Some(line) if is_subsystem => task_of(line, true),
                Some(line) => Task::Command(line),
            },
            original_command: None,
            is_subsystem,
            takes_signals: !is_subsystem,
        });
    };
    // What is forced is no choice of programs: a wrapper that is not there serves nothing.
    let task = match task_of(forced, false) {
        Task::Sftp(_) if !is_subsystem => Task::SftpOnly,
        task => task,
    };
    Some(Decision {
        task,
        original_command: asked,
        is_subsystem,
        takes_signals: false,
    })
}

/// What a command line of the configuration means.
fn task_of(line: &[u8], may_be_missing: bool) -> Task<'_> {
    let end = line
        .iter()
        .position(|&byte| byte == b' ' || byte == b'\t')
        .unwrap_or(line.len());
    let (program, arguments) = line.split_at(end);
    // Stock configurations name OpenSSH's program, also where only this server is installed.
    let stands_for_ours = may_be_missing
        && program.first() == Some(&b'/')
        && program.ends_with(b"/sftp-server")
        && matches!(crate::path::stat(program), Err(Errno::NOENT));
    if program == b"internal-sftp" || stands_for_ours {
        Task::Sftp(arguments)
    } else {
        Task::Command(line)
    }
}
