//! Which message number a client may send in which phase: looked up before anything is decoded.
//!
//! Sources: RFC 4253 sections 7.1, 9, 11.4; RFC 4252 section 6 (numbers from 80 on before
//! authentication must end the connection); RFC 4254; OpenSSH PROTOCOL 1.9 (strict KEX).

use super::message as m;

/// Where the connection is, as far as the next message from the client is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The client's first KEXINIT is awaited.
    FirstInit,
    /// First exchange: the client's public value is awaited.
    FirstExchange,
    /// First exchange: the client's NEWKEYS is awaited.
    FirstNewKeys,
    /// As [`Phase::FirstExchange`] with strict KEX agreed.
    StrictExchange,
    /// As [`Phase::FirstNewKeys`] with strict KEX agreed.
    StrictNewKeys,
    /// Re-exchange, the client's KEXINIT came: its public value is awaited.
    RekeyExchange,
    /// Re-exchange: the client's NEWKEYS is awaited.
    RekeyNewKeys,
    /// Keys are there, no service was asked for.
    Service,
    /// `ssh-userauth` runs.
    Auth,
    /// `ssh-connection` runs.
    Open,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Decode and act.
    Accept,
    /// Drop it silently.
    Ignore,
    /// Answer SSH_MSG_UNIMPLEMENTED (RFC 4253 section 11.4).
    Unimplemented,
    /// End the connection.
    Refuse,
}

/// All phases, in the order of the table.
pub const PHASES: [Phase; 10] = [
    Phase::FirstInit,
    Phase::FirstExchange,
    Phase::FirstNewKeys,
    Phase::StrictExchange,
    Phase::StrictNewKeys,
    Phase::RekeyExchange,
    Phase::RekeyNewKeys,
    Phase::Service,
    Phase::Auth,
    Phase::Open,
];

impl Phase {
    /// For error messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstInit => "await kexinit",
            Self::FirstExchange => "key exchange",
            Self::FirstNewKeys => "await newkeys",
            Self::StrictExchange => "strict key exchange",
            Self::StrictNewKeys => "await newkeys, strict",
            Self::RekeyExchange => "key re-exchange",
            Self::RekeyNewKeys => "await newkeys, re-exchange",
            Self::Service => "await service request",
            Self::Auth => "authentication",
            Self::Open => "connection",
        }
    }

    /// The rule for message `number`.
    pub fn permit(self, number: u8) -> Permit {
        TABLE[self as usize][number as usize]
    }
}

static TABLE: [[Permit; 256]; PHASES.len()] = table();

const fn table() -> [[Permit; 256]; PHASES.len()] {
    let mut table = [[Permit::Refuse; 256]; PHASES.len()];
    let mut phase = 0;
    while phase < PHASES.len() {
        let mut number: u8 = 0;
        loop {
            table[phase][number as usize] = rule(PHASES[phase], number);
            if number == u8::MAX {
                break;
            }
            number += 1;
        }
        phase += 1;
    }
    table
}

const fn rule(phase: Phase, number: u8) -> Permit {
    match phase {
        Phase::StrictExchange => match number {
            m::DISCONNECT | m::KEX_ECDH_INIT => Permit::Accept,
            _ => Permit::Refuse,
        },
        Phase::StrictNewKeys => match number {
            m::DISCONNECT | m::NEWKEYS => Permit::Accept,
            _ => Permit::Refuse,
        },
        Phase::FirstInit => exchanging(m::KEXINIT, number),
        Phase::FirstExchange | Phase::RekeyExchange => exchanging(m::KEX_ECDH_INIT, number),
        Phase::FirstNewKeys | Phase::RekeyNewKeys => exchanging(m::NEWKEYS, number),
        Phase::Service => match number {
            m::SERVICE_REQUEST => Permit::Accept,
            m::USERAUTH_REQUEST..=79 => Permit::Refuse,
            _ => before_success(number),
        },
        Phase::Auth => match number {
            // An answer to no question is found out where questions are known.
            m::SERVICE_REQUEST | m::USERAUTH_REQUEST | m::USERAUTH_INFO_RESPONSE => Permit::Accept,
            m::USERAUTH_FAILURE..=m::USERAUTH_BANNER => Permit::Refuse,
            54..=79 => Permit::Unimplemented,
            _ => before_success(number),
        },
        Phase::Open => open(number),
    }
}

