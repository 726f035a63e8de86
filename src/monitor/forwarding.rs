//! What one login may forward: the configuration, less what each of its keys takes away.

use agent_helper::forward_frame::{Forwarding, HostPort, TunnelRules};

use super::key_reading::expand;
use super::rights::Rights;
use crate::account::Account;
use crate::config::forwarding::{ForwardOptions, Places, host_port};

/// Builds the rules of a login with these `rights`. `forced`: it runs one command, whatever the
/// client asks.
pub(super) fn rules(
    options: &ForwardOptions,
    rights: &Rights,
    forced: bool,
    account: &Account,
) -> Forwarding {
    let ports = !options.disabled && rights.permits.port_forwarding;
    // Sockets in the file system lead to services that run commands for whoever may connect (a
    // container engine, a user's service manager): around the one command that was meant.
    let unix = ports && !forced;
    Forwarding {
        tcp_local: ports && options.tcp.local,
        tcp_remote: ports && options.tcp.remote,
        unix_local: unix && options.unix.local,
        unix_remote: unix && options.unix.remote,
        agent: !options.disabled && options.agent && rights.permits.agent_forwarding,
        agent_link: options
            .agent_socket_path
            .as_ref()
            .map(|path| expand(path, account).into()),
        x11: (!options.disabled && options.x11 && rights.permits.x11_forwarding)
            .then(|| options.x11_rules.clone()),
        tunnel: tunnels(options, rights),
        permit_open: lists(&options.permit_open, &rights.permit_open),
        permit_listen: lists(&options.permit_listen, &rights.permit_listen),
        gateway: options.gateway,
        family: options.family,
        bind_mask: options.bind_mask,
        bind_unlink: options.bind_unlink,
    }
}

fn tunnels(options: &ForwardOptions, rights: &Rights) -> TunnelRules {
    if options.disabled || !rights.permits.tunnel {
        return TunnelRules::default();
    }
    TunnelRules {
        point_to_point: options.tunnels.point_to_point,
        ethernet: options.tunnels.ethernet,
        unit: rights.tunnel,
    }
}

/// One list for each source that has a rule.
fn lists(configured: &Places, of_keys: &[Vec<Vec<u8>>]) -> Vec<Vec<HostPort>> {
    let mut lists: Vec<Vec<HostPort>> = of_keys
        .iter()
        .map(|list| list.iter().filter_map(|text| of_key(text)).collect())
        .collect();
    if let Places::These(list) = configured {
        let list = list
            .iter()
            .map(|(host, port)| (host.as_str().into(), *port));
        lists.push(list.collect());
    }
    lists
}

/// What cannot be read names nothing; its list stays, and is the narrower for it.
fn of_key(text: &[u8]) -> Option<HostPort> {
    let (host, port) = host_port(std::str::from_utf8(text).ok()?, true)?;
    Some((host.as_str().into(), port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::authorized_keys::Permits;
    use crate::config::forwarding::{Tunnels, Ways};
    use agent_helper::forward_frame::{Family, Gateway, X11Rules};

    fn options() -> ForwardOptions {
        let both = Ways {
            local: true,
            remote: true,
        };
        ForwardOptions {
            tcp: both,
            unix: both,
            disabled: false,
            gateway: Gateway::No,
            permit_open: Places::Any,
            permit_listen: Places::Any,
            bind_mask: 0o177,
            bind_unlink: false,
            family: Family::Any,
            tunnels: Tunnels {
                point_to_point: true,
                ethernet: false,
            },
            agent: true,
            agent_socket_path: Some("%h/.ssh/agent.sock".to_owned()),
            x11: true,
            x11_rules: X11Rules::default(),
        }
    }

    fn rules(options: &ForwardOptions, rights: &Rights, forced: bool) -> Forwarding {
        let mut account = Account::decoy(7);
        account.home = b"/home/a".to_vec();
        super::rules(options, rights, forced, &account)
    }

    fn open() -> Rights {
        Rights::of(&[]).unwrap()
    }

    fn any_way(rules: &Forwarding) -> bool {
        rules.tcp_local || rules.tcp_remote || rules.unix_local || rules.unix_remote
    }

    #[test]
    fn keys_and_configuration_can_each_forbid_it() {
        assert!(any_way(&rules(&options(), &open(), false)));
        let closed = Rights {
            permits: Permits {
                port_forwarding: false,
                ..Permits::ALL
            },
            ..open()
        };
        assert!(!any_way(&rules(&options(), &closed, false)));
        let disabled = ForwardOptions {
            disabled: true,
            ..options()
        };
        assert!(!any_way(&rules(&disabled, &open(), false)));
    }

    #[test]
    fn agents_are_a_right_of_their_own() {
        let without = Rights {
            permits: Permits {
                agent_forwarding: false,
                ..Permits::ALL
            },
            ..open()
        };
        let with = rules(&options(), &open(), false);
        assert!(with.agent);
        assert_eq!(
            with.agent_link.as_deref(),
            Some(&b"/home/a/.ssh/agent.sock"[..])
        );
        assert!(!rules(&options(), &without, false).agent);
        for (agent, disabled) in [(false, false), (true, true)] {
            let configured = ForwardOptions {
                agent,
                disabled,
                ..options()
            };
            assert!(!rules(&configured, &open(), false).agent);
        }
    }

    #[test]
    fn displays_are_a_right_of_their_own() {
        let without = Rights {
            permits: Permits {
                x11_forwarding: false,
                ..Permits::ALL
            },
            ..open()
        };
        assert!(rules(&options(), &open(), false).x11.is_some());
        assert!(rules(&options(), &without, false).x11.is_none());
        let disabled = ForwardOptions {
            disabled: true,
            ..options()
        };
        assert!(rules(&disabled, &open(), false).x11.is_none());
    }

    #[test]
    fn tunnels_are_a_right_of_their_own() {
        let with = rules(&options(), &open(), true).tunnel;
        assert!(with.point_to_point && !with.ethernet && with.unit.is_none());
        let numbered = Rights {
            tunnel: Some(7),
            ..open()
        };
        assert_eq!(rules(&options(), &numbered, false).tunnel.unit, Some(7));
        let without = Rights {
            permits: Permits {
                tunnel: false,
                ..Permits::ALL
            },
            ..numbered
        };
        let none = TunnelRules::default();
        assert_eq!(rules(&options(), &without, false).tunnel, none);
        let disabled = ForwardOptions {
            disabled: true,
            ..options()
        };
        assert_eq!(rules(&disabled, &open(), false).tunnel, none);
    }

    #[test]
    fn a_forced_command_is_not_gone_around_by_a_socket() {
        let rules = rules(&options(), &open(), true);
        assert!(rules.tcp_local && rules.tcp_remote);
        assert!(!rules.unix_local && !rules.unix_remote);
    }

    #[test]
    fn every_source_adds_a_list_of_its_own() {
        let keys = Rights {
            permit_open: vec![vec![b"a:1".to_vec(), b"[::1]:*".to_vec()]],
            permit_listen: vec![vec![b"nonsense".to_vec()]],
            ..open()
        };
        let configured = ForwardOptions {
            permit_open: Places::These(vec![("b".to_owned(), 2)]),
            permit_listen: Places::These(Vec::new()),
            ..options()
        };
        let rules = rules(&configured, &keys, false);
        let expected: [Vec<HostPort>; 2] = [
            vec![("a".into(), 1), ("::1".into(), 0)],
            vec![("b".into(), 2)],
        ];
        assert_eq!(rules.permit_open, expected);
        assert_eq!(rules.permit_listen, [Vec::new(), Vec::new()]);
    }
}
