//! Which frame of a `net` is allowed in which phase of a connection, and how often.
//!
//! OpenSSH's monitor is the model: a compromised `net` that asks for anything out of turn ends its
//! connection and is logged as an attack. The table is the only place that says what is allowed.

use crate::limits::{AUTH_REQUESTS_MAX, PROOFS_MAX, SIGNATURES_BURST, SIGNATURES_PER_SECOND};

use super::rate::Rate;

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Accepted: the first key exchange runs.
    Accepted,
    /// The first exchange is signed: the session id is known.
    Exchanged,
    /// An authentication request came.
    Authenticating,
    /// A login was accepted and is handed over.
    HandingOver,
    /// In the hands of the user's `net`.
    Live,
    /// Told to end: what was under way may still arrive.
    Ending,
}

pub(super) const STAGES: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Allowance {
    /// Nothing of ours sends it then.
    Never,
    /// So often in this stage.
    AtMost(u32),
    /// As often as key exchanges can be had.
    Exchanges,
    /// Any number; bounded elsewhere.
    Always,
    /// It crossed our own frame on the way: dropped.
    Ignored,
}

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Permitted,
    Dropped,
    /// End the connection, and say so.
    Attack,
}

use Allowance::{Always, AtMost, Exchanges, Ignored, Never};

/// Kinds of `NetToMonitor` by tag; the columns are the stages in order.
const TABLE: [(u8, [Allowance; STAGES]); 13] = [
    // Hello: about the process, never about a connection.
    (1, [Never, Never, Never, Never, Never, Ignored]),
    // Accept makes a connection; a second one under the same number is a lie.
    (2, [Never, Never, Never, Never, Never, Never]),
    // Cookie: the first exchange has its cookie from `Accepted`.
    (3, [Never, Exchanges, Exchanges, Never, Exchanges, Ignored]),
    (
        4,
        [AtMost(1), Exchanges, Exchanges, Never, Exchanges, Ignored],
    ),
    // Auth: before the exchange there is no session id to sign.
    (
        5,
        [
            Never,
            AtMost(1),
            AtMost(AUTH_REQUESTS_MAX),
            Never,
            Never,
            Ignored,
        ],
    ),
    (6, [Never, Never, Never, AtMost(1), Never, Ignored]),
    // Closed ends every stage, so it cannot come twice.
    (
        7,
        [
            AtMost(1),
            AtMost(1),
            AtMost(1),
            AtMost(1),
            AtMost(1),
            AtMost(1),
        ],
    ),
    // Log: bounded by the rate of its process.
    (8, [Always, Always, Always, Always, Always, Ignored]),
    // AcceptPaused: about the process.
    (9, [Never, Never, Never, Never, Never, Ignored]),
    (10, [AtMost(1), Never, Never, Never, Never, Ignored]),
    // AuthResponse: only to a question, which the attempt knows; each question took a request.
    (
        11,
        [
            Never,
            Never,
            AtMost(AUTH_REQUESTS_MAX),
            Never,
            Never,
            Ignored,
        ],
    ),
    // Prove: once for each key, which its subject counts.
    (
        12,
        [Never, Never, Never, Never, AtMost(PROOFS_MAX), Ignored],
    ),
    // Report: about the process.
    (13, [Never, Never, Never, Never, Never, Ignored]),
];

/// Counts of one connection.
#[derive(Debug)]
pub(super) struct Permit {
    stage: Stage,
    counts: [u32; TABLE.len()],
    exchanges: Rate,
}

