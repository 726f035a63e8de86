//! What is shipped beside the program says the same as the program.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent::config::keywords::{Class, TABLE};

use crate::{Place, text};

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Keyword and second cell of the rows of docs/config.md's tables of keywords.
fn documented() -> BTreeMap<String, String> {
    let page = fs::read_to_string(root("docs/config.md")).unwrap();
    let mut rows = BTreeMap::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let is_keyword = cells[0].starts_with(|c: char| c.is_ascii_uppercase())
            && cells[0].bytes().all(|byte| byte.is_ascii_alphanumeric());
        if cells.len() >= 3 && is_keyword && cells[0] != "Keyword" {
            assert!(
                rows.insert(cells[0].to_owned(), cells[1].to_owned())
                    .is_none(),
                "{} twice",
                cells[0]
            );
        }
    }
    rows
}

#[test]
fn the_page_of_keywords_is_the_table_of_the_program() {
    const OWN: &[&str] = &[
        "Accounting",
        "AgentSocketPath",
        "AllowCertificateIds",
        "CertificateClockFloor",
        "DataDir",
        "DebugAllowGroups",
        "DebugAllowUsers",
        "DebugProfileMaxSeconds",
        "DebugService",
        "DenyCertificateIds",
        "HelperMode",
        "HostKeyDir",
        "MaxLoginsPerUser",
        "OnDisconnect",
        "PrivsepUser",
        "SftpAudit",
    ];
    let mut rows = documented();
    for entry in TABLE {
        let row = rows.remove(entry.name);
        let here = row.unwrap_or_else(|| panic!("{} is not in docs/config.md", entry.name));
        if OWN.contains(&entry.name) {
            continue;
        }
        let expected = match entry.class {
            Class::Set(_) if entry.in_match => "implemented, Match",
            Class::Set(_) => "implemented",
            Class::Unserved {
                quiet: agent::config::keywords::Quiet::Always,
                ..
            } => "no effect",
            Class::Unserved { .. } => "warned",
            Class::Restricts { .. } => "error",
            Class::Deprecated => "deprecated",
            Class::Ignored => "ignored",
        };
        assert_eq!(here, expected, "{}", entry.name);
    }
    let left: Vec<&String> = rows.keys().collect();
    assert!(
        left.iter()
            .all(|name| ["KexAlgorithms", "Ciphers", "MACs"].contains(&name.as_str())),
        "{left:?}"
    );
}

#[test]
fn the_sample_configuration_is_good_and_shows_the_defaults() {
    let place = Place::new("sample");
    let sample = fs::read_to_string(root("dist/sshd_config")).unwrap();
    let output = place.check(&place.config(&sample), &["--dump"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    // Examples of what no default could be.
    let examples = [
        "#AllowUsers",
        "#HostKey /",
        "#HostKeyDir",
        "#Match",
        "#\t",
        "#ListenAddress",
        "# ",
    ];
    // Defaults of root, which the tests need not be.
    let of_root = ["#Port ", "#DataDir "];
    let defaults: Vec<&str> = sample
        .lines()
        .filter(|line| line.starts_with('#') && line.len() > 1)
        .filter(|line| {
            !examples
                .iter()
                .chain(&of_root)
                .any(|start| line.starts_with(start))
        })
        .map(|line| line.trim_start_matches('#'))
        .collect();
    assert!(defaults.len() > 8, "{defaults:?}");
    let with = place.check(
        &place.config(&format!("{}\n{sample}", defaults.join("\n"))),
        &["--dump"],
    );
    assert_eq!(
        text(&with.stdout),
        text(&output.stdout),
        "{}",
        text(&with.stderr)
    );
}

#[test]
fn service_scripts_are_shell() {
    for script in [
        "openrc/agent",
        "procd/agent",
        "runit/agent/run",
        "runit/agent/log/run",
    ] {
        let path = root("dist").join(script);
        let checked = Command::new("sh").arg("-n").arg(&path).output().unwrap();
        assert!(
            checked.status.success(),
            "{script}: {}",
            text(&checked.stderr)
        );
    }
}

/// Reason codes are an interface: those on the page exist, and those for refused accounts are on it.
#[test]
fn the_page_of_refusals_names_the_codes_of_the_program() {
    let page = fs::read_to_string(root("docs/refusals.md")).unwrap();
    let mut source = String::new();
    for entry in fs::read_dir(root("src/monitor")).unwrap() {
        source.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    source.push_str(&fs::read_to_string(root("src/authorized_keys/options.rs")).unwrap());
    let is_code = |word: &&str| {
        word.len() > 3
            && word
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    let mut on_page = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| `")) {
        let first = line.split(" | ").next().unwrap();
        on_page.extend(first.split('`').filter(is_code));
    }
    assert!(on_page.len() > 15, "{on_page:?}");
    for code in &on_page {
        assert!(
            source.contains(&format!("\"{code}\"")),
            "{code} is on the page only"
        );
    }
    // Each reason of the program's own table is on the page, and the other way round.
    let table = fs::read_to_string(root("src/monitor/refusals.rs")).unwrap();
    let (_, table) = table.split_once("const REASONS").unwrap();
    let (table, _) = table.split_once("\n];").unwrap();
    let rows = table
        .split("(\"")
        .chain(table.split("(\n        \""))
        .skip(1);
    let mut reasons: Vec<&str> = rows
        .map(|row| row.split('"').next().unwrap())
        .filter(is_code)
        .collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert!(reasons.len() > 40, "{reasons:?}");
    let (_, refused) = page.split_once("## event=refused").unwrap();
    let (refused, _) = refused.split_once("## event=end").unwrap();
    let mut listed: Vec<&str> = refused
        .lines()
        .filter(|line| line.starts_with("| `"))
        .flat_map(|line| line.split(" | ").next().unwrap().split('`'))
        .filter(is_code)
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, reasons);
}
