//! Passwords, as the monitor deals with them: it passes them on to one-shot processes, bounded in
//! number, and learns what came of it. No password is kept, and none is compared here.

use agent_helper::wire::Wire;
use zeroize::{Zeroize, Zeroizing};

use super::connection::{Dialog, Pending, Phase, Step};
use super::ids::ConnectionKey;
use super::methods::Way;
use super::one_shot::{Kind, OneShots};
use super::poller::Source;
use super::{Monitor, allowed, log as lines};
use crate::frames::ToNet;
use crate::limits::{PASSWORD_CHECK_MEMORY_BYTES, PASSWORD_CHECKS_MAX, PASSWORD_MAX_BYTES};
use crate::password::frames::{Request, Verdict, Why};
use crate::ssh::auth::decode_info_response;

const PROMPT: &str = "Password: ";
const EXPIRED: &str = "Your password has expired. Choose a new one.";
const CHANGE_PROMPTS: [&str; 3] = [
    "Current password: ",
    "New password: ",
    "Retype new password: ",
];

/// What such a process was asked. The one that saw the password may be in the hands of whoever typed
/// it: it is believed about that question alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// Whether a password is right.
    Check {
        /// Nobody's: no password is right.
        decoy: bool,
        /// A new one came with it, to take the place of one that expired.
        replaces: bool,
    },
    /// To write a hash into the shadow file.
    Store,
}

impl Asked {
    /// Whether a process of ours could answer so.
    fn admits(self, verdict: &Verdict) -> bool {
        match (self, verdict) {
            (Self::Nothing, _) => false,
            (_, Verdict::Failed { .. })
            | (Self::Store, Verdict::Stored)
            | (Self::Check { .. }, Verdict::Refused { .. })
            | (Self::Check { decoy: false, .. }, Verdict::Matches { .. }) => true,
            (Self::Check { decoy, replaces }, Verdict::Expired) => !decoy && !replaces,
            (
                Self::Check { decoy, replaces },
                Verdict::Hashed { .. } | Verdict::NewRefused { .. },
            ) => !decoy && replaces,
            _ => false,
        }
    }
}

/// The processes that look at passwords.
pub(super) fn checks() -> OneShots {
    OneShots::new(Kind {
        title: c"agent: password",
        source: Source::Password,
        most: checks_max(),
    })
}

/// How many may run at once on this machine.
fn checks_max() -> usize {
    let info = rustix::system::sysinfo();
    let unit = u64::from(info.mem_unit).max(1);
    #[allow(clippy::useless_conversion, reason = "32 bits on armv7")]
    let memory = u64::from(info.totalram).saturating_mul(unit);
    usize::try_from(memory / PASSWORD_CHECK_MEMORY_BYTES)
        .unwrap_or(PASSWORD_CHECKS_MAX)
        .clamp(1, PASSWORD_CHECKS_MAX)
}

impl Monitor {
    /// A password came by `way`; `new` is to replace it if it has expired.
    pub(super) fn check_password(
        &mut self,
        key: ConnectionKey,
        way: Way,
        password: &[u8],
        new: Option<&[u8]>,
    ) {
        let Some(attempt) = self.connections.get_mut(&key).and_then(|it| it.attempt()) else {
            return;
        };
        let too_long = password.len() > PASSWORD_MAX_BYTES
            || new.is_some_and(|it| it.len() > PASSWORD_MAX_BYTES);
        // Nobody is asked for a new password before the old one was seen to have expired.
        let unasked = new.is_some() && !attempt.must_change;
        if too_long || unasked {
            return self.refuse_password(key, way, Why::Wrong.code());
        }
        let permitted =
            attempt.account.uid != 0 || allowed::root_permitted(&attempt.options, false, way);
        let login = (attempt.refusal.is_none() && permitted)
            .then(|| (attempt.account.uid, attempt.account.name.clone()));
        let asked = Asked::Check {
            decoy: login.is_none(),
            replaces: new.is_some(),
        };
        if let Some(pending) = attempt.pending.as_mut() {
            pending.asked = asked;
        }
        let mut request = Request::Check {
            name: login.as_ref().map(|(_, name)| name.clone().into()),
            seed: self.host.delay.seed(&attempt.user),
            password: password.into(),
            permit_empty: attempt.options.permit_empty_passwords,
            new_password: new.map(Into::into),
            today: super::today(),
        };
        let content = Zeroizing::new(request.to_wire());
        if let Request::Check {
            password,
            new_password,
            ..
        } = &mut request
        {
            password.0.zeroize();
            if let Some(new) = new_password {
                new.0.zeroize();
            }
        }
        // Helper and the user's `net` come up meanwhile.
        if !self.ensure_helper(key) {
            return self.refuse_password(key, way, "password-unchecked");
        }
        if let Some((uid, name)) = login {
            self.expect_user(uid, &name);
        }
        if self.checks.has_room() {
            self.start_check(key, &content);
        } else {
            self.checks.queue(key, content);
        }
    }

