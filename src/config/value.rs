//! The forms of single values: yes and no, times, sizes, ports, addresses, traffic classes.
//!
//! Every error is a phrase that says what is expected; the caller adds keyword and place.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};

use super::options::LogLevel;

/// A value or what would have been one.
pub type Parsed<T> = Result<T, String>;

/// `yes` or `no`, in any case.
pub fn yes_no(text: &str) -> Parsed<bool> {
    one_of(text, &[("yes", true), ("no", false)])
}

/// One of several words, in any case.
pub fn one_of<T: Copy>(text: &str, choices: &[(&str, T)]) -> Parsed<T> {
    match choices
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
    {
        Some((_, value)) => Ok(*value),
        None => {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            Err(format!("\"{text}\" is not one of: {}", names.join(", ")))
        }
    }
}

/// A decimal number from `low` to `high`.
pub fn number(text: &str, low: u32, high: u32) -> Parsed<u32> {
    let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(value) if digits_only && (low..=high).contains(&value) => Ok(value),
        _ => Err(format!("\"{text}\" is not a number from {low} to {high}")),
    }
}

/// ChannelTimeout: `TYPE=TIME` words, or `none`.
pub fn channel_timeouts(words: &[String]) -> Parsed<Vec<(String, u32)>> {
    if let [word] = words
        && none_or(word).is_none()
    {
        return Ok(Vec::new());
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("global", _)) => {
                Err("\"global\" is not served: name the types, or * for all".to_owned())
            }
            Some((kind, "none")) if !kind.is_empty() => Ok((kind.to_owned(), 0)),
            Some((kind, time)) if !kind.is_empty() => Ok((kind.to_owned(), seconds(time)?)),
            _ => Err(format!("\"{word}\" is not TYPE=TIME")),
        })
        .collect()
}

/// A TCP port.
pub fn port(text: &str) -> Parsed<u16> {
    number(text, 1, u32::from(u16::MAX))
        .ok()
        .and_then(|port| u16::try_from(port).ok())
        .ok_or_else(|| format!("\"{text}\" is not a port from 1 to 65535"))
}

/// Seconds, or a sum such as `1h30m` (sshd_config(5), TIME FORMATS).
pub fn seconds(text: &str) -> Parsed<u32> {
    let wrong = || {
        format!(
            "\"{text}\" is not a time; write seconds or units of s, m, h, d and w, such as 1h30m"
        )
    };
    let mut total_s: u32 = 0;
    let mut rest = text;
    if text.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let count: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        let mut behind = rest[digits..].chars();
        let unit_s = match behind.next() {
            None | Some('s' | 'S') => 1,
            Some('m' | 'M') => 60,
            Some('h' | 'H') => 60 * 60,
            Some('d' | 'D') => 24 * 60 * 60,
            Some('w' | 'W') => 7 * 24 * 60 * 60,
            Some(_) => return Err(wrong()),
        };
        rest = behind.as_str();
        total_s = count
            .checked_mul(unit_s)
            .and_then(|part_s| total_s.checked_add(part_s))
            // OpenSSH holds times in an int.
            .filter(|&sum_s| i32::try_from(sum_s).is_ok())
            .ok_or_else(wrong)?;
    }
    Ok(total_s)
}

/// Bytes with an optional K, M, G, T, P or E of 1024.
pub fn bytes(text: &str) -> Parsed<u64> {
    let wrong = || format!("\"{text}\" is not a size; write bytes, or a number with K, M or G");
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let count: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let shift = match text[digits..].to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        "E" => 60,
        _ => return Err(wrong()),
    };
    count
        .checked_mul(1 << shift)
        .filter(|&size_bytes| i64::try_from(size_bytes).is_ok())
        .ok_or_else(wrong)
}

/// `none` or a text.
pub fn none_or(text: &str) -> Option<&str> {
    if text.eq_ignore_ascii_case("none") {
        None
    } else {
        Some(text)
    }
}

/// LogLevel: VERBOSE is DEBUG here, DEBUG2 and DEBUG3 are TRACE.
pub fn log_level(text: &str) -> Parsed<LogLevel> {
    one_of(
        text,
        &[
            ("QUIET", LogLevel::Off),
            ("FATAL", LogLevel::Error),
            ("ERROR", LogLevel::Error),
            ("INFO", LogLevel::Info),
            ("VERBOSE", LogLevel::Debug),
            ("DEBUG", LogLevel::Debug),
            ("DEBUG1", LogLevel::Debug),
            ("DEBUG2", LogLevel::Trace),
            ("DEBUG3", LogLevel::Trace),
        ],
    )
}

