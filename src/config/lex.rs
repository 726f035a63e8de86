//! One line of sshd_config: keyword, arguments, quotes, comments (sshd_config(5)).
//!
//! Knows no keyword. The rules are those of OpenSSH 8.7 and later, where quoting was made regular.

use std::fmt;

/// A line with something in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line<'a> {
    pub keyword: &'a str,
    /// Unquoted arguments, up to a comment.
    pub arguments: Vec<String>,
    /// Everything behind the keyword as it stands, for the keywords that take the rest of the line.
    pub rest: &'a str,
}

/// Why a line cannot be cut into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexError {
    UnbalancedQuotes,
}

impl fmt::Display for LexError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnbalancedQuotes => f.write_str(
                "a quote is opened and not closed; close it, or write \\\" or \\' for the character itself",
            ),
        }
    }
}

/// Cuts one line; `None` for an empty one or a comment.
pub fn line(text: &str) -> Result<Option<Line<'_>>, LexError> {
    let text = text.trim_end_matches([' ', '\t', '\r', '\n', '\x0c']);
    let text = text.trim_start_matches([' ', '\t', '\r']);
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let end = text.find([' ', '\t', '\r', '=']).unwrap_or(text.len());
    let (keyword, rest) = text.split_at(end);
    let rest = skip_separator(rest);
    Ok(Some(Line {
        keyword,
        arguments: words(rest)?,
        rest,
    }))
}

/// Cuts `text` into words. Quotes of both kinds may stand anywhere in a word; a backslash takes the
/// special meaning of quotes, of itself and, outside of quotes, of a blank; `#` at the start of a
/// word begins a comment.
pub fn words(text: &str) -> Result<Vec<String>, LexError> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|&c| is_blank(c)).is_some() {}
        match rest.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => words.push(word(&mut rest)?),
        }
    }
}

/// Puts arguments together to a command line that [`words`] cuts in the same way again.
pub fn join(arguments: &[String]) -> String {
    let quoted: Vec<String> = arguments.iter().map(|argument| quote(argument)).collect();
    quoted.join(" ")
}

fn word(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, LexError> {
    let mut word = String::new();
    let mut open: Option<char> = None;
    while let Some(&c) = rest.peek() {
        if open.is_none() && is_blank(c) {
            break;
        }
        rest.next();
        match (c, open) {
            ('\\', _) => {
                let escapes =
                    |&c: &char| matches!(c, '\'' | '"' | '\\') || (open.is_none() && c == ' ');
                word.push(rest.next_if(escapes).unwrap_or('\\'));
            }
            ('"' | '\'', None) => open = Some(c),
            (c, Some(quote)) if c == quote => open = None,
            (c, _) => word.push(c),
        }
    }
    match open {
        None => Ok(word),
        Some(_) => Err(LexError::UnbalancedQuotes),
    }
}

/// Blanks, and one `=` among them, between keyword and arguments.
fn skip_separator(rest: &str) -> &str {
    let rest = rest.trim_start_matches(is_blank);
    match rest.strip_prefix('=') {
        Some(rest) => rest.trim_start_matches(is_blank),
        None => rest,
    }
}

fn quote(argument: &str) -> String {
    let mut escaped = String::new();
    for c in argument.chars() {
        if matches!(c, '\\' | '\'' | '"') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    if escaped.is_empty() || escaped.contains(is_blank) {
        escaped.insert(0, '"');
        escaped.push('"');
    }
    escaped
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cut(text: &str) -> Vec<String> {
        let line = line(text).unwrap().unwrap();
        let mut all = vec![line.keyword.to_owned()];
        all.extend(line.arguments);
        all
    }

    #[test]
    fn keyword_and_arguments_are_parted_by_blanks_or_one_equals_sign() {
        for text in [
            "Port 22",
            "Port=22",
            "Port = 22",
            "  Port\t 22 \r",
            "Port= 22",
            "Port 22 # x",
        ] {
            assert_eq!(cut(text), ["Port", "22"], "{text:?}");
        }
        assert_eq!(cut("Port == 22"), ["Port", "=", "22"]);
        assert_eq!(cut("AcceptEnv A=B"), ["AcceptEnv", "A=B"]);
    }

    #[test]
    fn quotes_and_escapes_follow_openssh() {
        for (text, expected) in [
            (r#"k "a b" c"#, vec!["k", "a b", "c"]),
            (r#"k 'a "b' c"#, vec!["k", "a \"b", "c"]),
            (r"k a\ b", vec!["k", "a b"]),
            (r#"k "a\ b""#, vec!["k", r"a\ b"]),
            (r#"k "a\"b""#, vec!["k", "a\"b"]),
            (r"k \n\\", vec!["k", r"\n\"]),
            (r#"k pre"mid dle"post"#, vec!["k", "premid dlepost"]),
            (r#"k """#, vec!["k", ""]),
            ("k a#b #c", vec!["k", "a#b"]),
        ] {
            assert_eq!(cut(text), expected, "{text}");
        }
        assert_eq!(line(r#"k "a"#), Err(LexError::UnbalancedQuotes));
        assert_eq!(line("k it's"), Err(LexError::UnbalancedQuotes));
    }

    #[test]
    fn empty_lines_and_comments_hold_nothing() {
        for text in ["", "  \t", "# x", "  # x", "\r", "\x0c"] {
            assert_eq!(line(text), Ok(None), "{text:?}");
        }
    }

    #[test]
    fn joined_arguments_are_cut_as_before() {
        let arguments: Vec<String> = ["/x y/z", "", "a\"b", "it's", r"back\slash", "plain"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(words(&join(&arguments)).unwrap(), arguments);
    }
}