    fn start_check(&mut self, key: ConnectionKey, request: &[u8]) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let Some(pending) = connection.attempt().and_then(|it| it.pending.as_mut()) else {
            return;
        };
        let ids = Some(self.host.password_ids());
        let started = self
            .checks
            .start(&self.host, &self.poller, ids, key, request);
        match started {
            Ok(check) => pending.step = Step::Checking { check },
            Err(error) => {
                log::error!("a password could not be looked at: {error}");
                self.refuse_request(key, Some("password-unchecked"));
            }
        }
    }

    /// A process that looks at a password said something, or ended.
    pub(super) fn check_ready(&mut self, number: u64) {
        let Some((key, answer)) = self.checks.take(&self.poller, number) else {
            return;
        };
        self.speak_of(key);
        if let Some(asked) = self.asked(key, number) {
            let verdict = answer
                .and_then(|content| Verdict::from_wire(&content).map_err(|it| it.to_string()))
                .and_then(|verdict| {
                    if asked.admits(&verdict) {
                        Ok(verdict)
                    } else {
                        Err("attack: the process answered what it was not asked".to_owned())
                    }
                })
                .unwrap_or_else(|what| Verdict::Failed {
                    what: what.as_str().into(),
                });
            self.judged(key, verdict);
        }
        while let Some((key, request)) = self.checks.next() {
            self.start_check(key, &request);
        }
    }

    /// What process `number` was asked, if the connection waits for its answer.
    fn asked(&self, key: ConnectionKey, number: u64) -> Option<Asked> {
        let Phase::Authenticating(attempt) = &self.connections.get(&key)?.phase else {
            return None;
        };
        let pending = attempt.pending.as_ref()?;
        match pending.step {
            Step::Checking { check } if check == number => Some(pending.asked),
            _ => None,
        }
    }

    fn judged(&mut self, key: ConnectionKey, verdict: Verdict) {
        let Some((place, attempt)) = self.attempt_from(key) else {
            return;
        };
        let user = lines::user_text(&attempt.user);
        let way = attempt.pending.as_ref().map_or(Way::Nothing, |it| it.way);
        match verdict {
            Verdict::Matches { days_left } => {
                attempt.expiry.password_days = days_left;
                self.method_done(key, way, None);
            }
            Verdict::Refused { why } => {
                let root = attempt.account.uid == 0
                    && !allowed::root_permitted(&attempt.options, false, way);
                let reason = if root {
                    "permit-root-login"
                } else {
                    why.code()
                };
                self.refuse_password(key, way, reason);
            }
            Verdict::Expired if way == Way::Nothing => self.refuse_request(key, None),
            Verdict::Expired => {
                log::info!("the password of {user} from {place} has expired: asking for a new one");
                self.ask_for_new_password(key, EXPIRED);
            }
            Verdict::NewRefused { why } => {
                attempt.failures += 1;
                if attempt.failures >= attempt.options.max_auth_tries {
                    return self.refuse_request(key, None);
                }
                let why = String::from_utf8_lossy(&why).into_owned();
                self.ask_for_new_password(key, &why);
            }
            Verdict::Hashed { hash } => {
                if let Some(pending) = attempt.pending.as_mut() {
                    pending.asked = Asked::Store;
                }
                let request = Request::Store {
                    name: attempt.account.name.clone().into(),
                    hash,
                    today: super::today(),
                };
                // The place of the process before it is free.
                self.start_check(key, &request.to_wire());
            }
            Verdict::Stored => {
                log::info!("the password of {user} was changed, from {place}");
                self.method_done(key, way, None);
            }
            Verdict::Failed { what } => {
                let what = lines::peer_text(&what);
                log::error!("the password of {user} could not be dealt with: {what}");
                let must_change = attempt.must_change;
                if must_change {
                    let text = "Your password has expired, and it could not be changed here: \
                                ask the administrator.\r\n";
                    self.send_banner(key, text.as_bytes());
                }
                let reason = if must_change {
                    "password-not-changed"
                } else {
                    "password-unchecked"
                };
                self.refuse_password(key, way, reason);
            }
        }
    }

    /// An empty password that comes with `none` is no try.
    fn refuse_password(&mut self, key: ConnectionKey, way: Way, reason: &'static str) {
        self.refuse_request(key, (way != Way::Nothing).then_some(reason));
    }

    fn ask_for_new_password(&mut self, key: ConnectionKey, why: &str) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let (net, number) = (connection.net, connection.number);
        let Some(attempt) = connection.attempt() else {
            return;
        };
        let Some(pending) = attempt.pending.take() else {
            return;
        };
        attempt.must_change = true;
        let frame = if pending.way == Way::Password {
            ToNet::AuthPasswordChange { prompt: why.into() }
        } else {
            attempt.dialog = Some(Dialog {
                request: pending.request,
                changes: true,
            });
            info_request(why, &CHANGE_PROMPTS)
        };
        self.nets.send(&self.poller, net, number, &frame, &[]);
    }

    /// `keyboard-interactive` begins: one prompt, as everywhere without modules.
    pub(super) fn ask_for_password(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let (net, number) = (connection.net, connection.number);
        let Some(attempt) = connection.attempt() else {
            return;
        };
        let Some(pending) = attempt.pending.take() else {
            return;
        };
        attempt.dialog = Some(Dialog {
            request: pending.request,
            changes: false,
        });
        let frame = info_request("", &[PROMPT]);
        self.nets.send(&self.poller, net, number, &frame, &[]);
    }

    /// The answer to what was asked.
    pub(super) fn dialog_answered(&mut self, key: ConnectionKey, response: &[u8]) {
        let Some(attempt) = self.connections.get_mut(&key).and_then(|it| it.attempt()) else {
            return;
        };
        let Some(dialog) = attempt.dialog.take() else {
            return self.attack(key, "an answer to no question");
        };
        attempt.pending = Some(Pending::new(dialog.request, Way::KeyboardInteractive));
        match decode_info_response(response) {
            Err(error) => self.disconnect(key, 2, &error.to_string()),
            Ok(answers) => match (dialog.changes, answers.as_slice()) {
                (false, [password]) => {
                    self.check_password(key, Way::KeyboardInteractive, password, None);
                }
                (true, [password, new, again]) if new == again => {
                    self.check_password(key, Way::KeyboardInteractive, password, Some(new));
                }
                (true, [_, _, _]) => {
                    self.judged(
                        key,
                        Verdict::NewRefused {
                            why: "The two new passwords differ.".into(),
                        },
                    );
                }
                _ => self.refuse_request(key, Some("password-answers")),
            },
        }
    }
}

