//! `Subsystem` lines: names, and what is run for them.

use super::lex::{self, Line};
use super::settings::Combine;
use super::value::Parsed;

/// The first line of each name wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subsystems(pub Vec<(String, String)>);

impl Subsystems {
    /// Files are served unless a line says otherwise; `none` takes a subsystem away.
    pub(super) fn effective(self) -> Vec<(String, Vec<u8>)> {
        let mut lines = self.0;
        if !lines.iter().any(|(name, _)| name == "sftp") {
            lines.push(("sftp".to_owned(), "internal-sftp".to_owned()));
        }
        lines
            .into_iter()
            .filter(|(_, command)| command != "none")
            .map(|(name, command)| (name, command.into_bytes()))
            .collect()
    }
}

impl Combine for Subsystems {
    fn keep_first(&mut self, later: &Self) {
        for (name, command) in &later.0 {
            if !self.0.iter().any(|(known, _)| known == name) {
                self.0.push((name.clone(), command.clone()));
            }
        }
    }

    fn replace_by(&mut self, over: &Self) {
        for (name, command) in &over.0 {
            match self.0.iter_mut().find(|(known, _)| known == name) {
                Some((_, known)) => known.clone_from(command),
                None => self.0.push((name.clone(), command.clone())),
            }
        }
    }
}

/// A name, and the command with its arguments.
pub(super) fn parse(line: &Line<'_>) -> Parsed<(String, String)> {
    match line.arguments.as_slice() {
        [name, command, arguments @ ..] if !name.is_empty() && !command.is_empty() => {
            let mut text = lex::join(std::slice::from_ref(command));
            if !arguments.is_empty() {
                text.push(' ');
                text.push_str(&lex::join(arguments));
            }
            Ok((name.clone(), text))
        }
        _ => Err("takes a name and a command".to_owned()),
    }
}
