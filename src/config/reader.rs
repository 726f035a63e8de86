//! From files to settings: `Include`, `Match` blocks, and all mistakes collected.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::ConfigError;
use super::condition::Condition;
use super::glob;
use super::keywords::{self, Class, Entry, Keyword, Quiet};
use super::lex::{self, Line};
use super::settings::{self, Settings};
use crate::limits;

/// Settings that stand under the same conditions, next to each other.
#[derive(Debug, Clone)]
pub struct Section {
    /// All must hold; none for the main part.
    pub conditions: Vec<Condition>,
    pub settings: Settings,
}

/// What was read so far.
#[derive(Debug)]
pub struct Reader {
    pub sections: Vec<Section>,
    pub errors: Vec<ConfigError>,
    pub warnings: Vec<String>,
    /// Keywords that were warned about: one warning each is enough.
    warned: Vec<&'static str>,
    /// Ports given on the command line replace those of the files.
    port_given: bool,
    pub as_root: bool,
    /// Relative includes start here.
    directory: PathBuf,
    files: usize,
}

/// A line's place, for messages.
#[derive(Debug, Clone, Copy)]
enum Place<'a> {
    CommandLine,
    File { path: &'a Path, line: usize },
}

impl Reader {
    pub fn new(as_root: bool) -> Self {
        Self {
            sections: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
            warned: Vec::new(),
            port_given: false,
            as_root,
            directory: PathBuf::new(),
            files: 0,
        }
    }

    /// Takes the command line's settings; to be called before any file, so that they win.
    pub fn overrides(&mut self, overrides: &[(String, String)]) {
        for (keyword, value) in overrides {
            let text = format!("{keyword} {value}");
            let place = Place::CommandLine;
            if text.contains(['\n', '\0']) {
                self.error(place, "a value cannot hold a line end or a NUL");
                continue;
            }
            match lex::line(&text) {
                Ok(Some(line)) => self.setting(place, &line, &[]),
                Ok(None) => self.error(place, "-o takes KEYWORD=VALUE"),
                Err(error) => self.error(place, &format!("{keyword}: {error}")),
            }
        }
        self.port_given = self
            .sections
            .iter()
            .any(|section| !section.settings.ports.0.is_empty());
    }

    /// Reads the main file and all that it includes.
    pub fn main_file(&mut self, path: &Path) {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.directory = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        self.file(path, &[], 0);
    }

    /// Reads a text as if it stood in `path`.
    pub fn text(&mut self, path: &Path, text: &[u8]) {
        self.lines(path, text, &[], 0);
    }

    fn file(&mut self, path: &Path, inherited: &[Condition], depth: usize) {
        self.files += 1;
        if self.files > limits::CONFIG_FILES_MAX {
            let what = format!("more than {} files are included", limits::CONFIG_FILES_MAX);
            if self.files == limits::CONFIG_FILES_MAX + 1 {
                self.error(Place::File { path, line: 0 }, &what);
            }
            return;
        }
        match self.read(path) {
            Ok(text) => self.lines(path, &text, inherited, depth),
            Err(error) => {
                let what = format!("cannot be read ({error}); check the name and its permissions");
                self.error(Place::File { path, line: 0 }, &what);
            }
        }
    }

    fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(io::Error::other("it is a directory"));
        }
        if self.as_root
            && metadata.is_file()
            && (metadata.mode() & 0o022 != 0 || metadata.uid() != 0)
        {
            self.warnings.push(format!(
                "{}: others than root can change this file, and so decide who becomes root here; \
                 make it root's and take the write permission of group and others away",
                path.display()
            ));
        }
        let mut text = Vec::new();
        file.take(limits::CONFIG_FILE_MAX_BYTES + 1)
            .read_to_end(&mut text)?;
        if text.len() as u64 > limits::CONFIG_FILE_MAX_BYTES {
            let what = format!("it is longer than {} bytes", limits::CONFIG_FILE_MAX_BYTES);
            return Err(io::Error::other(what));
        }
        Ok(text)
    }

    fn lines(&mut self, path: &Path, text: &[u8], inherited: &[Condition], depth: usize) {
        let mut conditions = inherited.to_vec();
        for (index, bytes) in text.split(|&byte| byte == b'\n').enumerate() {
            let place = Place::File {
                path,
                line: index + 1,
            };
            let Some(text) = self.line_text(place, bytes) else {
                continue;
            };
            let line = match lex::line(text) {
                Ok(Some(line)) => line,
                Ok(None) => continue,
                Err(error) => {
                    self.error(place, &error.to_string());
                    continue;
                }
            };
            match keywords::find(line.keyword).map(|entry| entry.class) {
                Some(Class::Set(Keyword::Match)) => {
                    conditions.truncate(inherited.len());
                    conditions.push(self.condition(place, &line));
                }
                Some(Class::Set(Keyword::Include)) => {
                    self.include(place, &line, &conditions, depth);
                }
                _ => self.setting(place, &line, &conditions),
            }
        }
    }

    /// The line as text, if it may mean anything. Comments may be in any encoding.
    fn line_text<'a>(&mut self, place: Place<'_>, bytes: &'a [u8]) -> Option<&'a str> {
        let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace())?;
        if bytes[start] == b'#' {
            return None;
        }
        if bytes.contains(&0) {
            self.error(place, "holds a NUL byte; this is not a text file");
            return None;
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => Some(text),
            Err(_) => {
                self.error(
                    place,
                    "is not UTF-8; write it in UTF-8 or remove the special characters",
                );
                None
            }
        }
    }

    fn condition(&mut self, place: Place<'_>, line: &Line<'_>) -> Condition {
        match Condition::parse(&line.arguments) {
            Ok(condition) => condition,
            Err(phrase) => {
                self.error(place, &format!("Match: {phrase}"));
                // Loading fails; what follows is read for its own mistakes.
                Condition::default()
            }
        }
    }

    fn include(
        &mut self,
        place: Place<'_>,
        line: &Line<'_>,
        conditions: &[Condition],
        depth: usize,
    ) {
        if line.arguments.is_empty() {
            self.error(place, "Include: has no value");
        }
        if depth >= limits::CONFIG_INCLUDE_DEPTH_MAX {
            let what = format!(
                "Include: files include each other more than {} deep; does one include itself?",
                limits::CONFIG_INCLUDE_DEPTH_MAX
            );
            self.error(place, &what);
            return;
        }
        for pattern in &line.arguments {
            let full = self.directory.join(pattern);
            let found = match glob::expand(&full) {
                Ok(found) => found,
                Err(error) => {
                    self.error(place, &format!("Include: {error}"));
                    continue;
                }
            };
            for path in found {
                if !glob::is_wild(pattern.as_bytes()) && !path.exists() {
                    self.warn(
                        place,
                        &format!("Include: {} does not exist", path.display()),
                    );
                    continue;
                }
                self.file(&path, conditions, depth + 1);
            }
        }
    }

    /// Takes one line that sets something.
    fn setting(&mut self, place: Place<'_>, line: &Line<'_>, conditions: &[Condition]) {
        let Some(entry) = keywords::find(line.keyword) else {
            self.error(place, &unknown(line.keyword));
            return;
        };
        let conditional = conditions.iter().any(|condition| !condition.is_all());
        if conditional && !entry.in_match {
            let what = format!(
                "{} cannot stand under Match; move it above the first",
                entry.name
            );
            self.error(place, &what);
            return;
        }
        match entry.class {
            Class::Set(Keyword::Match | Keyword::Include) => {
                self.error(place, &format!("{} stands in files only", entry.name));
            }
            Class::Set(keyword) => self.set(place, entry, keyword, line, conditions),
            Class::Unserved { quiet, why } => self.unserved(place, entry, quiet, why, line),
            Class::Restricts { met, advice } => {
                if !all_values_in(&line.arguments, met) {
                    let what = format!("{} restricts and is not implemented: {advice}", entry.name);
                    self.error(place, &what);
                }
            }
            Class::Deprecated => {
                self.warn_once(place, entry, "OpenSSH dropped it; remove the line");
            }
            Class::Ignored => {}
        }
    }

    fn set(
        &mut self,
        place: Place<'_>,
        entry: &'static Entry,
        keyword: Keyword,
        line: &Line<'_>,
        conditions: &[Condition],
    ) {
        let from_file = matches!(place, Place::File { .. });
        let mut warnings = Vec::new();
        let mut ignored = Settings::default();
        let settings = if keyword == Keyword::Port && from_file && self.port_given {
            &mut ignored
        } else {
            section(&mut self.sections, conditions)
        };
        let outcome = settings::apply(settings, keyword, line, &mut |what| warnings.push(what));
        for what in warnings {
            self.warn(place, &format!("{}: {what}", entry.name));
        }
        if let Err(phrase) = outcome {
            self.error(place, &format!("{}: {phrase}", entry.name));
        }
    }

    fn unserved(
        &mut self,
        place: Place<'_>,
        entry: &'static Entry,
        quiet: Quiet,
        why: &str,
        line: &Line<'_>,
    ) {
        let silent = match quiet {
            Quiet::Always => true,
            Quiet::Off => all_values_in(&line.arguments, &["no"]),
            Quiet::Values(values) => all_values_in(&line.arguments, values),
        };
        if line.arguments.is_empty() {
            self.error(place, &format!("{}: has no value", entry.name));
        } else if quiet == Quiet::Off && !is_switch(&line.arguments) {
            let what = format!(
                "{}: \"{}\" is no value of it",
                entry.name,
                line.arguments.join(" ")
            );
            self.error(place, &what);
        } else if !silent {
            self.warn_once(place, entry, why);
        }
    }

    fn warn_once(&mut self, place: Place<'_>, entry: &'static Entry, why: &str) {
        if !self.warned.contains(&entry.name) {
            self.warned.push(entry.name);
            self.warn(place, &format!("{} is ignored: {why}", entry.name));
        }
    }

    fn warn(&mut self, place: Place<'_>, what: &str) {
        self.warnings.push(format!("{}: {what}", place.text()));
    }

    fn error(&mut self, place: Place<'_>, message: &str) {
        self.errors.push(ConfigError {
            place: place.text(),
            message: message.to_owned(),
        });
    }
}