/// SyslogFacility, as OpenSSH spells them.
pub const FACILITIES: &[(&str, u8)] = &[
    ("DAEMON", 3),
    ("USER", 1),
    ("AUTH", 4),
    ("AUTHPRIV", 10),
    ("LOCAL0", 16),
    ("LOCAL1", 17),
    ("LOCAL2", 18),
    ("LOCAL3", 19),
    ("LOCAL4", 20),
    ("LOCAL5", 21),
    ("LOCAL6", 22),
    ("LOCAL7", 23),
];

/// MaxStartups: `start:rate:full`, or one number for a plain limit.
pub fn max_startups(text: &str) -> Parsed<(u32, u32, u32)> {
    let wrong = || {
        format!(
            "\"{text}\" is not start:rate:full with start up to full and rate from 1 to 100, \
             or one number"
        )
    };
    let parts: Result<Vec<u32>, String> = text
        .split(':')
        .map(|part| number(part, 1, i32::MAX.unsigned_abs()))
        .collect();
    match parts.map_err(|_| wrong())?.as_slice() {
        [limit] => Ok((*limit, 30, *limit)),
        [start, rate, full] if start <= full && *rate <= 100 => Ok((*start, *rate, *full)),
        _ => Err(wrong()),
    }
}

/// PerSourceNetBlockSize: prefix lengths for IPv4 and, behind a colon, IPv6.
pub fn net_block(text: &str) -> Parsed<(u8, u8)> {
    let (v4, v6) = text.split_once(':').unwrap_or((text, "128"));
    let length = |part: &str, most: u32| {
        number(part, 0, most)
            .ok()
            .and_then(|length| u8::try_from(length).ok())
    };
    match (length(v4, 32), length(v6, 128)) {
        (Some(v4), Some(v6)) => Ok((v4, v6)),
        _ => Err(format!(
            "\"{text}\" is not a pair of prefix lengths such as 32:128"
        )),
    }
}

/// One traffic class of IPQoS as the TOS byte; 0 leaves the system's. The flag says that the name
/// is one of the old type-of-service words, which OpenSSH 10.1 stopped honouring.
pub fn traffic_class(text: &str) -> Parsed<(u8, bool)> {
    const CLASSES: &[(&str, u8)] = &[
        ("af11", 0x28),
        ("af12", 0x30),
        ("af13", 0x38),
        ("af21", 0x48),
        ("af22", 0x50),
        ("af23", 0x58),
        ("af31", 0x68),
        ("af32", 0x70),
        ("af33", 0x78),
        ("af41", 0x88),
        ("af42", 0x90),
        ("af43", 0x98),
        ("cs0", 0x00),
        ("cs1", 0x20),
        ("cs2", 0x40),
        ("cs3", 0x60),
        ("cs4", 0x80),
        ("cs5", 0xa0),
        ("cs6", 0xc0),
        ("cs7", 0xe0),
        ("ef", 0xb8),
        ("le", 0x04),
        ("va", 0xb0),
        ("none", 0),
    ];
    if ["lowdelay", "throughput", "reliability"]
        .iter()
        .any(|old| old.eq_ignore_ascii_case(text))
    {
        return Ok((0, true));
    }
    if let Ok(class) = one_of(text, CLASSES) {
        return Ok((class, false));
    }
    let numeric = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u8::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    match numeric {
        Some(class) => Ok((class, false)),
        None => Err(format!(
            "\"{text}\" is not a traffic class: af11 to af43, cs0 to cs7, ef, le, va, none or a number up to 255"
        )),
    }
}

/// A ListenAddress: host or address, and the port where one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddress {
    pub host: String,
    pub port: Option<u16>,
}

/// `HOST`, `HOST:PORT`, `ADDRESS`, `[ADDRESS]` or `[ADDRESS]:PORT`.
pub fn listen_address(text: &str) -> Parsed<ListenAddress> {
    let wrong = || format!("\"{text}\" is not an address, HOST:PORT or [ADDRESS]:PORT");
    let (host, port_text) = if let Some(inside) = text.strip_prefix('[') {
        let (host, behind) = inside.split_once(']').ok_or_else(wrong)?;
        match behind {
            "" => (host, None),
            _ => (host, Some(behind.strip_prefix(':').ok_or_else(wrong)?)),
        }
    } else if text.matches(':').count() > 1 {
        (text, None)
    } else {
        match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        }
    };
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(ListenAddress {
        host: host.to_owned(),
        port: port_text.map(port).transpose()?,
    })
}