impl Permit {
    pub(super) fn new(now: std::time::Instant) -> Self {
        Self {
            stage: Stage::Accepted,
            counts: [0; TABLE.len()],
            exchanges: Rate::new(SIGNATURES_BURST, SIGNATURES_PER_SECOND, now),
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Enters `stage`; counts begin anew.
    pub(super) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.counts = [0; TABLE.len()];
    }

    /// Judges the frame with `tag`, and counts it.
    pub(super) fn judge(&mut self, tag: u8, now: std::time::Instant) -> Verdict {
        let Some(row) = TABLE.iter().position(|(kind, _)| *kind == tag) else {
            return Verdict::Attack;
        };
        match TABLE[row].1[self.stage as usize] {
            Never => Verdict::Attack,
            Ignored => Verdict::Dropped,
            Always => Verdict::Permitted,
            AtMost(limit) if self.counts[row] < limit => {
                self.counts[row] += 1;
                Verdict::Permitted
            }
            AtMost(_) => Verdict::Attack,
            Exchanges if self.exchanges.take(now) => Verdict::Permitted,
            Exchanges => Verdict::Attack,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    const ALL: [Stage; STAGES] = [
        Stage::Accepted,
        Stage::Exchanged,
        Stage::Authenticating,
        Stage::HandingOver,
        Stage::Live,
        Stage::Ending,
    ];

    fn first(tag: u8, stage: Stage) -> Verdict {
        let now = Instant::now();
        let mut permit = Permit::new(now);
        permit.enter(stage);
        permit.judge(tag, now)
    }

    #[test]
    fn each_stage_permits_exactly_what_its_protocol_needs() {
        let permitted = |stage| {
            (0..=u8::MAX)
                .filter(|tag| first(*tag, stage) == Verdict::Permitted)
                .collect::<Vec<_>>()
        };
        assert_eq!(permitted(Stage::Accepted), [4, 7, 8, 10]);
        assert_eq!(permitted(Stage::Exchanged), [3, 4, 5, 7, 8]);
        assert_eq!(permitted(Stage::Authenticating), [3, 4, 5, 7, 8, 11]);
        assert_eq!(permitted(Stage::HandingOver), [6, 7, 8]);
        assert_eq!(permitted(Stage::Live), [3, 4, 7, 8, 12]);
        assert_eq!(permitted(Stage::Ending), [7]);
    }

    #[test]
    fn all_else_is_an_attack_except_what_crossed_our_own_end() {
        for stage in ALL {
            for tag in 0..=u8::MAX {
                let verdict = first(tag, stage);
                let known = (1..=13).contains(&tag);
                if stage == Stage::Ending && known && tag != 2 && tag != 7 {
                    assert_eq!(verdict, Verdict::Dropped, "{stage:?} {tag}");
                } else if verdict != Verdict::Permitted {
                    assert_eq!(verdict, Verdict::Attack, "{stage:?} {tag}");
                }
            }
        }
    }

    #[test]
    fn what_is_permitted_once_is_not_permitted_twice() {
        let now = Instant::now();
        for (stage, tag) in [
            (Stage::Accepted, 4),
            (Stage::Accepted, 10),
            (Stage::Exchanged, 5),
            (Stage::HandingOver, 6),
        ] {
            let mut permit = Permit::new(now);
            permit.enter(stage);
            assert_eq!(permit.judge(tag, now), Verdict::Permitted);
            assert_eq!(permit.judge(tag, now), Verdict::Attack, "{stage:?} {tag}");
        }
    }

    #[test]
    fn requests_and_exchanges_are_bounded() {
        let now = Instant::now();
        let mut permit = Permit::new(now);
        permit.enter(Stage::Authenticating);
        let auths = (0..10_000)
            .filter(|_| permit.judge(5, now) == Verdict::Permitted)
            .count();
        assert_eq!(u32::try_from(auths), Ok(AUTH_REQUESTS_MAX));
        permit.enter(Stage::Live);
        let signs = (0..10_000)
            .filter(|_| permit.judge(4, now) == Verdict::Permitted)
            .count();
        assert_eq!(u32::try_from(signs), Ok(SIGNATURES_BURST));
    }

    #[test]
    fn stages_are_columns_of_the_table() {
        for (index, stage) in ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, index);
        }
    }
}
