//! PerSourcePenalties: what costs an address how long.

use std::fmt;

use super::value::{self, Parsed};

/// What a full table does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// Forgets what would end soonest.
    Permissive,
    /// Refuses everybody until there is room.
    DenyAll,
}

/// PerSourcePenalties; times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Penalties {
    /// The connection's process failed, or behaved as if it were taken over.
    pub crash_s: u32,
    /// Tried to log in and did not.
    pub auth_fail_s: u32,
    /// The same under a name that may not log in.
    pub invalid_user_s: u32,
    /// Left without a try.
    pub no_auth_s: u32,
    /// Took longer than LoginGraceTime.
    pub grace_exceeded_s: u32,
    /// RefuseConnection.
    pub refuse_connection_s: u32,
    /// No penalty lasts longer.
    pub max_s: u32,
    /// A smaller one does not count yet.
    pub min_s: u32,
    /// Addresses that are remembered, IPv4 and IPv6.
    pub max_sources: (u32, u32),
    pub overflow: (Overflow, Overflow),
}

/// OpenSSH's.
pub const DEFAULT: Penalties = Penalties {
    crash_s: 90,
    auth_fail_s: 5,
    invalid_user_s: 5,
    no_auth_s: 1,
    grace_exceeded_s: 10,
    refuse_connection_s: 10,
    max_s: 600,
    min_s: 15,
    max_sources: (65536, 65536),
    overflow: (Overflow::Permissive, Overflow::Permissive),
};

/// Where no line asks for penalties, this machine itself has none: whoever comes from there is a local
/// user, or everybody behind a relay.
pub const DEFAULT_EXEMPT: &str = "127.0.0.0/8,::1";

/// `no`, `yes`, or `crash:90s authfail:5s …`, each replacing a default. `None`: none at all.
pub(super) fn parse(arguments: &[String]) -> Parsed<Option<Penalties>> {
    match arguments {
        [one] if one.eq_ignore_ascii_case("no") => return Ok(None),
        [one] if one.eq_ignore_ascii_case("yes") => return Ok(Some(DEFAULT)),
        _ => {}
    }
    let mut penalties = DEFAULT;
    let mut overflow_v6 = None;
    for argument in arguments {
        let (name, text) = argument.split_once(':').ok_or_else(|| {
            format!("\"{argument}\" is not yes, no, or a penalty such as authfail:5s")
        })?;
        let of_sources = || value::number(text, 1, 4_194_304);
        match name.to_ascii_lowercase().as_str() {
            "crash" => penalties.crash_s = value::seconds(text)?,
            "authfail" => penalties.auth_fail_s = value::seconds(text)?,
            "invaliduser" => penalties.invalid_user_s = value::seconds(text)?,
            "noauth" => penalties.no_auth_s = value::seconds(text)?,
            "grace-exceeded" => penalties.grace_exceeded_s = value::seconds(text)?,
            "refuseconnection" => penalties.refuse_connection_s = value::seconds(text)?,
            "max" => penalties.max_s = value::seconds(text)?,
            "min" => penalties.min_s = value::seconds(text)?,
            "max-sources4" => penalties.max_sources.0 = of_sources()?,
            "max-sources6" => penalties.max_sources.1 = of_sources()?,
            "overflow" => penalties.overflow.0 = overflow(text)?,
            "overflow6" => overflow_v6 = Some(overflow(text)?),
            _ => return Err(format!("\"{name}\" is not a kind of penalty")),
        }
    }
    penalties.overflow.1 = overflow_v6.unwrap_or(penalties.overflow.0);
    Ok(Some(penalties))
}

fn overflow(text: &str) -> Parsed<Overflow> {
    value::one_of(
        text,
        &[
            ("permissive", Overflow::Permissive),
            ("deny-all", Overflow::DenyAll),
        ],
    )
}

impl fmt::Display for Overflow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permissive => "permissive",
            Self::DenyAll => "deny-all",
        })
    }
}

/// As sshd -T prints it.
impl fmt::Display for Penalties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "crash:{} authfail:{} invaliduser:{} noauth:{} grace-exceeded:{} refuseconnection:{} \
             max:{} min:{} max-sources4:{} max-sources6:{} overflow:{} overflow6:{}",
            self.crash_s,
            self.auth_fail_s,
            self.invalid_user_s,
            self.no_auth_s,
            self.grace_exceeded_s,
            self.refuse_connection_s,
            self.max_s,
            self.min_s,
            self.max_sources.0,
            self.max_sources.1,
            self.overflow.0,
            self.overflow.1,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(text: &str) -> Parsed<Option<Penalties>> {
        let arguments: Vec<String> = text.split(' ').map(str::to_owned).collect();
        parse(&arguments)
    }

    #[test]
    fn what_is_not_said_is_the_default() {
        assert_eq!(parsed("no"), Ok(None));
        assert_eq!(parsed("Yes"), Ok(Some(DEFAULT)));
        let some = parsed("authfail:5m min:0 max-sources4:3 overflow:deny-all")
            .unwrap()
            .unwrap();
        assert_eq!(
            some,
            Penalties {
                auth_fail_s: 300,
                min_s: 0,
                max_sources: (3, 65536),
                overflow: (Overflow::DenyAll, Overflow::DenyAll),
                ..DEFAULT
            }
        );
        let mixed = parsed("overflow6:permissive overflow:deny-all")
            .unwrap()
            .unwrap();
        assert_eq!(mixed.overflow, (Overflow::DenyAll, Overflow::Permissive));
    }

    #[test]
    fn what_is_printed_can_be_read() {
        assert_eq!(parsed(&DEFAULT.to_string()), Ok(Some(DEFAULT)));
    }

    #[test]
    fn mistakes_are_named() {
        for text in [
            "maybe",
            "authfail",
            "authfail:",
            "authfail:-1",
            "crash:often",
            "max-sources4:0",
            "overflow:allow",
            "nosuch:5",
            "yes no",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
    }
}