/// Which families AddressFamily lets us listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressFamily {
    Any,
    Inet,
    Inet6,
}

impl AddressFamily {
    /// Whether addresses like `address` are wanted.
    pub fn admits(self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Inet => address.is_ipv4(),
            Self::Inet6 => address.is_ipv6(),
        }
    }
}

impl ListenAddress {
    /// All socket addresses that are meant, on `ports` where none is given. Names are looked up
    /// now: they are the administrator's.
    pub fn resolve(&self, ports: &[u16], family: AddressFamily) -> Parsed<Vec<SocketAddr>> {
        let ports = self.port.as_ref().map_or(ports, std::slice::from_ref);
        let mut found = Vec::new();
        for &port in ports {
            let addresses = (self.host.as_str(), port)
                .to_socket_addrs()
                .map_err(|error| {
                    format!(
                        "\"{}\" cannot be resolved ({error}); write an address",
                        self.host
                    )
                })?;
            for address in addresses.filter(|address| family.admits(address.ip())) {
                if !found.contains(&address) {
                    found.push(address);
                }
            }
        }
        if found.is_empty() {
            return Err(format!(
                "\"{}\" has no address of the family that AddressFamily asks for",
                self.host
            ));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn times_add_up_and_never_wrap() {
        for (text, expected) in [
            ("0", 0),
            ("90", 90),
            ("2m", 120),
            ("1h30m", 5400),
            ("1w2d3h4m5s", 788_645),
            ("1h30", 3630),
        ] {
            assert_eq!(seconds(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "-5x",
            "-1",
            "h",
            "1x",
            "4294967296",
            "2147483648",
            "99999w",
            "1 h",
            "none",
        ] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_take_binary_units() {
        for (text, expected) in [
            ("16", 16),
            ("200K", 204_800),
            ("1m", 1 << 20),
            ("4G", 4 << 30),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            "K",
            "-1",
            "1Q",
            "1KB",
            "99999999999999999999",
            "9E",
            "16E",
        ] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_16_bits_and_not_0() {
        assert_eq!(port("65535"), Ok(65535));
        for text in [
            "0",
            "65536",
            "-1",
            "+22",
            "ssh",
            "",
            "0xffffffff",
            "4294967318",
        ] {
            assert!(port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn max_startups_is_one_limit_or_three_numbers() {
        assert_eq!(max_startups("10:30:100"), Ok((10, 30, 100)));
        assert_eq!(max_startups("5"), Ok((5, 30, 5)));
        for text in [
            "0",
            "10:30",
            "20:30:10",
            "10:0:100",
            "10:101:100",
            "a:b:c",
            "",
            "1:2:3:4",
        ] {
            assert!(max_startups(text).is_err(), "{text}");
        }
    }

    #[test]
    fn listen_addresses_come_with_and_without_ports() {
        for (text, host, port) in [
            ("192.0.2.1", "192.0.2.1", None),
            ("192.0.2.1:2222", "192.0.2.1", Some(2222)),
            ("::", "::", None),
            ("2001:db8::1", "2001:db8::1", None),
            ("[2001:db8::1]:2222", "2001:db8::1", Some(2222)),
            ("[::1]", "::1", None),
            ("box.example:22", "box.example", Some(22)),
        ] {
            let expected = ListenAddress {
                host: host.to_owned(),
                port,
            };
            assert_eq!(listen_address(text), Ok(expected), "{text}");
        }
        for text in [
            "",
            ":22",
            "[::1",
            "[::1]22",
            "192.0.2.1:0",
            "192.0.2.1:99999",
            "[]:22",
        ] {
            assert!(listen_address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_are_resolved_for_every_port_of_the_family() {
        let any = listen_address("127.0.0.1").unwrap();
        let found = any.resolve(&[22, 2222], AddressFamily::Any).unwrap();
        assert_eq!(
            found,
            [
                "127.0.0.1:22".parse().unwrap(),
                "127.0.0.1:2222".parse().unwrap()
            ]
        );
        assert!(any.resolve(&[22], AddressFamily::Inet6).is_err());
    }

    #[test]
    fn traffic_classes_have_names_and_numbers() {
        assert_eq!(traffic_class("EF"), Ok((0xb8, false)));
        assert_eq!(traffic_class("0x20"), Ok((0x20, false)));
        assert_eq!(traffic_class("lowdelay"), Ok((0, true)));
        assert!(traffic_class("256").is_err());
        assert!(traffic_class("fast").is_err());
    }
}
