//! What may count as a client's name. Asked twice: by the process that looks it up, and by the
//! monitor, which believes that process as little as the name servers.

#![forbid(unsafe_code)]

use std::net::IpAddr;

/// The name in the form in which patterns are compared with it; nothing that could be taken for an
/// address or for more than a name.
pub(crate) fn usable(name: &str) -> Option<String> {
    const NAME_MAX_BYTES: usize = 253;
    let name = name.strip_suffix('.').unwrap_or(name);
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits = (1..=NAME_MAX_BYTES).contains(&name.len()) && name.bytes().all(harmless);
    let digits_only = name
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    (fits && !digits_only && name.parse::<IpAddr>().is_err()).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_none_are_dropped() {
        for name in [
            "",
            ".",
            "192.0.2.1",
            "10",
            "::1",
            "a b",
            "a\nb",
            "*.example",
            "a,b",
        ] {
            assert_eq!(usable(name), None, "{name:?}");
        }
        assert_eq!(usable("Host.Example.").as_deref(), Some("host.example"));
        assert_eq!(usable(&"a".repeat(300)), None);
    }
}
