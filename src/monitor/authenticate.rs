//! Deciding logins: requests of RFC 4252, one at a time for each connection.
//!
//! `net` is believed nothing: user, key and signature come out of the request, the session id out of
//! the monitor's own exchange hash. Known and unknown names take the same steps: the same look-ups,
//! the same launch of a helper, the same walk through key files (with the decoy's rights), the same
//! floor under every "no".

use std::time::{Duration, Instant};

use super::allowed;
use super::connection::{AcceptedKey, Answer, Attempt, Done, KnownKey, Pending, Phase, Step};
use super::credential::{self, Clock, Credential, Unacceptable};
use super::ids::ConnectionKey;
use super::key_lines::Client;
use super::lookup::Lookup;
use super::methods::Way;
use super::timers::Deadline;
use super::verify::Hangs;
use super::{Monitor, log as lines};
use crate::authorized_keys::KeyOptions;
use crate::config::Options;
use crate::frames::ToNet;
use crate::limits::{AUTH_REQUEST_MAX_BYTES, KEY_ANSWER_LIFETIME_MS, KEY_QUERIES_MAX};
use crate::logging::LOGIN;
use crate::ssh::auth::{AuthRequest, Method, PublicKeyRequest};
use agent_helper::wire::Bytes;

/// RFC 4253 section 11.1.
const PROTOCOL_ERROR: u32 = 2;
const NO_MORE_METHODS: u32 = 14;

/// What becomes of a request right after decoding.
enum Course<'a> {
    /// Refused: counted as a failure for a reason, unless it was the first `none`.
    Refuse {
        reason: Option<&'static str>,
    },
    /// Look for the key.
    Search {
        credential: Credential,
    },
    /// The key was found by a query a moment ago.
    Known {
        options: Vec<KeyOptions>,
    },
    /// Look at the password.
    Password {
        way: Way,
        password: &'a [u8],
        new: Option<&'a [u8]>,
    },
    /// Ask for the password.
    Dialog,
    Disconnect {
        reason: u32,
        text: &'static str,
    },
}

impl Monitor {
    /// A request arrived.
    pub(super) fn authenticate(&mut self, key: ConnectionKey, request: &[u8]) {
        if request.len() > AUTH_REQUEST_MAX_BYTES {
            return self.disconnect(key, PROTOCOL_ERROR, "authentication request too long");
        }
        if self.waits_for_name(key, request) {
            return;
        }
        let decoded = match AuthRequest::decode(request) {
            Ok(decoded) => decoded,
            Err(error) => return self.disconnect(key, PROTOCOL_ERROR, &error.to_string()),
        };
        if let Err((reason, text)) = self.meet(key, &decoded) {
            return self.disconnect(key, reason, text);
        }
        let course = self.choose(key, &decoded);
        let Some(attempt) = self.connections.get_mut(&key).and_then(|it| it.attempt()) else {
            return;
        };
        if attempt.pending.is_some() {
            return self.attack(key, "a request while another was unanswered");
        }
        // A question that was asked is dropped with the next request.
        attempt.dialog = None;
        attempt.pending = Some(Pending::new(
            decoded.without_secrets().into(),
            way_of(&decoded),
        ));
        match course {
            Course::Disconnect { reason, text } => self.disconnect(key, reason, text),
            Course::Refuse { reason } => self.refuse_request(key, reason),
            Course::Known { options } => self.key_decided(key, Ok(options)),
            Course::Search { credential } => self.search_key(key, credential),
            Course::Password { way, password, new } => {
                self.check_password(key, way, password, new);
            }
            Course::Dialog => self.ask_for_password(key),
        }
    }

