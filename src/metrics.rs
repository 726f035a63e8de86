//! The server's metrics: what there is, and its text in OpenMetrics and in Prometheus' older format.
//!
//! The monitor counts; the debug service's process writes the text. Labels have few values: no names
//! of users, no addresses, no keys.
//!
//! Source: OpenMetrics 1.0.0; Prometheus text format 0.0.4.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use crate::debug_frames::{HistogramFact, Sample};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Info,
    Histogram,
}

struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    labels: &'static [&'static str],
}

macro_rules! families {
    ($($id:ident: $name:literal $kind:ident [$($label:literal),*] $help:literal;)*) => {
        /// Which metric.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the table says it")]
        pub enum Id { $($id,)* }

        const FAMILIES: &[Family] = &[$(Family {
            name: $name, kind: Kind::$kind, help: $help, labels: &[$($label),*],
        },)*];
    };
}

// Names without `_total` and `_info`, which belong to the samples.
families! {
    Build: "agent_build" Info ["version", "build_id"] "The running program.";
    StartTime: "agent_start_time_seconds" Gauge [] "When the server started, in Unix time.";
    Connections: "agent_connections" Gauge ["phase"] "Connections of now.";
    ConnectionsTotal: "agent_connections_accepted" Counter [] "Connections that were taken.";
    Sessions: "agent_sessions" Gauge ["type"] "Programs that run for users.";
    Channels: "agent_channels" Gauge [] "Channels that are open, forwarded connections among them.";
    AuthAttempts: "agent_auth_attempts" Counter ["method", "result"] "Requests to log in.";
    AuthRefusals: "agent_auth_refusals" Counter ["reason"] "Refused logins and connections, by reason code.";
    PenaltiesActive: "agent_penalties_active" Gauge [] "Blocks of addresses that are refused now.";
    Handshake: "agent_handshake_duration_seconds" Histogram [] "From the connection to the server's signature.";
    HelperLaunch: "agent_helper_launch_duration_seconds" Histogram [] "Starting a helper.";
    HelperLaunchFailures: "agent_helper_launch_failures" Counter [] "Helpers that could not be started.";
    HelperMode: "agent_helper_mode" Info ["mode"] "From where helpers are executed.";
    ConnectionBytes: "agent_connection_bytes" Counter ["direction"] "Bytes of SSH connections, as they are on the network.";
    Rekeys: "agent_rekeys" Counter [] "Key exchanges after the first of a connection.";
    HostKeyPersisted: "agent_hostkey_persisted" Gauge ["type"] "1: the key survives a restart.";
    AcceptErrors: "agent_accept_errors" Counter [] "Pauses of accepting, for want of descriptors or memory.";
    NetProcesses: "agent_net_processes" Gauge ["role"] "Processes that talk to clients.";
    NetDeaths: "agent_net_deaths" Counter [] "Of these, those that ended when they should not.";
    CpuSeconds: "process_cpu_seconds" Counter [] "CPU time of the monitor.";
    ResidentMemory: "process_resident_memory_bytes" Gauge [] "Memory of the monitor.";
    VirtualMemory: "process_virtual_memory_bytes" Gauge [] "Address space of the monitor.";
    OpenFds: "process_open_fds" Gauge [] "Open descriptors of the monitor.";
    MaxFds: "process_max_fds" Gauge [] "How many it may have.";
    ProcessStart: "process_start_time_seconds" Gauge [] "When the monitor started, in Unix time.";
    Threads: "process_threads" Gauge [] "Threads of the monitor.";
}

/// Upper bounds of the buckets of both histograms, in microseconds.
pub const BOUNDS_US: [u64; 10] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
];

/// In which format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    /// text/plain; version=0.0.4
    Plain,
}

impl Format {
    /// What `Accept` asks for.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Plain
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// The text. A family without a sample is left out.
pub fn render(format: Format, samples: &[Sample], histograms: &[HistogramFact]) -> String {
    let mut text = String::new();
    for (index, family) in FAMILIES.iter().enumerate() {
        let is_it = |number: u8| usize::from(number) == index;
        if family.kind == Kind::Histogram {
            if let Some(found) = histograms.iter().find(|it| is_it(it.family)) {
                head(&mut text, format, family);
                histogram(&mut text, family, found);
            }
            continue;
        }
        let mut own = samples.iter().filter(|it| is_it(it.family)).peekable();
        if own.peek().is_some() {
            head(&mut text, format, family);
        }
        for sample in own {
            text.push_str(family.name);
            text.push_str(suffix(family.kind));
            labels(&mut text, family.labels, sample);
            text.push(' ');
            number(&mut text, family, sample.value);
            text.push('\n');
        }
    }
    if format == Format::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Histogram => "",
    }
}

