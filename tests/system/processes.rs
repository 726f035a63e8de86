//! A look at processes through /proc.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// A process as /proc shows it.
#[derive(Debug, Clone)]
pub struct Process {
    pub id: u32,
    pub parent: u32,
    pub uid: u32,
    /// Command line with spaces between the arguments.
    pub command: String,
}

/// All processes.
pub fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .flatten()
        .filter_map(|entry| read(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

/// One process; None where it is gone or a zombie.
pub fn read(id: u32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let behind_name = stat.rsplit_once(") ")?.1;
    let mut fields = behind_name.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    let parent = fields.next()?.parse().ok()?;
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid = uids.split_whitespace().next()?.parse().ok()?;
    let command = fs::read(format!("/proc/{id}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command)
        .replace('\0', " ")
        .trim_end()
        .to_owned();
    Some(Process {
        id,
        parent,
        uid,
        command,
    })
}

/// A process and its descendants.
pub fn family(root: u32) -> Vec<Process> {
    let processes = all();
    let mut members: Vec<Process> = processes
        .iter()
        .filter(|process| process.id == root)
        .cloned()
        .collect();
    let mut next = 0;
    while let Some(id) = members.get(next).map(|process| process.id) {
        members.extend(
            processes
                .iter()
                .filter(|process| process.parent == id)
                .cloned(),
        );
        next += 1;
    }
    members
}

/// Proportional set size of a process and its descendants.
pub fn family_memory_kib(root: u32) -> u64 {
    family(root)
        .iter()
        .map(|process| {
            let path = format!("/proc/{}/smaps_rollup", process.id);
            let rollup = fs::read_to_string(path).unwrap_or_default();
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            line.map_or(0, |line| {
                line.trim()
                    .trim_end_matches(" kB")
                    .trim()
                    .parse::<u64>()
                    .unwrap_or(0)
            })
        })
        .sum()
}

/// Sends a signal; a process that is gone already is fine.
pub fn kill(id: u32, signal: Signal) {
    if let Some(process) = Pid::from_raw(id.cast_signed()) {
        let _ = rustix::process::kill_process(process, signal);
    }
}

pub fn is_alive(id: u32) -> bool {
    read(id).is_some()
}

/// Waits until `condition` gives something.
pub fn wait_for<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until `condition` holds.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    wait_for(what, limit, || condition().then_some(()));
}