    fn choose<'a>(&mut self, key: ConnectionKey, request: &AuthRequest<'a>) -> Course<'a> {
        let first = self
            .connections
            .get(&key)
            .is_some_and(|connection| match &connection.phase {
                Phase::Authenticating(attempt) => attempt.requests == 0,
                _ => false,
            });
        let Some(connection) = self.connections.get_mut(&key) else {
            return Course::Refuse { reason: None };
        };
        let floor_s = connection.generation.options.certificate_clock_floor_s;
        let clock = Clock::now(floor_s);
        let host_key = connection.host_key.clone();
        let Some(attempt) = connection.attempt() else {
            return Course::Refuse { reason: None };
        };
        attempt.requests += 1;
        let refuse = |reason| Course::Refuse {
            reason: Some(reason),
        };
        let way = way_of(request);
        let is_open = attempt.methods.is_open(way);
        let public = match &request.method {
            Method::None if first && is_open => {
                return Course::Password {
                    way,
                    password: b"",
                    new: None,
                };
            }
            Method::None if first => return Course::Refuse { reason: None },
            Method::None | Method::Other(_) => return refuse("method"),
            _ if !is_open => return refuse("method"),
            Method::Password(request) => {
                return Course::Password {
                    way,
                    password: request.password,
                    new: request.new,
                };
            }
            Method::KeyboardInteractive => return Course::Dialog,
            Method::PublicKey(public) => public,
        };
        let credential = match acceptable(public, &attempt.options, clock, &host_key) {
            Ok(credential) => credential,
            Err(why) => {
                log::debug!(
                    "a key of {} is not looked for: {}",
                    lines::user_text(&attempt.user),
                    why.words
                );
                return refuse(why.code);
            }
        };
        if public.signature.is_none() && attempt.queries >= KEY_QUERIES_MAX {
            return Course::Disconnect {
                reason: PROTOCOL_ERROR,
                text: "Too many key queries",
            };
        }
        if attempt
            .accepted
            .iter()
            .any(|accepted| accepted.key == credential.key().blob)
        {
            return refuse("key-used-before");
        }
        let lifetime = Duration::from_millis(KEY_ANSWER_LIFETIME_MS);
        match attempt.known.take() {
            Some(known)
                if public.signature.is_some()
                    && known.blob == public.key
                    && known.at.elapsed() < lifetime =>
            {
                match self.revocations.check(&attempt.options, &credential) {
                    Ok(()) => Course::Known {
                        options: known.options,
                    },
                    Err(code) => refuse(code),
                }
            }
            _ => Course::Search { credential },
        }
    }

    /// Starts looking for the key; helper and the user's `net` come up meanwhile.
    fn search_key(&mut self, key: ConnectionKey, credential: Credential) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let client = Client {
            address: connection.ends.peer.ip(),
            host: connection.name().map(str::to_owned),
            now_s: super::now_s(),
        };
        let Some(attempt) = connection.attempt() else {
            return;
        };
        let lookup = Lookup::new(credential, client, attempt);
        if let Some(pending) = attempt.pending.as_mut() {
            pending.lookup = Some(lookup);
        }
        let known = attempt.refusal.is_none();
        let (uid, name) = (attempt.account.uid, attempt.account.name.clone());
        if !self.ensure_helper(key) {
            return self.refuse_request(key, Some("keys-unreadable"));
        }
        self.look_further(key);
        if known {
            self.expect_user(uid, &name);
        }
    }

    /// It is known whether the request's key may log in; now the request itself.
    pub(super) fn key_decided(
        &mut self,
        key: ConnectionKey,
        verdict: Result<Vec<KeyOptions>, &'static str>,
    ) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let (net, number) = (connection.net, connection.number);
        let session_id = connection.session_id.clone();
        let Some(attempt) = connection.attempt() else {
            return;
        };
        let Some(pending) = attempt.pending.as_ref() else {
            return;
        };
        let request = pending.request.clone();
        // Decoded once before: it is the same request.
        let Ok(decoded) = AuthRequest::decode(&request) else {
            return;
        };
        let Method::PublicKey(public) = &decoded.method else {
            return;
        };
        let options = match verdict {
            Ok(options) => options,
            Err(reason) => return self.refuse_request(key, Some(reason)),
        };
        let Some(signature) = public.signature else {
            attempt.queries += 1;
            attempt.known = Some(KnownKey {
                blob: public.key.to_vec(),
                options,
                at: Instant::now(),
            });
            attempt.pending = None;
            let frame = ToNet::AuthPublicKeyOk {
                algorithm: public.algorithm.into(),
                key: public.key.into(),
            };
            return self.nets.send(&self.poller, net, number, &frame, &[]);
        };
        // The session id is empty before the first exchange: nothing is signed over that.
        let data = decoded.signed_data(&session_id);
        let check = match data.filter(|_| !session_id.is_empty()) {
            Some(data) => credential::signature_of(public, data, signature),
            None => Err("signature"),
        };
        let check = match check {
            Ok(check) => check,
            Err(reason) => return self.refuse_request(key, Some(reason)),
        };
        let accepted = AcceptedKey {
            key: check.key.blob.clone(),
            presented: public.key.to_vec(),
            options,
            description: credential::describe(public.key),
        };
        self.verify(key, check, Hangs::Request(Box::new(accepted)));
    }

    /// A method succeeded: is it all that is asked for?
    pub(super) fn method_done(
        &mut self,
        key: ConnectionKey,
        way: Way,
        accepted: Option<AcceptedKey>,
    ) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let place = connection.place();
        let (net, number) = (connection.net, connection.number);
        let Some(attempt) = connection.attempt() else {
            return;
        };
        // Nobody gets here but an account that may log in, by a method that is open. Said again,
        // because everything hangs on it.
        if attempt.refusal.is_some() || !attempt.methods.is_open(way) {
            return self.refuse_request(key, Some("method"));
        }
        let forces = |it: &AcceptedKey| it.options.iter().any(|it| it.command.is_some());
        let forced = accepted.as_ref().is_some_and(forces);
        if attempt.account.uid == 0 && !allowed::root_permitted(&attempt.options, forced, way) {
            log::info!(target: LOGIN, "ROOT LOGIN REFUSED FROM {place}");
            return self.refuse_request(key, Some("permit-root-login"));
        }
        attempt.done.push(Done {
            way,
            key: accepted
                .as_ref()
                .map(|accepted| accepted.description.clone()),
        });
        attempt.accepted.extend(accepted);
        self.counters.attempt(way.name(), true);
        if !attempt.methods.advance(way) {
            let key = attempt.done.last().and_then(|done| done.key.as_deref());
            log::info!(
                target: LOGIN,
                "Partial {} for {} from {place} ssh2{}",
                way.name(),
                lines::user_text(&attempt.user),
                lines::key_suffix(key)
            );
            attempt.pending = None;
            let frame = ToNet::AuthFailure {
                methods: open_methods(attempt),
                partial: true,
            };
            return self.nets.send(&self.poller, net, number, &frame, &[]);
        }
        self.login_accepted(key);
    }

    /// The answer is no: it goes out when its time has come.
    pub(super) fn refuse_request(&mut self, key: ConnectionKey, reason: Option<&'static str>) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let place = connection.place();
        let Some(attempt) = connection.attempt() else {
            return;
        };
        attempt.failures += u32::from(reason.is_some());
        let too_many = attempt.failures >= attempt.options.max_auth_tries;
        let named = lines::named(attempt);
        let user = attempt.user.clone();
        let invalid_user = attempt.refusal.is_some();
        // Whoever may not log in at all is refused for that, whatever was offered.
        let reason = reason.map(|reason| attempt.refusal.map_or(reason, |it| it.code()));
        let Some(pending) = attempt.pending.as_mut() else {
            return;
        };
        let (what, is_none) = describe_request(&pending.request);
        let answer = if too_many {
            Answer::TooManyFailures
        } else {
            Answer::Failure
        };
        let elapsed = pending.arrived.elapsed();
        pending.step = Step::Answering { answer };
        if let Some(reason) = reason {
            self.counters.attempt(pending.way.name(), false);
            connection.conduct.failed(invalid_user);
            log::info!(target: LOGIN, "Failed {} for {named} from {place} ssh2{}", what.0, what.1);
            self.refused(key, Some(&user), reason);
        }
        if is_none && !too_many {
            return self.answer(key);
        }
        let wait = self.host.delay.remaining(&user, elapsed);
        self.timers.after(wait, Deadline::Answer(key));
    }

    /// The time for the answer has come.
    pub(super) fn answer(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        let place = connection.place();
        let (net, number) = (connection.net, connection.number);
        let Some(attempt) = connection.attempt() else {
            return;
        };
        let Some(Pending {
            step: Step::Answering { answer },
            ..
        }) = &attempt.pending
        else {
            return;
        };
        let too_many = *answer == Answer::TooManyFailures;
        attempt.pending = None;
        if too_many {
            let named = lines::named(attempt);
            let user = attempt.user.clone();
            log::info!(
                target: LOGIN,
                "error: maximum authentication attempts exceeded for {named} from {place} ssh2 [preauth]"
            );
            self.refused(key, Some(&user), "max-auth-tries");
            return self.disconnect(key, PROTOCOL_ERROR, "Too many authentication failures");
        }
        let methods = open_methods(attempt);
        if methods.is_empty() {
            return self.disconnect(key, NO_MORE_METHODS, "No authentication methods available");
        }
        let frame = ToNet::AuthFailure {
            methods,
            partial: false,
        };
        self.nets.send(&self.poller, net, number, &frame, &[]);
    }
}

