//! `cargo xtask size-budget`: helper and agent against size-budget.toml.
//!
//! Bytes and memory may not exceed the file's numbers; the crates must be exactly the listed ones,
//! so that a new dependency is a decision with a reason beside it, and a dropped one leaves the
//! list. `[agent.recorded]` holds the sizes by crate when somebody last looked (`--record`), so that
//! the table can say what grew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::budget_file::BudgetFile;
use crate::chroot_test;
use crate::dist::{self, Built};
use crate::run::{self, Failure};
use crate::toolchain::Target;

const FILE: &str = "size-budget.toml";
/// The line in the file from which on `--record` writes.
const RECORDED: &str = "[agent.recorded]";

struct Row {
    what: String,
    budget: u64,
    actual: u64,
    grown: String,
}

/// `cargo xtask size-budget [--record]`
pub fn main(arguments: &[String]) -> Result<(), Failure> {
    let record = match arguments {
        [] => false,
        [flag] if flag == "--record" => true,
        _ => return Err("size-budget takes --record at most".to_owned()),
    };
    let path = run::root().join(FILE);
    let text = fs::read_to_string(&path).map_err(|error| format!("{FILE}: {error}"))?;
    let budget = BudgetFile::parse(&text)?;

    // The numbers are those of x86_64, whatever machine measures them.
    let target = Target::named("x86_64")?;
    let built = dist::build(target)?;
    let by_crate = bytes_by_crate(target, &built)?;
    let mut complaints = Vec::new();
    let mut rows = helper_rows(&budget, target, &built, &mut complaints)?;
    rows.extend(agent_rows(
        &budget,
        target,
        &built,
        &by_crate,
        &mut complaints,
    )?);
    print_table(&rows);
    for row in rows.iter().filter(|row| row.actual > row.budget) {
        complaints.push(format!(
            "{}: {} is over {}",
            row.what, row.actual, row.budget
        ));
    }
    if record {
        write_record(&path, &text, &by_crate)?;
    }
    if complaints.is_empty() {
        Ok(())
    } else {
        Err(complaints.join("\nxtask: "))
    }
}

fn helper_rows(
    budget: &BudgetFile,
    target: Target,
    built: &Built,
    complaints: &mut Vec<String>,
) -> Result<Vec<Row>, Failure> {
    let image = helper_image(target, built)?;
    let length = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(error) => Err(format!("{}: {error}", path.display())),
    };
    let elf_bytes = length(&image)?;
    let deflated_bytes = length(&image.with_extension("z"))?;
    let listed = budget.texts("helper.crates");
    let actual = crates(
        &run::root().join("helper/Cargo.toml"),
        "agent-helper",
        target,
    )?;
    compare_crates("helper", &listed, &actual, complaints);
    Ok(vec![
        row(
            "helper ELF bytes",
            budget.number("helper", "max_elf_bytes")?,
            elf_bytes,
        ),
        row(
            "helper deflated bytes",
            budget.number("helper", "max_deflated_bytes")?,
            deflated_bytes,
        ),
        row("helper crates", listed.len() as u64, actual.len() as u64),
    ])
}

fn agent_rows(
    budget: &BudgetFile,
    target: Target,
    built: &Built,
    by_crate: &BTreeMap<String, u64>,
    complaints: &mut Vec<String>,
) -> Result<Vec<Row>, Failure> {
    let bytes = fs::metadata(&built.file)
        .map_err(|error| format!("{}: {error}", built.file.display()))?
        .len();
    let listed = budget.texts("agent.crates");
    let actual = crates(&run::root().join("Cargo.toml"), "agent", target)?;
    compare_crates("agent", &listed, &actual, complaints);
    let recorded = budget.numbers("agent.recorded");
    let mut rows = vec![
        Row {
            what: "agent static bytes".to_owned(),
            budget: budget.number("agent", "max_static_bytes")?,
            actual: bytes,
            grown: growth(&recorded, by_crate),
        },
        row(
            "agent crates",
            budget.number("agent", "max_crates")?,
            actual.len() as u64,
        ),
    ];
    if target.is_native() && rustix::process::geteuid().is_root() {
        let idle_kib = chroot_test::idle_memory_kib(&built.file)?;
        rows.push(Row {
            what: "agent idle memory KiB".to_owned(),
            budget: budget.number("agent", "max_idle_kib")?,
            actual: idle_kib,
            grown: String::new(),
        });
    }
    Ok(rows)
}

fn row(what: &str, budget: u64, actual: u64) -> Row {
    Row {
        what: what.to_owned(),
        budget,
        actual,
        grown: String::new(),
    }
}

fn print_table(rows: &[Row]) {
    println!(
        "{:<24} {:>10} {:>10} {:>5}  grown since recorded",
        "", "budget", "actual", "used"
    );
    for row in rows {
        let percent = (row.actual * 100).checked_div(row.budget).unwrap_or(0);
        let verdict = if row.actual > row.budget {
            "  OVER"
        } else {
            ""
        };
        println!(
            "{:<24} {:>10} {:>10} {:>4}%  {}{verdict}",
            row.what, row.budget, row.actual, percent, row.grown
        );
    }
}

