//! Reads the part of TOML that size-budget.toml uses: tables, integers, strings, comments.

use std::collections::BTreeMap;

/// Values by table and key.
#[derive(Debug, Default)]
pub struct BudgetFile {
    tables: BTreeMap<String, BTreeMap<String, Value>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Integer(u64),
    Text(String),
}

impl BudgetFile {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut file = Self::default();
        let mut table = String::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |what: &str| format!("size-budget.toml line {}: {what}", number + 1);
            if let Some(name) = line.strip_prefix('[') {
                let name = name
                    .strip_suffix(']')
                    .ok_or_else(|| wrong("no closing bracket"))?;
                table = name.to_owned();
                file.tables.entry(table.clone()).or_default();
                continue;
            }
            let (key, value) = line.split_once('=').ok_or_else(|| wrong("no ="))?;
            let value =
                parse_value(value.trim()).ok_or_else(|| wrong("neither number nor text"))?;
            let key = key.trim().trim_matches('"').to_owned();
            let entries = file.tables.entry(table.clone()).or_default();
            if entries.insert(key, value).is_some() {
                return Err(wrong("key given twice"));
            }
        }
        Ok(file)
    }

    pub fn number(&self, table: &str, key: &str) -> Result<u64, String> {
        match self.tables.get(table).and_then(|entries| entries.get(key)) {
            Some(Value::Integer(number)) => Ok(*number),
            _ => Err(format!("size-budget.toml: [{table}] has no number {key}")),
        }
    }

    /// Keys with a text, in order: crates with their reasons.
    pub fn texts(&self, table: &str) -> BTreeMap<&str, &str> {
        let entries = self.tables.get(table).into_iter().flatten();
        entries
            .filter_map(|(key, value)| match value {
                Value::Text(text) => Some((key.as_str(), text.as_str())),
                Value::Integer(_) => None,
            })
            .collect()
    }

    /// Keys with a number, in order: sizes when they were last recorded.
    pub fn numbers(&self, table: &str) -> BTreeMap<&str, u64> {
        let entries = self.tables.get(table).into_iter().flatten();
        entries
            .filter_map(|(key, value)| match value {
                Value::Integer(number) => Some((key.as_str(), *number)),
                Value::Text(_) => None,
            })
            .collect()
    }
}

fn parse_value(text: &str) -> Option<Value> {
    if let Some(rest) = text.strip_prefix('"') {
        let (inner, behind) = rest.split_once('"')?;
        let behind = behind.trim();
        return (behind.is_empty() || behind.starts_with('#'))
            .then(|| Value::Text(inner.to_owned()));
    }
    let digits = text.split('#').next()?.trim().replace('_', "");
    digits.parse().ok().map(Value::Integer)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::BudgetFile;

    #[test]
    fn numbers_and_reasons_are_read() {
        let file = BudgetFile::parse(
            "# top\n[a]\nmax_bytes = 65_536 # why\n[a.crates]\n\"x-y\" = \"because\"\nz = \"so\"\n",
        )
        .unwrap();
        assert_eq!(file.number("a", "max_bytes").unwrap(), 65536);
        let crates = file.texts("a.crates");
        assert_eq!(
            crates.into_iter().collect::<Vec<_>>(),
            [("x-y", "because"), ("z", "so")]
        );
    }

    #[test]
    fn mistakes_name_the_line() {
        for (text, line) in [
            ("[a\n", 1),
            ("[a]\nb\n", 2),
            ("[a]\nb = c\n", 2),
            ("[a]\nb = 1\nb = 2\n", 3),
        ] {
            let error = BudgetFile::parse(text).unwrap_err();
            assert!(error.contains(&format!("line {line}:")), "{error}");
        }
    }

    #[test]
    fn missing_numbers_are_named() {
        let file = BudgetFile::parse("[a]\n").unwrap();
        assert!(
            file.number("a", "max_bytes")
                .unwrap_err()
                .contains("max_bytes")
        );
    }
}