fn head(text: &mut String, format: Format, family: &Family) {
    // The older format names samples, and knows no info.
    let name_suffix = match format {
        Format::OpenMetrics => "",
        Format::Plain => suffix(family.kind),
    };
    let kind = match (family.kind, format) {
        (Kind::Counter, _) => "counter",
        (Kind::Info, Format::OpenMetrics) => "info",
        (Kind::Gauge | Kind::Info, _) => "gauge",
        (Kind::Histogram, _) => "histogram",
    };
    let name = family.name;
    let _ = writeln!(text, "# TYPE {name}{name_suffix} {kind}");
    if format == Format::OpenMetrics {
        for unit in ["seconds", "bytes"] {
            if name.ends_with(unit) {
                let _ = writeln!(text, "# UNIT {name} {unit}");
            }
        }
    }
    let _ = writeln!(text, "# HELP {name}{name_suffix} {}", family.help);
}

fn labels(text: &mut String, names: &[&str], sample: &Sample) {
    if names.is_empty() {
        return;
    }
    text.push('{');
    for (index, (name, value)) in names.iter().zip(&sample.labels).enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in String::from_utf8_lossy(value).chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text.push('}');
}

fn number(text: &mut String, family: &Family, value: u64) {
    if family.name == "process_cpu_seconds" {
        seconds(text, value);
    } else {
        let _ = write!(text, "{value}");
    }
}

fn seconds(text: &mut String, us: u64) {
    let _ = write!(text, "{}.{:06}", us / 1_000_000, us % 1_000_000);
}

fn histogram(text: &mut String, family: &Family, fact: &HistogramFact) {
    let name = family.name;
    let mut below = 0;
    for (index, count) in fact.counts.iter().enumerate() {
        below += count;
        let _ = write!(text, "{name}_bucket{{le=\"");
        match BOUNDS_US.get(index) {
            Some(bound) => seconds(text, *bound),
            None => text.push_str("+Inf"),
        }
        let _ = writeln!(text, "\"}} {below}");
    }
    let _ = write!(text, "{name}_count {below}\n{name}_sum ");
    seconds(text, fact.sum_us);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(id: Id, labels: &[&str], value: u64) -> Sample {
        Sample {
            family: id as u8,
            labels: labels.iter().map(|label| (*label).into()).collect(),
            value,
        }
    }

    #[test]
    fn both_formats_name_a_counter_as_they_should() {
        let samples = [sample(Id::AuthAttempts, &["publickey", "ok\"\\"], 3)];
        let open = render(Format::OpenMetrics, &samples, &[]);
        assert!(
            open.starts_with("# TYPE agent_auth_attempts counter\n# HELP agent_auth_attempts ")
        );
        assert!(open.ends_with(
            "\nagent_auth_attempts_total{method=\"publickey\",result=\"ok\\\"\\\\\"} 3\n# EOF\n"
        ));
        let plain = render(Format::Plain, &samples, &[]);
        assert!(plain.starts_with("# TYPE agent_auth_attempts_total counter\n"));
        assert!(!plain.contains("EOF"));
    }

    #[test]
    fn buckets_add_up_and_end_in_infinity() {
        let fact = HistogramFact {
            family: Id::Handshake as u8,
            counts: vec![1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 4],
            sum_us: 1_500_000,
        };
        let text = render(Format::OpenMetrics, &[], &[fact]);
        assert!(text.contains("# UNIT agent_handshake_duration_seconds seconds\n"));
        assert!(text.contains("_bucket{le=\"0.005000\"} 3\n"), "{text}");
        assert!(text.contains("_bucket{le=\"+Inf\"} 7\n"));
        assert!(text.contains("_count 7\nagent_handshake_duration_seconds_sum 1.500000\n"));
    }
}