fn info_request(instruction: &str, prompts: &[&str]) -> ToNet {
    ToNet::AuthInfoRequest {
        instruction: instruction.into(),
        prompts: prompts.iter().map(|prompt| (*prompt).into()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(decoy: bool, replaces: bool) -> Asked {
        Asked::Check { decoy, replaces }
    }

    #[test]
    fn a_process_is_believed_about_its_question_only() {
        let failed = Verdict::Failed { what: "x".into() };
        let hashed = Verdict::Hashed { hash: "$6$".into() };
        let unfit = Verdict::NewRefused { why: "x".into() };
        let wrong = Verdict::Refused { why: Why::Wrong };
        let right = Verdict::Matches { days_left: None };
        let (expired, stored) = (Verdict::Expired, Verdict::Stored);
        let all = [&failed, &wrong, &right, &expired, &hashed, &unfit, &stored];
        for (asked, believed) in [
            (Asked::Nothing, vec![]),
            // Nobody's password is right, and none is changed: not root's by a decoy.
            (check(true, false), vec![&failed, &wrong]),
            (check(true, true), vec![&failed, &wrong]),
            (check(false, false), vec![&failed, &wrong, &right, &expired]),
            (
                check(false, true),
                vec![&failed, &wrong, &right, &hashed, &unfit],
            ),
            (Asked::Store, vec![&failed, &stored]),
        ] {
            for verdict in all {
                let expected = believed.contains(&verdict);
                assert_eq!(asked.admits(verdict), expected, "{asked:?} {verdict:?}");
            }
        }
    }
}
