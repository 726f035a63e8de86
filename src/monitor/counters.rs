//! What the monitor counts as it goes along; the rest of the metrics is looked up when somebody asks.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_helper::wire::Bytes;

use super::Monitor;
use super::connection::Phase;
use super::nets::Role;
use crate::debug_frames::{HistogramFact, Sample};
use crate::metrics::{BOUNDS_US, Id};

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub connections: u64,
    /// Method and whether it succeeded.
    pub attempts: BTreeMap<(&'static str, bool), u64>,
    pub refusals: BTreeMap<&'static str, u64>,
    pub handshakes: Histogram,
    pub launches: Histogram,
    pub launch_failures: u64,
    pub accept_errors: u64,
    pub net_deaths: u64,
    /// Of connections that are over: from and to clients.
    pub bytes: (u64, u64),
    pub rekeys: u64,
}

#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl Histogram {
    pub(super) fn note(&mut self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let index = BOUNDS_US
            .iter()
            .position(|bound| us <= *bound)
            .unwrap_or(BOUNDS_US.len());
        self.counts[index] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }

    fn fact(&self, id: Id) -> HistogramFact {
        HistogramFact {
            family: id as u8,
            counts: self.counts.to_vec(),
            sum_us: self.sum_us,
        }
    }
}

impl Counters {
    pub(super) fn attempt(&mut self, method: &'static str, succeeded: bool) {
        *self.attempts.entry((method, succeeded)).or_default() += 1;
    }

    pub(super) fn refusal(&mut self, reason: &'static str) {
        *self.refusals.entry(reason).or_default() += 1;
    }
}

/// Samples as they are gathered.
struct Samples(Vec<Sample>);

impl Samples {
    fn add(&mut self, id: Id, labels: &[&str], value: u64) {
        self.0.push(Sample {
            family: id as u8,
            labels: labels.iter().map(|label| Bytes::from(*label)).collect(),
            value,
        });
    }
}

impl Monitor {
    /// All metrics of now.
    pub(super) fn metrics(&mut self) -> (Vec<Sample>, Vec<HistogramFact>) {
        let mut samples = Samples(Vec::new());
        let build: String = crate::BUILD_ID
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        samples.add(Id::Build, &[env!("CARGO_PKG_VERSION"), &build], 1);
        samples.add(Id::StartTime, &[], self.started_s);
        self.counted(&mut samples);
        self.of_connections(&mut samples);
        self.of_processes(&mut samples);
        own_process(&mut samples, self.started_s);
        let counters = &self.counters;
        let histograms = vec![
            counters.handshakes.fact(Id::Handshake),
            counters.launches.fact(Id::HelperLaunch),
        ];
        (samples.0, histograms)
    }

    fn counted(&self, samples: &mut Samples) {
        let counters = &self.counters;
        samples.add(Id::ConnectionsTotal, &[], counters.connections);
        for ((method, succeeded), count) in &counters.attempts {
            let result = if *succeeded { "success" } else { "failure" };
            samples.add(Id::AuthAttempts, &[method, result], *count);
        }
        for (reason, count) in &counters.refusals {
            samples.add(Id::AuthRefusals, &[reason], *count);
        }
        samples.add(Id::HelperLaunchFailures, &[], counters.launch_failures);
        samples.add(Id::AcceptErrors, &[], counters.accept_errors);
        samples.add(Id::NetDeaths, &[], counters.net_deaths);
    }

    fn of_connections(&mut self, samples: &mut Samples) {
        let (mut greeting, mut live, mut terminals, mut programs, mut channels) = (0, 0, 0, 0, 0);
        let (mut received, mut sent) = self.counters.bytes;
        let mut rekeys = self.counters.rekeys;
        for connection in self.connections.values() {
            match &connection.phase {
                Phase::Live(it) => {
                    live += 1;
                    let with = it.sessions.values().filter(|it| it.terminal.is_some());
                    let with = with.count() as u64; // widens
                    terminals += with;
                    programs += it.sessions.len() as u64 - with; // widens
                }
                Phase::Ending { user: Some(_), .. } => live += 1,
                _ => greeting += 1,
            }
            channels += u64::from(connection.report.channels);
            received += connection.report.received;
            sent += connection.report.sent;
            rekeys += u64::from(connection.report.rekeys);
        }
        samples.add(Id::Connections, &["preauth"], greeting);
        samples.add(Id::Connections, &["user"], live);
        samples.add(Id::Sessions, &["terminal"], terminals);
        samples.add(Id::Sessions, &["command"], programs);
        samples.add(Id::Channels, &[], channels);
        samples.add(Id::ConnectionBytes, &["received"], received);
        samples.add(Id::ConnectionBytes, &["sent"], sent);
        samples.add(Id::Rekeys, &[], rekeys);
        let penalties = self.penalties.list(std::time::Instant::now());
        let active = penalties.iter().filter(|(_, penalty)| penalty.active);
        samples.add(Id::PenaltiesActive, &[], active.count() as u64); // widens
    }

    fn of_processes(&self, samples: &mut Samples) {
        let mode = self.helper_image.mode().to_string();
        samples.add(Id::HelperMode, &[&mode], 1);
        let mut named = Vec::new();
        for key in &self.generation.host_keys {
            let name = key.private.public().key_type.name();
            // A second of a type is never ours alone: it was configured.
            if named.contains(&name) {
                continue;
            }
            named.push(name);
            samples.add(Id::HostKeyPersisted, &[name], key.persisted.into());
        }
        let strangers = self
            .nets
            .iter()
            .filter(|(_, net)| net.role == Role::Strangers);
        let strangers = strangers.count() as u64; // widens
        let all = self.nets.iter().count() as u64; // widens
        samples.add(Id::NetProcesses, &["strangers"], strangers);
        samples.add(Id::NetProcesses, &["user"], all - strangers);
    }
}

/// The usual metrics of a process, as far as /proc tells them.
fn own_process(samples: &mut Samples, started_s: u64) {
    samples.add(Id::ProcessStart, &[], started_s);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(most) = limit.current {
        samples.add(Id::MaxFds, &[], most);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        // The directory itself is one of them.
        let count = entries.count().saturating_sub(1) as u64; // widens
        samples.add(Id::OpenFds, &[], count);
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (field, id, unit) in [
        ("VmRSS:", Id::ResidentMemory, 1024),
        ("VmSize:", Id::VirtualMemory, 1024),
        ("Threads:", Id::Threads, 1),
    ] {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        if let Some(value) = value {
            samples.add(id, &[], value * unit);
        }
    }
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let us = u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0) / 1000;
    samples.add(Id::CpuSeconds, &[], us);
}
