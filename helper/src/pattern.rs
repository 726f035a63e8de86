//! Patterns of `AcceptEnv` and `PermitUserEnvironment`: `*` for anything, `?` for one character,
//! `!` in front to exclude. Source: ssh_config(5) PATTERNS.
#![forbid(unsafe_code)]

use crate::wire::Bytes;

/// Whether `text` matches one pattern with `*` and `?`.
pub fn matches(mut text: &[u8], mut pattern: &[u8]) -> bool {
    // Where to go on when the piece behind the last `*` does not fit: one character later.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern.split_first(), text.split_first()) {
            (Some((b'*', behind)), _) => {
                retry = Some((text, behind));
                pattern = behind;
                continue;
            }
            (Some((wanted, behind)), Some((found, left))) if wanted == found || *wanted == b'?' => {
                (pattern, text) = (behind, left);
                continue;
            }
            (None, None) => return true,
            _ => {}
        }
        let Some((from, behind)) = retry else {
            return false;
        };
        let Some((_, left)) = from.split_first() else {
            return false;
        };
        retry = Some((left, behind));
        (text, pattern) = (left, behind);
    }
}

/// Whether a list of patterns admits `text`: one matches, and none with `!` does.
pub fn admits(patterns: &[Bytes], text: &[u8]) -> bool {
    let mut admitted = false;
    for pattern in patterns {
        match pattern.strip_prefix(b"!") {
            Some(excluded) if matches(text, excluded) => return false,
            Some(_) => {}
            None => admitted |= matches(text, pattern),
        }
    }
    admitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("LC_*", "LC_ALL", true),
            ("LC_*", "LC_", true),
            ("LC_*", "XLC_ALL", false),
            ("LAN?", "LANG", true),
            ("LAN?", "LAN", false),
            ("*a*b*c", "xaybzzbc", true),
            ("*a*b*c", "xaybzzb", false),
            ("a**b", "ab", true),
        ] {
            assert_eq!(
                matches(text.as_bytes(), pattern.as_bytes()),
                expected,
                "{pattern} {text}"
            );
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(30) + "b";
        let text = "a".repeat(3000);
        assert!(!matches(text.as_bytes(), pattern.as_bytes()));
    }

    #[test]
    fn an_exclusion_wins_wherever_it_stands() {
        let list = |names: &[&str]| {
            names
                .iter()
                .map(|&name| Bytes::from(name))
                .collect::<Vec<_>>()
        };
        assert!(admits(&list(&["LANG", "LC_*"]), b"LC_TIME"));
        assert!(!admits(&list(&["*", "!LD_*"]), b"LD_PRELOAD"));
        assert!(!admits(&list(&["!LD_*", "*"]), b"LD_PRELOAD"));
        assert!(!admits(&list(&["!LD_*"]), b"PATH"));
        assert!(!admits(&[], b"PATH"));
    }
}
