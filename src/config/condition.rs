//! `Match`: what a line asks for, and whether it holds for a connection.

use super::value::{self, Parsed};
use super::{SOFTWARE_VERSION, Subject};
use crate::pattern::{self, matches_host_list, matches_list};

/// All criteria of one `Match` line; they hold together. No criterion: `Match All`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    criteria: Vec<Criterion>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Criterion {
    User(String),
    Group(String),
    Host(String),
    Address(String),
    LocalAddress(String),
    LocalPort(u16),
    Version(String),
    InvalidUser,
    /// Routing domains are not served: a connection is in none.
    RoutingDomain,
}

impl Condition {
    /// Whether the names of the user's groups are needed to tell.
    pub fn asks_for_groups(&self) -> bool {
        self.criteria
            .iter()
            .any(|criterion| matches!(criterion, Criterion::Group(_)))
    }

    /// Reads the arguments of a `Match` line, `attribute pattern` or `attribute=pattern`.
    pub fn parse(arguments: &[String]) -> Parsed<Self> {
        let mut criteria = Vec::new();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let (attribute, attached) = match argument.split_once('=') {
                Some((attribute, value)) => (attribute, Some(value)),
                None => (argument.as_str(), None),
            };
            if attribute.eq_ignore_ascii_case("all") {
                return match (arguments.len(), attached) {
                    (1, None) => Ok(Self::default()),
                    _ => Err("\"All\" stands alone on a Match line".to_owned()),
                };
            }
            if attribute.eq_ignore_ascii_case("invalid-user") && attached.is_none() {
                criteria.push(Criterion::InvalidUser);
                continue;
            }
            let wanted = attached
                .or_else(|| rest.next().map(String::as_str))
                .filter(|wanted| !wanted.is_empty())
                .ok_or_else(|| format!("\"{attribute}\" needs a pattern behind it"))?;
            criteria.push(Criterion::parse(attribute, wanted)?);
        }
        if criteria.is_empty() {
            return Err("Match needs User, Group, Host, Address, LocalAddress, LocalPort, Version, Invalid-User or All".to_owned());
        }
        Ok(Self { criteria })
    }

    /// Holds for everybody, so that it counts for the global values too.
    pub fn is_all(&self) -> bool {
        self.criteria.is_empty()
    }

    /// Whether every criterion holds.
    pub fn holds(&self, subject: &Subject<'_>) -> bool {
        self.criteria
            .iter()
            .all(|criterion| criterion.holds(subject))
    }
}

impl Criterion {
    fn parse(attribute: &str, wanted: &str) -> Parsed<Self> {
        let text = wanted.to_owned();
        Ok(match attribute.to_ascii_lowercase().as_str() {
            "user" => Self::User(text),
            "group" => Self::Group(text),
            "host" => Self::Host(text),
            "address" => Self::Address(address_list(text)?),
            "localaddress" => Self::LocalAddress(address_list(text)?),
            "localport" => Self::LocalPort(value::port(wanted)?),
            "version" => Self::Version(text),
            "rdomain" => Self::RoutingDomain,
            "command" | "sessiontype" | "tagged" | "localnetwork" => {
                return Err(format!(
                    "\"{attribute}\" is a Match criterion of ssh_config, not of sshd_config"
                ));
            }
            _ => return Err(format!("\"{attribute}\" is not a Match criterion")),
        })
    }

    fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::User(list) => subject
                .user
                .is_some_and(|user| matches_list(user.as_bytes(), list.as_bytes()).is_match()),
            Self::Group(list) => group_matches(subject, list),
            Self::Host(list) => match subject.host {
                Some(host) => matches_host_list(host.as_bytes(), list.as_bytes()).is_match(),
                // Without UseDNS a client's name is its address.
                None => {
                    let address = subject.address.to_canonical().to_string();
                    matches_host_list(address.as_bytes(), list.as_bytes()).is_match()
                }
            },
            // A bad list was refused at load; should one get here it matches nobody.
            Self::Address(list) => pattern::address_matches_list(subject.address, list)
                .is_ok_and(pattern::Outcome::is_match),
            Self::LocalAddress(list) => pattern::address_matches_list(subject.local_address, list)
                .is_ok_and(pattern::Outcome::is_match),
            Self::LocalPort(port) => subject.local_port == *port,
            Self::Version(list) => {
                matches_list(SOFTWARE_VERSION.as_bytes(), list.as_bytes()).is_match()
            }
            Self::InvalidUser => subject.user.is_some() && subject.invalid_user,
            Self::RoutingDomain => false,
        }
    }
}

/// OpenSSH: one group that a negated pattern matches makes the whole list not match.
fn group_matches(subject: &Subject<'_>, list: &str) -> bool {
    let mut matched = false;
    for group in subject.groups {
        match matches_list(group.as_bytes(), list.as_bytes()) {
            pattern::Outcome::Negated => return false,
            pattern::Outcome::Yes => matched = true,
            pattern::Outcome::No => {}
        }
    }
    subject.user.is_some() && matched
}

/// Checks the list with an address that is as good as any.
pub(super) fn address_list(list: String) -> Parsed<String> {
    let any = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
    for entry in list.split(',') {
        if let Err(wrong) = pattern::address_matches_list(any, entry) {
            return Err(format!("\"{entry}\" in \"{list}\" {}", wrong.phrase()));
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(line: &str) -> Parsed<Condition> {
        let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        Condition::parse(&arguments)
    }

    fn holds(line: &str) -> bool {
        let groups = ["users".to_owned(), "wheel".to_owned()];
        parse(line).unwrap().holds(&Subject {
            user: Some("alice"),
            groups: &groups,
            invalid_user: false,
            address: "192.0.2.7".parse().unwrap(),
            host: None,
            local_address: "198.51.100.1".parse().unwrap(),
            local_port: 22,
        })
    }

    #[test]
    fn criteria_hold_together() {
        for (line, expected) in [
            ("User alice", true),
            ("User bob,al*", true),
            ("User *,!alice", false),
            ("User alice Address 192.0.2.0/24", true),
            ("User alice Address 10.0.0.0/8", false),
            ("user=alice address=192.0.2.0/24", true),
            ("Group wheel", true),
            ("Group *,!wheel", false),
            ("Group staff", false),
            ("Host 192.0.2.*", true),
            ("LocalAddress 198.51.100.1", true),
            ("LocalPort 22", true),
            ("LocalPort 2222", false),
            ("Invalid-User", false),
            ("RDomain *", false),
            ("Version OpenSSH_*_agent_*", true),
            ("Version OpenSSH_9.*", false),
            ("all", true),
        ] {
            assert_eq!(holds(line), expected, "{line}");
        }
    }

    #[test]
    fn before_authentication_no_user_criterion_holds() {
        let stranger = Subject {
            user: None,
            groups: &[],
            invalid_user: false,
            address: "192.0.2.7".parse().unwrap(),
            host: None,
            local_address: "198.51.100.1".parse().unwrap(),
            local_port: 22,
        };
        for line in ["User *", "Group *", "Invalid-User"] {
            assert!(!parse(line).unwrap().holds(&stranger), "{line}");
        }
        assert!(parse("Address 192.0.2.7").unwrap().holds(&stranger));
    }

    #[test]
    fn malformed_lines_are_errors() {
        for line in [
            "",
            "User",
            "User=",
            "all User alice",
            "User alice all",
            "Colour blue",
            "Address 192.0.2.1/24",
            "Address 192.0.2.0/24,",
            "LocalPort 0",
            "LocalPort 22,23",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
