//! How the monitor's facts are shown: as JSON for programs, as tables for people.

#![forbid(unsafe_code)]

use super::json::{Object, list, string};
use super::tables::{bytes, table, utc};
use crate::debug_frames::{PenaltyFact, Readiness, RefusalFact, SessionFact};

/// In which form somebody wants an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Table,
}

impl Form {
    /// JSON, unless plain text is asked for.
    pub(super) fn accepted(accept: &str) -> Self {
        if accept.starts_with("text/plain") {
            Self::Table
        } else {
            Self::Json
        }
    }
}

pub(super) fn readiness(facts: &Readiness, form: Form) -> String {
    let name = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
    if form == Form::Table {
        let state = match (facts.ready, facts.draining) {
            (true, _) => "yes",
            (false, true) => "no, it is draining",
            (false, false) => "not yet",
        };
        let mut text = format!(
            "ready        {state}\npid          {}\nversion      {}\nstarted      {}\nhelper       {}\n",
            facts.pid,
            env!("CARGO_PKG_VERSION"),
            utc(i64::try_from(facts.started_s).unwrap_or(0)),
            name(&facts.helper_mode)
        );
        for (mode, reason) in &facts.helper_refusals {
            text.push_str(&format!("  not {}: {}\n", name(mode), name(reason)));
        }
        for key in &facts.host_keys {
            let kept = if key.persisted {
                ""
            } else {
                " (in memory only: gone with the server)"
            };
            text.push_str(&format!(
                "host key     {} {}{kept}\n",
                name(&key.name),
                name(&key.path)
            ));
        }
        for address in &facts.listeners {
            text.push_str(&format!("listens on   {address}\n"));
        }
        for pid in &facts.keepers {
            text.push_str(&format!(
                "keeper       {pid} (has connections from before an upgrade or a stop)\n"
            ));
        }
        for part in &facts.missing {
            text.push_str(&format!("not in this kernel: {}\n", name(part)));
        }
        return text;
    }
    let refusals = facts.helper_refusals.iter().map(|(mode, reason)| {
        Object::new()
            .text("mode", mode)
            .text("reason", reason)
            .end()
    });
    let keys = facts.host_keys.iter().map(|key| {
        Object::new()
            .text("type", &key.name)
            .text("path", &key.path)
            .flag("persisted", key.persisted)
            .end()
    });
    let listeners = facts
        .listeners
        .iter()
        .map(|at| string(at.to_string().as_bytes()));
    let keepers = facts.keepers.iter().map(u32::to_string);
    let missing = facts.missing.iter().map(|part| string(part));
    let helper = Object::new()
        .text("mode", &facts.helper_mode)
        .value("refused", &list(refusals))
        .end();
    Object::new()
        .flag("ready", facts.ready)
        .flag("draining", facts.draining)
        .number("pid", facts.pid)
        .text("version", env!("CARGO_PKG_VERSION").as_bytes())
        .number("started", facts.started_s)
        .value("helper", &helper)
        .value("host_keys", &list(keys))
        .value("listeners", &list(listeners))
        .value("confinement_missing", &list(missing))
        .value("keepers", &list(keepers))
        .end()
        + "\n"
}

pub(super) fn sessions(facts: &[SessionFact], form: Form) -> String {
    let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
    let since = |it: &SessionFact| utc(i64::try_from(it.since_s).unwrap_or(0));
    if form == Form::Table {
        let rows: Vec<Vec<String>> = facts
            .iter()
            .map(|it| {
                let user = match &*it.phase {
                    b"user" => text(&it.user),
                    phase => format!("{} ({})", or_dash(&text(&it.user)), text(phase)),
                };
                vec![
                    it.id.to_string(),
                    user,
                    format!("{}:{}", text(&it.address), it.port),
                    since(it),
                    it.channels.to_string(),
                    bytes(it.received),
                    bytes(it.sent),
                    or_dash(&nonzero(it.helper_pid)),
                    or_dash(&text(&it.algorithms)),
                ]
            })
            .collect();
        return table(
            &[
                "ID",
                "USER",
                "ADDRESS",
                "SINCE",
                "CHANNELS",
                "RECEIVED",
                "SENT",
                "HELPER",
                "ALGORITHMS",
            ],
            &rows,
        );
    }
    let all = facts.iter().map(|it| {
        Object::new()
            .number("id", it.id)
            .text("user", &it.user)
            .text("phase", &it.phase)
            .text("address", &it.address)
            .number("port", it.port)
            .text("since", since(it).as_bytes())
            .number("channels", it.channels)
            .number("programs", it.programs)
            .number("received_bytes", it.received)
            .number("sent_bytes", it.sent)
            .number("helper_pid", it.helper_pid)
            .text("algorithms", &it.algorithms)
            .text("client", &it.client)
            .end()
    });
    list(all) + "\n"
}

pub(super) fn refusals(facts: &[RefusalFact], form: Form) -> String {
    let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
    if form == Form::Table {
        let rows: Vec<Vec<String>> = facts
            .iter()
            .map(|it| {
                vec![
                    utc(it.at_s),
                    or_dash(&text(&it.user)),
                    text(&it.address),
                    text(&it.reason),
                    text(&it.advice),
                ]
            })
            .collect();
        return table(&["WHEN", "USER", "ADDRESS", "REASON", "WHAT TO DO"], &rows);
    }
    let all = facts.iter().map(|it| {
        Object::new()
            .text("at", utc(it.at_s).as_bytes())
            .text("user", &it.user)
            .text("address", &it.address)
            .number("port", it.port)
            .text("reason", &it.reason)
            .text("advice", &it.advice)
            .end()
    });
    list(all) + "\n"
}

pub(super) fn penalties(facts: &[PenaltyFact], form: Form) -> String {
    let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
    if form == Form::Table {
        let rows: Vec<Vec<String>> = facts
            .iter()
            .map(|it| {
                let state = if it.active { "refused" } else { "adding up" };
                vec![
                    text(&it.address),
                    state.to_owned(),
                    format!("{} s", it.left_s),
                    text(&it.offence),
                ]
            })
            .collect();
        return table(&["ADDRESS", "STATE", "FOR", "OFFENCE"], &rows);
    }
    let all = facts.iter().map(|it| {
        Object::new()
            .text("address", &it.address)
            .flag("active", it.active)
            .number("seconds", it.left_s)
            .text("offence", &it.offence)
            .end()
    });
    list(all) + "\n"
}

fn nonzero(number: u32) -> String {
    if number == 0 {
        String::new()
    } else {
        number.to_string()
    }
}

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-" } else { text }.to_owned()
}
