//! House rules as tests: what reviewers should not have to look for.
//!
//! ARCHITECTURE.md names the files with unsafe code and those that root decodes strangers' bytes
//! with; here it is held to be true.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longer files must be here with their reason.
const LONGEST_LINES: usize = 700;
const LONG_FILES: &[(&str, &str)] = &[(
    "src/ssh/crypto/cipher.rs",
    "one packet cipher each, and vectors for all of them",
)];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files of the repository below `directory` whose names end in `ending`, by their paths in it.
fn files(directory: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root().join(directory)];
    while let Some(path) = waiting.pop() {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            // Build directories and the repository's own are nobody's sources.
            let skipped = name == "target" || (name.starts_with('.') && name != ".ci");
            if !skipped || path == root() {
                waiting.extend(
                    fs::read_dir(&path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            }
        } else if name.ends_with(ending) {
            found.push(
                path.strip_prefix(root())
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    found.sort();
    found
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines of a file without comments; strings stay.
fn code(path: &str) -> Vec<String> {
    let text = text(path);
    let lines = text.lines().map(|line| match line.find("//") {
        Some(start) if !line[..start].contains('"') => line[..start].to_owned(),
        _ => line.to_owned(),
    });
    lines.collect()
}

/// All our Rust, this file left out: it names what it forbids.
fn rust_files() -> Vec<String> {
    files(".", ".rs")
        .into_iter()
        .filter(|path| path != "tests/tidy.rs")
        .collect()
}

/// Paths in backticks of the list below a heading of ARCHITECTURE.md.
fn listed(heading: &str) -> BTreeSet<String> {
    let text = text("ARCHITECTURE.md");
    let section = text
        .split(&format!("\n## {heading}\n"))
        .nth(1)
        .expect(heading);
    let section = section.split("\n## ").next().unwrap();
    let entries = section.lines().filter_map(|line| line.strip_prefix("- `"));
    entries
        .map(|entry| entry.split('`').next().unwrap().to_owned())
        .collect()
}

#[test]
fn unsafe_code_stands_only_where_the_map_says() {
    let named = listed("Unsafe code");
    let mut found = BTreeSet::new();
    for path in rust_files() {
        let is_unsafe = |line: &String| {
            [
                "unsafe {",
                "unsafe fn",
                "unsafe impl",
                "unsafe extern",
                "#[unsafe(",
            ]
            .iter()
            .any(|form| line.contains(form))
        };
        if code(&path).iter().any(is_unsafe) {
            found.insert(path);
        }
    }
    let surplus: Vec<_> = found.difference(&named).collect();
    let gone: Vec<_> = named.difference(&found).collect();
    assert!(
        surplus.is_empty(),
        "unsafe code that ARCHITECTURE.md does not name: {surplus:?}"
    );
    assert!(
        gone.is_empty(),
        "named in ARCHITECTURE.md, without unsafe code: {gone:?}"
    );
}

#[test]
fn what_root_decodes_with_is_safe_code() {
    let named = listed("Decoded as root");
    assert!(named.len() > 3, "{named:?}");
    for path in named {
        let own = code(&path);
        let forbids = |lines: &[String]| lines.iter().any(|line| line == "#![forbid(unsafe_code)]");
        let module = Path::new(&path).parent().unwrap().join("mod.rs");
        let above = root().join(&module).exists() && forbids(&code(module.to_str().unwrap()));
        let denied = !own.iter().any(|line| line.contains("allow(unsafe_code)"));
        assert!(denied, "{path} allows unsafe code");
        assert!(
            forbids(&own) || above || path.starts_with("src/ssh/"),
            "{path} does not forbid unsafe code"
        );
    }
}

#[test]
fn every_file_says_what_it_owns() {
    for path in rust_files() {
        assert!(
            text(&path).starts_with("//!"),
            "{path} does not open with //!"
        );
    }
}

#[test]
fn files_are_of_a_readable_length() {
    for path in rust_files() {
        let lines = text(&path).lines().count();
        let listed = LONG_FILES.iter().any(|(long, _)| *long == path);
        assert!(lines <= LONGEST_LINES || listed, "{path} has {lines} lines");
    }
    for (path, reason) in LONG_FILES {
        assert!(!reason.is_empty());
        let lines = text(path).lines().count();
        assert!(
            lines > LONGEST_LINES,
            "{path} has {lines} lines and needs no exception any more"
        );
    }
}

#[test]
fn the_protocol_layer_is_pure() {
    assert!(
        code("src/ssh/mod.rs")
            .iter()
            .any(|line| line == "#![forbid(unsafe_code)]")
    );
    for path in files("src/ssh", ".rs") {
        for line in code(&path) {
            for module in ["fs", "net", "thread", "time", "process", "os", "env"] {
                assert!(
                    !line.contains(&format!("std::{module}")),
                    "{path} uses std::{module}"
                );
            }
            assert!(
                !line.contains("rustix::") && !line.contains("libc::"),
                "{path}: system calls"
            );
        }
    }
}

#[test]
fn crypto_crates_are_named_in_one_place() {
    let crates = [
        "ring",
        "agent_primitives",
        "aes",
        "ctr",
        "ml_kem",
        "sntrup761",
        "chacha20",
        "poly1305",
        "sha_crypt",
        "yescrypt",
        "bcrypt",
    ];
    for path in files("src", ".rs") {
        if path.starts_with("src/ssh/crypto") {
            continue;
        }
        for line in code(&path) {
            for name in crates {
                let path_of = format!("{name}::");
                let named = line.find(&path_of).is_some_and(|start| {
                    !line[..start]
                        .ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':')
                });
                assert!(!named, "{path} names the crate {name}");
            }
        }
    }
}

#[test]
fn nothing_unfinished_and_no_machine_of_ours_is_named() {
    let words = ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("];
    let hosts =
        ["deb", "static", "index", "registry", "pypi", "files"].map(|host| format!("//{host}."));
    // Put together here, so that this file names none either.
    let machines = [("/", "work", "/"), ("/", "farm", "/"), (".", "library", "")]
        .map(|(before, name, after)| [before, name, after].concat());
    for ending in [".rs", ".md", ".toml", ".sh", ".c", "run"] {
        for path in files(".", ending) {
            if path == "tests/tidy.rs" || path.ends_with("Cargo.lock") {
                continue;
            }
            for (number, line) in text(&path).lines().enumerate() {
                let place = format!("{path}:{}", number + 1);
                for word in words {
                    assert!(!line.contains(word), "{place}: {word}");
                }
                for machine in &machines {
                    assert!(!line.contains(machine.as_str()), "{place}: {machine}");
                }
                for host in &hosts {
                    assert!(!line.contains(host.as_str()), "{place}: a registry's host");
                }
            }
        }
    }
}

#[test]
fn panics_are_not_left_to_chance() {
    // clippy denies unwrap outside of tests; a crate must not switch that off for all of itself.
    for path in [
        "src/lib.rs",
        "src/main.rs",
        "helper/src/lib.rs",
        "helper/src/main.rs",
    ] {
        for line in code(path) {
            assert!(
                !line.contains("clippy::unwrap_used"),
                "{path} allows unwrap"
            );
        }
    }
}

#[test]
fn both_workspaces_use_one_rustix() {
    let version = |path: &str| {
        let text = text(path);
        let behind = text.split("name = \"rustix\"\n").nth(1).unwrap();
        behind.lines().next().unwrap().to_owned()
    };
    assert_eq!(version("Cargo.lock"), version("helper/Cargo.lock"));
}