impl Place<'_> {
    fn text(self) -> String {
        match self {
            Self::CommandLine => "command line".to_owned(),
            Self::File { path, line: 0 } => path.display().to_string(),
            Self::File { path, line } => format!("{} line {line}", path.display()),
        }
    }
}

/// The settings to which the next line under `conditions` adds.
fn section<'a>(sections: &'a mut Vec<Section>, conditions: &[Condition]) -> &'a mut Settings {
    if sections
        .last()
        .is_none_or(|last| last.conditions != conditions)
    {
        sections.push(Section {
            conditions: conditions.to_vec(),
            settings: Settings::default(),
        });
    }
    let last = sections.len() - 1;
    &mut sections[last].settings
}

fn all_values_in(arguments: &[String], values: &[&str]) -> bool {
    !arguments.is_empty()
        && arguments.iter().all(|argument| {
            values
                .iter()
                .any(|value| value.eq_ignore_ascii_case(argument))
        })
}

/// Whether a keyword about something that is not served has a value that sshd would take, so that
/// a slip of the pen is found now and not when it is served.
fn is_switch(arguments: &[String]) -> bool {
    const VALUES: &[&str] = &[
        "yes",
        "no",
        "all",
        "local",
        "remote",
        "clientspecified",
        "point-to-point",
        "ethernet",
        "delayed",
    ];
    arguments.len() == 1 && all_values_in(arguments, VALUES)
}

fn unknown(keyword: &str) -> String {
    let shown: String = keyword
        .chars()
        .take(64)
        .flat_map(char::escape_default)
        .collect();
    let wanted = keyword.to_ascii_lowercase();
    let near = keywords::TABLE
        .iter()
        .map(|entry| {
            (
                distance(&wanted, &entry.name.to_ascii_lowercase()),
                entry.name,
            )
        })
        .min();
    match near {
        Some((1..=2, name)) => format!("\"{shown}\" is not a keyword; did you mean {name}?"),
        _ => format!(
            "\"{shown}\" is not a keyword of sshd_config or of this server; remove the line"
        ),
    }
}

/// Edits of single bytes from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    const FAR: usize = usize::MAX;
    if from.len().abs_diff(to.len()) > 2 {
        return FAR;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}
