//! JSON as it is written: objects field by field.
//!
//! Source: RFC 8259.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

/// An object, or a list of such, under way.
#[derive(Debug)]
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self("{".to_owned())
    }

    fn name(&mut self, name: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "\"{name}\":");
    }

    pub(super) fn text(mut self, name: &str, value: &[u8]) -> Self {
        self.name(name);
        quote(&mut self.0, value);
        self
    }

    pub(super) fn number(mut self, name: &str, value: impl Into<i128>) -> Self {
        self.name(name);
        let _ = write!(self.0, "{}", value.into());
        self
    }

    pub(super) fn flag(mut self, name: &str, value: bool) -> Self {
        self.name(name);
        self.0.push_str(if value { "true" } else { "false" });
        self
    }

    /// A value that is JSON already.
    pub(super) fn value(mut self, name: &str, value: &str) -> Self {
        self.name(name);
        self.0.push_str(value);
        self
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A list of values that are JSON already.
pub(super) fn list(values: impl IntoIterator<Item = String>) -> String {
    let mut text = "[".to_owned();
    for value in values {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&value);
    }
    text.push(']');
    text
}

pub(super) fn string(value: &[u8]) -> String {
    let mut text = String::new();
    quote(&mut text, value);
    text
}

fn quote(text: &mut String, value: &[u8]) {
    text.push('"');
    for c in String::from_utf8_lossy(value).chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
            c => text.push(c),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_stands_in_a_text_stays_in_it() {
        let object = Object::new()
            .text("a", b"x\"y\\z\n\xff")
            .number("b", 7_u64)
            .flag("c", true)
            .value("d", &list([string(b"e"), string(b"f")]))
            .end();
        assert_eq!(
            object,
            "{\"a\":\"x\\\"y\\\\z\\u000a\u{fffd}\",\"b\":7,\"c\":true,\"d\":[\"e\",\"f\"]}"
        );
        assert_eq!(Object::new().end(), "{}");
    }
}