/// The helper that build.rs made for this build: the newest, should several be left.
fn helper_image(target: Target, built: &Built) -> Result<PathBuf, Failure> {
    let builds = built.directory.join(target.triple).join("dist/build");
    let entries =
        fs::read_dir(&builds).map_err(|error| format!("{}: {error}", builds.display()))?;
    let newest = entries
        .flatten()
        .map(|entry| entry.path().join("out/helper.image"))
        .filter_map(|path| Some((modified(&path)?, path)))
        .max();
    newest
        .map(|(_, path)| path)
        .ok_or_else(|| format!("no helper image under {}", builds.display()))
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// Names of the crates that end up in `package`, itself left out.
fn crates(manifest: &Path, package: &str, target: Target) -> Result<BTreeSet<String>, Failure> {
    let mut cargo = run::cargo();
    cargo
        .args([
            "tree",
            "--locked",
            "--edges",
            "normal,no-proc-macro",
            "--prefix",
            "none",
        ])
        .args([
            "--format",
            "{p}",
            "--target",
            target.triple,
            "--package",
            package,
        ])
        .arg("--manifest-path")
        .arg(manifest);
    let tree = run::output(&mut cargo)?;
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    Ok(names
        .filter(|name| *name != package)
        .map(str::to_owned)
        .collect())
}

fn compare_crates(
    part: &str,
    listed: &BTreeMap<&str, &str>,
    actual: &BTreeSet<String>,
    complaints: &mut Vec<String>,
) {
    for name in actual
        .iter()
        .filter(|name| !listed.contains_key(name.as_str()))
    {
        complaints.push(format!("{part}: crate {name} is not listed in {FILE}"));
    }
    for (name, reason) in listed {
        if !actual.contains(*name) {
            complaints.push(format!(
                "{part}: crate {name} is listed in {FILE} and is gone"
            ));
        }
        if reason.trim().is_empty() {
            complaints.push(format!("{part}: crate {name} has no reason in {FILE}"));
        }
    }
}

/// Bytes of code and data by crate, from the symbols of the build.
fn bytes_by_crate(target: Target, built: &Built) -> Result<BTreeMap<String, u64>, Failure> {
    let mut nm = target.binutil("nm");
    let listing = run::output(
        nm.args(["--print-size", "--demangle=rust"])
            .arg(&built.symbols),
    )?;
    let mut sizes = BTreeMap::new();
    for line in listing.lines() {
        let mut fields = line.splitn(4, ' ');
        let (Some(_), Some(size), Some(_), Some(name)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Ok(size) = u64::from_str_radix(size, 16) else {
            continue;
        };
        *sizes.entry(crate_of(name)).or_insert(0) += size;
    }
    Ok(sizes)
}

/// The crate that a demangled symbol belongs to; C and assembly go together.
fn crate_of(symbol: &str) -> String {
    let start = symbol.trim_start_matches(['<', '&', '*', '(', '[']);
    let start = start
        .strip_prefix("mut ")
        .or(start.strip_prefix("dyn "))
        .unwrap_or(start);
    match start.split_once("::") {
        Some((name, _)) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            name.to_owned()
        }
        Some(_) => "core".to_owned(),
        None if symbol.starts_with("ring_core") => "ring".to_owned(),
        None => "c".to_owned(),
    }
}

/// The crates that grew most since they were recorded.
fn growth(recorded: &BTreeMap<&str, u64>, now: &BTreeMap<String, u64>) -> String {
    if recorded.is_empty() {
        return String::new();
    }
    let before = |name: &str| recorded.get(name).copied().unwrap_or(0);
    let mut grown: Vec<(u64, &str)> = now
        .iter()
        .map(|(name, bytes)| (bytes.saturating_sub(before(name)), name.as_str()))
        .filter(|(more, _)| *more >= 1024)
        .collect();
    grown.sort_unstable_by(|a, b| b.cmp(a));
    let shown: Vec<String> = grown
        .iter()
        .take(5)
        .map(|(more, name)| format!("{name} +{more}"))
        .collect();
    shown.join(", ")
}

fn write_record(path: &Path, text: &str, by_crate: &BTreeMap<String, u64>) -> Result<(), Failure> {
    let kept = text.split(RECORDED).next().unwrap_or_default().trim_end();
    let mut new = format!("{kept}\n\n{RECORDED}\n");
    for (name, bytes) in by_crate.iter().filter(|(_, bytes)| **bytes >= 1024) {
        new.push_str(&format!("{name} = {bytes}\n"));
    }
    fs::write(path, new).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::{compare_crates, crate_of, growth};

    #[test]
    fn symbols_belong_to_crates() {
        for (symbol, name) in [
            ("core::fmt::write", "core"),
            (
                "<alloc::string::String as core::fmt::Write>::write_str",
                "alloc",
            ),
            ("<&mut ring::aead::Algorithm as x::Y>::z", "ring"),
            ("ring_core_0_17_14__aes_hw_encrypt", "ring"),
            ("memcpy", "c"),
        ] {
            assert_eq!(crate_of(symbol), name, "{symbol}");
        }
    }

    #[test]
    fn unlisted_and_gone_crates_are_named() {
        let listed = BTreeMap::from([("gone", "why"), ("kept", " ")]);
        let actual = BTreeSet::from(["kept".to_owned(), "new".to_owned()]);
        let mut complaints = Vec::new();
        compare_crates("agent", &listed, &actual, &mut complaints);
        assert_eq!(complaints.len(), 3, "{complaints:?}");
        assert!(complaints[0].contains("new") && complaints[1].contains("gone"));
        assert!(complaints[2].contains("no reason"));
    }

    #[test]
    fn growth_names_the_largest_first() {
        let recorded = BTreeMap::from([("a", 1000), ("b", 5000)]);
        let now = BTreeMap::from([("a".into(), 4000), ("b".into(), 5100), ("c".into(), 9000)]);
        assert_eq!(growth(&recorded, &now), "c +9000, a +3000");
    }
}