/// While an exchange runs: transport messages and the one that is awaited (RFC 4253 section 7.1).
const fn exchanging(awaited: u8, number: u8) -> Permit {
    match number {
        m::DISCONNECT..=m::DEBUG => Permit::Accept,
        8..=19 => Permit::Unimplemented,
        _ if number == awaited => Permit::Accept,
        _ => Permit::Refuse,
    }
}

/// With keys, before SSH_MSG_USERAUTH_SUCCESS.
const fn before_success(number: u8) -> Permit {
    match number {
        m::DISCONNECT..=m::DEBUG | m::KEXINIT => Permit::Accept,
        // Advertised in our EXT_INFO, so a client may use it from here on.
        m::PING => Permit::Accept,
        m::EXT_INFO => Permit::Accept,
        8..=19 => Permit::Unimplemented,
        // What only a server sends, and exchange messages outside an exchange.
        0 | m::SERVICE_ACCEPT | m::NEWKEYS..=49 => Permit::Refuse,
        // RFC 4252 section 6: from 80 on, before authentication is complete, MUST end the connection.
        _ => Permit::Refuse,
    }
}

const fn open(number: u8) -> Permit {
    match number {
        m::DISCONNECT..=m::DEBUG | m::KEXINIT | m::PING => Permit::Accept,
        0 | m::NEWKEYS..=49 => Permit::Refuse,
        // RFC 4252 section 5.1: silently ignored after success.
        m::USERAUTH_REQUEST => Permit::Ignore,
        // What it could change lies behind (RFC 8308 section 2.4).
        m::EXT_INFO => Permit::Ignore,
        m::GLOBAL_REQUEST..=m::REQUEST_FAILURE => Permit::Accept,
        m::CHANNEL_OPEN..=m::CHANNEL_FAILURE => Permit::Accept,
        // A PONG nobody asked for means nothing.
        m::PONG => Permit::Ignore,
        _ => Permit::Unimplemented,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(phase: Phase) -> Vec<u8> {
        (0..=u8::MAX)
            .filter(|number| phase.permit(*number) == Permit::Accept)
            .collect()
    }

    /// Written out by hand, phase by phase, so that a change of the rules has to be made twice.
    #[test]
    fn each_phase_accepts_exactly_these() {
        assert_eq!(accepted(Phase::FirstInit), [1, 2, 3, 4, 20]);
        assert_eq!(accepted(Phase::FirstExchange), [1, 2, 3, 4, 30]);
        assert_eq!(accepted(Phase::FirstNewKeys), [1, 2, 3, 4, 21]);
        assert_eq!(accepted(Phase::StrictExchange), [1, 30]);
        assert_eq!(accepted(Phase::StrictNewKeys), [1, 21]);
        assert_eq!(accepted(Phase::RekeyExchange), [1, 2, 3, 4, 30]);
        assert_eq!(accepted(Phase::RekeyNewKeys), [1, 2, 3, 4, 21]);
        assert_eq!(accepted(Phase::Service), [1, 2, 3, 4, 5, 7, 20, 192]);
        assert_eq!(accepted(Phase::Auth), [1, 2, 3, 4, 5, 7, 20, 50, 61, 192]);
        assert_eq!(
            accepted(Phase::Open),
            [
                1, 2, 3, 4, 20, 80, 81, 82, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 192
            ]
        );
    }

    #[test]
    fn nothing_of_the_connection_protocol_before_authentication() {
        for phase in PHASES.into_iter().filter(|phase| *phase != Phase::Open) {
            for number in (80..=u8::MAX).filter(|number| *number != m::PING) {
                assert_eq!(phase.permit(number), Permit::Refuse, "{phase:?} {number}");
            }
        }
    }

    #[test]
    fn strict_exchange_answers_nothing_else() {
        for phase in [Phase::StrictExchange, Phase::StrictNewKeys] {
            for number in 0..=u8::MAX {
                assert!(matches!(
                    phase.permit(number),
                    Permit::Accept | Permit::Refuse
                ));
            }
        }
    }

    #[test]
    fn what_only_a_server_sends_opens_nothing() {
        for phase in PHASES {
            for number in [m::SERVICE_ACCEPT, m::KEX_ECDH_REPLY, m::USERAUTH_SUCCESS] {
                assert_ne!(phase.permit(number), Permit::Accept, "{phase:?} {number}");
            }
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_the_phases() {
        for (index, phase) in PHASES.into_iter().enumerate() {
            assert_eq!(index, phase as usize);
        }
    }
}
