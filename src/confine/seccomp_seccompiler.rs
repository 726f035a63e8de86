//! Turns rules into a filter with `seccompiler`.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule,
};

use super::{Condition, Rule};
use crate::confine::ConfineError;

/// What a filter does with the calls it does not name, and with those it does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Otherwise {
    /// Named calls may be made; any other ends the process.
    EndTheProcess,
    /// Named calls are answered with ENOSYS; any other may be made.
    AllowAndRefuseThese,
}

/// Installs one filter for the calling thread and those it starts.
pub(super) fn install(rules: &[Rule<'_>], otherwise: Otherwise) -> Result<(), ConfineError> {
    let program = compile(rules, otherwise).map_err(|_| failed(libc::EINVAL))?;
    seccompiler::apply_filter(&program).map_err(|error| {
        failed(match error {
            Error::Prctl(error) | Error::Seccomp(error) => error.raw_os_error().unwrap_or(0),
            _ => libc::EINVAL,
        })
    })
}

fn failed(errno: i32) -> ConfineError {
    ConfineError {
        step: "seccomp",
        errno,
    }
}

pub(super) fn compile(
    rules: &[Rule<'_>],
    otherwise: Otherwise,
) -> Result<BpfProgram, seccompiler::BackendError> {
    let (matched, unmatched) = match otherwise {
        Otherwise::EndTheProcess => (SeccompAction::Allow, SeccompAction::KillProcess),
        Otherwise::AllowAndRefuseThese => (
            SeccompAction::Errno(libc::ENOSYS.cast_unsigned()),
            SeccompAction::Allow,
        ),
    };
    let mut chains = BTreeMap::new();
    for rule in rules {
        let chain = rule.when.iter().map(|condition| all_of(*condition));
        chains.insert(rule.call, chain.collect::<Result<Vec<_>, _>>()?);
    }
    SeccompFilter::new(
        chains,
        unmatched,
        matched,
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

fn all_of(condition: Condition) -> Result<SeccompRule, seccompiler::BackendError> {
    let is = |argument: u8, operator: SeccompCmpOp, value: u32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
    };
    SeccompRule::new(match condition {
        Condition::Is(argument, value) => vec![is(argument, SeccompCmpOp::Eq, value)?],
        Condition::Are(first, value, second, other) => {
            vec![
                is(first, SeccompCmpOp::Eq, value)?,
                is(second, SeccompCmpOp::Eq, other)?,
            ]
        }
        Condition::Bits(argument, mask, value) => {
            vec![is(argument, SeccompCmpOp::MaskedEq(mask.into()), value)?]
        }
    })
}