/// Whether such a credential is looked for at all.
fn acceptable(
    public: &PublicKeyRequest<'_>,
    options: &Options,
    clock: Clock,
    host_key: &[u8],
) -> Result<Credential, Unacceptable> {
    let credential = Credential::accept(public, options, clock)?;
    if public.host_key.is_some_and(|claimed| claimed != host_key) {
        return Err(Unacceptable {
            code: "host-bound",
            words: "it is bound to another host key",
        });
    }
    Ok(credential)
}

/// What the log says of a request: method and key, and whether it was `none`.
fn describe_request(request: &[u8]) -> ((String, String), bool) {
    match AuthRequest::decode(request).map(|decoded| decoded.method) {
        Ok(Method::PublicKey(public)) => {
            let key = match credential::describe(public.key) {
                text if text.is_empty() => text,
                text => format!(": {text}"),
            };
            ((Way::PublicKey.name().to_owned(), key), false)
        }
        Ok(Method::None) => (("none".to_owned(), String::new()), true),
        Ok(Method::Password(_)) => ((Way::Password.name().to_owned(), String::new()), false),
        Ok(Method::KeyboardInteractive) => {
            let name = Way::KeyboardInteractive.name();
            ((name.to_owned(), String::new()), false)
        }
        Ok(Method::Other(name)) => ((lines::user_text(name), String::new()), false),
        Err(_) => (("unknown".to_owned(), String::new()), false),
    }
}

/// What SSH_MSG_USERAUTH_FAILURE lists.
fn open_methods(attempt: &Attempt) -> Vec<Bytes> {
    attempt.methods.open().map(Bytes::from).collect()
}

/// The method that a request is about; what is not served is about nothing.
fn way_of(request: &AuthRequest<'_>) -> Way {
    match request.method {
        Method::None | Method::Other(_) => Way::Nothing,
        Method::PublicKey(_) => Way::PublicKey,
        Method::Password(_) => Way::Password,
        Method::KeyboardInteractive => Way::KeyboardInteractive,
    }
}
